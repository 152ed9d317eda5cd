"""MQTT 5 properties: what a message keeps of them, what other protocols see, and what MQTT 5 sees of theirs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api import (
    NO_PROPERTIES,
    Address,
    Message,
    Properties,
    decode_properties,
    encode_properties,
    reply_address,
    swap_key,
    with_properties,
)
from gateway_mqtt.codec import properties as mqtt
from gateway_mqtt.codec.coding import decode, encode
from gateway_mqtt.codec.fields import is_utf8
from gateway_mqtt.codec.packets import PUBLISH, Publish
from gateway_mqtt.codec.publishing import publish_properties
from gateway_mqtt.codec.splitter import Splitter
from gateway_mqtt.translate.messages import Encoder
from gateway_mqtt.translate.properties import (
    RETAIN,
    WIRE_TAG,
    from_common,
    published_qos,
    read_wire,
    to_common,
    wire_of,
)

text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
topics = st.text(st.characters(codec="utf-8", exclude_characters="\0+#"), min_size=1, max_size=20)
users = st.lists(st.tuples(st.sampled_from(["a", "b", "a b", ""]) | text, text), max_size=6).map(tuple)
said = st.builds(
    mqtt.Properties,
    payload_format=st.sampled_from([None, 0, 1]),
    message_expiry_s=st.none() | st.integers(0, 0xFFFF_FFFF),
    content_type=st.none() | text,
    response_topic=st.none() | topics,
    correlation_data=st.none() | st.binary(max_size=20),
    topic_alias=st.none() | st.integers(1, 65_535),
    user=users,
)
values = text.filter(lambda value: value != "") | text
headers = st.dictionaries(text, values | st.lists(values, min_size=2, max_size=3), max_size=4)
plain = st.builds(
    Properties,
    content_type=st.none() | text,
    content_encoding=st.sampled_from([None, "utf-8"]),
    headers=st.none() | headers.filter(bool),
    correlation_id=st.none() | text | st.binary(max_size=20).filter(lambda data: not is_utf8(data)),
    reply_to=st.none()
    | topics.map(lambda topic: reply_address("amq.topic", swap_key(topic)))
    | st.text(st.characters(codec="utf-8"), min_size=1, max_size=20),
)
NOW_MS = 1_700_000_000_000


def encoder(level=5, now_ms=NOW_MS):
    return Encoder(level, properties_of, lambda: now_ms)


def properties_of(message):
    return {"mqtt": read_wire, "common": decode_properties}[message.wire_tag](message.wire)


def packet(parts, body, packet_id=b""):
    start, section = parts
    splitter = Splitter()
    splitter.feed(start + packet_id + section + body)
    return decode(*splitter.next(), 5)


def raw_of(properties):
    data = mqtt.encode_properties(properties)
    return data[1 if data[0] < 128 else 2 :]


@given(said, st.integers(0, 2), st.booleans(), st.binary(max_size=30))
def test_what_one_mqtt_5_client_says_another_hears_with_user_properties_in_order_mqtt5_3_3_2_18(properties, qos, retain, body):
    found = publish_properties(raw_of(properties))
    wire = wire_of(qos | (RETAIN if retain else 0), found.kept)
    expiry_s = properties.message_expiry_s
    expires_at_ms = 0 if expiry_s is None else NOW_MS + (expiry_s * 1000 or 1)
    message = Message(Address("/", "amq.topic", "a.b"), body, qos > 0, WIRE_TAG if wire else "", wire, 0, expires_at_ms)
    heard = packet(encoder().packet_parts(message, qos, int(retain)), body, b"\0\7" if qos else b"")
    expected = replace(properties, topic_alias=None)
    assert heard == Publish("a/b", body, qos, retain, False, 7 if qos else 0, expected)
    assert published_qos(message) == qos
    assert bool(wire and wire[0] & RETAIN) == retain


@given(said)
def test_to_level_3_a_message_goes_without_properties(properties):
    wire = wire_of(2, publish_properties(raw_of(properties)).kept)
    message = Message(Address("/", "amq.topic", "a.b"), b"x", True, WIRE_TAG, wire, 0, NOW_MS + 5)
    low = encoder(4)
    assert low.encode_packet(message) == encode(Publish("a/b", b"x"))
    assert low.encode_front(message) + b"\0\7x" == encode(Publish("a/b", b"x", 1, packet_id=7))
    assert low.packet_parts(message, 2) == (encode(Publish("a/b", b"x", 2, packet_id=7))[:-3], b"")


@given(topics)
def test_a_topic_that_leads_to_who_asked_is_the_same_there_and_back(topic):
    asked = to_common(mqtt.Properties(response_topic=f"$reply/{topic}"))
    assert to_common(mqtt.decode_properties(PUBLISH, from_common(asked, b""))) == asked


@given(plain)
def test_what_the_common_model_and_mqtt_5_both_have_is_the_same_there_and_back(properties):
    assert to_common(mqtt.decode_properties(PUBLISH, from_common(properties, b"body"))) == properties


@given(said)
def test_every_property_of_the_message_is_there_in_the_common_model(properties):
    common = read_wire(wire_of(0, publish_properties(raw_of(properties)).kept))
    back = mqtt.decode_properties(PUBLISH, from_common(common, b""))
    assert back.content_type == properties.content_type
    assert back.correlation_data == properties.correlation_data
    assert back.response_topic == properties.response_topic
    assert (back.payload_format or 0) == (properties.payload_format or 0)
    assert sorted(back.user) == sorted(properties.user)
    assert list(dict.fromkeys(name for name, _ in back.user)) == list(dict.fromkeys(name for name, _ in properties.user))


def test_flags_alone_are_no_properties_and_say_nothing_where_the_message_itself_does():
    assert (wire_of(0, b""), wire_of(1, b"")) == (b"", b"")
    assert (wire_of(2, b""), wire_of(RETAIN, b"")) == (b"\2", b"\4")
    assert read_wire(b"\2") == read_wire(b"") == NO_PROPERTIES
    elsewhere = Message(Address("/", "amq.topic", "a"), b"", True)
    assert published_qos(elsewhere) == 1


def test_what_only_amqp_has_becomes_user_properties():
    common = Properties(
        headers={"n": 7, "yes": True, "list": ["a", 1], "map": {"k": None}, "raw": b"\xffx", "none": None},
        content_encoding="gzip",
        priority=3,
        correlation_id="text é",
        reply_to="a queue",
        message_id="m",
        timestamp_s=5,
        type="t",
        user_id="u",
        app_id="a",
    )
    heard = mqtt.decode_properties(PUBLISH, from_common(common, b""))
    assert heard.correlation_data == "text é".encode()
    assert heard.response_topic == "$reply/a queue"
    assert heard.user == (
        ("n", "7"), ("yes", "true"), ("list", "a"), ("list", "1"), ("map", '{"k": null}'), ("raw", "\ufffdx"),
        ("content-encoding", "gzip"), ("message-id", "m"), ("timestamp", "5"), ("type", "t"),
        ("user-id", "u"), ("app-id", "a"), ("priority", "3"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({b"k": 1, 2: b"\xc3\xa9", None: [b"x"]}, '{"k": 1, "2": "é", "null": ["x"]}'),
        ({("a", 1): {b"b": ()}}, '{"(\'a\', 1)": {"b": []}}'),
        ([[b"x", {b"k": None}]], '["x", {"k": null}]'),
    ],
)
def test_what_only_msgpack_can_nest_is_said_as_json(value, text):
    heard = mqtt.decode_properties(PUBLISH, from_common(Properties(headers={"h": value}), b""))
    assert heard.user == (("h", text),)


@pytest.mark.parametrize(
    ("common", "heard"),
    [
        (Properties(content_type="a\0b"), mqtt.Properties(content_type="a\ufffdb")),
        (Properties(content_type="x" * 65_536), mqtt.Properties()),
        (Properties(headers={"x" * 65_536: "1", "a": "y" * 65_536, "b": "\ud800"}), mqtt.Properties(user=(("b", "?"),))),
        (Properties(correlation_id=b"x" * 65_536), mqtt.Properties()),
        (Properties(reply_to="/exchanges/amq.topic/a.%2B"), mqtt.Properties(response_topic="a/*")),
        (Properties(reply_to="/exchanges/amq.topic/a.*"), mqtt.Properties(response_topic="$reply//exchanges/amq.topic/a.*")),
        (Properties(reply_to="/exchanges/other/a"), mqtt.Properties(response_topic="$reply//exchanges/other/a")),
        (Properties(reply_to="a+b/#"), mqtt.Properties(response_topic="$reply/a%2Bb/%23")),
        (Properties(reply_to=""), mqtt.Properties(user=(("reply-to", ""),))),
        (Properties(reply_to="\ud800"), mqtt.Properties(user=(("reply-to", "?"),))),
        (Properties(content_encoding="UTF-8"), mqtt.Properties(user=(("content-encoding", "UTF-8"),))),
    ],
)
def test_what_mqtt_can_not_carry_is_left_out_or_said_otherwise(common, heard):
    assert mqtt.decode_properties(PUBLISH, from_common(common, b"\xff")) == heard


def test_a_payload_that_is_said_to_be_utf_8_and_is_has_format_1():
    assert mqtt.decode_properties(PUBLISH, from_common(Properties(content_encoding="UTF-8"), "é".encode())).payload_format == 1


def test_a_message_of_another_protocol_has_its_properties_at_level_5_and_they_are_read_once():
    read = []

    def properties(message):
        read.append(message)
        return properties_of(message)

    common = Properties(headers={"trace": "1"}, content_type="text/plain")
    message = with_properties(Address("/", "amq.topic", "a.b"), b"x", common)
    assert message.wire == encode_properties(common)
    five = Encoder(5, properties, lambda: NOW_MS)
    for _ in range(3):
        heard = packet(five.packet_parts(message, 1), b"x", b"\0\1")
        assert heard.properties == mqtt.Properties(content_type="text/plain", user=(("trace", "1"),))
    assert five.encode_packet(message) == encode(Publish("a/b", b"x", properties=heard.properties), 5)
    assert read == [message]
    assert five.plain is message
    assert five.encode_front(message) == b""


@pytest.mark.parametrize(("waited_ms", "left_s"), [(0, 10), (998, 10), (1_000, 9), (9_001, 1), (9_999, 0), (20_000, 0)])
def test_message_expiry_is_counted_down_in_seconds_that_have_passed_mqtt5_3_3_2_6(waited_ms, left_s):
    message = Message(Address("/", "amq.topic", "a"), b"x", False, "", b"", 0, NOW_MS + 10_000)
    five = encoder(5, NOW_MS + waited_ms)
    assert packet(five.packet_parts(message, 0), b"x").properties.message_expiry_s == left_s
    assert five.encode_packet(message) == encode(Publish("a", b"x", properties=mqtt.Properties(message_expiry_s=left_s)), 5)
    assert five.plain is None


def test_an_expiry_beyond_what_mqtt_can_say_is_the_most_that_it_can():
    message = Message(Address("/", "amq.topic", "a"), b"x", False, "", b"", 0, NOW_MS + (1 << 50))
    assert packet(encoder().packet_parts(message, 0), b"x").properties.message_expiry_s == 0xFFFF_FFFF


def test_aliases_and_subscription_identifiers_are_each_receivers_own():
    message = Message(Address("/", "amq.topic", "a"), b"x", True, WIRE_TAG, b"\1" + raw_of(mqtt.Properties(content_type="c")))
    five = encoder()
    first = packet(five.packet_parts(message, 1, 8, (3, 300), 7), b"x", b"\0\1")
    expected = mqtt.Properties(content_type="c", subscription_ids=(3, 300), topic_alias=7)
    assert first == Publish("a", b"x", 1, False, True, 1, expected)
    second = packet(five.packet_parts(message, 1, 0, (), 7, with_topic=False), b"x", b"\0\2")
    assert second == Publish("", b"x", 1, packet_id=2, properties=mqtt.Properties(content_type="c", topic_alias=7))
    assert packet(five.packet_parts(message, 0), b"x").properties == mqtt.Properties(content_type="c")
