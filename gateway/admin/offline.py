"""How is what a journal defines read, and changed, while no broker runs on it?"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.admin.trial import Nobody
from gateway.config import Limits
from gateway.engine.engine import Engine
from gateway.errors import JournalError
from gateway.journal.definitions import load_records
from gateway.journal.recovery import DATABASE
from gateway.journal.sqlite import SqliteJournal
from gateway.journal.tools.inspection import reading
from gateway.model.properties import NO_PROPERTIES
from gateway.model.records import Scheduled
from gateway.runtime.bounds import Bounds

_PATIENCE_S = 60.0


def read_engine(directory: Path, *, limits: Limits | None = None, may_lack: bool = False) -> Engine:
    """Return an engine with what a journal defines; nothing is changed, and a broker may be running on it.

    Args:
        limits: how much may be declared in it; None: no limit.
        may_lack: a directory without a journal defines nothing.

    Raises:
        JournalError: there is no journal, or it can't be read.
    """
    engine = new_engine(limits)
    if may_lack and not (directory / DATABASE).exists():
        return engine
    with reading(directory / DATABASE) as connection:
        for record in load_records(connection, _pass_over):
            if not isinstance(record, Scheduled):
                engine.replay(record)
    return engine


@contextmanager
def changed_engine(directory: Path, limits: Limits | None = None) -> Iterator[Engine]:
    """Open a journal, give an engine with what it defines, and at the end write what was changed; after an error, nothing.

    Raises:
        JournalLocked: a broker runs on it. JournalUnwritable, JournalError: it can't be opened or written.
    """
    journal = SqliteJournal(directory.absolute())
    journal.open()
    try:
        engine = new_engine(limits)
        for record in journal.load():
            engine.replay(record)
        yield engine
        _write(journal, engine)
    finally:
        journal.close(clean=True)


def new_engine(limits: Limits | None) -> Engine:
    """Return an engine in which nothing is defined, and as much may be as the limits say."""
    engine = Engine(Nobody(), lambda _: NO_PROPERTIES)
    if limits is not None:
        engine.definitions.bounds = Bounds(engine, limits)
    return engine


def _write(journal: SqliteJournal, engine: Engine) -> None:
    commit = journal.prepare(engine.take_batch())
    if commit is None:
        return
    failures: list[JournalError | None] = []
    written = threading.Event()

    def done(error: JournalError | None) -> None:
        failures.append(error)
        written.set()

    journal.write(commit, done)
    if not written.wait(_PATIENCE_S):
        raise JournalError("the journal could not be written in a minute: nothing may have changed")
    if failures[0] is not None:
        raise failures[0]


def _pass_over(_: str) -> None:
    """Damage of last values is no matter here."""
