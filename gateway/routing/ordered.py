"""Which of these comes next in order?"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

MOST = 1024
"""A run is cut in two when it is longer than this, and joined with its neighbour when it is shorter than an eighth."""

T = TypeVar("T", bound=Any)


class Ordered(Generic[T]):
    """Distinct things in order, in runs of bounded length: nothing that is done with one of them takes time in proportion to all.

    Cost: `add`, `discard` and `run_from` a search and a move within one run, and within the list of runs.
    """

    __slots__ = ("_lasts", "_runs")

    def __init__(self) -> None:
        self._runs: list[list[T]] = []
        self._lasts: list[T] = []

    def __iter__(self) -> Iterator[T]:
        for run in self._runs:
            yield from run

    def add(self, thing: T) -> None:
        """Add a thing that is not there."""
        if not self._runs:
            self._runs.append([thing])
            self._lasts.append(thing)
            return
        at = min(bisect_left(self._lasts, thing), len(self._runs) - 1)
        run = self._runs[at]
        insort(run, thing)
        self._lasts[at] = run[-1]
        if len(run) > MOST:
            self._cut(at)

    def discard(self, thing: T) -> None:
        """Take a thing out that is there."""
        at = bisect_left(self._lasts, thing)
        run = self._runs[at]
        del run[bisect_left(run, thing)]
        if len(run) < MOST // 8:
            self._join(at)
        else:
            self._lasts[at] = run[-1]

    def discard_if_there(self, thing: T) -> None:
        """Take a thing out, if it is there."""
        run, index = self.run_from(thing)
        if index < len(run) and run[index] == thing:
            self.discard(thing)

    def run_from(self, least: T) -> tuple[list[T], int]:
        """Return a run, only to be read, and where the first thing in it is that is no less than `least`.

        An empty run: there is none. What follows this run follows its last thing.
        """
        at = bisect_left(self._lasts, least)
        if at == len(self._runs):
            return [], 0
        run = self._runs[at]
        return run, bisect_left(run, least)

    def moved(self) -> Ordered[T]:
        """Return another one with all things; this one has none any more."""
        other: Ordered[T] = Ordered()
        self._runs, other._runs = other._runs, self._runs
        self._lasts, other._lasts = other._lasts, self._lasts
        return other

    def first(self) -> T | None:
        """Return the first of all; None: there is none."""
        return self._runs[0][0] if self._runs else None

    def _cut(self, at: int) -> None:
        run = self._runs[at]
        half = len(run) // 2
        self._runs[at : at + 1] = [run[:half], run[half:]]
        self._lasts[at : at + 1] = [run[half - 1], run[-1]]

    def _join(self, at: int) -> None:
        """Put a short run and its neighbour together; an empty one goes."""
        low = max(at - 1, 0)
        joined = [thing for run in self._runs[low : low + 2] for thing in run]
        self._runs[low : low + 2] = [joined] if joined else []
        self._lasts[low : low + 2] = joined[-1:]
        if len(joined) > MOST:
            self._cut(low)
