"""What does a journal do whose disk is slow, fails, is full, and loses its power?"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import trio

from gateway.errors import JournalError
from gateway.journal import compaction, leftovers
from gateway.journal.memory import MemoryCommit, MemoryJournal, MemoryStore
from gateway.journal.sqlite import SqliteJournal
from gateway.model.records import MessageScheduled

PATIENCE_S = 30


class Weather:
    """What the disk is like now; the world changes it as it goes.

    ``failures``: how likely a write fails, and a read. ``down_until``: all writes fail until then (trio's time). ``alarm``: why
    there is no room. ``slow_s``: the longest that a write may take.
    """

    def __init__(self, chance: random.Random, *, failures: float, slow_s: float) -> None:
        self.chance = chance
        self.failures = failures
        self.slow_s = slow_s
        self.down_until = 0.0
        self.alarm: str | None = None

    def calm(self) -> None:
        self.failures = 0.0
        self.down_until = 0.0
        self.alarm = None

    def delay_s(self) -> float:
        return self.chance.uniform(0.0001, self.slow_s)

    def fails(self) -> bool:
        return trio.current_time() < self.down_until or self.chance.random() < self.failures


class Spindle:
    """What both journals have in common: one write at a time, after a while, or never."""

    def __init__(self, weather: Weather, nursery: trio.Nursery) -> None:
        self.weather = weather
        self.nursery = nursery
        self.under_way: Any = None
        self.off = False
        self._token = trio.lowlevel.current_trio_token()

    def later(self, task: Callable[..., Any], *arguments: Any) -> None:
        """Start a task; at the end of a turn tasks can't be started directly."""
        self._token.run_sync_soon(self._start, task, arguments)

    def _start(self, task: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.nursery.start_soon(task, *arguments)

    async def write(self, commit: Any, store: Callable[[Any], JournalError | None], done: Callable[[Any], None]) -> None:
        await trio.sleep(self.weather.delay_s())
        if self.off or self.under_way is not commit:
            return
        if self.weather.fails():
            done(JournalError("no luck"))
            return
        error = store(commit)
        if error is None:
            self.under_way = None
        done(error)

    async def read(self, answer: Callable[[], Any], done: Callable[[Any], None]) -> None:
        await trio.sleep(self.weather.delay_s())
        if not self.off:
            done(_unreadable if self.weather.fails() else answer)

    def cut(self, store: Callable[[Any], object]) -> None:
        """The power goes: what was being written is there, or not."""
        self.off = True
        commit, self.under_way = self.under_way, None
        if commit is not None and self.weather.chance.random() < 0.5:
            store(commit)


def _unreadable() -> Any:
    raise JournalError("unreadable today")


def batch_bytes(batch: Any) -> int:
    """Return the bytes of the bodies in a batch."""
    return sum(len(message.body) for message in batch.messages)


class FaultyJournal(MemoryJournal):
    """The journal in memory, with a disk like that under it.

    ``landed``: the bodies of all that was ever stored. ``most_bytes``: of the largest batch.
    """

    def __init__(
        self, store: MemoryStore, weather: Weather, nursery: trio.Nursery, now_ms: Callable[[], int], landed: set[bytes]
    ) -> None:
        super().__init__(store, now_ms)
        self.landed = landed
        self.most_bytes = 0
        self.spindle = Spindle(weather, nursery)

    @property
    def alarm(self) -> str | None:
        return self.spindle.weather.alarm

    @property
    def state(self) -> str:
        return "failing" if self.spindle.weather.down_until > trio.current_time() else "writable"

    def prepare(self, batch: Any) -> Any:
        self.most_bytes = max(self.most_bytes, batch_bytes(batch))
        return super().prepare(batch)

    def write(self, commit: MemoryCommit, done: Callable[[JournalError | None], None]) -> None:
        if not self.spindle.off:
            self.spindle.under_way = commit
            self.spindle.later(self.spindle.write, commit, self._keep, done)

    def _keep(self, commit: MemoryCommit) -> None:
        self._store(commit)
        self.landed.update(message.body for message in commit.messages)
        self.landed.update(record.message.body for record in commit.records if isinstance(record, MessageScheduled))

    def read_page(self, queue_id: int, after_position: int, max_bytes: int, done: Callable[..., None]) -> None:
        super().read_page(queue_id, after_position, max_bytes, lambda page: self.spindle.later(self.spindle.read, page, done))

    def read_scheduled(self, ids: list[int], done: Callable[..., None]) -> None:
        super().read_scheduled(ids, lambda found: self.spindle.later(self.spindle.read, found, done))

    def depth(self, lane_id: int) -> dict[int, int]:
        """Return what a lane has on disk and will keep: position -> bytes of the body."""
        gone = self._unwritten | {reference.slot for reference in self._deferred}
        stored = self.store.references.get(lane_id, {})
        return {one.position: len(one.message.body) for number, one in stored.items() if number not in gone}

    def cut(self) -> None:
        self.spindle.cut(self._keep)

    def close(self, *, clean: bool = True) -> None:
        if clean:
            super().close()
        self.spindle.off = True


class _Clock:
    """In place of the module `time`, for who measures the time between two commits."""

    monotonic = staticmethod(trio.current_time)


COMPACTING: tuple[tuple[Any, str, Any], ...] = (
    (compaction, "time", _Clock),
    (compaction, "TINY_TOGETHER", 4),
    (compaction, "UNCHANGED_COMMITS", 1),
    (leftovers, "SPARSE_PART", 2),
    (leftovers, "MOST_REFERENCES", 12),
)
"""What makes compaction have much to do in a small world: many segments, of a few messages each."""


@contextmanager
def much_compaction() -> Iterator[None]:
    former = [(module, name, getattr(module, name)) for module, name, _ in COMPACTING]
    for module, name, value in COMPACTING:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in former:
            setattr(module, name, value)


class SteadySqlite:
    """The real journal on a real disk: its threads are waited for, so that what they answer comes when the seed says.

    ``most_bytes``: of the largest batch that was ever written there, as what was written at once is read at once.
    """

    def __init__(self, directory: Path, weather: Weather, nursery: trio.Nursery, landed: set[bytes], most_bytes: int) -> None:
        self.inner = SqliteJournal(directory, synchronous="OFF")
        self.landed = landed
        self.most_bytes = most_bytes
        self.spindle = Spindle(weather, nursery)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    @property
    def alarm(self) -> str | None:
        return self.spindle.weather.alarm

    def look(self) -> None:
        self.inner.look()
        self._await_reader()

    def _await_reader(self) -> None:
        """Have all answered that compaction has asked the reader for: it takes one after the other."""
        if self.inner._reader is not None:
            self.inner._reader.read(lambda _: None)

    def prepare(self, batch: Any) -> Any:
        self.most_bytes = max(self.most_bytes, batch_bytes(batch))
        bodies = [message.body for message in batch.messages if message.live > 0]
        bodies += [record.message.body for record in batch.records if isinstance(record, MessageScheduled)]
        commit = self.inner.prepare(batch)
        self._await_reader()
        return None if commit is None else (commit, bodies)

    def write(self, commit: Any, done: Callable[[JournalError | None], None]) -> None:
        if not self.spindle.off:
            self.spindle.under_way = commit
            self.spindle.later(self.spindle.write, commit, self._keep, done)

    def _keep(self, commit: Any) -> JournalError | None:
        box: SimpleQueue[JournalError | None] = SimpleQueue()
        self.inner.write(commit[0], box.put)
        error = box.get(timeout=PATIENCE_S)
        if error is None:
            self.landed.update(commit[1])
        return error

    def _answer(self, ask: Callable[..., None], *arguments: Any) -> Callable[[], Any]:
        box: SimpleQueue[Callable[[], Any]] = SimpleQueue()
        ask(*arguments, box.put)
        return box.get(timeout=PATIENCE_S)

    def read_page(self, queue_id: int, after_position: int, max_bytes: int, done: Callable[..., None]) -> None:
        found = self._answer(self.inner.read_page, queue_id, after_position, max_bytes)
        self.spindle.later(self.spindle.read, found, done)

    def read_scheduled(self, ids: list[int], done: Callable[..., None]) -> None:
        self.spindle.later(self.spindle.read, self._answer(self.inner.read_scheduled, ids), done)

    def cut(self) -> None:
        self.spindle.cut(self._keep)

    def close(self, *, clean: bool = True) -> None:
        self.spindle.off = True
        self.inner.close(clean=clean)
