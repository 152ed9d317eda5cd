"""How do the messages that are still wanted get out of segments that are mostly settled?"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from gateway.journal.index import Index
from gateway.journal.ledger import SegmentHandle
from gateway.journal.migrate import bring_up_to_date
from gateway.journal.segment import Segment, encode
from gateway.journal.tools.backup import prove
from gateway.journal.tools.inspection import SEGMENT, live_slots
from gateway.journal.tools.peek import deliveries
from gateway.model.message import Message
from gateway.model.records import Reference

_AT_ONCE = 4096
"""Messages that are put into new segments together: as many as a segment holds at most."""

_WORN = """
SELECT id FROM seg WHERE refs > (SELECT coalesce(sum(live), 0) FROM segq WHERE segq.seg = seg.id)
  AND id NOT IN (SELECT seg FROM quarantine) ORDER BY id
"""


@dataclass(slots=True)
class _Moved:
    """Messages under way: when each was committed, and how often references came back (and when they are due)."""

    messages: list[Message] = field(default_factory=list)
    stored_ms: list[int] = field(default_factory=list)
    counts: list[tuple[Reference, int, int]] = field(default_factory=list)
    from_segments: list[int] = field(default_factory=list)


def rewrite(path: Path) -> tuple[int, int]:
    """Write every segment anew that has something settled, and give all free pages back; return segments before and after.

    For a copy that nobody uses: a crash leaves it broken.

    Raises:
        JournalError: what came out is not whole. OSError: it can't be written.
    """
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for pragma in ("journal_mode = OFF", "synchronous = OFF"):
                connection.execute(f"PRAGMA {pragma}").fetchall()
            bring_up_to_date(connection, str(path))  # what is written here is of this version
            (before,) = connection.execute("SELECT count(*) FROM seg").fetchone()
            (last,) = connection.execute("SELECT coalesce(max(id), 0) FROM seg").fetchone()
            for moved in _portions(connection):
                last = _write(connection, moved, last)
            connection.execute("VACUUM")
            (after,) = connection.execute("SELECT count(*) FROM seg").fetchone()
    except sqlite3.OperationalError as error:
        raise OSError(0, str(error)) from error
    prove(path)
    return before, after


def _portions(connection: sqlite3.Connection) -> Iterator[_Moved]:
    moved = _Moved()
    for (segment,) in connection.execute(_WORN).fetchall():
        _collect(connection, segment, moved)
        if len(moved.messages) >= _AT_ONCE:
            yield moved
            moved = _Moved()
    if moved.from_segments:
        yield moved


def _collect(connection: sqlite3.Connection, segment: int, moved: _Moved) -> None:
    """Take what is live in a segment; references to one message stay together."""
    _, _, _, _, committed_ms, idx, body, bits = connection.execute(SEGMENT, (segment,)).fetchone()
    lanes = {queue for (queue,) in connection.execute("SELECT queue FROM segq WHERE seg = ?", (segment,))}
    index = Index(idx)
    handle = SegmentHandle(segment, bytearray(bits), complete=False)
    handle.counts = deliveries(connection, segment)
    slots = live_slots(index.queues, bits, lanes)
    owner = -1
    for found in index.references(slots, body, handle, committed_ms):
        if index.owner(found.slot) != owner:
            owner = index.owner(found.slot)
            moved.messages.append(found.message)
            moved.stored_ms.append(found.stored_ms)
        message = moved.messages[-1]
        reference = Reference(message, index.queues[found.slot], found.position, found.options)
        message.live += 1
        if message.first is None:
            message.first = reference
        else:
            message.more = [*(message.more or ()), reference]
        if found.count or found.due_ms:
            moved.counts.append((reference, found.count, found.due_ms))
    moved.from_segments.append(segment)


def _write(connection: sqlite3.Connection, moved: _Moved, last: int) -> int:
    """Write new segments, then remove the old ones; return the highest id that is taken."""
    segments = list(encode(moved.messages, last + 1, moved.stored_ms)) if moved.messages else []
    for number in moved.from_segments:
        for table, column in (("seg", "id"), ("segq", "seg"), ("segack", "seg"), ("redelivered", "seg")):
            connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (number,))  # noqa: S608 - constants
    for segment in segments:
        _insert(connection, segment)
    for reference, count, due_ms in moved.counts:
        assert isinstance(reference.segment, SegmentHandle)
        values = (reference.segment.id, reference.slot, count, due_ms)
        connection.execute("INSERT INTO redelivered VALUES (?, ?, ?, ?)", values)
    return last + len(segments)


def _insert(connection: sqlite3.Connection, segment: Segment) -> None:
    idx, body, crc = segment.joined()
    number = segment.handle.id
    row = (number, segment.messages, segment.references, crc, segment.committed_ms, idx, body)
    connection.execute("INSERT INTO seg VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    connection.executemany(
        "INSERT INTO segq VALUES (?, 0, ?, ?, ?, ?, ?)",
        [(queue, first, number, last, live, size) for queue, (live, size, first, last) in segment.handle.queues.items()],
    )
