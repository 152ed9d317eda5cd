"""What does one consumer of an AMQP channel send of what it is handed?"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from gateway.api import BindingOptions, Consumer, Delivery, GatewayError, Message
from gateway_amqp.codec.writing import deliver_front
from gateway_amqp.contents import Contents, content_key
from gateway_amqp.outflow import MOST_UNSENT_BYTES, Outflow
from gateway_amqp.unsettled import Unsettled

if TYPE_CHECKING:
    from gateway_amqp.consuming import Consuming

_TAG: Final = struct.Struct(">QB")
MOST_TRANSIENT: Final = 65_535
"""So many unsettled deliveries are behind what nobody keeps for the client: what comes then is dropped."""


class Consumption:
    """One consumer tag (a `gateway.api.ConsumerSink`).

    ``consumer``: None until the client was told that it consumes. ``over``: it does not any more. ``lost``: nobody cancelled it.
    """

    __slots__ = (
        "_contents",
        "_fronts",
        "_key",
        "_no_ack",
        "_outflow",
        "_room",
        "_unsettled",
        "consumer",
        "lost",
        "over",
        "tag",
    )

    def __init__(self, room: Consuming, tag: str, no_ack: bool, outflow: Outflow) -> None:
        self._room: Consuming = room
        self._no_ack: bool = no_ack
        self._outflow: Outflow = outflow
        self._unsettled: Unsettled = room.unsettled
        self._contents: Contents = room.amqp.link.broker.contents
        self._key: int = content_key(room.amqp.number, room.amqp.frame_max)
        self._fronts: dict[int, bytes] = {}
        self.tag: str = tag
        self.consumer: Consumer | None = None
        self.over: bool = False
        self.lost: bool = False

    def deliver(self, delivery: Delivery) -> None:
        """See `gateway.api.ConsumerSink`."""
        message = delivery.message
        contents = self._contents
        if message is not contents.message or self._key != contents.key:
            contents.turn_to(message, self._key)
        front = self._fronts.get(len(contents.where))
        if front is None:
            front = self._front(contents.where)
        unsettled = self._unsettled
        tag = unsettled.last_tag = unsettled.last_tag + 1
        if not self._no_ack:
            unsettled.deliveries[tag] = delivery
        outflow = self._outflow
        out = outflow.out
        if not out:
            outflow.begin()
        out += (front, _TAG.pack(tag, delivery.redelivered), contents.back, contents.body, contents.end)
        outflow.unsent += contents.cost
        room = self._room
        if outflow.unsent > MOST_UNSENT_BYTES:
            room.spilt()
        if room.limit:
            room.count()

    def _front(self, where: bytes) -> bytes:
        """Return what comes before the delivery tag; it says how long the address is that comes behind it."""
        front = self._fronts[len(where)] = deliver_front(self._room.amqp.number, self.tag, where)
        return front

    def deliver_transient(self, message: Message, options: BindingOptions | None) -> None:
        """See `gateway.api.ConsumerSink`: what needs no acknowledgement is sent at once, or dropped."""
        room, unsettled = self._room, self._unsettled
        if room.stopped or len(unsettled) >= MOST_TRANSIENT:
            room.amqp.gateway.count("dropped", reason="slow reader")
            return
        contents = self._contents
        contents.turn_to(message, self._key)
        front = self._fronts.get(len(contents.where)) or self._front(contents.where)
        tag = unsettled.last_tag = unsettled.last_tag + 1
        if not self._no_ack:
            unsettled.deliveries[tag] = None
        outflow = self._outflow
        if not outflow.out:
            outflow.begin()
        outflow.out += (front, _TAG.pack(tag, False), contents.back, contents.body, contents.end)
        outflow.unsent += contents.cost
        if outflow.unsent > MOST_UNSENT_BYTES:
            room.spilt()
        if room.limit:
            room.count()

    def cancelled(self, reason: GatewayError) -> None:
        """See `gateway.api.ConsumerSink`."""
        if not self.over:
            self.over = self.lost = True
            self._room.gone(self)
