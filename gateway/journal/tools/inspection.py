"""What does a journal hold, seen from outside while its broker may be running?"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gateway.errors import JournalError
from gateway.journal.migrate import APPLICATION_ID, VERSION
from gateway.journal.recovery import DATABASE

_PATIENCE_S = 5.0
_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100
_ALONE = "immutable=1"
_NO_INDEX = "vfs=unix-none"


# -- opening ------------------------------------------------------------------


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a journal (or a backup) to read; not a byte of it changes, and no file comes into being beside it.

    Raises:
        JournalError: it is missing, locked, broken, another program's, of a newer version, or a broker was started on it
            meanwhile.
    """
    check_header(path)
    how = how_to_read(path)
    try:
        with closing(_connection(path, how)) as connection:
            yield connection
    except sqlite3.Error as error:
        check_undisturbed(path, how)
        raise JournalError(f"{path} can't be read: {error}") from error
    check_undisturbed(path, how)


@dataclass(frozen=True, slots=True)
class HowToRead:
    """How a journal is read without a file coming into being beside it.

    Args:
        options: the part of SQLite's URI; empty: as usual, with locks that a broker sees.
        seen: which file it was, how large, and when it was written last. A broker that starts writes to it, one that ends does.
    """

    options: str
    seen: tuple[int, int, int]

    @property
    def has_no_index(self) -> bool:
        """The log's index is to be kept in memory."""
        return self.options == _NO_INDEX


def check_undisturbed(path: Path, how: HowToRead) -> None:
    """See that nobody wrote to a journal that was opened as one to which nobody writes, or locks of which were not seen.

    Raises:
        JournalError: a broker was started; it may have ended since.
    """
    if how.options and how_to_read(path) != how:
        raise JournalError(f"a broker was started on {path} meanwhile, so what was read may be wrong: ask again")


def how_to_read(path: Path) -> HowToRead:
    """Return how to read a journal. Raises JournalError: it is gone."""
    wal, shared = path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")
    try:
        found = path.stat()
        written = wal.exists() and wal.stat().st_size
    except OSError as error:
        raise JournalError(f"{path} can't be read: {error.strerror}") from error
    options = _ALONE  # there is nobody who writes, and SQLite would make a log
    if written:
        options = "" if shared.exists() else _NO_INDEX  # SQLite would make the log's index
    return HowToRead(options, (found.st_ino, found.st_size, found.st_mtime_ns))


def _connection(path: Path, how: HowToRead) -> sqlite3.Connection:
    uri = f"file:{quote(str(path.absolute()))}?mode=ro{'&' if how.options else ''}{how.options}"
    connection = sqlite3.connect(uri, timeout=_PATIENCE_S, isolation_level=None, uri=True)
    connection.text_factory = _text
    try:
        if how.has_no_index:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()  # then the log's index is kept in memory
        connection.execute("SELECT 1 FROM meta").fetchall()
        _fill_up(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _fill_up(connection: sqlite3.Connection) -> None:
    """Let a journal of an older format look like one of this: what it lacks is empty, in memory, for this connection."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version < _SCHEDULED_SINCE:
        connection.execute("PRAGMA temp_store = MEMORY").fetchall()
        connection.execute(_NO_SCHEDULED)


_SCHEDULED_SINCE = 2
_NO_SCHEDULED = """
CREATE TEMP TABLE scheduled (
  id INTEGER PRIMARY KEY, due_ms, vhost, exchange, key, priority, expires_at_ms, wire_tag, crc, address, wire, body)
"""


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def check_header(path: Path) -> int:
    """Look by the first bytes (SQLite's file format, §1.3) whether this is a journal; return its format.

    Not for the process that has the journal open: closing a file gives up all locks that a process has on it (POSIX).

    Raises:
        JournalError: it is missing, can't be read, another program's, or of a newer version.
    """
    try:
        if path.exists() and not path.is_file():  # opening a FIFO would wait for who writes to it
            raise JournalError(f"{path} can't be read: it is no file")
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except FileNotFoundError as error:
        raise JournalError(f"there is no journal {path}") from error
    except OSError as error:
        raise JournalError(f"{path} can't be read: {error.strerror}") from error
    if not header.startswith(_MAGIC):
        raise JournalError(f"{path} is no SQLite database, or its header is broken: `tidegate journal recover` saves what it can")
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise JournalError(f"{path} is an SQLite database, but not a journal of Tidegate")
    version = int.from_bytes(header[60:64], "big")
    if version > VERSION:
        raise JournalError(f"{path} has format {version}, written by a newer version of Tidegate; this one reads up to {VERSION}")
    return version


def journal_in(directory: Path) -> Path:
    """Return the path of a data directory's journal.

    Raises:
        JournalError: there is none.
    """
    path = directory / DATABASE
    if not path.exists():
        raise JournalError(f"there is no journal in {directory}; if the broker keeps it elsewhere say so by --data-dir or --config")
    return path


def has_column(connection: sqlite3.Connection, table: str, column: str) -> bool:
    """Say whether a table of this format has a column; False: there is no such table."""
    return any(name == column for _, name, *_ in connection.execute(f"PRAGMA table_info({table})"))


# -- queues -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoredQueue:
    """A durable queue as it is on disk.

    Args:
        queue_id: of its first lane; `lanes` ids from there on are its own.
        messages: ready and delivered, not settled.
        body_bytes: of their bodies.
        oldest_ms: wall time at which the oldest of them was committed, as far as its segment knows; 0: it is empty.
        spec: what was declared, beyond the defaults.
    """

    vhost: str
    name: str
    messages: int
    body_bytes: int
    oldest_ms: int = 0
    queue_id: int = 0
    lanes: int = 1
    spec: str = "{}"

    def arguments(self) -> dict[str, Any]:
        """Return the declaration as a mapping."""
        declared: dict[str, Any] = json.loads(self.spec)
        return declared


_QUEUES = "SELECT id, vhost, name, spec FROM queue ORDER BY vhost, name"
_LIVE = """
SELECT segq.queue, sum(live), sum(live_bytes), min(committed_ms)
FROM segq LEFT JOIN seg ON seg.id = segq.seg GROUP BY segq.queue
"""


def stored_queues(directory: Path) -> list[StoredQueue]:
    """Return the durable queues of a data directory, by virtual host and name. Changes nothing.

    Raises:
        JournalError: there is no journal, or it can't be read.
    Cost: the number of queues and segments.
    """
    with reading(journal_in(directory)) as connection:
        return queues_of(connection)


def queues_of(connection: sqlite3.Connection) -> list[StoredQueue]:
    """Return the durable queues of an open journal, by virtual host and name."""
    live = {queue_id: numbers for queue_id, *numbers in connection.execute(_LIVE)}
    return [_stored(row, live) for row in connection.execute(_QUEUES)]


def _stored(row: tuple[int, str, str, str], live: dict[int, list[int]]) -> StoredQueue:
    queue_id, vhost, name, spec = row
    lanes = lanes_of(spec)
    found = [live[lane] for lane in range(queue_id, queue_id + lanes) if lane in live]
    messages, size = sum(numbers[0] for numbers in found), sum(numbers[1] for numbers in found)
    oldest = min((numbers[2] for numbers in found if numbers[0] and numbers[2]), default=0)
    return StoredQueue(vhost, name, messages, size, oldest, queue_id, lanes, spec)


def lanes_of(spec: str) -> int:
    """Return how many ids a queue has: one for each priority."""
    declared = json.loads(spec)
    most = declared.get("max_priority", 0) if isinstance(declared, dict) else 0
    return (most if isinstance(most, int) else 0) + 1


def find_queue(connection: sqlite3.Connection, name: str, vhost: str | None) -> StoredQueue:
    """Return one queue.

    Raises:
        JournalError: there is none of that name, or (without a virtual host) several.
    """
    found = [queue for queue in queues_of(connection) if queue.name == name and vhost in (None, queue.vhost)]
    if not found:
        where = f" in virtual host {vhost!r}" if vhost is not None else ""
        raise JournalError(f"there is no durable queue {name!r}{where} in the journal")
    if len(found) > 1:
        raise JournalError(f"there is a queue {name!r} in {', '.join(repr(q.vhost) for q in found)}: say which by --vhost")
    return found[0]


# -- segments -----------------------------------------------------------------

StoredSegment = tuple[int, int, int, int, int, bytes, bytes, bytes]
"""id, n, refs, crc, committed_ms, idx, body, bits."""

SEGMENT = """
SELECT seg.id, n, refs, crc, committed_ms, idx, body, coalesce(bits, x'')
FROM seg LEFT JOIN segack ON segack.seg = seg.id WHERE seg.id = ?
"""


def live_slots(queues: Any, bits: bytes, lanes: frozenset[int] | set[int]) -> list[int]:
    """Return the references of these lanes that are not settled.

    Args:
        queues: the lane of each reference.
        lanes: those that have a row in segq for this segment; the bits of others mean nothing.
    """
    return [
        slot
        for slot, queue in enumerate(queues)
        if queue in lanes and not (slot >> 3 < len(bits) and bits[slot >> 3] & 1 << (slot & 7))
    ]
