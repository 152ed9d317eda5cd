"""Which references of a stored page are still to be delivered?"""

from __future__ import annotations

import time
from collections.abc import Callable
from operator import attrgetter

from gateway.journal.counters import Counters
from gateway.journal.ledger import Ledger, SegmentHandle, Ticket
from gateway.journal.reader import StoredPage, StoredSegment
from gateway.model.records import Page, PagedReference

_by_position = attrgetter("position")


class PageMaker:
    """Turns what was on disk into what holds now: on the main thread, which owns the ledger.

    Args:
        report: is told of every damaged segment, once.
    """

    def __init__(self, ledger: Ledger, counters: Counters, report: Callable[[str], None]) -> None:
        self._ledger = ledger
        self._counters = counters
        self._report = report
        self._known_damaged: set[int] = set()
        self.to_quarantine: list[list[int]] = []

    def page(self, stored: StoredPage, ticket: Ticket, after_position: int) -> Page:
        """Make a page of what is not settled and comes after a position."""
        references: list[PagedReference] = []
        lost = 0
        for segment in stored.segments:
            if segment.id < ticket.floor:
                continue
            handle = self._handle(segment, ticket.queue_id)
            if segment.damaged:
                lost += self._give_up(segment, handle, ticket.queue_id, after_position)
            else:
                references += _references(segment, handle, ticket.queue_id, after_position)
        references.sort(key=_by_position)
        return Page(ticket.queue_id, references, lost)

    def _handle(self, segment: StoredSegment, queue_id: int) -> SegmentHandle:
        """Return what memory knows of a segment, which is newer than the disk; else what the disk says."""
        handle = self._ledger.get(segment.id)
        if handle is None:
            size = (len(segment.index.queues) + 7) >> 3 if segment.index is not None else 0
            handle = SegmentHandle(segment.id, bytearray(segment.bits.ljust(size, b"\0")), complete=False)
            handle.counts = dict(segment.counts) or None
            self._ledger.add(handle)
        handle.queues.setdefault(queue_id, segment.numbers)
        return handle

    def _give_up(self, segment: StoredSegment, handle: SegmentHandle, queue_id: int, after_position: int) -> int:
        """Settle what a damaged segment takes with it; return how much that is."""
        if segment.id not in self._known_damaged:
            self._known_damaged.add(segment.id)
            self.to_quarantine.append([segment.id, time.time_ns() // 1_000_000])
            self._counters.segments_quarantined += 1
        index, numbers = segment.index, handle.queues[queue_id]
        if index is None:
            lost, lost_bytes, slots = numbers[0], numbers[1], []
        else:
            slots = [slot for slot in index.slots_of(queue_id, after_position) if not handle.is_settled(slot)]
            lost, lost_bytes = len(slots), sum(map(index.body_bytes, slots))
        if lost:
            self._ledger.lose(handle, queue_id, slots, lost, lost_bytes)
            self._counters.references_lost += lost
            self._report(
                f"segment {segment.id} of the journal is damaged: queue {queue_id} loses {lost} messages; it is kept aside"
            )
        return lost


def _references(segment: StoredSegment, handle: SegmentHandle, queue_id: int, after_position: int) -> list[PagedReference]:
    assert segment.index is not None
    slots = segment.index.slots_of(queue_id, after_position)
    bits = handle.bits
    if any(bits):
        slots = [slot for slot in slots if not bits[slot >> 3] & 1 << (slot & 7)]
    return segment.index.references(slots, segment.body, handle)
