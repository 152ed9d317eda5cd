"""When are those answered who were not let in?

Anybody can make a socket answer, so there are limits to it: everybody is answered once a second, and not too many are within one.
Who says more than that is answered late, and only to what it said last: a client that waits for an answer gets one, and a flood of
questions is a trickle of answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway_zeromq.endpoints.speech import Peer

ROUND_S = 1.0
"""Within it everybody is answered once."""
PER_S = 1_000
"""Answers to all of them."""
MOST_LATE = 5_000
"""Those who wait for theirs; beyond that nothing is said."""


class Strangers:
    """What is to be said to those who were not let in."""

    def __init__(self) -> None:
        self._round = -1
        self._answered: set[bytes] = set()
        self._late: dict[bytes, tuple[Peer, list[Any]]] = {}

    def may_be_told(self, name: bytes, now: float) -> bool:
        """Say whether somebody is answered at once. If so, that counts."""
        this = int(now / ROUND_S)
        if this != self._round:
            self._round = this
            self._answered.clear()
        if name in self._answered or len(self._answered) >= PER_S:
            return False
        self._answered.add(name)
        return True

    def keep(self, name: bytes, peer: Peer) -> None:
        """Take what is to be said to a peer, to say it later, in place of what was kept for that name before."""
        if name in self._late or len(self._late) < MOST_LATE:
            self._late[name] = peer, peer.out
        peer.out = []
        peer.out_bytes = 0

    def forget(self, name: bytes) -> None:
        """Say nothing more to somebody, who was let in."""
        self._late.pop(name, None)

    def due(self, now: float) -> Iterator[tuple[bytes, Peer]]:
        """Yield who is answered now; what is said to it is where it was."""
        for name in list(self._late):
            if self.may_be_told(name, now):
                peer, out = self._late.pop(name)
                peer.out = out
                yield name, peer
            elif len(self._answered) >= PER_S:
                return
