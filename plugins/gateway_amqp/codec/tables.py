"""What do field tables say, and how is one written?

The types are those that RabbitMQ's clients send (its errata of AMQP 0-9-1 §4.2.5.5), not those of the standard's grammar.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from gateway_amqp.codec.names import MAX_SHORT, Timestamp, syntax_error

MAX_DEPTH: Final = 32
"""Tables and arrays within each other."""

_UNKNOWN: Final = 255
_LONG: Final = 254  # four bytes say how long it is
_LONG_TYPES: Final = b"SxFA"
_WIDTHS: Final = dict(zip(b"tbBsuIilLfdDTV\0", (1, 1, 1, 2, 2, 4, 4, 8, 8, 4, 8, 5, 8, 0, 0), strict=True))
LATEST_S: Final = 253_402_300_799
"""The last second of the year 9999, behind which there are no dates."""

_SIZES: Final[bytes] = bytes([_LONG if letter in _LONG_TYPES else _WIDTHS.get(letter, _UNKNOWN) for letter in range(256)])
"""Bytes of a value by its type's letter."""
_TEXT: Final = 0x53
_ARRAY: Final = 0x41
_TABLE: Final = 0x46
_INT: Final = struct.Struct(">i")
_FLOAT: Final = struct.Struct(">f")
_DOUBLE: Final = struct.Struct(">d")
_DECIMAL: Final = struct.Struct(">Bi")
_TYPED_INT: Final = struct.Struct(">ci")
_TYPED_LONG: Final = struct.Struct(">cq")
_TYPED_UNSIGNED: Final = struct.Struct(">cQ")
_TYPED_DOUBLE: Final = struct.Struct(">cd")
_TYPED_DECIMAL: Final = struct.Struct(">cBi")
_INTEGERS: Final = frozenset(b"bBsuIilL")
_SIGNED: Final = frozenset(b"bsIlL")


def decode_table(data: bytes, start: int = 0, end: int = -1, *, faithful: bool = False) -> dict[str, Any]:
    """Return what a field table holds that fills ``data[start:end]``, its length included.

    Args:
        end: -1: of the data.
        faithful: keep types that the common model has not: `Timestamp`, `Decimal`, and `bytearray` for byte arrays, so that
            `encode_table` writes them as they were. Otherwise they are what `moment` says, float and bytes. Long strings are
            str, or bytes where they are not UTF-8; an integer's width is not kept.

    Raises:
        HardError: 502, it is none.
    """
    if end < 0:
        end = len(data)
    table, at = read_table(data, start, end, faithful=faithful)
    if at != end:
        raise syntax_error("a field table ends before its field")
    return table


def read_table(data: bytes, at: int, end: int, *, faithful: bool = False) -> tuple[dict[str, Any], int]:
    """Return what the field table at an offset holds, and where it ends, at ``end`` or before.

    Raises:
        HardError: 502, it is none.
    """
    stop = _end_of(data, at, end)
    return _table(data, at + 4, stop, 1, faithful), stop


def check_table(data: bytes, at: int, end: int) -> int:
    """Return where the field table at an offset ends, at ``end`` or before, having looked at all of its fields.

    Raises:
        HardError: 502, it is none.
    """
    stop = _end_of(data, at, end)
    _check(data, at + 4, stop, 1, named=True)
    return stop


def find_field(data: bytes, at: int, end: int, name: bytes) -> tuple[int, int, int]:
    """Look a field up in a table that was checked, without decoding the others.

    Args:
        data, at, end: as of `check_table`.
        name: of the field.

    Returns:
        where its name's length stands, where its type stands, and where it ends; (0, 0, 0): it is not there.
    """
    stop = _end_of(data, at, end)
    at += 4
    while at < stop:
        kind = at + 1 + data[at]
        past = _past(data, kind, stop)
        if data[at + 1 : kind] == name:
            return at, kind, past
        at = past
    return 0, 0, 0


def without_field(data: bytes, at: int, end: int, name: bytes) -> bytes:
    """Return a table that was checked, without the fields of a name, the others as they were; its length included."""
    stop = _end_of(data, at, end)
    at += 4
    parts: list[bytes] = []
    while at < stop:
        kind = at + 1 + data[at]
        past = _past(data, kind, stop)
        if data[at + 1 : kind] != name:
            parts.append(data[at:past])
        at = past
    return _long(b"".join(parts))


def decode_field(data: bytes, kind: int, end: int, *, faithful: bool = False) -> Any:
    """Return the value of the field whose type stands at an offset.

    Raises:
        HardError: 502, it is none.
    """
    return _value(data, data[kind], kind + 1, _past(data, kind, end), 1, faithful)


def _end_of(data: bytes, at: int, end: int) -> int:
    """Return where what is four bytes long and says its length ends."""
    if at + 4 > end or end > len(data):
        raise syntax_error("a field is cut off")
    stop = at + 4 + (data[at] << 24 | data[at + 1] << 16 | data[at + 2] << 8 | data[at + 3])
    if stop > end:
        raise syntax_error("a field is longer than what holds it")
    return stop


def _past(data: bytes, kind: int, end: int) -> int:
    """Return where the value ends whose type stands at an offset."""
    if kind >= end:
        raise syntax_error("a field has a name but no value")
    size = _SIZES[data[kind]]
    if size >= _LONG:
        if size == _UNKNOWN:
            raise syntax_error(f"a field of unknown type {data[kind]}")
        return _end_of(data, kind + 1, end)
    past = kind + 1 + size
    if past > end:
        raise syntax_error("a field is cut off")
    return past


def _check(data: bytes, at: int, end: int, depth: int, *, named: bool) -> None:
    """Look at the fields of a table (named) or an array."""
    if depth > MAX_DEPTH:
        raise syntax_error(f"field tables deeper than {MAX_DEPTH}")
    sizes = _SIZES
    while at < end:
        if named:
            at += 1 + data[at]
            if at >= end:
                raise syntax_error("a field has a name but no value")
        letter = data[at]
        size = sizes[letter]
        if size < _LONG:
            at += 1 + size
            if at > end:
                raise syntax_error("a field is cut off")
            continue
        past = _past(data, at, end)
        if letter in (_TABLE, _ARRAY):
            _check(data, at + 5, past, depth + 1, named=letter == _TABLE)
        at = past


def _table(data: bytes, at: int, end: int, depth: int, faithful: bool) -> dict[str, Any]:
    """Return the fields of a table."""
    if depth > MAX_DEPTH:
        raise syntax_error(f"field tables deeper than {MAX_DEPTH}")
    fields: dict[str, Any] = {}
    while at < end:
        kind = at + 1 + data[at]
        past = _past(data, kind, end)
        name = data[at + 1 : kind]
        value = _value(data, data[kind], kind + 1, past, depth, faithful)
        try:
            fields[name.decode()] = value
        except UnicodeDecodeError:
            fields[name.decode("utf-8", "surrogateescape" if faithful else "backslashreplace")] = value
        at = past
    return fields


def _array(data: bytes, at: int, end: int, depth: int, faithful: bool) -> list[Any]:
    """Return the values of an array."""
    if depth > MAX_DEPTH:
        raise syntax_error(f"field tables deeper than {MAX_DEPTH}")
    values: list[Any] = []
    while at < end:
        past = _past(data, at, end)
        values.append(_value(data, data[at], at + 1, past, depth, faithful))
        at = past
    return values


def _value(data: bytes, letter: int, at: int, end: int, depth: int, faithful: bool) -> Any:
    """Return the value that fills ``data[at:end]``; a long one's length stands there too."""
    if letter == _TEXT:
        text = data[at + 4 : end]
        try:
            return text.decode()
        except UnicodeDecodeError:
            return text
    if letter in _INTEGERS:
        return int.from_bytes(data[at:end], "big", signed=letter in _SIGNED)
    if letter == _TABLE:
        return _table(data, at + 4, end, depth + 1, faithful)
    if letter == _ARRAY:
        return _array(data, at + 4, end, depth + 1, faithful)
    return _rare(data, chr(letter), at, end, faithful)


def _rare(data: bytes, kind: str, at: int, end: int, faithful: bool) -> Any:
    """Return a value of the types that are seldom sent."""
    if kind == "t":
        return data[at] != 0
    if kind in "V\0":
        return None
    if kind in "df":
        return (_DOUBLE if kind == "d" else _FLOAT).unpack_from(data, at)[0]
    if kind == "T":
        return _timestamp(data[at:end], faithful)
    if kind == "x":
        return bytearray(data[at + 4 : end]) if faithful else data[at + 4 : end]
    number = Decimal(_INT.unpack_from(data, at + 1)[0]).scaleb(-data[at])
    return number if faithful else float(number)


def _timestamp(data: bytes, faithful: bool) -> Any:
    """Return a time; two returns, as machine code makes a plain integer of what may be one."""
    if faithful:
        return Timestamp.from_bytes(data, "big")
    return moment(int.from_bytes(data, "big"))


def moment(seconds: int) -> Any:
    """Return a time as the common model has it: a date (`datetime`, UTC); the seconds where there is no date any more."""
    if seconds > LATEST_S:
        return seconds
    return datetime.fromtimestamp(seconds, UTC)


def encode_table(table: dict[str, Any]) -> bytes:
    """Return a field table, its length included.

    What AMQP has no type for becomes text: integers beyond 64 bits, keys and values of other types. Names are cut at 255 bytes.

    Raises:
        ValueError: tables and arrays deeper than 32, or more than 4 GiB.
    """
    return _encoded_table(table, 1)


def encode_field(value: Any) -> bytes:
    """Return a value, its type before it. Errors are those of `encode_table`."""
    return _encoded(value, 1)


def short(text: str) -> bytes:
    """Return a short string, cut between characters at 255 bytes."""
    data = text.encode("utf-8", "surrogateescape") if text.isascii() else _utf_8(text)
    if len(data) > MAX_SHORT:
        data = data[:MAX_SHORT].decode("utf-8", "ignore").encode()
    return bytes((len(data),)) + data


def _utf_8(text: str) -> bytes:
    """Return text as bytes; surrogates that stand for bytes become these, others are replaced."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def _encoded_table(table: dict[Any, Any], depth: int) -> bytes:
    """Return a table with its length."""
    if depth > MAX_DEPTH:
        raise ValueError(f"field tables deeper than {MAX_DEPTH}")
    parts: list[bytes] = []
    for name, value in table.items():
        parts.append(short(name if isinstance(name, str) else str(name)))
        parts.append(_encoded(value, depth))
    return _long(b"".join(parts))


def _encoded(value: Any, depth: int) -> bytes:
    """Return a value with its type."""
    kind = type(value)
    if kind is str:
        return b"S" + _long(_utf_8(value))
    if kind is int:
        return _encoded_int(value)
    if kind is bool:
        return b"t\1" if value else b"t\0"
    if isinstance(value, dict):
        return b"F" + _encoded_table(value, depth + 1)
    if isinstance(value, list | tuple):
        return b"A" + _encoded_array(list(value), depth + 1)
    return _encoded_rare(value)


def _encoded_int(value: int) -> bytes:
    """Return an integer in as few bytes as every client can read."""
    if -0x80000000 <= value <= 0x7FFFFFFF:  # noqa: PLR2004
        return _TYPED_INT.pack(b"I", value)
    if -0x8000000000000000 <= value <= 0x7FFFFFFFFFFFFFFF:  # noqa: PLR2004
        return _TYPED_LONG.pack(b"l", value)
    return b"S" + _long(str(value).encode())


def _encoded_array(values: list[Any], depth: int) -> bytes:
    """Return an array with its length."""
    if depth > MAX_DEPTH:
        raise ValueError(f"field tables deeper than {MAX_DEPTH}")
    return _long(b"".join([_encoded(value, depth) for value in values]))


def _encoded_rare(value: Any) -> bytes:
    """Return a value of the types that are seldom sent."""
    if value is None:
        return b"V"
    if isinstance(value, float):
        return _TYPED_DOUBLE.pack(b"d", value)
    if isinstance(value, bytearray):
        return b"x" + _long(bytes(value))
    if isinstance(value, bytes | memoryview):
        return b"S" + _long(bytes(value))
    return _encoded_odd(value)


def _encoded_odd(value: Any) -> bytes:
    """Return a value of the types that only faithful decoding makes, of classes derived from others, or as text."""
    if isinstance(value, Timestamp):  # asked before int: machine code makes plain integers of what it knows to be one
        return _TYPED_UNSIGNED.pack(b"T", value)
    if isinstance(value, Decimal):
        return _encoded_decimal(value)
    if isinstance(value, int):
        return _encoded_int(value)
    return b"S" + _long(_utf_8(str(value)))


def _encoded_decimal(value: Decimal) -> bytes:
    """Return a decimal number; a float where AMQP's decimals can't be as exact."""
    _sign, _digits, exponent = value.as_tuple()
    if isinstance(exponent, int) and -MAX_SHORT <= exponent <= 0:
        unscaled = int(value.scaleb(-exponent))
        if -0x80000000 <= unscaled <= 0x7FFFFFFF:  # noqa: PLR2004
            return _TYPED_DECIMAL.pack(b"D", -exponent, unscaled)
    return _TYPED_DOUBLE.pack(b"d", float(value))


def _long(data: bytes) -> bytes:
    """Return bytes behind their number."""
    if len(data) > 0xFFFFFFFF:  # noqa: PLR2004
        raise ValueError("a field of more than 4 GiB")
    return len(data).to_bytes(4, "big") + data
