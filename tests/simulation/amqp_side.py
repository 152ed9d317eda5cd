"""Which AMQP clients are there in a world, what do they have to themselves, and does all of it come to rest?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import trio

from gateway.api import Binding, Overflow, QueueSpec
from gateway_amqp.server import Server
from gateway_amqp.settings import AmqpSettings
from tests.simulation.amqp_client import EVERYTHING, AmqpClient, Role
from tests.simulation.amqp_requests import ASKS, AmqpReplier, AmqpRequester, ProgramReplier
from tests.simulation.amqp_roles import AmqpConsumer, AmqpPublisher
from tests.simulation.amqp_tenants import AmqpTenant, Land
from tests.simulation.amqp_transactions import INPUTS, OUTPUTS, STRICT, AmqpTransactor, TxBook
from tests.simulation.ledger import Shape, Wrong
from tests.simulation.program import EXCHANGE, Worker
from tests.simulation.tgp_client import TgpClient
from tests.simulation.wires import SimGateway

if TYPE_CHECKING:
    from tests.simulation.world import World

SHARED = "amqp"
"""Consumed by AMQP clients, by a TGP client, and by programs on channels."""
QUEUES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    SHARED: ("work.#", {}, {"exact": False}),
    INPUTS: ("tx-in.#", {}, {"exact": False}),
    OUTPUTS: ("tx.#", {}, {}),
    STRICT: ("tx.b", {"max_length": 25, "overflow": Overflow.REJECT_PUBLISH}, {}),
    ASKS: ("ask.#", {}, {"exact": False}),
}
"""By what it is bound, how it is declared, its `Shape`."""
PATIENCE = 100
STEP_S = 0.05


class AmqpSide:
    """All that speaks AMQP in a world. ``gateway``: where connections are made, while a broker lives."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.gateway: SimGateway
        self.transactions = TxBook(world.ledger)
        self.land = Land(world.ledger)
        self.answers: Counter[str] = Counter()
        self.clients: list[AmqpClient] = []

    def make_actors(self) -> Iterator[Any]:
        world, chance = self.world, self.world.chance
        world.ledger.inexact.update((SHARED, ASKS))
        for number in range(chance.randrange(3, 6)):
            roles = [self._role(f"a{number}.{each}") for each in range(chance.choice((1, 1, 2, 3)))]
            self.clients.append(AmqpClient(f"a{number}", world, *roles))
        self.clients.append(AmqpClient("ax", world, AmqpPublisher("ax.0", world), AmqpTransactor("ax.1", world, self.transactions)))
        self.clients.append(
            AmqpClient("ay", world, AmqpRequester("ay.0", world, self.answers), AmqpReplier("ay.1", world, self.answers))
        )
        self.clients.append(AmqpClient("az", world, *(AmqpTenant(f"az.{each}", world, self.land) for each in range(2))))
        yield from self.clients
        yield Worker("wa", world, SHARED)
        yield Worker("ws", world, STRICT)
        yield ProgramReplier("wr", world, self.answers)
        yield TgpClient("ta", world, SHARED)

    def _role(self, name: str) -> Role:
        world = self.world
        what = world.chance.random()
        if what < 0.3:
            return AmqpPublisher(name, world)
        if what < 0.5:
            return AmqpTransactor(name, world, self.transactions)
        if what < 0.6:
            return AmqpRequester(name, world, self.answers)
        return AmqpConsumer(name, world, world.chance.choice((SHARED, SHARED, "jobs")))

    async def declare(self, channel: Any) -> None:
        for name, (pattern, spec, shape) in QUEUES.items():
            await channel.outcome(channel.declare_queue(QueueSpec(name, **spec)))
            await channel.outcome(channel.bind(Binding(EXCHANGE, name, pattern)))
            self.world.ledger.shapes.setdefault(name, Shape(**shape)).patterns[pattern] = 2

    async def start(self, nursery: trio.Nursery, gateway: SimGateway) -> None:
        self.gateway = gateway
        inner: Any = gateway
        await nursery.start(Server(inner, AmqpSettings()).run)

    def close(self, left: dict[str, list[str]]) -> None:
        """Settle accounts with what is left."""
        self.transactions.close(left)
        self.land.close(left)

    # -- at the end

    async def settle(self) -> None:
        """Have everything that is asked from now on answered, and all taken that consumers can take."""
        world = self.world
        for actor in world.actors:
            if isinstance(actor, Worker):
                world.rules.leaves(actor.queue, actor.who)
                actor.channel.close()
            elif isinstance(actor, TgpClient):
                actor.die(noticed=True)
        await self._until(lambda: all(client.is_ready for client in self.clients))
        requesters = [role for client in self.clients for role in client.roles if isinstance(role, AmqpRequester)]
        for role in requesters:
            role.open_.clear()
            if role.number and not role.is_closing:
                role.ask()
        await self._until(lambda: not any(role.open_ for role in requesters))
        tenants = [role for client in self.clients for role in client.roles if isinstance(role, AmqpTenant)]
        await self._until(lambda: not any(role.wanted for role in tenants))
        queues = world.engine.vhost("/").queues
        consumed = {role.queue for client in self.clients for role in client.roles if type(role) in (AmqpConsumer, AmqpReplier)}
        await self._until(lambda: all(queues[name].count == _asleep(queues[name]) for name in consumed))
        await self._be_full_for_a_while()

    async def _be_full_for_a_while(self) -> None:
        """Whoever is told to wait is told, too, when that is over."""
        world = self.world
        if world.storms and world.directory is None:
            world.weather.alarm = "the disk is full"
            await trio.sleep(2)
            for client in self.clients:
                client.read(EVERYTHING)
            world.ledger.counts["told to wait"] += sum(client.is_blocked for client in self.clients)
            world.weather.alarm = None
        await self._until(lambda: not any(client.is_blocked for client in self.clients))

    async def _until(self, done: Callable[[], bool]) -> None:
        """Let the clients go on as long as something comes of it."""
        since, before = 0, 0
        while since < PATIENCE:
            for client in self.clients:
                client.go_on()
            await trio.sleep(STEP_S)
            self.world.check(0)
            if done():
                return
            now = self.world.ledger.steps
            since, before = since + 1 if now == before else 0, now
        queues = self.world.engine.vhost("/").queues
        waiting = {name: queues[name].count for name in (*QUEUES, "jobs") if queues[name].count}
        open_: dict[str, Any] = {
            role.name: role.open_ for client in self.clients for role in client.roles if isinstance(role, AmqpRequester)
        }
        open_ |= {role.name: role.wanted for client in self.clients for role in client.roles if isinstance(role, AmqpTenant)}
        raise Wrong(f"AMQP clients do not come to rest: {waiting} {open_}, {[client.is_ready for client in self.clients]}")


def _asleep(queue: Any) -> int:
    """Return how much was given back for later: the clock was set back, so it may be long."""
    return 0 if queue.returns is None else len(queue.returns)
