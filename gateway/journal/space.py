"""Is there room for more messages, and for acknowledgements when there is none?"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import suppress
from pathlib import Path

from gateway.errors import JournalUnwritable

BALLAST = "journal.ballast"
DATABASE = "journal.db"
LOG = "journal.db-wal"
BALLAST_BYTES = 16 * 1024 * 1024
"""What the log holds between two checkpoints. On a full disk a checkpoint may have to add as much to the database; after it the
log begins anew where it is, and acknowledgements need no further room."""
BALLAST_PART = 16
"""The ballast takes at most this part of a small disk, and so does the log between two checkpoints."""
MIN_FREE_BYTES = 256 * 1024 * 1024
MIN_FREE_PART = 20
SMALLEST_MAX_BYTES = 16 * 1024 * 1024
"""A journal that may be no larger than this has a log of a quarter of it."""
_HEADROOM_PART = 16
_MOST_HEADROOM = 64 * 1024 * 1024
_HYSTERESIS_PART = 8
_LEAST_ROOM = 1024 * 1024
_LEAST_PART = 4
"""Free space (a part of the limit) that is wanted even where the database has free pages enough: a large commit makes the log
longer."""
_PAGE_BYTES = 4096
_FRAME_BYTES = _PAGE_BYTES + 24
_COMMIT_COST = 4 * _PAGE_BYTES
_CHUNK = 1 << 20
_CUT_EVERY_S = 10.0

_COUNT = "SELECT page_count, freelist_count FROM pragma_page_count, pragma_freelist_count"


def checkpoint_pages(wanted: int, max_bytes: int) -> int:
    """Return after how many pages of the log a checkpoint is due, so that a small journal's log is small too."""
    return min(wanted, max_bytes // 4 // _PAGE_BYTES) if max_bytes else wanted


class Space:
    """The room of a journal: a limit of free space, a cap on its size, and a ballast that is given up when the disk is full.

    Pages that were freed inside the database are room: they are counted, on the writer's thread. What the log will add to the
    database at its next checkpoint, and what it will grow until then, is room no more: what was confirmed is in the log alone, and
    acknowledgements need the checkpoint.

    Args:
        directory: the data directory.
        min_free_bytes: less free space on the disk raises the alarm; None: 256 MiB, or 5 % of a disk below 5 GiB; 0: no limit.
        max_bytes: database and log together may take so much; 0: no cap.
        ballast_bytes: the size of the ballast; less on a disk below 256 MiB; 0: none.

    Attributes:
        alarm: why no message should be taken now; None: there is room.
        low: the disk has too little free space (or had, and has not enough yet).
        used_bytes: of the database without its free pages, as counted last.
        free_bytes: of the disk, as looked at last.
    """

    def __init__(
        self,
        directory: Path,
        *,
        min_free_bytes: int | None = None,
        max_bytes: int = 0,
        ballast_bytes: int = BALLAST_BYTES,
    ) -> None:
        self._directory = directory
        self._ballast = directory / BALLAST
        self._database = directory / DATABASE
        self._log = directory / LOG
        self._log_bytes = 0
        self._pages_bytes = 0
        self._reserved = 0
        self._wanted_min_free = min_free_bytes
        self._wanted_ballast = ballast_bytes
        self._max_bytes = max_bytes
        self._headroom = min(max_bytes // _HEADROOM_PART, _MOST_HEADROOM)
        self._min_free = min_free_bytes or 0
        self._most_log_pages = 0
        self._ballast_bytes = ballast_bytes
        self._ballast_given = False
        self._judging = threading.Lock()
        self._written = 0
        self._slack = 0
        self._room = 0
        self._expected = 0
        self._uncounted = 0
        self._tight = False
        self._cut_at = -_CUT_EVERY_S
        self.low: bool = False
        self._capped = False
        self.alarm: str | None = None
        self.used_bytes: int = 0
        self.free_bytes: int = 0

    # -- life: on the main thread, before the writer runs ------------------------

    def take(self) -> None:
        """Learn how large the disk is. If it is full, give up the ballast of an earlier broker: opening the journal needs room.

        Raises:
            JournalUnwritable: the data directory can't be looked at.
        """
        try:
            total = self._look_at_disk()
        except OSError as error:
            raise JournalUnwritable(f"{self._directory}: {error.strerror}") from error
        if self._wanted_min_free is None:
            self._min_free = min(MIN_FREE_BYTES, total // MIN_FREE_PART)
        self._most_log_pages = total // BALLAST_PART // _PAGE_BYTES
        self._ballast_bytes = min(self._wanted_ballast, self._most_log_pages * _PAGE_BYTES)
        if self.free_bytes < self._ballast_bytes and self._size_of(self._ballast):
            self.give_ballast()

    def log_pages(self, wanted: int) -> int:
        """Return after how many pages of the log a checkpoint is due: fewer on a small disk. After `take`."""
        pages = max(min(wanted, self._most_log_pages), 1)
        self._log_bytes = pages * _FRAME_BYTES
        return pages

    def begin(self, connection: sqlite3.Connection) -> None:
        """Make the ballast if there is room, and see how things stand."""
        if not self._ballast_bytes:
            self._ballast.unlink(missing_ok=True)
        self._restore_ballast()
        with suppress(sqlite3.Error):  # the first commit will tell
            self._count(connection)
        self.look()

    def end(self, freed_bytes: int) -> None:
        """The log is gone, and so many bytes with it. On a full disk they become ballast: the next start needs some room."""
        if freed_bytes and self._ballast_given and not self._size_of(self._ballast):
            with suppress(OSError):
                self._look_at_disk()
                _allocate(self._ballast, min(self._ballast_bytes, freed_bytes, self.free_bytes))

    # -- the main thread ---------------------------------------------------------

    def look(self) -> None:
        """See how much room there is. Cost: two system calls."""
        if self._judging.acquire(blocking=False):  # else the writer is doing just this
            try:
                with suppress(OSError):
                    self._look_at_disk()
                self._judge()
            finally:
                self._judging.release()

    def expect(self, size: int) -> None:
        """A commit with so many bytes is handed over. If disk or cap may not hold it, the alarm is there before more is taken in.

        They are written twice: to the log, and to the database. Cost: a comparison; near a limit a lock and three system calls.
        """
        if 2 * size + self._uncounted >= self._room:
            with self._judging:
                self._expected = 2 * size
                with suppress(OSError):
                    self._look_at_disk()
                self._judge()

    # -- the writer's thread -----------------------------------------------------

    def wrote(self, connection: sqlite3.Connection, size: int) -> None:
        """A commit with so many bytes is on disk. Looks and counts only if it may matter. Raises sqlite3.Error."""
        self._written += size + _COMMIT_COST
        self._uncounted += size
        self._expected = 0
        if self.alarm is None and not self._ballast_given and self._written < self._slack:
            return
        self._count(connection)
        with self._judging:
            with suppress(OSError):
                self._look_at_disk()
            self._judge()
        self._restore_ballast()

    def give_ballast(self) -> bool:
        """The disk is full: make room for what was taken in before. False: there is no ballast left."""
        try:
            given = self._size_of(self._ballast) > 0
            if given:
                os.truncate(self._ballast, 0)
        except OSError:
            return False
        if given:
            self._ballast_given = True
            self.look()
        return given

    def _restore_ballast(self) -> None:
        """Make the ballast again, if after that there is still more free space than the limit wants."""
        missing = self._ballast_bytes - self._size_of(self._ballast)
        if missing <= 0 or self.free_bytes < self._enough() + missing + missing // _HYSTERESIS_PART:
            return
        try:
            _allocate(self._ballast, self._ballast_bytes)
        except OSError:
            with suppress(OSError):
                os.truncate(self._ballast, 0)
            return
        self.free_bytes -= missing
        self._ballast_given = False

    # -- what is looked at, and what it means ----------------------------------

    def _look_at_disk(self) -> int:
        """Return the size of the disk."""
        disk = os.statvfs(self._directory)
        self.free_bytes = disk.f_bavail * disk.f_frsize
        return disk.f_blocks * disk.f_frsize

    def _count(self, connection: sqlite3.Connection) -> None:
        pages, free_pages = connection.execute(_COUNT).fetchone()
        self._pages_bytes = pages * _PAGE_BYTES
        self.used_bytes = (pages - free_pages) * _PAGE_BYTES
        self._uncounted = 0
        if not self._max_bytes:
            return
        now = time.monotonic()
        if self._size_of(self._log) > self._max_bytes // 3 and now - self._cut_at > _CUT_EVERY_S:
            self._cut_at = now  # one large commit has made the log large, and it would stay so
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _enough(self) -> int:
        """Return how much free space ends the alarm; a ballast that was given up must have room beside it."""
        return self._min_free + self._min_free // _HYSTERESIS_PART

    def _clear_at(self) -> int:
        return self._enough() + (self._ballast_bytes + self._ballast_bytes // _HYSTERESIS_PART if self._ballast_given else 0)

    def _reserve(self, log_bytes: int) -> int:
        """Return what acknowledgements need to go on: the rest of the log, and what its checkpoint adds to the database."""
        if not self._min_free:
            return 0
        owed = max(self._pages_bytes - self._size_of(self._database), 0)
        return owed + max(self._log_bytes - log_bytes, 0)

    def _judge(self) -> None:
        """Set the alarm. It ends only when there is an eighth more room than it takes to raise it."""
        log_bytes = self._size_of(self._log)
        self._written = 0
        on_disk = self._judge_disk(log_bytes)
        used = self.used_bytes + log_bytes if self._max_bytes else 0
        cap = self._max_bytes - self._headroom
        self._capped = bool(cap) and used >= (cap - cap // _HYSTERESIS_PART if self._capped else cap)
        room = cap - used if cap else on_disk
        self._room = min(room, on_disk)
        self._tight = bool(cap) and self._expected > 0 and self._expected + self._uncounted >= room
        self._slack = self._room // 4
        self.alarm = self._text(used)

    def _judge_disk(self, log_bytes: int) -> int:
        """Set `low`; return how much may be written until it is."""
        self._reserved = self._reserve(log_bytes)
        room = self.free_bytes - self._reserved
        inside = self._pages_bytes - self.used_bytes
        least = min(self._min_free // _LEAST_PART, _LEAST_ROOM)
        coming = self._expected + self._uncounted if self._expected and self._min_free else 0
        limit = self._clear_at() if self.low or self._ballast_given else self._min_free
        if self.low:
            least += least // _HYSTERESIS_PART
        self.low = room + inside - coming < limit or room - coming // 2 < least
        return min(room + inside - self._min_free, 2 * (room - least))

    def _text(self, used: int) -> str | None:
        if self._capped or self._tight:
            return f"the journal is full: {_mib(used)} in use, and journal.max_bytes allows {_mib(self._max_bytes)}"
        if not self.low:
            return None
        found = f"too little free space: {_mib(self.free_bytes)} on the disk of {self._directory}"
        if self._reserved:
            found += f", the journal's log needs {_mib(self._reserved)} of it"
        if self.free_bytes - self._reserved < self._min_free:
            return f"{found}, and journal.min_free_bytes wants {_mib(self._min_free)}"
        return (
            f"{found}; durable messages are taken again from {_mib(self._clear_at() + self._reserved)} on "
            "(journal.min_free_bytes and journal.ballast_bytes)"
        )

    @staticmethod
    def _size_of(path: Path) -> int:
        try:
            return path.stat().st_size
        except OSError:
            return 0


def _allocate(path: Path, size: int) -> None:
    """Make a file of real blocks. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, size)
        else:
            for at in range(os.fstat(fd).st_size, size, _CHUNK):
                os.pwrite(fd, os.urandom(min(_CHUNK, size - at)), at)  # what can't be compressed away
    finally:
        os.close(fd)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB"
