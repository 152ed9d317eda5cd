"""What do plain REQ clients and REP workers do to a broker, and programs that ask with an address for the answer?"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from gateway.api import ConsumeOptions, Delivery, Message
from gateway.model.properties import COMMON, Properties, encode_properties
from tests.simulation.ledger import Sent
from tests.simulation.program import Publisher, text_of
from tests.simulation.questions import PART, RE, Book
from tests.simulation.sockets import ANSWERS, ASKED, REPLY_TIMEOUT_S, REQ_TIMEOUT_S

if TYPE_CHECKING:
    from tests.simulation.libzmq import Peer
    from tests.simulation.world import World

TICK_S = 0.5
A_MOMENT_S = 0.001
"""Times are not exact."""
PREFETCH = 10


class Questioner(Publisher):
    """Asks by way of a queue, and takes answers from another, where they have taken the place of what was asked."""

    def __init__(self, name: str, world: World, books: dict[str, Book]) -> None:
        super().__init__(name, world)
        self._books = books
        self._of: dict[str, Book] = {}

    def open(self) -> None:
        super().open()
        self.held: list[Delivery] = []
        self.numbers[self.channel.consume(ANSWERS, self, ConsumeOptions(prefetch=PREFETCH))] = None

    def act(self) -> None:
        chance = self.world.chance
        if chance.random() < 0.03:
            self.channel.close()
            self.open()
        for _ in range(chance.randrange(4)):
            self.ask(self._books[chance.choice(list(self._books))])
        self.settle(0.7)

    def settle(self, share: float) -> None:
        for delivery in list(self.held):
            if self.world.chance.random() < share:
                self.held.remove(delivery)
                self.channel.ack(delivery)
                text = text_of(delivery.message.body)
                self.world.log(f"{self.name} has {text}")
                if text.startswith(RE):
                    self._of[text.removeprefix(RE)].got.add(text.removeprefix(RE))
            elif self.world.chance.random() < 0.2:
                self.held.remove(delivery)
                self.channel.nack(delivery, requeue=True)

    def ask(self, book: Book) -> None:
        if not self.channel.queue_exists(book.queue):
            return
        text, body, sent = self._next(book.queue, expected=(book.queue,))
        self.world.ledger.submit(text, body, sent)
        book.moved.add(text)
        self._of[text] = book
        route = self.channel.route("", book.queue)
        properties = Properties(reply_to=ANSWERS, correlation_id=text)
        number = self.channel.publish(route, Message(route.address, body, True, COMMON, encode_properties(properties)))
        if self.channel.refused(number) is not None:
            self.world.ledger.refuse(text, at_once=True)
        self.numbers[number] = text

    def decided(self, what: Any, outcome: Any) -> None:
        if what is not None:
            super().decided(what, outcome)

    def deliver(self, delivery: Delivery) -> None:
        if self.world.is_dead:
            return
        text = text_of(delivery.message.body)
        self.world.log(f"{self.name} is told {text}")
        name = text.removeprefix(RE).removeprefix(PART)
        self.world.ledger.check(text != name and name in self._of, f"{self.name} is told {text!r}, which it did not ask")
        if text.startswith(RE):
            self._of[name].came(name, redelivered=delivery.redelivered)
        self.held.append(delivery)

    def deliver_transient(self, message: Any, options: Any) -> None:
        raise AssertionError("what is asked lasts, so do answers")

    def cancelled(self, reason: Any) -> None:
        raise AssertionError(reason)


class RepWorker:
    """A plain REP socket that is connected to the DEALER endpoint: answers in turn, or dies first.

    ``out``: what it was sent, and when.
    """

    def __init__(self, name: str, world: World, book: Book) -> None:
        self.name = name
        self.world = world
        self.book = book
        self.peer: Peer | None = None

    def begin_life(self) -> None:
        self.peer = None

    def still_has(self, text: str) -> bool:
        since = self.out.get(text)
        if since is None or self.peer is None or self.world.sockets.workers.alone_at > since:
            return False
        return trio.current_time() < since + REPLY_TIMEOUT_S - A_MOMENT_S

    def connect(self) -> None:
        self.out: dict[str, float] = {}
        self.held: list[bytes] | None = None
        self.world.log(f"{self.name} connects")
        self.peer = self.world.sockets.workers.meet(self.name.encode(), self.world.next_descriptor())
        self.peer.told = self._sent

    def _sent(self, frames: list[bytes]) -> None:
        text = text_of(frames[-1])
        self.book.handed(text, self)
        self.out[text] = trio.current_time()

    def act(self) -> None:
        if self.peer is None:
            self.connect()
            return
        what = self.world.chance.random()
        if what < 0.85:
            self.answer(self.world.chance.randrange(1, 6))
        elif what < 0.93:
            self.go()

    def go(self) -> None:
        if self.peer is not None:
            self.world.log(f"{self.name} is gone")
            self.peer.leave()
            self.peer = None

    def answer(self, most: int) -> None:
        for frames in self.peer.take(most) if self.peer is not None else ():
            assert self.peer is not None
            text = text_of(frames[-1])
            self.world.log(f"{self.name} answers {text}")
            self.peer.say(*frames[:-1], (RE + text).encode(), taken=partial(self._answered, text))

    def _answered(self, text: str) -> None:
        self.out.pop(text, None)
        self.book.answered(text)


class ReqClient:
    """A plain REQ socket: asks, waits for its answer or its refusal, and asks again.

    ``question``: what has no answer. ``since``: when the broker took it.
    """

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.world = world
        self.count = 0
        self.peer: Peer | None = None
        self.question: str | None = None

    def begin_life(self) -> None:
        self.peer = None

    def begin(self) -> None:
        """Be there, and have asked something."""
        if self.peer is None:
            self.connect()
        self.read()
        if self.question is None:
            self.ask()

    def act(self) -> None:
        self.begin()
        if self.world.chance.random() < 0.05:
            self.go()

    def connect(self) -> None:
        self.question = None
        self.since: float | None = None
        self.peer = self.world.sockets.questions.meet(self.world.sockets.given_name(), self.world.next_descriptor())

    def go(self) -> None:
        if self.peer is not None:
            self.world.log(f"{self.name} is gone")
            self.peer.leave()
            self.peer = None

    def ask(self) -> None:
        assert self.peer is not None
        self.count += 1
        text = self.question = f"{self.name} {self.count:06d}"
        self.since = None
        body = self.world.padded(text)
        self.world.ledger.submit(text, body, Sent(self.name, self.count, ASKED, persistent=False))
        self.peer.say(b"", body, taken=partial(self._taken, text))

    def _taken(self, text: str) -> None:
        if text == self.question:
            self.since = trio.current_time()

    def read(self) -> None:
        check = self.world.ledger.check
        for frames in self.peer.take() if self.peer is not None else ():
            text = text_of(frames[-1])
            self.world.log(f"{self.name} is told {text}")
            check(self.question is not None, f"{self.name} is told {text!r}, and asks nothing")
            check(frames[0] == b"", f"{self.name} is sent {frames[0]!r} in the place of the empty frame")
            refused = len(frames) == 3
            check(refused or text == RE + str(self.question), f"{self.name} asked {self.question}, and is told {text!r}")
            self.world.ledger.counts["REQ refused" if refused else "REQ answered"] += 1
            self.question = None
        if self.question is not None and self.since is not None:
            late_s = trio.current_time() - self.since - REQ_TIMEOUT_S - 2 * TICK_S
            check(late_s < 0, f"{self.name} waits for an answer to {self.question}, or for a refusal")
