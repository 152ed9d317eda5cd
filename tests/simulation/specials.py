"""What do programs do at exchanges that look for repetitions, delay, or keep last values, and at queues that expire?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.api import Binding, ConsumeOptions, ExchangeSpec, GatewayError, Message, QueueSpec
from gateway.model.properties import COMMON, Properties, encode_properties
from tests.simulation.ledger import State
from tests.simulation.program import EXCHANGE, Program, Publisher, Worker, text_of
from tests.simulation.queues import KEPT

if TYPE_CHECKING:
    from tests.simulation.world import World

EXPIRES_MS = 300


def _message(address: Any, body: bytes, properties: Properties) -> Message:
    return Message(address, body, True, COMMON, encode_properties(properties))


class Repeater(Publisher):
    """Publishes with message ids, and again whatever it likes: only what was refused may come twice."""

    def __init__(self, name: str, world: World) -> None:
        super().__init__(name, world)
        self.tries: Counter[str] = Counter()
        self._tried: set[str] = set()
        self._refused: set[str] = set()

    def begin_life(self) -> None:
        super().begin_life()
        self._tried.clear()

    def act(self) -> None:
        chance = self.world.chance
        for _ in range(chance.randrange(1, 10)):
            if self.count and chance.random() < 0.4:
                self.repeat(f"{self.name} {chance.randint(max(1, self.count - 30), self.count):06d}")
            else:
                text, body, sent = self._next("once.a", ordered=False)
                self.world.ledger.submit(text, body, sent)
                self._submit(text, body)

    def repeat(self, text: str) -> None:
        ledger = self.world.ledger
        known = ledger.sent[text].state is State.CONFIRMED or text in self._tried or ledger.bodies[text] in ledger.landed
        ledger.again(text, anew=self.world.forgets_ids or text in self._refused or not known)
        self._submit(text, ledger.bodies[text])

    def _submit(self, text: str, body: bytes) -> None:
        route = self.channel.route("once", "once.a")
        self.tries[text] += 1
        self._tried.add(text)
        self.numbers[self.channel.publish(route, _message(route.address, body, Properties(message_id=text)))] = text

    def decided(self, what: Any, outcome: Any) -> None:
        refused = outcome is not None and outcome.error is not None
        if refused:
            self._refused.add(what)
        if not refused or self.tries[what] == 1:  # what became of another try nobody knows
            super().decided(what, outcome)


class Delayer(Publisher):
    """Publishes what is to come later."""

    def act(self) -> None:
        chance = self.world.chance
        for _ in range(chance.randrange(1, 8)):
            delay_ms = chance.choice((0, 1, 40, 700, 20_000))
            text, body, sent = self._next("later.a", delayed=True)
            self.world.rules.due[text] = self.world.engine.now_ms + delay_ms
            self.world.ledger.submit(text, body, sent)
            route = self.channel.route("later", "later.a")
            number = self.channel.publish(route, _message(route.address, body, Properties(headers={"x-delay": delay_ms})))
            self.numbers[number] = text


@dataclass(slots=True)
class Change:
    """What somebody did to the last value of a key. ``text``: None: there is none any more."""

    text: str | None
    expires_at_ms: int
    confirmed: bool = False

    def is_over(self, now_ms: int) -> bool:
        return 0 < self.expires_at_ms <= now_ms


class Keeper(Program):
    """Puts and clears last values that expire or don't; deletes their exchange, and declares it again."""

    def __init__(self, name: str, world: World) -> None:
        super().__init__(name, world)
        self.changes: dict[str, list[Change]] = {f"kept.{letter}": [] for letter in "abc"}
        self.count = 0

    def act(self) -> None:
        chance = self.world.chance
        self.look(self.channel)
        what = chance.random()
        if what < 0.1:
            self.world.log(f"{self.name} deletes its exchange")
            number = self.channel.delete_exchange(KEPT)
            self.numbers[number] = self._change(list(self.changes), None, 0)
        elif what < 0.5:
            self.channel.declare_exchange(ExchangeSpec(KEPT, "topic"))
        for _ in range(chance.randrange(4)):
            self.put()

    def put(self) -> None:
        chance = self.world.chance
        key = chance.choice(list(self.changes))
        self.count += 1
        text = f"{self.name} {self.count:06d}" if chance.random() < 0.8 else None
        ttl_ms = chance.choice((0, 0, 150, 4_000)) if text else 0
        ends_ms = self.world.engine.now_ms + ttl_ms if ttl_ms else 0
        route = self.channel.route(KEPT, key)
        body = (text or "").encode()
        self.channel.retain(route, Message(route.address, body, True, expires_at_ms=ends_ms))
        number = self.channel.publish(route, Message(route.address, body, True))
        if self.channel.refused(number) is None:
            self.numbers[number] = self._change([key], text, ends_ms)

    def _change(self, keys: list[str], text: str | None, ends_ms: int) -> list[Change]:
        changes = []
        for key in keys:
            self.world.log(f"{key} is to be {text} until {ends_ms}")
            changes.append(Change(text, ends_ms))
            self.changes[key].append(changes[-1])
        return changes

    def decided(self, what: Any, outcome: Any) -> None:
        for change in what if outcome is None or outcome.error is None else ():
            change.confirmed = True

    def look(self, channel: Any) -> None:
        """Compare what is there with what was confirmed, and with what may have happened since."""
        now_ms = self.world.engine.now_ms
        there = {message.routing_key: text_of(message.body) for message in channel.retained(KEPT, "kept.#")}
        for key, changes in self.changes.items():
            sure = max((at for at, change in enumerate(changes) if change.confirmed), default=-1)
            del changes[: max(sure, 0)]
            text = there.get(key)
            if text is not None:
                holds = any(change.text == text and not change.is_over(now_ms) for change in changes)
            else:
                latest_ms = max(now_ms, self.world.rules.latest_ms)
                holds = sure < 0 or any(change.text is None or change.is_over(latest_ms) for change in changes)
            self.world.ledger.check(holds, f"{key} has the last value {text} at {now_ms}, after {changes}")


class Lodger(Worker):
    """Uses a queue that goes when it is not used."""

    def __init__(self, name: str, world: World) -> None:
        super().__init__(name, world, "fleeting")
        self.prefetch = 50
        self.declared = False
        self.late_ms = 0

    def begin_life(self) -> None:
        super().begin_life()
        self.declared = False

    def open(self) -> None:
        Program.open(self)
        self.held.clear()
        self.consumer = None

    def decided(self, what: Any, outcome: Any) -> None:
        if what == "consume":
            self.consumer = outcome.result if outcome.error is None else None

    def cancelled(self, reason: GatewayError) -> None:
        self.world.ledger.check(self.world.is_dead, f"fleeting is gone, though it has a consumer: {reason.text}")

    def act(self) -> None:
        chance = self.world.chance
        self.look()
        what = chance.random()
        if what < 0.35 and self.consumer is None and not self.numbers:
            self.declare()
        elif what < 0.6 and self.declared and self.consumer is None and not self.numbers:
            self.used_ms = self.world.engine.now_ms
            self.numbers[self.channel.consume(self.queue, self, ConsumeOptions(prefetch=50))] = "consume"
        elif what < 0.75 and self.consumer is not None:
            self.channel.cancel(self.consumer)
            self.consumer = None
            self.used_ms = self.world.engine.now_ms
        for delivery in self.held:
            self.channel.ack(delivery)
            self.world.ledger.ack(self.queue, text_of(delivery.message.body), certain=True)
        self.held.clear()

    def declare(self) -> None:
        self.channel.declare_queue(QueueSpec(self.queue, expires_ms=EXPIRES_MS))
        self.declared = self.channel.queue_exists(self.queue)  # it may have been refused
        if self.declared:
            self.channel.bind(Binding(EXCHANGE, self.queue, "work.b"))
            self.used_ms = self.world.engine.now_ms

    def look(self) -> None:
        """It must be there as long as it is used, and no longer."""
        if not self.declared:
            return
        idle_ms = self.world.engine.now_ms - self.used_ms
        there = self.channel.queue_exists(self.queue)
        used = self.consumer is not None or idle_ms < EXPIRES_MS
        self.world.ledger.check(there or used is False, f"fleeting is gone, {idle_ms} ms after it was used")
        if not there or used or not self.world.is_calm or self.numbers:
            self.late_ms = 0
        else:  # there must have been a turn in which it could go
            self.world.ledger.check(
                not 0 < self.late_ms < self.used_ms + idle_ms - 10, f"fleeting is there, {idle_ms} ms after its use"
            )
            self.late_ms = self.late_ms or self.used_ms + idle_ms
        self.declared = there
