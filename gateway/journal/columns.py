"""How are many integers, and a few texts, written in little space and read back fast?

A column is one byte that says how it is written, then as few bytes as will do: nothing if all items are zero, one item if all
are the same or count up by one, else all of them in 1, 2, 4 or 8 bytes each, as they lie in memory.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence

from gateway.errors import JournalError

_ITEM_BYTES = {b"B": 1, b"H": 2, b"I": 4, b"Q": 8}
_CONSTANT, _RUN = b"c", b"r"
ALL_ZERO = b"z"

SUPPORTED = sys.byteorder == "little" and all(array(code.decode()).itemsize == size for code, size in _ITEM_BYTES.items())
"""Columns are this machine's arrays."""


def encode_one(value: int) -> bytes:
    """Write a column of one item, or of many that are all the same."""
    return _CONSTANT + value.to_bytes(8, "little") if value else ALL_ZERO


ONE = encode_one(1)


def encode_column(values: list[int]) -> bytes:
    """Write integers from 0 to 2**64 - 1."""
    if not values:
        return ALL_ZERO
    first, count = values[0], len(values)
    if values.count(first) == count:
        return encode_one(first)
    if values[-1] - first == count - 1 and values == list(range(first, first + count)):
        return _RUN + first.to_bytes(8, "little")
    highest = max(values)
    code = "B" if highest < 1 << 8 else "H" if highest < 1 << 16 else "I" if highest < 1 << 32 else "Q"
    return code.encode() + array(code, values).tobytes()


def encode_texts(texts: list[bytes]) -> bytes:
    """Write texts: a column of their lengths, then all of them."""
    return encode_column(list(map(len, texts))) + b"".join(texts)


class Cursor:
    """Where the reading of columns has come to. All methods raise JournalError if the data can't be what was written."""

    __slots__ = ("data", "offset")

    def __init__(self, data: bytes, offset: int = 0) -> None:
        self.data = data
        self.offset = offset

    def take(self, count: int) -> bytes:
        """Read so many bytes."""
        end = self.offset + count
        if end > len(self.data):
            raise JournalError("the index of a segment ends too early")
        taken = self.data[self.offset : end]
        self.offset = end
        return taken

    def column(self, count: int) -> Sequence[int]:
        """Read a column of so many items."""
        start = self.offset + 1
        code = self.data[self.offset : start]
        self.offset = start
        if code == ALL_ZERO:
            return [0] * count
        if code in {_CONSTANT, _RUN}:
            first = int.from_bytes(self.take(8), "little")
            return [first] * count if code == _CONSTANT else range(first, first + count)
        size = _ITEM_BYTES.get(code)
        if size is None:
            raise JournalError("the index of a segment has a column of an unknown kind, or none")
        values = array(code.decode())
        values.frombytes(self.take(count * size))
        return values

    def texts(self, count: int) -> list[bytes]:
        """Read so many texts."""
        return [self.take(length) for length in self.column(count)]
