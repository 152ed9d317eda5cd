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
        queue_id = ticket.queue_id
        references: list[PagedReference] = []
        moved: list[PagedReference] = []
        lost = lost_bytes = 0
        for segment in stored.segments:
            if ticket.is_purged(queue_id, segment.id):
                continue
            handle = self._handle(segment, queue_id)
            if segment.damaged:
                gone, gone_bytes = self._give_up(segment, handle, queue_id, after_position)
                lost += gone
                lost_bytes += gone_bytes
            else:
                references += _references(segment, handle, queue_id, after_position, stored.covered)
                if handle.moved is not None:
                    moved += _moved(segment, handle, queue_id, after_position, stored.covered)
        if moved:  # what moved before this was read is in the segment where it is now, too
            there = {reference.position for reference in references}
            references += {r.position: r for r in moved if r.position not in there}.values()
        references.sort(key=_by_position)
        return Page(queue_id, references, lost, lost_bytes)

    def found_damaged(self, segment_id: int) -> None:
        """The scrub has found a damaged segment. What it takes with it is known when it is needed."""
        if segment_id not in self._known_damaged:
            self._quarantine(segment_id)
            self._report(f"segment {segment_id} of the journal is damaged: its messages will be missing; it is kept aside")

    def _quarantine(self, segment_id: int) -> None:
        self._known_damaged.add(segment_id)
        self.to_quarantine.append([segment_id, time.time_ns() // 1_000_000])
        self._counters.segments_quarantined += 1

    def _handle(self, segment: StoredSegment, queue_id: int) -> SegmentHandle:
        """Return what memory knows of a segment, which is newer than the disk; else what the disk says."""
        handle = self._ledger.get(segment.id)
        if handle is None:
            handle = segment.handle()
            self._ledger.add(handle)
        handle.queues.setdefault(queue_id, segment.numbers)
        return handle

    def _give_up(self, segment: StoredSegment, handle: SegmentHandle, queue_id: int, after_position: int) -> tuple[int, int]:
        """Settle what a damaged segment takes with it; return how many references, and how many bytes of bodies, that is."""
        if segment.id not in self._known_damaged:
            self._quarantine(segment.id)
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
        return lost, lost_bytes


def _references(segment: StoredSegment, handle: SegmentHandle, queue_id: int, after: int, up_to: int) -> list[PagedReference]:
    assert segment.index is not None
    slots = segment.index.slots_of(queue_id, after, up_to)
    bits = handle.bits
    if any(bits):
        slots = [slot for slot in slots if not bits[slot >> 3] & 1 << (slot & 7)]
    return segment.index.references(slots, segment.body, handle, segment.committed_ms)


def _moved(segment: StoredSegment, handle: SegmentHandle, queue_id: int, after: int, up_to: int) -> list[PagedReference]:
    """Return what was in this segment and is unsettled where it is now."""
    assert segment.index is not None
    moved = handle.moved or {}
    slots = [slot for slot in segment.index.slots_of(queue_id, after, up_to) if slot in moved]
    found: list[PagedReference] = []
    for reference in segment.index.references(slots, segment.body, handle, segment.committed_ms):
        now, slot = handle.now_at(reference.slot)
        if not now.is_settled(slot):
            reference.segment, reference.slot = now, slot
            reference.count, reference.due_ms = (now.counts or {}).get(slot, (0, 0))
            found.append(reference)
    return found
