"""Which numbers stand in the bytes of a frame?"""
# ruff: noqa: PLR2004 - the numbers are the bits and lengths of the standard

from __future__ import annotations

import struct
from types import FunctionType
from typing import Final

METHOD: Final = struct.Struct(">BHII").unpack_from  # type, channel, length, class and method
FRAME: Final = struct.Struct(">BHI").unpack_from  # type, channel, length
HEADER: Final = struct.Struct(">BHIIQ").unpack_from  # type, channel, length, class and weight, body size
PART: Final = struct.Struct(">BBHI").unpack_from  # the end of the frame before, type, channel, length
ACK: Final = struct.Struct(">QB").unpack_from  # delivery tag, multiple
CONTENT: Final = struct.Struct(">IQ").unpack_from  # class and weight, body size


def method_at(data: bytes, at: int) -> tuple[int, int, int, int]:
    """Return type, channel, length, and class and method: as machine code this is faster than what the struct module has."""
    return (
        data[at],
        data[at + 1] << 8 | data[at + 2],
        data[at + 3] << 24 | data[at + 4] << 16 | data[at + 5] << 8 | data[at + 6],
        data[at + 7] << 24 | data[at + 8] << 16 | data[at + 9] << 8 | data[at + 10],
    )


def header_at(data: bytes, at: int) -> tuple[int, int, int, int, int]:
    """Return type, channel, length, class and weight, and body size."""
    kind, number, length, class_ = method_at(data, at)
    return kind, number, length, class_, long_at(data, at + 11)


def long_at(data: bytes, at: int) -> int:
    """Return an unsigned integer of eight bytes."""
    high = data[at] << 24 | data[at + 1] << 16 | data[at + 2] << 8 | data[at + 3]
    return high << 32 | data[at + 4] << 24 | data[at + 5] << 16 | data[at + 6] << 8 | data[at + 7]


def part_at(data: bytes, at: int) -> tuple[int, int, int, int]:
    """Return the end of the frame before, type, channel, and length."""
    return (
        data[at],
        data[at + 1],
        data[at + 2] << 8 | data[at + 3],
        data[at + 4] << 24 | data[at + 5] << 16 | data[at + 6] << 8 | data[at + 7],
    )


def ack_at(data: bytes, at: int) -> tuple[int, int]:
    """Return delivery tag and multiple."""
    return long_at(data, at), data[at + 8]


INTERPRETED: Final = isinstance(method_at, FunctionType)


def snippet(payload: bytes) -> str:
    """Return the begin of a payload as RabbitMQ's errors show it."""
    shown = payload[:16]
    which = "all" if len(payload) <= 16 else "first 16"
    if shown and all(32 <= octet < 127 for octet in shown):
        return f'{which} octets = <<"{shown.decode()}">>'
    return f"{which} octets = <<{','.join(map(str, shown))}>>"
