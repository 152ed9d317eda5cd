"""How are contents, deliveries and acknowledgements written?

What is the same from message to message is made by one function and kept by whoever calls another one with it.
"""

from __future__ import annotations

import struct
from typing import Final

from gateway_amqp.codec.names import (
    BASIC_ACK,
    BASIC_CANCEL,
    BASIC_DELIVER,
    BASIC_GET_EMPTY,
    BASIC_GET_OK,
    BASIC_NACK,
    BASIC_RETURN,
    CONTENT_CLASS,
    FRAME_END,
    FRAME_OVERHEAD,
)
from gateway_amqp.codec.tables import short

HEARTBEAT: Final = b"\x08\0\0\0\0\0\0\xce"
END: Final = b"\xce"

_METHOD: Final = struct.Struct(">BHII")
_SETTLED: Final = struct.Struct(">BHIIQBB")
_HEADER: Final = struct.Struct(">BHIIQ")
_BODY: Final = struct.Struct(">BHI")
_BODY_AFTER: Final = struct.Struct(">BBHI")
_TAG: Final = struct.Struct(">QB")
_GET_OK: Final = struct.Struct(">BHIIQB")


def address(exchange: str, key: str) -> bytes:
    """Return what names where a message was published, in Deliver, GetOk and Return; each is cut at 255 bytes."""
    return short(exchange) + short(key)


def content_front(channel: int, properties: bytes, size: int) -> bytes:
    """Return what comes before the body of a content whose body is in one frame at most: its header, and the body frame's begin.

    Args:
        properties: property flags and properties, as in a header frame.
        size: bytes of the body, and no more than `frame_max` less the 8 of a frame.
    """
    front = _HEADER.pack(2, channel, 12 + len(properties), CONTENT_CLASS, size) + properties
    return front + _BODY_AFTER.pack(FRAME_END, 3, channel, size) if size else front


def content(channel: int, properties: bytes, body: bytes, frame_max: int) -> bytes:
    """Return a content: its header frame and its body frames.

    Args:
        properties: property flags and properties, as in a header frame.
        frame_max: bytes that a frame may have.
    """
    size = len(body)
    if 0 < size <= frame_max - FRAME_OVERHEAD:
        header = _HEADER.pack(2, channel, 12 + len(properties), CONTENT_CLASS, size)
        return b"".join((header, properties, _BODY_AFTER.pack(FRAME_END, 3, channel, size), body, END))
    parts = [_HEADER.pack(2, channel, 12 + len(properties), CONTENT_CLASS, size), properties, END]
    step = frame_max - FRAME_OVERHEAD
    for at in range(0, size, step):
        part = body[at : at + step]
        parts += (_BODY.pack(3, channel, len(part)), part, END)
    return b"".join(parts)


def deliver_front(channel: int, consumer_tag: str, where: bytes) -> bytes:
    """Return a Basic.Deliver up to its delivery tag.

    Args:
        where: of the message, by `address`.
    """
    tag = short(consumer_tag)
    return _METHOD.pack(1, channel, 13 + len(tag) + len(where), BASIC_DELIVER) + tag


def deliver(front: bytes, delivery_tag: int, redelivered: bool, where: bytes, whole_content: bytes) -> bytes:
    """Return a delivery: a Basic.Deliver and its content.

    Args:
        front: by `deliver_front`, for the same address.
        where: by `address`.
        whole_content: by `content`, for the same channel.
    """
    return b"".join((front, _TAG.pack(delivery_tag, redelivered), where, END, whole_content))


def deliver_body(front: bytes, delivery_tag: int, redelivered: bool, back: bytes, body: bytes) -> bytes:
    """Return a delivery of a message whose body is in one frame at most.

    Args:
        front: by `deliver_front`.
        back: ``address(...) + END + content_front(...)``; it is the same for messages with the same address, properties and size.
    """
    return b"".join((front, _TAG.pack(delivery_tag, redelivered), back, body, END))


def get_ok(channel: int, delivery_tag: int, redelivered: bool, where: bytes, left: int, whole_content: bytes) -> bytes:
    """Return the answer to a Basic.Get.

    Args:
        where: by `address`.
        left: messages that the queue has besides.
        whole_content: by `content`.
    """
    front = _GET_OK.pack(1, channel, 17 + len(where), BASIC_GET_OK, delivery_tag, redelivered)
    return b"".join((front, where, min(left, 0xFFFFFFFF).to_bytes(4, "big"), END, whole_content))


def get_empty(channel: int) -> bytes:
    """Return the answer to a Basic.Get of an empty queue."""
    return _METHOD.pack(1, channel, 5, BASIC_GET_EMPTY) + b"\0\xce"


def returned(channel: int, code: int, text: str, where: bytes, whole_content: bytes) -> bytes:
    """Return a Basic.Return and its content.

    Args:
        text: as clients read it: ``NO_ROUTE``.
        where: by `address`.
        whole_content: by `content`.
    """
    reply = short(text)
    front = _METHOD.pack(1, channel, 6 + len(reply) + len(where), BASIC_RETURN)
    return b"".join((front, code.to_bytes(2, "big"), reply, where, END, whole_content))


def ack(channel: int, tag: int, multiple: bool) -> bytes:
    """Return a Basic.Ack."""
    return _SETTLED.pack(1, channel, 13, BASIC_ACK, tag, multiple, FRAME_END)


def nack(channel: int, tag: int, multiple: bool) -> bytes:
    """Return a Basic.Nack to a publisher."""
    return _SETTLED.pack(1, channel, 13, BASIC_NACK, tag, multiple, FRAME_END)


def cancel(channel: int, consumer_tag: str) -> bytes:
    """Return a Basic.Cancel, by which a consumer learns that its queue has gone; no answer is wanted."""
    tag = short(consumer_tag)
    return b"".join((_METHOD.pack(1, channel, 5 + len(tag), BASIC_CANCEL), tag, b"\1", END))
