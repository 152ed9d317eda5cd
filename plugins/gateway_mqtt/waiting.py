"""Which connections are not let in yet, and which must go if they are too many?"""

from __future__ import annotations

from typing import Final, Protocol

MOST_BYTES: Final = 64 * 1024 * 1024
"""What all of them together may have sent of their CONNECTs."""


class Waiter(Protocol):
    """A connection whose CONNECT is not answered."""

    def give_up(self) -> None:
        """Close it."""


class Waiting:
    """The connections whose CONNECT is not answered; beyond a limit the one that has waited longest is closed.

    A client that means it sends its CONNECT at once, so it is the silent ones that are closed.

    Args:
        most: so many may wait.
    """

    __slots__ = ("_bytes", "_held", "_most", "_most_bytes")

    def __init__(self, most: int, most_bytes: int = MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._held: dict[Waiter, int] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def add(self, waiter: Waiter) -> None:
        """One more has come."""
        self._held[waiter] = 0
        if len(self._held) > self._most:
            self._close_oldest()

    def grown(self, waiter: Waiter, size: int) -> None:
        """It has sent so many bytes that are kept."""
        if waiter in self._held:
            self._held[waiter] += size
            self._bytes += size
            while self._bytes > self._most_bytes and len(self._held) > 1:
                self._close_oldest(sparing=waiter)

    def done(self, waiter: Waiter) -> None:
        """It was answered, or is gone."""
        self._bytes -= self._held.pop(waiter, 0)

    def _close_oldest(self, sparing: Waiter | None = None) -> None:
        oldest = next(waiter for waiter in self._held if waiter is not sparing)
        self.done(oldest)
        oldest.give_up()
