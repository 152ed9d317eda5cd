"""WebSocket frames: cut anywhere, interleaved, broken; wsproto is the other side."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong

from gateway.runtime.streams.frames import (
    MAX_FRAME_BYTES,
    BadFrame,
    FrameReader,
    binary_frame,
    close_frame,
    pong_frame,
    unmask,
)

MASK = b"\x01\x02\x03\x04"


def frame(first, payload=b"", *, mask=MASK):
    """A client's frame; `first` has the final bit and the opcode."""
    size = len(payload)
    if size <= 125:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size <= 65_535:
        head = struct.pack("!BBH", first, 0xFE, size)
    else:
        head = struct.pack("!BBQ", first, 0xFF, size)
    return head + mask + unmask(payload, mask)


def pieces(data, sizes):
    """Cut data into pieces of these sizes, in turns."""
    at = 0
    while at < len(data):
        for size in sizes:
            yield data[at : at + size]
            at += size


@pytest.mark.parametrize("size", [0, 1, 3, 125, 126, 127, 65_535, 65_536, 100_001])
def test_messages_of_every_length_come_out_as_they_went_in(size):
    payload = bytes(n % 251 for n in range(size))
    assert FrameReader().feed(frame(0x82, payload)) == payload
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(binary_frame(payload))
    assert b"".join(bytes(event.data) for event in client.events()) == payload


def test_a_message_cut_at_every_byte_is_the_same():
    data = (
        frame(0x82, b"0123456789" * 13) + frame(0x02, b"ab") + frame(0x89, b"ping") + frame(0x80, b"cd") + frame(0x88, b"\x03\xe8")
    )
    for at in range(len(data) + 1):
        reader = FrameReader()
        assert reader.feed(data[:at]) + reader.feed(data[at:]) == b"0123456789" * 13 + b"abcd"
        assert (reader.ping, reader.close_code) == (b"ping", 1000)


@given(
    messages=st.lists(st.tuples(st.binary(max_size=300), st.booleans()), max_size=8),
    pings=st.lists(st.binary(max_size=125), max_size=3),
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=4),
)
def test_what_wsproto_sends_is_understood_however_it_is_cut(messages, pings, sizes):
    client = Connection(ConnectionType.CLIENT)
    sent = b""
    for n, (payload, last) in enumerate(messages):
        sent += client.send(BytesMessage(payload, message_finished=last or n == len(messages) - 1))
        if n < len(pings):
            sent += client.send(Ping(pings[n]))
    reader = FrameReader()
    assert b"".join(reader.feed(piece) for piece in pieces(sent, sizes)) == b"".join(payload for payload, _ in messages)
    answered = pings[: len(messages)]
    assert reader.ping == (answered[-1] if answered else None)


@given(st.binary(max_size=200), st.integers(1, 60))
def test_any_bytes_are_read_or_refused_the_same_way_however_they_are_cut(data, size):
    def outcome(parts):
        reader = FrameReader()
        plain = b""
        try:
            for part in parts:
                plain += reader.feed(part)
        except BadFrame as bad:
            return bad.code
        return plain, reader.close_code

    whole, cut = outcome([data]), outcome(pieces(data, [size]))
    assert whole == cut


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(0x81, b"text"), 1003),
        (frame(0x01, b"text"), 1003),
        (frame(0x82, b"x")[:1] + b"\x01x", 1002),
        (frame(0xC2, b"x"), 1002),
        (frame(0x92, b"x"), 1002),
        (frame(0x83, b"x"), 1002),
        (frame(0x8B, b"x"), 1002),
        (frame(0x80, b"x"), 1002),
        (frame(0x02, b"x") + frame(0x82, b"y"), 1002),
        (frame(0x09, b"x"), 1002),
        (b"\x89\xfe\x00\x80" + MASK, 1002),
        (b"\x82\xfe\x00\x7d" + MASK, 1002),
        (b"\x82\xff" + struct.pack("!Q", 65_535) + MASK, 1002),
        (b"\x82\xff" + struct.pack("!Q", 1 << 63) + MASK, 1009),
        (b"\x82\xff" + struct.pack("!Q", MAX_FRAME_BYTES + 1) + MASK, 1009),
        (frame(0x88, b"\x03"), 1002),
        (frame(0x88, b"\x03\xed"), 1002),
        (frame(0x88, b"\x03\xe7"), 1002),
        (frame(0x88, b"\x13\x88"), 1002),
        (frame(0x88, b"\x03\xe8\xff"), 1007),
    ],
)
def test_what_breaks_the_framing_is_refused_with_the_code_that_says_so(data, code):
    with pytest.raises(BadFrame) as refused:
        FrameReader().feed(data)
    assert refused.value.code == code


def test_a_huge_frame_is_not_kept_until_it_is_whole():
    reader = FrameReader()
    assert reader.feed(b"\x82\xff" + struct.pack("!Q", MAX_FRAME_BYTES) + b"\0\0\0\0" + b"x" * 1000) == b"x" * 1000
    assert reader.feed(b"y" * 1000) == b"y" * 1000


def test_nothing_behind_a_close_frame_is_read():
    reader = FrameReader()
    assert reader.feed(frame(0x82, b"a") + frame(0x88) + frame(0x82, b"b") + b"\xff\xff\xff") == b"a"
    assert reader.close_code == 0
    assert reader.feed(frame(0x82, b"c")) == b""


def test_only_the_last_ping_is_left_to_be_answered():
    reader = FrameReader()
    reader.feed(frame(0x89, b"1") + frame(0x89, b"2") + frame(0x8A, b"unasked"))
    assert reader.ping == b"2"


def test_control_frames_are_as_wsproto_reads_them():
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(pong_frame(b"abc") + close_frame(1003))
    pong, close = client.events()
    assert isinstance(pong, Pong)
    assert bytes(pong.payload) == b"abc"
    assert isinstance(close, CloseConnection)
    assert close.code == 1003
