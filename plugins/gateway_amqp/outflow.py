"""How much is one connection sent at once, before it is seen whether the client reads?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.api import Connection, Gateway

if TYPE_CHECKING:
    from gateway_amqp.consuming import Consuming

MOST_UNSENT_BYTES: Final = 128 * 1024
"""With more to be sent in one turn the consumers pause until that is with the socket."""


class Outflow:
    """What a connection is to be sent in this turn (a `gateway.api.Flushable`).

    ``out``: the pieces, those of the connection. ``unsent``: bytes of deliveries among them.
    """

    __slots__ = ("_connection", "_gateway", "_waiting", "out", "unsent")

    def __init__(self, gateway: Gateway, connection: Connection) -> None:
        self._gateway: Gateway = gateway
        self._connection: Connection = connection
        self._waiting: list[Consuming] = []
        self.out: list[bytes] = connection.out
        self.unsent: int = 0

    def begin(self) -> None:
        """The first piece comes."""
        self._connection.touch()
        self.unsent = 0

    def wait(self, consuming: Consuming) -> None:
        """Tell a channel when what is there by now was handed to the socket."""
        if not self._waiting:
            self._gateway.touch(self)
        self._waiting.append(consuming)

    def flush(self) -> None:
        """See `gateway.api.Flushable`. The connection was flushed before: it was touched before."""
        waiting, self._waiting = self._waiting, []
        self.unsent = 0
        for consuming in waiting:
            consuming.flushed()
