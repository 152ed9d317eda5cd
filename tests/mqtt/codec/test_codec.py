"""Packets and bytes: each the other's inverse, wherever a stream is cut, and no bytes do harm."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_mqtt.codec.coding import decode, encode, encode_length, topic_filter
from gateway_mqtt.codec.packets import (
    ACKS,
    FAILURE,
    MAX_LENGTH,
    SIGNALS,
    Ack,
    ConnAck,
    Connect,
    Disconnect,
    MalformedPacket,
    Publish,
    Signal,
    SubAck,
    Subscribe,
    Subscription,
    UnknownLevel,
    UnsubAck,
    Unsubscribe,
    Will,
)
from gateway_mqtt.codec.splitter import Splitter

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
topics = texts.map(lambda text: text.replace("+", "").replace("#", "") or "t")
filters = st.lists(st.sampled_from(["a", "+", "", "$x", "é"]), min_size=1, max_size=4).map("/".join).map(lambda f: f or "#")
blobs = st.binary(max_size=300)
identifiers = st.integers(1, 65_535)
wills = st.none() | st.builds(Will, topics, blobs, st.integers(0, 2), st.booleans())


@st.composite
def connects(draw: st.DrawFn) -> Connect:
    user = draw(st.none() | texts)
    password = draw(st.none() | blobs) if user is not None else None
    return Connect(
        draw(texts), draw(st.booleans()), draw(st.integers(0, 65_535)), draw(wills), user, password, draw(st.sampled_from([3, 4]))
    )


@st.composite
def publishes(draw: st.DrawFn) -> Publish:
    qos = draw(st.integers(0, 2))
    dup = draw(st.booleans()) if qos else False
    return Publish(draw(topics), draw(blobs), qos, draw(st.booleans()), dup, draw(identifiers) if qos else 0)


packets = st.one_of(
    connects(),
    publishes(),
    st.builds(ConnAck, st.just(False), st.integers(0, 5)),
    st.builds(Ack, st.sampled_from(ACKS), identifiers),
    st.builds(Signal, st.sampled_from(SIGNALS)),
    st.builds(UnsubAck, identifiers),
    st.just(Disconnect()),
    st.builds(
        Subscribe, identifiers, st.lists(st.builds(Subscription, filters, st.integers(0, 2)), min_size=1, max_size=5).map(tuple)
    ),
    st.builds(SubAck, identifiers, st.lists(st.sampled_from([0, 1, 2, FAILURE]), min_size=1).map(bytes)),
    st.builds(Unsubscribe, identifiers, st.lists(filters, min_size=1, max_size=5).map(tuple)),
)


def decoded(head, payload):
    """Return the packet, or the error if it is malformed."""
    try:
        return decode(head, payload)
    except MalformedPacket as error:
        return error


def split(splitter):
    frames = []
    while (frame := splitter.next()) is not None:
        frames.append(frame)
    return frames


@given(packets)
def test_decoding_undoes_encoding(packet):
    splitter = Splitter()
    splitter.feed(encode(packet))
    [frame] = split(splitter)
    assert decode(*frame) == packet


@given(st.lists(packets, min_size=1, max_size=4))
def test_a_stream_may_be_cut_at_every_byte(sent):
    stream = b"".join(map(encode, sent))
    whole, cut = Splitter(), Splitter()
    whole.feed(stream)
    frames = []
    for at in range(len(stream)):
        cut.feed(stream[at : at + 1])
        frames += split(cut)
    assert frames == split(whole)
    assert [decode(*frame) for frame in frames] == sent


@given(st.integers(0, 255), blobs)
def test_any_bytes_are_a_packet_or_malformed_and_what_is_a_packet_is_canonical(head, payload):
    packet = decoded(head, payload)
    if isinstance(packet, MalformedPacket):
        assert packet.spec.startswith("MQTT 3.1.1 ")
    else:
        assert encode(packet) == bytes((head,)) + encode_length(len(payload)) + payload


@given(packets, st.data())
def test_a_packet_with_one_byte_changed_is_a_packet_or_malformed(packet, data):
    raw = bytearray(encode(packet))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    splitter = Splitter(100_000)
    splitter.feed(bytes(raw))
    with contextlib.suppress(MalformedPacket):
        for frame in split(splitter):
            decode(*frame)


@given(packets, st.data())
def test_a_packet_that_ends_early_or_late_is_malformed_or_another_packet_but_never_itself(packet, data):
    splitter = Splitter()
    splitter.feed(encode(packet))
    head, payload = splitter.next()
    other = data.draw(st.one_of(st.just(payload + b"\0"), st.integers(0, max(len(payload) - 1, 0)).map(lambda n: payload[:n])))
    assert other == payload or decoded(head, other) != packet


@pytest.mark.parametrize(
    ("length", "raw"),
    [
        (0, b"\x00"),
        (127, b"\x7f"),
        (128, b"\x80\x01"),
        (16_383, b"\xff\x7f"),
        (16_384, b"\x80\x80\x01"),
        (2_097_151, b"\xff\xff\x7f"),
        (2_097_152, b"\x80\x80\x80\x01"),
        (268_435_455, b"\xff\xff\xff\x7f"),
    ],
)
def test_the_remaining_length_is_as_in_table_2_4(length, raw):
    assert encode_length(length) == raw


def test_what_is_too_long_for_mqtt_is_not_encoded():
    with pytest.raises(ValueError, match="too long"):
        encode_length(MAX_LENGTH + 1)
    with pytest.raises(ValueError, match="too long"):
        encode(Publish("t" * 65_536, b""))


@pytest.mark.parametrize("raw", [b"\x30\xff\xff\xff\xff", b"\x30\x80\x80\x80\x00", b"\x30\x80\x00"])
def test_a_remaining_length_that_is_none_is_malformed(raw):
    splitter = Splitter()
    splitter.feed(raw)
    with pytest.raises(MalformedPacket, match="remaining length"):
        splitter.next()


def test_a_packet_beyond_the_limit_is_refused_before_its_bytes_come():
    splitter = Splitter(100)
    splitter.feed(b"\x30\x65")
    with pytest.raises(MalformedPacket, match="limit"):
        splitter.next()


def test_what_is_behind_a_packet_is_handed_back():
    splitter = Splitter()
    splitter.feed(b"\xc0\x00abc")
    assert splitter.next() == (0xC0, b"")
    assert splitter.rest() == b"abc"
    assert splitter.rest() == b""


@pytest.mark.parametrize(("name", "level"), [(b"MQTT", 6), (b"MQTT", 3), (b"MQIsdp", 4), (b"MQTT", 0x85)])
def test_another_level_is_known_by_its_first_bytes_mqtt_3_1_2_2(name, level):
    with pytest.raises(UnknownLevel):
        decode(0x10, len(name).to_bytes(2, "big") + name + bytes((level,)) + b"whatever follows")


@pytest.mark.parametrize("pattern", ["#", "+", "/", "+/+", "/#", "a/#", "+/a/#", "a//b", "a b", "$SYS/#", "été/+"])
def test_well_formed_filters_are_taken(pattern):
    assert topic_filter(pattern.encode()) == pattern


@pytest.mark.parametrize("pattern", ["", "a#", "#a", "#/", "a/#/", "##", "+a", "a+", "++", "a/+b", "a/b#"])
def test_ill_formed_filters_are_refused_mqtt_4_7_1(pattern):
    with pytest.raises(MalformedPacket):
        topic_filter(pattern.encode())
