"""How do frames reach the gateway, and how is it noticed that the connection went?

A fresh DEALER socket for every connection: libzmq's own reconnect would send what its pipe still holds before any HELLO.
"""

from __future__ import annotations

import math
import time
from collections import deque

import zmq
from zmq.utils.monitor import recv_monitor_message

from gateway.client.security import Security

_NOBLOCK = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
_RECONNECT_MS = 50
_RECONNECT_MAX_MS = 1000


class Link:
    """One DEALER socket at a time. Nothing here blocks but `wait`."""

    def __init__(
        self, address: str, context: zmq.Context[zmq.Socket[bytes]] | None = None, security: Security | None = None
    ) -> None:
        self.address = address
        self._security = security
        self.lost = False
        self._context: zmq.Context[zmq.Socket[bytes]] = context or zmq.Context.instance()
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._backlog: deque[tuple[bytes, bytes | None]] = deque()

    @property
    def congested(self) -> bool:
        """More is to be sent than the socket took."""
        return bool(self._backlog)

    @property
    def is_open(self) -> bool:
        """`open` was called, and `close` not since."""
        return self._socket is not None

    def open(self) -> None:
        """Begin a new connection; it may come up later, what is sent until then waits."""
        self.close(linger_ms=0)
        socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
        socket.setsockopt(zmq.IPV6, 1)
        if self._security is not None:
            self._security.secure(socket)
        self._monitor = socket.get_monitor_socket(int(zmq.EVENT_DISCONNECTED))
        self._socket = socket
        self.lost = False
        socket.connect(self.address)

    def close(self, linger_ms: int) -> None:
        """End the connection. What was not sent within `linger_ms` is dropped."""
        self._backlog.clear()
        if self._socket is None or self._monitor is None:
            return
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=linger_ms)
        self._socket = self._monitor = None

    def send(self, header: bytes, body: bytes | None = None) -> None:
        """Send a message now, or keep it, in order, until the socket takes it. Dropped while there is no connection."""
        if self._socket is None:
            return
        if self._backlog or not self._sent(header, body):
            self._backlog.append((header, body))

    def _sent(self, header: bytes, body: bytes | None) -> bool:
        assert self._socket is not None
        try:
            if body is None:
                self._socket.send(header, _NOBLOCK)
            else:
                self._socket.send(header, _MORE)
                self._socket.send(body, _NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self) -> tuple[bytes, bytes | None] | None:
        """Return the header and body of the next message that is here, or None."""
        if self._socket is None:
            return None
        try:
            frames = self._socket.recv_multipart(_NOBLOCK)
        except zmq.Again:
            return None
        return frames[0], frames[1] if len(frames) > 1 else None

    def wait(self, timeout_s: float) -> None:
        """Wait until something can be received, what was kept can be sent, the connection is lost, or the time is over."""
        if self._socket is None or self._monitor is None:
            time.sleep(timeout_s)
            return
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN | zmq.POLLOUT if self._backlog else zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        ready = dict(poller.poll(math.ceil(timeout_s * 1000)))
        if ready.get(self._socket, 0) & zmq.POLLOUT:
            self._send_backlog()
        if self._monitor in ready:
            recv_monitor_message(self._monitor)
            self.lost = True

    def _send_backlog(self) -> None:
        while self._backlog and self._sent(*self._backlog[0]):
            self._backlog.popleft()
