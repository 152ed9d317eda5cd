"""Which references of which segments are settled, and what of that is not on disk yet?"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

from gateway.model.records import Reference


class SegmentHandle:
    """What references in memory know of their segment; it lives as long as one of them does, or something of it is to be written.

    Args (attributes):
        bits: one bit per reference, lowest first: settled.
        queues: per queue that is known here: live references, live bytes, first and last position. A handle that a page made
            knows the queues that were paged, one that a commit made knows all (``complete``).
        changed: queues whose numbers differ from the disk.
        counts: deliveries and due time (wall ms; 0: none) per slot, of those that came back.
        moved: where references are now, if they were rewritten: slot -> (handle, slot). Their bits here are set.
        references: how many the segment was written with; 0 if that isn't known.
        written: the segment is on disk.
    """

    __slots__ = ("__weakref__", "bits", "changed", "complete", "counts", "id", "moved", "queues", "references", "written")

    def __init__(self, segment_id: int, bits: bytearray, *, complete: bool) -> None:
        self.id: int = segment_id
        self.bits: bytearray = bits
        self.queues: dict[int, list[int]] = {}
        self.changed: set[int] = set()
        self.counts: dict[int, tuple[int, int]] | None = None
        self.complete: bool = complete
        self.moved: dict[int, tuple[SegmentHandle, int]] | None = None
        self.references: int = 0
        self.written: bool = False

    def is_settled(self, slot: int) -> bool:
        """Say whether a reference is settled, in memory or on disk."""
        return bool(self.bits[slot >> 3] & 1 << (slot & 7))

    def now_at(self, slot: int) -> tuple[SegmentHandle, int]:
        """Return where a reference is by now."""
        handle = self
        while handle.moved is not None and slot in handle.moved:
            handle, slot = handle.moved[slot]
        return handle, slot


class Ticket:
    """A page that is being read: keeps what was written meanwhile, as the reader may have looked before that.

    ``floors``: what a queue has in segments below its floor is purged.
    """

    __slots__ = ("__weakref__", "floors", "held", "queue_id")

    def __init__(self, queue_id: int, floors: dict[int, int]) -> None:
        self.queue_id = queue_id
        self.floors = floors
        self.held: list[list[SegmentHandle]] = []

    def is_purged(self, queue_id: int, segment_id: int) -> bool:
        """Say whether what a queue has in a segment is purged."""
        return segment_id < self.floors.get(queue_id, 0)


class Settlement:
    """What a commit says of segments that are on disk (JSON of schema.sql: places, acks, gone).

    ``handles`` keeps them in memory until the commit is on disk. ``dead``: segments that are certainly deleted;
    ``doubtful``: those that have no row left unless a queue that isn't known here has one. ``floors``: what is purged.
    ``fresh``: handles of the segments that the commit writes.
    """

    __slots__ = ("acks", "dead", "doubtful", "floors", "fresh", "gone", "handles", "landed", "places")

    def __init__(self) -> None:
        self.places: list[list[int]] = []
        self.acks: list[tuple[int, bytes]] = []
        self.gone: list[list[int]] = []
        self.handles: list[SegmentHandle] = []
        self.fresh: list[SegmentHandle] = []
        self.dead: int = 0
        self.doubtful: list[int] = []
        self.floors: dict[int, int] = {}
        self.landed: bool = False


class Ledger:
    """What is settled in memory, over what is on disk. The main thread's.

    Other threads set `Settlement.landed`, and may let go of a handle or ticket: the weak dictionaries are copied, never iterated.
    """

    def __init__(self) -> None:
        self._resident: WeakValueDictionary[int, SegmentHandle] = WeakValueDictionary()
        self._tickets: WeakValueDictionary[int, Ticket] = WeakValueDictionary()
        self._ticket_numbers = count()
        self._unfinished: deque[Settlement] = deque()
        self._floors: dict[int, int] = {}
        self._dirty: list[SegmentHandle] = []

    def add(self, handle: SegmentHandle) -> None:
        """Make a segment known that is about to be written, or was read."""
        self._resident[handle.id] = handle

    def get(self, segment_id: int) -> SegmentHandle | None:
        """Return a segment that something in memory refers to."""
        return self._resident.get(segment_id)

    # -- changes ------------------------------------------------------------

    def settle(self, references: Iterable[Reference]) -> None:
        """Settle references; those without a segment and those settled before are passed over."""
        dirty = self._dirty
        for reference in references:
            handle: Any = reference.segment
            if handle is None:
                continue
            slot = reference.slot
            if handle.moved is not None:
                handle, slot = handle.now_at(slot)
            bits = handle.bits
            index = slot >> 3
            mask = 1 << (slot & 7)
            if bits[index] & mask:
                continue
            bits[index] |= mask
            numbers = handle.queues.get(reference.queue_id)
            if numbers is None or not numbers[0]:
                continue
            numbers[0] -= 1
            numbers[1] -= len(reference.message.body)
            changed = handle.changed
            if not changed:
                dirty.append(handle)
            changed.add(reference.queue_id)

    def lose(self, handle: SegmentHandle, queue_id: int, slots: list[int], lost: int, lost_bytes: int) -> None:
        """Settle references that can't be read any more; `slots` as far as they are known."""
        numbers = handle.queues[queue_id]
        for slot in slots:
            handle.bits[slot >> 3] |= 1 << (slot & 7)
        numbers[0] -= lost
        numbers[1] -= lost_bytes
        if not handle.changed:
            self._dirty.append(handle)
        handle.changed.add(queue_id)

    def purge(self, floors: dict[int, int]) -> None:
        """Forget all that queues have in segments below their floors. Cost: the number of segments in memory."""
        self._floors |= floors
        for ticket in self._open_tickets():
            ticket.floors |= floors
        for reference in self._resident.valuerefs():
            handle = reference()
            if handle is None:
                continue
            for queue_id in handle.queues.keys() & floors.keys():
                if handle.id < floors[queue_id]:
                    handle.queues[queue_id][:2] = 0, 0

    def counted(self, reference: Reference, deliveries: int, due_ms: int) -> tuple[SegmentHandle, int] | None:
        """Keep how often a reference was delivered and when it is due; return its segment and slot, or None if it has none."""
        handle: Any = reference.segment
        if handle is None:
            return None
        handle, slot = handle.now_at(reference.slot)
        if handle.is_settled(slot):
            return None
        if handle.counts is None:
            handle.counts = {}
        handle.counts[slot] = deliveries, due_ms
        return handle, slot

    def move(self, handle: SegmentHandle, slot: int, reference: Reference) -> list[int] | None:
        """Settle a reference where it was and have it found where a new one is; return its row of `redelivered`, if it has one."""
        new: Any = reference.segment
        if handle.moved is None:
            handle.moved = {}
        handle.moved[slot] = new, reference.slot
        handle.bits[slot >> 3] |= 1 << (slot & 7)
        numbers = handle.queues[reference.queue_id]
        numbers[0] -= 1
        numbers[1] -= len(reference.message.body)
        if not handle.changed:
            self._dirty.append(handle)
        handle.changed.add(reference.queue_id)
        counted = handle.counts.get(slot) if handle.counts is not None else None
        if counted is None:
            return None
        if new.counts is None:
            new.counts = {}
        new.counts[reference.slot] = counted
        return [new.id, reference.slot, *counted]

    def is_written(self, reference: Reference) -> bool:
        """Say whether the segment that a reference was given is on disk."""
        handle: Any = reference.segment
        if handle is None:
            return False
        if not handle.written:
            self.forget_landed()
        return bool(handle.written)

    # -- towards the disk ---------------------------------------------------

    def flush(self) -> Settlement:
        """Return all changes since the last call, for the next commit."""
        settlement = Settlement()
        dirty, self._dirty = self._dirty, []
        for handle in dirty:
            wanted = False
            for queue_id in handle.changed:
                live, live_bytes, first, last = handle.queues[queue_id]
                if live:
                    settlement.places.append([queue_id, 0, first, handle.id, last, live, live_bytes])
                    wanted = True
                else:
                    settlement.gone.append([queue_id, 0, first, handle.id])
            handle.changed.clear()
            if wanted:
                settlement.acks.append((handle.id, bytes(handle.bits)))
            elif not handle.complete:
                settlement.doubtful.append(handle.id)
            elif not any(numbers[0] for numbers in handle.queues.values()):
                settlement.dead += 1
        settlement.handles = dirty
        return settlement

    def track(self, settlement: Settlement) -> None:
        """Keep what a commit is about until it is on disk."""
        self._unfinished.append(settlement)

    @property
    def all_landed(self) -> bool:
        """Say whether every commit that was prepared is on disk, as far as is known."""
        return not self._unfinished

    def forget_landed(self) -> None:
        """Let go of what is on disk; pages that are being read keep it."""
        unfinished = self._unfinished
        while unfinished and unfinished[0].landed:
            settlement = unfinished.popleft()
            for handle in settlement.fresh:
                handle.written = True
            if settlement.handles:
                for ticket in self._open_tickets():
                    ticket.held.append(settlement.handles)
            for queue_id, floor in settlement.floors.items():
                if self._floors.get(queue_id) == floor:
                    del self._floors[queue_id]

    # -- from the disk ------------------------------------------------------

    def ticket(self, queue_id: int) -> Ticket:
        """Begin to read a page of a queue. What is on disk now, or landed since, is right; the rest is in here."""
        self.forget_landed()
        ticket = Ticket(queue_id, dict(self._floors))
        self._tickets[next(self._ticket_numbers)] = ticket
        return ticket

    def _open_tickets(self) -> list[Ticket]:
        tickets = [reference() for reference in self._tickets.valuerefs()] if self._tickets else []
        return [ticket for ticket in tickets if ticket is not None]
