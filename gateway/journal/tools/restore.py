"""How does a backup become the journal of a data directory again?"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from gateway.errors import JournalError
from gateway.journal.recovery import DATABASE, LOCK, DirectoryLock, make_directory
from gateway.journal.space import BALLAST
from gateway.journal.tools.backup import copy_journal, prove
from gateway.journal.tools.files import drafted, sync
from gateway.journal.tools.inspection import check_header

_BESIDE = ("-wal", "-shm")
_HOLDS_NOTHING = frozenset((LOCK, BALLAST, f".{DATABASE}.restoring", "control.sock", "control.path"))
"""What may be in a directory that is empty as far as messages go."""


@contextmanager
def taken(directory: Path) -> Iterator[None]:
    """Hold a data directory, so that no broker can start there.

    Raises:
        JournalLocked: a broker runs there. JournalUnwritable: it can't be written.
    """
    lock = DirectoryLock(directory)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def restore(backup: Path, directory: Path, *, force: bool = False) -> Path | None:
    """Make a backup the journal of a data directory; return where the old journal went, if there was one.

    Args:
        force: a journal that is there is put aside (never deleted); without it that is an error.

    Raises:
        JournalLocked: a broker runs there.
        JournalError: the backup is not whole, or the directory has a journal already.
        JournalUnwritable: it can't be written.
    """
    check_header(backup)
    prove(backup)
    make_directory(directory)
    with taken(directory):
        target = directory / DATABASE
        if not force:
            _refuse_full(directory)
        draft = directory / f".{DATABASE}.restoring"
        with drafted(draft, target):
            copy_journal(backup, draft)  # with what is in its log only, if it wasn't closed in order
            aside = put_aside(target, "before-restore") if target.exists() else None
    return aside


def _refuse_full(directory: Path) -> None:
    others = sorted(path.name for path in directory.iterdir() if not _holds_nothing(path.name))
    if others:
        raise JournalError(f"{directory} is not empty ({', '.join(others[:4])}): --force puts a journal that is there aside")


def _holds_nothing(name: str) -> bool:
    return name in _HOLDS_NOTHING or name.startswith(f"..{DATABASE}.")  # a draft of a process that was killed


def put_aside(path: Path, why: str, *, fold: bool = True) -> Path:
    """Give a journal another name beside the old one, which stays until it is replaced.

    A log that was left beside another database would be taken for its own: it is written into its own first (`fold`), or goes
    aside with it.
    """
    if fold:
        fold_log_in(path)
    aside = _free_name(path, why)
    beside = [path.with_name(path.name + suffix) for suffix in _BESIDE]
    logs = [log for log in beside if log.exists()]
    for file in (path, *logs):  # all of it is there twice before the first name goes
        os.link(file, aside.with_name(aside.name + file.name.removeprefix(path.name)))
    sync(path.parent)
    for log in logs:
        log.unlink()
    sync(path.parent)
    return aside


def _free_name(path: Path, why: str) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    names = (f"{path.name}.{why}-{stamp}{'' if not n else f'-{n}'}" for n in range(1000))
    return next(path.with_name(name) for name in names if not path.with_name(name).exists())


def fold_log_in(path: Path) -> None:
    """Have the log written into the database and removed, if SQLite can; a broken journal keeps its log."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
