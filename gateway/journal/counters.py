"""What has the journal done so far?"""

from __future__ import annotations


class Counters:
    """Counters since `open`; read them whenever you like.

    Args (attributes):
        commits: that are on disk. failed_commits: attempts that were not.
        messages_written, references_written, body_bytes, index_bytes: of commits that are on disk.
        messages_elided: handed over without an unsettled reference, so never written.
        segments_live: on disk; after a page of an earlier start's segments it may lag by one commit.
        segments_quarantined, references_lost: damaged segments, and what they took with them.
        last_commit_s: how long the last commit took on the journal's thread.
    """

    __slots__ = (
        "body_bytes",
        "commits",
        "failed_commits",
        "index_bytes",
        "last_commit_s",
        "messages_elided",
        "messages_written",
        "references_lost",
        "references_written",
        "segments_live",
        "segments_quarantined",
    )

    def __init__(self) -> None:
        self.commits: int = 0
        self.failed_commits: int = 0
        self.messages_written: int = 0
        self.messages_elided: int = 0
        self.references_written: int = 0
        self.references_lost: int = 0
        self.body_bytes: int = 0
        self.index_bytes: int = 0
        self.segments_live: int = 0
        self.segments_quarantined: int = 0
        self.last_commit_s: float = 0.0
