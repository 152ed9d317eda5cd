"""Is what was stored long ago still readable, before somebody needs it?"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from queue import Empty, SimpleQueue
from zlib import crc32

from gateway.journal.counters import Counters

FIRST_AFTER_S = 60.0
EVERY_S = 86_400.0
AGAIN_AFTER_S = 60.0
"""After a pass that could not go on."""
LISTED = 256
PORTION_BYTES = 256 * 1024
"""What is read in one statement; a larger segment is read in pieces of this size."""
SEGMENT_COST = 4096
"""The least that a segment counts for: finding it reads pages too."""
NICENESS = 10

# The lengths are asked for within: what a subquery with a limit yields is copied, bodies too.
_LIST = """
SELECT json_group_array(json_array(id, crc, idx_bytes, body_bytes)) FROM (
  SELECT id, crc, length(idx) AS idx_bytes, length(body) AS body_bytes FROM seg
  WHERE id > ? AND id <= ? AND id NOT IN (SELECT seg FROM quarantine) ORDER BY id LIMIT ?)
"""
# In one row, as in the reader: Python's lock is let go of, and waited for, once per row.
_READ = """
SELECT json_group_array(seg.id), CAST(group_concat(idx, '') AS BLOB), CAST(group_concat(body, '') AS BLOB)
FROM json_each(?) AS wanted CROSS JOIN seg ON seg.id = wanted.value
"""

Listed = tuple[int, int, int, int]
"""A segment: id, CRC, bytes of its index, bytes of its body."""


class Scrub:
    """The thread that reads every segment now and then, slowly, with a read-only connection and in short statements.

    Args:
        connect: opens the connection, anew for each pass.
        counters: where segments that are whole are counted.
        mib_per_s: how fast.
        at_once: begin with it, not a minute later: the last broker didn't end in order.
    """

    def __init__(
        self, connect: Callable[[], sqlite3.Connection], counters: Counters, *, mib_per_s: float, at_once: bool = False
    ) -> None:
        self._connect = connect
        self._counters = counters
        self._bytes_per_s = mib_per_s * (1 << 20)
        self._first_after_s = 0.0 if at_once else FIRST_AFTER_S
        self._found: SimpleQueue[int | str] = SimpleQueue()
        self._ended = threading.Event()
        self.passes: int = 0
        self._thread = threading.Thread(target=self._run, name="journal-scrub", daemon=True)
        self._thread.start()

    def take(self) -> list[int | str]:
        """Return what was found since the last call: ids of damaged segments, or in words what ended a pass."""
        found: list[int | str] = []
        with suppress(Empty):
            while True:
                found.append(self._found.get_nowait())
        return found

    def stop(self) -> None:
        """End, after the statement that is being executed."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        if hasattr(os, "setpriority") and os.path.isdir("/proc/self/task"):  # where a thread has a niceness of its own
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        pause_s = self._first_after_s
        while not self._ended.wait(pause_s):
            pause_s = EVERY_S if self._pass() else AGAIN_AFTER_S

    def _pass(self) -> bool:
        """Read every segment. False: it could not be done to the end."""
        known: set[int] = set()
        try:
            with closing(self._connect()) as connection:
                for portion in _portions(connection):
                    damaged = _damaged(connection, portion)
                    for segment_id in damaged - known:
                        self._found.put(segment_id)
                    known |= damaged
                    self._counters.segments_scrubbed += len(portion) - len(damaged)
                    cost = sum(max(idx_bytes + body_bytes, SEGMENT_COST) for _, _, idx_bytes, body_bytes in portion)
                    if self._ended.wait(cost / self._bytes_per_s):
                        return False
        except sqlite3.Error as error:
            if not self._ended.is_set():
                self._found.put(f"not all segments could be read: {error}")
            return False
        self.passes += 1
        return True


def _portions(connection: sqlite3.Connection) -> Iterator[list[Listed]]:
    """Yield all segments that there are now, a few at a time. Raises sqlite3.Error."""
    after = 0
    (last,) = connection.execute("SELECT coalesce(max(id), 0) FROM seg").fetchone()
    while True:
        (text,) = connection.execute(_LIST, (after, last, LISTED)).fetchone()
        listed: list[Listed] = [tuple(row) for row in json.loads(text)]
        if not listed:
            return
        after = listed[-1][0]
        portion: list[Listed] = []
        size = 0
        for one in listed:
            own = one[2] + one[3]
            if portion and size + own > PORTION_BYTES:
                yield portion
                portion, size = [], 0
            portion.append(one)
            size += own
        yield portion


def _damaged(connection: sqlite3.Connection, portion: list[Listed]) -> set[int]:
    """Return those that can't be trusted; segments that went meanwhile are none. Raises sqlite3.Error."""
    try:
        if len(portion) == 1:
            return set() if _is_whole(connection, portion[0]) else {portion[0][0]}
        return _mismatches(connection, portion)
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_CORRUPT:
            raise
    if len(portion) == 1:
        return {portion[0][0]}
    return set().union(*(_damaged(connection, [one]) for one in portion))


def _mismatches(connection: sqlite3.Connection, portion: list[Listed]) -> set[int]:
    ids, idx, body = connection.execute(_READ, (json.dumps([one[0] for one in portion]),)).fetchone()
    there = set(json.loads(ids))
    found: set[int] = set()
    idx_at = body_at = 0
    for segment_id, crc, idx_bytes, body_bytes in portion:
        if segment_id not in there:
            continue
        whole = crc32(idx[idx_at : idx_at + idx_bytes])
        if crc32(body[body_at : body_at + body_bytes], whole) != crc:
            found.add(segment_id)
        idx_at, body_at = idx_at + idx_bytes, body_at + body_bytes
    return found


def _is_whole(connection: sqlite3.Connection, one: Listed) -> bool:
    """Read one segment in pieces: a body of a hundred megabytes must not hold up the loop."""
    crc = 0
    for column in ("idx", "body"):
        try:
            blob = connection.blobopen("seg", column, one[0], readonly=True)
        except sqlite3.OperationalError as error:
            if "no such rowid" in str(error):
                return True  # it went meanwhile
            raise
        with blob:
            while piece := blob.read(PORTION_BYTES):
                crc = crc32(piece, crc)
    return crc == one[1]
