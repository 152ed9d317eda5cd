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
    from gateway_amqp.protocol import Protocol

How = Literal["ack", "requeue", "reject"]
COST_BYTES: Final = 500
"""What a message costs besides its bytes."""
ROOM_BYTES: Final = 16 * 1024 * 1024
"""What the open transactions of a connection may hold besides one message of the largest size."""


class Buffered:
    """What the open transactions of one connection hold, in bytes: it counts as what has come in part (`gateway.api.Partial`)."""

    __slots__ = ("_held", "_link", "_most")

    def __init__(self, link: Protocol) -> None:
        self._link: Protocol = link
        self._held: int = 0
        self._most: int = link.broker.settings.max_message_bytes + ROOM_BYTES

    def take(self, size: int) -> None:
        """Hold more.

        Raises:
            SoftError: 506, it is too much.
        """
        if self._held + size > self._most:
            raise SoftError(RESOURCE_ERROR, f"open transactions of a connection hold {self._most} bytes at most", BASIC_PUBLISH)
        self.give(-size)

    def give(self, size: int) -> None:
        """Hold less."""
        self._held -= size
        link = self._link
        link.broker.partial.holds(self, 0 if link.is_over else self._held)  # it may have ended for what it was to take

    def too_much(self) -> None:
        """See `gateway_amqp.broker.Part`."""
        self._link.too_much()


class Transaction:
    """What one channel collects until Tx.Commit or Tx.Rollback. Another one begins with each of these."""

    __slots__ = ("_amqp", "_buffered", "_held", "_mandatory", "_mortal", "_publishes", "_settled")

    def __init__(self, amqp: AmqpChannel) -> None:
        self._amqp: AmqpChannel = amqp
        self._buffered: Buffered = amqp.link.buffered
        self._held: int = 0
        self._publishes: list[tuple[Route, Message]] = []
        self._mandatory: set[int] = set()
        self._mortal: list[tuple[Message, int]] = []
        self._settled: list[tuple[int, Delivery, How]] = []

    def publish(self, route: Route, message: Message, mandatory: bool, ttl_ms: int) -> None:
        """Publish a message with the commit, from which on it has so long to live (`NEVER`: for ever).

        Raises:
            SoftError: 506, it would hold too much.
            GatewayError: it would be refused, whatever it is: there is no such exchange.
        """
        refusal = self._amqp.channel.refusal(route)
        if refusal is not None:
            raise refusal
        size = len(message.body) + len(message.wire) + COST_BYTES
        self._buffered.take(size)
        self._held += size
        if mandatory:
            self._mandatory.add(len(self._publishes))
        if ttl_ms >= 0:
            self._mortal.append((message, ttl_ms))
        self._publishes.append((route, message))

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
        now_ms = amqp.gateway.now_ms() if self._mortal else 0
        for message, ttl_ms in self._mortal:
            message.expires_at_ms = now_ms + ttl_ms
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
        self._mortal = []
        self._settled = []
        if self._held:
            self._buffered.give(self._held)
            self._held = 0
        return taken
