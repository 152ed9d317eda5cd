"""A whole broker under a virtual clock: a journal that is slow, fails and forgets, peers that come and go, and a seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import trio

from gateway.api.channel import ConsumeOptions, Delivery
from gateway.api.frontend import Principal
from gateway.errors import JournalError
from gateway.journal.memory import MemoryCommit, MemoryJournal, MemoryStore
from gateway.model.declare import Binding, BindingOptions, QueueSpec
from gateway.model.message import Message
from tests.runtime.support import Log, running

QUEUES = ("jobs", "copies")
EXCHANGE = "amq.topic"


class FaultyJournal(MemoryJournal):
    """Takes its time, fails now and then, and when it is cut off may or may not have stored what it was at."""

    def __init__(self, store: MemoryStore, chance: random.Random, *, failures: float) -> None:
        super().__init__(store)
        self._chance = chance
        self._failures = failures
        self._under_way: MemoryCommit | None = None
        self._off = False

    def write(self, commit: MemoryCommit, done: Callable[[JournalError | None], None]) -> None:
        if self._off:
            return
        self._under_way = commit
        trio.lowlevel.spawn_system_task(self._write, commit, done)

    async def _write(self, commit: MemoryCommit, done: Callable[[JournalError | None], None]) -> None:
        await trio.sleep(self._chance.uniform(0.0001, 0.02))
        if self._under_way is not commit:
            return
        if self._chance.random() < self._failures:
            done(JournalError("no luck"))
            return
        self._store(commit)
        self._under_way = None
        done(None)

    def cut(self) -> None:
        """The power goes."""
        self._off = True
        commit, self._under_way = self._under_way, None
        if commit is not None and self._chance.random() < 0.5:
            self._store(commit)

    def close(self, *, clean: bool = True) -> None:
        if clean:
            super().close()


class Publisher:
    """Publishes numbered messages on a channel; remembers which it was promised."""

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.world = world
        self.numbers: dict[int, str] = {}
        self.count = 0

    def open(self, gateway: Any) -> None:
        self.numbers.clear()
        self.channel = gateway.open_channel(Principal("p"), self)

    def on_outcomes(self, through: int, exceptions: Any) -> None:
        refused = {outcome.number for outcome in exceptions if outcome.error is not None or outcome.unroutable}
        for number in [number for number in self.numbers if number <= through]:
            text = self.numbers.pop(number)
            if number not in refused:
                self.world.confirmed.add(text)

    def publish(self) -> None:
        self.count += 1
        text = f"{self.name} {self.count:06d}"
        route = self.channel.route(EXCHANGE, f"work.{self.name}")
        self.numbers[self.channel.publish(route, Message(route.address, text.encode(), True))] = text


class Worker:
    """Consumes a queue, settles what it likes, comes back when it is gone."""

    def __init__(self, queue: str, world: World) -> None:
        self.queue = queue
        self.world = world
        self.open_deliveries: list[Delivery] = []

    def open(self, gateway: Any) -> None:
        self.gateway = gateway
        self.open_deliveries.clear()
        self.channel = gateway.open_channel(Principal("w"), self)
        self.channel.consume(self.queue, self, ConsumeOptions(prefetch=self.world.chance.choice((1, 7, 100))))

    def on_outcomes(self, through: int, exceptions: Any) -> None:
        pass

    def deliver(self, delivery: Delivery) -> None:
        self.open_deliveries.append(delivery)

    def deliver_transient(self, message: Message, options: BindingOptions | None) -> None:
        raise AssertionError("these queues keep everything")

    def cancelled(self, reason: Exception) -> None:
        raise AssertionError(reason)

    def act(self) -> None:
        chance = self.world.chance
        if chance.random() < 0.02:
            self.channel.close()
            self.open(self.gateway)
            return
        for delivery in chance.sample(self.open_deliveries, min(len(self.open_deliveries), chance.randrange(12))):
            self.open_deliveries.remove(delivery)
            if chance.random() < 0.9:
                self.world.acked[self.queue].add(delivery.message.body.decode())
                self.channel.ack(delivery)
            else:
                self.channel.nack(delivery, requeue=True)


class World:
    """Several lives of one broker over one store.

    ``confirmed``: what publishers were promised. ``acked``: by queue, what a worker has settled.
    """

    def __init__(self, seed: int, *, failures: float = 0.1, window_bytes: int = 65_536) -> None:
        self.chance = random.Random(seed)
        self.failures = failures
        self.window_bytes = window_bytes
        self.store = MemoryStore()
        self.confirmed: set[str] = set()
        self.acked: dict[str, set[str]] = {queue: set() for queue in QUEUES}
        self.publishers = [Publisher(name, self) for name in ("a", "b")]
        self.workers = [Worker(queue, self) for queue in ("jobs", "jobs", "copies")]

    async def live(self, steps: int) -> None:
        """Run a broker for some steps, then cut the power."""
        journal = FaultyJournal(self.store, self.chance, failures=self.failures)
        async with running(journal, queue_memory_bytes=self.window_bytes) as broker:
            gateway = broker.gateway("sim", lambda _: None, Log())
            await self._declare(gateway)
            for peer in [*self.publishers, *self.workers]:
                peer.open(gateway)
            for _ in range(steps):
                self._step()
                if self.chance.random() < 0.3:
                    await trio.sleep(self.chance.uniform(0, 0.01))
            journal.cut()

    async def _declare(self, gateway: Any) -> None:
        channel = gateway.open_channel(Principal("d"))
        for queue in QUEUES:
            await channel.outcome(channel.declare_queue(QueueSpec(queue)))
            await channel.outcome(channel.bind(Binding(EXCHANGE, queue, "work.#")))

    def _step(self) -> None:
        actor = self.chance.choice([*self.publishers, *self.publishers, *self.workers])
        if isinstance(actor, Publisher):
            for _ in range(self.chance.randrange(1, 30)):
                actor.publish()
        else:
            actor.act()

    async def left(self, queue: str) -> list[str]:
        """Start once more, with a disk that works, and take everything that the queue still has, in order."""
        journal = FaultyJournal(self.store, self.chance, failures=0)
        found: list[str] = []
        async with running(journal, queue_memory_bytes=self.window_bytes) as broker:
            gateway = broker.gateway("sim", lambda _: None, Log())
            channel = gateway.open_channel(Principal("d"))
            while True:
                outcome = await channel.outcome(channel.get(queue))
                if outcome.result is None:
                    return found
                found.append(outcome.result.message.body.decode())
