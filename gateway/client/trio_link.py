"""How does a trio program wait for a ZeroMQ socket, without missing what others' calls on it have seen?

libzmq's descriptor tells edges: that something happened, once, to whichever call looks next. So whoever sends looks as well, and
wakes the one task that sleeps on the descriptor if there is something for it.
"""

from __future__ import annotations

from contextlib import suppress

import trio
import zmq
from zmq.utils.monitor import recv_monitor_message

from gateway.client.link import Link
from gateway.client.security import Security

_EVENTS = int(zmq.EVENTS)
_FD = int(zmq.FD)
_POLLIN = int(zmq.POLLIN)
_POLLOUT = int(zmq.POLLOUT)


class TrioLink(Link):
    """A `Link` that is waited for by one task of trio's. Nothing else here blocks."""

    def __init__(
        self, address: str, context: zmq.Context[zmq.Socket[bytes]] | None = None, security: Security | None = None
    ) -> None:
        super().__init__(address, context, security)
        self._sleep: trio.CancelScope | None = None

    def send(self, header: bytes, body: bytes | None = None) -> None:
        """Send a message now, or keep it, in order, until the socket takes it. Dropped while there is no connection."""
        super().send(header, body)
        if self._sleep is not None and self._socket is not None and self._has_news():
            self._wake()

    def _has_news(self) -> bool:
        assert self._socket is not None
        events = int(self._socket.getsockopt(_EVENTS))
        return bool(events & (_POLLIN | _POLLOUT if self._backlog else _POLLIN))

    def _wake(self) -> None:
        if self._sleep is not None:
            self._sleep.cancel()

    async def something(self) -> None:
        """Wait until something can be received, what was kept has been sent in part, or the connection is lost.

        It may be closed meanwhile. Cancellation: safe. One task at a time.
        """
        assert self._socket is not None
        descriptor = int(self._socket.getsockopt(_FD))
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._is_over():
            try:
                with trio.CancelScope() as self._sleep:
                    await trio.lowlevel.wait_readable(descriptor)
            finally:
                self._sleep = None
        if self._backlog and int(self._socket.getsockopt(_EVENTS)) & _POLLOUT:  # what is closed has none
            self._send_backlog()
        await trio.lowlevel.cancel_shielded_checkpoint()

    def _is_over(self) -> bool:
        return self._socket is None or self.lost or self._has_news()

    async def watch(self) -> None:
        """Note it when the connection that is open now is lost, and return; or when it is closed. Cancellation: safe."""
        monitor = self._monitor
        with suppress(trio.ClosedResourceError):
            while monitor is not None and not monitor.closed:
                if int(monitor.getsockopt(_EVENTS)) & _POLLIN:
                    recv_monitor_message(monitor)
                    self.lost = True
                    self._wake()
                    return
                await trio.lowlevel.wait_readable(int(monitor.getsockopt(_FD)))

    def close(self, linger_ms: int) -> None:
        """End the connection, and wake who waits for it. What was not sent within `linger_ms` is dropped."""
        if self._monitor is not None:
            trio.lowlevel.notify_closing(int(self._monitor.getsockopt(_FD)))
        super().close(linger_ms)
        self._wake()
