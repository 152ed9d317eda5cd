"""What does a journal hold, seen from outside while its broker may be running?"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import JournalError
from gateway.journal.recovery import DATABASE, connect_to_read


@dataclass(frozen=True, slots=True)
class StoredQueue:
    """A durable queue as it is on disk: messages (ready and delivered, not settled) and the bytes of their bodies."""

    vhost: str
    name: str
    messages: int
    body_bytes: int


def stored_queues(directory: Path) -> list[StoredQueue]:
    """Return the durable queues of a data directory, by virtual host and name. Changes nothing.

    Raises:
        JournalError: there is no journal, or it can't be read.
    Cost: the number of queues and segments.
    """
    path = directory / DATABASE
    if not path.exists():
        raise JournalError(f"there is no journal in {directory}")
    try:
        with closing(connect_to_read(path)) as connection:
            rows = connection.execute("SELECT vhost, name, messages, body_bytes FROM depth ORDER BY vhost, name").fetchall()
    except sqlite3.Error as error:
        raise JournalError(f"{path} can't be read: {error}") from error
    return [StoredQueue(*row) for row in rows]
