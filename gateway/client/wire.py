"""How do TGP/1 commands become a header frame, and back?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Any, TypeAlias

import msgspec

from gateway.client.errors import ClientError

VERSION = 1
MANDATORY = 1
NO_CONFIRM = 2

MAX_HEADER_BYTES = 65_536
BATCH_MESSAGES = 1_000
BATCH_BYTES = 262_144
"""At most so much of bodies goes together: what is larger gains nothing by it."""


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


Pair: TypeAlias = tuple[tuple[Any, ...], bytes]
"""A PUBLISH as a tuple, and its body."""
_FLAGS, _FIELDS = 5, 6
"""Where a PUBLISH has its flags, and how many fields one has that is for now."""


def batches(pairs: Iterable[Pair], max_body_bytes: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield headers and bodies that say the same as these publishes, in order, and as few as there can be.

    Args:
        max_body_bytes: what the server takes; 0: it did not say.
    """
    most_bytes = min(max_body_bytes or BATCH_BYTES, BATCH_BYTES)
    run: list[Pair] = []
    run_bytes = 0
    for pair in pairs:
        if run and (run_bytes + len(pair[1]) > most_bytes or len(run) == BATCH_MESSAGES or not _goes_with(run[-1][0], pair[0])):
            yield from _packed(run)
            run, run_bytes = [], 0
        run.append(pair)
        run_bytes += len(pair[1])
    yield from _packed(run)


def _goes_with(last: tuple[Any, ...], command: tuple[Any, ...]) -> bool:
    follows = command[1] == last[1] + 1 and command[_FLAGS] == last[_FLAGS]
    return follows and len(command) == len(last) == _FIELDS


def _packed(run: list[Pair]) -> Iterator[tuple[bytes, bytes]]:
    if len(run) < 2:  # noqa: PLR2004 - one is no batch
        yield from ((encode(command), body) for command, body in run)
        return
    first = run[0][0]
    parts = [(len(body), *command[2:_FLAGS]) for command, body in run]
    header = encode((Command.BATCH, first[1], parts, first[_FLAGS]))
    if len(header) <= MAX_HEADER_BYTES:
        yield header, b"".join(body for _, body in run)
    else:
        half = len(run) // 2
        yield from _packed(run[:half])
        yield from _packed(run[half:])
