"""Who has begun a packet and does not go on with it?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

PROGRESS_BYTES: Final = 1_024
"""So much more of a packet is progress."""


class Half(Protocol):
    """A connection that has sent a part of a packet."""

    def stuck(self) -> None:
        """Close it: there was no progress."""


class Halves:
    """The connections that have sent a part of a packet, by when more must have come.

    Args:
        now_s: what time-outs go by.
        patience_s: so long may pass without progress.
    """

    __slots__ = ("_due", "_now_s", "_patience_s")

    def __init__(self, now_s: Callable[[], float], patience_s: float) -> None:
        self._now_s = now_s
        self._patience_s = patience_s
        self._due: dict[Half, float] = {}

    def __len__(self) -> int:
        return len(self._due)

    def part(self, half: Half, size: int) -> None:
        """So much of a packet has come, and it is not complete."""
        if size >= PROGRESS_BYTES:
            self._due.pop(half, None)  # it is the last one then: they stand in the order in which they are due
        elif half in self._due:
            return
        self._due[half] = self._now_s() + self._patience_s

    def whole(self, half: Half) -> None:
        """Its packet is complete, or it is gone."""
        self._due.pop(half, None)

    def sweep(self) -> None:
        """Close those that are stuck."""
        now_s = self._now_s()
        while self._due:
            half, due_at = next(iter(self._due.items()))
            if due_at > now_s:
                return
            del self._due[half]
            half.stuck()
