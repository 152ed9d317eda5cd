"""Who asks and who answers in a world, and is everything answered in the end?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import trio

from gateway.api import QueueSpec
from tests.simulation.asking import Questioner, RepWorker, ReqClient
from tests.simulation.ledger import Shape, Wrong
from tests.simulation.majordomo import FIRST, QUEUE, SECOND, MdpClient, MdpWorker
from tests.simulation.program import text_of
from tests.simulation.questions import Book
from tests.simulation.sockets import ANSWERS, ASKED, ASKED_KEY

if TYPE_CHECKING:
    from tests.simulation.world import World

PATIENCE = 400
STEP_S = 0.05


class Services:
    """All that is asked in a world, by ZeroMQ or to be answered by it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.books = {queue: Book(world.ledger, queue) for queue in (ASKED, QUEUE)}
        self.clients: list[MdpClient] = []
        self.workers: list[MdpWorker] = []
        self.plain: list[RepWorker] = []
        self.callers: list[ReqClient] = []

    def make_actors(self) -> Iterator[Any]:
        world, chance = self.world, self.world.chance
        mdp = self.books[QUEUE]
        for number in range(chance.randrange(1, 4)):
            version, is_named = chance.choice((FIRST, SECOND)), chance.random() < 0.6
            self.clients.append(MdpClient(f"c{number}", world, mdp, version=version, is_named=is_named))
        for number in range(chance.randrange(1, 4)):
            version, is_named = chance.choice((FIRST, SECOND)), chance.random() < 0.5
            self.workers.append(MdpWorker(f"v{number}", world, mdp, version=version, is_named=is_named))
        self.plain += [RepWorker(f"rep{number}", world, self.books[ASKED]) for number in range(chance.randrange(1, 4))]
        self.callers += [ReqClient(f"req{number}", world) for number in range(chance.randrange(3))]
        yield from (*self.clients, *self.workers, *self.plain, *self.callers)
        self.questioner = Questioner("asks", world, self.books)
        yield self.questioner

    async def declare(self, channel: Any) -> None:
        """Make the queue of answers; say what the others, which the front-end makes, have to keep; look at what is there."""
        await channel.outcome(channel.declare_queue(QueueSpec(ANSWERS)))
        for queue, patterns in ((ASKED, {ASKED_KEY: 2}), (QUEUE, {QUEUE: 2})):
            self.world.ledger.shapes.setdefault(queue, Shape(patterns=patterns, exact=False))
        for book in self.books.values():
            book.begin_life()
        if self.world.directory is None:
            answers = self._stored(ANSWERS)
            for book in self.books.values():
                book.look(self._stored(book.queue), answers)

    def _stored(self, queue: str) -> list[str]:
        found = self.world.engine.vhost("/").queues.get(queue)
        if found is None:
            return []
        lanes = [lane for lane in self.world.engine.queues_by_id.values() if lane.queue is found]
        references = [self.world.store.references.get(lane.id, {}) for lane in lanes]
        return [text_of(reference.message.body) for lane in references for reference in lane.values()]

    def answered(self, text: str) -> None:
        """A worker of Majordomo has answered, in time."""
        for client in self.clients:
            client.answered(text)

    def close(self, left: dict[str, list[str]]) -> None:
        """Settle accounts with what is left, before it is audited."""
        answers = left.pop(ANSWERS, [])
        for book in self.books.values():
            book.close(left.get(book.queue, []), answers)

    # -- at the end

    async def settle(self) -> None:
        """Have everything answered, after some trouble."""
        chance = self.world.chance
        for _ in range(chance.randrange(40)):
            chance.choice((*self.clients, *self.workers, *self.plain)).act()
            await trio.sleep(chance.uniform(0, STEP_S))
            self.world.check(0)
        for client in self.clients:
            if client.peer is None:
                client.connect()
            client.ask_again(patience_s=0)
        for caller in self.callers:
            caller.begin()
        for _ in range(PATIENCE):
            self._go_on()
            await trio.sleep(STEP_S)
            self.world.check(0)
            if not self._open():
                return
        raise Wrong(f"not everything is answered: {self._open()}")

    def _go_on(self) -> None:
        for worker in (*self.workers, *self.plain):
            if worker.peer is None:
                worker.connect()
        for worker in self.workers:
            worker.go_on()
        for plain in self.plain:
            plain.answer(10)
        for client in (*self.clients, *self.callers):
            client.read()
        self.questioner.settle(1.0)

    def _open(self) -> dict[str, Any]:
        questions: dict[str, Any] = {client.name: list(client.open) for client in self.clients}
        questions |= {caller.name: caller.question for caller in self.callers}
        queues = self.world.engine.vhost("/").queues
        for queue in (queues[name] for name in (ASKED, QUEUE, ANSWERS) if name in queues):
            asleep = 0 if queue.returns is None else len(queue.returns)  # the clock was set back: it may be long
            questions[queue.name] = queue.count - asleep
        return {name: what for name, what in questions.items() if what}
