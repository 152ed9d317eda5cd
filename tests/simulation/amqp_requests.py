"""What do AMQP clients ask by direct reply-to, and who answers?"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from pamqp import commands

from gateway.api import Delivery, Message
from gateway.model.properties import COMMON, Properties, encode_properties
from tests.simulation.amqp_client import Role
from tests.simulation.amqp_roles import LASTING, AmqpConsumer
from tests.simulation.amqp_wire import Content
from tests.simulation.ledger import Sent
from tests.simulation.program import EXCHANGE, Worker, text_of

if TYPE_CHECKING:
    from tests.simulation.world import World

ASKS = "asks"
DIRECT = "amq.rabbitmq.reply-to"
RE = "re "
Basic = commands.Basic


class AmqpRequester(Role):
    """Asks, and is answered without a queue that it declares. ``open_``: what is not answered yet."""

    def __init__(self, name: str, world: World, answers: Counter[str]) -> None:
        super().__init__(name, world)
        self.count = 0
        self._answers = answers
        self.asked: set[str] = set()
        self.open_: set[str] = set()

    def begin(self) -> None:
        self.told: Counter[str] = Counter()
        self.say(Basic.Consume(queue=DIRECT, no_ack=True))

    def act(self) -> None:
        for _ in range(self.world.chance.randrange(4)):
            self.ask()

    def ask(self) -> None:
        self.count += 1
        text = f"{self.name} {self.count:06d}"
        data = self.world.padded(text)
        self.ledger.submit(text, data, Sent(self.who, self.count, "ask.x"))
        self.asked.add(text)
        self.open_.add(text)
        self.publish(EXCHANGE, "ask.x", data, delivery_mode=LASTING, reply_to=DIRECT, correlation_id=text)

    def heard(self, what: Any) -> None:
        match what:
            case Content(method=Basic.Deliver()):
                text = what.properties.correlation_id
                self.ledger.check(what.text == RE + text, f"{self.who} is told {what.text}, it says to be about {text}")
                self.ledger.check(text in self.asked, f"{self.who} is told of {text}, which it did not ask on this channel")
                self.told[text] += 1
                most = self._answers[text]
                self.ledger.check(
                    self.told[text] <= most, f"{self.who} is told {text} {self.told[text]} times, answered {most} times"
                )
                self.open_.discard(text)
                self.ledger.counts["answered to AMQP"] += 1
            case Basic.Cancel():
                self.ledger.check(False, f"{self.who} has lost its reply queue")

    def gone(self) -> None:
        self.asked.clear()
        self.open_.clear()


class AmqpReplier(AmqpConsumer):
    """Answers what is asked, and then acknowledges it."""

    def __init__(self, name: str, world: World, answers: Counter[str]) -> None:
        super().__init__(name, world, ASKS)
        self._answers = answers
        self._where: dict[str, str] = {}

    def heard(self, what: Any) -> None:
        if isinstance(what, Content) and isinstance(what.method, Basic.Deliver | Basic.GetOk):
            self._where[what.text] = what.properties.reply_to
        super().heard(what)

    def settled(self, text: str, how: str) -> None:
        if how == "ack":
            self._answers[text] += 1
            data = (RE + text).encode()
            self.publish("", self._where[text], data, correlation_id=text)
        super().settled(text, how)


class ProgramReplier(Worker):
    """Answers as well, by way of the gateway's own channels."""

    def __init__(self, name: str, world: World, answers: Counter[str]) -> None:
        super().__init__(name, world, ASKS)
        self._answers = answers

    def decided(self, what: Any, outcome: Any) -> None:
        if what == "consume":
            super().decided(what, outcome)

    def settle(self, delivery: Delivery) -> None:
        if self.world.chance.random() < 0.2:
            self.channel.nack(delivery, requeue=True)
            return
        said = self.world.gateway.properties(delivery.message)
        text = text_of(delivery.message.body)
        self._answers[text] += 1
        route = self.channel.route("", str(said.reply_to))
        wire = encode_properties(Properties(correlation_id=said.correlation_id))
        self.numbers[self.channel.publish(route, Message(route.address, (RE + text).encode(), False, COMMON, wire))] = "answer"
        self.channel.ack(delivery)
        self.world.ledger.ack(ASKS, text, certain=True)
