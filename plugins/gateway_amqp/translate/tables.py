"""What are the values of a field table in the common model, and which of the common model's values does a table hold?"""

from __future__ import annotations

from base64 import b64encode
from datetime import datetime
from decimal import Decimal
from math import isfinite
from typing import Any, Final

import msgspec

from gateway_amqp.codec.names import MAX_SHORT, Timestamp
from gateway_amqp.codec.tables import LATEST_S, encode_table, moment

OTHERS: Final = "x-other-headers"
"""Header: what can't be under its own name, as its name is too long or taken: a list of tables with ``name`` and ``value``."""
TOO_LARGE: Final = "x-headers-too-large"
"""Header: names of headers that no frame holds, or how many there are if the names are too much too."""
DEATHS: Final = "x-death"
_TIME: Final = "time"

MOST_DEEP: Final = 30
"""Tables and lists within each other; what is deeper is told as JSON. Readers give up at some depth."""
_LEAST: Final = -(1 << 63)
_MOST: Final = (1 << 63) - 1
_TABLE_BYTES: Final = 4
"""Of the length that a table begins with."""


# -- in the common model ----------------------------------------------------


def common_table(table: dict[str, Any]) -> dict[str, Any]:
    """Return a table that was decoded faithfully as the common model has it.

    Times are dates, as far as there are any. When a message has died is a number there, and a time in AMQP.
    """
    values = _common_fields(table)
    if DEATHS in values:
        values[DEATHS] = _deaths(values[DEATHS], _second)
    return values


def _common_fields(table: dict[str, Any]) -> dict[str, Any]:
    return {name if name.isascii() else _readable(name): _common(value) for name, value in table.items()}


def _readable(name: str) -> str:
    return text_of(name.encode("utf-8", "surrogateescape"))


def _common(value: Any) -> Any:
    if isinstance(value, str | bytes):
        return value
    if isinstance(value, Timestamp):
        return moment(int(value))
    if isinstance(value, dict):
        return _common_fields(value)
    if isinstance(value, list):
        return [_common(inner) for inner in value]
    if isinstance(value, bytearray):
        return bytes(value)
    return float(value) if isinstance(value, Decimal) else value


def text_of(data: bytes) -> str:
    """Return text, with escapes for what is no UTF-8."""
    return data.decode("utf-8", "backslashreplace")


# -- from the common model --------------------------------------------------


def utf8(text: str) -> bytes:
    """Return text as bytes, with escapes for what is no character."""
    return text.encode("utf-8", "backslashreplace")


def table_of(headers: dict[Any, Any], beside: dict[str, Any]) -> dict[str, Any]:
    """Return headers as a table holds them: all values are such that `encode_table` takes them.

    Args:
        headers: of the common model.
        beside: more, whose names come first.
    """
    if DEATHS in headers:
        headers = {**headers, DEATHS: _deaths(headers[DEATHS], _time)}
    return _table(headers, 1, beside)


def _table(values: dict[Any, Any], depth: int, beside: dict[str, Any]) -> dict[str, Any]:
    table = {name: _value(value, depth) for name, value in beside.items()}
    others: list[Any] = []
    for name, value in values.items():
        key = _name(name)
        if len(utf8(key)) > MAX_SHORT or key in table or key == OTHERS:
            others.append({"name": key, "value": _value(value, depth + 2)})
        else:
            table[key] = _value(value, depth)
    if others:
        table[OTHERS] = others
    return table


def _name(name: Any) -> str:
    if isinstance(name, str):
        return name if name.isascii() else utf8(name).decode()
    return text_of(bytes(name)) if isinstance(name, bytes) else str(name)


def _value(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else str(value)  # a common client ends at others
    if isinstance(value, str):
        return value if value.isascii() else utf8(value).decode()
    if isinstance(value, Timestamp):  # asked before int: machine code makes plain integers of what it knows to be one
        return value
    if isinstance(value, int):
        return value if _LEAST <= value <= _MOST else str(value)
    return _rare(value, depth)


def _rare(value: Any, depth: int) -> Any:
    if isinstance(value, dict | list | tuple):
        return _nested(value, depth + 1)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytearray(value)  # a byte array: long strings are text to some clients
    return _timestamp(value) if isinstance(value, datetime) else _text(value)


def _nested(value: Any, depth: int) -> Any:
    if depth > MOST_DEEP:
        return _text(value)
    if isinstance(value, dict):
        return _table(value, depth, {})
    return [_value(inner, depth) for inner in value]


def _timestamp(time: datetime) -> Any:
    """Return a time as a table has it, if it is one of whole seconds since 1970; else its text."""
    if time.tzinfo is None or time.microsecond:
        return time.isoformat()
    seconds = int(time.timestamp())
    if seconds < 0:
        return time.isoformat()
    return Timestamp(seconds)


def _text(value: Any) -> str:
    """Return a value for which tables have no type."""
    if isinstance(value, msgspec.msgpack.Ext):
        return f"ext {value.code}: {b64encode(value.data).decode()}"
    if isinstance(value, dict | list | tuple):
        try:
            return msgspec.json.encode(value, enc_hook=_text).decode()
        except (TypeError, ValueError, RecursionError):
            return "(too deep)"
    return utf8(str(value)).decode()


def _deaths(deaths: Any, told: Any) -> Any:
    if not isinstance(deaths, list | tuple):
        return deaths
    return [{**one, _TIME: told(one[_TIME])} if isinstance(one, dict) and _TIME in one else one for one in deaths]


def _time(value: Any) -> Any:
    if type(value) is int and 0 <= value <= LATEST_S:
        return Timestamp(value)
    return value


def _second(value: Any) -> Any:
    return int(value.timestamp()) if isinstance(value, datetime) else value


def shortened(table: dict[str, Any], most: int) -> dict[str, Any]:
    """Return as many of the headers, in order, as fit; `TOO_LARGE` says which are missing.

    Args:
        table: as of `table_of`.
        most: bytes of all of it, as encoded.
    """
    kept: dict[str, Any] = {}
    missing: list[str] = []
    room = most - most // 4
    for name, value in table.items():
        size = len(encode_table({name: value})) - _TABLE_BYTES
        if size > room:
            missing.append(name)
        else:
            room -= size
            kept[name] = value
    named = len(encode_table({TOO_LARGE: missing})) <= most // 4
    kept[TOO_LARGE] = missing if named else f"{len(missing)} of {len(table)}"
    return kept
