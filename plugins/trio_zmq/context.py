"""Where do sockets come from, and how do all of them end so that nothing hangs?"""

from __future__ import annotations

import errno
import warnings
from collections.abc import Mapping

import trio
import trio.abc
import zmq

from trio_zmq.errors import TooManySockets
from trio_zmq.owner import Owner
from trio_zmq.priority import calm_threads
from trio_zmq.socket import LINGER_MS, MAX_BYTES, MAX_FRAMES, Option, Socket, checked_linger

MAX_SOCKETS = 1_023
"""libzmq's own number. A monitor takes two."""
_GRACE_S = 1.0


class Context(trio.abc.AsyncResource):
    """A ZeroMQ context that ends with its ``async with`` block.

    ``raw`` is the pyzmq context, for a `zmq.Socket` that is to be driven by a `Pump` of its own.

    Args:
        max_sockets: at most so many at a time.
        io_threads: of libzmq. One is enough for about a gigabyte a second.
        linger_ms: how long libzmq may go on, after the end, to send what it has taken.

    Raises:
        ForeignUse: not inside ``trio.run``. ValueError: a number that libzmq can't have.
    """

    def __init__(self, *, max_sockets: int = MAX_SOCKETS, io_threads: int = 1, linger_ms: int = LINGER_MS) -> None:
        self._owner = Owner()
        self._linger_ms = checked_linger(linger_ms)
        self._max_sockets = max_sockets
        self._sockets: set[Socket] = set()
        self._lingers_until = 0.0
        self._started = self._closed = False
        self.raw: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads)
        limit = int(self.raw.get(zmq.SOCKET_LIMIT))
        if not 1 <= max_sockets <= limit:
            self.raw.term()
            raise ValueError(f"max_sockets is from 1 to {limit}, not {max_sockets}")
        self.raw.set(zmq.MAX_SOCKETS, max_sockets)

    def socket(
        self,
        kind: int,
        options: Mapping[int, Option] | None = None,
        *,
        max_frames: int = MAX_FRAMES,
        max_bytes: int = MAX_BYTES,
        linger_ms: int | None = None,
    ) -> Socket:
        """Return a new socket, that ends with the context at the latest.

        Args:
            kind: ``zmq.PUSH``, ``zmq.ROUTER``, ...
            options: by libzmq's numbers (``zmq.SNDHWM``, ...), set before anything else.
            max_frames, max_bytes: of one message; see `Socket`.
            linger_ms: how long libzmq may go on, after the end, to send what it has taken. None: as the context.

        Raises:
            TooManySockets, ForeignUse, trio.ClosedResourceError. zmq.ZMQError: an option that the socket can't have.
        """
        self._owner.check()
        if self._closed:
            raise trio.ClosedResourceError("the ZeroMQ context is closed")
        try:
            raw = self._socket(kind)
        except zmq.ZMQError as error:
            if error.errno != errno.EMFILE:
                raise
            raise TooManySockets(
                errno.EMFILE,
                f"no room for another socket: this context may have {self._max_sockets} (max_sockets; a monitor takes two), "
                "and each takes a file descriptor of the process",
            ) from None
        try:
            linger = self._linger_ms if linger_ms is None else checked_linger(linger_ms)
            socket = Socket(raw, options, max_frames=max_frames, max_bytes=max_bytes, linger_ms=linger)
        except BaseException:
            raw.close(0)
            raise
        self._sockets.add(socket)
        socket.on_close = self._ended
        return socket

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        if self._started:
            return self.raw.socket(kind)
        with calm_threads():
            socket = self.raw.socket(kind)
        self._started = True
        return socket

    def _ended(self, socket: Socket) -> None:
        self._sockets.discard(socket)
        self._lingers_until = max(self._lingers_until, trio.current_time() + socket.linger_ms / 1_000)

    async def aclose(self) -> None:
        """Close all sockets, and end the context when what they had taken has gone out, or their linger is over.

        It waits for at most the longest linger, and one second more, in a thread, though it is cancelled meanwhile. A context
        that has not ended by then (somebody else holds a socket of it) is left behind with a `ResourceWarning`.

        Cancellation: everything ends all the same. Again: nothing happens.
        """
        self._owner.check()
        if not self._closed:
            self._closed = True
            for socket in list(self._sockets):
                socket.close()
            lingers_s = max(self._lingers_until - trio.current_time(), self._linger_ms / 1_000)
            with trio.CancelScope(shield=True):
                await self._destroy(lingers_s + _GRACE_S)
        await trio.lowlevel.checkpoint()

    async def _destroy(self, deadline_s: float) -> None:
        with trio.move_on_after(deadline_s):
            own = trio.CapacityLimiter(1)  # others that hang don't hold this up
            await trio.to_thread.run_sync(self.raw.destroy, self._linger_ms, abandon_on_cancel=True, limiter=own)
            return
        warnings.warn("a ZeroMQ context did not end in time: somebody holds a socket of it", ResourceWarning, stacklevel=3)
