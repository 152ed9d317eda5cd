"""What is still to be sent on a socket that does not take everything at once?"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

from gateway_zeromq.endpoints.alarm import Alarm

if TYPE_CHECKING:
    import socket

SEND_BYTES: Final = 262_144
"""About so much is put together for one send; one part is always sent whole."""


class Outbox:
    """What goes out on a non-blocking socket.

    ``blocked``: the kernel takes no more, and `run` waits until it does. ``moved``: it took some of what had waited; the one who
    looks resets it.

    Args:
        lost: told why the connection is of no use any more.
        cleared: told when all that waited is sent.
    """

    __slots__ = ("_alarm", "_cleared", "_lost", "_socket", "_waiting", "blocked", "moved")

    def __init__(self, sock: socket.socket, lost: Callable[[str], None], cleared: Callable[[], None]) -> None:
        self._socket = sock
        self._lost = lost
        self._cleared = cleared
        self._waiting: deque[bytes | memoryview] = deque()
        self._alarm = Alarm()
        self.blocked = self.moved = False

    def send(self, parts: list[bytes], size: int) -> None:
        """Send parts of so many bytes together: in one go if the kernel takes that, in pieces if it is much."""
        if self.blocked or size > 2 * SEND_BYTES:
            self._waiting += parts
            if not self.blocked:
                self._send_waiting()
            return
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        sent = self._sent(data)
        if sent < size:
            self._waiting.append(memoryview(data)[sent:])
            self._block()

    def forget(self) -> None:
        """Send nothing of what waits."""
        self._waiting.clear()

    async def run(self) -> None:
        """Send what has to wait when there is room. Cancellation: safe."""
        while True:
            if not self.blocked:
                await self._alarm.wait()
                continue
            await trio.lowlevel.wait_writable(self._socket)
            self._send_waiting()
            if not self.blocked:
                self._cleared()

    def _sent(self, data: bytes | memoryview) -> int:
        """Return how much the kernel took."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._lost(f"connection lost: {error.strerror}")
            return 0

    def _block(self) -> None:
        if not self.blocked:
            self.blocked = True
            self._alarm.ring()

    def _send_waiting(self) -> None:
        """Send what waits, a piece at a time, until the kernel takes no more."""
        waiting = self._waiting
        while waiting:
            data = self._next_piece()
            sent = self._sent(data)
            self.moved = self.moved or bool(sent)
            if sent < len(data):
                waiting.appendleft(memoryview(data)[sent:])
                self._block()
                return
        self.blocked = False

    def _next_piece(self) -> bytes | memoryview:
        waiting = self._waiting
        first = waiting.popleft()
        room = SEND_BYTES - len(first)
        parts = [first]
        while waiting and len(waiting[0]) <= room:
            room -= len(waiting[0])
            parts.append(waiting.popleft())
        return b"".join(parts) if len(parts) > 1 else first
