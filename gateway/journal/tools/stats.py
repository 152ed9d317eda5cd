"""How large is a journal, and what takes the room?"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from gateway.journal.tools.inspection import StoredQueue, queues_of


@dataclass(frozen=True, slots=True)
class Stats:
    """Sizes in bytes.

    Args:
        references, live: places in queues that the segments hold, and those that are not settled yet.
        segment_bytes: of all segments, index and bodies; `live_bytes`: of bodies in queues, counted once for each queue.
        free_bytes: of pages inside the file that are used again before it grows.
        clean: the last broker closed it in order (or none has written since).
        largest: queues with the most bytes, first.
    """

    format: int
    file_bytes: int
    wal_bytes: int
    free_bytes: int
    segments: int
    segment_bytes: int
    index_bytes: int
    messages: int
    references: int
    live: int
    live_bytes: int
    quarantined: int
    queues: int
    retained: int
    states: int
    clean: bool
    largest: list[StoredQueue]

    @property
    def live_share(self) -> float:
        """How much of what the segments hold is still wanted; 1.0 of nothing."""
        return self.live / self.references if self.references else 1.0


def stats(connection: sqlite3.Connection, path: Path, largest: int = 10) -> Stats:
    """Measure a journal. Cost: one pass over segments' rows, without their bodies."""

    def one(query: str) -> tuple[int, ...]:
        row: tuple[int, ...] = connection.execute(query).fetchone()
        return row

    segments, messages, references, index_bytes, body_bytes = one(
        "SELECT count(*), coalesce(sum(n), 0), coalesce(sum(refs), 0), coalesce(sum(length(idx)), 0),"
        " coalesce(sum(length(body)), 0) FROM seg"
    )
    live, live_bytes = one("SELECT coalesce(sum(live), 0), coalesce(sum(live_bytes), 0) FROM segq")
    queues = queues_of(connection)
    wal = path.with_name(f"{path.name}-wal")
    return Stats(
        format=one("PRAGMA user_version")[0],
        file_bytes=path.stat().st_size,
        wal_bytes=wal.stat().st_size if wal.exists() else 0,
        free_bytes=one("PRAGMA freelist_count")[0] * one("PRAGMA page_size")[0],
        segments=segments,
        segment_bytes=index_bytes + body_bytes,
        index_bytes=index_bytes,
        messages=messages,
        references=references,
        live=live,
        live_bytes=live_bytes,
        quarantined=one("SELECT count(*) FROM quarantine")[0],
        queues=len(queues),
        retained=one("SELECT count(*) FROM retained")[0],
        states=one("SELECT count(*) FROM state")[0],
        clean=connection.execute("SELECT value FROM meta WHERE key = 'clean'").fetchone() == (1,),
        largest=sorted((queue for queue in queues if queue.messages), key=lambda queue: -queue.body_bytes)[:largest],
    )
