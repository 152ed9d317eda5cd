"""Which connections of a socket came, went, or never came about?"""

from __future__ import annotations

import itertools
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import trio
import zmq

from trio_zmq.pump import NOBLOCK, Pump

ALL = int(zmq.EVENT_ALL)
"""Every event that this libzmq tells of."""
_EVENT = struct.Struct("=Hi")
_ACCEPTED = int(zmq.EVENT_ACCEPTED)
_DISCONNECTED = int(zmq.EVENT_DISCONNECTED)
_STOPPED = int(zmq.EVENT_MONITOR_STOPPED)
_FAILURES = {
    int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL): "broken off",
    int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL): "protocol",
    int(zmq.EVENT_HANDSHAKE_FAILED_AUTH): "not let in",
}
_PUT_OFF = int(zmq.PROTOCOL_ERROR_ZAP_INVALID_STATUS_CODE)


_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class MonitorEvent:
    """What happened to a connection.

    Args:
        kind: libzmq's name for it; `zmq.Event`.
        value: a file descriptor (CONNECTED, LISTENING, ACCEPTED, CLOSED, DISCONNECTED), an errno (those that failed and
            CONNECT_DELAYED), milliseconds (CONNECT_RETRIED), what was wrong (HANDSHAKE_FAILED_PROTOCOL: a `zmq.Event` PROTOCOL
            number, HANDSHAKE_FAILED_AUTH: a ZAP status), or 0.
        address: of the listener, or of whom it connects to.
    """

    kind: zmq.Event
    value: int
    address: str


def _listening(watched: zmq.Socket[bytes], events: int) -> zmq.Socket[bytes]:
    """Return what hears of a socket's events.

    It has no high-water mark: libzmq's own thread, which serves all sockets of a context, waits for room here. It is there before
    there is anything to be heard, for the same reason.
    """
    address = f"inproc://trio_zmq.monitor.{next(_numbers)}"
    listener: zmq.Socket[bytes] = watched.context.socket(zmq.PAIR)
    try:
        listener.setsockopt(zmq.RCVHWM, 0)
        watched.monitor(address, events)
        listener.connect(address)
    except zmq.ZMQError:
        listener.close(0)
        raise
    return listener


class Monitor:
    """Watches a socket's connections by libzmq's monitor. A socket has one, that ends before it or with it.

    Either what happens is told to functions (``gone``, ``failed``) by a task in `run`, or it is read from `events`.

    It tells in order: that a connection has gone is known before a later one under the same descriptor says a word, to
    those who `look` before they listen.

    Args:
        socket: whose connections.
        gone: called with the file descriptor of every connection that has gone.
        came: called with the file descriptor of every connection that was accepted, before its handshake. Not without ``gone``.
        failed: called for every connection whose handshake failed, with a reason (``broken off``, ``protocol``,
            ``not let in``; ``put off``: who answers for security gave a status that ZAP does not have) and the address of the
            listener, or of whom it connected to. None: nobody wants to know.
        kinds: which events to watch, of `zmq.Event`; None: those that the functions want, or all if there are none. What is
            watched has to be read: it waits in memory.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        gone: Callable[[int], None] | None = None,
        *,
        came: Callable[[int], None] | None = None,
        failed: Callable[[str, str], None] | None = None,
        kinds: int | None = None,
    ) -> None:
        self._watched = socket
        self._gone = gone
        self._came = came
        self._failed = failed
        self._keeps = gone is None and failed is None
        if kinds is None:
            kinds = ALL if self._keeps else self._wanted()
        self._heard: deque[MonitorEvent] = deque()
        self._socket = _listening(socket, kinds | _STOPPED if self._keeps else kinds)
        self._stopped = False
        # News are told while they are taken: between the two somebody might listen to a later connection.
        self._pump: Pump[None] = Pump(self._socket, self._tell_one)

    async def run(self) -> None:
        """Tell, until cancelled or closed. Cancellation: safe."""
        try:
            while True:
                await self._pump.receive()
        except trio.ClosedResourceError:
            return

    def look(self) -> None:
        """Tell now what there is to tell; what `events` is to return is there for it."""
        with suppress(zmq.Again):
            while True:
                self._tell_one()
        if self._heard:
            self._pump.wake()

    def events(self) -> AsyncIterator[MonitorEvent]:
        """Return what happens, in order, until the monitor or its socket is closed. Several may read: each event comes once.

        Raises:
            RuntimeError: what happens is told to functions.
        Cancellation: safe; an event is not lost.
        """
        if not self._keeps:
            raise RuntimeError("this monitor tells functions what happens")
        return _Events(self)

    async def next_event(self) -> MonitorEvent | None:
        """Wait for what `events` has next; None: that is all."""
        while True:
            await trio.lowlevel.checkpoint()
            event = self._heard.popleft() if self._heard else None
            if event is not None or self.closed:
                return event
            with suppress(trio.ClosedResourceError):
                await self._pump.receive()  # others that wait here wake as well, and find what this one has left

    def _tell_one(self) -> None:
        frames = self._socket.recv_multipart(NOBLOCK)
        event, value = _EVENT.unpack(frames[0])
        if self._keeps:
            self._keep(event, value, frames[1])
        elif event == _DISCONNECTED and self._gone is not None:
            self._gone(int(value))
        elif event == _ACCEPTED and self._came is not None:
            self._came(int(value))
        elif self._failed is not None and event in _FAILURES:
            self._failed("put off" if value == _PUT_OFF else _FAILURES[event], frames[1].decode(errors="replace"))

    def _wanted(self) -> int:
        return _DISCONNECTED | (_ACCEPTED if self._came is not None else 0) | (sum(_FAILURES) if self._failed is not None else 0)

    def _keep(self, event: int, value: int, address: bytes) -> None:
        self._heard.append(MonitorEvent(zmq.Event(event), value, address.decode(errors="replace")))
        if event == _STOPPED:
            self._stopped = True

    @property
    def closed(self) -> bool:
        """Nothing more is watched."""
        return self._stopped or self._pump.closed

    def close(self) -> None:
        """Stop watching. Before the socket is closed. Again: nothing happens."""
        if not self._watched.closed and not self._pump.closed:
            self._watched.disable_monitor()
        self._pump.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class _Events:
    __slots__ = ("_monitor",)

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def __aiter__(self) -> _Events:
        return self

    async def __anext__(self) -> MonitorEvent:
        event = await self._monitor.next_event()
        if event is None:
            raise StopAsyncIteration
        return event
