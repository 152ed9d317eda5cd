"""What may a connection do in tasks, and how do these end with it?"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, cast

import trio
from trio.lowlevel import wait_readable

from gateway.api.stream import CloseReason, CongestionSink, Receiver
from gateway.errors import ProtocolViolation

if TYPE_CHECKING:
    from gateway.runtime.streams.connection import StreamConnection
    from gateway.runtime.streams.layer import Layer
    from gateway.runtime.streams.listener import Listeners

RECEIVE_BYTES: Final = 65_536
"""More than 16 KiB and less than what makes one peer unfair to others."""


class Served:
    """The half of a connection for those who wait: its handler, and what was started for it."""

    __slots__ = (
        "_congestion",
        "_listeners",
        "_receiver",
        "_relieved",
        "_scopes",
        "held_in",
        "is_congested",
        "layer",
        "number",
        "reason",
    )

    def __init__(self, number: int, listeners: Listeners) -> None:
        self.number = number
        self.layer: Layer | None = None
        self._listeners = listeners
        self._receiver: Receiver | None = None
        self._congestion: CongestionSink | None = None
        self._relieved: trio.Event | None = None
        self._scopes: set[trio.CancelScope] | None = None
        self.is_congested = False
        self.held_in = 0
        self.reason: CloseReason | None = None

    @property
    def closing(self) -> bool:
        """See `gateway.api.Connection.closing`."""
        return self.reason is not None

    def attach(self, receiver: Receiver, *, idle_timeout_s: float = 0.0, deadline_s: float = 0.0) -> None:
        """See `gateway.api.Connection.attach`."""
        raise NotImplementedError

    def close(self, reason: CloseReason = CloseReason.LOCAL) -> None:
        """See `gateway.api.Connection.close`."""
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """Close: what a peer did against its protocol is counted, what a front-end did wrong is logged."""
        raise NotImplementedError

    def lost(self) -> None:
        """The socket is of no use any more."""
        raise NotImplementedError

    def _through(self, layer: Layer, data: bytes) -> bytes:
        raise NotImplementedError

    async def receive(self) -> bytes:
        """See `gateway.api.Connection.receive`."""
        while self.reason is None:
            with trio.CancelScope() as scope:
                self._cancel_with_end(scope)
                try:
                    await self._welcome()
                    await wait_readable(self.number)
                finally:
                    self._release(scope)
            if self.closing or self._listeners.draining:
                break
            try:
                data = os.read(self.number, RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                self.lost()
                break
            layer = self.layer
            if layer is None or not data:
                return data
            data = self._through(layer, data)
            if data or layer.ended:
                return data
        return b""

    async def pump(self, feed: Callable[[bytes], None], *, idle_timeout_s: float = 0.0) -> CloseReason:
        """See `gateway.api.Connection.pump`."""
        receiver = _Pump(feed, self)
        self.attach(receiver, idle_timeout_s=idle_timeout_s)
        try:
            await receiver.done.wait()
        except trio.Cancelled:
            self._receiver = None
            self.close(CloseReason.SHUTDOWN)
            raise
        if receiver.error is not None:
            raise receiver.error
        return self.reason or CloseReason.SHUTDOWN

    async def _welcome(self) -> None:
        """Wait until there is room for what this peer sends: it reads what it is answered, publishers are not held back."""
        if self.held_in:
            await self._listeners.alarms.until_read(cast("StreamConnection", self))
        if self._listeners.flow.holding:
            await self._listeners.flow.until_released()
        while self.is_congested and self._congestion is None:
            self._relieved = trio.Event()
            await self._relieved.wait()

    def start(self, task: Callable[[], Awaitable[None]]) -> None:
        """See `gateway.api.Connection.start`."""
        self._listeners.spawn(self._run, task)

    async def _run(self, task: Callable[[], Awaitable[None]]) -> None:
        with trio.CancelScope() as scope:
            self._cancel_with_end(scope)
            try:
                await task()
            except Exception as error:  # an edge: one connection
                self.fail(error)
            finally:
                self._release(scope)

    def _cancel_with_end(self, scope: trio.CancelScope) -> None:
        if self._scopes is None:
            self._scopes = set()
        self._scopes.add(scope)
        if self.reason is not None:
            scope.cancel()

    def _release(self, scope: trio.CancelScope) -> None:
        if self._scopes is not None:
            self._scopes.discard(scope)
            if not self._scopes:
                self._scopes = None


class _Pump:
    """The receiver of a handler that waits for the end."""

    __slots__ = ("_connection", "_feed", "done", "error")

    def __init__(self, feed: Callable[[bytes], None], connection: Served) -> None:
        self._feed = feed
        self._connection = connection
        self.done = trio.Event()
        self.error: Exception | None = None

    def feed(self, data: bytes) -> None:
        try:
            self._feed(data)
        except ProtocolViolation:
            raise
        except Exception as error:  # the handler's own: it is raised there
            self.error = error
            self._connection.close(CloseReason.ERROR)

    def ended(self, reason: CloseReason) -> None:
        self.done.set()
