"""How much is kept of what has come in part, and who must go if it is too much?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

P = TypeVar("P")


class Partial(Generic[P]):
    """Those who have sent a part of something, and how many bytes are kept of each and of all (``held_bytes``).

    Args:
        most_bytes: so much may be kept of all of them; beyond that those that have the most are closed, until an eighth is free.
        close: closes one; nothing is kept of it any more. It may say of others, too, that they are gone.
    """

    __slots__ = ("_close", "_held", "_most_bytes", "held_bytes")

    def __init__(self, most_bytes: int, close: Callable[[P], None]) -> None:
        self._most_bytes: int = most_bytes
        self._close: Callable[[P], None] = close
        self._held: dict[P, int] = {}
        self.held_bytes: int = 0

    def holds(self, part: P, size: int) -> None:
        """So much is kept of what one has sent; 0: nothing, or it is gone."""
        before = self._held.pop(part, 0)
        if size:
            self._held[part] = size
        self.held_bytes += size - before
        if size > before and self.held_bytes > self._most_bytes:
            self._make_room()

    def held_of(self, part: P) -> int:
        """Return how much is kept of what one has sent."""
        return self._held.get(part, 0)

    def _make_room(self) -> None:
        """Close those that have the most. Cost: all of them, once for the eighth that is free then."""
        enough = self._most_bytes - self._most_bytes // 8
        for part in sorted(self._held, key=self._held.__getitem__, reverse=True):
            if self.held_bytes <= enough:
                return
            if part in self._held:
                self.holds(part, 0)
                self._close(part)
