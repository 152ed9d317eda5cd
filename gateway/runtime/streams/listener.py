"""Who accepts connections, and sees to them until they end?"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import trio

from gateway.api.address import tcp_address
from gateway.api.frontend import Log
from gateway.api.stream import CloseReason, Connection, Receiver
from gateway.config import Limits
from gateway.errors import ConfigError, ListenError, ProtocolViolation
from gateway.runtime.alarms import CONNECTION, Alarms
from gateway.runtime.dispatcher import Turns
from gateway.runtime.flow import Flow
from gateway.runtime.streams.connection import CLOSING, StreamConnection
from gateway.runtime.streams.poller import HAS_EPOLL, EpollSet
from gateway.runtime.streams.portable import Tasks
from gateway.runtime.streams.ways import Way

if TYPE_CHECKING:
    from collections import Counter

Handler = Callable[[Connection], Awaitable[None]]
Accept = Callable[[Connection], None]
BACKLOG = 4_096
SWEEP_S = 0.5
ACCEPT_AGAIN_S = 0.1
PER_TURN = 64
"""Connections accepted before others get their turn."""
SWEPT_PER_TURN = 1_024
MOST_LINGERING = 4_096
"""Closing connections that may wait for their goodbyes to be read, all together."""


class Serving(NamedTuple):
    """Who serves a connection: a task of its own, or what is called once and attaches a receiver."""

    handler: Handler | None = None
    accept: Accept | None = None


class Listeners:
    """The listening sockets and connections of one front-end.

    Args:
        epoll: connections share one set of the kernel's, where there is such a thing; False: each has a task that waits.
    """

    def __init__(  # noqa: PLR0913 - what a connection needs of the broker
        self,
        name: str,
        turns: Turns,
        flow: Flow,
        alarms: Alarms,
        limits: Limits,
        log: Log,
        counters: Counter[str],
        *,
        epoll: bool = HAS_EPOLL,
    ) -> None:
        self.name = name
        self.turns = turns
        self.flow = flow
        self.alarms = alarms
        self.limits = limits
        self.log = log
        self.counters = counters
        self.connections: set[StreamConnection] = set()
        self.draining = False
        self.way: Way
        self._epoll = epoll
        self._lingering: dict[StreamConnection, None] = {}
        self._ended = trio.Event()
        self._nursery: trio.Nursery | None = None

    async def serve(
        self,
        listen: Sequence[str],
        serving: Serving,
        setting: str,
        announce: Callable[[str], None],
        draining: trio.Event,
        task_status: trio.TaskStatus[list[str]],
    ) -> None:
        """See `gateway.api.Gateway.serve_streams`."""
        sockets: list[socket.socket] = []
        self.way = EpollSet(self) if self._epoll else Tasks(self)
        try:
            sockets.extend(_bind(address, setting, self.name) for address in listen)
            addresses = [_address_of(sock) for sock in sockets]
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._sweep)
                self._nursery.start_soon(self.way.run, self._nursery)
                async with trio.open_nursery() as accepting:
                    for sock in sockets:
                        accepting.start_soon(self._accept, sock, serving)
                    for address in addresses:
                        announce(address)
                    task_status.started(addresses)
                    await draining.wait()
                    self.draining = True
                    accepting.cancel_scope.cancel()
                for sock in sockets:
                    sock.close()
                if self.connections:
                    self._ended = trio.Event()
                    await self._ended.wait()
                self._nursery.cancel_scope.cancel()
        finally:
            self._nursery = None
            for sock in sockets:
                sock.close()
            self._end_at_once()

    def _end_at_once(self) -> None:
        for connection in list(self.connections):
            connection.abort(CloseReason.SHUTDOWN)
            connection.flush()
        self.way.close()

    # -- what connections ask for -------------------------------------------

    def heard_now(self) -> float:
        """Return the time as silence is measured: it stands still while nobody is read from."""
        now = trio.current_time()
        return now - self.flow.unheard_s(now)

    def spawn(self, task: Callable[..., Awaitable[None]], *args: object) -> None:
        """Start a task for a connection, unless all of them have ended; safe at the end of a turn."""
        if self._nursery is not None:
            self._nursery.start_soon(task, *args)
            self.turns.wake()

    def violated(self, connection: StreamConnection, violation: ProtocolViolation) -> None:
        """Count and log what a peer did against its protocol."""
        self.counters["violations"] += 1
        self.log.warning("protocol violation", peer=connection.peer, reason=violation.reason, spec=violation.spec)

    def failed(self, connection: StreamConnection, error: Exception) -> None:
        """Log what a front-end did wrong."""
        self.log.error("a connection failed", peer=connection.peer, error=repr(error), exc_info=error)

    def tell_end(self, connection: StreamConnection, receiver: Receiver, reason: CloseReason) -> None:
        """Tell a receiver that its connection is over; what it wakes runs in a turn that comes at once."""
        self.turns.wake()
        try:
            receiver.ended(reason)
        except Exception as error:  # an edge: one connection
            self.failed(connection, error)

    def lingers(self, connection: StreamConnection) -> None:
        """A connection is closing. Of very many those that began first have had their time."""
        self._lingering[connection] = None
        if len(self._lingering) > MOST_LINGERING:
            next(iter(self._lingering)).dispose()

    def gone(self, connection: StreamConnection) -> None:
        """A connection's socket is closed."""
        self.connections.discard(connection)
        self._lingering.pop(connection, None)
        if not self.connections and self.draining:
            self.turns.soon(self._ended.set)

    def end_all(self) -> None:
        """Tell every connection that the broker stops."""
        for connection in list(self.connections):
            connection.close(CloseReason.SHUTDOWN)

    # -- accepting ----------------------------------------------------------

    async def _accept(self, sock: socket.socket, serving: Serving) -> None:
        while True:
            await trio.lowlevel.wait_readable(sock)
            for _ in range(PER_TURN):
                try:
                    accepted, address = sock.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    await self._not_accepted(error)
                    break
                self._start(accepted, address, serving)

    async def _not_accepted(self, error: OSError) -> None:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            self.log.error("no more connections can be accepted", error=str(error))
            await trio.sleep(ACCEPT_AGAIN_S)

    def _start(self, accepted: socket.socket, address: tuple[str, int], serving: Serving) -> None:
        if len(self.connections) >= self.limits.max_connections:
            self.counters["refused_connections"] += 1
            accepted.close()
            return
        try:
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:  # macOS says so of a peer that is gone already
            accepted.close()
            return
        host, port = address[:2]
        connection = StreamConnection(accepted, f"{host}:{port}", is_loopback=_is_loopback(host), listeners=self)
        self.connections.add(connection)
        self.counters["connections"] += 1
        if serving.accept is not None:
            self._hand_over(connection, serving.accept)
        elif serving.handler is not None:
            connection.handled = True
            self.spawn(self._serve, connection, serving.handler)

    def _hand_over(self, connection: StreamConnection, accept: Accept) -> None:
        try:
            accept(connection)
        except Exception as error:  # an edge: one connection
            connection.fail(error)
        connection.let_go()

    async def _serve(self, connection: StreamConnection, handler: Handler) -> None:
        CONNECTION.set(connection)
        try:
            await handler(connection)
        except Exception as error:  # an edge: one connection
            connection.fail(error)
        finally:
            connection.let_go()

    async def _sweep(self) -> None:
        """End connections that were silent for too long, or took too long for what they had to do."""
        while True:
            await trio.sleep(SWEEP_S)
            connections = list(self.connections)
            for first in range(0, len(connections), SWEPT_PER_TURN):
                self._sweep_some(connections[first : first + SWEPT_PER_TURN])
                await trio.lowlevel.checkpoint()

    def _sweep_some(self, connections: Sequence[StreamConnection]) -> None:
        now = trio.current_time()
        heard_now = self.heard_now()
        for connection in connections:
            silent_s = heard_now - connection.heard_at if connection.idle_timeout_s else 0.0
            if silent_s > connection.idle_timeout_s or now > connection.deadline_at > 0.0:
                self._expire(connection)

    def _expire(self, connection: StreamConnection) -> None:
        if connection.reason is None:
            self.counters["idle"] += 1
            connection.close(CloseReason.IDLE)
        elif connection.stage in CLOSING:
            connection.dispose()


@lru_cache(1_024)
def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def _bind(address: str, setting: str, name: str) -> socket.socket:
    host, port = _parsed(address, setting)
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:  # the network's answer of today, not the configuration
        raise ListenError(
            f"{setting}: {address!r} can't be listened on: {error.strerror}; "
            f"choose another address, or switch it off by frontend.{name}.enabled = false"
        ) from None
    family, _, _, _, where = infos[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ListenError(
            f"port {port} can't be listened on ({address}: {error.strerror}); "
            f"choose another by {setting}, or switch it off by frontend.{name}.enabled = false"
        ) from None
    sock.setblocking(False)
    return sock


def _parsed(address: str, setting: str) -> tuple[str, int]:
    try:
        return tcp_address(address)
    except ValueError as error:
        raise ConfigError(f"{setting}: {address!r} {error}, for instance tcp://127.0.0.1:1883") from None


def _address_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"
