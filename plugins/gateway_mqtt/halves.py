"""Who has begun a packet and does not go on with it, and how much is kept of all such packets?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from gateway.api import Partial

PROGRESS_BYTES: Final = 1_024
"""So much more of a packet is progress."""
MOST_BYTES: Final = 256 * 1024 * 1024


class Half(Protocol):
    """A connection that has sent a part of a packet."""

    def stuck(self) -> None:
        """Close it: there was no progress."""

    def too_much(self) -> None:
        """Close it: there is no room for all that was begun, and it has the most."""


class Halves:
    """The connections that have sent a part of a packet, by when more must have come.

    Args:
        now_s: what time-outs go by.
        patience_s: so long may pass without progress.
        most_bytes: so much may be kept of all of them; beyond that those that have the most are closed.
    """

    __slots__ = ("_due", "_now_s", "_partial", "_patience_s")

    def __init__(self, now_s: Callable[[], float], patience_s: float, most_bytes: int = MOST_BYTES) -> None:
        self._now_s = now_s
        self._patience_s = patience_s
        self._due: dict[Half, float] = {}
        self._partial: Partial[Half] = Partial(most_bytes, self._too_much)

    def __len__(self) -> int:
        return len(self._due)

    @property
    def held_bytes(self) -> int:
        """How much is kept of all of them."""
        return self._partial.held_bytes

    def part(self, half: Half, size: int) -> None:
        """A packet is not complete of which so much is kept."""
        if half not in self._due or size // PROGRESS_BYTES != self._partial.held_of(half) // PROGRESS_BYTES:
            self._due.pop(half, None)  # it is the last one then: they stand in the order in which they are due
            self._due[half] = self._now_s() + self._patience_s
        self._partial.holds(half, size)

    def whole(self, half: Half) -> None:
        """Its packet is complete, or it is gone."""
        self._due.pop(half, None)
        self._partial.holds(half, 0)

    def _too_much(self, half: Half) -> None:
        self._due.pop(half, None)
        half.too_much()

    def sweep(self) -> None:
        """Close those that are stuck."""
        now_s = self._now_s()
        while self._due:
            half, due_at = next(iter(self._due.items()))
            if due_at > now_s:
                return
            self.whole(half)
            half.stuck()
