"""What time is it for messages, while sockets go by the clock of trio?"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Wall time in ms since 1970 that never goes backwards."""

    def now_ms(self) -> int:
        """Return the time."""


class WallClock:
    """The system's time; while it was set back, the time stands still."""

    def __init__(self) -> None:
        self._latest_ms = 0

    def now_ms(self) -> int:
        """Return the time."""
        self._latest_ms = max(self._latest_ms, time.time_ns() // 1_000_000)
        return self._latest_ms
