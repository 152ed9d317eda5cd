"""What time is it for messages, while sockets go by the clock of trio?"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import trio

STEP_NS = 500_000_000
"""What the system's clock is moved by at once, if it is set and does not merely drift."""


class Clock(Protocol):
    """Wall time in ms since 1970 that never goes backwards, and never stands still."""

    def now_ms(self) -> int:
        """Return the time."""

    def look(self) -> int:
        """Compare with the system's clock; return by how many ms that was set since the last look, 0: it was not.

        Called about once a second: a clock that was set forward is followed from here on.
        """


class WallClock:
    """The system's time, advanced by its steady clock.

    If the system's clock is set forward, this one follows with the next look. If it is set back, this one goes on at its pace,
    ahead of the system's until that has caught up, so that what is to happen in ten minutes happens in ten minutes.

    Args:
        system, steady: what to go by, in ns: time since 1970, and time that nobody sets.
    """

    def __init__(self, system: Callable[[], int] = time.time_ns, steady: Callable[[], int] = time.monotonic_ns) -> None:
        self._system = system
        self._steady = steady
        self._seen_ns = self._offset_ns = system() - steady()

    def now_ms(self) -> int:
        """Return the time."""
        return (self._steady() + self._offset_ns) // 1_000_000

    def look(self) -> int:
        """See `Clock.look`."""
        offset_ns = self._system() - self._steady()
        step_ns = offset_ns - self._seen_ns
        self._seen_ns = offset_ns
        self._offset_ns = max(self._offset_ns, offset_ns)
        return step_ns // 1_000_000 if abs(step_ns) >= STEP_NS else 0


class VirtualClock:
    """Follows the clock of trio, so that a test with a virtual one drives everything; `set_by` is a system's clock that is set.

    Args:
        start_ms: the time when it is made, within `trio.run`.
    """

    def __init__(self, start_ms: int = 1_700_000_000_000) -> None:
        self._ahead_s = start_ms / 1e3 - trio.current_time()
        self._set_ns = 0
        self._wall = WallClock(self._read, self._read_steady)

    def _read_steady(self) -> int:
        return round((trio.current_time() + self._ahead_s) * 1e6) * 1_000

    def _read(self) -> int:
        return self._read_steady() + self._set_ns

    def set_by(self, step_ms: int) -> None:
        """Set the system's clock forward or back."""
        self._set_ns += step_ms * 1_000_000

    def now_ms(self) -> int:
        """Return the time."""
        return self._wall.now_ms()

    def look(self) -> int:
        """See `Clock.look`."""
        return self._wall.look()
