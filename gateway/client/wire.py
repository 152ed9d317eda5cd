"""How do TGP/1 commands become a header frame, and back?"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import msgspec

from gateway.client.errors import ClientError

VERSION = 1
MANDATORY = 1
NO_CONFIRM = 2


class Command(IntEnum):
    """The first element of every header (docs/tgp.md, frame table)."""

    HELLO = 1
    READY = 2
    PUBLISH = 3
    CONFIRM = 4
    RETURN = 5
    CONSUME = 6
    CANCEL = 7
    DELIVER = 8
    ACK = 9
    NACK = 10
    CREDIT = 11
    GET = 12
    DECLARE = 13
    DELETE = 14
    BIND = 15
    UNBIND = 16
    PURGE = 17
    EMPTY = 18
    GOT = 19
    OK = 20
    ERROR = 21
    PING = 22
    PONG = 23
    BYE = 24
    BATCH = 25
    EXTEND = 26
    UNSCHEDULE = 27


encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(list[Any])


def decode(header: bytes) -> list[Any]:
    """Return command number and fields.

    Raises:
        ClientError: 501, it is not a msgpack array that begins with a number.
    """
    try:
        fields = _decoder.decode(header)
    except msgspec.DecodeError as error:
        raise ClientError(501, f"the gateway sent a header that is not a msgpack array: {error}") from None
    if not fields or not isinstance(fields[0], int):
        raise ClientError(501, "the gateway sent a header without a command number")
    return fields
