"""How does a message look as the content of an AMQP method, made once for all who are sent it?"""

from __future__ import annotations

from typing import Final

from gateway.api import Address, Gateway, Message, make_room
from gateway_amqp.codec.names import FRAME_OVERHEAD
from gateway_amqp.codec.writing import END, address, content, content_front
from gateway_amqp.translate.properties import WIRE_TAG, properties_for

MOST_ADDRESSES: Final = 4_096
NUMBER_SHIFT: Final = 32


def content_key(number: int, frame_max: int) -> int:
    """Return what `Contents` tells peers apart by: contents look the same on channels of one number, in frames of one size."""
    return number << NUMBER_SHIFT | frame_max


class Contents:
    """The content that was written last, as it stands between the delivery tag and the next frame: ``back``, ``body``, ``end``.

    ``message``: whose it is; ``key``: for whom, by `content_key`. ``where``: its address as Deliver names it. ``cost``: about how
    many bytes it sends.
    """

    __slots__ = (
        "_address",
        "_gateway",
        "_properties",
        "_size",
        "_wheres",
        "back",
        "body",
        "cost",
        "end",
        "key",
        "message",
        "where",
    )

    def __init__(self, gateway: Gateway) -> None:
        self._gateway: Gateway = gateway
        self._address: Address | None = None
        self._wheres: dict[Address, bytes] = {}
        self._properties: bytes = b""
        self._size: int = -1
        self.message: Message | None = None
        self.key: int = -1
        self.where: bytes = b""
        self.back: bytes = b""
        self.body: bytes = b""
        self.end: bytes = END
        self.cost: int = 0

    def turn_to(self, message: Message, key: int) -> None:
        """Write the content of a message, as far as it is not that of the last one."""
        moved = message.address is not self._address
        if moved:
            self._go_to(message.address)
        if message.wire_tag == WIRE_TAG:
            properties = message.wire
        elif message is self.message:
            properties = self._properties
        else:
            properties = properties_for(message, self._gateway.properties, self._gateway.now_ms)
        self.message = message
        body = message.body
        size = len(body)
        if moved or size != self._size or key != self.key or properties != self._properties:
            self._size = size
            self._properties = properties
            self.key = key
            self._write(body, size)
        elif self.end:
            self.body = body
        else:
            self._write(body, size)

    def _go_to(self, place: Address) -> None:
        where = self._wheres.get(place)
        if where is None:
            make_room(self._wheres, MOST_ADDRESSES)
            where = self._wheres[place] = address(place.exchange, place.routing_key)
        self._address = place
        self.where = where

    def _write(self, body: bytes, size: int) -> None:
        frame_max = self.key & (1 << NUMBER_SHIFT) - 1
        number = self.key >> NUMBER_SHIFT
        if size <= frame_max - FRAME_OVERHEAD:
            self.back = self.where + END + content_front(number, self._properties, size)
            self.body = body
            self.end = END
        else:
            self.back = self.where + END
            self.body = content(number, self._properties, body, frame_max)
            self.end = b""
        self.cost = len(self.back) + size + 64

    def whole(self, message: Message, key: int) -> bytes:
        """Return a message's content in one piece, for GetOk; its address is `where` then."""
        self.turn_to(message, key)
        return b"".join((self.back[len(self.where) + len(END) :], self.body, self.end))
