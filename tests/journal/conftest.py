"""What stands in for the engine and the runtime when a journal is tested?"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.errors import JournalError
from gateway.journal.memory import MemoryJournal, MemoryStore
from gateway.journal.port import Journal
from gateway.journal.sqlite import SqliteJournal
from gateway.model.message import Address, Message
from gateway.model.records import Batch, Page, PagedReference, Record, Reference
from tests.journal.whole_broker import broker, injector, new_broker

__all__ = ["broker", "injector", "new_broker"]

TOPIC = Address("/", "amq.topic", "plant.3.temperature")


class Rig:
    """A journal, the open batch, and the engine's manners."""

    def __init__(self, new_journal: Callable[[], Journal]) -> None:
        self._new_journal = new_journal
        self.positions: dict[int, int] = {}
        self.batch = Batch()
        self.journal = new_journal()
        self.loaded: list[Record] = []

    def open(self) -> list[Record]:
        self.journal.open()
        self.loaded = list(self.journal.load())
        return self.loaded

    def restart(self, *, clean: bool = False) -> list[Record]:
        self.journal.close(clean=clean)
        self.journal = self._new_journal()
        self.batch = Batch()
        return self.open()

    # -- what the engine does --

    def publish(self, body: bytes, *queues: int, options=None, address: Address = TOPIC, **properties) -> list[Reference]:
        message = Message(address, body, True, **properties)
        self.batch.messages.append(message)
        return [self.enqueue(message, queue, options) for queue in queues]

    def enqueue(self, message: Message, queue: int, options=None, position: int | None = None) -> Reference:
        if position is None:
            position = self.positions[queue] = self.positions.get(queue, 0) + 1
        reference = Reference(message, queue, position, options)
        message.live += 1
        if message.first is None:
            message.first = reference
        else:
            message.more = [*(message.more or []), reference]
        return reference

    def settle(self, *references: Reference) -> None:
        for reference in references:
            reference.settled = True
            if reference.segment is not None:
                self.batch.settled.append(reference)
            else:
                reference.message.live -= 1

    def settle_automatically(self, *references: Reference) -> None:
        for reference in references:
            if reference.segment is None:
                self.batch.deferred.append(reference)
            else:
                self.settle(reference)

    def record(self, *records: Record) -> None:
        self.batch.records += records

    # -- what the runtime does --

    def prepare(self):
        batch, self.batch = self.batch, Batch()
        return self.journal.prepare(batch)

    def write(self, commit) -> JournalError | None:
        told = threading.Event()
        answers: list[JournalError | None] = []

        def done(error: JournalError | None) -> None:
            answers.append(error)
            told.set()

        self.journal.write(commit, done)
        assert told.wait(30)
        return answers[0]

    def commit(self) -> None:
        commit = self.prepare()
        if commit is not None:
            error = self.write(commit)
            if error is not None:
                raise error

    def read(self, queue: int, after: int = 0, max_bytes: int = 1 << 20) -> Callable[[], Page]:
        """Have a page read; the answer makes it."""
        told = threading.Event()
        answers: list[Callable[[], Page]] = []

        def done(page: Callable[[], Page]) -> None:
            answers.append(page)
            told.set()

        self.journal.read_page(queue, after, max_bytes, done)
        assert told.wait(30)
        return answers[0]

    def page(self, queue: int, after: int = 0, max_bytes: int = 1 << 20) -> Page:
        return self.read(queue, after, max_bytes)()

    def drain(self, queue: int, after: int = 0, max_bytes: int = 1 << 20) -> list[PagedReference]:
        """Read page after page, as a consumer does that settles nothing."""
        references: list[PagedReference] = []
        while page := self.page(queue, after, max_bytes).references:
            references += page
            after = page[-1].position
        return references

    def bodies(self, queue: int, **how) -> list[bytes]:
        return [reference.message.body for reference in self.drain(queue, **how)]

    def entry(self, queue: int, paged: PagedReference) -> Reference:
        """Make an entry of a paged reference, as the engine does."""
        reference = Reference(paged.message, queue, paged.position, paged.options)
        reference.segment = paged.segment
        reference.slot = paged.slot
        return reference


def _sqlite(directory: Path, **settings) -> Callable[[], SqliteJournal]:
    settings.setdefault("synchronous", "OFF")  # nothing here cuts the power
    return lambda: SqliteJournal(directory, **settings)


def _memory() -> Callable[[], MemoryJournal]:
    store = MemoryStore()
    return lambda: MemoryJournal(store)


@pytest.fixture
def new_rig() -> Iterator[Callable[..., Rig]]:
    """Make open rigs: by a directory on SQLite, by None in memory."""
    rigs: list[Rig] = []

    def new(directory: Path | None, **settings) -> Rig:
        rig = Rig(_memory() if directory is None else _sqlite(directory, **settings))
        rig.open()
        rigs.append(rig)
        return rig

    yield new
    for rig in rigs:
        rig.journal.close(clean=False)


@pytest.fixture(params=["sqlite", "memory"])
def rig(request: pytest.FixtureRequest, new_rig, tmp_path: Path) -> Rig:
    """An open journal of each kind."""
    return new_rig(tmp_path / "data" if request.param == "sqlite" else None)


@pytest.fixture
def sqlite_rig(new_rig, tmp_path: Path) -> Rig:
    """An open journal on SQLite."""
    return new_rig(tmp_path / "data")
