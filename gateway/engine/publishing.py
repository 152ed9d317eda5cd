"""Into which queues does a message go?"""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

from gateway.api.consumer import MessageRun, RunSink
from gateway.engine.consuming import Consuming
from gateway.engine.queues.burial import Dead
from gateway.engine.queues.dead_letter import Reason
from gateway.engine.queues.delivery import TRANSIENT, UNWRITTEN, Entry
from gateway.engine.queues.queue import Queue
from gateway.engine.route import STALE, UNROUTABLE, RouteHandle, Unroutable
from gateway.errors import AccessRefused, GatewayError, MessageRefused, NotFound, PreconditionFailed
from gateway.model.declare import Overflow
from gateway.model.message import Message
from gateway.model.properties import Properties


class Publishing(Consuming):
    """Messages that come in."""

    def publish(self, route: RouteHandle, message: Message) -> GatewayError | Unroutable | None:
        """Put a message into every queue that its route reaches; None: they have it.

        Returns:
            UNROUTABLE: there is none. A GatewayError: refused, no queue has it.
        """
        if route.generation != self.generation:
            self.resolve(route, message)
        if route.through is not None:
            return route.through(route, message)
        if message.persistent:
            return self._publish_persistent(route, message)
        return self._publish_transient(route, message)

    def publish_now(self, route: RouteHandle, message: Message) -> GatewayError | Unroutable | None:
        """Publish the normal way, whatever the exchange puts before it. Answer as `publish`."""
        if route.generation != self.generation:
            self.resolve(route, message)
        if not message.persistent:
            return self._publish_transient(route, message)
        if self.acts_alone and route.durable:
            self.ours.add(message)
        return self._publish_persistent(route, message)

    def move(self, entry: Entry, route: RouteHandle, message: Message) -> GatewayError | None:
        """Publish in place of a delivery, and settle that, in one batch; if the journal fails, none of both is undone.

        Returns:
            why it is refused, or reaches no queue: then the delivery is held as before.

        Raises:
            NotHeld: its consumer does not hold it; nothing is published.
        """
        consumer = entry.consumer
        if consumer is None or entry not in consumer.held or (entry.settled and not entry.queue.deleted):
            self.ack(entry)  # which says so
        if message.persistent:
            self.ours.add(message)
        answer = self.publish_now(route, message)
        if answer is None:
            self.ack(entry)
            return None
        self.ours.discard(message)
        return answer if isinstance(answer, GatewayError) else NotFound(f"no queue for {route.address.routing_key!r}")

    def _publish_persistent(self, route: RouteHandle, message: Message) -> GatewayError | Unroutable | None:
        """Publish; it counts as live until every queue has it: one may drop it at once."""
        if route.durable and self.refusal is not None:
            return self.refusal
        if route.rejecting:
            refusal = self._make_room(route, route.rejecting, message)
            if refusal is not None:
                return refusal
        if route.durable:
            batch = self.batch
            batch.messages.append(message)
            batch.body_bytes += len(message.body)
            message.live = 1
            self._store(route, message)
            message.live -= 1
            if message.live:
                batch.unsettled += 1
            else:
                message.first = None
                message.more = None
        else:
            self._store(route, message)
        if route.low_taps or route.low_queued or route.low_idle:
            self._publish_low(route, message)
        if self.dead:
            self.burial.work_off()
        return None if route.matched else self._nowhere(route)

    def _store(self, route: RouteHandle, message: Message) -> None:
        """Put a persistent message into its queues.

        Flat, as it is most of what such a message costs: where one consumer waits, this does what `Queue.enqueue` does, without
        the calls.
        """
        size = len(message.body)
        expires = message.expires_at_ms > 0
        for queue, options in route.stored:
            lane = queue.short
            able = queue.able
            if lane is None or lane.ready or lane.backlog is not None or len(able) != 1 or able[0].no_ack or expires:
                queue.enqueue(message, options)
                continue
            consumer = able[0]
            position = lane.next_position
            lane.next_position = position + 1
            if queue.durable:
                entry = Entry(message, lane, position, options, UNWRITTEN)
                message.live += 1
                if message.first is None:
                    message.first = entry
                elif message.more is None:
                    message.more = [entry]
                else:
                    message.more.append(entry)
            else:
                entry = Entry(message, lane, position, options, TRANSIENT)
            queue.count += 1
            queue.body_bytes += size
            left = consumer.credit_left = consumer.credit_left - 1
            if left == 0:
                queue.spent(consumer)
            entry.count = 1
            entry.consumer = consumer
            consumer.held.add(entry)
            sink = consumer.sink
            assert sink is not None
            try:
                sink.deliver(entry)
            except Exception as error:  # a front-end's fault must not reach the publisher
                self.consumer_failed(consumer, error)

    def _publish_transient(self, route: RouteHandle, message: Message) -> GatewayError | Unroutable | None:
        if route.rejecting_transient:
            refusal = self._make_room(route, route.rejecting_transient, message)
            if refusal is not None:
                return refusal
        for deliver, options, consumer in route.taps:
            try:
                deliver(message, options)
            except Exception as error:
                self.consumer_failed(consumer, error)
                consumer.queue.pump()
        for queue, options in route.queued:
            queue.enqueue_transient(message, options)
        if route.idle:
            self.events.dropped(route.address.routing_key, "offline", route.idle)
        if self.dead:
            self.burial.work_off()
        return None if route.matched else self._nowhere(route)

    def publish_run(self, route: RouteHandle, run: MessageRun) -> bool:
        """Publish a run of transient messages as `publish` would one by one; False: that is for `publish` to do.

        What needs no queue goes by as a whole: only consumers that can't take it so are handed its messages.
        """
        if route.generation != self.generation or route.through is not None or route.refusal is not None or route.queued:
            return False
        for deliver, options, consumer in route.taps:
            try:
                if consumer.takes_runs:
                    cast("RunSink", consumer.sink).deliver_run(run, options)
                else:
                    for message in run.messages():
                        deliver(message, options)
            except Exception as error:
                self.consumer_failed(consumer, error)
                consumer.queue.pump()
        if route.idle:
            self.events.dropped(route.address.routing_key, "offline", route.idle * run.count)
        if self.dead:
            self.burial.work_off()
        if not route.matched:
            self.events.unroutable(route.address, run.count)
        return True

    def _publish_low(self, route: RouteHandle, message: Message) -> None:
        """Hand a persistent message on to bindings that granted QoS 0."""
        for deliver, options, consumer in route.low_taps:
            try:
                deliver(message, options)
            except Exception as error:
                self.consumer_failed(consumer, error)
                consumer.queue.pump()
        for queue, options in route.low_queued:
            queue.enqueue_transient(message, options)
        if route.low_idle:
            self.events.dropped(route.address.routing_key, "offline", route.low_idle)

    def _make_room(self, route: RouteHandle, queues: list[Queue], message: Message) -> MessageRefused | None:
        """All or nothing: one full queue refuses the message for all. One that ends when it is full is deleted."""
        full = [queue for queue in queues if queue.is_full_for(len(message.body))]
        if not full:
            return None
        refusing = [queue for queue in full if queue.terms.overflow is not Overflow.END_QUEUE]
        for queue in refusing if message is not self.tried else ():
            if queue.terms.overflow is Overflow.REJECT_PUBLISH_DLX and queue.terms.dead_letter_exchange is not None:
                self.dead.append(Dead(queue, message, Reason.MAXLEN, None))
        if refusing:
            self.finish()
            return MessageRefused(f"queue {refusing[0].name!r} is full")
        for queue in full:
            self.events.dropped(queue.name, "queue ended", queue.count)
            self.definitions.remove_queue(queue, MessageRefused(f"queue {queue.name!r} was full, so it has ended"))
        self.resolve(route, message)
        return None

    def _nowhere(self, route: RouteHandle) -> GatewayError | Unroutable:
        if route.refusal is not None:
            return route.refusal
        self.events.unroutable(route.address)
        return UNROUTABLE

    def resolve(self, route: RouteHandle, message: Message, barred: Collection[Queue] = ()) -> None:
        """Find the queues of a route anew, but for those that are barred.

        A route that depends on headers, or other properties, is found anew for every message.
        """
        route.clear()
        route.refusal = None
        route.through = None
        address = route.address
        table = route.vhost.table

        def properties() -> Properties:
            try:
                return self.properties(message)
            except Exception as error:
                raise PreconditionFailed(f"the message's properties can't be decoded: {error}") from error

        try:
            spec = table.get(address.exchange).spec
            if spec.internal and not route.ours:
                raise AccessRefused(f"cannot publish to internal exchange '{address.exchange}' in vhost '{address.vhost}'")
            found, cacheable = table.resolve(address.exchange, address.routing_key, properties, route.also)
            route.through = self.special.through(address.vhost, spec)
        except GatewayError as error:
            route.refusal = error
            route.generation = STALE if isinstance(error, PreconditionFailed) else self.generation
            return
        if found:
            route.lead_to(
                [(queue, options) for queue, options in found.items() if isinstance(queue, Queue) and queue not in barred]
            )
        route.generation = self.generation if cacheable else STALE
