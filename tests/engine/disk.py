"""What is on disk? Dictionaries that do what a journal does, when they are told to."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.model.records import (
    Batch,
    Bound,
    DeliveryCounted,
    ExchangeDeclared,
    Page,
    PagedReference,
    QueueDeclared,
    QueueDeleted,
    QueueDepth,
    QueuePurged,
    Retained,
    StatePut,
    Unbound,
)


@dataclass
class Place:
    """A reference on the disk."""

    reference: PagedReference
    commit: int


class Disk:
    """A journal that keeps everything in dictionaries: `prepare` now, `apply` whenever the commit is said to be done."""

    def __init__(self) -> None:
        self.places: dict[int, dict[int, Place]] = {}
        self.next_positions: dict[int, int] = {}
        self.queues: dict[int, QueueDeclared] = {}
        self.exchanges: dict[str, ExchangeDeclared] = {}
        self.bindings: dict[tuple, Bound] = {}
        self.retained: dict[str, Retained] = {}
        self.state: dict[tuple[str, str], bytes] = {}
        self.carried: list[tuple[int, int]] = []
        self.written: set[bytes] = set()
        self.commits = 0
        self.now_ms = 0

    # -- writing ------------------------------------------------------------

    def prepare(self, batch: Batch) -> list:
        """Give what is unsettled its segment and slot; return what `apply` has to do."""
        self.commits += 1
        settled, self.carried = self.carried, [(r.queue_id, r.position) for r in batch.deferred]
        settled += [(r.queue_id, r.position) for r in batch.settled]
        placed = [self._place(reference) for message in batch.messages for reference in references(message)]
        self.written = {place.reference.message.body for _, place in placed}
        for message in batch.messages:
            message.first = message.more = None
        counted = [record for record in batch.records if isinstance(record, DeliveryCounted)]
        counts = [(r.reference.queue_id, r.reference.position, r.count, r.due_ms) for r in counted]
        records = [record for record in batch.records if not isinstance(record, DeliveryCounted)]
        return [settled, placed, records, counts]

    def _place(self, reference) -> tuple[int, Place]:
        reference.segment = self.commits
        reference.slot = 0
        on_disk = PagedReference(reference.message, reference.position, reference.options, self.commits, 0, 0, self.now_ms)
        return reference.queue_id, Place(on_disk, self.commits)

    def apply(self, commit: list) -> None:
        """Do what a commit holds: what it purges lies in earlier commits, what it settles too."""
        settled, placed, records, counts = commit
        for record in records:
            if isinstance(record, QueuePurged):
                self.places.get(record.queue_id, {}).clear()
        for queue_id, position in settled:
            self.places.get(queue_id, {}).pop(position, None)
        for queue_id, place in placed:
            position = place.reference.position
            self.places.setdefault(queue_id, {})[position] = place
            self.next_positions[queue_id] = max(self.next_positions.get(queue_id, 0), position + 1)
        for queue_id, position, count, due_ms in counts:
            place = self.places.get(queue_id, {}).get(position)
            if place is not None:
                place.reference.count = count
                place.reference.due_ms = due_ms
        for record in records:
            self._define(record)

    def _define(self, record) -> None:
        match record:
            case ExchangeDeclared():
                self.exchanges[record.spec.name] = record
            case QueueDeclared():
                self.queues[record.queue_id] = record
            case QueueDeleted():
                del self.queues[record.queue_id]
                for at in range(record.lanes):
                    self.places.pop(record.queue_id + at, None)
            case Bound():
                self.bindings[record.binding.identity()] = record
            case Unbound():
                self.bindings.pop(record.binding.identity(), None)
            case Retained():
                self.retained[record.key] = record
            case StatePut():
                self.state[record.namespace, record.key] = record.value
            case QueuePurged():
                pass
            case _:
                raise AssertionError(record)

    # -- reading ------------------------------------------------------------

    def page(self, queue_id: int, after_position: int, max_bytes: int) -> Page:
        """Return whole commits until there are enough bytes."""
        places = self.places.get(queue_id, {})
        page: list[PagedReference] = []
        taken = last_commit = 0
        for position in sorted(position for position in places if position > after_position):
            place = places[position]
            if taken >= max_bytes and place.commit != last_commit:
                break
            page.append(place.reference)
            taken += len(place.reference.message.body)
            last_commit = place.commit
        return Page(queue_id, page)

    def load(self):
        """Yield what a journal yields at start."""
        yield from self.exchanges.values()
        yield from self.queues.values()
        yield from self.bindings.values()
        lanes = [first + at for first, record in self.queues.items() for at in range(record.spec.max_priority + 1)]
        for queue_id in lanes:
            bodies = [place.reference.message.body for place in self.places.get(queue_id, {}).values()]
            yield QueueDepth(queue_id, len(bodies), sum(map(len, bodies)), self.next_positions.get(queue_id, 1))
        yield from self.retained.values()
        for (namespace, key), value in self.state.items():
            yield StatePut(namespace, key, value)

    def bodies(self, name: str) -> list[bytes]:
        """Return what a queue holds, in order, the lowest priority first."""
        (first,) = [record for record in self.queues.values() if record.spec.name == name]
        lanes = [self.places.get(first.queue_id + priority, {}) for priority in range(first.spec.max_priority + 1)]
        return [places[position].reference.message.body for places in lanes for position in sorted(places)]

    def last_values(self) -> dict[str, bytes]:
        """Return the retained values that last."""
        return {key: record.message.body for key, record in self.retained.items() if record.message is not None}

    def granted(self) -> dict[tuple[str, str], int]:
        """Return the bindings that last."""
        return {(b.binding.destination, b.binding.key): b.binding.options.qos for b in self.bindings.values()}


def references(message) -> list:
    """Return the references of a message that have to be written."""
    if message.live == 0:
        return []
    found = [message.first, *(message.more or ())]
    return [reference for reference in found if reference is not None and not reference.settled]
