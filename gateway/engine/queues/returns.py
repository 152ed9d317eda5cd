"""When is what came back ready again?"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from gateway.engine.queues.delivery import TRANSIENT, Entry
from gateway.engine.queues.lane import ENTRY_COST_BYTES, PAGE_SHARE
from gateway.model.message import Address, Message
from gateway.model.records import Page, PagedReference

if TYPE_CHECKING:
    from gateway.engine.queues.queue import Queue
    from gateway.engine.timers import Timer

PORTION = 1000
"""So many become ready in one turn."""
MOST_DELAY_MS = 100 * 365 * 24 * 3600 * 1000
"""Longer delays count as this one."""
_HOLLOW = Message(Address("", "", ""), b"", persistent=True)


class Returns:
    """What came back to a queue and waits before it is delivered again: a delay on nack, or the queue's retry.

    It counts as ready, but nobody gets it, and it is not dropped to make room, as little as what is in a consumer's hands. Its
    time to live passes meanwhile. Bodies that are on disk and take more than half a window leave memory: they sleep, until
    they are due and read again.
    """

    __slots__ = (
        "_asked",
        "_asleep",
        "_bytes",
        "_fresh",
        "_heap",
        "_made",
        "_members",
        "_order",
        "_overdue",
        "_queue",
        "_timer",
        "_writing",
    )

    def __init__(self, queue: Queue) -> None:
        self._queue: Queue = queue
        self._members: set[Entry] = set()
        self._heap: list[tuple[int, int, Entry]] = []
        self._made: int = 0
        self._bytes: int = 0
        self._asleep: dict[Entry, int] = {}
        self._overdue: dict[tuple[int, int], Entry] = {}
        self._order: deque[tuple[int, int]] = deque()
        self._asked: tuple[int, int] | None = None
        self._fresh: list[Entry] = []
        self._writing: list[Entry] = []
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, entry: Entry) -> bool:
        return entry in self._members

    def hold(self, entry: Entry, due_ms: int, *, on_disk: bool = False) -> None:
        """Keep an entry until a time, or until it expires. `on_disk`: it comes from there."""
        if entry.expires_at_ms > 0:
            due_ms = min(due_ms, entry.expires_at_ms)
        self._made += 1
        self._members.add(entry)
        heappush(self._heap, (due_ms, self._made, entry))
        self._bytes += len(entry.message.body) + ENTRY_COST_BYTES
        if on_disk:
            self._put_to_sleep(entry)
        elif entry.slot != TRANSIENT and self._queue.durable:
            self._fresh.append(entry)
            self._queue.engine.returning[self] = None
        self._arm()

    # -- time ---------------------------------------------------------------

    def _arm(self) -> None:
        timers = self._queue.engine.timers
        if not self._heap:
            return
        due_ms = self._heap[0][0]
        if self._timer is not None:
            if self._timer.due_ms <= due_ms:
                return
            timers.cancel(self._timer)
        self._timer = timers.at(due_ms, self._due)

    def _due(self, now_ms: int) -> None:
        self._timer = None
        queue = self._queue
        for _ in range(PORTION):
            if not self._heap or self._heap[0][0] > now_ms:
                break
            entry = heappop(self._heap)[2]
            if entry in self._asleep:
                self._wanted(entry)
            else:
                self._bytes -= len(entry.message.body) + ENTRY_COST_BYTES
                self._members.discard(entry)
                queue.restore(entry)
        self._arm()
        queue.filled()

    # -- sleep --------------------------------------------------------------

    def handed_over(self) -> None:
        """The open batch went to the journal."""
        if self._fresh:
            self._writing += self._fresh
            self._fresh = []

    def committed(self) -> bool:
        """What was handed over is on disk, with its counts and times. Return whether more is to be written."""
        writing, self._writing = self._writing, []
        for entry in writing:
            if entry in self._members and entry.segment is not None:
                self._put_to_sleep(entry)
        return bool(self._fresh)

    def _put_to_sleep(self, entry: Entry) -> None:
        if self._bytes > self._queue.engine.window_budget // 2 and entry not in self._asleep:
            size = self._asleep[entry] = len(entry.message.body)
            entry.message = _HOLLOW
            self._bytes -= size + ENTRY_COST_BYTES

    def _wanted(self, entry: Entry) -> None:
        """A sleeper is due: it is one of those that wait to be read."""
        if not self._overdue:
            self._queue.paged += 1
        where = entry.queue_id, entry.position
        self._overdue[where] = entry
        self._order.append(where)

    def ask(self) -> None:
        """Ask for the page with the next sleeper that is due, if the window has room."""
        queue = self._queue
        budget = queue.engine.window_budget
        if self._asked is not None or not self._overdue or (queue.window_bytes > budget // 2 and queue.ready):
            return
        while self._order[0] not in self._overdue:
            self._order.popleft()
        lane_id, position = self._order[0]
        self._asked = lane_id, position - 1
        queue.engine.events.page_wanted(lane_id, position - 1, max(budget // PAGE_SHARE, 1))

    def page_loaded(self, page: Page, after_position: int) -> bool:
        """Wake the sleepers that a page holds, if it was asked for here: no other page begins behind the same place.

        Cost: the references of the page.
        """
        if self._asked != (page.queue_id, after_position):
            return False
        self._asked = None
        first = self._overdue.get((page.queue_id, after_position + 1))
        for reference in page.references:
            entry = self._overdue.pop((page.queue_id, reference.position), None)
            if entry is not None:
                self._wake(entry, reference)
        if first is not None and first in self._asleep:
            self._lost(first)
        if not self._overdue:
            self._order.clear()
            self._queue.paged -= 1
        self._queue.filled()
        return True

    def _wake(self, entry: Entry, reference: PagedReference) -> None:
        del self._asleep[entry]
        self._members.discard(entry)
        entry.message = reference.message
        entry.segment = reference.segment
        entry.slot = reference.slot
        self._queue.restore(entry)

    def _lost(self, entry: Entry) -> None:
        """The disk has lost a sleeper."""
        queue = self._queue
        del self._overdue[entry.queue_id, entry.position]
        self._members.discard(entry)
        entry.settled = True
        queue.count -= 1
        queue.body_bytes -= self._asleep.pop(entry)
        queue.engine.events.dropped(queue.name, "journal", 1)

    # -- end ----------------------------------------------------------------

    def end(self) -> list[Entry]:
        """Wait for nothing any more; return what waited. Sleepers have no body."""
        queue = self._queue
        queue.engine.timers.cancel(self._timer)
        queue.engine.returning.pop(self, None)
        if self._overdue:
            queue.paged -= 1
        return list(self._members)
