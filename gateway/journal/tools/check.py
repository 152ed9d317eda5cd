"""Is a journal whole: the database, every segment, and what is counted of them?"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from zlib import crc32

from gateway.errors import JournalError
from gateway.journal.definitions import load_records
from gateway.journal.index import Index
from gateway.journal.tools.inspection import SEGMENT, lanes_of, live_slots

MAX_COMPLAINTS = 20
"""Of SQLite itself."""

Place = tuple[int, int, int, int, int]
"""queue, live, live_bytes, first_position, last_position."""

_PLACES = "SELECT queue, live, live_bytes, first_position, last_position FROM segq WHERE seg = ?"


def findings(connection: sqlite3.Connection) -> Iterator[str]:
    """Yield what is wrong with a journal, a line each; nothing: it is whole.

    SQLite's quick_check, the definitions, each segment's CRC-32, and each row of segq against the segment's own index: live
    references, live bytes, positions. May run beside the broker: after SQLite's check each read is short.

    Cost: reads the whole file.
    """
    yield from _sqlite(connection)
    try:
        yield from _definitions(connection)
        yield from _segments(connection)
        yield from _places(connection)
    except sqlite3.DatabaseError as error:
        yield f"the rest can't be read: {error}"


def _sqlite(connection: sqlite3.Connection) -> Iterator[str]:
    try:
        verdicts = [text for (text,) in connection.execute(f"PRAGMA quick_check({MAX_COMPLAINTS})")]
    except sqlite3.DatabaseError as error:
        verdicts = [str(error)]
    if verdicts != ["ok"]:
        yield from (f"SQLite: {line}" for verdict in verdicts for line in str(verdict).splitlines())


def _definitions(connection: sqlite3.Connection) -> Iterator[str]:
    lost: list[str] = []
    try:
        for _ in load_records(connection, lost.append):
            pass
    except (JournalError, ValueError, TypeError) as error:
        lost.append(f"definitions: {error}")
    yield from lost


def _segments(connection: sqlite3.Connection) -> Iterator[str]:
    quarantined = {segment for (segment,) in connection.execute("SELECT seg FROM quarantine")}
    for segment in sorted(quarantined):
        yield f"segment {segment} was found damaged before, and is in quarantine"
    for (segment,) in connection.execute("SELECT id FROM seg ORDER BY id").fetchall():
        if segment in quarantined:
            continue
        try:
            yield from _segment(connection, segment)
        except sqlite3.DatabaseError as error:
            yield f"segment {segment} can't be read: {error}"


def _segment(connection: sqlite3.Connection, segment: int) -> Iterator[str]:
    connection.execute("BEGIN")  # segment, bits and places as of one moment
    try:
        row = connection.execute(SEGMENT, (segment,)).fetchone()
        places: list[Place] = connection.execute(_PLACES, (segment,)).fetchall()
    finally:
        connection.execute("COMMIT")
    if row is None:  # gone since it was listed
        return
    _, _, references, crc, _, idx, body, bits = row
    if crc32(body, crc32(idx)) != crc:
        yield f"segment {segment}: its CRC is wrong; {_stake(places)} at stake"
        return
    try:
        index = Index(idx)
    except JournalError as error:
        yield f"segment {segment}: {error}; {_stake(places)} at stake"
        return
    if len(index.queues) != references:
        yield f"segment {segment}: its index has {len(index.queues)} references, its row says {references}"
    if not places:
        yield f"segment {segment}: nothing refers to it"
    yield from _counts(segment, index, bits, places)


def _stake(places: list[Place]) -> str:
    return f"{sum(live for _, live, *_ in places):,} messages in {len(places)} queues are"


def _counts(segment: int, index: Index, bits: bytes, places: list[Place]) -> Iterator[str]:
    for queue, live, live_bytes, first, last in places:
        mine = [slot for slot, owner in enumerate(index.queues) if owner == queue]
        positions = [index.positions[slot] for slot in mine]
        slots = live_slots(index.queues, bits, {queue})
        facts = (len(slots), sum(map(index.body_bytes, slots)), min(positions, default=0), max(positions, default=0))
        for what, counted, fact in zip(
            ("live messages", "live bytes", "first position", "last position"), (live, live_bytes, first, last), facts, strict=True
        ):
            if counted != fact:
                yield f"segment {segment}, queue id {queue}: {what}: {counted} are counted, the segment itself says {fact}"


def _places(connection: sqlite3.Connection) -> Iterator[str]:
    missing = "SELECT DISTINCT seg FROM segq WHERE seg NOT IN (SELECT id FROM seg)"
    for (segment,) in connection.execute(missing).fetchall():
        (live,) = connection.execute("SELECT sum(live) FROM segq WHERE seg = ?", (segment,)).fetchone()
        yield f"segment {segment} is missing; it had {live} messages"
    known = {
        lane
        for queue_id, spec in connection.execute("SELECT id, spec FROM queue")
        for lane in range(queue_id, queue_id + lanes_of(spec))
    }
    for (queue,) in connection.execute("SELECT DISTINCT queue FROM segq").fetchall():
        if queue not in known:
            yield f"messages of queue id {queue} are here, but no such queue"
    (lost,) = connection.execute("SELECT count(*) FROM segack WHERE seg NOT IN (SELECT id FROM seg)").fetchone()
    if lost:
        yield f"{lost} rows of acknowledgements belong to no segment"
