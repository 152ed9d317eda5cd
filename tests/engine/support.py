"""An engine with a recorder for its events, and sinks that remember what they were handed."""

from __future__ import annotations

from collections.abc import Callable

from gateway.api.consumer import ConsumeOptions, Delivery
from gateway.engine.engine import Engine
from gateway.engine.queues.consumer import Consumer
from gateway.engine.queues.delivery import UNWRITTEN, Entry
from gateway.engine.queues.queue import Queue
from gateway.errors import GatewayError
from gateway.model.declare import Binding, BindingOptions, QueueSpec
from gateway.model.message import Address, Decoders, Message
from gateway.model.records import Batch, Page, PagedReference


class Events:
    def __init__(self) -> None:
        self.pages: list[tuple[int, int, int]] = []
        self.answers: list[tuple[object, int, Entry | None]] = []
        self.drops: list[tuple[str, str, int]] = []
        self.nowhere: list[Address] = []
        self.failures: list[tuple[str, Exception]] = []

    def page_wanted(self, queue_id: int, after_position: int, max_bytes: int) -> None:
        self.pages.append((queue_id, after_position, max_bytes))

    def scheduled_wanted(self, ids: list[int]) -> None:
        raise AssertionError(f"nothing was scheduled: {ids}")

    def got(self, channel: object, number: int, entry: Entry | None) -> None:
        self.answers.append((channel, number, entry))

    def returned(self, entry: Entry) -> None: ...

    def died(self, entry: Entry, reason: str) -> None: ...

    def dropped(self, queue: str, reason: str, amount: int) -> None:
        self.drops.append((queue, reason, amount))

    def unroutable(self, address: Address, messages: int = 1) -> None:
        self.nowhere += [address] * messages

    def consumer_failed(self, queue: str, error: Exception) -> None:
        self.failures.append((queue, error))


class Sink:
    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.transient: list[Message] = []
        self.cancellations: list[GatewayError] = []

    def deliver(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)

    def deliver_transient(self, message: Message, options: BindingOptions | None) -> None:
        self.transient.append(message)

    def cancelled(self, reason: GatewayError) -> None:
        self.cancellations.append(reason)

    @property
    def bodies(self) -> list[bytes]:
        return [delivery.message.body for delivery in self.deliveries]


class Bench:
    """An engine with one virtual host, and a disk that takes whatever is committed."""

    def __init__(self, window_budget: int = 8 * 1024 * 1024) -> None:
        self.events = Events()
        self.engine = Engine(self.events, Decoders().properties, window_budget=window_budget)
        self.disk: dict[int, list[Entry]] = {}
        self.stored_ms: dict[Entry, int] = {}
        self.segments = 0

    def queue(self, name: str = "q", **spec: object) -> None:
        self.engine.definitions.declare_queue("/", QueueSpec(name, **spec), None)

    def bind(self, exchange: str, queue: str, key: str, **options: object) -> None:
        binding = Binding(exchange, queue, key, options=BindingOptions(**options))
        self.engine.definitions.bind("/", binding, None)

    def publish(self, body: bytes, key: str = "q", exchange: str = "", *, persistent: bool = True, **more: object) -> object:
        route = self.engine.vhost("/").route(exchange, key)
        return self.engine.publish(route, Message(route.address, body, persistent, **more))

    def __getitem__(self, name: str) -> Queue:
        return self.engine.vhost("/").queues[name]

    def bodies(self, name: str = "q") -> list[bytes]:
        """Return what is ready in memory, in the order of handing out within a priority."""
        return [entry.message.body for entry in self[name].ready]

    def consume(self, queue: str = "q", sink: Sink | None = None, **options: object) -> tuple[Consumer, Sink]:
        sink = sink or Sink()
        held = self.engine.holdings.setdefault(sink, set())
        return self.engine.consume("/", queue, sink, ConsumeOptions(**options), held, sink), sink

    def close(self, sink: Sink, *consumers: Consumer) -> None:
        self.engine.close_channel(sink, consumers)

    def hand_over(self) -> Batch:
        """Give every reference of the open batch a segment, as a journal does."""
        batch = self.engine.take_batch()
        self.segments += 1
        for message in batch.messages:
            for reference in [message.first, *(message.more or ())] if message.live else []:
                if reference is not None and not reference.settled and reference.slot == UNWRITTEN:
                    reference.segment = self.segments
                    reference.slot = 0
                    self.disk.setdefault(reference.queue_id, []).append(reference)
                    self.stored_ms[reference] = self.engine.now_ms
            message.first = message.more = None
        self.engine.batch_prepared()
        return batch

    def commit(self) -> Batch:
        batch = self.hand_over()
        self.engine.committed()
        return batch

    def feed_pages(self, limit: int = 10**9) -> int:
        """Answer every page that was asked for, from what was committed."""
        answered = 0
        while self.events.pages:
            queue_id, after, _ = self.events.pages.pop(0)
            found = [r for r in self.disk.get(queue_id, []) if r.position > after and not r.settled][:limit]
            references = [
                PagedReference(r.message, r.position, r.options, r.segment, r.slot, 0, self.stored_ms.get(r, 0)) for r in found
            ]
            self.engine.page_loaded(Page(queue_id, references), after)
            answered += 1
        return answered


BenchFactory = Callable[[], Bench]
