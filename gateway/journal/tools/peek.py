"""What waits in a queue, message by message, without touching it?"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from zlib import crc32

from gateway.errors import JournalError
from gateway.journal.index import Index
from gateway.journal.ledger import SegmentHandle
from gateway.journal.tools.inspection import SEGMENT, StoredQueue, StoredSegment, has_column, live_slots
from gateway.model.declare import BindingOptions
from gateway.model.message import Message


@dataclass(frozen=True, slots=True)
class Peeked:
    """A message in a queue, as it is on disk.

    Args:
        priority: its lane.
        stored_ms: wall time of its commit.
        deliveries: how often it was delivered and came back, as far as is known.
        due_ms: it is not delivered again before; 0: at once.
    """

    queue: StoredQueue
    priority: int
    position: int
    segment: int
    slot: int
    stored_ms: int
    deliveries: int
    due_ms: int
    message: Message
    options: BindingOptions | None


_PLACES = "SELECT seg, first_position FROM segq WHERE queue = ? ORDER BY first_position"


def peek(connection: sqlite3.Connection, queue: StoredQueue, damaged: list[int] | None = None) -> Iterator[Peeked]:
    """Yield what is in a queue, in the order in which it would go out: the highest priority first, then by position.

    Args:
        damaged: gets the ids of segments that can't be trusted; None: they are an error.

    Raises:
        JournalError: a segment is damaged.
    Cost: reads one segment at a time, and only as far as it is asked.
    """
    broken: list[int] = []
    for lane in reversed(range(queue.lanes)):
        yield from _lane(connection, queue, lane, broken if damaged is None else damaged)
        if damaged is None and broken:
            raise JournalError(f"segment {broken[0]} is damaged: `tidegate journal check` says more")


def _lane(connection: sqlite3.Connection, queue: StoredQueue, lane: int, damaged: list[int]) -> Iterator[Peeked]:
    """Yield a lane in order. Segments overlap where something was written again: what may come before the next one waits."""
    waiting: list[tuple[int, int, Peeked]] = []
    for segment, first in connection.execute(_PLACES, (queue.queue_id + lane,)).fetchall():
        while waiting and waiting[0][0] < first:
            yield heappop(waiting)[2]
        row = connection.execute(SEGMENT, (segment,)).fetchone()
        if row is None:  # settled since it was listed
            continue
        try:
            for peeked in _segment(connection, row, queue, lane):
                heappush(waiting, (peeked.position, peeked.slot, peeked))
        except JournalError:
            damaged.append(segment)
    while waiting:
        yield heappop(waiting)[2]


def _segment(connection: sqlite3.Connection, row: StoredSegment, queue: StoredQueue, lane: int) -> Iterator[Peeked]:
    segment, _, _, crc, committed_ms, idx, body, bits = row
    if crc32(body, crc32(idx)) != crc:
        raise JournalError(f"segment {segment} is damaged")
    index = Index(idx)
    slots = live_slots(index.queues, bits, {queue.queue_id + lane})
    handle = SegmentHandle(segment, bytearray(bits), complete=False)
    handle.counts = deliveries(connection, segment)
    for found in index.references(slots, body, handle, committed_ms):
        yield Peeked(
            queue,
            lane,
            found.position,
            segment,
            found.slot,
            found.stored_ms,
            found.count,
            found.due_ms,
            found.message,
            found.options,
        )


def deliveries(connection: sqlite3.Connection, segment: int) -> dict[int, tuple[int, int]]:
    """Return per slot how often it came back, and when it is due."""
    due = "due_ms" if has_column(connection, "redelivered", "due_ms") else "0"
    query = f"SELECT slot, count, {due} FROM redelivered WHERE seg = ?"  # noqa: S608 - constants
    return {slot: (count, due_ms) for slot, count, due_ms in connection.execute(query, (segment,))}
