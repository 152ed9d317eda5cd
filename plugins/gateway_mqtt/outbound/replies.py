"""How is a client answered, and what if it never reads?"""

from __future__ import annotations

from typing import Final

from gateway.api import CloseReason, Connection, Gateway

MOST_UNREAD_REPLIES_BYTES: Final = 1024 * 1024
"""What a client may cause to be answered while it does not read."""


class Replies:
    """What is sent to a client that is no message (a `CongestionSink`, for those who are sent nothing else)."""

    __slots__ = ("_client_id", "_connection", "_gateway", "_out", "_unread_bytes")

    def __init__(self, gateway: Gateway, connection: Connection, client_id: str) -> None:
        self._gateway: Gateway = gateway
        self._connection: Connection = connection
        self._client_id: str = client_id
        self._out: list[bytes] = connection.out
        self._unread_bytes: int = 0

    def reply(self, data: bytes) -> None:
        """Send PUBACKs, SUBACKs and so on. A client that asks and never reads is cut off."""
        connection = self._connection
        out = self._out
        if not out:
            connection.touch()
        out.append(data)
        if connection.is_congested:
            self._unread_bytes += len(data)
            if self._unread_bytes > MOST_UNREAD_REPLIES_BYTES:
                self.give_up("it does not read what it is answered")

    def reply_last(self, data: bytes) -> None:
        """Send a DISCONNECT: whatever comes behind it goes nowhere [MQTT5-3.14.4-1]."""
        self.reply(data)
        self._out = []

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
