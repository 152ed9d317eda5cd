"""When is the open batch handed to the journal, and who learns the outcome?"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import trio

from gateway.api.channel import Outcome
from gateway.api.frontend import Log
from gateway.config import Limits
from gateway.engine.engine import Engine
from gateway.errors import GatewayError, JournalError
from gateway.journal.port import Journal

if TYPE_CHECKING:
    from gateway.runtime.channel import BrokerChannel

SETTLED_EVERY_S = 0.02
"""Acknowledgements alone need no answer: they are written this often."""
LINGER_BODY_BYTES = 64 * 1024
"""With more than this in the batch waiting for acknowledgements costs more than it saves."""
RETRY_FIRST_S = 0.01
RETRY_MOST_S = 1.0

Release = tuple["BrokerChannel", int, Sequence[Outcome]]


class Committer:
    """Hands over one batch at a time and releases outcomes in order.

    ``waiting``: channels with numbers in the open batch. ``commit_since``: `perf_counter` of the write under way, or 0.0.

    Args:
        limits: how long a batch may wait for the acknowledgements of online consumers, which spare the disk, and how long a
            failing journal is waited for before durable publishes are refused.
        batch_taken: called when the open batch is empty again.
        nursery: for what has to wait.
    """

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        log: Log,
        limits: Limits,
        batch_taken: Callable[[], None],
        nursery: trio.Nursery,
    ) -> None:
        self._engine = engine
        self._journal = journal
        self._log = log
        self._linger_s = limits.linger_us / 1e6
        self._refuse_after_s = limits.refuse_after_ms / 1e3
        self._batch_taken = batch_taken
        self._nursery = nursery
        self._token = trio.lowlevel.current_trio_token()
        self._releases: list[Release] = []
        self._opened = 0.0
        self._last_write = 0.0
        self._owing = False
        self._failing_since = 0.0
        self._pace_until = math.inf
        self._alarm = trio.CancelScope()
        self._idle: trio.Event | None = None
        self.waiting: list[BrokerChannel] = []
        self.commit_since = 0.0
        self.draining = False
        self.ended = False

    @property
    def failing(self) -> bool:
        """The last attempt to write failed."""
        return self._failing_since > 0

    def end_of_turn(self) -> bool:
        """Hand over the open batch if it is time; True: outcomes were released, so there may be more to send."""
        if self.commit_since:
            return self._engine.refusal is not None and self._answer_waiting()
        batch = self._engine.batch
        if not self.waiting and not batch and not self._owing:
            if self._idle is not None:
                idle, self._idle = self._idle, None
                self._token.run_sync_soon(idle.set)
            return False
        now = time.perf_counter()
        if self.waiting or batch.messages or batch.records:
            if self._lingers(now):
                return False
        elif now - self._last_write < SETTLED_EVERY_S and not self.draining:
            self._pace(SETTLED_EVERY_S)
            return False
        self._opened = 0.0
        return self._hand_over(now)

    def _lingers(self, now: float) -> bool:
        batch = self._engine.batch
        if (
            not self._linger_s
            or not batch.unsettled
            or batch.undelivered
            or batch.records
            or batch.body_bytes > LINGER_BODY_BYTES
            or self.draining
        ):
            return False
        if not self._opened:
            self._opened = now
        left_s = self._opened + self._linger_s - now
        if left_s > 0:
            self._pace(left_s)
        return left_s > 0

    def _hand_over(self, now: float) -> bool:
        engine = self._engine
        waiting, self.waiting = self.waiting, []
        self._releases += [(channel, *channel.take_decided()) for channel in waiting]
        batch = engine.batch
        if not batch.unsettled and not batch.records and not batch.deferred:
            batch.messages.clear()
            batch.body_bytes = batch.undelivered = 0
            self._batch_taken()
            if (batch.settled or self._owing) and (now - self._last_write < SETTLED_EVERY_S and not self.draining):
                self._pace(SETTLED_EVERY_S)
                return self._release()
        # What was settled automatically is written now, and settled on disk by the commit after this one.
        self._owing = bool(batch.deferred)
        commit = self._journal.prepare(engine.take_batch())
        self._batch_taken()
        engine.batch_prepared()
        if commit is None:
            engine.committed()
            return self._release()
        self.commit_since = self._last_write = now
        self._write(commit)
        return False

    def _write(self, commit: Any) -> None:
        def done(error: JournalError | None) -> None:
            self._token.run_sync_soon(self._written, commit, error)

        self._journal.write(commit, done)

    def _written(self, commit: Any, error: JournalError | None) -> None:
        if self.ended:
            return
        if error is not None:
            self._failed(commit, error)
            return
        if self._failing_since:
            self._log.info("journal works again", after_s=round(time.perf_counter() - self._failing_since, 3))
            self._failing_since = 0.0
            self._engine.accept_durable()
        self.commit_since = 0.0
        self._engine.committed()
        self._release()

    def _failed(self, commit: Any, error: JournalError) -> None:
        """Confirm nothing, keep the commit, write it again later."""
        now = time.perf_counter()
        if not self._failing_since:
            self._failing_since = now
            self._log.error("journal can't be written: nothing is confirmed until it can", error=str(error))
        failing_s = now - self._failing_since
        if failing_s >= self._refuse_after_s and self._engine.refusal is None:
            self._log.error("durable messages are refused", failing_s=round(failing_s, 3))
            self._engine.refuse_durable(f"the journal can't be written: {error}")
            self._refuse_pending(self._engine.refusal)
        self._nursery.start_soon(self._retry, commit, min(max(failing_s, RETRY_FIRST_S), RETRY_MOST_S))

    def _refuse_pending(self, refusal: GatewayError | None) -> None:
        """Say no to everybody who waits: their messages may be stored yet, when the journal works again, but nobody knows."""
        assert refusal is not None
        waiting, self.waiting = self.waiting, []
        releases, self._releases = self._releases, []
        for channel, through, exceptions in [*releases, *((channel, *channel.take_decided()) for channel in waiting)]:
            channel.refuse(through, exceptions, refusal)

    def _answer_waiting(self) -> bool:
        """While what must last is refused, the rest needs no disk and all can be answered at once."""
        waiting, self.waiting = self.waiting, []
        for channel in waiting:
            channel.decided(*channel.take_decided())
        return bool(waiting)

    async def _retry(self, commit: Any, delay_s: float) -> None:
        await trio.sleep(delay_s)
        self._write(commit)

    def _release(self) -> bool:
        releases, self._releases = self._releases, []
        for channel, through, exceptions in releases:
            channel.decided(through, exceptions)
        return bool(releases)

    def sink_failed(self, channel: BrokerChannel, error: Exception) -> None:
        """A front-end raised when it was told outcomes: what it knows of them is uncertain, so its channel ends."""
        self._log.error("a front-end failed to take outcomes", error=repr(error), exc_info=error)
        self._token.run_sync_soon(channel.close)

    # -- time ---------------------------------------------------------------

    def _pace(self, delay_s: float) -> None:
        """Have a turn end after so long, whatever else happens."""
        until = time.perf_counter() + delay_s
        if until < self._pace_until:
            self._pace_until = until
            self._token.run_sync_soon(self._set_alarm, idempotent=True)

    def _set_alarm(self) -> None:
        self._alarm.deadline = trio.current_time() + max(self._pace_until - time.perf_counter(), 0.0)

    async def run_pacer(self) -> None:
        """Wake the loop when something was to wait only so long. Cancellation: safe."""
        while True:
            with trio.CancelScope() as self._alarm:
                await trio.sleep_forever()
            self._pace_until = math.inf

    async def wait_idle(self) -> None:
        """Wait until everything is on disk and every outcome told. Cancellation: safe."""
        self.draining = True
        if self._idle is None:
            self._idle = trio.Event()
        idle = self._idle
        self._token.run_sync_soon(_nothing, idempotent=True)
        await idle.wait()


def _nothing() -> None:
    """Only the waking counts."""
