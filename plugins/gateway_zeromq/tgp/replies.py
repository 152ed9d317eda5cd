"""Which codes does TGP/1 answer with, what must an answer know, and what may a peer do?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gateway_zeromq.tgp.codec import Encoder

# AMQP 0-9-1's reply codes (§1.2.5) where it has one; 401 is HTTP's.
DONE, TOO_LARGE, NO_ROUTE, FORCED, HELLO_FIRST, REFUSED, NOT_FOUND, LOCKED = 200, 311, 312, 320, 401, 403, 404, 405
CONTRADICTS = 406
SYNTAX, COMMAND_INVALID, NO_ROOM, NO_VERSION, NOT_BUILT = 501, 503, 506, 530, 540


@dataclass(frozen=True, slots=True)
class Rules:
    """What a peer may do, from the endpoint's settings."""

    heartbeat_ms: int = 5_000
    max_credit: int = 1_000
    max_credit_bytes: int = 64 * 1024 * 1024
    max_consumers: int = 1_000
    max_body_bytes: int = 16 * 1024 * 1024
    max_unconfirmed: int = 10_000
    max_unconfirmed_bytes: int = 64 * 1024 * 1024
    quiet_s: float = 300.0


class Greeting(NamedTuple):
    """What a peer is told when it is let in. ``refused``: runs of numbers up to `last_seq` that were not stored, with the code."""

    token: str
    resumed: bool
    last_seq: int
    refused: Sequence[tuple[int, int, int]]
    user: str


class Question(NamedTuple):
    """What an answer must know: the client's number, which command it was, and its form."""

    r: int
    number: int
    encode: Encoder
