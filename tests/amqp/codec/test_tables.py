"""Field tables: what is written is what was read, pamqp agrees, and bad bytes are refused alike by all who look at them."""

from __future__ import annotations

import datetime
import signal
import struct
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import decode, encode

from gateway_amqp.codec.names import HardError, Timestamp
from gateway_amqp.codec.tables import (
    check_table,
    decode_field,
    decode_table,
    encode_field,
    encode_table,
    find_field,
    read_table,
    short,
    without_field,
)
from tests.amqp.codec.strategies import FEW, long, raw_table, raw_tables, rich_tables, tables


def same_types(one, other):
    """Say whether two values are equal, and of the same types down to the leaves."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same_types(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same_types, one, other))
    return one == other


@FEW
@given(tables)
def test_what_the_common_model_carries_comes_back(table):
    assert same_types(decode_table(encode_table(table)), table)


@FEW
@given(rich_tables)
def test_what_is_decoded_faithfully_comes_back_with_its_types(table):
    assert same_types(decode_table(encode_table(table), faithful=True), table)


@FEW
@given(raw_tables)
def test_bytes_that_are_decoded_faithfully_are_encoded_as_they_were(raw):
    assert encode_table(decode_table(raw, faithful=True)) == raw


@FEW
@given(raw_tables)
def test_what_is_decoded_can_be_carried_by_msgpack(raw):
    table = decode_table(raw)
    assert same_types(msgspec.msgpack.decode(msgspec.msgpack.encode(table)), table)


def as_pamqp_reads(value):
    """Return what pamqp makes of a value that was written here."""
    if isinstance(value, dict):
        return {name: as_pamqp_reads(one) for name, one in value.items()}
    return [as_pamqp_reads(one) for one in value] if isinstance(value, list) else value


@FEW
@given(tables)
def test_pamqp_reads_what_is_written(table):
    data = encode_table(table)
    assert decode.field_table(data) == (len(data), as_pamqp_reads(table))


pamqp_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.text(max_size=20), st.floats(width=32, allow_nan=False)
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


@FEW
@given(st.dictionaries(st.text(max_size=9), pamqp_values, max_size=5))
def test_what_pamqp_writes_is_read(table):
    data = encode.field_table(table)
    check_table(data, 0, len(data))
    assert decode_table(data) == table


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"t\2", True), (b"b\xff", -1), (b"B\xff", 255), (b"s\xff\xfe", -2), (b"u\xff\xfe", 65534), (b"I\xff\xff\xff\xff", -1),
        (b"i\xff\xff\xff\xff", 2**32 - 1), (b"l" + b"\xff" * 8, -1), (b"L" + b"\xff" * 8, -1), (b"f\x3f\x80\0\0", 1.0),
        (b"d" + struct.pack(">d", -2.5), -2.5), (b"D\2\0\0\0\x96", 1.5), (b"D\1\xff\xff\xff\xf1", -1.5), (b"S\0\0\0\0", ""),
        (b"S\0\0\0\1\xff", b"\xff"), (b"x\0\0\0\1a", b"a"), (b"T" + b"\xff" * 8, 2**64 - 1), (b"V", None), (b"\0", None),
        (b"A\0\0\0\0", []), (b"A\0\0\0\3t\1V", [True, None]), (b"F\0\0\0\0", {}), (b"F\0\0\0\3\1aV", {"a": None}),
    ],
)  # fmt: skip
def test_every_type_that_clients_send_is_read(field, value):
    data = raw_table({"n": field})
    decoded = decode_table(data)["n"]
    assert same_types(decoded, value)
    assert check_table(data, 0, len(data)) == len(data)
    assert decode_field(field, 0, len(field)) == value


def test_timestamps_decimals_and_byte_arrays_are_told_from_others_if_that_is_wanted():
    raw = raw_table({"T": b"T" + bytes(7) + b"\5", "D": b"D\1\0\0\0\5", "x": b"x\0\0\0\1a"})
    table = decode_table(raw, faithful=True)
    assert [type(value) for value in table.values()] == [Timestamp, Decimal, bytearray]
    assert table == {"T": 5, "D": Decimal("0.5"), "x": b"a"}
    assert encode_table(table) == raw


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (2**31, b"l\0\0\0\0\x80\0\0\0"), (2**31 - 1, b"I\x7f\xff\xff\xff"), (-(2**31), b"I\x80\0\0\0"),
        (2**63, b"S" + long(b"9223372036854775808")),
        (b"\xff", b"S\0\0\0\1\xff"), ((1, "a"), b"A" + long(b"I\0\0\0\1S\0\0\0\1a")), ({1: 2}, b"F" + long(b"\0011I\0\0\0\2")),
        (datetime.date(2020, 2, 29), b"S" + long(b"2020-02-29")), (Decimal("1e3"), b"d" + struct.pack(">d", 1000)),
        (Decimal("NaN"), b"d\x7f\xf8" + bytes(6)), (Decimal("1234567890.5"), b"d" + struct.pack(">d", 1234567890.5)),
        ("\ud800", b"S\0\0\0\1?"), ("\udcff", b"S\0\0\0\1\xff"), (memoryview(b"a"), b"S\0\0\0\1a"),
        (signal.Signals.SIGINT, b"I\0\0\0\2"),
    ],
)  # fmt: skip
def test_values_that_amqp_has_no_type_for_are_written_as_what_comes_nearest(value, field):
    assert encode_field(value) == field


def test_a_name_that_is_too_long_is_cut_between_characters():
    assert short("é" * 200) == b"\xfe" + "é".encode() * 127
    assert decode_table(encode_table({"é" * 200: 1})) == {"é" * 127: 1}


def test_a_name_that_is_not_utf_8_comes_back_if_it_is_decoded_faithfully():
    raw = long(b"\1\xffV")
    assert decode_table(raw) == {"\\xff": None}
    assert encode_table(decode_table(raw, faithful=True)) == raw


def deep(levels, *, arrays=False):
    field = b"V"
    for _ in range(levels):
        field = b"A" + long(field) if arrays else b"F" + raw_table({"a": field})
    return field


@pytest.mark.parametrize("arrays", [True, False])
def test_tables_may_be_32_deep_and_no_deeper(arrays):
    raw = raw_table({"a": deep(31, arrays=arrays)})
    check_table(raw, 0, len(raw))
    table = decode_table(raw)
    assert encode_table(table) == raw
    for levels in (32, 100, 20_000):
        raw = raw_table({"a": deep(levels, arrays=arrays)})
        refused(raw, "field tables deeper than 32")
    with pytest.raises(ValueError, match="deeper than 32"):
        encode_table({"a": table})


def refused(raw, text="", end=None):
    """Feed a malformed table to all who look at one."""
    end = len(raw) if end is None else end
    for look in (
        lambda: decode_table(raw, 0, end),
        lambda: decode_table(raw, 0, end, faithful=True),
        lambda: check_table(raw, 0, end),
    ):
        with pytest.raises(HardError) as caught:
            look()
        assert caught.value.code == 502
        assert text in caught.value.text


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", "cut off"), (b"\0\0\0", "cut off"), (b"\0\0\0\1", "longer than what holds it"),
        (b"\xff\xff\xff\xff", "longer than what holds it"),
        (long(b"\1"), "a name but no value"), (long(b"\1a"), "a name but no value"), (long(b"\xffabc"), "a name but no value"),
        (long(b"\1at"), "cut off"), (long(b"\1aI\0\0\0"), "cut off"), (long(b"\1aT" + bytes(7)), "cut off"),
        (long(b"\1aS\0\0\0"), "cut off"), (long(b"\1aS\0\0\0\1"), "longer than"), (long(b"\1aS\xff\xff\xff\xffa"), "longer than"),
        (long(b"\1aA\0\0\0\2t"), "longer than"), (long(b"\1aA\0\0\0\1t\1"), "cut off"), (long(b"\1aF\0\0\0\1\1V"), "no value"),
        (long(b"\1aZ"), "unknown type 90"), (long(b"\0"), "a name but no value"),
    ],
)  # fmt: skip
def test_lengths_that_lie_are_refused(raw, text):
    refused(raw, text)


@FEW
@given(raw_tables, st.data())
def test_a_table_that_is_cut_is_refused_at_every_byte(raw, data):
    refused(raw, end=data.draw(st.integers(0, len(raw) - 1)))


def test_a_table_that_ends_before_its_field_is_refused():
    with pytest.raises(HardError, match="ends before"):
        decode_table(b"\0\0\0\0a")
    assert read_table(b"\0\0\0\0a", 0, 5) == ({}, 4)
    assert check_table(b"\0\0\0\0a", 0, 5) == 4


def outcome(look):
    try:
        look()
    except HardError as error:
        return error.code
    return 0


fields_like = st.lists(
    st.sampled_from([b"\1a", b"t", b"S", b"F", b"A", b"\0", b"\0\0\0", b"\1", b"\5", b"V", b"\xff"]), max_size=12
).map(b"".join)


@given(st.binary(max_size=40) | fields_like | fields_like.map(long) | raw_tables)
def test_who_checks_and_who_decodes_agree_on_any_bytes(data):
    told = [outcome(lambda: check_table(data, 0, len(data))), outcome(lambda: read_table(data, 0, len(data)))]
    assert told[0] == told[1]
    assert told[0] in {0, 502}


@given(st.dictionaries(st.sampled_from(["a", "b", "c", "CC", "BCC"]), st.text(max_size=5), min_size=1))
def test_a_field_is_found_and_taken_out_without_touching_the_others(table):
    raw = encode_table(table)
    for name in ("a", "BCC"):
        at, kind, end = find_field(raw, 0, len(raw), name.encode())
        assert (decode_field(raw, kind, end) if end else None) == table.get(name)
        assert not end or raw[at:kind] == short(name)
        rest = {key: value for key, value in table.items() if key != name}
        assert without_field(raw, 0, len(raw), name.encode()) == encode_table(rest)


def test_all_fields_of_a_name_are_taken_out():
    assert without_field(long(b"\1aV\1bV" + b"\1aV" * 5000), 0, 15_010, b"a") == long(b"\1bV")
