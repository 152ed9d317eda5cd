"""Which connections of a socket have gone?"""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress

import trio
import zmq

from trio_zmq.pump import NOBLOCK, Pump

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
        self._socket: zmq.Socket[bytes] = socket.get_monitor_socket(_DISCONNECTED)
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
        self._gone(int(_EVENT.unpack(frames[0])[1]))

    def close(self) -> None:
        """Stop watching. Before the socket is closed."""
        if not self._watched.closed:
            self._watched.disable_monitor()
        self._pump.close()
