"""Packets and bytes: each the other's inverse, wherever a stream is cut, and no bytes do harm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_mqtt.codec.coding import connect_level, decode, encode, encode_length
from gateway_mqtt.codec.names import CLIENT, MAX_LENGTH, SERVER
from gateway_mqtt.codec.packets import Auth, Connect, MalformedPacket, Publish, UnknownLevel
from gateway_mqtt.codec.splitter import Splitter
from tests.mqtt.codec.strategies import LEVELS, blobs, leveled, packets


def decoded(head, payload, level=4, sender=CLIENT | SERVER):
    """Return the packet, or the error if it is malformed."""
    try:
        return decode(head, payload, level, sender)
    except MalformedPacket as error:
        return error


def split(splitter):
    frames = []
    while (frame := splitter.next()) is not None:
        frames.append(frame)
    return frames


@given(leveled())
def test_decoding_undoes_encoding(drawn):
    level, packet = drawn
    splitter = Splitter(level=level)
    splitter.feed(encode(packet, level))
    [frame] = split(splitter)
    assert decode(*frame, level) == packet


@given(st.sampled_from(LEVELS).flatmap(lambda level: st.tuples(st.just(level), st.lists(packets(level), min_size=1, max_size=4))))
def test_a_stream_may_be_cut_at_every_byte(drawn):
    level, sent = drawn
    stream = b"".join(encode(packet, level) for packet in sent)
    whole, cut = Splitter(), Splitter()
    whole.feed(stream)
    frames = []
    for at in range(len(stream)):
        cut.feed(stream[at : at + 1])
        frames += split(cut)
    assert frames == split(whole)
    assert [decode(*frame, level) for frame in frames] == sent


@given(st.integers(0, 255), blobs, st.sampled_from([4, 5]))
def test_any_bytes_are_malformed_or_a_packet_that_can_be_said_again(head, payload, level):
    packet = decoded(head, payload, level)
    if isinstance(packet, MalformedPacket):
        assert packet.spec.startswith("MQTT ")
        assert 0x80 <= packet.code <= 0xA2
        return
    again = encode(packet, level)
    if level == 4 and not (isinstance(packet, Connect) and packet.level in {3, 5}):
        assert again == bytes((head,)) + encode_length(len(payload)) + payload
    splitter = Splitter()
    splitter.feed(again)
    assert decode(*splitter.next(), level) == packet


@given(leveled(), st.data())
def test_a_packet_with_one_byte_changed_is_a_packet_or_malformed(drawn, data):
    level, packet = drawn
    raw = bytearray(encode(packet, level))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    splitter = Splitter(100_000)
    splitter.feed(bytes(raw))
    try:
        frames = split(splitter)
    except MalformedPacket:
        return
    for frame in frames:
        for sender in (CLIENT, SERVER):
            decoded(*frame, level, sender)
        connect_level(frame[1])


@given(leveled(), st.data())
def test_a_packet_that_ends_early_or_late_is_malformed_or_another_packet_but_never_itself(drawn, data):
    level, packet = drawn
    splitter = Splitter()
    splitter.feed(encode(packet, level))
    head, payload = splitter.next()
    other = data.draw(st.one_of(st.just(payload + b"\0"), st.integers(0, max(len(payload) - 1, 0)).map(lambda n: payload[:n])))
    # AUTH, DISCONNECT and the acks may say by a byte what they may leave unsaid.
    spoken = level == 5 and head >> 4 in {4, 5, 6, 7, 14} and other == payload + b"\0"
    assert other == payload or spoken or decoded(head, other, level) != packet


@pytest.mark.parametrize("level", LEVELS)
def test_what_the_level_does_not_have_is_left_out(level):
    properties = Auth().properties
    packet = Publish("t", b"x", 1, packet_id=7, properties=properties)
    assert encode(packet, level) == (b"\x32\x06\0\1t\0\x07x" if level < 5 else b"\x32\x07\0\1t\0\x07\0x")


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


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("raw", [b"\x30\xff\xff\xff\xff", b"\x30\x80\x80\x80\x00", b"\x30\x80\x00"])
def test_a_remaining_length_that_is_none_is_malformed_mqtt5_1_5_5_1(raw, level):
    splitter = Splitter(level=level)
    splitter.feed(raw)
    with pytest.raises(MalformedPacket, match="remaining length") as caught:
        splitter.next()
    assert caught.value.code == 0x81
    assert ("[MQTT5-1.5.5-1]" in caught.value.spec) is (level == 5)


def test_a_packet_beyond_the_limit_is_refused_before_its_bytes_come():
    splitter = Splitter(100, level=5)
    splitter.feed(b"\x30\x65")
    with pytest.raises(MalformedPacket, match="limit") as caught:
        splitter.next()
    assert caught.value.code == 0x95


def test_what_is_behind_a_packet_is_handed_back():
    splitter = Splitter()
    splitter.feed(b"\xc0\x00abc")
    assert splitter.next() == (0xC0, b"")
    assert splitter.rest() == b"abc"
    assert splitter.rest() == b""


@pytest.mark.parametrize(("name", "level"), [(b"MQTT", 6), (b"MQTT", 3), (b"MQIsdp", 4), (b"MQIsdp", 5), (b"MQTT", 0x85)])
def test_another_level_is_known_by_its_first_bytes_mqtt_3_1_2_2(name, level):
    payload = len(name).to_bytes(2, "big") + name + bytes((level,)) + b"whatever follows"
    with pytest.raises(UnknownLevel) as caught:
        decode(0x10, payload)
    assert (caught.value.code, caught.value.level) == (0x84, level)
    assert connect_level(payload) == 0


@pytest.mark.parametrize(("name", "level", "meant"), [(b"MQTT", 5, 5), (b"MQTT", 4, 4), (b"MQIsdp", 3, 3), (b"MQIsdp", 0x83, 3)])
def test_the_level_of_a_malformed_connect_is_known(name, level, meant):
    payload = len(name).to_bytes(2, "big") + name + bytes((level,))
    assert connect_level(payload) == meant
    assert connect_level(payload[:-1]) == 0


def test_a_bridge_of_mosquitto_is_known_by_its_level():
    connect = decode(0x10, b"\0\4MQTT\x84\2\0\0\0\1a")
    assert connect == Connect("a", keep_alive_s=0, bridge=True)


def test_in_mqtt_3_1_the_length_has_the_last_word_on_user_name_and_password():
    assert decode(0x10, b"\0\6MQIsdp\3\xc2\0\0\0\1a") == Connect("a", keep_alive_s=0, level=3)
    assert decode(0x10, b"\0\6MQIsdp\3\xc2\0\0\0\1a\0\1u") == Connect("a", keep_alive_s=0, level=3, user="u")
    assert isinstance(decoded(0x10, b"\0\4MQTT\4\xc2\0\0\0\1a"), MalformedPacket)


@pytest.mark.parametrize("head", [0x6A, 0x8A, 0xAA])
def test_in_mqtt_3_1_what_is_sent_again_may_say_so(head):
    payload = b"\0\1" + {0x6A: b"", 0x8A: b"\0\1a\0", 0xAA: b"\0\1a"}[head]
    assert not isinstance(decoded(head, payload, 3), MalformedPacket)
    assert isinstance(decoded(head, payload, 4), MalformedPacket)
