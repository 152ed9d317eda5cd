"""A broker that lies: it sends PUBACKs before the commit (to show that the test for that can fail).

Run as ``python -m tests.interop.liar serve ...``.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from gateway.cli import main
from gateway.errors import JournalError
from gateway.journal.commit import Commit
from gateway.journal.writer import Done, Writer

WRITE_TAKES_S = 0.2


def lie() -> None:
    """Say of a commit that it is on disk when it is handed over, and let the disk be slow."""
    honest_put: Callable[[Writer, Commit, Done], None] = Writer.put
    honest_write: Callable[[Writer, Commit], JournalError | None] = Writer._write

    def put(writer: Writer, commit: Commit, done: Done) -> None:
        done(None)
        honest_put(writer, commit, _nobody)

    def write(writer: Writer, commit: Commit) -> JournalError | None:
        time.sleep(WRITE_TAKES_S)
        return honest_write(writer, commit)

    Writer.put = put  # type: ignore[method-assign]
    Writer._write = write  # type: ignore[method-assign]


def _nobody(error: JournalError | None) -> None:
    """Has been told already."""


if __name__ == "__main__":
    lie()
    main()
