"""Who takes messages from a queue, and how many more may it take?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.api.consumer import ConsumeOptions, ConsumerSink
from gateway.engine.queues.line import SingleActive
from gateway.errors import GatewayError

if TYPE_CHECKING:
    from gateway.engine.queues.delivery import Entry
    from gateway.engine.queues.queue import Queue

UNLIMITED = 1 << 62
MOST_LAPSED = 100
"""A consumer that has lost so many leases is handed nothing more, until it settles some: it may well hang."""


class Consumer:
    """A consumer on one queue.

    ``held``: what it was handed and has not settled. ``credit``: how many more it may be handed.
    ``no_ack`` consumers hold nothing. ``in_turn``: it is among those of its queue that take turns.
    ``takes_runs``: its sink is a `RunSink`. ``lapsed``: of how many deliveries it has lost the lease and not said anything yet.
    """

    __slots__ = (
        "active",
        "credit_left",
        "exclusive",
        "held",
        "in_turn",
        "lapsed",
        "manual_credit",
        "no_ack",
        "owner",
        "paused",
        "priority",
        "queue",
        "sink",
        "takes_runs",
    )

    def __init__(self, queue: Queue, sink: ConsumerSink | None, options: ConsumeOptions, held: set[Entry], owner: object) -> None:
        self.queue: Queue = queue
        self.sink: ConsumerSink | None = sink
        self.takes_runs: bool = hasattr(sink, "deliver_run")
        self.held: set[Entry] = held
        self.owner: object = owner
        self.no_ack: bool = options.no_ack
        self.exclusive: bool = options.exclusive
        self.manual_credit: bool = options.manual_credit
        self.priority: int = options.priority
        limited = options.prefetch > 0 or options.manual_credit
        self.credit_left: int = options.prefetch if limited else UNLIMITED
        self.paused: bool = options.paused
        self.active: bool = True
        self.in_turn: bool = False
        self.lapsed: int = 0

    @property
    def able(self) -> bool:
        """Say whether it can be handed a message now."""
        return self.active and not self.paused and self.credit_left > 0 and self.sink is not None and self.lapsed < MOST_LAPSED

    @property
    def is_single_active(self) -> bool:
        """Say whether it is the one that gets everything, on a queue with a single active consumer."""
        line = self.queue.line
        return isinstance(line, SingleActive) and line.active is self

    def credit(self, delta: int) -> None:
        """Allow `delta` more messages; what is ready is delivered at once."""
        had_none = self.credit_left <= 0
        self.credit_left = min(self.credit_left + delta, UNLIMITED)
        if had_none and self.able:
            self.queue.consumer_able(self)

    def pause(self) -> None:
        """Deliver nothing until `resume`."""
        if not self.paused:
            self.paused = True
            self.queue.consumer_unable(self)

    def resume(self) -> None:
        """Undo `pause`; what is ready is delivered at once."""
        if self.paused:
            self.paused = False
            if self.able:
                self.queue.consumer_able(self)

    def fail(self, error: GatewayError) -> None:
        """Tell the sink that the consumer is gone; its fault stays its own."""
        if self.sink is None:
            return
        try:
            self.sink.cancelled(error)
        except Exception as fault:
            self.queue.engine.events.consumer_failed(self.queue.name, fault)
