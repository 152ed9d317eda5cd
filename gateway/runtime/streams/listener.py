"""Who accepts connections, and sees to them until they end?"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import trio

from gateway.api.address import tcp_address
from gateway.api.frontend import Log
from gateway.api.stream import CloseReason, Connection
from gateway.config import Limits
from gateway.errors import ConfigError, ListenError, ProtocolViolation
from gateway.runtime.alarms import CONNECTION, Alarms
from gateway.runtime.dispatcher import Turns
from gateway.runtime.flow import Flow
from gateway.runtime.streams.connection import StreamConnection

if TYPE_CHECKING:
    from collections import Counter

Handler = Callable[[Connection], Awaitable[None]]
BACKLOG = 4_096
SWEEP_S = 0.5
ACCEPT_AGAIN_S = 0.1
PER_TURN = 64
"""Connections accepted before others get their turn."""


class Listeners:
    """The listening sockets and connections of one front-end."""

    def __init__(  # noqa: PLR0913 - what a connection needs of the broker
        self, name: str, turns: Turns, flow: Flow, alarms: Alarms, limits: Limits, log: Log, counters: Counter[str]
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
        self._ended = trio.Event()
        self._nursery: trio.Nursery | None = None

    async def serve(
        self,
        listen: Sequence[str],
        handler: Handler,
        setting: str,
        announce: Callable[[str], None],
        draining: trio.Event,
        task_status: trio.TaskStatus[list[str]],
    ) -> None:
        """See `gateway.api.Gateway.serve_streams`."""
        sockets: list[socket.socket] = []
        try:
            sockets.extend(_bind(address, setting, self.name) for address in listen)
            addresses = [_address_of(sock) for sock in sockets]
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._sweep)
                async with trio.open_nursery() as accepting:
                    for sock in sockets:
                        accepting.start_soon(self._accept, sock, handler)
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
            for sock in sockets:
                sock.close()

    def spawn(self, task: Callable[[], Awaitable[None]]) -> None:
        """Start a task for a connection, unless all of them have ended; safe at the end of a turn."""
        nursery = self._nursery
        if nursery is not None:
            self.turns.soon(lambda: nursery.start_soon(task) if nursery.child_tasks else None)

    def violated(self, connection: StreamConnection, violation: ProtocolViolation) -> None:
        """Count and log what a peer did against its protocol."""
        self.counters["violations"] += 1
        self.log.warning("protocol violation", peer=connection.peer, reason=violation.reason, spec=violation.spec)

    def end_all(self) -> None:
        """Tell every connection that the broker stops."""
        for connection in list(self.connections):
            connection.close(CloseReason.SHUTDOWN)

    async def _accept(self, sock: socket.socket, handler: Handler) -> None:
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
                self._start(accepted, address, handler)

    async def _not_accepted(self, error: OSError) -> None:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            self.log.error("no more connections can be accepted", error=str(error))
            await trio.sleep(ACCEPT_AGAIN_S)

    def _start(self, accepted: socket.socket, address: tuple[str, int], handler: Handler) -> None:
        assert self._nursery is not None
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
        loopback = ipaddress.ip_address(address[0].partition("%")[0]).is_loopback
        connection = StreamConnection(accepted, f"{address[0]}:{address[1]}", is_loopback=loopback, listeners=self)
        self.connections.add(connection)
        self.counters["connections"] += 1
        self._nursery.start_soon(self._serve, connection, handler)

    async def _serve(self, connection: StreamConnection, handler: Handler) -> None:
        CONNECTION.set(connection)
        try:
            await handler(connection)
        except ProtocolViolation as violation:
            self.violated(connection, violation)
            connection.close(CloseReason.VIOLATION)
        except Exception as error:
            self.log.error("a connection failed", peer=connection.peer, error=repr(error), exc_info=error)  # noqa: TRY400
            connection.close(CloseReason.ERROR)
        finally:
            try:
                await connection.shut()
            finally:
                self.connections.discard(connection)
                if not self.connections:
                    self._ended.set()

    async def _sweep(self) -> None:
        """End connections that were silent for too long."""
        while True:
            await trio.sleep(SWEEP_S)
            now = trio.current_time()
            for connection in list(self.connections):
                timeout = connection.idle_timeout_s
                if timeout and now - connection.heard_at > timeout:
                    self.counters["idle"] += 1
                    connection.close(CloseReason.IDLE)


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
