"""How is a data directory taken, and its journal opened?"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from gateway.errors import JournalError, JournalLocked, JournalUnwritable
from gateway.journal.columns import SUPPORTED
from gateway.journal.migrate import APPLICATION_ID, bring_up_to_date

DATABASE = "journal.db"
LOCK = "journal.lock"
OLDEST_SQLITE = (3, 38, 0)
SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")
_BUSY_TIMEOUT_S = 5.0


def check_platform() -> None:
    """Raise JournalError if SQLite or the machine can't do what the journal needs."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        oldest = ".".join(map(str, OLDEST_SQLITE))
        raise JournalError(f"the journal needs SQLite {oldest} or later; this Python has {sqlite3.sqlite_version}")
    if not SUPPORTED:
        raise JournalError("the journal needs a little-endian machine (x86-64 or arm64)")


class DirectoryLock:
    """The right to a data directory, as long as this process lives or until it is released.

    Two locks: on a file, which names the process, and on the directory itself, should the file be removed meanwhile.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / LOCK
        self._fds: list[int] = []

    def acquire(self) -> None:
        """Take it.

        Raises:
            JournalLocked: another process has it; the text names it.
            JournalUnwritable: the lock file can't be written.
        """
        try:
            self._take()
        except BlockingIOError as error:
            holder = self._holder()
            self.release()
            raise JournalLocked(f"{self._directory} is in use by another broker, process {holder}") from error
        except OSError as error:
            self.release()
            raise JournalUnwritable(f"{self._path} can't be written or locked: {error.strerror}") from error

    def _take(self) -> None:
        fd = self._open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # a file system that can't lock directories (NFS): the file has to do
            pass
        fd = self._open(self._path, os.O_RDWR | os.O_CREAT)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)

    def _open(self, path: Path, flags: int) -> int:
        self._fds.append(os.open(path, flags | os.O_CLOEXEC, 0o600))
        return self._fds[-1]

    def _holder(self) -> str:
        try:
            return self._path.read_text(errors="replace").strip() or "unknown"
        except OSError:
            return "unknown"

    def release(self) -> None:
        """Let go of it. The file stays: removing it would let two brokers in at once."""
        while self._fds:
            os.close(self._fds.pop())


def make_directory(directory: Path) -> None:
    """Make the data directory and an empty database, for this user alone, if they aren't there.

    Raises:
        JournalUnwritable: they can't be made.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise JournalUnwritable(f"the data directory {directory} can't be made: {error.strerror}") from error


def make_database(path: Path) -> None:
    """Make an empty database file, for this user alone. Raises JournalUnwritable."""
    if path.exists() and not path.is_file():  # opening a FIFO would wait for who writes to it
        raise JournalUnwritable(f"{path} can't be written: it is no file")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise JournalUnwritable(f"{path} can't be written: {error.strerror}") from error


def connect(path: Path, *, synchronous: str, wal_autocheckpoint: int) -> sqlite3.Connection:
    """Open the connection that writes. Raises sqlite3.Error, or JournalError if the file system is not up to it."""
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        _configure(connection, path, synchronous, wal_autocheckpoint)
    except BaseException:
        connection.close()
        raise
    return connection


def _configure(connection: sqlite3.Connection, path: Path, synchronous: str, wal_autocheckpoint: int) -> None:
    for pragma in (
        "page_size = 4096",
        "auto_vacuum = NONE",
        "journal_mode = WAL",
        f"synchronous = {synchronous}",
        "secure_delete = OFF",
        f"wal_autocheckpoint = {wal_autocheckpoint}",
        "journal_size_limit = -1",
        "cache_size = -16000",
        "temp_store = MEMORY",
        *(
            ("fullfsync = ON", "checkpoint_fullfsync = ON") if sys.platform == "darwin" else ()
        ),  # there fsync leaves it in the drive
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    if mode != "wal":
        raise JournalError(f"{path}: this file system has no write-ahead log (journal_mode is {mode})")


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Open a connection that can't write."""
    uri = f"file:{quote(str(path))}?mode=ro"
    connection = sqlite3.connect(uri, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, uri=True)
    connection.text_factory = _text
    try:
        connection.execute("PRAGMA cache_size = -2000")
        connection.execute("SELECT 1 FROM meta").fetchall()  # from now on it shares the index of the write-ahead log
    except BaseException:
        connection.close()
        raise
    return connection


def _refuse_another_programs(path: Path) -> None:
    """Look whose file it is before anything is changed in it, by the header (SQLite's file format, §1.3).

    A file that is empty, or has one page and no application id, is a journal whose making was cut off: but not if it has a log.

    Raises:
        JournalError: it is a database of another program, or an empty file where a journal was.
    """
    with path.open("rb") as file:
        header = file.read(100)
    log = path.with_name(f"{path.name}-wal")
    if not header and log.exists() and log.stat().st_size:
        raise JournalError(f"{path} is empty, but its log {log.name} is not: the database was cut off; keep a copy of both")
    pages, application_id = header[28:32], header[68:72]
    begun = not header or (pages in (bytes(4), b"\0\0\0\1") and application_id == bytes(4))
    if header.startswith(b"SQLite format 3\0") and not begun and application_id != APPLICATION_ID.to_bytes(4, "big"):
        raise JournalError(f"{path} is an SQLite database, but not a journal of Tidegate")


@dataclass(frozen=True, slots=True)
class OpenDatabase:
    """A journal in use.

    Args:
        connection: the one that writes.
        anchor: a second one, that stays open as long as the journal does (see `Writer`).
        last_segment: the highest id of a segment.
        segments: how many are in use.
        clean: the last broker closed it in order.
    """

    connection: sqlite3.Connection
    anchor: sqlite3.Connection
    last_segment: int
    segments: int
    clean: bool


def open_database(
    path: Path, *, synchronous: str, wal_autocheckpoint: int, make_room: Callable[[], bool] = lambda: False
) -> OpenDatabase:
    """Open a journal, check it if the last broker didn't close it in order, and mark it as in use.

    Cost: after an unclean end, reading the whole file.

    Args:
        make_room: called when the disk is full; True: there is more room now.

    Raises:
        JournalUnwritable, JournalError: as `port.Journal.open`.
    """
    while True:
        try:
            return _open_database(path, synchronous, wal_autocheckpoint, make_room)
        except JournalUnwritable as error:
            if not is_full(error.__cause__) or not make_room():
                raise


def is_full(error: BaseException | None) -> bool:
    """Say whether an error is that of a full disk (SQLite's own, or that of the index of its log)."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE or getattr(error, "errno", 0) == errno.ENOSPC


def _open_database(path: Path, synchronous: str, wal_autocheckpoint: int, make_room: Callable[[], bool]) -> OpenDatabase:
    make_database(path)
    _refuse_another_programs(path)
    connection = None
    try:
        connection = connect(path, synchronous=synchronous, wal_autocheckpoint=wal_autocheckpoint)
        bring_up_to_date(connection, str(path))
        clean = _check(connection, path, make_room)
        _mark_in_use(connection, make_room, clean=clean)
        (last_segment,) = connection.execute("SELECT coalesce(max(id), 0) FROM seg").fetchone()
        (segments,) = connection.execute("SELECT count(DISTINCT seg) FROM segq").fetchone()
        return OpenDatabase(connection, connect_to_read(path), last_segment, segments, clean)
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.Error | ValueError):  # ValueError: SQLite quotes a damaged schema that is no UTF-8
            raise _opening_failed(path, error) from error
        raise


def _check(connection: sqlite3.Connection, path: Path, make_room: Callable[[], bool]) -> bool:
    """Say whether the last broker closed the journal in order. If not, see whether it is whole: JournalError if it isn't."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'clean'").fetchone()
    if row == (1,):
        return True
    # What a sync that failed has left in the log may not be on disk, though it can be read: into the file with all of it.
    _checkpoint(connection, "TRUNCATE", make_room)
    verdicts = [verdict for (verdict,) in connection.execute("PRAGMA quick_check(5)")]
    if verdicts != ["ok"]:
        raise JournalError(f"{path} is damaged; keep a copy of it. SQLite says: {'; '.join(verdicts)}")
    return False


def _checkpoint(connection: sqlite3.Connection, mode: str, make_room: Callable[[], bool]) -> None:
    """Bring the log into the database. If the disk has no room for that, the log stays, and can be read as well."""
    while True:
        try:
            connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
        except sqlite3.Error as error:
            if not is_full(error):
                raise
            if make_room():
                continue
        return


def close_database(connection: sqlite3.Connection, path: Path, *, clean: bool, make_room: Callable[[], bool]) -> int:
    """Close the last connection that writes; at a clean end with the log in the database. `make_room`: see `open_database`.

    Returns how many bytes the log had that is empty now.

    Raises:
        sqlite3.Error: it is closed, but not in order.
    """
    log = path.with_name(f"{path.name}-wal")
    with closing(connection):
        while clean:
            try:
                connection.execute("UPDATE meta SET value = 1 WHERE key = 'clean'")
                log_bytes = log.stat().st_size
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except sqlite3.Error as error:
                if is_full(error) and make_room():
                    continue
                raise
            return log_bytes
    return 0


def _mark_in_use(connection: sqlite3.Connection, make_room: Callable[[], bool], *, clean: bool) -> None:
    """Write that the journal is in use, unless it says so: on a disk without room for that a journal can still be emptied."""
    if clean:
        connection.execute("UPDATE meta SET value = 0 WHERE key = 'clean'")
    _checkpoint(connection, "PASSIVE", make_room)  # so that the file says it too, should its log get lost


def _opening_failed(path: Path, error: Exception) -> JournalError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if is_full(error):
        return JournalUnwritable(f"{path}: the disk is full, and not even opening it can be written down: make 1 MiB of room there")
    if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}:
        return JournalUnwritable(f"{path} can't be written: {error}")
    if code == sqlite3.SQLITE_BUSY:
        return JournalError(f"{path} is held by another program: {error}")
    return JournalError(f"{path} can't be opened: {error}")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")
