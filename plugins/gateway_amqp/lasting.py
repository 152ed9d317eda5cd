"""Which message becomes the last value of its key? The one of which a header says so."""

from __future__ import annotations

from typing import Final

from gateway.api import NOT_TOPIC, OWN_KEYS, Address
from gateway_amqp.codec.content import HEADERS, put, spans
from gateway_amqp.codec.names import BASIC_PUBLISH, PRECONDITION_FAILED, SoftError
from gateway_amqp.codec.tables import decode_field, find_field, without_field

HEADER: Final = b"x-retain"
"""True: it becomes its key's last value, or clears it if the body is empty; false: it does not. It is taken off the message."""

_EMPTY: Final = 4
"""Bytes of a table without fields."""


def retain_of(properties: bytes, start: int, end: int) -> bool:
    """Return whether a message is to be retained.

    Args:
        properties: as in a header frame.
        start, end: where their headers stand.

    Raises:
        SoftError: 406, the header says neither true nor false.
    """
    _, kind, past = find_field(properties, start, end, HEADER)
    if not past:
        return False
    value = decode_field(properties, kind, past)
    if not isinstance(value, bool):
        text = f"invalid message: the header x-retain must be true or false, not {value!r:.40}"
        raise SoftError(PRECONDITION_FAILED, text, BASIC_PUBLISH)
    return value


def without_retain(properties: bytes) -> bytes:
    """Return properties as everybody may see them: without the header, and without headers if it was the only one."""
    for flag, start, end in spans(properties):
        if flag == HEADERS:
            table = without_field(properties, start, end, HEADER)
            return put(properties, HEADERS, table if len(table) > _EMPTY else b"")
    return properties


def check_kept(address: Address) -> None:
    """Refuse to retain where there are no last values, or where they are the broker's own.

    Raises:
        SoftError: 406, nothing is retained there.
    """
    exchange, key = address.exchange, address.routing_key
    if exchange in NOT_TOPIC:
        text = f"last values are a topic exchange's, and exchange '{exchange}' in vhost '{address.vhost}' is none"
        raise SoftError(PRECONDITION_FAILED, text, BASIC_PUBLISH)
    if key.startswith(OWN_KEYS):
        text = f"last values of keys that begin with {OWN_KEYS} are the broker's own"
        raise SoftError(PRECONDITION_FAILED, text, BASIC_PUBLISH)
