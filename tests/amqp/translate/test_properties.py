"""Are AMQP's properties what the common model says, and back, and do real clients read what others say?"""

from __future__ import annotations

import struct
from decimal import Decimal

import pamqp.header
import pika.spec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api import COMMON, NO_PROPERTIES, Message, Properties, encode_properties, with_properties
from gateway.engine.queues.dead_letter import Reason, dead_letter
from gateway.model.message import Decoders
from gateway_amqp.codec.names import Timestamp
from gateway_amqp.codec.tables import encode_table
from gateway_amqp.translate.properties import MALFORMED, WIRE_TAG, properties_for, read_wire
from gateway_mqtt.codec.properties import Properties as MqttProperties
from gateway_mqtt.codec.properties import encode_properties as encode_mqtt
from gateway_mqtt.translate.properties import WIRE_TAG as MQTT
from gateway_mqtt.translate.properties import read_wire as read_mqtt
from gateway_mqtt.translate.properties import wire_of
from tests.amqp.translate.reading import ADDRESS, NOON, headers_of, heard, pika_reads, said

NOON_S = int(NOON.timestamp())


@pytest.fixture(scope="module")
def decoders():
    known = Decoders()
    known.register(WIRE_TAG, read_wire)
    known.register(MQTT, read_mqtt)
    return known


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
