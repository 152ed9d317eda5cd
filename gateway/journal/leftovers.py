"""Which segments hold little of what they held, and what do they still hold? Asked on the reader's thread."""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

from gateway.journal.reader import StoredSegment, read_whole

SPARSE_PART = 4
"""A segment with at most this part of its references (and of its bytes) left is sparse."""
TINY = 16
TINY_BYTES = 16 * 1024
"""A segment with at most so many references, and so many bytes of bodies, is tiny."""
MOST_REFERENCES = 350
MOST_BYTES = 256 * 1024
"""What moves in one commit, unless a single message is more: about a millisecond on the main thread."""
MOST_READ = 2 << 20
"""What is read for one commit, unless a single segment is more."""
SURVEYED = 4096

# Not grouped nor sorted: a sorter would copy the bodies.
_LIST = """
SELECT json_group_array(json_array(seg.id, refs, length(idx), length(body),
    (SELECT sum(live) FROM segq WHERE segq.seg = seg.id), (SELECT sum(live_bytes) FROM segq WHERE segq.seg = seg.id)))
FROM json_each(?) AS wanted CROSS JOIN seg ON seg.id = wanted.value
WHERE seg.id NOT IN (SELECT seg FROM quarantine) AND EXISTS (SELECT 1 FROM segq WHERE segq.seg = seg.id)
"""
_SURVEY = f"""
SELECT json_group_array(json_array(id, tiny)) FILTER (WHERE tiny OR live * {SPARSE_PART} <= refs), coalesce(max(id), 0), count(*)
FROM (
  SELECT id, refs, refs <= {TINY} AND length(body) <= {TINY_BYTES} AS tiny,
    (SELECT sum(live) FROM segq WHERE segq.seg = seg.id) AS live FROM seg
  WHERE id > ? AND id NOT IN (SELECT seg FROM quarantine) ORDER BY id LIMIT ?)
"""  # noqa: S608 - constants


@dataclass(slots=True)
class Leftovers:
    """What a few segments still hold: the slots of as much as there is room for, and whether there is more.

    ``kept``: segments that are not worth it, or can't be read, and how many references they have left. ``rest``: those that there
    was no room for, or that are not worth it alone, and whether they are tiny.
    """

    segments: list[tuple[StoredSegment, list[int], bool]] = field(default_factory=list)
    kept: list[tuple[int, int]] = field(default_factory=list)
    rest: list[tuple[int, bool]] = field(default_factory=list)


@dataclass(slots=True)
class Survey:
    """A part of all segments: sparse or tiny ones, and whether they are tiny; ``last``: where to go on, 0 at the end."""

    found: list[list[int]]
    last: int


def read_survey(connection: sqlite3.Connection, after: int) -> Survey:
    """Look at some segments, from an id on."""
    found, last, looked_at = connection.execute(_SURVEY, (after, SURVEYED)).fetchone()
    return Survey(json.loads(found), last if looked_at == SURVEYED else 0)


def read_leftovers(
    connection: sqlite3.Connection, sparse: list[int], tiny: list[int], from_slot: dict[int, int] | None = None
) -> Leftovers:
    """Read as much of some segments as one commit has room for; which of them are worth it shows only then.

    Args:
        from_slot: per segment, the first reference that has not moved yet (on disk it may not be so).
    """
    found = Leftovers()
    references = size = live_size = 0
    together = set(tiny)
    (text,) = connection.execute(_LIST, (json.dumps(sorted(sparse + tiny)),)).fetchone()
    chosen: list[list[int]] = []
    for number, all_references, idx_bytes, body_bytes, live, live_bytes in json.loads(text):
        few = all_references <= TINY and body_bytes <= TINY_BYTES
        if few and number not in together:
            found.rest.append((number, True))
            continue
        segment_bytes = idx_bytes + body_bytes
        references, size, live_size = references + live, size + segment_bytes, live_size + live_bytes
        if chosen and (references > MOST_REFERENCES or size > MOST_READ or live_size > MOST_BYTES):
            found.rest.append((number, few))
        else:
            chosen.append([number, segment_bytes])
    for stored in read_whole(connection, chosen):
        slots = _unsettled(stored)
        if slots is None:
            found.kept.append((stored.id, sum([numbers[0] for numbers in stored.places.values()])))
        else:
            after = from_slot.get(stored.id, 0) if from_slot else 0
            slots = slots[bisect_left(slots, after) :]
            first = _first(stored, slots)
            found.segments.append((stored, first, len(first) < len(slots)))
    return found


def _unsettled(stored: StoredSegment) -> list[int] | None:
    """Return the references that are unsettled on disk; None: that can't be trusted, or moving them would gain too little."""
    index = stored.index
    if index is None or stored.damaged:
        return None
    bits, queues, places = stored.bits.ljust((len(stored.queues) + 7) >> 3, b"\0"), stored.queues, stored.places
    slots = [slot for slot, queue_id in enumerate(queues) if not bits[slot >> 3] & 1 << (slot & 7) and queue_id in places]
    left = Counter([queues[slot] for slot in slots])
    if any(numbers[0] != left[queue_id] for queue_id, numbers in places.items()):
        return None
    owners = Counter([index.owner(slot) for slot in slots])
    if max(owners.values(), default=0) > MOST_REFERENCES:
        return None  # those of a message move together
    if not is_tiny(stored) and sum(map(index.size_of, owners)) * (SPARSE_PART - 1) > len(stored.body):
        return None
    return slots


def _first(stored: StoredSegment, slots: list[int]) -> list[int]:
    """Return what one commit has room for, those of a message together."""
    index = stored.index
    assert index is not None
    end = MOST_REFERENCES
    while end < len(slots) and index.owner(slots[end]) == index.owner(slots[end - 1]):
        end += 1
    return slots[:end]


def is_tiny(stored: StoredSegment) -> bool:
    """Say whether a segment has little in it, and had from the beginning."""
    return len(stored.queues) <= TINY and len(stored.body) <= TINY_BYTES
