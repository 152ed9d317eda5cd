"""Who accepts connections, and sees to them until they end?"""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import trio

from gateway.api.frontend import Log
from gateway.api.stream import CloseReason, Receiver
from gateway.config import Limits, Transport
from gateway.errors import ProtocolViolation
from gateway.runtime.alarms import Alarms
from gateway.runtime.dispatcher import Turns
from gateway.runtime.flow import Flow
from gateway.runtime.streams.addresses import Bound, bind
from gateway.runtime.streams.certificates import Certificates
from gateway.runtime.streams.connection import StreamConnection
from gateway.runtime.streams.door import Door, Serving
from gateway.runtime.streams.entrance import Entrance
from gateway.runtime.streams.failures import Failures
from gateway.runtime.streams.hellos import Hellos
from gateway.runtime.streams.poller import HAS_EPOLL, EpollSet
from gateway.runtime.streams.portable import Tasks
from gateway.runtime.streams.stack import Stack
from gateway.runtime.streams.stages import CLOSING
from gateway.runtime.streams.tls import TlsFailure
from gateway.runtime.streams.ways import Way

if TYPE_CHECKING:
    from collections import Counter

SWEEP_S = 0.5
ACCEPT_AGAIN_S = 0.1
SWEPT_PER_TURN = 1_024
EXPIRED_PER_TURN = 32
"""An end may take a while: subscriptions are removed, a will is published."""
LOOK_AT_HELD_S = 0.05
MOST_LINGERING = 4_096
"""Closing connections that may wait for their goodbyes to be read, all together."""


class Listeners:
    """The listening sockets and connections of one front-end.

    Args:
        transport: what stands between the sockets and the front-end; None: nothing that needs settings.
        epoll: connections share one set of the kernel's, where there is such a thing; False: each has a task that waits.

    ``sent_bytes``: what all connections had to send so far, before it went through a layer.
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
        transport: Transport | None = None,
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
        self.sent_bytes = 0
        self.way: Way
        self.arriving: StreamConnection | None = None
        self._epoll = epoll
        self._transport = transport if transport is not None else Transport()
        self._failures = Failures(log, counters)
        self._hellos = Hellos()
        self._settling: dict[StreamConnection, float] = {}  # until when; those that began first come first
        self._lingering: dict[StreamConnection, None] = {}
        self._held: dict[StreamConnection, float] = {}  # since when
        self._ended = trio.Event()
        self.now = trio.lowlevel.current_clock().current_time
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
        bound: list[Bound] = []
        self.way = EpollSet(self) if self._epoll else Tasks(self)
        try:
            certificates = self._bind(listen, setting, bound)
            entrances = [
                Entrance(
                    one.address,
                    self._transport,
                    serving.websocket,
                    certificates,
                    changed=self._layers_changed,
                    later=self._hellos.append,
                )
                for one in bound
            ]
            addresses = [str(one.address) for one in bound]
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._sweep)
                self._nursery.start_soon(self.way.run, self._nursery)
                if certificates is not None:
                    self._nursery.start_soon(certificates.watch)
                    self._nursery.start_soon(self._hellos.run)
                async with trio.open_nursery() as accepting:
                    for one, entrance in zip(bound, entrances, strict=True):
                        accepting.start_soon(self._accept, one.socket, Door(one.socket, entrance, serving, self))
                    for address in addresses:
                        announce(address)
                    task_status.started(addresses)
                    await draining.wait()
                    self.draining = True
                    accepting.cancel_scope.cancel()
                for one in bound:
                    one.close()
                if self.connections:
                    self._ended = trio.Event()
                    await self._ended.wait()
                self._nursery.cancel_scope.cancel()
        finally:
            self._nursery = None
            for one in bound:
                one.close()
            self._end_at_once()

    def _bind(self, listen: Sequence[str], setting: str, bound: list[Bound]) -> Certificates | None:
        """Add the sockets to `bound`; return the certificates, if an address needs them."""
        for address in listen:
            bound.append(bind(address, setting, self.name, self._transport.unix_mode))  # noqa: PERF401 - they are closed if one fails
        if not any(one.address.is_encrypted for one in bound):
            return None
        return Certificates(self._transport, self.log)

    def _end_at_once(self) -> None:
        for connection in list(self.connections):
            connection.abort(CloseReason.SHUTDOWN)
            connection.flush()
        self.way.close()

    # -- what connections ask for -------------------------------------------

    def heard_now(self) -> float:
        """Return the time as silence is measured: it stands still while nobody is read from."""
        now = self.now()
        return now - self.flow.unheard_s(now)

    def spawn(self, task: Callable[..., Awaitable[None]], *args: object) -> None:
        """Start a task for a connection, unless all of them have ended; safe at the end of a turn."""
        if self._nursery is not None:
            self._nursery.start_soon(task, *args)
            self.turns.wake()

    def hold(self, connection: StreamConnection) -> None:
        """Have a connection read from again when the alarm in which it is held back lets it."""
        self._held[connection] = self.now()
        if len(self._held) == 1:
            self.spawn(self._release_held)

    async def _release_held(self) -> None:
        while self._held:
            with trio.move_on_after(LOOK_AT_HELD_S):
                await self.alarms.until_memory()
            now = self.now()
            free = [connection for connection, since in self._held.items() if self.alarms.may_be_read(connection, now - since)]
            for connection in free:
                del self._held[connection]
                connection.resume()

    def violated(self, connection: StreamConnection, violation: ProtocolViolation) -> None:
        """Count and log what a peer did against its protocol."""
        if isinstance(violation, TlsFailure):
            self._failures.failed(connection.peer, violation.reason, self.now())
            return
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
        connection.layer = None  # it knows the connection
        self.connections.discard(connection)
        self._lingering.pop(connection, None)
        self._held.pop(connection, None)
        self._settling.pop(connection, None)
        if not self.connections and self.draining:
            self.turns.soon(self._ended.set)

    def end_all(self) -> None:
        """Tell every connection that the broker stops."""
        for connection in list(self.connections):
            connection.close(CloseReason.SHUTDOWN)

    # -- accepting ----------------------------------------------------------

    async def _accept(self, sock: socket.socket, door: Door) -> None:
        number = sock.fileno()
        self.way.open_door(number, door)
        try:
            while True:
                await trio.lowlevel.wait_readable(number)
                try:
                    door.let_in()
                except OSError as error:
                    await self._not_accepted(error)
                else:
                    self.way.stay()
        finally:
            self.way.close_door(number)

    async def _not_accepted(self, error: OSError) -> None:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            self.log.error("no more connections can be accepted", error=str(error))
            await trio.sleep(ACCEPT_AGAIN_S)

    def settle(self, connection: StreamConnection) -> None:
        """Give a connection only so long for its handshakes."""
        self._settling[connection] = self.now() + self.limits.handshake_timeout_s

    def _layers_changed(self, connection: StreamConnection, stack: Stack) -> None:
        """Leave out what has done its work: what is left may be one layer, or none."""
        if not stack.settled:
            self._settling.setdefault(connection, self.now() + self.limits.handshake_timeout_s)
            return
        self._settling.pop(connection, None)
        if len(stack.parts) <= 1:
            connection.layer = stack.parts[0] if stack.parts else None

    async def _sweep(self) -> None:
        """End connections that were silent for too long, or took too long for what they had to do."""
        while True:
            await trio.sleep(SWEEP_S)
            self._sweep_settling()
            connections = list(self.connections)
            for first in range(0, len(connections), SWEPT_PER_TURN):
                await self._sweep_some(connections[first : first + SWEPT_PER_TURN])

    async def _sweep_some(self, connections: Sequence[StreamConnection]) -> None:
        expired = 0
        now, heard_now = self.now(), self.heard_now()
        for connection in connections:
            silent_s = heard_now - connection.heard_at if connection.idle_timeout_s else 0.0
            if silent_s > connection.idle_timeout_s or now > connection.deadline_at > 0.0:
                self._expire(connection)
                expired += 1
                if expired % EXPIRED_PER_TURN == 0:
                    await trio.lowlevel.checkpoint()
                    now, heard_now = self.now(), self.heard_now()
        await trio.lowlevel.checkpoint()

    def _sweep_settling(self) -> None:
        now = self.now()
        late = [connection for connection, until in self._settling.items() if until < now]
        for connection in late:
            del self._settling[connection]
            self.counters["handshake_timeouts"] += 1
            connection.abort(CloseReason.IDLE)

    def _expire(self, connection: StreamConnection) -> None:
        if connection.reason is None:
            self.counters["idle"] += 1
            connection.close(CloseReason.IDLE)
        elif connection.stage in CLOSING:
            connection.dispose()
