"""What is a connection in memory, and how does a front-end get it in the place of a socket?"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import trio

from gateway.api import CloseReason, CongestionSink, Connection, Receiver
from gateway.errors import ProtocolViolation
from gateway.runtime.alarms import CONNECTION

OUTGOING_BYTES = 4_000
"""With more than that unread a connection is congested."""


def _not_listening(_: bytes) -> None:
    pass


class SimConnection:
    """Both ends of a connection (`gateway.api.Connection` says what the broker's methods do).

    The client's end: `write`, `read`, `hang_up`. What it writes arrives in pieces that are cut anywhere. ``overhear``: called with
    what the broker says, as soon as it says it.
    """

    is_loopback = True
    transport = "tcp"
    certificate_subject = None

    def __init__(self, gateway: SimGateway, name: str) -> None:
        self.peer = name
        self.out: list[bytes] = []
        self.is_congested = False
        self.reason: CloseReason | None = None
        self.tasks = 0
        self._gateway = gateway
        self._chance = gateway.chance
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self._hung_up = False
        self._gone = False
        self._scope: trio.CancelScope | None = None
        self._scopes: dict[trio.CancelScope, None] = {}
        self._receiver: Receiver | None = None
        self._idle_timeout_s = self._deadline = float("inf")
        self._news = trio.Event()
        self._sink: CongestionSink | None = None
        self.held_in = self.refused_in = 0  # what `Alarms` knows of it
        self.publisher: object = None
        self.overhear: Callable[[bytes], None] = _not_listening

    # -- the client's end

    def write(self, data: bytes) -> None:
        self._incoming += data
        self._news.set()

    def read(self, most: int) -> bytes:
        data = bytes(self._outgoing[:most])
        del self._outgoing[:most]
        if self.is_congested and len(self._outgoing) < OUTGOING_BYTES // 4:
            self.is_congested = False
            self._news.set()
            if self._sink is not None and not self._gone:
                self._sink.decongested()
        return data

    @property
    def unread(self) -> int:
        return len(self._outgoing)

    @property
    def closed(self) -> bool:
        """Nothing more will come from the broker."""
        return self._gone and not self._outgoing

    def hang_up(self) -> None:
        """The client is gone: what it wrote last may or may not arrive, what it was sent is lost."""
        if self._chance.random() < 0.5:
            del self._incoming[self._chance.randrange(len(self._incoming) + 1) :]
        self._outgoing.clear()
        self._hung_up = True
        self._news.set()

    # -- the broker's end

    @property
    def closing(self) -> bool:
        return self.reason is not None

    def touch(self) -> None:
        self._gateway.touch(self)

    def watch(self, sink: CongestionSink) -> None:
        self._sink = sink

    def flush(self) -> None:
        data = b"".join(self.out)
        self.out.clear()
        if not self._gone and not self._hung_up:
            self._outgoing += data
            self.overhear(data)
            if len(self._outgoing) > OUTGOING_BYTES and not self.is_congested:
                self.is_congested = True
                if self._sink is not None:
                    self._sink.congested()

    async def _arrival(self) -> bytes:
        """Return a piece of what was written; nothing: the client has gone."""
        while not self._incoming and not self._hung_up:
            self._news = trio.Event()
            await self._news.wait()
        while self._gateway.is_draining or (self.is_congested and self._sink is None):
            self._news = trio.Event()
            await self._news.wait()
        if self.held_in:
            await self._gateway.pressure.until_read(self)
        if self._gateway.holding:
            await self._gateway.until_released()
        size = len(self._incoming)
        cut = self._chance.choice((1, 2, 7, 64, size, size, size))
        data = bytes(self._incoming[:cut])
        del self._incoming[:cut]
        return data

    async def receive(self) -> bytes:
        data = b""
        if self.reason is None:
            with trio.CancelScope() as self._scope:
                data = await self._arrival()
            self._scope = None
        return data

    async def pump(self, feed: Callable[[bytes], None], *, idle_timeout_s: float = 0.0) -> CloseReason:
        self._idle_timeout_s = idle_timeout_s or float("inf")
        if self.reason is None:
            with trio.CancelScope() as self._scope:
                await self._pump(feed)
            self._scope = None
        return self.reason or CloseReason.SHUTDOWN

    async def _pump(self, feed: Callable[[bytes], object]) -> None:
        while self.reason is None:
            with trio.move_on_at(min(trio.current_time() + self._idle_timeout_s, self._deadline)) as patience:
                data = await self._arrival()
            if patience.cancelled_caught:
                self.reason = CloseReason.IDLE
            elif not data:
                self.reason = CloseReason.EOF
            else:
                feed(data)
                await trio.lowlevel.checkpoint()

    def attach(self, receiver: Receiver, *, idle_timeout_s: float = 0.0, deadline_s: float = 0.0) -> None:
        fresh = self._receiver is None
        self._receiver = receiver
        self._idle_timeout_s = idle_timeout_s or float("inf")
        self._deadline = trio.current_time() + (deadline_s or float("inf"))
        if fresh:
            self._gateway.spawn(self, self._live)

    async def _live(self) -> None:
        """Feed the receiver, whoever that is now, and tell it of the end."""
        try:
            with trio.CancelScope() as self._scope:
                await self._pump(self._feed)
        finally:
            receiver, self._receiver = self._receiver, None
            assert receiver is not None
            receiver.ended(self.reason or CloseReason.SHUTDOWN)
            self._end_tasks()

    def _feed(self, data: bytes) -> None:
        assert self._receiver is not None
        try:
            self._receiver.feed(data)
        except ProtocolViolation as violation:
            self._gateway.violations.append(f"{self.peer}: {violation.reason}")
            self.close(CloseReason.VIOLATION)

    def start(self, task: Callable[[], Awaitable[None]]) -> None:
        self._gateway.spawn(self, partial(self._run, task))

    async def _run(self, task: Callable[[], Awaitable[None]]) -> None:
        with trio.CancelScope() as scope:
            self._scopes[scope] = None
            await task()
        self._scopes.pop(scope, None)

    def _end_tasks(self) -> None:
        for scope in list(self._scopes):
            scope.cancel()

    def close(self, reason: CloseReason = CloseReason.LOCAL) -> None:
        if self.reason is None:
            self.reason = reason
        if self._scope is not None:
            self._scope.cancel()
        self.touch()
        self._gateway.wake()

    def catch_up(self) -> None:
        """What has arrived was fed at once; the rest is under way."""

    def abort(self, reason: CloseReason = CloseReason.ERROR) -> None:
        self.out.clear()
        self._gone = True
        self._outgoing.clear()
        self.close(reason)

    def shut(self) -> None:
        """The front-end is done with it."""
        self.flush()
        self._gone = True


class SimGateway:
    """A front-end's own gateway, but for the sockets: `connect` makes connections in memory.

    ``violations``: what clients are said to have done against their protocol; those of a world do nothing of the kind.
    """

    def __init__(self, inner: Any, broker: Any, chance: random.Random) -> None:
        self._inner = inner
        self._broker = broker
        self.chance = chance
        self.violations: list[str] = []
        self.connections: dict[SimConnection, None] = {}
        self._handler: Callable[[Connection], Awaitable[None]] | None = None
        self._accept: Callable[[Connection], None] | None = None
        self._nursery: trio.Nursery

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @property
    def is_draining(self) -> bool:
        return self._broker.draining.is_set()

    def wake(self) -> None:
        self._broker.turns.wake()

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
        self._handler = handler
        self._accept = accept
        async with trio.open_nursery() as self._nursery:
            task_status.started(list(listen))
            await trio.sleep_forever()

    def connect(self, name: str) -> SimConnection:
        connection = SimConnection(self, name)
        self.connections[connection] = None
        if self._handler is not None:
            self.spawn(connection, partial(self._handler, connection))
        elif self._accept is not None:
            self._accept(connection)
        return connection

    @property
    def pressure(self) -> Any:
        return self._broker.alarms

    def spawn(self, connection: SimConnection, task: Callable[[], Awaitable[None]]) -> None:
        """Start one of a connection's tasks; when the last has ended it is over."""
        connection.tasks += 1
        self._nursery.start_soon(self._serve, connection, task)

    async def _serve(self, connection: SimConnection, task: Callable[[], Awaitable[None]]) -> None:
        standin: Any = connection
        CONNECTION.set(standin)
        try:
            await task()
        except ProtocolViolation as violation:
            self.violations.append(f"{connection.peer}: {violation.reason}")
        finally:
            connection.tasks -= 1
            if not connection.tasks:
                connection.shut()
                del self.connections[connection]

    def end_all(self) -> None:
        for connection in list(self.connections):
            connection.close(CloseReason.SHUTDOWN)
