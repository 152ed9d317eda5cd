"""What does a client of a test say and hear, packet by packet?"""

from __future__ import annotations

import itertools

import trio

from gateway_mqtt.codec.coding import decode, encode
from gateway_mqtt.codec.packets import Packet
from gateway_mqtt.codec.splitter import Splitter

PATIENCE_S = 30


class Wire:
    """A connection on which any packets, or any bytes, are sent, and every packet is looked at.

    Args:
        level: protocol level: 3, 4 or 5.
    """

    def __init__(self, stream: trio.SocketStream, level: int = 4) -> None:
        self.stream = stream
        self.level = level
        self.patience_s = PATIENCE_S
        self._splitter = Splitter()
        self._identifiers = itertools.count(1)

    async def send(self, *parts: Packet | bytes) -> None:
        """Send all in one piece."""
        await self.stream.send_all(b"".join(part if isinstance(part, bytes) else encode(part, self.level) for part in parts))

    async def raw(self) -> tuple[int, bytes] | None:
        """Return the next packet's first byte and payload; None: the broker has closed."""
        with trio.fail_after(self.patience_s):
            while (frame := self._splitter.next()) is None:
                try:
                    data = await self.stream.receive_some(65_536)
                except trio.BrokenResourceError:
                    return None
                if not data:
                    return None
                self._splitter.feed(data)
        return frame

    async def next(self) -> Packet | None:
        """Return the next packet; None: the broker has closed."""
        frame = await self.raw()
        return None if frame is None else decode(*frame, self.level)

    async def take(self, count: int) -> list[Packet | None]:
        return [await self.next() for _ in range(count)]

    async def vanish(self) -> None:
        """Close without a goodbye."""
        await self.stream.aclose()
