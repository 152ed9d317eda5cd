"""The fast way through the properties of a PUBLISH says what the whole one says."""

from __future__ import annotations

import dataclasses

from hypothesis import example, given
from hypothesis import strategies as st

from gateway_mqtt.codec.names import CLIENT, PUBLISH, MalformedPacket
from gateway_mqtt.codec.properties import decode_properties, raw_properties
from gateway_mqtt.codec.publishing import encode_publish_properties, publish_properties
from tests.mqtt.codec.strategies import properties

raws = properties(PUBLISH).map(lambda held: raw_properties(dataclasses.replace(held, subscription_ids=())))


def outcome(function, *args):
    try:
        return function(*args)
    except MalformedPacket as error:
        return error.code, error.spec


def check(raw):
    """Both ways find the same, or the same fault."""
    fast, whole = outcome(publish_properties, raw), outcome(decode_properties, PUBLISH, raw, CLIENT)
    if isinstance(fast, tuple) or isinstance(whole, tuple):
        return fast == whole
    kept = decode_properties(PUBLISH, fast.kept, CLIENT)
    assert kept == dataclasses.replace(whole, topic_alias=None, message_expiry_s=None)
    assert (fast.topic_alias or None, fast.message_expiry_s) == (whole.topic_alias, whole.message_expiry_s)
    return (fast.payload_format, fast.response_topic) == (whole.payload_format or 0, whole.response_topic)


@given(raws)
def test_sound_properties_are_read_alike(raw):
    assert isinstance(outcome(publish_properties, raw).kept, bytes)
    assert check(raw)


@given(raws, st.data())
def test_with_one_byte_changed_both_ways_refuse_or_find_the_same(raw, data):
    raw = bytearray(raw or b"\1\0")
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    fast, whole = outcome(publish_properties, bytes(raw)), outcome(decode_properties, PUBLISH, bytes(raw), CLIENT)
    assert isinstance(fast, tuple) is isinstance(whole, tuple)
    assert isinstance(fast, tuple) or check(bytes(raw))


@given(st.binary(max_size=40))
@example(b"\x0b\1")
@example(b"\x23\0\0")
@example(b"\x23\0\1")
@example(b"\x23\0")
@example(b"\x01\x02")
@example(b"\x26\0\1a\0")
@example(b"\x26\0\1a\0\1")
@example(b"\x08\0\1#")
def test_any_bytes_are_refused_by_both_or_none(raw):
    fast, whole = outcome(publish_properties, raw), outcome(decode_properties, PUBLISH, raw, CLIENT)
    assert isinstance(fast, tuple) is isinstance(whole, tuple)
    assert isinstance(fast, tuple) or check(raw)


def test_what_has_nothing_to_be_taken_out_is_kept_as_the_same_bytes():
    raw = b"\1\1\x26\0\1a\0\1b"
    assert publish_properties(raw).kept is raw


def test_the_order_of_what_is_kept_stays():
    raw = b"\x26\0\1b\0\1x" + b"\x02\0\0\0\7" + b"\x03\0\1c" + b"\x23\0\5" + b"\x26\0\1a\0\1y"
    found = publish_properties(raw)
    assert found.kept == b"\x26\0\1b\0\1x" + b"\x03\0\1c" + b"\x26\0\1a\0\1y"
    assert (found.message_expiry_s, found.topic_alias) == (7, 5)


def test_a_message_expiry_of_0_is_one():
    assert publish_properties(b"\x02\0\0\0\0").message_expiry_s == 0
    assert publish_properties(b"").message_expiry_s is None


@given(
    raws,
    st.none() | st.integers(0, 0xFFFF_FFFF),
    st.none() | st.integers(1, 0xFFFF),
    st.lists(st.integers(1, 268_435_455), max_size=3).map(tuple),
)
def test_what_is_put_beside_the_kept_comes_out_again(raw, message_expiry_s, topic_alias, subscription_ids):
    kept = publish_properties(raw).kept
    data = encode_publish_properties(kept, message_expiry_s, topic_alias, subscription_ids)
    start = 1 if data[0] < 128 else 2
    whole = decode_properties(PUBLISH, data[start:])
    expected = decode_properties(PUBLISH, kept)
    assert whole == dataclasses.replace(
        expected, message_expiry_s=message_expiry_s, topic_alias=topic_alias, subscription_ids=subscription_ids
    )
