"""How does a copy of a journal come about, whole and of one moment, while the broker goes on writing?

Segments are written once and deleted whole, so most of a journal can be copied in many short reads; only what was written since
is copied in the one read that fixes the moment. A checkpoint of the running broker never waits longer than for one of them.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from gateway.errors import JournalError
from gateway.journal.tools.check import findings
from gateway.journal.tools.files import draft_of, drafted, make_private, refuse_occupied
from gateway.journal.tools.inspection import check_header, check_undisturbed, how_to_read, reading

STEP_BYTES = 4 << 20
"""So much is copied in one read."""
SMALL_BYTES = 8 << 20
"""So much may be missing when the moment is fixed."""
_MOST_PASSES = 8

_MISSING = """
SELECT id, length(idx) + length(body) FROM source.seg AS theirs WHERE NOT EXISTS
  (SELECT 1 FROM main.seg AS ours WHERE ours.id = theirs.id AND ours.crc = theirs.crc AND ours.committed_ms = theirs.committed_ms)
ORDER BY id
"""
_NOT_THEIRS = """
DELETE FROM main.seg WHERE NOT EXISTS (SELECT 1 FROM source.seg AS theirs
  WHERE theirs.id = seg.id AND theirs.crc = seg.crc AND theirs.committed_ms = seg.committed_ms)
"""
_TABLES = "SELECT name FROM source.sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> 'seg'"


def copy_journal(source: Path, target: Path, *, pause_s: float = 0.0, progress: Callable[[int], None] | None = None) -> None:
    """Write a whole copy of a journal, as it is at one moment near the end; `target` is replaced once the copy is proven good.

    Args:
        pause_s: rest after each step, to spare the disk.
        progress: told of the bytes of segments that were copied so far.

    Raises:
        JournalError: the source can't be read, or the copy is not whole; what was at `target` is still there.
        JournalUnwritable: the target can't be written, or is part of a journal that somebody may use.
    Cost: reads and writes as much as is in use, and reads the copy once more.
    """
    check_header(source)
    refuse_occupied(target)
    draft = draft_of(target)
    with drafted(draft, target):
        make_private(draft)
        _fill(source, draft, pause_s, progress or _unheard)
        prove(draft)


def _fill(source: Path, draft: Path, pause_s: float, progress: Callable[[int], None]) -> None:
    how = how_to_read(source)
    try:
        with closing(sqlite3.connect(f"file:{quote(str(draft.absolute()))}", uri=True, isolation_level=None)) as connection:
            for pragma in ("page_size = 4096", "journal_mode = OFF", "synchronous = OFF", "cache_size = -16000"):
                connection.execute(f"PRAGMA {pragma}").fetchall()
            uri = f"file:{quote(str(source.absolute()))}?mode=ro{'&' if how.options else ''}{how.options}"
            if how.has_no_index:  # before it is opened, so that its log's index is kept in memory
                connection.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
            connection.execute("ATTACH ? AS source", (uri,))
            _make_tables(connection)
            copied = 0
            for _ in range(_MOST_PASSES):
                missing = connection.execute(_MISSING).fetchall()
                if sum(size for _, size in missing) <= SMALL_BYTES:
                    break
                copied = _copy_segments(connection, missing, copied, pause_s, progress)
            _fix_the_moment(connection)
        check_undisturbed(source, how)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise JournalError(f"{source} can't be copied: {error}") from error


def _make_tables(connection: sqlite3.Connection) -> None:
    """Make the source's schema, tables first. Indexes and what is for commits come with it."""
    query = "SELECT sql FROM source.sqlite_schema WHERE sql IS NOT NULL ORDER BY type = 'trigger', type = 'view', type = 'index'"
    for (sql,) in connection.execute(query).fetchall():
        connection.execute(sql)
    for pragma in ("application_id", "user_version"):
        (value,) = connection.execute(f"PRAGMA source.{pragma}").fetchone()
        connection.execute(f"PRAGMA main.{pragma} = {value}")


def _copy_segments(
    connection: sqlite3.Connection, missing: list[tuple[int, int]], copied: int, pause_s: float, progress: Callable[[int], None]
) -> int:
    step: list[int] = []
    size = 0
    for number, (segment, segment_bytes) in enumerate(missing, 1):
        step.append(segment)
        size += segment_bytes
        if size >= STEP_BYTES or number == len(missing):
            _insert(connection, step)
            copied += size
            progress(copied)
            step, size = [], 0
            if pause_s:
                time.sleep(pause_s)
    return copied


def _insert(connection: sqlite3.Connection, segments: list[int]) -> None:
    names = ",".join(map(str, segments))
    connection.execute(f"INSERT OR REPLACE INTO main.seg SELECT * FROM source.seg WHERE id IN ({names})")  # noqa: S608 - integers


def _fix_the_moment(connection: sqlite3.Connection) -> None:
    """Copy the rest as of one moment; segments that went meanwhile go here too."""
    connection.execute("BEGIN")
    missing = connection.execute(_MISSING).fetchall()
    connection.execute(_NOT_THEIRS)
    _insert(connection, [segment for segment, _ in missing])
    for (table,) in connection.execute(_TABLES).fetchall():
        connection.execute(f'DELETE FROM main."{table}"')  # noqa: S608 - a name of our own schema
        connection.execute(f'INSERT INTO main."{table}" SELECT * FROM source."{table}"')  # noqa: S608
    connection.execute("UPDATE main.meta SET value = 1 WHERE key = 'clean'")
    connection.execute("COMMIT")


def prove(path: Path) -> None:
    """See that a journal is whole.

    Raises:
        JournalError: it is not; says what was found first.
    """
    with reading(path) as connection:
        problems = [problem for problem in findings(connection) if "is in quarantine" not in problem]
    if problems:
        raise JournalError(f"{path} is not whole: {problems[0]}" + (f" (and {len(problems) - 1} more)" if problems[1:] else ""))


def _unheard(copied: int) -> None:
    pass
