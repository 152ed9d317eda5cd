"""How is a client answered, and what if it never reads?"""

from __future__ import annotations

from typing import Final, Protocol

from gateway.api import CloseReason, Connection, Gateway
from gateway_mqtt.tally import Sent

MOST_UNREAD_REPLIES_BYTES: Final = 1024 * 1024
"""What a client may cause to be answered while it does not read."""


class Neighbour(Protocol):
    """Who sends messages on the same connection, and has to know what is not among them."""

    def replying(self) -> None:
        """A reply is about to be added to `Connection.out`, as one piece."""


class Replies:
    """What is sent to a client that is no message (a `CongestionSink`, for those who are sent nothing else).

    Args:
        sent: what all connections were sent; None: nobody asks.

    ``neighbour``: None: there are no messages.
    """

    __slots__ = ("_client_id", "_connection", "_gateway", "_out", "_unread_bytes", "neighbour", "sent")

    def __init__(self, gateway: Gateway, connection: Connection, client_id: str, sent: Sent | None = None) -> None:
        self.neighbour: Neighbour | None = None
        self.sent: Sent = sent if sent is not None else Sent()
        self._gateway: Gateway = gateway
        self._connection: Connection = connection
        self._client_id: str = client_id
        self._out: list[bytes] = connection.out
        self._unread_bytes: int = 0

    def reply(self, data: bytes, packets: int = 1) -> None:
        """Send PUBACKs, SUBACKs and so on. A client that asks and never reads is cut off.

        Args:
            packets: so many are in `data`.
        """
        connection = self._connection
        out = self._out
        if self.neighbour is not None:
            self.neighbour.replying()
        elif not out:
            connection.touch()
        out.append(data)
        sent = self.sent
        sent.others += packets
        sent.other_bytes += len(data)
        if connection.is_congested:
            self._unread_bytes += len(data)
            if self._unread_bytes > MOST_UNREAD_REPLIES_BYTES:
                self.give_up("it does not read what it is answered")

    def reply_last(self, data: bytes) -> None:
        """Send a DISCONNECT: whatever comes behind it goes nowhere [MQTT5-3.14.4-1]."""
        self.reply(data)
        self._out = []
        self.neighbour = None
        self.sent = Sent()

    def congested(self) -> None:
        """The client reads too slowly: from now on it is counted what it has not read."""

    def decongested(self) -> None:
        """The client has caught up."""
        self._unread_bytes = 0

    def give_up(self, reason: str) -> None:
        """Cut a client off that does not keep up."""
        if self._connection.closing:
            return
        self._gateway.count("slow_clients")
        self._gateway.log.warning(
            "a client does not keep up: connection closed", client=self._client_id, peer=self._connection.peer, reason=reason
        )
        self._connection.abort(CloseReason.SLOW)
