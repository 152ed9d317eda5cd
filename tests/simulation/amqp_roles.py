"""What do AMQP clients publish and consume, and what may they expect of it?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pamqp import commands

from tests.simulation.amqp_client import Role
from tests.simulation.amqp_wire import Content
from tests.simulation.ledger import Sent
from tests.simulation.program import EXCHANGE

if TYPE_CHECKING:
    from tests.simulation.world import World

NOWHERE = "nowhere.at.all"
LASTING, PASSING = 2, 1
MOST_KEPT = 2
"""So many channels of a publisher, one after the other, keep last values: MQTT clients are sent all that there are."""
_ONE_WORD = str.maketrans(".#", "--")
Basic = commands.Basic


class AmqpPublisher(Role):
    """Publishes, with confirms or without.

    ``unconfirmed``: by number on the channel. ``unanswered``: what was published without confirms, and how many messages queues
    had refused by then, of which such a publisher does not hear.
    """

    def __init__(self, name: str, world: World) -> None:
        super().__init__(name, world)
        self.count = 0
        self.unconfirmed: dict[int, str] = {}
        self.unanswered: dict[str, int] = {}
        self.confirms = False

    def begin(self) -> None:
        self.confirms = self.world.chance.random() < 0.8
        self.may_end = () if self.confirms else Role.may_end
        self.unconfirmed.clear()
        self.unanswered.clear()
        self._number = 0
        self._must: dict[str, bool] = {}
        if self.confirms:
            self.say(commands.Confirm.Select())

    def act(self) -> None:
        chance = self.world.chance
        for _ in range(chance.randrange(1, 12)):
            self.submit()
        if self._opened <= MOST_KEPT and chance.random() < 0.3:
            self.keep()
        if not self.confirms and chance.random() < 0.2:
            self.close()  # that it is closed says that it is done

    def submit(self, key: str | None = None) -> str:
        chance = self.world.chance
        self.count += 1
        text = f"{self.name} {self.count:06d}"
        key = key or chance.choice(("work.a", "work.b", "work.a", "work.b", "tx-in.a", "tx-in.a", NOWHERE))
        copies = chance.choice(("work.b", "tx-in.a")) if chance.random() < 0.1 else ""
        ttl_ms = chance.choice((None,) * 12 + (1, 50, 2_000))
        priority = chance.choice((0, 0, 1, 3, 9))
        persistent = chance.random() < 0.95
        mandatory = chance.random() < 0.3
        sent = Sent(self.who, self.count, key, priority, persistent=persistent, mortal=ttl_ms is not None, copies=copies)
        fields: dict[str, Any] = {"delivery_mode": LASTING if persistent else PASSING}
        if copies:
            fields["headers"] = {chance.choice(("CC", "BCC")): [copies, key]}
            sent.expected = tuple(dict.fromkeys(self.ledger.reaches(key) + self.ledger.reaches(copies))) if persistent else ()
        if ttl_ms is not None:
            fields["expiration"] = str(ttl_ms)
        if priority or chance.random() < 0.5:
            fields["priority"] = priority
        must = key == NOWHERE and not copies if mandatory else None
        self.hand_in(EXCHANGE, key, text, sent, must, **fields)
        return text

    def keep(self) -> None:
        """Publish a last value, of a key that is this channel's: what a former one said may come late."""
        self.count += 1
        text = f"{self.name} {self.count:06d}"
        key = f"last.{self.who.translate(_ONE_WORD)}"
        sent = Sent(self.who, self.count, key, retain=True)
        self.hand_in(EXCHANGE, key, text, sent, None, delivery_mode=LASTING, headers={"x-retain": True})

    def hand_in(self, exchange: str, key: str, text: str, sent: Sent, must: bool | None, **fields: Any) -> None:
        """Publish. `must`: it has to come back; None: it is not mandatory."""
        data = self.world.padded(text)
        self.ledger.submit(text, data, sent)
        self.publish(exchange, key, data, mandatory=must is not None, **fields)
        self._number += 1
        if self.confirms:
            self.unconfirmed[self._number] = text
        else:
            self.unanswered[text] = self._refusals()
        if must is not None:
            self._must[text] = must

    def _refusals(self) -> int:
        return int(self.world.broker.counters["refused.full"])

    def overheard(self, what: Any) -> None:
        match what:
            case Basic.Ack(delivery_tag=tag, multiple=multiple):
                self._decided(tag, multiple, self._confirmed)
            case Basic.Nack(delivery_tag=tag, multiple=multiple):
                self._decided(tag, multiple, self._refused)
            case Content(method=Basic.Return()):
                self._returned(what)

    def all_told(self) -> None:
        check = self.ledger.check
        check(not self.unconfirmed, f"{self.who} is closed, and was not told of {self.unconfirmed}")
        unanswered, self.unanswered = self.unanswered, {}
        for text, refusals in unanswered.items():
            if refusals == self._refusals():
                self._confirmed(text)
                self.ledger.counts["closed after it"] += 1

    def _decided(self, tag: int, multiple: bool, tell: Any) -> None:
        decided = [number for number in self.unconfirmed if number == tag or (multiple and number < tag)]
        self.ledger.check(decided, f"{self.who} hears of {tag}, which is not open")
        for number in decided:
            tell(self.unconfirmed.pop(number))

    def _confirmed(self, text: str) -> None:
        self.ledger.check(not self._must.pop(text, False), f"{text} was mandatory and went nowhere, but did not come back")
        self.ledger.confirm(text)
        self.ledger.counts["confirmed by AMQP"] += 1
        sent = self.ledger.sent[text]
        if sent.retain:
            self.ledger.retained[sent.key.replace(".", "/")] = sent.index
            self.ledger.counts["kept by AMQP"] += 1

    def _refused(self, text: str) -> None:
        self._must.pop(text, None)
        self.ledger.refuse(text)

    def _returned(self, content: Content) -> None:
        text = content.text
        sent = self.ledger.sent[text]
        self.ledger.check(text in self._must, f"{self.who} gets {text} back, and it was not mandatory, or is decided")
        self.ledger.check(not sent.expected, f"{text} comes back, but {sent.expected} should have it")
        self.ledger.check(content.body == self.ledger.bodies[text], f"{text} comes back with another body")
        self.ledger.counts["returned"] += 1
        self._must.pop(text)

    def gone(self) -> None:
        self.unconfirmed.clear()
        self.unanswered.clear()


class AmqpConsumer(Role):
    """Consumes a queue in all ways. ``held``: by tag, the text of a delivery, and its consumer; empty: it was asked for."""

    def __init__(self, name: str, world: World, queue: str) -> None:
        super().__init__(name, world)
        self.queue = queue
        self.held: dict[int, tuple[str, str]] = {}
        self.consumers: dict[str, bool] = {}

    def begin(self) -> None:
        chance = self.world.chance
        self.held.clear()
        self.consumers.clear()
        self._last_tag = self._count = self._recovering = 0
        self._each, self._all = chance.choice(((1, 0), (5, 0), (40, 0), (0, 1), (0, 4), (6, 10)))
        if self._each:
            self.say(Basic.Qos(0, self._each, False))
        if self._all:
            self.say(Basic.Qos(0, self._all, True))
        for _ in range(chance.randrange(1, 4)):
            self.consume()

    def consume(self) -> None:
        self._count += 1
        tag = f"{self.name}.{self._count}"
        self.consumers[tag] = False
        priority = self.world.chance.choice((0, 0, 2, -1))
        self.say(Basic.Consume(queue=self.queue, consumer_tag=tag, arguments={"x-priority": priority} if priority else {}))

    def act(self) -> None:
        chance = self.world.chance
        what = chance.random()
        if what < 0.6:
            self.settle()
        elif what < 0.7:
            self.say(Basic.Get(queue=self.queue))
        elif what < 0.74:
            self._recover()
        elif what < 0.8 and any(self.consumers.values()):
            tag = chance.choice([tag for tag, is_there in self.consumers.items() if is_there])
            self.consumers[tag] = False
            self.say(Basic.Cancel(consumer_tag=tag))
            self.consume()

    def go_on(self) -> None:
        """Take all there is."""
        if self.held and not self._recovering:
            if self.world.chance.random() < 0.1:
                self._recover()
            else:
                self._settle(max(self.held), True, "ack")

    def _recover(self) -> None:
        self.world.log(f"{self.who} recovers")
        self._recovering += 1
        self.held.clear()
        self.say(Basic.Recover(requeue=True))

    def settle(self) -> None:
        chance = self.world.chance
        for _ in range(chance.randrange(6)):
            if not self.held or self._recovering:
                return
            how = chance.choice(("ack",) * 8 + ("requeue", "requeue", "reject"))
            self._settle(chance.choice(list(self.held)), chance.random() < 0.3, how)

    def _settle(self, tag: int, multiple: bool, how: str) -> None:
        tags = [each for each in self.held if each == tag or (multiple and each < tag)]
        for text, _ in [self.held.pop(each) for each in tags]:
            self.settled(text, how)
        if how == "ack":
            self.say(Basic.Ack(tag, multiple))
        elif multiple or self.world.chance.random() < 0.5:
            self.say(Basic.Nack(tag, multiple, how == "requeue"))
        else:
            self.say(Basic.Reject(tag, how == "requeue"))

    def settled(self, text: str, how: str) -> None:
        if how == "ack":
            self.ledger.ack(self.queue, text)
        elif how == "reject":
            self.ledger.reject(self.queue, text)
        else:
            self.world.log(f"{self.who} gives back {text}")

    def heard(self, what: Any) -> None:
        match what:
            case Basic.ConsumeOk(consumer_tag=tag):
                self.consumers[tag] = True
            case Basic.CancelOk(consumer_tag=tag):
                del self.consumers[tag]
            case Basic.RecoverOk():
                self._recovering -= 1
            case Content(method=Basic.Deliver(consumer_tag=tag)):
                self.ledger.check(tag in self.consumers, f"{self.who} is sent something for {tag}, which is no consumer")
                self._delivered(what, tag)
            case Content(method=Basic.GetOk()):
                self._delivered(what, "")
                self.ledger.counts["got by AMQP"] += 1

    def _delivered(self, content: Content, consumer: str) -> None:
        if self.is_closing:
            return
        tag, text = content.method.delivery_tag, content.text
        self.ledger.check(tag == self._last_tag + 1, f"{self.who} is sent tag {tag} after {self._last_tag}")
        self._last_tag = tag
        self.ledger.check(self.ledger.bodies.get(text) == content.body, f"{self.who} is sent {text} with another body")
        self.ledger.delivered(
            self.queue, text, redelivered=content.method.redelivered, consumer=f"{self.name} {consumer.rpartition('.')[2]}"
        )
        self.ledger.counts["delivered by AMQP"] += 1
        if not self._recovering:
            self.held[tag] = (text, consumer)
            self._check_prefetch(consumer)
            self.took(text)

    def took(self, text: str) -> None:
        """A message is held from now on."""

    def _check_prefetch(self, consumer: str) -> None:
        if not consumer:
            return
        mine = sum(whose == consumer for _, whose in self.held.values())
        self.ledger.check(not self._each or mine <= self._each, f"{self.who} {consumer} holds {mine}, its prefetch is {self._each}")
        together = self.together()
        self.ledger.check(not self._all or together <= self._all, f"{self.who} holds {together}, its prefetch is {self._all}")

    def together(self) -> int:
        """Return what the consumers hold that is not settled."""
        return sum(bool(whose) for _, whose in self.held.values())

    def gone(self) -> None:
        self.held.clear()
        self.consumers.clear()
