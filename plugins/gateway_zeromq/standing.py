"""Where does a peer stand, whatever it speaks, and whose silence is it when nobody has been heard for long?"""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """Where a peer of a ROUTER socket stands."""

    GREETING = "it was not let in yet"
    READY = "ready"
    CLOSED = "gone, or about to be told so"


class Rounds:
    """Knows how long one who looks at its peers at intervals was kept from it.

    A process that was stopped, or a machine that slept, finds that everybody has been silent for long: but it was away itself.

    Args:
        now: when the first interval begins, in seconds, as all times here.
    """

    __slots__ = ("_last",)

    def __init__(self, now: float) -> None:
        self._last: float = now

    def late_s(self, now: float, interval_s: float) -> float:
        """Begin a round; return by how much it comes too late, 0.0 if that is not more than the interval before it."""
        late_s = now - self._last - interval_s
        self._last = now
        return late_s if late_s > interval_s else 0.0
