"""What is a running broker made of?"""

from __future__ import annotations

import gc
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

import trio
import trio.lowlevel

from gateway.api.channel import Channel, OutcomeSink
from gateway.api.frontend import Credentials, Flushable, Gateway, Log, Principal, Stats
from gateway.api.stream import Connection
from gateway.config import Limits, Transport
from gateway.engine.engine import Engine
from gateway.engine.queues.delivery import Entry
from gateway.engine.retained import RetainedLimits
from gateway.errors import JournalError
from gateway.journal.port import Journal
from gateway.model.message import Address, Decoders, Message, WireDecoder
from gateway.model.names import DEFAULT_VHOST
from gateway.model.properties import Properties
from gateway.runtime.alarms import Alarms
from gateway.runtime.appointments import Appointments
from gateway.runtime.bounds import Bounds
from gateway.runtime.channel import BrokerChannel
from gateway.runtime.clock import Clock, WallClock
from gateway.runtime.committer import Committer
from gateway.runtime.dispatcher import Turns
from gateway.runtime.entrance import Entrance
from gateway.runtime.flow import Flow
from gateway.runtime.memory import resident_bytes
from gateway.runtime.pager import Pager
from gateway.runtime.scheduled import ScheduledReader
from gateway.runtime.stats import stored
from gateway.runtime.streams.connection import StreamConnection
from gateway.runtime.streams.door import Serving
from gateway.runtime.streams.listener import Listeners
from gateway.runtime.streams.poller import HAS_EPOLL

Authenticate = Callable[[Credentials], Awaitable[Principal]]
AuthenticateNow = Callable[[Credentials], Principal | None]
MAX_LOGGED_KEYS = 1_000
LEAST_PATIENCE_S = 0.1
"""A journal that fails is waited for so long at the end, whatever draining may take."""


class Broker:
    """Engine, journal and loop together. Life: `run` in a nursery, `gateway` per front-end, `start_draining`, `stop`.

    Args:
        journal: where batches go; opened by `run`.
        limits: what may wait where, and for how long.
        authenticate: lets peers in, or raises AccessRefused.
        authenticate_now: does the same without waiting, or returns None: it has to wait; None: it always has.
        log: the broker's own logger.
        clock: what messages go by; None: the system's.
        resident: tells how many bytes of memory the process takes.
        vhosts: virtual hosts that there are from the start, beside the default one and those that the journal knows.
    """

    def __init__(  # noqa: PLR0913 - what it is made of
        self,
        journal: Journal,
        *,
        limits: Limits,
        authenticate: Authenticate,
        log: Log,
        authenticate_now: AuthenticateNow | None = None,
        clock: Clock | None = None,
        resident: Callable[[], int] = resident_bytes,
        vhosts: Sequence[str] = (),
    ) -> None:
        self.journal = journal
        self.limits = limits
        self.authenticate = authenticate
        self.authenticate_now = authenticate_now
        self.log = log
        self.clock = clock or WallClock()
        self.resident = resident
        self.vhosts = (DEFAULT_VHOST, *vhosts)
        self.node_id = secrets.token_hex(4)
        self.decoders = Decoders()
        self.counters: Counter[str] = Counter()
        self.draining = trio.Event()
        self.listeners: list[Listeners] = []
        self._logged: set[tuple[str, ...]] = set()
        self._failure: BaseException | None = None
        self._ended = trio.Event()
        self._stopped = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Open the journal, recover, then work until `stop`.

        Raises:
            JournalLocked, JournalUnwritable, JournalError: the journal can't be opened.
            BaseException: what made the engine fail; its state can't be trusted, so the broker ends as after a power cut.
        Cancellation: ends at once, with nothing lost that was confirmed.
        """
        self.journal.open()
        clean = False
        try:
            async with trio.open_nursery() as nursery:
                self._assemble(nursery)
                self._recover()
                await self._work(nursery, task_status)
            clean = True
        finally:
            self.journal.close(clean=clean)
            self._stopped.set()

    def _recover(self) -> None:
        """Take over what the journal holds. Nothing of it is garbage: looking for some would take as long again."""
        collecting = gc.isenabled()
        gc.disable()
        try:
            for record in self.journal.load():
                self.engine.replay(record)
        finally:
            if collecting:
                gc.enable()
        definitions = self.engine.definitions
        definitions.next_queue_id = max(definitions.next_queue_id, self.journal.next_queue_id)
        for name in self.vhosts:
            self.engine.vhost(name)

    async def _work(self, nursery: trio.Nursery, task_status: trio.TaskStatus[None]) -> None:
        trio.lowlevel.add_instrument(self.turns)
        try:
            nursery.start_soon(self.committer.run_pacer)
            nursery.start_soon(self.appointments.run)
            nursery.start_soon(self._look_around)
            task_status.started()
            await self._ended.wait()
            if self._failure is not None:
                raise self._failure
            nursery.cancel_scope.cancel()
        finally:
            trio.lowlevel.remove_instrument(self.turns)
            self.committer.ended = self.pager.ended = self.scheduled.ended = True

    async def _look_around(self) -> None:
        """See about once a second what nobody tells: the system's clock, the journal's room, memory."""
        while True:
            await trio.sleep(self.alarms.look())
            step_ms = self.clock.look()
            if step_ms:
                self.counters["clock steps"] += 1
                self.log.warning("the system's clock was set", by_ms=step_ms)
            self.appointments.clock_was_set()
            self.journal.look()

    def _assemble(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.pager = Pager(self.journal, self.log, nursery)
        self.engine = Engine(self, self.decoders.properties, node_id=self.node_id, window_budget=self.limits.queue_memory_bytes)
        self.engine.kept.values.limits = RetainedLimits(**self.limits.retained.model_dump())
        self.pager.engine = self.engine
        self.entrance = Entrance(self.engine.vhosts.__contains__)
        self.engine.now_ms = self.clock.now_ms()
        self.scheduled = ScheduledReader(self.journal, self.engine, self.log, nursery)
        self.appointments = Appointments(self.engine, self.clock)
        self.flow = Flow(self.engine, self.limits)
        self.alarms = Alarms(self.engine, self.journal, self.log, self.limits, self.counters, self.resident)
        self.bounds = self.engine.definitions.bounds = Bounds(self.engine, self.limits)
        self.committer = Committer(self.engine, self.journal, self.log, self.limits, self.alarms, self.flow.batch_taken, nursery)
        self.turns = Turns(
            self.engine,
            self.clock.now_ms,
            self._end_of_turn,
            lambda: self.committer.commit_since,
            self._fail,
            self._flush_failed,
        )

    def _end_of_turn(self) -> bool:
        self.alarms.end_of_turn()
        self.appointments.end_of_turn()
        return self.committer.end_of_turn()

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
            self.turns.soon(self._ended.set)

    def _flush_failed(self, flushable: Flushable, error: Exception) -> None:
        self.counters["flushes_failed"] += 1
        self.log.error("a front-end failed to send", error=repr(error), exc_info=error)
        if isinstance(flushable, StreamConnection):
            flushable.abort()

    # -- life ---------------------------------------------------------------

    def gateway(
        self,
        front_end: str,
        announce: Callable[[str], None],
        log: Log,
        *,
        transport: Transport | None = None,
        epoll: bool = HAS_EPOLL,
    ) -> Gateway:
        """Return the broker as one front-end sees it. `transport`, `epoll`: see `Listeners`."""
        listeners = Listeners(
            front_end, self.turns, self.flow, self.alarms, self.limits, log, self.counters, transport=transport, epoll=epoll
        )
        self.listeners.append(listeners)
        return FrontEndGateway(self, front_end, announce, log, listeners)

    def start_draining(self) -> None:
        """Stop accepting and receiving; when all that was received is on disk and answered, connections end."""
        self.draining.set()
        self._nursery.start_soon(self._drain)

    async def _drain(self) -> None:
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(self.limits.drain_timeout_s):
            await self.committer.wait_idle()
        for listeners in self.listeners:
            listeners.end_all()

    async def stop(self) -> None:
        """Commit everything, close the journal clean. When all front-ends have returned. Cancellation: stops uncleanly.

        A journal that fails is waited for as long as draining may take: then `run` raises JournalError.
        """
        done = False
        while not done:
            with trio.move_on_after(max(self.limits.drain_timeout_s, LEAST_PATIENCE_S)):
                await self.committer.wait_idle()
                done = True
            if not done and self.committer.failing:
                self._failure = self._failure or JournalError("the journal can't be written: what was not confirmed is lost")
                done = True
        self._ended.set()
        await self._stopped.wait()

    # -- the engine's events ------------------------------------------------

    def page_wanted(self, queue_id: int, after_position: int, max_bytes: int) -> None:
        """See `EngineEvents`."""
        self.pager.want(queue_id, after_position, max_bytes)

    def scheduled_wanted(self, ids: list[int]) -> None:
        """See `EngineEvents`."""
        self.scheduled.want(ids)

    def got(self, channel: object, number: int, entry: Entry | None) -> None:
        """See `EngineEvents`."""
        assert isinstance(channel, BrokerChannel)
        channel.got(number, entry)

    def returned(self, entry: Entry) -> None:
        """See `EngineEvents`."""
        self.counters["returned"] += 1

    def died(self, entry: Entry, reason: str) -> None:
        """See `EngineEvents`."""
        self.counters[f"died.{reason}"] += 1

    def dropped(self, queue: str, reason: str, amount: int) -> None:
        """See `EngineEvents`."""
        self.counters[f"dropped.{reason}"] += amount
        if self._is_news("dropped", reason, queue):
            self.log.warning("messages dropped", queue=queue, reason=reason)

    def unroutable(self, address: Address, messages: int = 1) -> None:
        """See `EngineEvents`."""
        self.counters["unroutable"] += messages
        if self._is_news("unroutable", address.exchange, address.routing_key):
            self.log.warning("a message reached no queue", exchange=address.exchange, routing_key=address.routing_key)

    def consumer_failed(self, queue: str, error: Exception) -> None:
        """See `EngineEvents`."""
        self.counters["consumers_failed"] += 1
        self.log.error("a front-end failed to take a message", queue=queue, error=repr(error), exc_info=error)

    def _is_news(self, *what: str) -> bool:
        """Say whether this is to be logged: the first time, as long as it is remembered what was."""
        known = self._logged
        if len(known) >= MAX_LOGGED_KEYS or what in known:
            return False
        known.add(what)
        return True


class FrontEndGateway:
    """The broker as one front-end sees it (`gateway.api.Gateway` says what each method does)."""

    def __init__(self, broker: Broker, name: str, announce: Callable[[str], None], log: Log, listeners: Listeners) -> None:
        self._broker = broker
        self._name = name
        self._announce = announce
        self._listeners = listeners
        self._log = log
        self.touch: Callable[[Flushable], None] = broker.turns.touch
        self.now_ms = broker.clock.now_ms
        self.properties: Callable[[Message], Properties] = broker.decoders.properties

    @property
    def log(self) -> Log:
        """See `gateway.api.Gateway.log`."""
        return self._log

    @property
    def node_id(self) -> str:
        """See `gateway.api.Gateway.node_id`."""
        return self._broker.node_id

    def authenticate_now(self, credentials: Credentials) -> Principal | None:
        """See `gateway.api.Gateway.authenticate_now`."""
        decide = self._broker.authenticate_now
        principal = decide(credentials) if decide is not None else None
        return self._entered(principal, credentials) if principal is not None else None

    async def authenticate(self, credentials: Credentials) -> Principal:
        """See `gateway.api.Gateway.authenticate`."""
        return self._entered(await self._broker.authenticate(credentials), credentials)

    def _entered(self, principal: Principal, credentials: Credentials) -> Principal:
        return principal if credentials.vhost is None else self.enter(principal, credentials.vhost)

    def enter(self, principal: Principal, vhost: str) -> Principal:
        """See `gateway.api.Gateway.enter`."""
        return self._broker.entrance.enter(principal, vhost)

    def open_channel(self, principal: Principal, sink: OutcomeSink | None = None, *, owner: object | None = None) -> Channel:
        """See `gateway.api.Gateway.open_channel`."""
        broker = self._broker
        channel = BrokerChannel(broker.engine, principal, sink, owner, broker.committer, broker.alarms, broker.bounds)
        return cast("Channel", channel)  # deliveries and consumers are opaque to front-ends; here they are the engine's own

    def release(self, owner: object) -> None:
        """See `gateway.api.Gateway.release`."""
        self._broker.engine.definitions.release(owner)

    @property
    def holding(self) -> bool:
        """See `gateway.api.Gateway.holding`."""
        return self._broker.flow.holding or bool(self._broker.alarms.level)

    async def until_released(self) -> None:
        """See `gateway.api.Gateway.until_released`."""
        while self.holding:
            await self._broker.flow.until_released()
            await self._broker.alarms.until_memory()

    @property
    def alarms(self) -> Sequence[str]:
        """See `gateway.api.Gateway.alarms`."""
        return self._broker.alarms.causes

    async def until_alarms_change(self) -> None:
        """See `gateway.api.Gateway.until_alarms_change`."""
        await self._broker.alarms.until_changed()

    async def serve_streams(
        self,
        listen: Sequence[str],
        handler: Callable[[Connection], Awaitable[None]] | None = None,
        *,
        setting: str,
        task_status: trio.TaskStatus[list[str]],
        accept: Callable[[Connection], None] | None = None,
        websocket: Sequence[str] = (),
    ) -> None:
        """See `gateway.api.Gateway.serve_streams`."""
        if (handler is None) == (accept is None):
            raise TypeError("serve_streams needs a handler or accept, and not both")
        serving = Serving(handler, accept, websocket)
        await self._listeners.serve(listen, serving, setting, self._announce, self._broker.draining, task_status)

    def announce(self, line: str) -> None:
        """See `gateway.api.Gateway.announce`."""
        self._announce(line)

    async def draining(self) -> None:
        """See `gateway.api.Gateway.draining`."""
        await self._broker.draining.wait()

    def count(self, name: str, amount: int = 1, *, reason: str = "") -> None:
        """See `gateway.api.Gateway.count`."""
        self._broker.counters[f"{self._name}.{name}.{reason}" if reason else f"{self._name}.{name}"] += amount

    async def stats(self) -> Stats:
        """See `gateway.api.Gateway.stats`."""
        broker = self._broker
        return await stored(broker.engine, broker.counters, self._name, self._listeners.sent_bytes)

    def register_wire(self, tag: str, decoder: WireDecoder) -> None:
        """See `gateway.api.Gateway.register_wire`."""
        self._broker.decoders.register(tag, decoder)
