"""What of one priority of a queue is in memory, and what on disk?"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING

from gateway.engine.queues.backlog import Backlog
from gateway.engine.queues.delivery import TRANSIENT, Entry
from gateway.model.records import Page, Reference

if TYPE_CHECKING:
    from gateway.engine.queues.queue import Queue

PAGE_SHARE = 8
"""A page is this part of the window: what entries cost in memory comes on top of its bytes."""
ENTRY_COST_BYTES = 400
"""What an entry and its message cost in memory beside the body."""
_position = attrgetter("position")


class Lane:
    """The entries of one priority in order of position: the head of them in `ready`, what is too much in `backlog`.

    A queue without priorities has one. To the journal a lane is a queue of its own, under its own `id` (priorities count from
    the queue's id). ``ready`` is None until something waits: an empty deque costs more than all else that an idle queue has.
    ``recovered_before``: entries of lower positions come from an earlier start and may have been delivered then.
    """

    __slots__ = ("backlog", "id", "next_position", "queue", "ready", "recovered_before")

    def __init__(self, queue: Queue, lane_id: int) -> None:
        self.queue: Queue = queue
        self.id: int = lane_id
        self.ready: deque[Entry] | None = None
        self.backlog: Backlog | None = None
        self.next_position: int = 1
        self.recovered_before: int = 0

    @property
    def occupied(self) -> bool:
        """Something waits here, in memory or on disk."""
        return bool(self.ready) or self.backlog is not None

    def __len__(self) -> int:
        return (len(self.ready) if self.ready else 0) + (len(self.backlog) if self.backlog is not None else 0)

    # -- one entry ----------------------------------------------------------

    def append(self, entry: Entry) -> None:
        """Put a new entry at the end: on disk only, if the window is full."""
        if self.backlog is not None:
            self.backlog.append(entry)
            return
        if self.ready is None:
            self.ready = deque()
        self.ready.append(entry)
        queue = self.queue
        queue.window_bytes += len(entry.message.body) + ENTRY_COST_BYTES
        if queue.window_bytes > queue.engine.window_budget and queue.durable:
            self._begin_backlog(entry.position)

    def pop(self) -> Entry:
        """Take the first entry that is in memory; there must be one."""
        assert self.ready
        entry = self.ready.popleft()
        self.queue.window_bytes -= len(entry.message.body) + ENTRY_COST_BYTES
        return entry

    def put_back(self, entry: Entry) -> None:
        """Put an entry back to its old place."""
        self.queue.window_bytes += len(entry.message.body) + ENTRY_COST_BYTES
        position = entry.position
        ready = self.ready
        if ready is None:
            self.ready = deque((entry,))
        elif not ready or position < ready[0].position:
            ready.appendleft(entry)
        elif position > ready[-1].position:
            ready.append(entry)
        else:
            ready.insert(bisect_left(ready, position, key=_position), entry)

    # -- backlog ------------------------------------------------------------

    def _begin_backlog(self, window_end: int) -> Backlog:
        self.backlog = Backlog(self, window_end)
        self.queue.paged += 1
        return self.backlog

    def _end_backlog(self) -> None:
        if self.backlog is not None:
            self.backlog = None
            self.queue.paged -= 1

    def recover(self, live: int, next_position: int) -> None:
        """Take over what the journal holds for this lane."""
        self.next_position = self.recovered_before = max(self.next_position, next_position)
        if live:
            self._begin_backlog(0).on_disk = live

    def refill(self, *, urgent: bool, wanted: bool) -> bool:
        """Ask for the next page if the window runs low, or take over the backlog's end when nothing is left on disk.

        Args:
            urgent: nothing in memory here means that somebody waits: the window may be full of other lanes' entries.
            wanted: somebody has a use for a page.

        Returns:
            there is more in memory now.
        """
        backlog = self.backlog
        queue = self.queue
        budget = queue.engine.window_budget
        if backlog is None or (queue.window_bytes > budget // 2 and (self.ready or not urgent)):
            return False
        if backlog.on_disk == 0:
            self._end_backlog()
            self.admit(backlog.rest())
            return True
        if wanted and not backlog.requested and queue.engine.burial.has_room_for(queue):
            backlog.requested = True
            queue.engine.events.page_wanted(self.id, backlog.window_end, max(budget // PAGE_SHARE, 1))
        return False

    def page_loaded(self, page: Page, after_position: int) -> None:
        """Take a page that `refill` asked for; one that a purge has overtaken is dropped."""
        backlog = self.backlog
        if backlog is None or backlog.window_end != after_position:
            return
        queue = self.queue
        backlog.requested = False
        before = len(backlog)
        entries = backlog.take_page(page.references, page.lost)
        queue.count -= before - len(backlog) - len(entries)
        if page.lost:
            queue.body_bytes -= page.lost_bytes
            queue.engine.events.dropped(queue.name, "journal", page.lost)
        if queue.returns is not None:
            entries = [entry for entry in entries if entry not in queue.returns]
        self.admit(entries)
        queue.filled()

    def admit(self, entries: list[Entry]) -> None:
        """Put entries that come next into the window. The caller tells the queue (`Queue.filled`)."""
        if self.ready is None:
            self.ready = deque()
        queue = self.queue
        for entry in entries:
            self.ready.append(entry)
            queue.window_bytes += len(entry.message.body) + ENTRY_COST_BYTES
            if entry.expires_at_ms > 0:
                queue.mortal = True

    def clear(self) -> tuple[int, list[Entry]]:
        """Forget all that is ready; return how many, and the entries that were in memory."""
        entries = list(self.ready or ())
        self.queue.window_bytes -= sum(len(entry.message.body) + ENTRY_COST_BYTES for entry in entries)
        removed = len(entries)
        if self.ready is not None:
            self.ready.clear()
        if self.backlog is not None:
            removed += len(self.backlog)
            entries += self.backlog.in_memory()
            self._end_backlog()
        return removed, entries

    def withdraw(self, doomed: Callable[[Entry], bool], is_written: Callable[[Reference], bool]) -> list[Entry]:
        """Take out what is ready, not on disk yet and `doomed`. Cost: what was kept since the last commit.

        What is on disk lies before what is not; only entries that were delivered before may break that order.
        """

        def is_fresh(entry: Entry) -> bool:
            return entry.slot != TRANSIENT and (entry.segment is None or not is_written(entry))

        taken: list[Entry] = []
        for entry in reversed(self.ready or ()):
            if is_fresh(entry):
                if doomed(entry):
                    taken.append(entry)
            elif entry.slot != TRANSIENT and entry.count == 0:
                break
        if taken:
            gone = set(taken)
            self.ready = deque(entry for entry in self.ready or () if entry not in gone)
            self.queue.window_bytes -= sum(len(entry.message.body) + ENTRY_COST_BYTES for entry in taken)
        if self.backlog is not None:
            taken += self.backlog.withdraw(lambda entry: is_fresh(entry) and doomed(entry))
        return taken
