"""What of a long queue is not in memory, and in which order does it come back?"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import merge
from typing import TYPE_CHECKING

from gateway.engine.queues.delivery import SPARED, TRANSIENT, Entry
from gateway.model.records import PagedReference

if TYPE_CHECKING:
    from gateway.engine.queues.lane import Lane


def _position(entry: Entry) -> int:
    return entry.position


class Backlog:
    """All entries of a lane beyond its head window, in four parts.

    ``on_disk``: how many are only there. ``writing``: handed over, not confirmed yet. ``fresh``: in the open batch.
    ``transient``: those that are never journaled and so stay in memory. Positions of the first three follow one
    another; transient ones lie between.
    ``window_end``: the highest position that was ever in the head window. ``withdrawn``: positions that a page may still hold,
    and that are settled.
    """

    __slots__ = ("fresh", "lane", "on_disk", "requested", "transient", "window_end", "withdrawn", "writing")

    def __init__(self, lane: Lane, window_end: int) -> None:
        self.lane: Lane = lane
        self.window_end: int = window_end
        self.on_disk: int = 0
        self.writing: list[Entry] = []
        self.fresh: list[Entry] = []
        self.transient: deque[Entry] = deque()
        self.requested: bool = False
        self.withdrawn: set[int] = set()

    def __len__(self) -> int:
        return self.on_disk + len(self.writing) + len(self.fresh) + len(self.transient)

    def append(self, entry: Entry) -> None:
        """Take the newest entry."""
        if entry.slot == TRANSIENT:
            self.transient.append(entry)
        else:
            if not self.fresh:
                self.lane.queue.engine.backlogs[self.lane] = None
            self.fresh.append(entry)

    def handed_over(self) -> None:
        """The open batch went to the journal."""
        if self.fresh:
            self.writing += self.fresh
            self.fresh = []

    def committed(self) -> None:
        """What was handed over is on disk: forget it."""
        self.on_disk += len(self.writing)
        self.writing = []

    def in_memory(self) -> list[Entry]:
        """Return the entries that still have their messages."""
        return self.writing + self.fresh + list(self.transient)

    def rest(self) -> list[Entry]:
        """Return what follows when nothing is left on disk."""
        return list(merge(self.writing + self.fresh, self.transient, key=_position))

    def take_page(self, references: list[PagedReference], lost: int) -> list[Entry]:
        """Turn a page into entries, with the transient ones between them.

        A page may hold what is in `writing`, if its commit landed and was not told yet: that stays where it is.
        """
        limit = self.writing[0].position if self.writing else self.fresh[0].position if self.fresh else 0
        behind = self.window_end
        if self.withdrawn:
            references = self._without_withdrawn(references)
        entries = [
            self._entry(reference)
            for reference in references
            if reference.position > self.window_end and (not limit or reference.position < limit)
        ]
        self.on_disk = max(self.on_disk - len(entries) - lost, 0)
        if not entries:
            if not lost and self.window_end == behind:
                self.on_disk = 0
            return []
        self.window_end = entries[-1].position
        between: list[Entry] = []
        while self.transient and self.transient[0].position < self.window_end:
            between.append(self.transient.popleft())
        return list(merge(entries, between, key=_position)) if between else entries

    def _without_withdrawn(self, references: list[PagedReference]) -> list[PagedReference]:
        """Leave out what was withdrawn; the next page begins behind it."""
        kept = [reference for reference in references if reference.position not in self.withdrawn]
        if references and not kept:
            self.window_end = max(self.window_end, references[-1].position)
        return kept

    def _entry(self, reference: PagedReference) -> Entry:
        lane = self.lane
        now_ms = lane.queue.engine.now_ms
        entry = Entry(reference.message, lane, reference.position, reference.options, reference.slot)
        entry.segment = reference.segment
        entry.count = reference.count
        entry.redelivered = reference.count > 0 or reference.position < lane.recovered_before
        spared = reference.due_ms < 0
        entry.expires_at_ms = SPARED if spared else lane.queue.expiry_of(reference.message, reference.stored_ms)
        if reference.due_ms > now_ms and not 0 < entry.expires_at_ms <= now_ms:
            lane.queue.hold(entry, reference.due_ms, on_disk=True)
        return entry

    def withdraw(self, doomed: Callable[[Entry], bool]) -> list[Entry]:
        """Take out what is in memory, is to be journaled and is `doomed`."""
        taken = [entry for entry in self.writing + self.fresh if doomed(entry)]
        self.withdrawn.update(entry.position for entry in taken if entry.segment is not None)
        self.writing = [entry for entry in self.writing if not doomed(entry)]
        self.fresh = [entry for entry in self.fresh if not doomed(entry)]
        return taken
