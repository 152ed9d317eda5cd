"""What has the journal done so far?"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

Meter: TypeAlias = Callable[[], int]


def thread_meter() -> Meter:
    """Return what tells how many bytes this thread has written since it began: to any file, as the system counts them.

    Where the system doesn't count (not Linux) it tells -1. Cost of asking: two dozen microseconds; of being counted: none.
    """
    path = Path(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/io")

    def meter() -> int:
        try:
            lines = path.read_bytes().split(b"\n")
        except OSError:
            return -1
        return next((int(line[7:]) for line in lines if line.startswith(b"wchar: ")), -1)

    return meter


class Counters:
    """Counters since `open`; read them whenever you like.

    Args (attributes):
        commits: that are on disk. failed_commits: attempts that were not.
        failed_checkpoints: explicit ones that failed, once the log had grown; SQLite's own say nothing.
        messages_written, references_written, body_bytes, index_bytes: of commits that are on disk.
        messages_elided: handed over without an unsettled reference, so never written.
        segments_live: on disk; after a page of an earlier start's segments it may lag by one commit.
        segments_compacted, references_moved: read and written anew by compaction.
        segments_quarantined, references_lost: damaged segments, and what they took with them.
        segments_scrubbed: read by the scrub and found whole.
        meter: tells how many bytes the journal's thread has written; -1: it can't.
        log_restarts: tells how often the log has begun anew since `open`: after a checkpoint of all of it.
        last_commit_s: how long the last commit took on the journal's thread.
    """

    __slots__ = (
        "body_bytes",
        "commits",
        "failed_checkpoints",
        "failed_commits",
        "index_bytes",
        "last_commit_s",
        "log_restarts",
        "messages_elided",
        "messages_written",
        "meter",
        "references_lost",
        "references_moved",
        "references_written",
        "segments_compacted",
        "segments_live",
        "segments_quarantined",
        "segments_scrubbed",
    )

    def __init__(self) -> None:
        self.commits: int = 0
        self.failed_commits: int = 0
        self.failed_checkpoints: int = 0
        self.messages_written: int = 0
        self.messages_elided: int = 0
        self.references_written: int = 0
        self.references_lost: int = 0
        self.references_moved: int = 0
        self.segments_compacted: int = 0
        self.body_bytes: int = 0
        self.index_bytes: int = 0
        self.segments_live: int = 0
        self.segments_quarantined: int = 0
        self.segments_scrubbed: int = 0
        self.last_commit_s: float = 0.0
        self.meter: Meter = lambda: -1
        self.log_restarts: Meter = lambda: 0

    def told(self) -> dict[str, float]:
        """Return all of them by name. Cost: some system calls."""
        names = sorted({*self.__slots__, "bytes_written", "syncs_at_least"} - {"meter", "log_restarts"})
        return {**{name: getattr(self, name) for name in names}, "log_restarts": self.log_restarts()}

    @property
    def syncs_at_least(self) -> int:
        """How often the disk was asked to sync, at least, with synchronous=FULL.

        Once per commit, and twice per checkpoint after which the log began anew. Cost: reading 32 bytes of a file.
        """
        return self.commits + 2 * self.log_restarts()

    @property
    def bytes_written(self) -> int:
        """Bytes written to the database and its log, by commits and checkpoints.

        Where the system doesn't count them: of bodies and indexes alone, which is less.
        """
        metered = self.meter()
        return metered if metered >= 0 else self.body_bytes + self.index_bytes
