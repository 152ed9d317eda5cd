"""Do columns and segments come back as they were written, in as little space as they should?"""

from __future__ import annotations

from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import JournalError
from gateway.journal.columns import Cursor, encode_column, encode_texts
from gateway.journal.index import Index
from gateway.journal.ledger import SegmentHandle
from gateway.journal.segment import _Rows, decode_address, encode, encode_address
from gateway.model.declare import BindingOptions
from gateway.model.message import Address, Message
from gateway.model.records import Reference

integers = st.one_of(st.integers(0, 3), st.integers(0, 300), st.integers(0, 1 << 17), st.integers(0, (1 << 64) - 1))
columns = st.one_of(
    st.lists(integers, max_size=40),
    st.builds(lambda first, count: list(range(first, first + count)), st.integers(0, 1 << 40), st.integers(0, 50)),
    st.builds(lambda value, count: [value] * count, integers, st.integers(0, 50)),
)


@given(columns)
def test_a_column_comes_back(values):
    cursor = Cursor(encode_column(values) + b"rest")
    assert list(cursor.column(len(values))) == values
    assert cursor.take(4) == b"rest"


@given(columns)
def test_a_column_that_is_cut_short_is_told(values):
    written = encode_column(values)
    with pytest.raises(JournalError):
        Cursor(written[:-1]).column(len(values))


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_texts_come_back(texts):
    assert Cursor(encode_texts(texts)).texts(len(texts)) == texts


def test_regular_columns_take_no_space():
    assert len(encode_column([0] * 1000)) == 1
    assert len(encode_column([7] * 1000)) == 9
    assert len(encode_column(list(range(5000, 6000)))) == 9
    assert len(encode_column([1, 2, 4] * 100)) == 301


names = st.text(max_size=12)
addresses = st.builds(Address, st.one_of(st.just("/"), names), st.one_of(st.sampled_from(["amq.topic", ""]), names), names)


@given(addresses)
def test_an_address_comes_back(address):
    found = decode_address(encode_address(address))
    assert (found.vhost, found.exchange, found.routing_key) == (address.vhost, address.exchange, address.routing_key)
    assert found.encoded == address.encoded


def test_an_address_may_hold_what_is_no_unicode():
    key = b"\xff\xfe".decode("utf-8", "surrogateescape")
    assert decode_address(encode_address(Address("v", "e", key))).routing_key == key


options = st.one_of(st.none(), st.builds(BindingOptions, st.integers(0, 2), st.booleans(), st.booleans()))
messages = st.lists(
    st.tuples(
        st.binary(max_size=30),
        st.integers(0, 4),  # address
        st.sampled_from([("", b""), ("mqtt", b"\1"), ("mqtt", b"\2\3"), ("common", b"abc")]),
        st.sampled_from([0, 0, 0, 7, 255]),
        st.sampled_from([0, 0, 0, 1, 1 << 45]),
        st.lists(st.tuples(st.integers(1, 5), options, st.booleans()), min_size=1, max_size=4),
    ),
    max_size=30,
)


@settings(max_examples=60)
@given(messages)
def test_a_segment_comes_back(described):
    places = [Address("/", "amq.topic", f"key {number}") for number in range(5)]
    made: list[Message] = []
    expected = []
    position = 0
    for body, address, (tag, wire), priority, expires, queues in described:
        message = Message(places[address], body, True, tag, wire, priority, expires)
        for queue, option, settled in queues:
            position += 3
            reference = Reference(message, queue, position, option)
            reference.settled = settled
            message.live += not settled
            if message.first is None:
                message.first = reference
            else:
                message.more = [*(message.more or []), reference]
            if not settled:
                expected.append((queue, position, option, body, f"key {address}", tag, wire, priority, expires))
        made.append(message)
    segments = list(encode(made, 11))
    if not expected:
        assert segments == []
        return
    (segment,) = segments
    idx, body, _ = segment.joined()
    index = Index(idx)
    found = []
    for slot in range(segment.references):
        message = index.references([slot], body, segment.handle)[0].message
        address = message.address
        assert (address.vhost, address.exchange, message.persistent) == ("/", "amq.topic", True)
        what = (message.body, address.routing_key, message.wire_tag, message.wire, message.priority, message.expires_at_ms)
        found.append((index.queues[slot], index.positions[slot], index.references([slot], body, segment.handle)[0].options, *what))
        assert index.body_bytes(slot) == len(message.body)
    assert found == expected
    for queue, (live, live_bytes, first, last) in segment.handle.queues.items():
        mine = [(place, len(content)) for number, place, _, content, *_ in expected if number == queue]
        assert (live, live_bytes) == (len(mine), sum(length for _, length in mine))
        assert (first, last) == (mine[0][0], mine[-1][0])


@given(messages.filter(len).map(lambda several: several[0]), st.integers(0, 1 << 40))
def test_one_message_alone_is_written_as_many_are(described, position):
    body, address, (tag, wire), priority, expires, queues = described
    message = Message(Address("/", "amq.topic", f"key {address}"), body, True, tag, wire, priority, expires)
    message.first = Reference(message, queues[0][0], position, queues[0][1])
    message.live = 1
    rows = _Rows()
    rows.collect([message], SegmentHandle(1, bytearray(), complete=True))
    assert b"".join(rows.idx_of_one()) == b"".join(rows.idx(shared_wire=True))


@given(st.binary(max_size=200))
def test_bytes_that_are_no_index_are_told(data):
    with pytest.raises(JournalError):
        Index(data)


def test_every_bit_of_an_index_is_guarded():
    message = Message(Address("/", "", "k"), b"body", True)
    message.first, message.live = Reference(message, 1, 1, None), 1
    (segment,) = encode([message], 1)
    idx = segment.joined()[0]
    for bit in range(len(idx) * 8):
        damaged = bytearray(idx)
        damaged[bit >> 3] ^= 1 << (bit & 7)
        with pytest.raises(JournalError):
            Index(bytes(damaged))


def test_a_uniform_batch_needs_few_bytes_beside_its_bodies():
    address = Address("/", "amq.topic", "plant.3.temperature")
    made = []
    for number in range(1000):
        message = Message(address, bytes(100), True, "mqtt", b"\1")
        message.first, message.live = Reference(message, 4, 100 + number, None), 1
        made.append(message)
    (segment,) = encode(made, 1)
    idx, body, _ = segment.joined()
    assert len(idx) < 200
    assert len(body) == 100_001


def test_a_segment_may_know_when_each_of_its_messages_was_committed_first():
    made = []
    for number in range(5):
        message = Message(Address("/", "", "k"), b"%d" % number, True)
        message.first, message.live = Reference(message, 1, number + 1, None), 1
        made.append(message)
    times = [5_000, 4_000, 4_000, 90_000, 1 << 41]
    (segment,) = encode(made, 1, times)
    assert segment.committed_ms == 4_000
    idx, body, _ = segment.joined()
    found = Index(idx).references(range(5), body, segment.handle, segment.committed_ms)
    assert [reference.stored_ms for reference in found] == times
    assert [reference.message.body for reference in found] == [b"0", b"1", b"2", b"3", b"4"]


def test_what_was_committed_with_its_segment_takes_no_space_for_that():
    def message() -> Message:
        made = Message(Address("/", "", "k"), b"body", True)
        made.first, made.live = Reference(made, 1, 1, None), 1
        return made

    (plain,) = encode([message()], 1)
    (dated,) = encode([message()], 1, [7])
    assert plain.committed_ms == 0
    assert len(dated.joined()[0]) == len(plain.joined()[0]) + 1
    idx, body, _ = plain.joined()
    assert Index(idx).references([0], body, plain.handle, 99)[0].stored_ms == 99


def test_an_index_of_format_1_is_read_and_one_of_a_later_format_is_refused():
    message = Message(Address("/", "", "k"), b"body", True)
    message.first, message.live = Reference(message, 4, 9, None), 1
    (segment,) = encode([message], 1)
    idx, body, _ = segment.joined()
    for version in (1, 3):
        other = bytes([version]) + idx[1:-4]
        other += crc32(other).to_bytes(4, "little")
        if version == 1:
            (reference,) = Index(other).references([0], body, segment.handle, 7)
            assert (reference.position, reference.message.body, reference.stored_ms) == (9, b"body", 7)
        else:
            with pytest.raises(JournalError, match="format 3"):
                Index(other)


@pytest.mark.parametrize("other", [None, 2])
def test_slots_are_found_by_queue_and_range_of_positions(other):
    made = []
    for position in range(100, 140):
        message = Message(Address("/", "", "k"), b"", True)
        message.first = Reference(message, other if other and position == 120 else 1, position, None)
        message.live = 1
        made.append(message)
    (segment,) = encode(made, 1)
    index = Index(segment.joined()[0])
    here = [position for position in range(100, 140) if not (other and position == 120)]
    for after, up_to in ((0, 1 << 40), (99, 139), (100, 100), (100, 101), (110, 125), (139, 200), (150, 200), (5, 50)):
        found = [index.positions[slot] for slot in index.slots_of(1, after, up_to)]
        assert found == [position for position in here if after < position <= up_to]
    assert index.slots_of(7, 0) == []
