"""What happens at the end of each turn of the loop?

A turn is everything that runs between two waits for I/O, or until somebody ends it sooner. At its end the open batch is handed
over, if the journal is idle, and what front-ends collected is sent, once per connection.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import trio

from gateway.api.frontend import Flushable
from gateway.engine.engine import Engine

ROUNDS = 8
"""A flush may cause more to flush; after so many rounds in one turn others get theirs."""
FEW = 4
"""When so few have something to send they need not wait until the batch is handed over; more get all of a turn in one send."""
NAP_EVERY_S = 0.0005
NAP_S = 1e-6
REAL_WAIT_S = 40e-6
"""A wait for I/O that took longer has let the journal's thread run."""


class Turns(trio.abc.Instrument):
    """Tells the engine the time after each wait for I/O; before it runs `at_end` and flushes what was touched.

    While a commit is under way and the loop is never idle, it sleeps for a moment every half millisecond: a thread beside a busy
    loop that makes system calls would otherwise wait for the interpreter's lock, for up to a hundred times as long.

    Args:
        engine: its `now_ms` is set once per turn.
        now_ms: wall time.
        at_end: called before anything is flushed, but for what few have to send; returns True if it wants another round.
        commit_since: `perf_counter` of the commit under way; 0.0: none.
        fail: told of an exception; the broker ends (its state can't be trusted).
        flush_failed: told of what could not be flushed; everything else is.
    """

    def __init__(
        self,
        engine: Engine,
        now_ms: Callable[[], int],
        at_end: Callable[[], bool],
        commit_since: Callable[[], float],
        fail: Callable[[BaseException], None],
        flush_failed: Callable[[Flushable, Exception], None],
    ) -> None:
        self._engine = engine
        self._now_ms = now_ms
        self._at_end = at_end
        self._commit_since = commit_since
        self._fail = fail
        self._flush_failed = flush_failed
        self._token = trio.lowlevel.current_trio_token()
        self._dirty: list[Flushable] = []
        self._waking = False
        self._waited_from = 0.0
        self._rested = 0.0
        self._naps = len(os.sched_getaffinity(0)) > 1 if hasattr(os, "sched_getaffinity") else True
        self.touch: Callable[[Flushable], None] = self._dirty.append

    def wake(self) -> None:
        """See to it that another turn comes, now."""
        if not self._waking:
            self._waking = True
            self._token.run_sync_soon(_nothing, idempotent=True)

    def soon(self, call: Callable[[], object]) -> None:
        """Call something at the beginning of the next turn; safe at the end of one, where tasks can't be woken directly."""
        self._token.run_sync_soon(call)

    def end_now(self) -> bool:
        """End the turn and begin the next one, without a wait between; False: now somebody must be waited for."""
        try:
            self._end()
        except BaseException as error:
            self._fail(error)
            return False
        self._engine.now_ms = self._now_ms()
        return not (self._waking or self._commit_since())

    def before_io_wait(self, timeout: float) -> None:
        """End the turn."""
        try:
            self._end()
        except BaseException as error:
            self._fail(error)
        self._waited_from = time.perf_counter() if self._naps and self._commit_since() else 0.0

    def after_io_wait(self, timeout: float) -> None:
        """Begin the turn; let the journal's thread run first if nothing else did."""
        self._waking = False
        if self._waited_from:
            self._nap(self._waited_from)
        self._engine.now_ms = self._now_ms()

    def _nap(self, waited_from: float) -> None:
        now = time.perf_counter()
        if now - waited_from > REAL_WAIT_S:
            self._rested = now
        elif now - max(self._rested, self._commit_since()) > NAP_EVERY_S:
            time.sleep(NAP_S)
            self._rested = time.perf_counter()

    def _end(self) -> None:
        dirty = self._dirty
        if 0 < len(dirty) <= FEW:
            self._flush(dirty)
        for _ in range(ROUNDS):
            again = self._at_end()
            if dirty:
                self._flush(dirty)
            elif not again:
                return
        self.wake()

    def _flush(self, dirty: list[Flushable]) -> None:
        batch = dirty[:]
        dirty.clear()
        for flushable in batch:
            try:
                flushable.flush()
            except Exception as error:  # a front-end's fault must not reach the others
                self._flush_failed(flushable, error)


def _nothing() -> None:
    """Only the waking counts."""
