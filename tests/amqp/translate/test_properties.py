"""Are AMQP's properties what the common model says, and back, and do real clients read what others say?"""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pamqp.header
import pika.spec
import pytest
from amqp.serialization import decode_properties_basic
from hypothesis import given
from hypothesis import strategies as st

from gateway.api import COMMON, NO_PROPERTIES, Address, Message, Properties, encode_properties, with_properties
from gateway.engine.queues.dead_letter import Reason, dead_letter
from gateway.model.message import Decoders
from gateway_amqp.codec.content import spans
from gateway_amqp.codec.names import Timestamp
from gateway_amqp.codec.tables import decode_table, encode_table
from gateway_amqp.translate.properties import (
    BASE64,
    HEADERS,
    MALFORMED,
    MOST_BYTES,
    WIRE_TAG,
    from_common,
    properties_for,
    read_wire,
)
from gateway_amqp.translate.tables import OTHERS, TOO_LARGE
from gateway_mqtt.codec.properties import Properties as MqttProperties
from gateway_mqtt.codec.properties import encode_properties as encode_mqtt
from gateway_mqtt.translate.properties import WIRE_TAG as MQTT
from gateway_mqtt.translate.properties import read_wire as read_mqtt
from gateway_mqtt.translate.properties import wire_of

ADDRESS = Address("/", "amq.topic", "plant.3.temp")
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
NOON_S = int(NOON.timestamp())


@pytest.fixture(scope="module")
def decoders():
    known = Decoders()
    known.register(WIRE_TAG, read_wire)
    known.register(MQTT, read_mqtt)
    return known


def said(**properties):
    """Return the wire form of what another protocol's client says."""
    return from_common(Properties(**properties), Message(ADDRESS, b"", True))


def heard(wire):
    """Return what py-amqp reads."""
    properties, end = decode_properties_basic(wire, 0)
    assert end == len(wire)
    return properties


def pika_reads(wire):
    properties = pika.spec.BasicProperties()
    properties.decode(wire)
    return properties


def headers_of(wire):
    ((start, end),) = [(start, end) for flag, start, end in spans(wire) if flag == HEADERS]
    return decode_table(wire, start, end, faithful=True)


# -- what AMQP clients say


def test_all_properties_are_read():
    wire = pika.spec.BasicProperties(
        "text/plain", "gzip", {"a": 1, "when": NOON}, 2, 7, "c1", "answers", "60000", "m1", NOON_S, "kind", "guest", "app"
    )
    assert read_wire(b"".join(wire.encode())) == Properties(
        "text/plain", "gzip", {"a": 1, "when": NOON}, 7, "c1", "answers", 60_000, "m1", NOON_S, "kind", "guest", "app"
    )


@pytest.mark.parametrize("wire", [b"", b"\0\0", b"\x10\0\1", b"\x10\0\2"])
def test_what_says_nothing_has_no_properties(wire):
    assert read_wire(wire) is NO_PROPERTIES


def test_values_of_all_types_are_what_they_are_in_the_common_model():
    table = {
        "int": -(1 << 40),
        "bool": True,
        "none": None,
        "float": 1.5,
        "text": "é",
        "list": [1, ["a"]],
        "table": {"b": {"c": 1}},
        "bytes": bytearray(b"abc"),
        "binary": b"\xff",
        "time": Timestamp(NOON_S),
        "decimal": Decimal("1.25"),
    }
    assert read_wire(b"\x20\0" + encode_table(table)).headers == {
        **table,
        "bytes": b"abc",
        "binary": b"\xff",
        "time": NOON,
        "decimal": 1.25,
    }


def test_a_time_for_which_there_is_no_date_is_a_number():
    headers = read_wire(b"\x20\0" + encode_table({"last": Timestamp((1 << 64) - 1)})).headers
    assert headers == {"last": (1 << 64) - 1}
    assert encode_properties(Properties(headers=headers))


def test_text_that_is_no_utf_8_has_escapes():
    assert read_wire(b"\x80\x20\2a\xff\1t") == Properties(content_type="a\\xff", type="t")
    table = b"\1\xffI\0\0\0\1"
    assert read_wire(b"\x20\0" + len(table).to_bytes(4, "big") + table).headers == {"\\xff": 1}


@given(st.binary(max_size=60))
def test_whatever_is_on_the_wire_is_read(wire):
    properties = read_wire(wire)
    assert isinstance(properties, Properties)
    assert encode_properties(properties)


def test_what_can_not_be_read_is_told_whole():
    assert read_wire(b"\x20\0\0\0\0\xff") == Properties(headers={MALFORMED: b"\x20\0\0\0\0\xff"})


# -- what they are told


def test_amqp_clients_hear_what_amqp_clients_said_byte_for_byte(decoders):
    wire = b"\x20\0\0\0\0\7\1bB\7\1bB\7"
    assert properties_for(Message(ADDRESS, b"", True, WIRE_TAG, wire), decoders.properties) is wire


@pytest.mark.parametrize("persistent", [True, False])
def test_what_says_nothing_says_how_long_it_lasts(decoders, persistent):
    wire = properties_for(Message(ADDRESS, b"", persistent), decoders.properties)
    assert heard(wire) == {"delivery_mode": 2 if persistent else 1}
    assert wire is properties_for(Message(ADDRESS, b"other", persistent), decoders.properties)


def test_all_that_another_protocol_says_is_told(decoders):
    properties = Properties(
        "text/plain",
        "gzip",
        {"a": [1, "b"], "when": NOON},
        7,
        "c1",
        "/exchanges/amq.topic/a.b",
        60_000,
        "m1",
        NOON_S,
        "kind",
        "u",
        "app",
    )
    wire = properties_for(with_properties(ADDRESS, b"", properties), decoders.properties)
    assert heard(wire) == {
        "content_type": "text/plain",
        "content_encoding": "gzip",
        "application_headers": {"a": [1, "b"], "when": NOON.replace(tzinfo=None)},
        "delivery_mode": 2,
        "priority": 7,
        "correlation_id": "c1",
        "reply_to": "/exchanges/amq.topic/a.b",
        "expiration": "60000",
        "message_id": "m1",
        "timestamp": NOON_S,
        "type": "kind",
        "user_id": "u",
        "app_id": "app",
    }
    assert pika_reads(wire).headers == {"a": [1, "b"], "when": NOON}
    assert pamqp.header.ContentHeader().unmarshal(struct.pack(">HHQ", 60, 0, 0) + wire) is None
    assert read_wire(wire) == properties


def test_an_mqtt_message_is_told(decoders):
    kept = encode_mqtt(
        MqttProperties(content_type="a/b", correlation_data=b"7", response_topic="back/7", user=(("k", "v"), ("k", "w")))
    )
    message = Message(ADDRESS, b"21", True, MQTT, wire_of(2, kept[1:]), 0, 61_500)
    wire = properties_for(message, decoders.properties, lambda: 1_500)
    assert heard(wire) == {
        "content_type": "a/b",
        "application_headers": {"k": ["v", "w"]},
        "delivery_mode": 2,
        "correlation_id": "7",
        "reply_to": "/exchanges/amq.topic/back.7",
        "expiration": "60000",
    }


def test_what_is_left_is_told_where_nobody_said_a_duration(decoders):
    message = Message(ADDRESS, b"", False, "", b"", 0, 61_500)
    assert heard(properties_for(message, decoders.properties, lambda: 1_500)) == {"delivery_mode": 1, "expiration": "60000"}
    assert heard(properties_for(message, decoders.properties, lambda: 99_999))["expiration"] == "0"
    assert heard(properties_for(message, decoders.properties)) == {"delivery_mode": 1}


def test_a_priority_of_the_message_alone_is_told(decoders):
    assert heard(properties_for(Message(ADDRESS, b"", priority=3), decoders.properties)) == {"delivery_mode": 1, "priority": 3}


def test_a_decoder_that_fails_costs_nobody_the_message():
    def fails(_):
        raise ValueError

    wire = properties_for(Message(ADDRESS, b"", True, COMMON, b"\xc1"), fails)
    assert headers_of(wire) == {MALFORMED: bytearray(b"\xc1")}


# -- dead letters


def test_a_dead_letter_tells_its_history_with_times_and_comes_back_as_it_was(decoders):
    asked = pika.spec.BasicProperties(headers={"when": NOON, "n": 1, "raw": b"\xff"}, expiration="5", message_id="m")
    first = Message(ADDRESS, b"", True, WIRE_TAG, b"".join(asked.encode()))
    for times in (1, 2):
        dead = dead_letter(
            first,
            decoders.properties(first),
            "q",
            Reason.REJECTED,
            now_ms=NOON_S * 1_000,
            count=times,
            exchange="dlx",
            routing_key=None,
        )
        wire = properties_for(dead, decoders.properties)
        told = pika_reads(wire)
        (death,) = told.headers.pop("x-death")
        assert death == {
            "count": times,
            "reason": "rejected",
            "queue": "q",
            "time": NOON,
            "exchange": "amq.topic",
            "routing-keys": ["plant.3.temp"],
            "delivery-count": times,
            "original-expiration": "5",
        }
        assert {name: told.headers[name] for name in ("when", "n", "raw")} == {"when": NOON, "n": 1, "raw": b"\xff"}
        assert (told.expiration, told.message_id, told.delivery_mode) == (None, "m", 2)
        first = Message(ADDRESS, b"", True, WIRE_TAG, wire)  # a consumer publishes it again, with all that it was told
        assert read_wire(wire).headers["x-death"][0]["time"] == NOON_S


def test_a_history_that_is_none_is_told_as_it_is():
    for deaths in ("a", [1], [{"time": "x"}], [{}], {"time": 1}):
        assert read_wire(said(headers={"x-death": deaths})).headers == {"x-death": deaths}


# -- correlation ids


@given(
    st.binary(max_size=180) | st.binary(max_size=40).map(lambda data: BASE64.encode() + data) | st.text(max_size=60).map(str.encode)
)
def test_correlation_ids_come_back_from_who_reads_text(data):
    for identity in {data, data.decode() if is_utf8(data) else data}:
        told = heard(said(correlation_id=identity))["correlation_id"]  # as text, or py-amqp raises
        returned = read_wire(b"\4\0" + bytes((len(told.encode()),)) + told.encode()).correlation_id
        assert (returned.encode() if isinstance(returned, str) else returned) == data


@given(st.text(max_size=60) | st.sampled_from(["base64:AAAA", "base64:/w==", "base64:/x==", "base64: seven", "base64:"]))
def test_an_amqp_clients_correlation_id_comes_back_from_others(text):
    wire = b"\4\0" + bytes((len(text.encode()),)) + text.encode()
    asked = read_wire(wire).correlation_id
    as_mqtt = asked if isinstance(asked, bytes) else asked.encode()
    answered = as_mqtt.decode() if is_utf8(as_mqtt) else as_mqtt
    assert heard(said(correlation_id=answered))["correlation_id"] == text


def is_utf8(data):
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize("long", ["é" * 200, b"\xff" * 187])
def test_a_correlation_id_that_is_too_long_is_a_header(long):
    assert read_wire(said(correlation_id=long)) == Properties(headers={"x-correlation-id": long})


# -- what properties and tables can't hold


def test_properties_that_are_too_long_are_headers():
    long = "x" * 256
    wire = said(
        content_type=long,
        content_encoding=long,
        reply_to=long,
        message_id=long,
        type=long,
        user_id=long,
        app_id=long,
        headers={"a": 1},
    )
    names = ("content-type", "content-encoding", "reply-to", "message-id", "type", "user-id", "app-id")
    assert read_wire(wire) == Properties(headers={**{f"x-{name}": long for name in names}, "a": 1})


def test_numbers_that_are_too_large_are_headers():
    wire = said(priority=256, timestamp_s=253_402_300_800, headers={"x-priority": "mine"})
    assert heard(wire)["application_headers"] == {
        "x-priority": 256,
        "x-timestamp": 253_402_300_800,
        OTHERS: [{"name": "x-priority", "value": "mine"}],
    }


def test_headers_that_tables_do_not_hold_are_told_otherwise():
    deep: object = 1
    for _ in range(40):
        deep = [deep]
    told = headers_of(
        said(
            headers={
                "large": 1 << 63,
                "half": NOON + timedelta(milliseconds=500),
                "old": datetime(1960, 1, 1, tzinfo=UTC),
                "nan": math.nan,
                "inner": {1: "a", b"b": 2, "1": 3},
                "ext": msgspec.msgpack.Ext(4, b"\xff"),
                "n" * 256: 5,
                "bytes": b"ab",
                "deep": deep,
            }
        )
    )
    level = told.pop("deep")
    depth = 0
    while isinstance(level, list):
        (level,) = level
        depth += 1
    assert 20 < depth < 32
    assert level == "[" * (40 - depth) + "1" + "]" * (40 - depth)
    assert told == {
        "large": "9223372036854775808",
        "nan": "nan",
        "half": "2026-11-21T12:00:00.500000+00:00",
        "old": "1960-01-01T00:00:00+00:00",
        "inner": {"1": "a", "b": 2, OTHERS: [{"name": "1", "value": 3}]},
        "ext": "ext 4: /w==",
        "bytes": bytearray(b"ab"),
        OTHERS: [{"name": "n" * 256, "value": 5}],
    }


_leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=300)
    | st.binary(max_size=9)
    | st.datetimes()
    | st.datetimes(timezones=st.just(UTC))
    | st.builds(msgspec.msgpack.Ext, st.integers(0, 99), st.binary(max_size=3))
)
_values = st.recursive(
    _leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=4) | st.integers() | st.binary(max_size=2), inner, max_size=4)
    ),
    max_leaves=12,
)
_texts = st.none() | st.text(max_size=300)


@given(
    st.builds(
        Properties,
        content_type=_texts,
        headers=st.none()
        | st.dictionaries(st.text(max_size=300), _values | st.just({"time": 1}).map(lambda one: [one]), max_size=4),
        priority=st.none() | st.integers(-1, 300),
        correlation_id=_texts | st.binary(max_size=300),
        reply_to=_texts,
        expiration_ms=st.none() | st.integers(-5, 1 << 70),
        timestamp_s=st.none() | st.integers(-5, 1 << 70),
        user_id=_texts,
    )
)
def test_whatever_is_said_real_clients_can_read_it(properties):
    wire = from_common(properties, Message(ADDRESS, b"", True))
    read = heard(wire)
    pika_reads(wire)
    assert len(read.get("application_headers") or ()) >= len(properties.headers or ())
    assert read_wire(wire) != Properties(headers={MALFORMED: wire})


def test_headers_that_no_frame_holds_are_named():
    wire = said(headers={"a": 1, "large": "x" * 140_000, "more": b"y" * 140_000, "z": 2})
    assert len(wire) <= MOST_BYTES
    assert read_wire(wire).headers == {"a": 1, "z": 2, TOO_LARGE: ["large", "more"]}
    wire = said(headers={f"{number:0200}": number for number in range(1_000)})
    assert len(wire) <= MOST_BYTES
    told = read_wire(wire).headers
    assert told[TOO_LARGE] == f"{1_001 - len(told)} of 1000"
    assert len(told) > 400


def test_what_is_deeper_than_readers_read_is_no_error():
    deep: dict = {}
    for _ in range(5_000):
        deep = {"a": deep}
    assert "deep" in read_wire(said(headers={"deep": deep})).headers
