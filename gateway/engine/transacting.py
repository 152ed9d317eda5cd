"""How do several messages and settlements become one change: all of it, or nothing?"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.engine.publishing import Publishing
from gateway.engine.queues.delivery import Entry
from gateway.engine.queues.queue import Queue
from gateway.engine.route import RouteHandle
from gateway.errors import GatewayError, MessageRefused, NotHeld
from gateway.model.declare import Overflow
from gateway.model.message import Message

NAMESPACE = "engine.transactions"
"""Of records that say nothing, but make that a commit is written in which nothing else has to be."""

ACK, REQUEUE, REJECT = "ack", "requeue", "reject"

Coming = dict[Queue, tuple[int, int]]
"""By queue: how many messages come into it, and bytes of their bodies."""


class Transacting(Publishing):
    """Transactions: first everything is looked at that could be refused, then all is done, in one batch."""

    def transact(
        self, publishes: Sequence[tuple[RouteHandle, Message]], settlements: Sequence[tuple[Entry, str]]
    ) -> GatewayError | list[int]:
        """Publish messages, then settle deliveries; return the indices of the messages that reached no queue.

        Messages count together against the limits of queues, and what the transaction settles leaves no room for them. What a
        queue drops meanwhile is dead-lettered behind it all. If the journal fails nothing of it is undone.

        Args:
            settlements: entries that consumers hold, with `ACK`, `REQUEUE` or `REJECT`.

        Returns:
            why all of it is refused: nothing has changed.
        """
        refusal = self._refusal_of_settling(settlements) or self._refusal_of_publishing(publishes)
        if refusal is not None:
            return refusal
        if any(entry.segment is not None for entry, _ in settlements):
            self.kept.put_state(NAMESPACE, "", None)
        nowhere: list[int] = []
        self.burial.postpone()
        try:
            for index, (route, message) in enumerate(publishes):
                if message.persistent:
                    self.ours.add(message)
                if self.publish(route, message) is not None:  # nobody wants it, or its queue has ended just now
                    nowhere.append(index)
            self._settle_all(settlements)
        finally:
            self.burial.catch_up()
        self.finish()
        return nowhere

    def _settle_all(self, settlements: Sequence[tuple[Entry, str]]) -> None:
        acked = [entry for entry, how in settlements if how == ACK]
        if acked:
            self.ack_many(acked)
        for kind in (REQUEUE, REJECT):
            given = [entry for entry, how in settlements if how == kind]
            if given:
                self.nack_many(given, requeue=kind == REQUEUE)

    # -- looking first ------------------------------------------------------

    def _refusal_of_settling(self, settlements: Sequence[tuple[Entry, str]]) -> GatewayError | None:
        seen: set[Entry] = set()
        for entry, how in settlements:
            consumer = entry.consumer
            is_held = consumer is not None and entry in consumer.held
            if not is_held or entry in seen or (entry.settled and not entry.queue.deleted):
                return NotHeld()
            seen.add(entry)
            if self.refusal is not None and how != ACK and entry.queue.durable:
                return self.refusal  # it could not be dead-lettered in the same batch
        return None

    def _refusal_of_publishing(self, publishes: Sequence[tuple[RouteHandle, Message]]) -> GatewayError | None:
        coming: Coming = {}
        for route, message in publishes:
            refusal = self._refusal_of_one(route, message, coming)
            if refusal is not None:
                return refusal
        return None

    def _refusal_of_one(self, route: RouteHandle, message: Message, coming: Coming) -> GatewayError | None:
        """Say why a message would be refused behind those that are coming; add it to them."""
        if route.generation != self.generation:
            self.resolve(route, message)
        if route.refusal is not None:
            return route.refusal
        if route.through is not None:
            try:
                if not self.special.goes_on(route, message):
                    return None
            except GatewayError as error:
                return error
        if message.persistent and route.durable and self.refusal is not None:
            return self.refusal
        for queue in route.rejecting if message.persistent else route.rejecting_transient:
            if queue.terms.overflow is Overflow.END_QUEUE:
                continue
            count, body_bytes = coming.get(queue, (0, 0))
            body_bytes += len(message.body)
            if queue.is_full_for(body_bytes, count):
                return MessageRefused(f"queue '{queue.name}' is full")
            coming[queue] = (count + 1, body_bytes)
        return None
