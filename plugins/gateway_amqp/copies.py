"""To which other keys does a message go, by its headers CC and BCC (RabbitMQ's sender-selected distribution)?"""

from __future__ import annotations

from typing import Any, Final

from gateway_amqp.codec.content import without_header
from gateway_amqp.codec.names import BASIC_PUBLISH, PRECONDITION_FAILED, SoftError
from gateway_amqp.codec.tables import decode_field, find_field

_CC: Final = b"CC"
_BLIND: Final = b"BCC"
_NAMED: Final = b"CC"
_ARRAY: Final = 0x41
_TYPES: Final = {
    "t": "bool", "b": "byte", "B": "unsignedbyte", "s": "short", "u": "unsignedshort", "I": "signedint", "i": "unsignedint",
    "l": "long", "L": "long", "f": "float", "d": "double", "D": "decimal", "S": "longstr", "A": "array", "T": "timestamp",
    "F": "table", "V": "void", "x": "binary",
}  # fmt: skip
"""Types of fields, in the words of RabbitMQ."""


def copy_keys(properties: bytes, start: int, end: int) -> tuple[str, ...]:
    """Return the keys of CC and BCC, each once.

    Args:
        properties: as in a header frame.
        start, end: where their headers stand.

    Raises:
        SoftError: 406, one of the two is no list.
    """
    if _NAMED not in properties:  # almost always
        return ()
    keys: dict[str, None] = {}
    for name in (_CC, _BLIND):
        for key in _keys_of(properties, start, end, name):
            keys[key] = None
    return tuple(keys)


def _keys_of(properties: bytes, start: int, end: int, name: bytes) -> list[str]:
    _, kind, past = find_field(properties, start, end, name)
    if not past:
        return []
    if properties[kind] != _ARRAY:
        type_ = _TYPES.get(chr(properties[kind]), "unknown")
        raise _invalid(f'{{unacceptable_type_in_header,"{name.decode()}",{type_}}}')
    values: list[Any] = decode_field(properties, kind, past)
    return [value for value in values if isinstance(value, str)]  # RabbitMQ passes over what is no text, too


def without_blind(properties: bytes) -> bytes:
    """Return properties as everybody may see them: without BCC."""
    return without_header(properties, _BLIND) if _BLIND in properties else properties


def _invalid(why: str) -> SoftError:
    return SoftError(PRECONDITION_FAILED, f"invalid message: {why}", BASIC_PUBLISH)
