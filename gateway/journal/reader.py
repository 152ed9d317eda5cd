"""How do segments and scheduled messages come back from the disk, without a hand on what the main thread owns?"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar
from zlib import crc32

from gateway.errors import JournalError
from gateway.journal.definitions import message_crc
from gateway.journal.index import Index
from gateway.journal.ledger import SegmentHandle
from gateway.journal.segment import decode_address
from gateway.model.message import Message

LISTED = 256
"""How many segments are looked at in one statement."""
READ_BYTES = 1 << 20
"""How much is read in one statement, unless one segment is larger."""
REFERENCE_COST = 400
"""What a reference costs in memory beside its body: a page of small messages ends earlier."""

_LIST = """
SELECT json_group_array(json_array(seg, first_position, last_position, live, size)) FROM (
  SELECT seg, first_position, last_position, live,
    (SELECT length(idx) + length(body) FROM seg WHERE id = segq.seg) AS size
  FROM segq WHERE queue = ? AND priority = 0 AND last_position > ? ORDER BY first_position LIMIT ?)
"""
# All of it in one row: Python's lock is let go of, and waited for, once per row. A concatenation of blobs is a blob.
_READ = """
SELECT json_group_array(json_array(seg.id, crc, length(idx), length(body), coalesce(length(bits), 0), committed_ms,
    live, live_bytes, first_position, last_position)),
  CAST(group_concat(idx, '') AS BLOB), CAST(group_concat(body, '') AS BLOB), CAST(group_concat(bits, '') AS BLOB),
  (SELECT json_group_array(json_array(seg, slot, count, due_ms)) FROM redelivered
    WHERE seg IN (SELECT value->>0 FROM json_each(?1)))
FROM json_each(?1) AS wanted
  CROSS JOIN segq
    ON segq.queue = ?2 AND segq.priority = 0 AND segq.first_position = wanted.value->>1 AND segq.seg = wanted.value->>0
  CROSS JOIN seg ON seg.id = segq.seg
  LEFT JOIN segack ON segack.seg = seg.id
"""
_READ_WHOLE = """
SELECT json_group_array(json_array(seg.id, crc, length(idx), length(body), coalesce(length(bits), 0), committed_ms)),
  CAST(group_concat(idx, '') AS BLOB), CAST(group_concat(body, '') AS BLOB), CAST(group_concat(bits, '') AS BLOB),
  (SELECT json_group_array(json_array(seg, slot, count, due_ms)) FROM redelivered
    WHERE seg IN (SELECT value->>0 FROM json_each(?1))),
  (SELECT json_group_array(json_array(seg, queue, live, live_bytes, first_position, last_position)) FROM segq
    WHERE seg IN (SELECT value->>0 FROM json_each(?1)))
FROM json_each(?1) AS wanted CROSS JOIN seg ON seg.id = wanted.value->>0 LEFT JOIN segack ON segack.seg = seg.id
"""


@dataclass(slots=True)
class StoredSegment:
    """A segment as it was on disk. ``damaged``: it can't be trusted; ``index``: None if not even that can be read.

    ``numbers``: of the queue that asked: live references, live bytes, first and last position. ``places``: of all queues, if nobody
    asked for one.
    """

    id: int
    numbers: list[int]
    bits: bytes
    body: bytes
    index: Index | None
    damaged: bool
    committed_ms: int = 0
    counts: dict[int, tuple[int, int]] = field(default_factory=dict)
    places: dict[int, list[int]] = field(default_factory=dict)

    @property
    def queues(self) -> Sequence[int]:
        """The queue of each reference, as far as they can be read."""
        return self.index.queues if self.index is not None else ()

    def handle(self) -> SegmentHandle:
        """Make a handle of what was on disk."""
        references = len(self.queues)
        handle = SegmentHandle(self.id, bytearray(self.bits.ljust((references + 7) >> 3, b"\0")), complete=False)
        handle.references = references
        handle.counts = dict(self.counts) or None
        handle.written = True
        return handle


@dataclass(slots=True)
class StoredPage:
    """Segments of a queue. ``covered``: they hold all that is on disk up to this position; ``at_end``: and after it, too."""

    segments: list[StoredSegment]
    covered: int
    at_end: bool


Found = TypeVar("Found")
Put: TypeAlias = Callable[[Found | JournalError], None]
Job: TypeAlias = tuple[Callable[[sqlite3.Connection], Any], Callable[[Any], None]]


class Reader:
    """The thread with a read-only connection. Every statement is short: what is read holds up no checkpoint."""

    def __init__(self, path: str, connect: Callable[[], sqlite3.Connection]) -> None:
        self._path = path
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="journal-reader", daemon=True)
        self._thread.start()

    def put(self, look: Callable[[sqlite3.Connection], Found], put: Put[Found]) -> None:
        """Look something up, in one transaction; `look` and `put` are called on the reader's thread."""
        self._jobs.put((look, put))

    def read(self, look: Callable[[sqlite3.Connection], Found]) -> Found | JournalError:
        """Look something up and wait for it."""
        answer: SimpleQueue[Found | JournalError] = SimpleQueue()
        self.put(look, answer.put)
        return answer.get()

    def stop(self) -> None:
        """Read what was asked for and end."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            look, put = job
            put(self._look(look))
            del job, look, put  # not until the next one comes
        if self._connection is not None:
            self._connection.close()

    def _end(self) -> None:
        """End the transaction. After damage that was met in it, that may fail: then the next one begins on a new connection."""
        if self._connection is None or not self._connection.in_transaction:
            return
        try:
            self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._connection.close()
            self._connection = None

    def _look(self, look: Callable[[sqlite3.Connection], Found]) -> Found | JournalError:
        try:
            if self._connection is None:
                self._connection = self._connect()
            self._connection.execute("BEGIN")
            try:
                return look(self._connection)
            finally:
                self._end()
        except Exception as error:  # the edge of the thread: who waits must hear of it
            if isinstance(error, sqlite3.Error) and self._connection is not None:
                self._connection.close()
                self._connection = None
            return error if isinstance(error, JournalError) else JournalError(f"{self._path}: {error}")


def read_page(connection: sqlite3.Connection, queue_id: int, after_position: int, max_bytes: int) -> StoredPage:
    """Read a page of a queue: at least one segment, if there is any."""
    limit = LISTED
    while True:
        (text,) = connection.execute(_LIST, (queue_id, after_position, limit)).fetchone()
        listed: list[list[int]] = json.loads(text)
        chosen, covered = _choose(listed, after_position, max_bytes)
        if chosen < len(listed) or len(listed) < limit:
            break
        limit *= 2  # what comes next may begin where the last of these does not end
    page = StoredPage([], max(covered, after_position), at_end=chosen == len(listed))
    for wanted in _portions(listed[:chosen]):
        page.segments += _segments(connection, queue_id, wanted)
    return page


def _choose(listed: list[list[int]], after_position: int, max_bytes: int) -> tuple[int, int]:
    """Return how many of the first segments make a page, and the position that they cover: all before the next one begins.

    A segment that compaction made may reach over many others; it is read again for each page that has something of it, and
    weighs only where it begins.
    """
    covered = size = 0
    for number, (_, first, last, live, segment_bytes) in enumerate(listed):
        if number and size >= max_bytes and first - 1 > after_position:
            return number, min(covered, first - 1)
        covered = max(covered, last)
        if first > after_position or not number:
            size += (segment_bytes or 0) + live * REFERENCE_COST
    return len(listed), covered


def _portions(listed: list[list[int]]) -> list[list[list[int]]]:
    portions: list[list[list[int]]] = []
    size = READ_BYTES
    for segment_id, first, _, _, segment_bytes in listed:
        if size + (segment_bytes or 0) > READ_BYTES:
            portions.append([])
            size = 0
        portions[-1].append([segment_id, first])
        size += segment_bytes or 0
    return portions


def _segments(connection: sqlite3.Connection, queue_id: int, wanted: list[list[int]]) -> list[StoredSegment]:
    """Read segments. Those that went since they were listed are left out: nothing of them was live any more."""
    try:
        return _read(connection, queue_id, wanted)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CORRUPT:
            raise
    if len(wanted) > 1:
        return [segment for one in wanted for segment in _segments(connection, queue_id, [one])]
    query = "SELECT live, live_bytes, first_position, last_position FROM segq WHERE queue = ? AND seg = ?"
    numbers = connection.execute(query, (queue_id, wanted[0][0])).fetchone()
    return [StoredSegment(wanted[0][0], list(numbers), b"", b"", None, damaged=True)] if numbers else []


def _read(connection: sqlite3.Connection, queue_id: int, wanted: list[list[int]]) -> list[StoredSegment]:
    return list(_parse(*connection.execute(_READ, (json.dumps(wanted), queue_id)).fetchone()).values())


def _parse(head: str, idx: bytes, body: bytes, bits: bytes, counts: str) -> dict[int, StoredSegment]:
    found: dict[int, StoredSegment] = {}
    idx_at = body_at = bits_at = 0
    for segment_id, crc, idx_bytes, body_bytes, bits_bytes, committed_ms, *numbers in json.loads(head):
        one_idx = idx[idx_at : idx_at + idx_bytes]
        one_body = body[body_at : body_at + body_bytes]
        one_bits = bits[bits_at : bits_at + bits_bytes] if bits_bytes else b""
        idx_at, body_at, bits_at = idx_at + idx_bytes, body_at + body_bytes, bits_at + bits_bytes
        damaged = crc32(one_body, crc32(one_idx)) != crc
        index = _index(one_idx)
        found[segment_id] = StoredSegment(segment_id, numbers, one_bits, one_body, index, damaged or index is None, committed_ms)
    for segment_id, slot, count, due_ms in json.loads(counts):
        if segment_id in found:
            found[segment_id].counts[slot] = count, due_ms
    return found


def read_whole(connection: sqlite3.Connection, wanted: list[list[int]]) -> list[StoredSegment]:
    """Read segments, given as ``[id, size]``, with what all queues have there. Those that are gone are left out."""
    found: list[StoredSegment] = []
    for portion in _portions([[number, 0, 0, 0, size] for number, size in wanted]):
        try:
            *columns, places = connection.execute(_READ_WHOLE, (json.dumps(portion),)).fetchone()
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CORRUPT:
                raise
            found += [StoredSegment(number, [], b"", b"", None, damaged=True) for number, _ in portion]
            continue
        segments = _parse(*columns)
        for segment_id, queue_id, *numbers in json.loads(places):
            if segment_id in segments:
                segments[segment_id].places[queue_id] = numbers
        found += segments.values()
    return found


def _index(idx: bytes) -> Index | None:
    try:
        return Index(idx)
    except JournalError:
        return None


# -- scheduled messages -------------------------------------------------

_SIZES = """
SELECT json_group_array(json_array(id, length(wire) + length(body))) FROM scheduled WHERE id IN (SELECT value FROM json_each(?))
"""
_SCHEDULED = """
SELECT json_group_array(json_array(id, priority, expires_at_ms, wire_tag, crc, length(address), length(wire), length(body))),
  CAST(group_concat(address, '') AS BLOB), CAST(group_concat(wire, '') AS BLOB), CAST(group_concat(body, '') AS BLOB)
FROM scheduled WHERE id IN (SELECT value FROM json_each(?))
"""


def read_scheduled(connection: sqlite3.Connection, ids: list[int]) -> tuple[list[tuple[int, Message]], list[int]]:
    """Read scheduled messages, in the order of their ids; return those that are there, and the ids of those that are damaged."""
    (sizes,) = connection.execute(_SIZES, (json.dumps(ids),)).fetchone()
    listed = sorted([number, 0, 0, 0, size] for number, size in json.loads(sizes))
    found: list[tuple[int, Message]] = []
    damaged: list[int] = []
    for portion in _portions(listed):
        wanted = json.dumps([number for number, _ in portion])
        head, addresses, wires, bodies = connection.execute(_SCHEDULED, (wanted,)).fetchone()
        address_at = wire_at = body_at = 0
        for number, priority, expires_at_ms, tag, crc, address_bytes, wire_bytes, body_bytes in json.loads(head):
            address = addresses[address_at : address_at + address_bytes]
            wire = wires[wire_at : wire_at + wire_bytes]
            body = bodies[body_at : body_at + body_bytes]
            address_at, wire_at, body_at = address_at + address_bytes, wire_at + wire_bytes, body_at + body_bytes
            if message_crc(address, wire, body) != crc:
                damaged.append(number)
            else:
                found.append((number, Message(decode_address(address), body, True, tag, wire, priority, expires_at_ms)))
    return sorted(found, key=itemgetter(0)), damaged
