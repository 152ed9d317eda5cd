"""What do programs do that speak to the broker by channels, as AMQP clients would?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.api import BindingOptions, ConsumeOptions, Delivery, GatewayError, Message, NotFound, Principal
from tests.simulation.ledger import Sent
from tests.simulation.queues import WILLS
from tests.simulation.rules import RETURNS

if TYPE_CHECKING:
    from tests.simulation.world import World

EXCHANGE = "amq.topic"


def text_of(body: bytes) -> str:
    return body.decode().partition("\n")[0]


def origin_of(world: World, delivery: Delivery) -> str:
    """Return the queue whose dead letter it is; empty: it is none."""
    deaths = (world.gateway.properties(delivery.message).headers or {}).get("x-death")
    return str(deaths[0]["queue"]) if deaths else ""


class Program:
    """Has a channel, and opens it anew in every life."""

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.world = world

    def begin_life(self) -> None:
        self.open()

    def open(self) -> None:
        self.numbers: dict[int, Any] = {}
        self.channel = self.world.gateway.open_channel(Principal(self.name), self)

    def on_outcomes(self, through: int, exceptions: Any) -> None:
        if self.world.is_dead:
            return
        odd = {outcome.number: outcome for outcome in exceptions}
        for number in [number for number in self.numbers if number <= through]:
            self.decided(self.numbers.pop(number), odd.get(number))

    def decided(self, what: Any, outcome: Any) -> None:
        raise NotImplementedError


class Publisher(Program):
    """Publishes numbered messages; remembers which it was promised."""

    def __init__(self, name: str, world: World) -> None:
        super().__init__(name, world)
        self.count = 0

    def act(self) -> None:
        chance = self.world.chance
        if chance.random() < 0.01:
            self.channel.close()
            self.open()
        if chance.random() < 0.08:
            self.schedule()
            return
        for _ in range(chance.randrange(1, 20)):
            self.publish()

    def _next(self, key: str, **facts: Any) -> tuple[str, bytes, Sent]:
        self.count += 1
        text = f"{self.name} {self.count:06d}"
        return text, self.world.padded(text), Sent(self.name, self.count, key, **facts)

    def publish(self) -> None:
        chance = self.world.chance
        ttl_ms = chance.choice((0,) * 12 + (1, 50, 2_000))
        persistent = chance.random() < 0.95
        priority = chance.choice((0, 0, 1, 3, 9))
        key = chance.choice(("work.a", "work.b"))
        text, body, sent = self._next(key, priority=priority, persistent=persistent, mortal=ttl_ms > 0)
        self.world.ledger.submit(text, body, sent)
        route = self.channel.route(EXCHANGE, key)
        expires_at_ms = self.world.gateway.now_ms() + ttl_ms if ttl_ms else 0
        number = self.channel.publish(route, Message(route.address, body, persistent, "", b"", priority, expires_at_ms))
        if self.channel.refused(number) is not None:
            self.world.ledger.refuse(text, at_once=True)
        self.numbers[number] = text

    def schedule(self) -> None:
        chance = self.world.chance
        text, body, sent = self._next("work.a", delayed=True)
        sent.expected = tuple(name for name in self.world.ledger.reaches("work.a") if not name.startswith("mqtt."))
        self.world.ledger.submit(text, body, sent)
        route = self.channel.route(EXCHANGE, "work.a")
        due_ms = self.world.gateway.now_ms() + chance.choice((-5, 1, 30, 500, 20_000))
        self.numbers[self.channel.schedule(route, Message(route.address, body, True), due_ms)] = text

    def decided(self, what: Any, outcome: Any) -> None:
        ledger = self.world.ledger
        if outcome is None or outcome.error is None:
            if outcome is not None and outcome.unroutable:
                ledger.check(not ledger.sent[what].expected, f"{what} reached no queue, not even {ledger.sent[what].expected}")
            ledger.confirm(what)
        elif what not in ledger.never:
            ledger.refuse(what)


class Worker(Program):
    """Consumes a queue, settles what it likes, comes back when it is gone."""

    def __init__(self, name: str, world: World, queue: str) -> None:
        super().__init__(name, world)
        self.queue = queue
        self.opened = 0
        self.who = name
        self.held: list[Delivery] = []

    def open(self) -> None:
        super().open()
        self.held.clear()
        self.consumer: Any = None
        self.prefetch = self.world.chance.choice((1, 5, 50))
        options = ConsumeOptions(prefetch=self.prefetch, priority=self.world.chance.choice((0, 0, 1)))
        self.opened += 1
        self.who = f"{self.name}#{self.opened}"
        self.world.rules.joins(self.queue, self.who, options.priority)
        self.numbers[self.channel.consume(self.queue, self, options)] = "consume"

    def decided(self, what: Any, outcome: Any) -> None:
        self.consumer = outcome.result
        if outcome.error is not None:
            self.world.rules.leaves(self.queue, self.who)
            self.world.log(f"{self.name} can't consume: {outcome.error.text}")

    def deliver(self, delivery: Delivery) -> None:
        if self.world.is_dead:
            return
        self.held.append(delivery)
        ledger = self.world.ledger
        mine = len(self.channel._held)
        ledger.check(mine <= self.prefetch, f"{self.name} holds {mine}, its prefetch is {self.prefetch}")
        text, origin = text_of(delivery.message.body), self.origin(delivery)
        ledger.delivered(self.queue, text, redelivered=delivery.redelivered, origin=origin)
        if self.queue == WILLS:
            self.world.testaments.came(text)
        if self.queue not in ledger.inexact:
            self.world.rules.delivered(self.queue, self.who, delivery, text, origin, self.world.engine.now_ms)

    def origin(self, delivery: Delivery) -> str:
        """Return whose dead letter it is."""
        return origin_of(self.world, delivery)

    def deliver_transient(self, message: Message, options: BindingOptions | None) -> None:
        raise AssertionError("these queues keep everything")

    def cancelled(self, reason: GatewayError) -> None:
        self.world.log(f"{self.name} is cancelled")
        self.world.rules.leaves(self.queue, self.who)
        self.consumer = None
        self.held.clear()

    def act(self) -> None:
        chance = self.world.chance
        if self.consumer is None and not self.numbers:
            self.come_back()
        elif chance.random() < 0.03:
            self.world.log(f"{self.name} goes and comes back")
            self.come_back()
        for delivery in chance.sample(self.held, min(len(self.held), chance.randrange(20))):
            if delivery not in self.held:  # its queue is gone by now
                continue
            self.held.remove(delivery)
            try:
                self.settle(delivery)
            except NotFound:  # its lease has ended, or its queue is gone
                self.world.log(f"{self.name} is late")

    def come_back(self) -> None:
        self.world.rules.leaves(self.queue, self.who)
        self.channel.close()
        self.open()

    def settle(self, delivery: Delivery) -> None:
        chance = self.world.chance
        text, origin = text_of(delivery.message.body), self.origin(delivery)
        what = chance.random()
        if self.queue in RETURNS and chance.random() < 0.4:
            what = 0.8
        self.world.rules.may_settle(self.queue, self.who, delivery, text, origin)
        if what < 0.75 or self.queue == "graves":
            self.channel.ack(delivery)
            self.world.ledger.ack(self.queue, text, self.origin(delivery), certain=True)
        elif what < 0.87:
            self.world.log(f"{self.name} gives back {text}")
            self.channel.nack(delivery, requeue=True)
        elif what < 0.92:
            self.world.log(f"{self.name} gives back {text}, for later")
            self.world.ledger.postponed.add(text)
            self.channel.nack(delivery, requeue=True, delay_ms=chance.choice((1, 100, 3_000)))
        elif what < 0.96:
            self.channel.extend(delivery, chance.choice((1, 500)))
            self.held.append(delivery)
        else:
            self.channel.nack(delivery, requeue=False)
            self.world.ledger.reject(self.queue, text)


class Asker(Worker):
    """Takes messages one at a time."""

    def open(self) -> None:
        Program.open(self)
        self.held.clear()

    def deliver(self, delivery: Delivery) -> None:
        self.held.append(delivery)
        text, late = text_of(delivery.message.body), delivery.redelivered
        self.world.ledger.delivered(self.queue, text, redelivered=late, origin=self.origin(delivery), consumer=self.name)

    def decided(self, what: Any, outcome: Any) -> None:
        if outcome.error is None and outcome.result is not None:
            self.deliver(outcome.result)

    def act(self) -> None:
        chance = self.world.chance
        if chance.random() < 0.05:
            self.channel.close()
            self.open()
        self.consumer = self
        for _ in range(chance.randrange(4)):
            self.numbers[self.channel.get(self.queue)] = "get"
        for delivery in list(self.held):
            if chance.random() < 0.6:
                self.held.remove(delivery)
                try:
                    self.settle(delivery)
                except NotFound:
                    self.world.log(f"{self.name} is late")
