"""How does work that takes long go on a part at a time, with turns in between?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.engine.engine import Engine

PAUSE_MS = 1
LOOK_AGAIN_MS = 1_000


class Rounds:
    """Work that rests between its parts, and for as long as the journal fails.

    Args:
        go_on: does a part, and says whether there is more to do.
    """

    __slots__ = ("_engine", "_go_on", "_timer_is_set")

    def __init__(self, engine: Engine, go_on: Callable[[], bool]) -> None:
        self._engine: Engine = engine
        self._go_on: Callable[[], bool] = go_on
        self._timer_is_set: bool = False

    def begin(self, delay_ms: int = PAUSE_MS) -> None:
        """See that the next part is done, after a pause; nothing happens if it is to come already."""
        if not self._timer_is_set:
            self._timer_is_set = True
            self._engine.timers.at(self._engine.now_ms + delay_ms, self._next)

    def _next(self, _: int) -> None:
        self._timer_is_set = False
        if self._engine.refusal is not None:
            self.begin(LOOK_AGAIN_MS)
        elif self._go_on():
            self.begin()
