"""How is a publisher told which of its messages are stored, refused, or went nowhere?"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.api import Message
from gateway_amqp.codec.names import NO_ROUTE, REPLIES
from gateway_amqp.codec.writing import ack, address, content, nack, returned


class Confirms:
    """The acknowledgements that one channel sends to its publisher.

    A message's tag is its number less that of the last one before Confirm.Select. Tags are told in order: one frame tells all that
    follow one another and have the same fate.
    """

    __slots__ = ("_channel", "_offset", "_told")

    def __init__(self, channel: int, offset: int) -> None:
        """Begin behind number `offset`; `channel` is the AMQP channel's number."""
        self._channel: int = channel
        self._offset: int = offset
        self._told: int = 0

    def covers(self, number: int) -> bool:
        """Say whether the publisher is told of this message: it was published since Confirm.Select."""
        return number > self._offset

    def all_stored(self, through: int) -> bytes:
        """Return what is to be sent when all up to a number are stored; b"": nothing."""
        tag = through - self._offset
        count = tag - self._told
        if count <= 0:
            return b""
        self._told = tag
        return ack(self._channel, tag, count > 1)

    def told(self, through: int, refused: Sequence[int]) -> bytes:
        """Return what is to be sent when all up to a number are decided, and some of them refused."""
        parts: list[bytes] = []
        for number in refused:
            parts.append(self.all_stored(number - 1))
            tag = number - self._offset
            if tag <= self._told:
                continue
            if len(parts) > 1 and not parts[-1]:  # it follows another one that is refused
                parts.pop()
                parts[-1] = nack(self._channel, tag, multiple=True)
            else:
                parts.append(nack(self._channel, tag, multiple=False))
            self._told = tag
        parts.append(self.all_stored(through))
        return b"".join(parts)


def return_of(message: Message, channel: int, frame_max: int) -> bytes:
    """Return the Basic.Return of a message that reached no queue.

    Args:
        channel: the AMQP channel's number.
        frame_max: bytes that a frame may have.
    """
    where = message.address
    whole = content(channel, message.wire, message.body, frame_max)
    return returned(channel, NO_ROUTE, REPLIES[NO_ROUTE], address(where.exchange, where.routing_key), whole)
