"""Which connections of a socket have gone, and which never came about?"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from contextlib import suppress

import trio
import zmq

from trio_zmq.pump import NOBLOCK, Pump

_EVENT = struct.Struct("=Hi")
_DISCONNECTED = int(zmq.EVENT_DISCONNECTED)
_FAILURES = {
    int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL): "broken off",
    int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL): "protocol",
    int(zmq.EVENT_HANDSHAKE_FAILED_AUTH): "not let in",
}


_numbers = itertools.count(1)


def _listening(watched: zmq.Socket[bytes], events: int) -> zmq.Socket[bytes]:
    """Return what hears of a socket's events.

    It has no high-water mark: libzmq's own thread, which serves all sockets of a context, waits for room here.
    """
    address = f"inproc://trio_zmq.monitor.{next(_numbers)}"
    watched.monitor(address, events)
    listener: zmq.Socket[bytes] = watched.context.socket(zmq.PAIR)
    listener.setsockopt(zmq.RCVHWM, 0)
    listener.connect(address)
    return listener


class Monitor:
    """Watches a socket's connections by libzmq's monitor. A socket has one.

    It tells in order: that a connection has gone is known before a later one under the same descriptor says a word, to
    those who `look` before they listen.

    Args:
        socket: whose connections.
        gone: called with the file descriptor of every connection that has gone.
        failed: called for every connection whose handshake failed, with a reason (``broken off``, ``protocol``,
            ``not let in``) and the address of the listener, or of whom it connected to. None: nobody wants to know.
    """

    def __init__(
        self, socket: zmq.Socket[bytes], gone: Callable[[int], None], *, failed: Callable[[str, str], None] | None = None
    ) -> None:
        self._watched = socket
        self._gone = gone
        self._failed = failed
        events = _DISCONNECTED if failed is None else _DISCONNECTED | sum(_FAILURES)
        self._socket = _listening(socket, events)
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
        """Tell now what there is to tell."""
        with suppress(zmq.Again):
            while True:
                self._tell_one()

    def _tell_one(self) -> None:
        frames = self._socket.recv_multipart(NOBLOCK)
        event, value = _EVENT.unpack(frames[0])
        if event == _DISCONNECTED:
            self._gone(int(value))
        elif self._failed is not None and event in _FAILURES:
            self._failed(_FAILURES[event], frames[1].decode(errors="replace"))

    def close(self) -> None:
        """Stop watching. Before the socket is closed."""
        if not self._watched.closed:
            self._watched.disable_monitor()
        self._pump.close()
