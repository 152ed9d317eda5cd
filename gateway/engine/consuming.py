"""Who takes messages out of queues?"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from gateway.api.consumer import ConsumeOptions, ConsumerSink
from gateway.engine.queues.aging import strip
from gateway.engine.queues.consumer import Consumer
from gateway.engine.queues.delivery import Entry
from gateway.engine.queues.queue import Queue
from gateway.engine.settling import Settling
from gateway.errors import AccessRefused, GatewayError


class Later:
    """Answer of `Engine.get` when the messages are on disk: it comes by `EngineEvents.got`."""


LATER = Later()


class Consuming(Settling):
    """Consumers, and single messages that are asked for."""

    def consume(
        self, vhost: str, name: str, sink: ConsumerSink, options: ConsumeOptions, held: set[Entry], owner: object
    ) -> Consumer:
        """Add a consumer. `held` collects what it has not settled; `owner` is who may use exclusive queues.

        Raises:
            NotFound: no such queue. ResourceLocked: another owner's. AccessRefused: somebody consumes exclusively, or wants to
            where others do, or may come to (a single active consumer).
        """
        queue = self.definitions.usable_queue(vhost, name, owner)
        alone = options.exclusive and (bool(queue.consumers) or queue.spec.single_active_consumer)
        if alone or (queue.consumers and queue.consumers[0].exclusive):
            raise AccessRefused(f"queue '{name}' in vhost '{vhost}' in exclusive use")
        consumer = Consumer(queue, sink, options, held, owner)
        if not queue.spec.keep_transient:
            self.generation += 1
        queue.add_consumer(consumer)
        return consumer

    def cancel(self, consumer: Consumer) -> None:
        """End a consumer; an auto-delete queue goes with its last one."""
        if not consumer.active:
            return
        self._end(consumer)
        if consumer.queue.line is not None and not consumer.queue.deleted:
            consumer.queue.pump()
            self.finish()

    def close_channel(self, channel: object, consumers: Iterable[Consumer] = ()) -> None:
        """End a channel's consumers and put back all that it holds, in order, before anybody takes over."""
        lined: dict[Queue, None] = {}
        for consumer in list(consumers):
            if consumer.active:
                self._end(consumer)
                if consumer.queue.line is not None:
                    lined[consumer.queue] = None
        self._put_back(channel)
        for queue in lined:
            if not queue.deleted:
                queue.pump()
        self.finish()
        for vhost in self.vhosts.values():
            vhost.forget_stale(self.generation)

    def _end(self, consumer: Consumer) -> None:
        queue = consumer.queue
        queue.remove_consumer(consumer)
        if not queue.spec.keep_transient:
            self.generation += 1
        if queue.spec.auto_delete and not queue.consumers and not queue.deleted:
            self.definitions.remove_queue(queue)

    def consumer_failed(self, consumer: Consumer, error: Exception) -> None:
        """Cancel a consumer whose sink raised; what it holds is put back when its channel closes. The caller pumps."""
        self.events.consumer_failed(consumer.queue.name, error)
        if consumer.active:
            self._end(consumer)
        consumer.fail(GatewayError(f"the consumer's sink failed: {error!r}"))

    def get(self, queue: Queue, consumer: Consumer, channel: object, number: int) -> Entry | Later | None:
        """Take one message for `consumer`; None: the queue is empty; LATER: `EngineEvents.got` brings it to `channel`."""
        queue.used()
        if queue.paged and not (queue.turns is None and queue.lane.ready):
            queue.want_page()  # what is in memory comes at once
        if queue.waiting:
            queue.filled()  # who has waited longer goes first
        entry = queue.take(consumer) if not queue.waiting else None
        later = entry is None and queue.paged > 0
        if later:
            if queue.waiting is None:
                queue.waiting = deque()
            queue.waiting.append((channel, number, consumer))
            self.getting[queue] = None
        queue.want_page()
        if queue.mortal:
            strip(queue)
        self.finish()
        return LATER if later else entry

    def forget_waiting(self, channel: object) -> None:
        """Answer no `get` of this channel any more. Cost: all that wait for a page."""
        for queue in list(self.getting):
            queue.waiting = deque(waiter for waiter in queue.waiting or () if waiter[0] is not channel)
            if not queue.waiting:
                del self.getting[queue]
