"""What is a journal that keeps nothing beyond the process?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from gateway.errors import JournalError
from gateway.journal.counters import Counters
from gateway.model.declare import BindingOptions
from gateway.model.message import Address, Message
from gateway.model.records import (
    Batch,
    Bound,
    DeliveryCounted,
    ExchangeDeclared,
    ExchangeDeleted,
    MessageScheduled,
    Page,
    PagedReference,
    QueueDeclared,
    QueueDeleted,
    QueueDepth,
    QueuePurged,
    Record,
    Reference,
    Retained,
    Scheduled,
    ScheduledGone,
    StatePut,
    Unbound,
)

_SEGMENT = object()
"""What references have for a segment here; their slot is a number that is never used again."""


class _Stored:
    """A reference on the would-be disk: a copy, as nothing of the engine's would be there."""

    __slots__ = ("count", "due_ms", "message", "options", "position", "stored_ms")

    def __init__(self, reference: Reference) -> None:
        self.message: Message = _copy(reference.message)
        self.position: int = reference.position
        self.options: BindingOptions | None = reference.options
        self.count: int = 0
        self.due_ms: int = 0
        self.stored_ms: int = 0


class MemoryStore:
    """What a disk would hold. It outlives the journal that writes it, so that tests can crash one and start another."""

    def __init__(self) -> None:
        self.definitions: dict[tuple[str, ...], Record] = {}
        self.references: dict[int, dict[int, _Stored]] = {}
        self.scheduled: dict[int, MessageScheduled] = {}
        self.next_number: int = 0
        self.next_queue_id: int = 1


class MemoryCommit:
    """A batch, ready to be stored."""

    __slots__ = ("counts", "end", "floors", "messages", "records", "settled", "stored")

    def __init__(self) -> None:
        self.stored: list[tuple[int, int, _Stored]] = []
        self.settled: list[tuple[int, int]] = []
        self.floors: dict[int, int] = {}
        self.records: list[Record] = []
        self.counts: list[tuple[int, int, int, int]] = []
        self.messages: list[Message] = []
        self.end: int = 0

    def __bool__(self) -> bool:
        return bool(self.stored or self.settled or self.floors or self.records or self.counts)


class MemoryJournal:
    """Implements `gateway.journal.port.Journal` without a disk: for tests under a virtual clock, and for who asks for it.

    Commits are done at once, on the calling thread.

    Args:
        store: what an earlier one left.
        now_ms: wall time.
    """

    def __init__(self, store: MemoryStore | None = None, now_ms: Callable[[], int] | None = None) -> None:
        self.store = store or MemoryStore()
        self._now_ms = now_ms or _wall_ms
        self._written = 0
        self._gone: set[int] = set()
        self.counters = Counters()
        self._deferred: list[Reference] = []
        self._last = MemoryCommit()
        self._unwritten: set[int] = set()
        self._floors: dict[int, int] = {}

    @property
    def state(self) -> str:
        """See `Journal.state`."""
        return "writable"

    @property
    def durability(self) -> str:
        """See `Journal.durability`."""
        return "in memory only: what is confirmed does NOT survive the end of the process"

    def open(self) -> None:
        """See `Journal.open`."""
        self._deferred = []
        self._unwritten = set()
        self._floors = {}
        self._gone = set()
        self._written = self.store.next_number

    @property
    def alarm(self) -> str | None:
        """See `Journal.alarm`."""
        return None

    @property
    def upkeep(self) -> bool:
        """See `Journal.upkeep`."""
        return False

    @property
    def next_queue_id(self) -> int:
        """See `Journal.next_queue_id`."""
        return self.store.next_queue_id

    def look(self) -> None:
        """See `Journal.look`."""

    def load(self) -> Iterator[Record]:
        """See `Journal.load`."""
        definitions = list(self.store.definitions.values())
        for kind in (ExchangeDeclared, QueueDeclared, Bound):
            yield from (record for record in definitions if isinstance(record, kind))
        for queue_id, references in self.store.references.items():
            if references:
                size = sum(len(stored.message.body) for stored in references.values())
                yield QueueDepth(queue_id, len(references), size, max(stored.position for stored in references.values()) + 1)
        for record in definitions:
            if isinstance(record, Retained) and record.message is not None:
                yield Retained(record.vhost, record.exchange, record.key, _copy(record.message))
        for number, planned in self.store.scheduled.items():
            message = planned.message
            names = message.address.vhost, message.exchange, message.routing_key
            yield Scheduled(number, planned.due_ms, *names, len(message.body))
        yield from (record for record in definitions if isinstance(record, StatePut))

    def close(self, *, clean: bool = True) -> None:
        """See `Journal.close`."""
        rest = self.prepare(Batch()) if clean else None
        if rest is not None:
            self._store(rest)

    # -- writing ------------------------------------------------------------

    def prepare(self, batch: Batch) -> MemoryCommit | None:
        """See `Journal.prepare`."""
        commit = MemoryCommit()
        first_number = self.store.next_number
        gone = {lane for record in batch.records if isinstance(record, QueueDeleted) for lane in _lanes(record)}
        purged = {record.queue_id for record in batch.records if isinstance(record, QueuePurged)}
        commit.floors = dict.fromkeys(gone | purged, first_number)
        self._floors |= commit.floors
        for message in batch.messages:
            self._add(commit, message, gone)
        self._settle(commit, (*batch.settled, *self._deferred))
        self._deferred = batch.deferred
        for record in batch.records:
            if not isinstance(record, DeliveryCounted):
                commit.records.append(record)
            elif record.reference.segment is not None:
                commit.counts.append((record.reference.queue_id, record.reference.slot, record.count, record.due_ms))
        self._gone |= {record.scheduled_id for record in batch.records if isinstance(record, ScheduledGone)}
        commit.end = self.store.next_number
        self._last = commit
        return commit or None

    def amend(self, undone: Batch) -> None:
        """See `Journal.amend`."""
        self._settle(self._last, undone.settled)
        self._last.records += undone.records

    def _settle(self, commit: MemoryCommit, references: Iterable[Reference]) -> None:
        for reference in references:
            if reference.segment is not None:
                self._unwritten.add(reference.slot)
                commit.settled.append((reference.queue_id, reference.slot))

    def _add(self, commit: MemoryCommit, message: Message, gone: set[int]) -> None:
        references = (message.first, *(message.more or ()))
        message.first = message.more = None
        if message.live <= 0:
            self.counters.messages_elided += 1
            return
        commit.messages.append(message)
        for reference in references:
            if reference is None or reference.settled or reference.queue_id in gone:
                continue
            reference.segment = _SEGMENT
            reference.slot = self.store.next_number
            self.store.next_number += 1
            commit.stored.append((reference.queue_id, reference.slot, _Stored(reference)))

    def write(self, commit: MemoryCommit, done: Callable[[JournalError | None], None]) -> None:
        """See `Journal.write`."""
        self._store(commit)
        done(None)

    def _store(self, commit: MemoryCommit) -> None:
        references = self.store.references
        now_ms = self._now_ms()
        for queue_id, floor in commit.floors.items():
            there = references.pop(queue_id, {})
            references[queue_id] = {number: stored for number, stored in there.items() if number >= floor}
        for queue_id, number, stored in commit.stored:
            stored.stored_ms = stored.stored_ms or now_ms
            references.setdefault(queue_id, {})[number] = stored
        for queue_id, number, count, due_ms in commit.counts:
            if number in references.get(queue_id, {}):
                references[queue_id][number].count = count
                references[queue_id][number].due_ms = due_ms
        for queue_id, number in commit.settled:
            references.get(queue_id, {}).pop(number, None)
            self._unwritten.discard(number)
        for record in commit.records:
            self._define(record)
        self._written = max(self._written, commit.end)
        self.counters.commits += 1
        self.counters.messages_written += len(commit.messages)
        self.counters.references_written += len(commit.stored)
        self.counters.body_bytes += sum(len(message.body) for message in commit.messages)

    def _define(self, record: Record) -> None:  # noqa: C901, PLR0912 - a case per record
        definitions = self.store.definitions
        match record:
            case ExchangeDeclared(vhost=vhost, spec=exchange):
                definitions["exchange", vhost, exchange.name] = record
            case ExchangeDeleted(vhost=vhost, name=name):
                definitions.pop(("exchange", vhost, name), None)
            case QueueDeclared(vhost=vhost, queue_id=queue_id, spec=queue):
                definitions["queue", vhost, queue.name] = record
                self.store.next_queue_id = max(self.store.next_queue_id, queue_id + queue.max_priority + 1)
            case QueueDeleted(vhost=vhost, name=name):
                definitions.pop(("queue", vhost, name), None)
                for lane in _lanes(record):
                    self.store.references.pop(lane, None)
            case MessageScheduled(scheduled_id=scheduled_id, due_ms=due_ms, message=message):
                self.store.scheduled[scheduled_id] = MessageScheduled(scheduled_id, due_ms, _copy(message))
            case ScheduledGone(scheduled_id=scheduled_id):
                self.store.scheduled.pop(scheduled_id, None)
            case Bound(vhost=vhost, binding=binding):
                definitions["binding", vhost, *map(str, binding.identity())] = record
            case Unbound(vhost=vhost, binding=binding):
                definitions.pop(("binding", vhost, *map(str, binding.identity())), None)
            case Retained(vhost=vhost, exchange=exchange_name, key=key):
                definitions["retained", vhost, exchange_name, key] = record
            case StatePut(namespace=namespace, key=key, value=value):
                definitions["state", namespace, key] = record
                if value is None:
                    del definitions["state", namespace, key]
            case _:
                pass

    # -- reading ------------------------------------------------------------

    def read_page(self, queue_id: int, after_position: int, max_bytes: int, done: Callable[[Callable[[], Page]], None]) -> None:
        """See `Journal.read_page`. Cost: the number of references that the queue has."""
        done(partial(self._page, queue_id, after_position, max_bytes))

    def _page(self, queue_id: int, after_position: int, max_bytes: int) -> Page:
        floor = self._floors.get(queue_id, 0)
        live = [
            (stored.position, number, stored)
            for number, stored in self.store.references.get(queue_id, {}).items()
            if stored.position > after_position and number >= floor and number not in self._unwritten
        ]
        live.sort()
        references: list[PagedReference] = []
        size = 0
        for position, number, stored in live:
            if references and size >= max_bytes:
                break
            size += len(stored.message.body)
            message, options = _copy(stored.message), stored.options
            times = stored.stored_ms, stored.due_ms
            references.append(PagedReference(message, position, options, _SEGMENT, number, stored.count, *times))
        return Page(queue_id, references)

    def read_scheduled(self, ids: list[int], done: Callable[[Callable[[], list[tuple[int, Message]]]], None]) -> None:
        """See `Journal.read_scheduled`."""
        done(partial(self._read_scheduled, list(ids)))

    def _read_scheduled(self, ids: list[int]) -> list[tuple[int, Message]]:
        scheduled = self.store.scheduled
        there = scheduled.keys() - self._gone
        return [(number, _copy(scheduled[number].message)) for number in sorted(ids) if number in there]

    def is_written(self, reference: Reference) -> bool:
        """See `Journal.is_written`."""
        return reference.segment is not None and reference.slot < self._written


def _lanes(record: QueueDeleted) -> range:
    return range(record.queue_id, record.queue_id + record.lanes)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _copy(message: Message) -> Message:
    """Return what a disk would give back of a message."""
    address = Address(message.address.vhost, message.address.exchange, message.address.routing_key)
    wire_tag, wire = message.wire_tag, message.wire
    return Message(address, message.body, message.persistent, wire_tag, wire, message.priority, message.expires_at_ms)
