"""What do AMQP clients declare and delete, and is it there, and gone, as they were told?"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any, NamedTuple

from pamqp import base, commands

from tests.simulation.amqp_client import OVERLOADED
from tests.simulation.amqp_roles import LASTING, AmqpPublisher
from tests.simulation.amqp_wire import Content
from tests.simulation.ledger import Ledger, Sent, Shape
from tests.simulation.program import EXCHANGE
from tests.simulation.queues import DEAD, OWN

if TYPE_CHECKING:
    from tests.simulation.world import World

Basic, Exchange, Queue = commands.Basic, commands.Exchange, commands.Queue
HIT, MISS = "hit", "miss"
DEADLY = {"x-dead-letter-exchange": DEAD}
ARGUMENTS: tuple[dict[str, Any], ...] = (
    {},
    {"x-max-priority": 3},
    DEADLY,
    {**DEADLY, "x-max-length": 15},
    {**DEADLY, "x-message-ttl": 400},
)


class House:
    """What one client has declared for itself: a queue for what hits, and one for all else, by way of an alternate exchange.

    ``is_bound``: something hits.
    """

    def __init__(self, name: str, arguments: dict[str, Any]) -> None:
        self.arguments = arguments
        self.is_bound = True
        self.exchange, self.alternate = f"{OWN}x-{name}", f"{OWN}y-{name}"
        self.hits, self.strays = f"{OWN}hits-{name}", f"{OWN}strays-{name}"


class Land:
    """All that was declared and deleted in a world.

    ``there``: by queue, whether it has to be there, or must not be; absent: nobody was told. ``gone``: by queue, what was deleted
    with it.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.there: dict[str, bool] = {}
        self.gone: dict[str, set[str]] = defaultdict(set)

    def close(self, left: dict[str, list[str]]) -> None:
        """Look at the queues that there are, and at what they have."""
        for queue, is_there in self.there.items():
            self._ledger.check(queue in left or not is_there, f"{queue} was declared, and is not there")
            self._ledger.check(queue not in left or is_there, f"{queue} was deleted, and is there")
        for queue, texts in self.gone.items():
            back = texts.intersection(left.get(queue, ()))
            self._ledger.check(not back, f"{queue} was deleted with {back}, and has it")


class Asked(NamedTuple):
    """A method that is not answered. ``doomed``: what is deleted with its queue. ``matters``: the house depends on it."""

    answer: type[base.Frame]
    queue: str = ""
    doomed: tuple[str, ...] = ()
    matters: bool = True


class AmqpTenant(AmqpPublisher):
    """Declares, binds, unbinds and deletes, publishes to what it has, and takes what comes.

    Methods are said one behind the other, with publishes and all, and answered when they are on disk. ``wanted``: by topic, the
    index that its last value has at least, and which has not come yet though it was asked for.
    """

    def __init__(self, name: str, world: World, land: Land) -> None:
        super().__init__(name, world)
        self.land = land
        self.house: House | None = None
        self.asked: deque[Asked] = deque()
        self.held: dict[int, tuple[str, str]] = {}
        self.wanted: dict[str, int] = {}
        self._houses = 0

    def begin(self) -> None:
        super().begin()
        self.may_end = (OVERLOADED,)
        self._queues: dict[str, str] = {}
        self._gotten: dict[int, str] = {}
        self._mine: list[tuple[str, str]] = []
        self._last_tag = 0
        if self.house is None:
            self._build()
        else:
            self._ask(Queue.Declare(queue=self.house.hits, passive=True), Queue.DeclareOk)
            self._ask(Queue.Declare(queue=self.house.strays, passive=True), Queue.DeclareOk)
            self._put(self.house, HIT)
            self._put(self.house, MISS)
        if self.world.chance.random() < 0.5:
            self._lodge()
        self._consume()

    def _ask(self, method: base.Frame, answer: type[base.Frame], queue: str = "", **facts: Any) -> None:
        self.say(method)
        asked = Asked(answer, queue, **facts)
        if asked.matters:
            self.land.there.pop(queue, None)
        self.asked.append(asked)

    def _build(self) -> None:
        self._houses += 1
        house = self.house = House(f"{self.name}-{self._houses}", self.world.chance.choice(ARGUMENTS))
        deadly = "x-dead-letter-exchange" in house.arguments
        self.ledger.shapes[house.hits] = Shape(to_graves=deadly, exact=False)
        self.ledger.shapes[house.strays] = Shape(exact=False)
        otherwise = {"alternate-exchange": house.alternate}
        topic = Exchange.Declare(exchange=house.exchange, exchange_type="topic", durable=True, arguments=otherwise)
        self._ask(topic, Exchange.DeclareOk)
        self._ask(Exchange.Declare(exchange=house.alternate, exchange_type="fanout", durable=True), Exchange.DeclareOk)
        self._ask(Queue.Declare(queue=house.strays, durable=True), Queue.DeclareOk, house.strays)
        self._ask(Queue.Bind(queue=house.strays, exchange=house.alternate), Queue.BindOk)
        self._declare_hits(house)

    def _declare_hits(self, house: House) -> None:
        self._ask(Queue.Declare(queue=house.hits, durable=True, arguments=house.arguments), Queue.DeclareOk, house.hits)
        self._bind(house)

    def _bind(self, house: House) -> None:
        house.is_bound = True
        self._ask(Queue.Bind(queue=house.hits, exchange=house.exchange, routing_key=HIT), Queue.BindOk)

    def _lodge(self) -> None:
        """Have a queue that goes with the connection."""
        assert self.house is not None
        queue = f"{OWN}{self.who}"
        self.land.there[queue] = False  # in the end nobody is connected
        self._ask(Queue.Declare(queue=queue, exclusive=True, durable=True), Queue.DeclareOk, matters=False)
        self._ask(Queue.Bind(queue=queue, exchange=self.house.alternate), Queue.BindOk, matters=False)
        if self.world.chance.random() < 0.5:
            self.wanted = dict(self.ledger.retained)
            bind = Queue.Bind(queue=queue, exchange=EXCHANGE, routing_key="last.#", arguments={"x-last-values": True})
            self._ask(bind, Queue.BindOk, matters=False)
        self._consume_from(queue, no_ack=True)

    def _consume(self) -> None:
        assert self.house is not None
        for queue in (self.house.hits, self.house.strays):
            if self.world.chance.random() < 0.6:
                self._consume_from(queue)

    def _consume_from(self, queue: str, *, no_ack: bool = False) -> None:
        tag = f"{self.name}.{len(self._queues)}"
        self._queues[tag] = queue
        self._ask(Basic.Consume(queue=queue, consumer_tag=tag, no_ack=no_ack), Basic.ConsumeOk, matters=False)

    # -- what it does

    def act(self) -> None:
        chance = self.world.chance
        house = self.house
        assert house is not None
        what = chance.random()
        if what < 0.45:
            for _ in range(chance.randrange(1, 6)):
                self._put(house, chance.choice((HIT, HIT, MISS)))
        elif what < 0.75:
            self._settle()
        elif what < 0.8:
            queue = chance.choice((house.hits, house.strays))
            self._ask(Basic.Get(queue=queue), Basic.GetOk, queue, matters=False)
        elif what < 0.9:
            if house.is_bound:
                house.is_bound = False
                gone = Queue.Unbind(queue=house.hits, exchange=house.exchange, routing_key=HIT)
                self._ask(gone, Queue.UnbindOk)
            else:
                self._bind(house)
        else:
            self._rebuild(house)

    def _put(self, house: House, key: str) -> None:
        self.count += 1
        text = f"{self.name} {self.count:06d}"
        queue = house.hits if key == HIT and house.is_bound else house.strays
        sent = Sent(self.who, self.count, f"{queue} {key}", expected=(queue,))
        self.hand_in(house.exchange, key, text, sent, False, delivery_mode=LASTING)
        self._mine.append((queue, text))

    def _settle(self) -> None:
        chance = self.world.chance
        for tag in [tag for tag in self.held if chance.random() < 0.6]:
            queue, text = self.held.pop(tag)
            what = chance.random()
            if what < 0.7:
                self.ledger.ack(queue, text)
                self.say(Basic.Ack(tag))
            elif what < 0.85:
                self.say(Basic.Reject(tag, requeue=True))
            else:
                self.ledger.reject(queue, text)
                self.say(Basic.Reject(tag, requeue=False))

    def _rebuild(self, house: House) -> None:
        """Delete a queue with all it has, and declare it again."""
        queue = house.hits
        self.world.log(f"{self.who} deletes {queue}")
        self.ledger.forgive(queue)
        doomed = tuple(text for where, text in self._mine if where == queue)
        self._ask(Queue.Delete(queue=queue), Queue.DeleteOk, queue, doomed=doomed)
        if self.world.chance.random() < 0.3:
            self.house = None  # it moves
            self._build()
        else:
            self._declare_hits(house)
        self._consume()

    # -- what it is told

    def overheard(self, what: Any) -> None:
        match what:
            case Content(method=Basic.Deliver(consumer_tag=tag)):
                self._check_there(self._queues[tag], what.text)
                self._look_for(what.text)
            case Content(method=Basic.GetOk(delivery_tag=number)):
                queue = self._gotten[number] = self._answered(Basic.GetOk).queue
                self._check_there(queue, what.text)
            case Basic.GetEmpty():
                self._answered(Basic.GetOk)
            case (
                Basic.ConsumeOk() | Exchange.DeclareOk() | Queue.DeclareOk() | Queue.DeleteOk() | Queue.BindOk() | Queue.UnbindOk()
            ):
                self._promised(self._answered(type(what)))
            case _:
                super().overheard(what)

    def _check_there(self, queue: str, text: str) -> None:
        self.ledger.check(text not in self.land.gone[queue], f"{queue} was deleted with {text}, and delivers it")

    def _look_for(self, text: str) -> None:
        sent = self.ledger.sent[text]
        topic = sent.key.replace(".", "/")
        if sent.retain and sent.index >= self.wanted.get(topic, sent.index + 1):
            del self.wanted[topic]
            self.ledger.counts["last values to AMQP"] += 1

    def _answered(self, answer: type[base.Frame]) -> Asked:
        asked = self.asked.popleft() if self.asked else None
        self.ledger.check(asked is not None and asked.answer is answer, f"{self.who} is answered {answer}, it has asked {asked}")
        assert asked is not None
        return asked

    def _promised(self, asked: Asked) -> None:
        queue = asked.queue
        if not queue:
            return
        is_there = asked.answer is Queue.DeclareOk
        if not any(later.queue == queue and later.matters for later in self.asked):
            self.land.there[queue] = is_there
        self.land.gone[queue].update(asked.doomed)
        self.ledger.counts["declared" if is_there else "deleted"] += 1

    def all_told(self) -> None:
        super().all_told()
        self.ledger.check(not self.asked, f"{self.who} is closed, and was not answered {self.asked}")

    def heard(self, what: Any) -> None:
        match what:
            case Content(method=Basic.Deliver(consumer_tag=tag, delivery_tag=number)):
                self._delivered(what, number, self._queues[tag], tag)
            case Content(method=Basic.GetOk(delivery_tag=number)):
                self._delivered(what, number, self._gotten[number], self.name)

    def _delivered(self, content: Content, number: int, queue: str, consumer: str) -> None:
        if self.is_closing:
            return
        text = content.text
        self.ledger.check(number == self._last_tag + 1, f"{self.who} is sent tag {number} after {self._last_tag}")
        self._last_tag = number
        self.ledger.check(self.ledger.bodies.get(text) == content.body, f"{self.who} is sent {text} with another body")
        if not self.ledger.sent[text].retain:  # that may come as a last value, and live
            self.ledger.delivered(queue, text, redelivered=content.method.redelivered, consumer=consumer)
        self.ledger.counts["delivered to tenants"] += 1
        if queue in self.ledger.shapes:  # all others are consumed without acknowledgements
            self.held[number] = (queue, text)

    def gone(self) -> None:
        """What was asked and not answered may have happened, or happen yet: what the client had is left to itself."""
        super().gone()
        self.held.clear()
        self.wanted.clear()
        if self.house is not None and any(asked.matters for asked in self.asked):
            self.world.log(f"{self.name} moves")
            self.house = None
        self.asked.clear()
