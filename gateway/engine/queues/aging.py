"""What of a queue goes because its time is up: the heads that expire, or the whole queue that nobody uses?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.engine.queues.dead_letter import Reason

if TYPE_CHECKING:
    from gateway.engine.queues.queue import Queue
    from gateway.engine.timers import Timer

AT_ONCE = 10_000
"""So many heads that have expired are seen to in one turn; the rest in the next."""
RETRY_MS = 1000
"""What can't be done while the journal refuses is tried again so much later."""


def strip(queue: Queue) -> None:
    """Give up the heads that have expired, and have a timer do so when the next one does.

    As in RabbitMQ, only heads are looked at: what expires behind another entry is found when that is gone.
    """
    engine = queue.engine
    now_ms = engine.now_ms
    if engine.refusal is not None and queue.durable and queue.terms.dead_letter_exchange is not None:
        _arm(queue, now_ms + RETRY_MS)
        return
    left = AT_ONCE
    next_ms = 0
    mortal = False
    for lane in queue.lanes:
        while lane.ready and 0 < lane.ready[0].expires_at_ms <= now_ms and left:
            engine.died(lane.pop(), Reason.EXPIRED)
            left -= 1
        if lane.ready:
            mortal = True
            ends_ms = max(lane.ready[0].expires_at_ms, 0)
            next_ms = min(next_ms, ends_ms) if next_ms and ends_ms else next_ms or ends_ms
    queue.mortal = mortal
    if next_ms:
        _arm(queue, next_ms)
    if left < AT_ONCE:
        queue.expired()


def _arm(queue: Queue, due_ms: int) -> None:
    timer = queue.head_timer
    if timer is not None:
        if timer.due_ms <= due_ms:
            return
        queue.engine.timers.cancel(timer)

    def due(_: int) -> None:
        queue.head_timer = None
        if not queue.deleted:
            strip(queue)

    queue.head_timer = queue.engine.timers.at(due_ms, due)


class Idleness:
    """The time after which a queue goes that nobody uses. It runs while there is no consumer."""

    __slots__ = ("_expires_ms", "_queue", "_since_ms", "_timer")

    def __init__(self, queue: Queue, expires_ms: int) -> None:
        self._queue: Queue = queue
        self._expires_ms: int = expires_ms
        self._timer: Timer | None = None
        self.begin()

    def begin(self) -> None:
        """Begin anew."""
        engine = self._queue.engine
        self._since_ms: int = engine.now_ms
        if self._timer is None and not self._queue.consumers:
            self._timer = engine.timers.at(engine.now_ms + self._expires_ms, self._due)

    def end(self) -> None:
        """End for good."""
        self._queue.engine.timers.cancel(self._timer)
        self._timer = None

    def _due(self, now_ms: int) -> None:
        self._timer = None
        queue = self._queue
        if queue.deleted or queue.consumers:
            return
        if not self._since_ms:
            self._since_ms = now_ms  # it began before anybody knew the time
        due_ms = self._since_ms + self._expires_ms
        if due_ms > now_ms:
            self._timer = queue.engine.timers.at(due_ms, self._due)
        elif queue.durable and queue.engine.refusal is not None:
            self._timer = queue.engine.timers.at(now_ms + RETRY_MS, self._due)
        else:
            queue.engine.definitions.remove_queue(queue)
