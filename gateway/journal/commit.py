"""What is one commit, and which statement writes it?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import TypeAlias

from gateway.journal.ledger import Settlement
from gateway.journal.segment import Segment

Value: TypeAlias = int | str | bytes | None

_SEGMENT_COLUMNS = ("id", "n", "refs", "crc", "committed_ms", "idx", "body")
_SETTLEMENT_COLUMNS = ("places", "acks", "bits", "gone")
_CHANGE_COLUMNS = (
    "data",
    "exchanges",
    "exchanges_gone",
    "queues",
    "queues_gone",
    "bindings",
    "bindings_gone",
    "retained",
    "retained_gone",
    "state",
    "state_gone",
    "purged",
    "redelivered",
    "quarantined",
    "scheduled",
    "scheduled_gone",
    "next_queue",
)


class Commit:
    """A batch, encoded: new segments, what became of those on disk, and the columns of full_commit if there is more.

    ``attempts``: how often writing was begun. ``index_bytes``: known once it was written. ``amendment``: another one, without
    segments, that is written with it or not at all.
    """

    __slots__ = ("amendment", "attempts", "changes", "index_bytes", "segments", "settlement")

    def __init__(self, segments: list[Segment], settlement: Settlement, changes: tuple[Value, ...] | None) -> None:
        self.segments = segments
        self.settlement = settlement
        self.changes = changes
        # Now, as the handles' numbers go on changing while this is written.
        settlement.places += [
            [queue_id, 0, first, segment.handle.id, last, live, live_bytes]
            for segment in segments
            for queue_id, (live, live_bytes, first, last) in segment.handle.queues.items()
        ]
        self.amendment: Commit | None = None
        self.attempts = 0
        self.index_bytes = 0

    def statement(self, now_ms: int) -> tuple[str, list[Value]]:
        """Return the one statement that writes all of it: a row per segment, the last one with everything else."""
        settlement, changes = self.settlement, self.changes
        acks: list[list[int]] = []
        start = 1
        for segment_id, bits in settlement.acks:
            acks.append([segment_id, start, len(bits)])
            start += len(bits)
        rest: list[Value] = [
            _json(settlement.places),
            _json(acks),
            b"".join([bits for _, bits in settlement.acks]),
            _json(settlement.gone),
            *(changes or ()),
        ]
        values: list[Value] = []
        self.index_bytes = 0
        for segment in self.segments:
            idx, body, crc = segment.joined()
            self.index_bytes += len(idx)
            values += (segment.handle.id, segment.messages, segment.references, crc, segment.committed_ms or now_ms, idx, body)
            if segment is not self.segments[-1]:
                values += [None] * len(rest)
        if not self.segments:
            values = [None] * len(_SEGMENT_COLUMNS)
        values += rest
        return _insert(max(len(self.segments), 1), full=changes is not None), values


def _json(numbers: Sequence[Sequence[int]]) -> str | None:
    return json.dumps(numbers) if numbers else None


@cache
def _insert(rows: int, *, full: bool) -> str:
    columns = _SEGMENT_COLUMNS + _SETTLEMENT_COLUMNS + (_CHANGE_COLUMNS if full else ())
    row = f"({','.join('?' * len(columns))})"
    view = "full_commit" if full else "hot_commit"
    return f"INSERT INTO {view} ({','.join(columns)}) VALUES {','.join([row] * rows)}"  # noqa: S608 - constants
