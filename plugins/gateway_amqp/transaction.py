"""What has a client published and acknowledged that is to happen at once, or not at all?"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from pamqp import commands

from gateway.api import Delivery, Message, Outcome, Route
from gateway_amqp.codec.methods import encode
from gateway_amqp.codec.names import BASIC_PUBLISH, RESOURCE_ERROR, TX_COMMIT, SoftError
from gateway_amqp.confirms import return_of

if TYPE_CHECKING:
    from gateway_amqp.channel import AmqpChannel
    from gateway_amqp.settings import AmqpSettings

How = Literal["ack", "requeue", "reject"]
COST_BYTES: Final = 500
"""What a message costs besides its bytes."""
ROOM_BYTES: Final = 16 * 1024 * 1024
"""What a transaction may hold besides one message of the largest size."""


class Buffered:
    """How much the open transactions of all connections of a principal hold, and may hold, in bytes."""

    __slots__ = ("held", "most", "most_each")

    def __init__(self, settings: AmqpSettings) -> None:
        self.held: int = 0
        self.most: int = settings.max_partial_bytes
        self.most_each: int = settings.max_message_bytes + ROOM_BYTES


class Transaction:
    """What one channel collects until Tx.Commit or Tx.Rollback. Another one begins with each of these."""

    __slots__ = ("_amqp", "_buffered", "_held", "_mandatory", "_publishes", "_settled")

    def __init__(self, amqp: AmqpChannel) -> None:
        self._amqp: AmqpChannel = amqp
        settings = amqp.link.broker.settings
        self._buffered: Buffered = amqp.principal.cache.setdefault("amqp.buffered", Buffered(settings))
        self._held: int = 0
        self._publishes: list[tuple[Route, Message]] = []
        self._mandatory: set[int] = set()
        self._settled: list[tuple[int, Delivery, How]] = []

    def publish(self, route: Route, message: Message, mandatory: bool) -> None:
        """Publish a message with the commit.

        Raises:
            SoftError: 506, it would hold too much.
            GatewayError: it would be refused, whatever it is: there is no such exchange.
        """
        refusal = self._amqp.channel.refusal(route)
        if refusal is not None:
            raise refusal
        size = len(message.body) + len(message.wire) + COST_BYTES
        self._hold(size)
        if mandatory:
            self._mandatory.add(len(self._publishes))
        self._publishes.append((route, message))

    def _hold(self, size: int) -> None:
        buffered = self._buffered
        if self._held + size > buffered.most_each:
            raise SoftError(RESOURCE_ERROR, f"a transaction holds {buffered.most_each} bytes at most", BASIC_PUBLISH)
        if buffered.held + size > buffered.most:
            raise SoftError(RESOURCE_ERROR, f"open transactions hold {buffered.most} bytes, which is the most", BASIC_PUBLISH)
        self._held += size
        buffered.held += size

    def settle(self, taken: list[tuple[int, Delivery]], how: How) -> None:
        """Settle deliveries with the commit.

        Args:
            taken: delivery tags, and what they stand for; the channel does not know them any more.
            how: as `gateway.api.Channel.transact` takes it.
        """
        self._settled += [(tag, delivery, how) for tag, delivery in taken]

    def commit(self) -> None:
        """Do it. The client is told when it is on disk; what refuses a part of it refuses the whole, and is the channel's end."""
        amqp = self._amqp
        publishes, mandatory, settled = self._take()
        if not publishes and not settled:
            amqp.answer(encode(amqp.number, commands.Tx.CommitOk()))
            return
        number = amqp.channel.transact(publishes, [(delivery, how) for _, delivery, how in settled])
        amqp.expect(number, partial(self._committed, publishes, mandatory, len(settled)), TX_COMMIT)

    def _committed(self, publishes: list[tuple[Route, Message]], mandatory: set[int], settled: int, outcome: Outcome) -> None:
        amqp = self._amqp
        nowhere: Any = outcome.result
        for index in nowhere if mandatory else ():
            if index in mandatory:
                amqp.send(return_of(publishes[index][1], amqp.number, amqp.frame_max))
        if settled:
            amqp.consuming.settled(settled)
        amqp.send(encode(amqp.number, commands.Tx.CommitOk()))

    def rollback(self) -> None:
        """Forget it: what was acknowledged is unacknowledged again, under its old tags."""
        amqp = self._amqp
        _, _, settled = self._take()
        if settled:
            amqp.consuming.restore([(tag, delivery) for tag, delivery, _ in settled])
        amqp.answer(encode(amqp.number, commands.Tx.RollbackOk()))

    def close(self) -> None:
        """The channel is over: what was not committed never happens."""
        self._take()

    def _take(self) -> tuple[list[tuple[Route, Message]], set[int], list[tuple[int, Delivery, How]]]:
        """Return what was collected, and begin anew."""
        taken = (self._publishes, self._mandatory, self._settled)
        self._publishes = []
        self._mandatory = set()
        self._settled = []
        self._buffered.held -= self._held
        self._held = 0
        return taken
