"""How does a file come about at once, or not at all, and without anything getting lost by it?"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gateway.errors import JournalUnwritable
from gateway.journal.recovery import DATABASE, LOCK
from gateway.journal.space import BALLAST

_PRIVATE = 0o600
_DRAFT = ".part"
_OF_A_JOURNAL = frozenset((DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", LOCK, BALLAST))


@contextmanager
def drafted(draft: Path, target: Path) -> Iterator[None]:
    """Let a file that is written under another name become `target` when all of it is there; else nothing is left of it.

    Raises:
        JournalUnwritable: one of them can't be written.
    """
    try:
        yield
        put_in_place(draft, target)
    except OSError as error:
        raise JournalUnwritable(f"{target} can't be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            draft.unlink()


def refuse_occupied(target: Path) -> None:
    """See that a file may take this name, and nothing gets lost by it but an older file of the same kind.

    Raises:
        JournalUnwritable: it belongs to a data directory's journal, has a log of its own, or is no file (a device, a directory).
    """
    if target.exists() and not target.is_file():
        raise JournalUnwritable(f"{target} is no file: choose another name")
    if target.name in _OF_A_JOURNAL and (target.parent / LOCK).exists():
        raise JournalUnwritable(f"{target} belongs to the journal of {target.parent}: choose another name")
    log = target.with_name(f"{target.name}-wal")
    if log.exists() and log.stat().st_size:
        raise JournalUnwritable(f"{target} is in use, or was not closed in order: {log.name} belongs to it; choose another name")


def draft_of(target: Path) -> Path:
    """Return the name of the file that will become `target`; drafts that killed processes left behind are removed."""
    name = re.compile(rf"{re.escape(f'.{target.name}.')}(\d+){re.escape(_DRAFT)}")
    with suppress(OSError):
        for path in target.parent.iterdir():
            match = name.fullmatch(path.name)
            if match is not None and not _lives(int(match[1])):
                path.unlink(missing_ok=True)
    return target.with_name(f".{target.name}.{os.getpid()}{_DRAFT}")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True


def make_private(path: Path) -> None:
    """Make an empty file for this user alone. Raises OSError."""
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE))


def put_in_place(draft: Path, target: Path) -> None:
    """Let a finished file take its name, at once and for good. Raises OSError."""
    sync(draft)
    draft.replace(target)
    sync(target.parent)


def sync(path: Path) -> None:
    """Have a file or directory on the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
