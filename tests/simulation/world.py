"""A whole broker and all its front-ends under a virtual clock: what happens to them, all of it decided by one seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import trio

from gateway.api import Binding, ConsumeOptions, ExchangeSpec, Principal, QueueSpec
from gateway.config import Limits
from gateway.journal.memory import MemoryStore
from gateway.runtime.broker import Broker
from gateway.runtime.clock import VirtualClock
from gateway_amqp.plugin import AmqpFrontEnd
from gateway_mqtt.server import Server
from gateway_mqtt.settings import MqttSettings
from gateway_zeromq.plugin import ZeroMqFrontEnd
from tests.runtime.support import Log, let_in
from tests.simulation import contents
from tests.simulation.actors import make_actors
from tests.simulation.amqp_side import AmqpSide
from tests.simulation.collector import Collector
from tests.simulation.disk import FaultyJournal, SteadySqlite, Weather
from tests.simulation.ledger import Ledger, Shape, Wrong
from tests.simulation.mqtt_books import Books
from tests.simulation.mqtt_client import MAX_INFLIGHT, MqttClient
from tests.simulation.program import EXCHANGE, text_of
from tests.simulation.queues import ALWAYS, DEAD, EXCHANGES, KEPT, QUEUES, WILLS
from tests.simulation.rules import Rules
from tests.simulation.services import Services
from tests.simulation.settling import settle
from tests.simulation.sockets import Sockets
from tests.simulation.specials import Keeper
from tests.simulation.testaments import Testaments
from tests.simulation.tgp_client import Puller
from tests.simulation.wires import SimGateway

START_MS = 1_700_000_000_000


class World:
    """Several lives of one broker over one store, and the clients that go through them.

    Args:
        seed: decides everything.
        directory: where a real journal is; None: it is in memory.
        served: whether there is all that ZeroMQ endpoints have for those who ask and answer, and nobody who speaks MQTT.
        amqp: whether there are AMQP clients beside all others.
    """

    def __init__(self, seed: int, *, directory: Path | None = None, served: bool = False, amqp: bool = False) -> None:
        self.seed = seed
        self.is_served, self.has_amqp = served, amqp
        self.chance = chance = random.Random(seed)
        self.ledger = Ledger()
        self.ledger.look = self._look_at_sessions
        self.books = Books(self.ledger)
        self.rules = Rules(self.ledger)
        self.log = self.ledger.log
        self.directory = directory
        self.store = MemoryStore()
        self.max_credit = 10
        self.window_bytes = chance.choice((65_536, 200_000))
        self.storms = chance.random() < 0.6
        self.failures = chance.choice((0.0, 0.05, 0.3)) if self.storms else 0.0
        self.resident = self.dropped = 0
        self.is_dead = True
        self._set_ms = self._most_bytes = 0
        self.clock_was_set = False
        self._descriptors = self._lives = 0
        self._pad = chance.choice((0, 300, 3_000))
        others = [name for name in QUEUES if name not in {*ALWAYS, WILLS}]
        kind = chance.random()
        self.is_narrow = kind < 0.25  # few are interested in a message, so that it is often settled before it is written
        self.is_mqtt = kind > 0.5 and not served and not amqp
        few = 1 if self.is_narrow or self.is_mqtt else chance.randrange(2, 7)
        self.queues = [*ALWAYS, *(() if self.is_narrow else (WILLS,)), *chance.sample(others, few)]
        self.mqtt_settings = MqttSettings(
            max_inflight=MAX_INFLIGHT,
            session_max_messages=chance.choice((0, 0, 60, 200)),
            session_overflow=chance.choice(("reject", "end-session")),
            clean_session_max_messages=chance.choice((30, 100_000)),
            receive_maximum=chance.choice((10, 1_000)),
            sys_interval_s=0,
        )
        self.buries_refused = any(queue in self.queues for queue in ("stricter", "ruled"))
        self.ends_full_sessions = self.mqtt_settings.session_overflow == "end-session" and self.mqtt_settings.session_max_messages
        self.keeps_wills = not self.storms and (self.ends_full_sessions or not self.mqtt_settings.session_max_messages)
        self.forgets_ids = chance.random() < 0.3
        self.is_calm = True
        self.testaments = Testaments(self)
        self.services = Services(self)
        self.amqp = AmqpSide(self)
        self._numbers: dict[Any, Any] = {}
        self.actors = list(make_actors(self))
        self.wired = [actor for actor in self.actors if hasattr(actor, "connect")]
        self.mqtt_clients = [actor for actor in self.wired if isinstance(actor, MqttClient)]

    @property
    def has_much_to_page(self) -> bool:
        """A few messages are more than a window."""
        return self._pad * 20 > self.window_bytes / 2

    # -- what the clients ask the world

    def padded(self, text: str) -> bytes:
        return f"{text}\n{'x' * self.chance.randrange(self._pad + 1)}".encode()

    def next_descriptor(self) -> int:
        self._descriptors += 1
        return self._descriptors

    def spec(self, queue: str) -> QueueSpec:
        return QueueSpec(queue, **QUEUES[queue][0])

    @property
    def engine(self) -> Any:
        return self.broker.engine

    # -- lives

    async def run(self) -> None:
        for _ in range(self.chance.randrange(1, 4)):
            await self.live(self.chance.randrange(20, 120), clean=self.chance.random() < 0.25)
        if not self.is_narrow:
            await self.live(0, clean=True)
        self.letters: list[tuple[str, str]] = []
        left = await self.rest()
        self.books.gather(left)
        if self.is_served:
            self.services.close(left)
        self.amqp.close(left)
        self.ledger.audit(left, self.dropped, self.letters)

    def _journal(self, nursery: trio.Nursery) -> Any:
        if self.directory is not None:
            return SteadySqlite(self.directory, self.weather, nursery, self.ledger.landed, self._most_bytes)
        return FaultyJournal(self.store, self.weather, nursery, self.clock.now_ms, self.ledger.landed)

    async def _start(self, nursery: trio.Nursery) -> None:
        self.ledger.begin_life()
        self.rules.begin_life()
        self.books.begin_life(after_calm=self.is_calm)
        self._numbers.clear()
        self.log("a broker starts")
        self.weather = Weather(self.chance, failures=0.0, slow_s=self.chance.choice((0.001, 0.02, 0.2)))
        self.clock = VirtualClock(START_MS + round(trio.current_time() * 1_000) + self._set_ms)
        self.resident = 0
        limits = Limits(
            queue_memory_bytes=self.window_bytes,
            refuse_after_ms=500,
            memory_high_bytes=1_000_000,
            open_batch_bytes=self.chance.choice((65_536, 10_000_000)),
            linger_us=self.chance.choice((0, 2_000)),
        )
        self.notes = Log()
        self.broker = Broker(
            self._journal(nursery),
            limits=limits,
            authenticate=let_in,
            log=self.notes,
            clock=self.clock,
            resident=lambda: self.resident,
        )
        self._lives += 1
        self.broker.node_id = f"sim{self._lives}"
        for tag, decoder in {**ZeroMqFrontEnd.wire_decoders, **AmqpFrontEnd.wire_decoders}.items():
            self.broker.decoders.register(tag, decoder)
        await nursery.start(self.broker.run)
        self.broker.turns._naps = False  # there is no thread to wait for
        self.gateway: Any = self.broker.gateway("sim", _silent, self.notes)
        self.is_dead = False

    async def _declare(self) -> None:
        channel = self.gateway.open_channel(Principal("d"))
        for exchange in self._exchanges():
            await channel.outcome(channel.declare_exchange(exchange))
        for queue in self.queues:
            source = EXCHANGES.get(queue, EXCHANGE)
            patterns = {"work.a" if queue in ("single", "ageing") else "work.#" if source == EXCHANGE else f"{source}.#": 2}
            await channel.outcome(channel.declare_queue(self.spec(queue)))
            if queue == WILLS:
                patterns = {"will.#": 2}
            if queue == "graves":
                await channel.outcome(channel.bind(Binding(DEAD, queue)))
                continue
            for pattern in patterns:
                await channel.outcome(channel.bind(Binding(source, queue, pattern)))
            self.ledger.shapes.setdefault(queue, Shape(**QUEUES[queue][1])).patterns.update(patterns)
        if self.is_served:
            await self.services.declare(channel)
        if self.has_amqp:
            await self.amqp.declare(channel)
        channel.close()

    def _exchanges(self) -> Iterator[ExchangeSpec]:
        yield ExchangeSpec(DEAD, "fanout")
        yield ExchangeSpec(KEPT, "topic")
        yield ExchangeSpec("later", "x-delayed-message", arguments={"x-delayed-type": "topic"})
        window_ms, size = (300, 8) if self.forgets_ids else (36_000_000, 100_000)
        yield ExchangeSpec("once", "topic", arguments={"x-deduplication-window-ms": window_ms, "x-deduplication-size": size})

    async def _start_front_ends(self, nursery: trio.Nursery) -> None:
        self.mqtt = SimGateway(self.broker.gateway("mqtt", _silent, self.notes), self.broker, self.chance)
        inner: Any = self.mqtt
        await nursery.start(Server(inner, self.mqtt_settings).run)
        if self.has_amqp:
            gateway = SimGateway(self.broker.gateway("amqp", _silent, self.notes), self.broker, self.chance)
            await self.amqp.start(nursery, gateway)
        self.sockets = Sockets(self.broker.gateway("zeromq", _silent, self.notes), self)
        await self.sockets.start(nursery)

    async def live(self, steps: int, *, clean: bool) -> None:
        """Run a broker for some steps; then it is stopped, or the power is cut."""
        async with trio.open_nursery() as nursery:
            await self._start(nursery)
            await self._declare()
            async with trio.open_nursery() as front_ends:
                await self._start_front_ends(front_ends)
                for actor in self.actors:
                    actor.begin_life()
                self.weather.failures = self.failures if steps else 0.0
                self.is_calm = not self.weather.failures
                for step in range(steps):
                    await self._step(step)
                self.weather.calm()
                if not steps:
                    await settle(self)
                if clean:
                    await self._stop_front_ends()
                else:
                    self._cut()
                front_ends.cancel_scope.cancel()
            if clean:
                self.log("the broker stops")
                await self.broker.stop()
            nursery.cancel_scope.cancel()
        self._end_life()

    def _cut(self) -> None:
        self.log("the power goes")
        self.is_dead = True
        self.broker.journal.cut()

    async def _stop_front_ends(self) -> None:
        self.broker.start_draining()
        with trio.fail_after(60):
            await self.sockets.ended()
            await self.broker.committer.wait_idle()
        self.mqtt.end_all()
        if self.has_amqp:
            self.amqp.gateway.end_all()
        await trio.sleep(1)
        self.is_dead = True

    def _end_life(self) -> None:
        self.rules.latest_ms = max(self.rules.latest_ms, self.engine.now_ms)
        self._look_at_sessions()
        for client in self.mqtt_clients:
            client.gone()
            client.belief.ends_life()
        for actor in self.actors:
            if isinstance(actor, Puller):
                actor.end_life()
        if self.ledger.wrong is not None:
            raise self.ledger.wrong
        self._note_losses()
        self.ledger.check(not self.mqtt.violations, f"clients are said to break MQTT: {self.mqtt.violations}")

    def _note_losses(self) -> None:
        counters = self.broker.counters
        if self.directory is not None:
            self.ledger.counts["moved by compaction"] += self.broker.journal.counters.references_moved
            self._most_bytes = self.broker.journal.most_bytes
        self.dropped += sum(amount for name, amount in counters.items() if name.startswith("dropped."))
        failed = [name for name in ("flushes_failed", "consumers_failed") if counters[name]]
        errors = [line for line in self.notes.lines if line[0] == "error" and "front-end failed" in line[1]]
        self.ledger.check(not failed and not errors, f"a front-end raised: {failed} {errors}")

    # -- steps

    async def _step(self, step: int) -> None:
        chance = self.chance
        if chance.random() < 0.06:
            await self._chaos()
        else:
            self._actor().act()
        pause = chance.random()
        if pause < 0.4:
            await trio.sleep(chance.uniform(0, 0.01))
        elif pause < 0.7:
            await trio.lowlevel.checkpoint()
        self.check(step)

    def _actor(self) -> Any:
        """Return whose turn it is; those who have a connection to set up and to read have more turns."""
        if self.has_amqp and self.chance.random() < 0.6:
            return self.chance.choice(self.amqp.clients)
        return self.chance.choice(self.wired if self.chance.random() < 0.4 else self.actors)

    def check(self, step: int) -> None:
        if self.ledger.wrong is not None:
            raise self.ledger.wrong
        self.rules.latest_ms = max(self.rules.latest_ms, self.engine.now_ms)
        for client in self.mqtt_clients:
            client.watch(self.engine.now_ms)
        contents.check_counters(self.broker, self._numbers)
        if self.directory is None and contents.is_quiet(self.broker):
            contents.check_journal(self.broker)

    def _look_at_sessions(self) -> None:
        for client in self.mqtt_clients:
            client.belief.look()

    def has_connection(self, name: str) -> bool:
        return any(connection.peer == name for connection in self.mqtt.connections)

    def set_clock(self, step_ms: int) -> None:
        self._set_ms += step_ms
        self.clock_was_set = True
        self.clock.set_by(step_ms)
        self.testaments.clock_was_set()
        for client in self.mqtt_clients:
            client.belief.clock_was_set()

    async def _chaos(self) -> None:
        chance = self.chance
        weather = self.weather
        what = chance.choice(("storm", "full", "room", "set", "memory", "wait", "long"))
        what = what if self.storms or what not in {"storm", "full"} else "wait"
        self.log(f"chaos: {what}")
        self.is_calm = self.is_calm and what not in ("storm", "full")
        if what == "storm":
            weather.down_until = trio.current_time() + chance.choice((0.02, 0.4, 1.5))
        elif what == "full":
            weather.alarm = "the disk is full"
        elif what == "room":
            weather.alarm = None
        elif what == "set":
            self.set_clock(chance.choice((-3_600_000, -700, 600, 30_000)))
        elif what == "memory":
            self.resident = 0 if self.resident else chance.choice((1_100_000, 5_000_000))
        elif what == "wait":
            await trio.sleep(chance.uniform(0.02, 0.7))
        else:
            await trio.sleep(chance.choice((2, 6)))

    # -- the last life

    async def rest(self) -> dict[str, list[str]]:
        """Start once more, with a disk that works, and take everything that the queues still have, in order."""
        left: dict[str, list[str]] = {}
        async with trio.open_nursery() as nursery:
            await self._start(nursery)
            self.is_dead = True
            channel = self.gateway.open_channel(Principal("d"))
            self._check_retained(channel)
            for actor in self.actors:
                if isinstance(actor, Keeper):
                    actor.look(channel)
            for queue in list(self.engine.vhost("/").queues):
                if queue not in self.engine.vhost("/").queues:  # its time was up meanwhile
                    continue
                left[queue] = []
                await channel.outcome(channel.consume(queue, Collector(self, left[queue]), ConsumeOptions(no_ack=True)))
            await self._until_empty()
            channel.close()
            contents.check_counters(self.broker, self._numbers)
            await self.broker.stop()
            nursery.cancel_scope.cancel()
        self._note_losses()
        if self.directory is None:
            kept = {queue_id: len(references) for queue_id, references in self.store.references.items() if references}
            self.ledger.check(not kept, f"every queue is empty, but the journal has {kept}")
        return left

    async def _until_empty(self) -> None:
        for second in range(200):
            if second == 30:
                self.clock.set_by(4 * 3_600_000)  # it was set back, so that something is not due for a long time
            await trio.sleep(1)
            waiting = [(queue.name, queue.count) for queue in self.engine.vhost("/").queues.values() if queue.count]
            if not waiting and not len(self.engine.schedule):
                return
        raise Wrong(f"these queues don't run empty: {waiting}, {len(self.engine.schedule)} are scheduled")

    def _check_retained(self, channel: Any) -> None:
        values = {message.routing_key: text_of(message.body) for message in channel.retained(EXCHANGE, "last.#")}
        for topic, index in self.ledger.retained.items():
            text = values.get(topic.replace("/", "."))
            self.ledger.check(text is not None, f"{topic} has lost its last value, number {index}")
            there = self.ledger.sent[text or ""].index
            self.ledger.check(there >= index, f"{topic} has the value {there}, but {index} was confirmed")


def _silent(_: str) -> None:
    """Announcements are for people."""
