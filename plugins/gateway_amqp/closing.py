"""What becomes of a channel or a connection that is being closed, until all is said?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pamqp import commands

from gateway.api import Channel, CloseReason, Connection, Outcome
from gateway_amqp.codec.methods import encode
from gateway_amqp.codec.names import CHANNEL_CLOSE, CHANNEL_CLOSE_OK, CHANNEL_OPEN

if TYPE_CHECKING:
    from gateway_amqp.protocol import Protocol as Link

CLOSE_OK: Final = encode(0, commands.Connection.CloseOk())
_CLOSE: Final = re.compile(rb"\x01\x00\x00....\x00\x0a\x00\x32", re.DOTALL)
"""How a client's own Connection.Close begins."""


class Draining:
    """A channel that was closed for an error, until the client has seen it (`gateway_amqp.channel.Frames`).

    Late methods, publishes and acknowledgements are dropped.

    Args:
        answered: the client had closed it, too, and has its answer: it may take that for the end of it.
    """

    __slots__ = ("_answered", "_link", "_number")

    def __init__(self, link: Link, number: int, *, answered: bool) -> None:
        self._link: Link = link
        self._number: int = number
        self._answered: bool = answered

    def on_method(self, method: int, arguments: bytes) -> None:
        """See `Frames`."""
        link, number = self._link, self._number
        if method == CHANNEL_CLOSE_OK:
            link.channels.pop(number, None)
        elif method == CHANNEL_CLOSE:
            self._answered = True
            link.send(encode(number, commands.Channel.CloseOk()))
        elif method == CHANNEL_OPEN and self._answered:
            link.channels.pop(number, None)
            link.on_stray(number, method, arguments)

    def on_publish(self, arguments: bytes, properties: bytes, body: bytes) -> None:
        """See `Frames`."""

    def on_ack(self, delivery_tag: int, multiple: bool) -> None:
        """See `Frames`."""

    def on_too_large(self, size: int) -> None:
        """See `Frames`."""


class Farewell:
    """A connection that its client closes, until all is told that it submitted before (an `OutcomeSink`)."""

    __slots__ = ("_channel", "_link")

    def __init__(self, link: Link) -> None:
        self._link: Link = link
        self._channel: Channel = link.gateway.open_channel(link.principal, self, owner=link)
        self._channel.barrier()

    def on_outcomes(self, through: int, exceptions: Sequence[Outcome]) -> None:
        """See `gateway.api.OutcomeSink`."""
        self._link.closed()

    def close(self) -> None:
        """There is nothing to wait for any more."""
        self._channel.close()


class Closing:
    """A connection that was closed for an error, until the client has answered (a `Receiver`): all else that comes is dropped.

    Its frames are not counted out any more, as they may be what is wrong: it is enough to see the answer, wherever it is.
    """

    __slots__ = ("_connection", "_last")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._last = b""

    def feed(self, data: bytes) -> bool:
        """See `gateway.api.Receiver.feed`."""
        seen = self._last + data
        if CLOSE_OK in seen:
            self._connection.close(CloseReason.LOCAL)
        elif _CLOSE.search(seen) is not None:
            if not self._connection.out:
                self._connection.touch()
            self._connection.out.append(CLOSE_OK)
            self._connection.close(CloseReason.LOCAL)
        self._last = seen[-len(CLOSE_OK) :]
        return False

    def ended(self, reason: CloseReason) -> None:
        """See `gateway.api.Receiver.ended`."""
