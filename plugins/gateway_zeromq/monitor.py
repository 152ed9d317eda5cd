"""Which connections of a socket have gone?"""

from __future__ import annotations

import struct
from collections.abc import Callable

import trio
import zmq

from gateway_zeromq.pump import NOBLOCK, Pump

_EVENT = struct.Struct("=hi")
_DISCONNECTED = int(zmq.EVENT_DISCONNECTED)


class Monitor:
    """Watches a socket's connections by libzmq's monitor.

    It tells in order: that a connection has gone is known before a later one under the same descriptor says a word, to
    those who `look` before they listen.

    Args:
        socket: whose connections.
        gone: called with the file descriptor of every connection that has gone.
    """

    def __init__(self, socket: zmq.Socket[bytes], gone: Callable[[int], None]) -> None:
        self._watched = socket
        self._gone = gone
        monitor: zmq.Socket[bytes] = socket.get_monitor_socket(_DISCONNECTED)
        self._pump: Pump[int] = Pump(monitor, lambda: _descriptor(monitor))

    async def run(self) -> None:
        """Tell, until cancelled or closed. Cancellation: safe."""
        try:
            while True:
                for descriptor in await self._pump.receive():
                    self._gone(descriptor)
        except trio.ClosedResourceError:
            return

    def look(self) -> None:
        """Tell now what there is to tell."""
        socket = self._pump.socket
        while True:
            try:
                descriptor = _descriptor(socket)
            except zmq.Again:
                return
            self._gone(descriptor)

    def close(self) -> None:
        """Stop watching. Before the socket is closed."""
        if not self._watched.closed:
            self._watched.disable_monitor()
        self._pump.close()


def _descriptor(monitor: zmq.Socket[bytes]) -> int:
    frames = monitor.recv_multipart(NOBLOCK)
    return int(_EVENT.unpack(frames[0])[1])
