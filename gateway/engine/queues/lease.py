"""Which delivery is held too long, and who gets it then?"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from gateway.engine.queues.delivery import UNWRITTEN, Entry
from gateway.engine.queues.line import SingleActive

if TYPE_CHECKING:
    from gateway.engine.queues.queue import Queue
    from gateway.engine.timers import Timer

PORTION = 100
"""So many leases end in one turn; the rest in the next."""
MOST_LEASE_MS = 100 * 365 * 24 * 3600 * 1000
"""A longer extension counts as this one."""
_TIDY_FROM = 256

Lease = tuple[int, int, Entry]


class Leases:
    """How long the deliveries of a queue have been held: the oldest first, those that were extended in the order of their ends.

    A lease that ends takes the delivery from its holder if somebody else is there to have it: another consumer of the queue (a
    single active one hands its place on), or whoever comes, if it was taken by a `get`. Otherwise, and while only the holder
    itself could take it, it stays where it is, and is looked at again after another timeout.

    The holder's credit stays taken until it settles what it still works on (NotFound) or goes. The entry that it holds is a
    settled shell; what comes back is a new one, so that a late acknowledgement can't settle somebody else's delivery.
    """

    __slots__ = ("_extended", "_heap", "_held", "_made", "_queue", "_tidy_at", "_timer", "timeout_ms")

    def __init__(self, queue: Queue, timeout_ms: int) -> None:
        self.timeout_ms: int = timeout_ms
        self._queue: Queue = queue
        self._held: deque[Lease] = deque()  # (since, number of the delivery, entry)
        self._extended: dict[Entry, int] = {}  # by which number in the heap it counts
        self._heap: list[Lease] = []  # (until, number, entry)
        self._made: int = 0
        self._tidy_at: int = _TIDY_FROM
        self._timer: Timer | None = None

    def began(self, entry: Entry) -> None:
        """A consumer holds a delivery. Cost: O(1), amortised; two that are over are forgotten on the way."""
        held = self._held
        if self._extended:
            self._extended.pop(entry, None)
        if held and not self._is_held(held[0]):
            held.popleft()
            if held and not self._is_held(held[0]):
                held.popleft()
        now_ms = self._queue.engine.now_ms
        held.append((now_ms, entry.count, entry))
        if self._timer is None or self._timer.due_ms > now_ms + self.timeout_ms:
            self._arm()
        if len(held) + len(self._heap) >= self._tidy_at:
            self._tidy()

    def adopt(self, entries: Iterable[Entry]) -> None:
        """Let the leases of what is held already begin now."""
        for entry in entries:
            self.began(entry)

    def extend(self, entry: Entry, lease_ms: int) -> None:
        """Let a lease end so many ms from now."""
        self._extend(entry, self._queue.engine.now_ms + min(max(lease_ms, 0), MOST_LEASE_MS))
        if len(self._held) + len(self._heap) >= self._tidy_at:
            self._tidy()
        self._arm()

    def change(self, timeout_ms: int) -> None:
        """Take another timeout; it is that of what is held already too, but for what was extended."""
        self.timeout_ms = timeout_ms
        self._arm()

    def end(self) -> None:
        """Look at nothing any more."""
        self._queue.engine.timers.cancel(self._timer)
        self._timer = None
        self._held.clear()
        self._heap.clear()
        self._extended.clear()

    # -- what is held -------------------------------------------------------

    def _extend(self, entry: Entry, until_ms: int) -> None:
        self._made += 1
        self._extended[entry] = self._made
        heappush(self._heap, (until_ms, self._made, entry))

    def _is_held(self, lease: Lease) -> bool:
        _, count, entry = lease
        consumer = entry.consumer
        if consumer is None or entry.settled or entry.count != count or entry not in consumer.held:
            return False
        return not self._extended or entry not in self._extended

    def _is_extended(self, lease: Lease) -> bool:
        _, number, entry = lease
        if self._extended.get(entry) != number:
            return False
        if entry.consumer is not None and not entry.settled and entry in entry.consumer.held:
            return True
        del self._extended[entry]
        return False

    def _tidy(self) -> None:
        """Forget what is over, behind a delivery that is held for long. Cost: what was handed out since the last time."""
        self._held = deque(filter(self._is_held, self._held))
        self._heap = list(filter(self._is_extended, self._heap))
        heapify(self._heap)
        self._tidy_at = max(2 * (len(self._held) + len(self._heap)), _TIDY_FROM)

    # -- time ---------------------------------------------------------------

    def _arm(self) -> None:
        ends = [self._held[0][0] + self.timeout_ms] if self._held else []
        if self._heap:
            ends.append(self._heap[0][0])
        if not ends:
            return
        timers = self._queue.engine.timers
        if self._timer is not None:
            if self._timer.due_ms <= min(ends):
                return
            timers.cancel(self._timer)
        self._timer = timers.at(min(ends), self._due)

    def _due(self, now_ms: int) -> None:
        self._timer = None
        over: list[Entry] = []
        held = self._held
        while held and len(over) < PORTION:
            if self._is_held(held[0]):
                if held[0][0] + self.timeout_ms > now_ms:
                    break
                over.append(held[0][2])
            held.popleft()
        while self._heap and self._heap[0][0] <= now_ms and len(over) < PORTION:
            lease = heappop(self._heap)
            if self._is_extended(lease):
                over.append(lease[2])
        for entry in over:
            self._over(entry)
        self._arm()

    def _over(self, entry: Entry) -> None:
        """A lease has ended: somebody else has the delivery, or it is looked at again later."""
        queue = self._queue
        holder = entry.consumer
        if holder is None or entry.settled:
            return  # what another lease's end led to
        if holder.is_single_active and isinstance(queue.line, SingleActive):
            queue.line.depose()
        was_able = holder.in_turn
        others = len(queue.consumers) > (1 if holder.active else 0)
        if holder.sink is not None and not (others and (not was_able or queue.other_able(holder) is not None)):
            if entry in self._extended:
                self._extend(entry, queue.engine.now_ms + self.timeout_ms)
            else:
                self._held.append((queue.engine.now_ms, entry.count, entry))
            return
        self._extended.pop(entry, None)
        fresh = _successor(queue, entry)
        queue.consumer_unable(holder)  # anybody but the holder
        if holder.sink is None:
            holder.held.discard(entry)
        else:
            holder.lapsed += 1
        queue.engine.come_back(fresh, queue.engine.retry_ms(fresh))
        queue.pump()
        if was_able and holder.able:
            queue.consumer_able(holder)


def _successor(queue: Queue, entry: Entry) -> Entry:
    """Return a new entry in the place of one that its holder keeps, settled, until it says what it says too late."""
    lane = queue.lanes[entry.queue_id - queue.id]
    fresh = Entry(entry.message, lane, entry.position, entry.options, entry.slot)
    fresh.segment = entry.segment
    fresh.count = entry.count
    fresh.expires_at_ms = entry.expires_at_ms
    if entry.segment is None and entry.slot == UNWRITTEN:
        message = entry.message
        if message.first is entry:
            message.first = fresh
        elif message.more is not None:
            message.more[message.more.index(entry)] = fresh
    entry.settled = True
    return fresh
