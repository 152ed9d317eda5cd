"""How far can a peer of a PUSH endpoint with ``ack = "pong"`` have come, and what holds for all of them?"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple


class State(Enum):
    """How far a peer has come."""

    MEETING = auto()
    PROBED = auto()  # it has to answer a PING before it gets anything
    PONGING = auto()
    HANDING = auto()  # it can't answer: what the kernel takes is settled
    GONE = auto()


class Rules(NamedTuple):
    """What holds for all peers of an endpoint.

    Args:
        window: messages that one peer may be sent and not have ponged.
        window_bytes: their bodies; one message is always allowed.
        interval: messages between PINGs.
        behind: a message is settled when so many after it are ponged.
        heartbeat_s: after so long without a PING one is sent.
        pong_timeout_s: a peer that has messages and pongs none for so long is dead; 0.0: never.
        older: what is done with peers of ZMTP below 3.1: ``handover``, ``ping`` or ``refuse``.
    """

    window: int = 1_024
    window_bytes: int = 16 * 1024 * 1024
    interval: int = 64
    behind: int = 0
    heartbeat_s: float = 5.0
    pong_timeout_s: float = 600.0
    older: str = "handover"
