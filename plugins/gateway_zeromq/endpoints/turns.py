"""How does a batch of messages leave others their turn, if it takes long to work through?"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any, Final

import trio

from trio_zmq.pump import BATCH

SLICE: Final = 8
"""Messages between two looks at the clock."""
LONG_S: Final = 0.003


class Turns:
    """Works through what a socket receives.

    ``limit``: how many messages are to be received next. It falls as long as they take long, and is low when few come: who sends
    such messages is one of many on the socket, and the others' come behind what was received before. ``left``: messages that were
    received, and wait.
    ``done``: those that do not, since somebody set it to 0.

    Args:
        work: takes messages.
    """

    __slots__ = ("_work", "done", "left", "limit")

    def __init__(self, work: Callable[[list[Any]], None]) -> None:
        self._work = work
        self.limit: int = SLICE
        self.done = self.left = 0

    async def take(self, batch: list[Any]) -> None:
        """Have a batch worked through; after what takes long everybody else has a turn.

        Cancellation: safe; all of it is worked through.
        """
        work, at, step, end = self._work, 0, 1, len(batch)
        is_long = False
        began = perf_counter()
        while True:
            work(batch[at : at + step])
            at += step
            now = perf_counter()
            if now - began > LONG_S:
                is_long, step = True, 1
                if at < end:
                    self.left = end - at
                    await trio.lowlevel.cancel_shielded_checkpoint()
                    now = perf_counter()
                began = now
            elif step < SLICE:
                step *= 2
            if at >= end:
                break
        self.left = 0
        self.done += end
        self._adapt(end, is_long=is_long)

    def _adapt(self, received: int, *, is_long: bool) -> None:
        """Say how many are to be received next: many only if many come."""
        if is_long:
            self.limit = max(self.limit // 4, 1)
        elif received >= self.limit:
            self.limit = min(self.limit * 2, BATCH)
        elif self.limit > SLICE:
            self.limit //= 2
