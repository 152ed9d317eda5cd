"""Does what is in the log get into the database, or does the log grow?"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from gateway.journal.counters import Counters

_PAGE_BYTES = 4096
_COMMIT_COST = 4 * _PAGE_BYTES
_MARGIN = 1 << 20
AGAIN_AFTER_S = 1.0
_SEQUENCE = slice(12, 16)


class Checkpoints:
    """Watches the log: SQLite makes checkpoints of its own accord, and says nothing to anybody if one fails.

    The commits go on meanwhile, each a little more of a log that never ends. Used on the writer's thread.

    Args:
        log: its path.
        pages: after so many pages SQLite makes a checkpoint.

    Attributes:
        alarm: why no message should be taken now; None: checkpoints work.
    """

    def __init__(self, log: Path, pages: int, counters: Counters) -> None:
        self._log = log
        self._counters = counters
        self._limit = 2 * pages * _PAGE_BYTES + _MARGIN
        self._unseen = 0
        self._again_at = 0.0
        self.alarm: str | None = None

    def wrote(self, connection: sqlite3.Connection, size: int) -> None:
        """A commit with so many bytes is on disk. Looks at the log only now and then."""
        self._unseen += size + _COMMIT_COST
        if self.alarm is not None or self._unseen >= self._limit // 2:
            self.look(connection)

    def look(self, connection: sqlite3.Connection) -> None:
        """If the log is larger than it should be, or was at the last look, see whether a checkpoint fails."""
        self._unseen = 0
        size = self._size()
        now = time.monotonic()
        if now < self._again_at if self.alarm is not None else size <= self._limit:
            return
        try:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            self._counters.failed_checkpoints += 1
            self._again_at = now + AGAIN_AFTER_S
            mib = f"{size / (1 << 20):,.1f} MiB"
            self.alarm = f"the journal's log has grown to {mib}, as it can't be brought into the database: {error}"
            return
        self.alarm = None
        self._limit = max(self._limit, 2 * size)  # one large commit, or somebody who reads for long: the file stays as large

    def restarts(self) -> int:
        """Return how often the log has begun anew, after a checkpoint of all of it, since the file was made."""
        try:
            with self._log.open("rb") as file:
                return int.from_bytes(file.read(32)[_SEQUENCE], "big")
        except OSError:
            return 0

    def _size(self) -> int:
        try:
            return self._log.stat().st_size
        except OSError:
            return 0
