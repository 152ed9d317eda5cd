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
from gateway.engine.queues.delivery import Entry
from gateway.errors import GatewayError, JournalError
from gateway.journal.port import Journal
from gateway.model.records import Batch, Record
from gateway.runtime.alarms import Alarms
from gateway.runtime.declaring import OUTCOME_COST_BYTES
from gateway.runtime.pending import Key, definitions, undoing, without_repeats

if TYPE_CHECKING:
    from gateway.runtime.channel import BrokerChannel

SETTLED_EVERY_S = 0.02
"""Acknowledgements alone need no answer: they are written this often."""
LINGER_BODY_BYTES = 64 * 1024
"""With more than this in the batch waiting for acknowledgements costs more than it saves."""
RETRY_FIRST_S = 0.01
RETRY_MOST_S = 1.0
TIDY_FROM = 1_024
"""While the journal fails and more records than these wait, those that say nothing any more are left out."""

Release = tuple["BrokerChannel", int, Sequence[Outcome]]


class Committer:
    """Hands over one batch at a time and releases outcomes in order.

    ``waiting``: channels with numbers in the open batch. ``commit_since``: `perf_counter` of the write under way, or 0.0; all
    else goes by the clock of trio.

    Args:
        limits: how long a batch may wait for the acknowledgements of online consumers, which spare the disk, and how long a
            failing journal is waited for before durable publishes are refused.
        alarms: told when the journal fails for so long, and when it works again.
        batch_taken: called when the open batch is empty again.
        nursery: for what has to wait.
    """

    def __init__(  # noqa: PLR0913 - what it brings together
        self,
        engine: Engine,
        journal: Journal,
        log: Log,
        limits: Limits,
        alarms: Alarms,
        batch_taken: Callable[[], None],
        nursery: trio.Nursery,
    ) -> None:
        self._engine = engine
        self._journal = journal
        self._log = log
        self._alarms = alarms
        self._linger_s = limits.linger_us / 1e6
        self._refuse_after_s = limits.refuse_after_ms / 1e3
        self._interval_s = (limits.commit_interval_ms or 0) / 1e3
        self._settled_every_s = max(SETTLED_EVERY_S, self._interval_s)
        self._batch_taken = batch_taken
        self._nursery = nursery
        self._token = trio.lowlevel.current_trio_token()
        self._now = trio.lowlevel.current_clock().current_time
        self._releases: list[Release] = []
        self._opened = math.inf
        self._last_write = -math.inf
        self._owing = False
        self._records: list[Record] = []
        self._unsure: set[Key] = set()
        self._tidy_from = TIDY_FROM
        self._failing_since = math.inf
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
        return self._failing_since < math.inf

    def end_of_turn(self) -> bool:
        """Hand over the open batch if it is time; True: outcomes were released, so there may be more to send."""
        if self.commit_since:
            return self.failing and self._wait_on()
        batch = self._engine.batch
        if not self.waiting and not batch and not self._owing:
            return self._rest()
        now = self._now()
        if self.waiting or batch.messages or batch.records:
            if self._lingers(now) or self._is_too_soon(now):
                return False
        elif now - self._last_write < self._settled_every_s and not self.draining:
            self._pace(self._settled_every_s)
            return False
        self._opened = math.inf
        return self._hand_over(now)

    def _rest(self) -> bool:
        """Nothing waits: who waits for that is told, and the journal may tidy up."""
        if self._idle is not None:
            idle, self._idle = self._idle, None
            self._token.run_sync_soon(idle.set)
        elif self._journal.upkeep and not self.draining:
            return self._hand_over(self._now())
        return False

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
        if self._opened == math.inf:
            self._opened = now
        left_s = self._opened + self._linger_s - now
        if left_s > 0:
            self._pace(left_s)
        return left_s > 0

    def _is_too_soon(self, now: float) -> bool:
        """Space commits out, unless there is so much in the batch that nothing would be spared, or nothing of it needs the disk."""
        batch = self._engine.batch
        needs_disk = batch.unsettled or batch.records or batch.deferred
        if not self._interval_s or not needs_disk or batch.body_bytes > LINGER_BODY_BYTES or self.draining:
            return False
        left_s = self._last_write + self._interval_s - now
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
            if batch.settled or self._owing:
                if now - self._last_write < self._settled_every_s and not self.draining:
                    self._pace(self._settled_every_s)
                    return self._release()
            elif not self._journal.upkeep:  # nothing is left that the journal would have to know
                engine.batch_prepared()
                engine.committed()
                return self._release()
        # What was settled automatically is written now, and settled on disk by the commit after this one.
        self._owing = bool(batch.deferred)
        self._records = batch.records
        commit = self._journal.prepare(engine.take_batch())
        self._batch_taken()
        engine.batch_prepared()
        if commit is None:
            engine.committed()
            return self._release()
        self.commit_since = time.perf_counter()
        self._last_write = now
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
        if self.failing:
            self._log.info("journal works again", after_s=round(self._now() - self._failing_since, 3))
            self._failing_since = math.inf
            self._unsure = set()
            self._tidy_from = TIDY_FROM
            self._alarms.journal_works()
        self.commit_since = 0.0
        self._records = []
        self._engine.committed()
        self._release()

    def _failed(self, commit: Any, error: JournalError) -> None:
        """Confirm nothing, keep the commit, write it again later."""
        now = self._now()
        if not self.failing:
            self._failing_since = now
            self._log.error("journal can't be written: nothing is confirmed until it can", error=str(error))
        failing_s = now - self._failing_since
        if failing_s >= self._refuse_after_s and not self._alarms.is_journal_failing:
            self._log.error("durable messages are refused", failing_s=round(failing_s, 3))
            self._refuse(f"the journal can't be written: {error}")
        self._nursery.start_soon(self._retry, commit, min(max(failing_s, RETRY_FIRST_S), RETRY_MOST_S))

    def _refuse(self, reason: str) -> None:
        """Say no to everybody who waits, after taking out again what nobody was handed.

        Who put state for what is refused takes it back when he is told. That the failing commit has to do by itself, as it has to
        leave out the messages: it is written sooner or later, and the broker may die behind it.
        """
        batch = self._engine.batch
        before = len(batch.records)
        withdrawn = self._withdraw()
        self._refuse_pending(self._alarms.journal_fails(reason))
        undone = Batch()
        undone.settled = [entry for entry in withdrawn if entry.segment is not None]
        undone.records = undoing(self._records, batch.records[before:])
        if undone:
            told = set(undone.settled)
            batch.settled[:] = [reference for reference in batch.settled if reference not in told]
            self._journal.amend(undone)

    def _withdraw(self) -> list[Entry]:
        """Take out again what nobody was handed: who is told no should find that it is not stored. Return it.

        What was delivered stays, and so do definitions and last values: they are on disk when the journal works again.
        """
        engine = self._engine
        records = [*self._records, *engine.batch.records]
        self._unsure = definitions(records)
        withdrawn = engine.withdraw(self._journal.is_written)
        engine.schedule.withdraw(records)
        batch = engine.batch
        batch.messages[:] = [message for message in batch.messages if message.live]
        batch.body_bytes = sum(len(message.body) for message in batch.messages)
        self._batch_taken()
        return withdrawn

    def check_lasting(self, key: Key) -> None:
        """Make sure that a definition that is there already may be called so. Raises Overloaded: its commit fails."""
        if key in self._unsure and self._engine.refusal is not None:
            raise self._engine.refusal

    def _refuse_pending(self, refusal: GatewayError) -> None:
        """Say no to everybody who waits."""
        waiting, self.waiting = self.waiting, []
        releases, self._releases = self._releases, []
        refused = 0
        for channel, through, exceptions in [*releases, *((channel, *channel.take_decided()) for channel in waiting)]:
            refused += channel.refuse(through, exceptions, refusal)
        self._alarms.count_withdrawn(refused)

    def _wait_on(self) -> bool:
        """While the journal fails: keep what waits small; what must last is refused, the rest needs no disk and is answered."""
        batch = self._engine.batch
        if len(batch.records) > self._tidy_from:
            batch.records[:] = without_repeats(batch.records)
            self._tidy_from = max(TIDY_FROM, 2 * len(batch.records))
        if not self._alarms.is_journal_failing:
            return False
        waiting, self.waiting = self.waiting, []
        for channel in waiting:
            through, exceptions = channel.take_decided()
            batch.body_bytes = max(batch.body_bytes - OUTCOME_COST_BYTES * len(exceptions), 0)
            channel.decided(through, exceptions)
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
        until = self._now() + delay_s
        if until < self._pace_until:
            self._pace_until = until
            self._token.run_sync_soon(self._set_alarm, idempotent=True)

    def _set_alarm(self) -> None:
        self._alarm.deadline = self._pace_until

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
