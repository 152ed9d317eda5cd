"""A broker over a journal whose commits the test completes or fails by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
import trio.lowlevel

from gateway.api.frontend import Credentials, Principal
from gateway.config import Limits
from gateway.engine.queues.delivery import UNWRITTEN
from gateway.errors import JournalError
from gateway.journal.counters import Counters
from gateway.model.message import Message
from gateway.model.records import Batch, Page, Record
from gateway.runtime.broker import Broker


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def info(self, event: str, **values: Any) -> None:
        self.lines.append(("info", event, values))

    def warning(self, event: str, **values: Any) -> None:
        self.lines.append(("warning", event, values))

    def error(self, event: str, **values: Any) -> None:
        self.lines.append(("error", event, values))


class Segment:
    """Where one commit's messages are: one is under way at a time."""

    is_written = False


class HandJournal:
    """Commits wait in `writes` until the test says what becomes of them; with `automatic` they succeed at once."""

    durability = "none: a test"
    alarm: str | None = None
    upkeep = False
    next_queue_id = 1
    counters = Counters()

    def __init__(self, *, automatic: bool = False) -> None:
        self.automatic = automatic
        self.writes: list[tuple[Any, Callable[[JournalError | None], None]]] = []
        self.last: tuple[list[bytes], list[Record], list[Any]] = ([], [], [])
        self.stored: list[bytes] = []
        self.records: list[Record] = []
        self.closed: bool | None = None
        self.prepared = 0
        self.looks = 0
        self.segment = Segment()
        self.scheduled: dict[int, Message] = {}

    def open(self) -> None:
        pass

    def load(self) -> Iterator[Record]:
        return iter(self.records)

    def prepare(self, batch: Batch) -> Any:
        self.prepared += 1
        segment = self.segment = Segment()
        bodies = []
        for message in batch.messages:
            if message.live:
                bodies.append(message.body)
            for reference in [message.first, *(message.more or ())] if message.live else []:
                if reference is not None and not reference.settled and reference.slot == UNWRITTEN:
                    reference.segment = segment
                    reference.slot = 0
            message.first = message.more = None
        self.last = (bodies, list(batch.records), list(batch.settled))
        return self.last if batch else None

    def amend(self, undone: Batch) -> None:
        self.last[1].extend(undone.records)
        self.last[2].extend(undone.settled)

    def write(self, commit: Any, done: Callable[[JournalError | None], None]) -> None:
        self.writes.append((commit, done))
        if self.automatic:
            self.finish()

    def finish(self, error: JournalError | None = None) -> None:
        (bodies, records, _), done = self.writes.pop(0)
        if error is None:
            self.segment.is_written = True
            self.stored += bodies
            self.records += records
        done(error)

    def read_page(self, queue_id: int, after_position: int, max_bytes: int, done: Callable[[Callable[[], Page]], None]) -> None:
        done(lambda: Page(queue_id, []))

    def read_scheduled(self, ids: list[int], done: Callable[[Callable[[], list[tuple[int, Message]]]], None]) -> None:
        done(lambda: [(number, self.scheduled[number]) for number in ids if number in self.scheduled])

    def is_written(self, reference: Any) -> bool:
        return reference.segment is not None and reference.segment.is_written

    def look(self) -> None:
        self.looks += 1

    def close(self, *, clean: bool = True) -> None:
        self.closed = clean


async def let_in(credentials: Credentials) -> Principal:
    return Principal(credentials.user or "anonymous")


@asynccontextmanager
async def running(
    journal: Any, *, clock: Any = None, resident: Callable[[], int] = lambda: 0, vhosts: Sequence[str] = (), **limits: Any
) -> Any:
    log = Log()
    broker = Broker(journal, limits=Limits(**limits), authenticate=let_in, log=log, clock=clock, resident=resident, vhosts=vhosts)
    async with trio.open_nursery() as nursery:
        await nursery.start(broker.run)
        try:
            yield broker
        finally:
            nursery.cancel_scope.cancel()


class Outcomes:
    """An OutcomeSink that remembers."""

    def __init__(self) -> None:
        self.through = 0
        self.calls: list[tuple[int, list[int]]] = []
        self.exceptions: dict[int, Any] = {}

    def on_outcomes(self, through: int, exceptions: Any) -> None:
        assert through >= self.through
        self.through = through
        self.calls.append((through, [o.number for o in exceptions]))
        for outcome in exceptions:
            self.exceptions[outcome.number] = outcome


async def turns(count: int = 3) -> None:
    """Let the loop make some turns (each of these waits for I/O, with nothing to wait for)."""
    for _ in range(count):
        await trio.lowlevel.checkpoint()
        await trio.sleep(0.001)
