"""What is to happen later, and when is the next of it due?"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import TypeAlias

Call: TypeAlias = Callable[[int], None]
"""``(now_ms)``"""

NOTHING_DUE = 1 << 62
_TIDY_FROM = 64


class Timer:
    """One appointment; ``call`` is None once it is kept or cancelled."""

    __slots__ = ("call", "due_ms")

    def __init__(self, due_ms: int, call: Call) -> None:
        self.due_ms: int = due_ms
        self.call: Call | None = call


class Timers:
    """Appointments by wall time in ms since 1970, kept in the order of time, then of making.

    ``next_due_ms``: no appointment is due before; NOTHING_DUE if there is none.
    """

    __slots__ = ("_cancelled", "_heap", "_made", "next_due_ms")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Timer]] = []
        self._made: int = 0
        self._cancelled: int = 0
        self.next_due_ms: int = NOTHING_DUE

    def at(self, due_ms: int, call: Call) -> Timer:
        """Have `call(now_ms)` called once it is `due_ms`. Cost: O(log n)."""
        timer = Timer(due_ms, call)
        self._made += 1
        heappush(self._heap, (due_ms, self._made, timer))
        self.next_due_ms = min(self.next_due_ms, due_ms)
        return timer

    def cancel(self, timer: Timer | None) -> None:
        """Forget an appointment; nothing happens if it was kept already."""
        if timer is None or timer.call is None:
            return
        timer.call = None
        self._cancelled += 1
        if self._cancelled > _TIDY_FROM and self._cancelled > len(self._heap) // 2:
            self._heap = [item for item in self._heap if item[2].call is not None]
            heapify(self._heap)
            self._cancelled = 0

    def run(self, now_ms: int) -> None:
        """Keep every appointment that is due; what they make anew and is due already is kept at the next call."""
        heap = self._heap
        last = self._made
        later: list[tuple[int, int, Timer]] = []
        while heap and heap[0][0] <= now_ms:
            item = heappop(heap)
            call = item[2].call
            if call is None:
                self._cancelled -= 1
            elif item[1] > last:
                later.append(item)
            else:
                item[2].call = None
                call(now_ms)
                heap = self._heap
        for item in later:
            heappush(heap, item)
        self.next_due_ms = heap[0][0] if heap else NOTHING_DUE
