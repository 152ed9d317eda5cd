"""How does a commit get onto the disk, once, whatever the disk says?"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeAlias

from gateway.errors import JournalError
from gateway.journal.checkpoints import Checkpoints
from gateway.journal.commit import Commit
from gateway.journal.counters import Counters, thread_meter
from gateway.journal.space import Space

Done: TypeAlias = Callable[[JournalError | None], None]

_STAYS_OPEN = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM}
"""What a connection survives. After anything else (EIO above all) it is closed and opened anew."""
WRITABLE, FAILING, READ_ONLY = "writable", "failing", "read-only"


class Writer:
    """The thread with the only connection that writes. One statement per commit: Python's lock is let go of once.

    Args:
        path: for messages.
        connect: opens the connection anew after an error.
        connection: the first one; the writer's from now on. It must not be the only one of the process: when the last one
            closes, SQLite reads the write-ahead log anew, and takes for good what a sync that failed has left there.
        checkpoints: told of every commit.
        space: told of every commit; asked for its ballast when the disk is full.
        refuse_after_s: after so long without a success the state is no longer ``failing``, but ``read-only``.

    Attributes:
        state: ``writable``, ``failing`` (the last attempt failed) or ``read-only`` (so did all others for `refuse_after_s`).
    """

    def __init__(  # noqa: PLR0913 - what it brings together
        self,
        path: str,
        connect: Callable[[], sqlite3.Connection],
        connection: sqlite3.Connection,
        counters: Counters,
        *,
        space: Space | None = None,
        checkpoints: Checkpoints | None = None,
        refuse_after_s: float = 5.0,
    ) -> None:
        self._path = path
        self._connect = connect
        self._connection: sqlite3.Connection | None = connection
        self._counters = counters
        self._space = space
        self._checkpoints = checkpoints
        self._refuse_after_s = refuse_after_s
        self._failing_since = 0.0
        self.state: str = WRITABLE
        self._jobs: SimpleQueue[tuple[Commit | None, Done] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="journal-writer", daemon=True)
        self._thread.start()

    def put(self, commit: Commit, done: Done) -> None:
        """Write a commit; `done` is called on the writer's thread."""
        self._jobs.put((commit, done))

    def look(self) -> None:
        """See whether checkpoints work, also if there is nothing to write."""
        self._jobs.put((None, _nothing))

    def stop(self) -> sqlite3.Connection | None:
        """Write what was put, end the thread, and return the connection, if there is one."""
        self._jobs.put(None)
        self._thread.join()
        connection, self._connection = self._connection, None
        return connection

    def _run(self) -> None:
        self._counters.meter = meter = thread_meter()
        while (job := self._jobs.get()) is not None:
            commit, done = job
            if commit is None:
                self._look()
                continue
            done(self._write(commit))
            if commit.settlement.landed:
                self._count_segments(commit)
                if commit.amendment is not None:
                    self._count_segments(commit.amendment)
            del job, commit, done  # not until the next one comes
        written = meter()
        self._counters.meter = lambda: written  # what the system knows of a thread ends with it

    def _write(self, commit: Commit) -> JournalError | None:
        started = time.perf_counter()
        while True:
            try:
                size = self._attempt(commit)
                break
            except Exception as error:  # the edge of the thread: whatever it was, the commit isn't on disk
                self._counters.failed_commits += 1
                self._drop_connection(error)
                if not self._makes_room(error):
                    return self._failed(error)
        self._landed(commit, time.perf_counter() - started)
        if commit.amendment is not None:
            self._landed(commit.amendment, time.perf_counter() - started)
        self._tell(size)
        return None

    def _attempt(self, commit: Commit) -> int:
        """Write a commit, unless it is there; return how many bytes it has."""
        if self._connection is None:
            self._connection = self._reopen()
        if commit.amendment is None:
            return self._execute(self._connection, commit)
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            size = self._execute(self._connection, commit) + self._execute(self._connection, commit.amendment)
            self._connection.execute("COMMIT")
        except sqlite3.Error:
            with suppress(sqlite3.Error):  # SQLite may have done so by itself
                self._connection.execute("ROLLBACK")
            raise
        return size

    def _execute(self, connection: sqlite3.Connection, commit: Commit) -> int:
        commit.attempts += 1
        statement, values = commit.statement(time.time_ns() // 1_000_000)
        if commit.attempts == 1 or not self._is_there(connection, commit):
            connection.execute(statement, values)
        return sum(len(value) for value in values if isinstance(value, bytes | str))

    def _makes_room(self, error: Exception) -> bool:
        """Give up the ballast on a full disk: then another attempt is worth it at once."""
        full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
        return full and self._space is not None and self._space.give_ballast()

    def _failed(self, error: Exception) -> JournalError:
        now = time.perf_counter()
        self._failing_since = self._failing_since or now
        self.state = READ_ONLY if now - self._failing_since >= self._refuse_after_s else FAILING
        return error if isinstance(error, JournalError) else JournalError(f"{self._path}: {error}")

    def _tell(self, size: int) -> None:
        if self._connection is None:
            return
        if self._checkpoints is not None:
            self._checkpoints.wrote(self._connection, size)
        if self._space is None:
            return
        try:
            self._space.wrote(self._connection, size)
        except sqlite3.Error as error:
            self._drop_connection(error)

    def _look(self) -> None:
        if self._connection is not None and self._checkpoints is not None:
            self._checkpoints.look(self._connection)

    def _landed(self, commit: Commit, seconds: float) -> None:
        counters = self._counters
        counters.last_commit_s = seconds
        counters.index_bytes += commit.index_bytes
        counters.segments_live += len(commit.segments) - commit.settlement.dead
        for segment in commit.segments:
            if segment.committed_ms:
                continue  # moved by compaction: counted when it was written first
            counters.messages_written += segment.messages
            counters.references_written += segment.references
            counters.body_bytes += segment.body_bytes
        commit.settlement.landed = True
        counters.commits += 1
        self._failing_since = 0.0
        self.state = WRITABLE

    def _drop_connection(self, error: Exception) -> None:
        code = getattr(error, "sqlite_errorcode", None)
        if self._connection is None or code is None or code & 0xFF in _STAYS_OPEN:
            return
        connection, self._connection = self._connection, None
        try:
            connection.close()
        except sqlite3.Error:
            return  # it is given up in any case

    def _reopen(self) -> sqlite3.Connection:
        """Open the journal again after an error, and see whether it is whole."""
        connection = self._connect()
        try:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        except BaseException:
            connection.close()
            raise
        if verdict != "ok":
            connection.close()
            raise JournalError(f"{self._path}: damaged: {verdict}")
        return connection

    @staticmethod
    def _is_there(connection: sqlite3.Connection, commit: Commit) -> bool:
        """Say whether an attempt that failed has landed all the same. Without segments a commit may as well be written twice."""
        if not commit.segments:
            return False
        # What was amended may have left only some of them.
        ids = (commit.segments[0].handle.id, commit.segments[-1].handle.id)
        return connection.execute("SELECT 1 FROM seg WHERE id BETWEEN ? AND ? LIMIT 1", ids).fetchone() is not None

    def _count_segments(self, commit: Commit) -> None:
        """Learn what became of segments that are not wholly known in memory. Nobody waits for this."""
        settlement = commit.settlement
        if self._connection is None or not (settlement.floors or settlement.doubtful):
            return
        try:
            if settlement.floors:
                query = "SELECT count(DISTINCT seg) FROM segq"
                (self._counters.segments_live,) = self._connection.execute(query).fetchone()
            else:
                query = "SELECT count(*) FROM seg WHERE id IN (SELECT value FROM json_each(?))"
                (left,) = self._connection.execute(query, (str(settlement.doubtful),)).fetchone()
                self._counters.segments_live -= len(settlement.doubtful) - left
        except sqlite3.Error as error:
            self._drop_connection(error)


def _nothing(_: JournalError | None) -> None:
    """Nobody waits for a look."""
