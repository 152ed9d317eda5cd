"""One peer on a byte stream: who reads and writes its socket?"""

from __future__ import annotations

import errno
import math
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio
from trio.lowlevel import wait_readable, wait_writable

from gateway.api.stream import CloseReason, CongestionSink
from gateway.errors import ProtocolViolation

if TYPE_CHECKING:
    from gateway.runtime.streams.listener import Listeners

RECEIVE_BYTES = 65_536
"""More than 16 KiB and less than what makes one peer unfair to others."""
LINGER_S = 2.0
"""How long a closing connection may take to have its goodbye read."""


class StreamConnection:
    """A connection (`gateway.api.Connection` says what each method does)."""

    __slots__ = (
        "_backlog",
        "_backlog_bytes",
        "_congestion",
        "_gone",
        "_limit",
        "_listeners",
        "_peer",
        "_relieved",
        "_scope",
        "_socket",
        "_touch",
        "_writing",
        "heard_at",
        "held_in",
        "idle_timeout_s",
        "is_congested",
        "is_loopback",
        "out",
        "publisher",
        "reason",
        "refused_in",
    )

    def __init__(self, sock: socket.socket, peer: str, *, is_loopback: bool, listeners: Listeners) -> None:
        self._socket = sock
        self._peer = peer
        self.is_loopback = is_loopback
        self._listeners = listeners
        self._limit = listeners.limits.outgoing_bytes
        self._touch = listeners.turns.touch
        self.out: list[bytes] = []
        self._backlog: list[bytes | memoryview] = []
        self._backlog_bytes = 0
        self._writing = False
        self._relieved: trio.Event | None = None
        self._gone = False
        self._congestion: CongestionSink | None = None
        self._scope: trio.CancelScope | None = None
        self.is_congested = False
        self.reason: CloseReason | None = None
        self.heard_at = 0.0
        self.idle_timeout_s = 0.0
        # What `Alarms` knows of it: in which alarm it has published, and as whose channel, and in which it is refused.
        self.held_in = self.refused_in = 0
        self.publisher: object = None

    @property
    def peer(self) -> str:
        """See `gateway.api.Connection.peer`."""
        return self._peer

    @property
    def closing(self) -> bool:
        """See `gateway.api.Connection.closing`."""
        return self.reason is not None

    def touch(self) -> None:
        """See `gateway.api.Connection.touch`."""
        self._touch(self)

    def watch(self, sink: CongestionSink) -> None:
        """See `gateway.api.Connection.watch`."""
        self._congestion = sink

    # -- receiving ----------------------------------------------------------

    async def receive(self) -> bytes:
        """See `gateway.api.Connection.receive`."""
        while self.reason is None:
            with trio.CancelScope() as self._scope:
                await self._welcome()
                await wait_readable(self._socket)
            if self.closing or self._listeners.draining:
                break
            try:
                return self._socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                self.reason = CloseReason.ERROR
        return b""

    async def pump(self, feed: Callable[[bytes], None], *, idle_timeout_s: float = 0.0) -> CloseReason:
        """See `gateway.api.Connection.pump`."""
        self.idle_timeout_s = idle_timeout_s
        self.heard_at = trio.current_time()
        with trio.CancelScope() as self._scope:
            if self.reason is None:
                try:
                    await self._pump(feed)
                except ProtocolViolation as violation:
                    self._listeners.violated(self, violation)
                    self.close(CloseReason.VIOLATION)
                except OSError:
                    self._lost()
        self._scope = None
        self.idle_timeout_s = 0.0
        return self.reason or CloseReason.SHUTDOWN

    async def _pump(self, feed: Callable[[bytes], None]) -> None:
        sock = self._socket
        flow = self._listeners.flow
        while True:
            await wait_readable(sock)
            if self._listeners.draining:
                await trio.sleep_forever()
            if flow.holding or self.is_congested or self.held_in:
                await self._welcome()
            try:
                data = sock.recv(RECEIVE_BYTES)
            except BlockingIOError:
                continue
            if not data:
                self.reason = CloseReason.EOF
                return
            self.heard_at = trio.current_time()
            feed(data)
            if self.reason is not None:
                return

    async def _welcome(self) -> None:
        """Wait until there is room for what this peer sends: it reads what it is answered, publishers are not held back."""
        self.heard_at = math.inf  # it is not silent: nobody listens
        if self.held_in:
            await self._listeners.alarms.until_read(self)
        if self._listeners.flow.holding:
            await self._listeners.flow.until_released()
        while self.is_congested and self._congestion is None:
            await self._relief()
        self.heard_at = trio.current_time()

    async def _relief(self) -> None:
        """Wait until the peer has caught up, or nothing is left to be sent."""
        self._relieved = trio.Event()
        await self._relieved.wait()

    def _relieve(self) -> None:
        if self._relieved is not None:
            self._relieved.set()

    # -- sending ------------------------------------------------------------

    def flush(self) -> None:
        """Send what the turn collected, in one send. Never blocks."""
        out = self.out
        if not out:
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        if self._gone:
            return
        if not self._backlog:
            try:
                sent = self._socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._lost()
                return
            if sent == len(data):
                return
            self._backlog.append(memoryview(data)[sent:])
        else:
            sent = 0
            self._backlog.append(data)
        self._backlog_bytes += len(data) - sent
        if self._backlog_bytes > self._limit and not self.is_congested:
            self._fell_behind()
        if not self._writing:
            self._writing = True
            self._listeners.spawn(self._write)

    async def _write(self) -> None:
        """Send what the kernel did not take, as it takes it."""
        try:
            while self._backlog and not self._gone:
                await wait_writable(self._socket)
                self._send_backlog()
        except (OSError, trio.ClosedResourceError):
            self._lost()
        finally:
            self._writing = False
            self._relieve()

    def _send_backlog(self) -> None:
        if not self._backlog or self._gone:
            return
        data = self._backlog[0] if len(self._backlog) == 1 else b"".join(self._backlog)
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lost()
            return
        self._backlog = [memoryview(data)[sent:]] if sent < len(data) else []
        self._backlog_bytes = len(data) - sent
        if self.is_congested and self._backlog_bytes < self._limit // 4:
            self._caught_up()

    def _fell_behind(self) -> None:
        self.is_congested = True
        self._listeners.flow.fell_behind(trio.current_time())
        if self._congestion is not None:
            self._congestion.congested()

    def _caught_up(self) -> None:
        self.is_congested = False
        self._relieve()
        self._listeners.flow.caught_up()
        if self._congestion is not None and not self._gone:
            self._congestion.decongested()

    # -- the end ------------------------------------------------------------

    def close(self, reason: CloseReason = CloseReason.LOCAL) -> None:
        """See `gateway.api.Connection.close`."""
        if self.reason is None:
            self.reason = reason
        if self._scope is not None:
            self._scope.cancel()
        self.touch()
        self._listeners.turns.wake()

    def abort(self, reason: CloseReason = CloseReason.ERROR) -> None:
        """See `gateway.api.Connection.abort`."""
        self.out.clear()
        self._gone = True
        self.close(reason)

    def _lost(self) -> None:
        self._gone = True
        self._backlog = []
        self._backlog_bytes = 0
        self.close(CloseReason.ERROR)

    async def shut(self) -> None:
        """Have the goodbye read, within LINGER_S, then close the socket. Cancellation: closes at once."""
        try:
            if not self._gone and self.reason is not CloseReason.EOF:
                with trio.move_on_after(LINGER_S):
                    await self._linger()
            elif not self._gone:
                self.flush()
        except OSError:
            pass
        finally:
            self._gone = True
            if self.is_congested:
                self._caught_up()
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    async def _linger(self) -> None:
        self.flush()
        while self._backlog and not self._gone:
            await self._relief()
        self._socket.shutdown(socket.SHUT_WR)
        while True:
            try:
                if not self._socket.recv(RECEIVE_BYTES):
                    return
            except BlockingIOError:
                if self.reason is CloseReason.SHUTDOWN:
                    return  # nothing unread is left that would turn the goodbye into a reset
                await wait_readable(self._socket)
            except OSError as error:
                if error.errno not in (errno.EINTR, errno.EAGAIN):
                    return
