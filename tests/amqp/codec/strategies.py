"""Which values may stand in a field table, as this codec writes them, as pamqp does, and as raw bytes?"""

from __future__ import annotations

import struct
from decimal import Decimal

from hypothesis import settings
from hypothesis import strategies as st

from gateway_amqp.codec.names import Timestamp

FEW = settings(max_examples=40)
"""Whole tables and properties take long to draw."""

names = st.text(max_size=20).filter(lambda name: len(name.encode()) <= 255)
texts = st.text(max_size=30)
not_utf_8 = st.binary(max_size=10).map(lambda data: b"\xff" + data)
int_64 = st.integers(-(2**63), 2**63 - 1)
doubles = st.floats(allow_nan=False)
decimals = st.builds(lambda digits, scale: Decimal(digits).scaleb(-scale), st.integers(-(2**31), 2**31 - 1), st.integers(0, 255))

plain = st.one_of(st.none(), st.booleans(), int_64, texts, doubles, not_utf_8)
rich = st.one_of(plain, st.integers(0, 2**64 - 1).map(Timestamp), decimals, st.binary(max_size=10).map(bytearray))


def nested(leaves):
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=12
    )


tables = st.dictionaries(names, nested(plain), max_size=5)
"""What the common model can carry."""
rich_tables = st.dictionaries(names, nested(rich), max_size=5)
"""What a faithfully decoded table holds."""


def long(data):
    return struct.pack(">I", len(data)) + data


def short(data):
    return bytes((len(data),)) + data


fields = st.recursive(
    st.one_of(
        texts.map(lambda text: b"S" + long(text.encode())),
        not_utf_8.map(lambda data: b"S" + long(data)),
        st.binary(max_size=9).map(lambda data: b"x" + long(data)),
        st.sampled_from([b"t\0", b"t\1", b"V"]),
        st.integers(-(2**31), 2**31 - 1).map(lambda number: struct.pack(">ci", b"I", number)),
        int_64.filter(lambda number: abs(number) > 2**31).map(lambda number: struct.pack(">cq", b"l", number)),
        doubles.map(lambda number: struct.pack(">cd", b"d", number)),
        st.integers(0, 2**64 - 1).map(lambda number: struct.pack(">cQ", b"T", number)),
        st.builds(
            lambda scale, digits: struct.pack(">cBi", b"D", scale, digits), st.integers(0, 255), st.integers(-(2**31), 2**31 - 1)
        ),
    ),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda parts: b"A" + long(b"".join(parts)))
        | st.dictionaries(names, inner, max_size=4).map(lambda parts: b"F" + raw_table(parts))
    ),
    max_leaves=8,
)
"""Raw fields, of the types that are written as they were read."""


def raw_table(parts):
    return long(b"".join(short(name.encode()) + field for name, field in parts.items()))


raw_tables = st.dictionaries(names, fields, max_size=5).map(raw_table)
