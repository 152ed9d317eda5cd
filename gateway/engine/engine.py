"""What happens when a message comes in, goes out, is settled? The only object that changes the broker's state."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from gateway.api.channel import ConsumeOptions, ConsumerSink
from gateway.engine.consumer import Consumer
from gateway.engine.definitions import Definitions
from gateway.engine.delivery import UNWRITTEN, Entry
from gateway.engine.events import EngineEvents
from gateway.engine.kept import Kept
from gateway.engine.queue import Queue
from gateway.engine.route import STALE, RouteHandle
from gateway.engine.timers import Timers
from gateway.engine.vhost import VirtualHost
from gateway.errors import AccessRefused, GatewayError, MessageRefused, NotFound, Overloaded, PreconditionFailed, ResourceLocked
from gateway.model.declare import Overflow
from gateway.model.message import Message
from gateway.model.properties import Properties
from gateway.model.records import Batch, Page, Record, Retained, StatePut

DEFAULT_WINDOW_BYTES = 8 * 1024 * 1024


class Unroutable:
    """Answer of `Engine.publish` for a message that reached no queue."""


class Later:
    """Answer of `Engine.get` when the messages are on disk: it comes by `EngineEvents.got`."""


UNROUTABLE = Unroutable()
LATER = Later()


class Engine:
    """The queue engine: synchronous, never awaits, checks everything before it changes anything.

    What must last joins `batch`; the committer takes it with `take_batch` and tells when it is on disk.
    ``generation`` rises with every change that routes depend on. ``holdings``: per channel, what it holds unsettled.
    ``backlogs``: queues of which something beyond the window is not on disk yet.

    Args:
        events: who is told what is no answer to a call.
        properties: decodes a message's properties (for headers exchanges).
        node_id: a name of this start, for names that the engine chooses.
        window_budget: bytes of memory that a durable queue's head may take before the rest stays on disk.
    """

    def __init__(
        self,
        events: EngineEvents,
        properties: Callable[[Message], Properties],
        *,
        node_id: str = "0",
        window_budget: int = DEFAULT_WINDOW_BYTES,
    ) -> None:
        self.events: EngineEvents = events
        self.properties: Callable[[Message], Properties] = properties
        self.window_budget: int = window_budget
        self.batch: Batch = Batch()
        self.generation: int = 0
        self.vhosts: dict[str, VirtualHost] = {}
        self.queues_by_id: dict[int, Queue] = {}
        self.holdings: dict[object, set[Entry]] = {}
        self.backlogs: dict[Queue, None] = {}
        self.refusal: GatewayError | None = None
        self.now_ms: int = 0
        self.timers: Timers = Timers()
        self.definitions: Definitions = Definitions(self, node_id)
        self.kept: Kept = Kept(self)

    def vhost(self, name: str) -> VirtualHost:
        """Return a virtual host; it exists as soon as it is named."""
        vhost = self.vhosts.get(name)
        if vhost is None:
            vhost = self.vhosts[name] = VirtualHost(name)
        return vhost

    def advance(self, now_ms: int) -> None:
        """Do what is due by now; wall time in ms since 1970."""
        self.now_ms = now_ms
        self.timers.run(now_ms)

    # -- publishing ---------------------------------------------------------

    def publish(self, route: RouteHandle, message: Message) -> GatewayError | Unroutable | None:
        """Put a message into every queue that its route reaches; None: they have it.

        Returns:
            UNROUTABLE: there is none. A GatewayError: refused, no queue has it.
        """
        if route.generation != self.generation:
            self._resolve(route, message)
        if not message.persistent:
            return self._publish_transient(route, message)
        if route.durable and self.refusal is not None:
            return self.refusal
        if route.rejecting:
            refusal = self._make_room(route, route.rejecting, message)
            if refusal is not None:
                return refusal
        if route.durable:
            self._publish_durable(route, message)
        else:
            for queue, options in route.stored:
                queue.enqueue(message, options)
        if route.low_taps or route.low_queued or route.low_idle:
            self._publish_low(route, message)
        if route.matched:
            return None
        return self._nowhere(route)

    def _make_room(self, route: RouteHandle, queues: list[Queue], message: Message) -> MessageRefused | None:
        """All or nothing: one full queue refuses the message for all. One that ends when it is full is deleted."""
        ending: list[Queue] = []
        for queue in queues:
            if queue.is_full_for(len(message.body)):
                if queue.spec.overflow is not Overflow.END_QUEUE:
                    return MessageRefused(f"queue {queue.name!r} is full")
                ending.append(queue)
        for queue in ending:
            self.events.dropped(queue.name, "queue ended", queue.count)
            self.definitions.remove_queue(queue, NotFound(f"queue {queue.name!r} was full, so it has ended"))
        if ending:
            self._resolve(route, message)
        return None

    def _publish_durable(self, route: RouteHandle, message: Message) -> None:
        """Let a message join the open batch. It counts as live until every queue has it: one may drop it at once."""
        batch = self.batch
        batch.messages.append(message)
        batch.body_bytes += len(message.body)
        message.live = 1
        for queue, options in route.stored:
            queue.enqueue(message, options)
        message.live -= 1
        if message.live:
            batch.unsettled += 1
        else:
            message.first = None
            message.more = None

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
        for queue, options in route.queued:
            queue.enqueue_transient(message, options)
        if route.idle:
            self.events.dropped(route.address.routing_key, "offline", route.idle)
        if route.matched:
            return None
        return self._nowhere(route)

    def _publish_low(self, route: RouteHandle, message: Message) -> None:
        """Hand a persistent message on to bindings that granted QoS 0."""
        for deliver, options, consumer in route.low_taps:
            try:
                deliver(message, options)
            except Exception as error:
                self.consumer_failed(consumer, error)
        for queue, options in route.low_queued:
            queue.enqueue_transient(message, options)
        if route.low_idle:
            self.events.dropped(route.address.routing_key, "offline", route.low_idle)

    def _nowhere(self, route: RouteHandle) -> GatewayError | Unroutable:
        if route.refusal is not None:
            return route.refusal
        self.events.unroutable(route.address)
        return UNROUTABLE

    def _resolve(self, route: RouteHandle, message: Message) -> None:
        """Find the queues of a route anew; one that depends on headers is found anew for every message."""
        route.clear()
        route.refusal = None
        address = route.address
        table = route.vhost.table

        def headers() -> Mapping[str, Any]:
            try:
                return self.properties(message).headers or {}
            except Exception as error:
                raise PreconditionFailed(f"the message's properties can't be decoded: {error}") from error

        try:
            if table.get(address.exchange).spec.internal:
                raise AccessRefused(f"exchange {address.exchange!r} is internal")
            found, cacheable = table.resolve(address.exchange, address.routing_key, headers)
        except GatewayError as error:
            route.refusal = error
            route.generation = STALE if isinstance(error, PreconditionFailed) else self.generation
            return
        for queue, options in found.items():
            assert isinstance(queue, Queue)
            route.add(queue, options)
        route.generation = self.generation if cacheable else STALE

    # -- settling -----------------------------------------------------------

    def ack(self, entry: Entry) -> None:
        """Settle a delivery on a consumer's word; what is wholly settled in the open batch is never written.

        Raises:
            NotFound: its consumer does not hold it.
        """
        consumer = entry.consumer
        if consumer is None or entry not in consumer.held:
            raise NotFound("unknown delivery tag")
        consumer.held.discard(entry)
        self.settle(entry)
        if not consumer.manual_credit:
            left = consumer.credit_left = consumer.credit_left + 1
            if left == 1 and consumer.able:
                consumer.queue.consumer_able(consumer)

    def settle(self, entry: Entry) -> None:
        """Take an entry out of its queue for good."""
        if entry.settled:
            return
        entry.settled = True
        message = entry.message
        queue = entry.queue
        queue.count -= 1
        queue.body_bytes -= len(message.body)
        if entry.segment is not None:
            self.batch.settled.append(entry)
        elif entry.slot == UNWRITTEN:
            message.live -= 1
            if message.live == 0:
                message.first = None
                message.more = None
                self.batch.unsettled -= 1

    def settle_automatically(self, entry: Entry) -> None:
        """Take out an entry that nobody acknowledged: it is written first if it has to be (no elision)."""
        if entry.segment is None and entry.slot == UNWRITTEN:
            self.batch.deferred.append(entry)
            entry.queue.gone(entry)
        else:
            self.settle(entry)

    def handed_over(self, entry: Entry) -> None:
        """Settle a delivery automatically: it went where no acknowledgement comes from. Raises as `ack`."""
        consumer = entry.consumer
        if consumer is None or entry not in consumer.held:
            raise NotFound("unknown delivery tag")
        consumer.held.discard(entry)
        self.settle_automatically(entry)
        if not consumer.manual_credit:
            consumer.credit(1)

    def nack(self, entry: Entry, *, requeue: bool) -> None:
        """Put a delivery back to its old place, or reject it. Raises as `ack`."""
        consumer = entry.consumer
        if consumer is None or entry not in consumer.held:
            raise NotFound("unknown delivery tag")
        consumer.held.discard(entry)
        queue = entry.queue
        if requeue and not queue.deleted:
            queue.requeue(entry)
        else:
            if not queue.deleted:
                self.events.dropped(queue.name, "rejected", 1)
            self.settle(entry)
        if not consumer.manual_credit:
            consumer.credit(1)
        queue.pump()

    def _requeue_all(self, held: set[Entry]) -> None:
        """Put back everything that a closing channel holds, in order."""
        entries = sorted(held, key=lambda entry: entry.position, reverse=True)
        held.clear()
        queues: dict[Queue, None] = {}
        for entry in entries:
            if entry.queue.deleted:
                self.settle(entry)
            else:
                entry.queue.requeue(entry)
                queues[entry.queue] = None
        for queue in queues:
            queue.pump()

    # -- consuming ----------------------------------------------------------

    def consume(
        self, vhost: str, name: str, sink: ConsumerSink, options: ConsumeOptions, held: set[Entry], owner: object
    ) -> Consumer:
        """Add a consumer. `held` collects what it has not settled; `owner` is who may use exclusive queues.

        Raises:
            NotFound: no such queue. ResourceLocked: another owner's, or somebody consumes exclusively.
        """
        queue = self.definitions.usable_queue(vhost, name, owner)
        if queue.consumers and (options.exclusive or queue.consumers[0].exclusive):
            raise ResourceLocked(f"queue {name!r} is consumed exclusively")
        consumer = Consumer(queue, sink, options, held, owner)
        if not queue.spec.keep_transient:
            self.generation += 1
        queue.add_consumer(consumer)
        return consumer

    def cancel(self, consumer: Consumer) -> None:
        """End a consumer; an auto-delete queue goes with its last one."""
        if not consumer.active:
            return
        queue = consumer.queue
        queue.remove_consumer(consumer)
        if not queue.spec.keep_transient:
            self.generation += 1
        if queue.spec.auto_delete and not queue.consumers and not queue.deleted:
            self.definitions.remove_queue(queue)

    def consumer_failed(self, consumer: Consumer, error: Exception) -> None:
        """Cancel a consumer whose sink raised; what it holds is put back when its channel closes."""
        self.events.consumer_failed(consumer.queue.name, error)
        self.cancel(consumer)
        consumer.fail(GatewayError(f"the consumer's sink failed: {error!r}"))

    def get(self, queue: Queue, consumer: Consumer, channel: object, number: int) -> Entry | Later | None:
        """Take one message for `consumer`; None: the queue is empty; LATER: `EngineEvents.got` brings it to `channel`."""
        if not queue.ready:
            queue.want_page()  # what is in memory comes at once
        entry = queue.take(consumer)
        if entry is None and queue.backlog is not None:
            queue.waiting.append((channel, number, consumer))
            queue.want_page()
            return LATER
        queue.want_page()
        return entry

    def forget_waiting(self, channel: object) -> None:
        """Answer no `get` of this channel any more."""
        for queue in [queue for vhost in self.vhosts.values() for queue in vhost.queues.values() if queue.waiting]:
            queue.waiting = deque(waiter for waiter in queue.waiting if waiter[0] is not channel)

    def close_channel(self, channel: object) -> None:
        """Put back all that a channel holds."""
        held = self.holdings.pop(channel, None)
        if held:
            self._requeue_all(held)

    # -- the journal's side -------------------------------------------------

    def take_batch(self) -> Batch:
        """Return the open batch, which is the journal's from now on, and open a new one."""
        batch = self.batch
        self.batch = Batch()
        return batch

    def batch_prepared(self) -> None:
        """The batch that was taken has its segments."""
        for queue in self.backlogs:
            if queue.backlog is not None:
                queue.backlog.handed_over()

    def committed(self) -> None:
        """The batch that was taken is on disk."""
        for queue in list(self.backlogs):
            if queue.backlog is not None:
                queue.backlog.committed()
                queue.want_page()
            if queue.backlog is None or not queue.backlog.fresh:
                self.backlogs.pop(queue, None)

    def page_loaded(self, page: Page, after_position: int) -> None:
        """Take a page that `EngineEvents.page_wanted` asked for."""
        queue = self.queues_by_id.get(page.queue_id)
        if queue is not None and not queue.deleted:
            queue.page_loaded(after_position, page.references, page.lost)

    def replay(self, record: Record) -> None:
        """Take a fact that the journal kept. Only at start, before anything else."""
        if isinstance(record, Retained | StatePut):
            self.kept.replay(record)
        else:
            self.definitions.replay(record)

    def refuse_durable(self, reason: str) -> None:
        """Refuse what must last until `accept_durable`: the journal can't take it."""
        self.refusal = Overloaded(reason)

    def accept_durable(self) -> None:
        """Undo `refuse_durable`."""
        self.refusal = None
