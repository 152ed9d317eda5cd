"""Who has sent a part of a frame or message, and how much is kept of all such parts?"""

from __future__ import annotations

from typing import Protocol


class Part(Protocol):
    """A connection that has sent a part of something."""

    def too_much(self) -> None:
        """Close it: there is no room for all that was begun, and it has the most."""


class Partial:
    """The connections of which something is kept that is not complete, and how much.

    Args:
        most_bytes: so much may be kept of all of them; beyond that those that have the most are closed.
    """

    __slots__ = ("_held", "_most_bytes", "held_bytes")

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes: int = most_bytes
        self._held: dict[Part, int] = {}
        self.held_bytes: int = 0

    def holds(self, part: Part, size: int) -> None:
        """So much is kept of what a connection has sent; 0: nothing, or it is gone."""
        before = self._held.pop(part, 0)
        if size:
            self._held[part] = size
        self.held_bytes += size - before
        if size > before and self.held_bytes > self._most_bytes:
            self._make_room()

    def _make_room(self) -> None:
        """Close those that have the most, until an eighth is free. Cost: all of them, once for that eighth."""
        enough = self._most_bytes - self._most_bytes // 8
        for part, _ in sorted(self._held.items(), key=_size, reverse=True):
            if self.held_bytes <= enough:
                return
            self.holds(part, 0)
            part.too_much()


def _size(item: tuple[Part, int]) -> int:
    return item[1]
