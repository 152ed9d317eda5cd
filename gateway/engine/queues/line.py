"""Which consumer of a queue is next, where not all of them are alike?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from gateway.engine.queues.consumer import Consumer
    from gateway.engine.queues.queue import Queue


class Tiers:
    """Consumers of different priorities: those of the highest that can take any are `Queue.able`, in turns; the others wait."""

    __slots__ = ("_queue", "_tiers")

    def __init__(self, queue: Queue) -> None:
        self._queue: Queue = queue
        self._tiers: dict[int, list[Consumer]] = {0: queue.able}

    @property
    def foremost(self) -> Sequence[Consumer]:
        """The consumer that is before all others, if there is any. Cost: how many there are."""
        consumers = self._queue.consumers
        return [max(consumers, key=_priority)] if consumers else ()

    def added(self, consumer: Consumer) -> None:
        """A consumer is on the queue."""

    def removed(self, consumer: Consumer) -> None:
        """A consumer is not on the queue any more, and has left its tier."""
        if not any(other.priority == consumer.priority for other in self._queue.consumers):
            self._tiers.pop(consumer.priority, None)

    def enter(self, consumer: Consumer) -> None:
        """A consumer can take a message."""
        consumer.in_turn = True
        tier = self._tiers.setdefault(consumer.priority, [])
        tier.append(consumer)
        able = self._queue.able
        if not able or consumer.priority > able[0].priority:
            self._queue.able = tier

    def leave(self, consumer: Consumer) -> None:
        """A consumer that could take a message can't any more."""
        consumer.in_turn = False
        self._tiers[consumer.priority].remove(consumer)
        if not self._queue.able:
            self.spent()

    def spent(self) -> None:
        """Nobody of the highest tier can take any more: the next has its turn. Cost: how many priorities there are."""
        filled = [priority for priority, tier in self._tiers.items() if tier]
        self._queue.able = self._tiers[max(filled)] if filled else []

    def other_able(self, holder: Consumer) -> Consumer | None:
        """Return the first that can take a message and is not `holder`. Cost: how many priorities there are."""
        for priority in sorted(self._tiers, reverse=True):
            for consumer in self._tiers[priority][:2]:
                if consumer is not holder:
                    return consumer
        return None


class SingleActive:
    """One consumer gets everything, however busy it is: the first one, and when it goes the next in line.

    In line come first the highest priority, then the oldest. Nobody has to give way to a consumer that comes later.
    """

    __slots__ = ("_queue", "active")

    def __init__(self, queue: Queue) -> None:
        self._queue: Queue = queue
        self.active: Consumer | None = None

    @property
    def foremost(self) -> Sequence[Consumer]:
        """The active consumer, if there is any."""
        return [self.active] if self.active is not None else ()

    def added(self, consumer: Consumer) -> None:
        """A consumer is on the queue: active, if no other is."""
        if self.active is None:
            self.active = consumer

    def removed(self, consumer: Consumer) -> None:
        """A consumer is not on the queue any more: another takes over, if it was active. The caller pumps."""
        if consumer is self.active:
            self._choose(self._queue.consumers)

    def depose(self) -> None:
        """Let another take over from the active one, which lines up behind all of its age. The caller pumps."""
        queue = self._queue
        deposed = self.active
        if deposed is None or len(queue.consumers) == 1:
            return
        if deposed.in_turn:
            self.leave(deposed)
        queue.consumers.remove(deposed)
        self._choose(queue.consumers)
        queue.consumers.append(deposed)
        if not queue.spec.keep_transient:
            queue.engine.generation += 1

    def _choose(self, consumers: Sequence[Consumer]) -> None:
        self.active = max(consumers, key=_priority, default=None)
        if self.active is not None and self.active.able:
            self.enter(self.active)

    def enter(self, consumer: Consumer) -> None:
        """A consumer can take a message."""
        if consumer is self.active:
            consumer.in_turn = True
            self._queue.able.append(consumer)

    def leave(self, consumer: Consumer) -> None:
        """The active consumer can't take a message any more."""
        consumer.in_turn = False
        self._queue.able.remove(consumer)

    def spent(self) -> None:
        """The active one can take no more: nobody else has its turn."""

    def other_able(self, holder: Consumer) -> Consumer | None:
        """Return the active one, if it can take a message and is not `holder`."""
        able = self._queue.able
        return able[0] if able and able[0] is not holder else None


Line: TypeAlias = Tiers | SingleActive


def _priority(consumer: Consumer) -> int:
    return consumer.priority
