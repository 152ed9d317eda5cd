"""Frames and contents: the same whatever a stream is cut into, bounded, and no bytes do harm."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_amqp.codec import reading
from gateway_amqp.codec.names import BASIC_PUBLISH, CHANNEL_CLOSE, CHANNEL_CLOSE_OK, QUEUE_DECLARE, TX_SELECT, HardError
from tests.amqp.codec.streams import (
    MOST_BYTES,
    PERSISTENT,
    ack,
    address,
    body,
    frame,
    header,
    method,
    publish,
    published,
    splitter,
)

HEARTBEAT = frame(8, 0, b"")
SAMPLE = b"".join([
    method(0, 0x000A000B, b"start-ok"), HEARTBEAT, *publish(1), *publish(1, b"y"), *publish(1, b"z"), ack(2, 7),
    ack(2, 1 << 63, multiple=True), *publish(2, b"", key=b"empty"), method(3, TX_SELECT), *publish(3, b"abcdef", step=2),
    method(9, QUEUE_DECLARE, b"?"), HEARTBEAT,
])  # fmt: skip
HEARD = [
    ("stray", 0, 0x000A000B, b"start-ok"), ("heartbeat",), published(1), published(1, b"y"), published(1, b"z"),
    ("ack", 2, 7, False), ("ack", 2, 1 << 63, True), published(2, b"", b"empty"), ("method", 3, TX_SELECT, b""),
    published(3, b"abcdef"), ("stray", 9, QUEUE_DECLARE, b"?"), ("heartbeat",),
]  # fmt: skip


def broken(stream, code, **options):
    """Feed what is wrong; return the error's text, what was heard, and the splitter."""
    parts, events = splitter(**options)
    with pytest.raises(HardError) as caught:
        parts.feed(stream)
    assert caught.value.code == code
    return caught.value.text, events, parts


@pytest.mark.parametrize("at", range(1, len(SAMPLE)))
def test_a_stream_in_two_reads_is_the_same_wherever_it_is_cut(at):
    parts, events = splitter()
    parts.feed(SAMPLE[:at])
    assert parts.feed(SAMPLE[at:])
    assert events == HEARD
    assert parts.held_bytes == 0


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 8, 11, 12, 19, 20, len(SAMPLE)])
def test_a_stream_is_the_same_in_reads_of_any_size(step):
    parts, events = splitter()
    for at in range(0, len(SAMPLE), step):
        parts.feed(SAMPLE[at : at + step])
    assert events == HEARD
    assert parts.held_bytes == 0


def test_what_is_not_whole_is_said_so_and_held():
    parts, events = splitter()
    assert not parts.feed(HEARTBEAT[:3])
    assert not parts.feed(HEARTBEAT[3:7])
    assert parts.held_bytes == 7
    assert parts.feed(HEARTBEAT[7:])
    assert parts.held_bytes == 0
    assert events == [("heartbeat",)]


bodies = st.binary(max_size=40)
numbers = st.integers(1, 3)
raws = st.sampled_from([PERSISTENT, b"\0\0", b"\x80\0\x01a", b"\x90\0\x01a\x01"])
publishes = st.builds(
    lambda number, data, key, raw, step: (publish(number, data, key, raw, step), published(number, data, key, raw)),
    numbers, bodies, st.sampled_from([b"k", b"", b"key.two"]), raws, st.integers(1, 50),
)  # fmt: skip
acks = st.builds(
    lambda number, tag, many: ([ack(number, tag, many)], ("ack", number, tag, many)),
    numbers, st.integers(0, 2**64 - 1), st.booleans(),
)  # fmt: skip
methods = st.builds(
    lambda number, id_, arguments: ([method(number, id_, arguments)], ("method", number, id_, arguments)),
    numbers, st.sampled_from([TX_SELECT, QUEUE_DECLARE]), st.binary(max_size=9),
)  # fmt: skip
heartbeats = st.just(([HEARTBEAT], ("heartbeat",)))
items = st.one_of(publishes, acks, methods, heartbeats)


@given(
    st.lists(st.one_of(items, st.integers(2, 6).flatmap(lambda times: publishes.map(lambda item: (item, times)))), max_size=12),
    st.data(),
)
def test_any_stream_of_whole_messages_is_the_same_in_any_cuts(chosen, data):
    stream, expected = b"", []
    for item in chosen:
        (frames, event), times = item if isinstance(item[1], int) else (item, 1)
        stream += b"".join(frames) * times
        expected += [event] * times
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    parts, events = splitter()
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        parts.feed(stream[start:end])
    assert events == expected
    assert parts.held_bytes == 0


@given(st.lists(publishes, min_size=3, max_size=3), st.data())
def test_contents_of_several_channels_may_be_mixed(chosen, data):
    rows = [[], [], []]
    events_of = [[], [], []]
    for frames, event in chosen:
        rows[event[1] - 1] += frames
        events_of[event[1] - 1].append(event)
    stream = b""
    while any(rows):
        stream += data.draw(st.sampled_from([row for row in rows if row])).pop(0)
    parts, events = splitter()
    cut = data.draw(st.integers(0, len(stream)))
    parts.feed(stream[:cut])
    parts.feed(stream[cut:])
    for number in (1, 2, 3):
        assert [event for event in events if event[1] == number] == events_of[number - 1]
    assert parts.held_bytes == 0


@pytest.mark.parametrize("count", range(1, 6))
def test_a_run_of_like_publishes_keeps_each_body(count):
    expected = [published(1, b"%05d" % n) for n in range(count)]
    parts, events = splitter()
    parts.feed(b"".join(b"".join(publish(1, b"%05d" % n)) for n in range(count)) + ack(1, 1))
    assert events == [*expected, ("ack", 1, 1, False)]


def test_a_run_of_like_publishes_ends_at_a_frame_whose_end_is_wrong():
    one = b"".join(publish(1))
    text, events, parts = broken(one * 4 + one[:-1] + b"\0", 501)
    assert text == 'type 3, all octets = <<"x">>: {invalid_frame_end_marker,0}'
    assert events == [published(1)] * 4
    assert parts.over


def test_a_callback_in_a_run_may_take_its_channel_away():
    parts, events = splitter()
    channel = parts.channels[1]
    channel.then = lambda: parts.channels.pop(1) if len(events) == 4 else None
    parts.feed(b"".join(publish(1)) * 4 + method(1, CHANNEL_CLOSE_OK))
    assert events == [*[published(1)] * 4, ("stray", 1, CHANNEL_CLOSE_OK, b"")]


def test_a_callback_in_a_run_may_end_it():
    parts, events = splitter()

    def end():
        parts.over = len(events) == 5

    parts.channels[1].then = end
    parts.feed(b"".join(publish(1)) * 9)
    assert events == [published(1)] * 5
    assert not parts.feed(HEARTBEAT)
    assert events == [published(1)] * 5
    assert parts.held_bytes == 0


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_what_follows_a_callback_that_raises_is_taken_by_the_next_call(count):
    parts, events = splitter()

    def fail():
        if len(events) == count:
            raise HardError(530, "no more")

    parts.channels[1].then = fail
    stream = b"".join(publish(1)) * 4 + ack(2, 1)
    with pytest.raises(HardError):
        parts.feed(stream)
    assert parts.feed(b"")
    assert events == [*[published(1)] * 4, ("ack", 2, 1, False)]


@pytest.mark.parametrize("extra", [0, 1])
def test_a_frame_s_payload_may_be_frame_max_bytes(extra):
    stream = method(1, TX_SELECT, bytes(4092 + extra))
    if not extra:
        parts, events = splitter()
        parts.feed(stream)
        assert events == [("method", 1, TX_SELECT, bytes(4092))]
        return
    text, events, parts = broken(stream[:7], 501)  # at once: the rest isn't waited for
    assert text == "type 1, all octets = <<>>: {frame_too_large,4097,4088}"
    assert parts.over
    assert parts.held_bytes == 0


@pytest.mark.parametrize("which", [1, 2])
def test_content_frames_beyond_frame_max_are_refused_also_behind_a_publish(which):
    frames = [method(1, BASIC_PUBLISH, address()), header(1, 5000, PERSISTENT), body(1, bytes(5000))]
    if which == 1:
        frames[1] = header(1, 1, b"\x80\0" + bytes(5000))
    text, events, _ = broken(b"".join(frames), 501)
    assert "frame_too_large" in text
    assert events == []


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (frame(4, 1, b"abc"), 'type 4, all octets = <<"abc">>: unknown_frame'),
        (frame(0, 0, bytes(20)), "type 0, first 16 octets = <<0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0>>: unknown_frame"),
        (frame(8, 0, b"\0\1"), "type 8, all octets = <<0,1>>: unknown_frame"),
        (frame(1, 1, b"\0\1\2"), "type 1, all octets = <<0,1,2>>: unknown_frame"),
        (b"HTTP/1.1 200 OK\r\n", "type 72, all octets = <<>>: {frame_too_large,1345270062,4088}"),
    ],
)
def test_what_is_no_frame_ends_the_stream(stream, text):
    told, events, parts = broken(stream + HEARTBEAT, 501)
    assert told == text
    assert not parts.feed(HEARTBEAT)
    assert events == []


PUBLISH = method(1, BASIC_PUBLISH, address())
NO_HEADER = "expected content header for class 60, got non content header frame instead"
NO_BODY = "expected content body, got non content body frame instead"
NO_METHOD = "expected method frame, got non method frame instead"


@pytest.mark.parametrize(
    ("frames", "code", "text"),
    [
        ([PUBLISH, PUBLISH], 505, NO_HEADER),
        ([PUBLISH, ack(1, 1)], 505, NO_HEADER),
        ([PUBLISH, body(1, b"x")], 505, NO_HEADER),
        (
            [PUBLISH, header(1, 3)[:7] + bytes((0,)) * 15 + b"\xce"],
            505,
            "expected content header for class 60, got one for class 0 instead",
        ),
        ([PUBLISH, frame(2, 1, bytes(11))], 505, NO_HEADER),
        ([PUBLISH, header(1, 3, weight=1)], 505, NO_HEADER),
        ([PUBLISH, header(1, 3, class_=50)], 505, "expected content header for class 60, got one for class 50 instead"),
        ([PUBLISH, header(1, 3), header(1, 3)], 505, NO_BODY),
        ([PUBLISH, header(1, 3), body(1, b"x"), header(1, 3)], 505, NO_BODY),
        ([PUBLISH, header(1, 3), body(1, b"x"), ack(1, 1)], 505, NO_BODY),
        ([PUBLISH, header(1, 3), body(1, b"x"), PUBLISH], 505, NO_BODY),
        ([PUBLISH, header(1, 3), body(1, b"abcd")], 501, "a content of 3 bytes was announced, 4 came"),
        ([PUBLISH, header(1, 3), body(1, b"ab"), body(1, b"cd")], 501, "a content of 3 bytes was announced, 4 came"),
        ([header(1, 3)], 505, NO_METHOD),
        ([body(1, b"x")], 505, NO_METHOD),
        ([*publish(1, b""), body(1, b"")], 505, NO_METHOD),
        ([header(7, 3)], 505, NO_METHOD),
        ([body(0, b"x")], 505, 'type 3, all octets = <<"x">>'),
        ([header(0, 1, b"")], 505, "type 2, all octets = <<0,60,0,0,0,0,0,0,0,0,0,1>>"),
        ([frame(8, 1, b"")], 505, "type 8, all octets = <<>>"),
        ([method(1, BASIC_PUBLISH, bytes(516)), header(1, 1), body(1, b"x")], 502, "basic.publish is longer than its arguments"),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_frames_of_a_content_out_of_order_are_refused_and_what_follows_is_read(frames, code, text, at_once):
    parts, events = splitter()
    caught = []
    for read in [b"".join([*frames, HEARTBEAT])] if at_once else [*frames, HEARTBEAT]:
        data = read
        for _ in range(4):
            try:
                parts.feed(data)
                break
            except HardError as error:
                caught.append(error)
                data = b""
    assert (caught[0].code, caught[0].text) == (code, text)
    assert [event for event in events if event[0] != "publish"] == [("heartbeat",)]
    assert parts.held_bytes == 0


@pytest.mark.parametrize("id_", [CHANNEL_CLOSE, CHANNEL_CLOSE_OK])
@pytest.mark.parametrize("begun", [[PUBLISH], [PUBLISH, header(1, 3)], [PUBLISH, header(1, 3), body(1, b"a")]])
def test_a_channel_may_end_amid_a_content(id_, begun):
    parts, events = splitter()
    parts.feed(b"".join([*begun, method(1, id_, b"..."), *publish(1)]))
    assert events == [("method", 1, id_, b"..."), published(1)]
    assert parts.held_bytes == 0


def test_empty_body_frames_are_legal_amid_a_content():
    parts, events = splitter()
    parts.feed(b"".join([PUBLISH, header(1, 2), body(1, b""), body(1, b"a"), body(1, b""), body(1, b"b")]))
    assert events == [published(1, b"ab")]


def test_a_body_that_is_too_large_is_told_at_its_header_and_swallowed():
    parts, events = splitter(most_bytes=10)
    parts.feed(PUBLISH + header(1, 11))
    assert events == [("too large", 1, 11)]
    parts.feed(body(1, b"0123456"))
    assert parts.held_bytes < 30
    parts.feed(body(1, b"789a") + b"".join(publish(1, b"0123456789")))
    assert events == [("too large", 1, 11), published(1, b"0123456789")]
    assert parts.held_bytes == 0


def test_a_body_of_two_to_the_64th_less_one_is_swallowed_as_long_as_it_comes():
    parts, events = splitter()
    parts.feed(PUBLISH + header(1, 2**64 - 1) + body(1, bytes(4000)) * 20)
    assert events == [("too large", 1, 2**64 - 1)]
    assert parts.held_bytes < 30
    parts.feed(method(1, CHANNEL_CLOSE_OK))
    assert events[1:] == [("method", 1, CHANNEL_CLOSE_OK, b"")]


def fill(parts, properties, size):
    """Leave ever more contents unfinished; return how many there were when that was too much."""
    for number in parts.channels:
        try:
            parts.feed(
                method(number, BASIC_PUBLISH, address(b"k" * 250))
                + header(number, size + 1, properties)
                + body(number, bytes(size))
            )
        except HardError as error:
            return number, error
        assert parts.held_bytes <= 2 * MOST_BYTES + 515
    return 0, None


@pytest.mark.parametrize(("properties", "size"), [(PERSISTENT, 3999), (PERSISTENT, 0), (bytes(1000), 0), (bytes(1000), 500)])
def test_unfinished_contents_are_bounded_together_with_their_properties_and_addresses(properties, size):
    parts, events = splitter(tuple(range(1, 200)))
    count, error = fill(parts, properties, size)
    assert error.code == 506
    assert count == (2 * MOST_BYTES + 515) // (256 + len(properties) + size) + 1
    assert events == []
    assert parts.over
    assert parts.held_bytes == 0


def test_a_content_whose_channel_went_is_dropped_when_it_is_whole():
    parts, events = splitter()
    parts.feed(PUBLISH + header(1, 2) + body(1, b"a"))
    del parts.channels[1]
    parts.feed(body(1, b"b") + HEARTBEAT)
    assert events == [("heartbeat",)]
    assert parts.held_bytes == 0


@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_do_anything_but_raise_hard_errors(data, begun):
    parts, _ = splitter(frame_max=100)
    if begun:
        parts.feed(PUBLISH)
    with suppress(HardError):
        parts.feed(data)
    assert parts.held_bytes <= 300


@given(st.binary(min_size=25, max_size=25), st.integers(0, 6))
def test_numbers_are_read_alike_by_machine_code_and_by_the_struct_module(data, at):
    assert reading.method_at(data, at) == struct.unpack_from(">BHII", data, at)
    assert reading.header_at(data, at) == struct.unpack_from(">BHIIQ", data, at)
    assert reading.part_at(data, at) == struct.unpack_from(">BBHI", data, at)
    assert reading.ack_at(data, at) == struct.unpack_from(">QB", data, at)
