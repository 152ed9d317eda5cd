"""How does a journal that holds little become a small file?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gateway.errors import JournalError, JournalUnwritable
from gateway.journal.tools.backup import copy_journal
from gateway.journal.tools.files import sync
from gateway.journal.tools.inspection import journal_in
from gateway.journal.tools.restore import fold_log_in, taken
from gateway.journal.tools.rewrite import rewrite


@dataclass(frozen=True, slots=True)
class Compacted:
    """What a compaction did: the bytes of database and log before, of the database after, and segments before and after."""

    before_bytes: int
    after_bytes: int
    segments_before: int
    segments_after: int


def compact(directory: Path) -> Compacted:
    """Write the journal of a data directory anew, without what is settled and without free pages, and put it in its place.

    The old file stays until the new one is proven whole and on the disk.

    Raises:
        JournalLocked: a broker runs there.
        JournalError: there is no journal, or it is not whole: nothing was changed.
        JournalUnwritable: it can't be written (a full disk): nothing was changed.
    """
    path = journal_in(directory)
    draft = directory / f".{path.name}.compact"
    log = path.with_name(f"{path.name}-wal")
    with taken(directory):
        before = path.stat().st_size + (log.stat().st_size if log.exists() else 0)
        try:
            copy_journal(path, draft)
            counted = rewrite(draft)
            _replace(draft, path)
        except OSError as error:
            raise JournalUnwritable(f"{path} can't be written: {error.strerror or error}") from error
        finally:
            draft.unlink(missing_ok=True)
        return Compacted(before, path.stat().st_size, *counted)


def _replace(draft: Path, path: Path) -> None:
    """Let the new file take the old one's place. The old log must go first: it would be taken for the new file's."""
    sync(draft)
    fold_log_in(path)
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        raise JournalError(f"{log} can't be written into the database: nothing was changed")
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    draft.replace(path)
    sync(path.parent)
