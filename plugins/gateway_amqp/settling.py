"""How does an AMQP client settle on one channel what it was sent?"""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from pamqp import commands

from gateway.api import Delivery, NotHeld
from gateway_amqp.codec.methods import decode, encode
from gateway_amqp.codec.names import (
    BASIC_NACK,
    BASIC_RECOVER,
    BASIC_RECOVER_ASYNC,
    BASIC_REJECT,
    NOT_IMPLEMENTED,
    HardError,
)
from gateway_amqp.unsettled import Taken, Unsettled

if TYPE_CHECKING:
    from gateway_amqp.channel import AmqpChannel
    from gateway_amqp.transaction import How

_SETTLE: Final = struct.Struct(">QB")


class Settling:
    """The half of a channel's consuming that settles.

    ``unsettled``: what was sent, and is to be acknowledged. ``gotten``: tags of those among them that were asked for singly.
    ``uncommitted``: how many a transaction is to settle. ``stopped``: why the consumers pause; 0: they don't.
    """

    __slots__ = ("amqp", "gotten", "stopped", "uncommitted", "unsettled")

    def __init__(self, amqp: AmqpChannel) -> None:
        self.amqp: AmqpChannel = amqp
        self.unsettled: Unsettled = Unsettled()
        self.gotten: set[int] = set()
        self.uncommitted: int = 0
        self.stopped: int = 0

    def room_again(self) -> None:
        """Something was settled while the consumers pause."""

    def ack(self, delivery_tag: int, multiple: bool) -> None:
        """Basic.Ack.

        Raises:
            SoftError: 406, there is no such delivery.
            NotHeld: it was taken away from the client: others have it, or will.
        """
        amqp = self.amqp
        if multiple or amqp.transaction is not None:
            self._ack_all(self._take(delivery_tag, multiple))
            return
        delivery = self.unsettled.take(delivery_tag)
        if delivery is not None:
            amqp.channel.ack(delivery)
        if self.gotten:
            self.gotten.discard(delivery_tag)
        if self.stopped:
            self.room_again()

    def _ack_all(self, taken: list[Taken]) -> None:
        amqp = self.amqp
        if amqp.transaction is not None:
            self._settle_later(taken, "ack")
            return
        deliveries = [delivery for _, delivery in taken if delivery is not None]
        if deliveries:
            amqp.channel.ack_many(deliveries)
        self.settled(0)

    def nack(self, arguments: bytes) -> None:
        """Basic.Nack. Raises as `ack`."""
        if len(arguments) != _SETTLE.size:
            decode(BASIC_NACK, arguments)
        tag, bits = _SETTLE.unpack(arguments)
        self._give_back(self._take(tag, bits & 1 != 0), requeue=bits & 2 != 0)

    def reject(self, arguments: bytes) -> None:
        """Basic.Reject. Raises as `ack`."""
        if len(arguments) != _SETTLE.size:
            decode(BASIC_REJECT, arguments)
        tag, bits = _SETTLE.unpack(arguments)
        self._give_back(self._take(tag, multiple=False), requeue=bits & 1 != 0)

    def _give_back(self, taken: list[Taken], *, requeue: bool) -> None:
        amqp = self.amqp
        if amqp.transaction is not None:
            self._settle_later(taken, "requeue" if requeue else "reject")
            return
        deliveries = [delivery for _, delivery in taken if delivery is not None]
        if deliveries:
            amqp.channel.nack_many(deliveries, requeue=requeue)
        self.settled(0)

    def recover(self, arguments: bytes) -> None:
        """Basic.Recover: all that was sent before it is answered goes back. What comes again for it comes behind the answer."""
        self._check_recover(decode(BASIC_RECOVER, arguments).requeue, BASIC_RECOVER)
        self.amqp.in_turn(self._recover_and_say)

    def _recover_and_say(self) -> None:
        amqp = self.amqp
        amqp.send(encode(amqp.number, commands.Basic.RecoverOk()))
        self._recover()

    def recover_async(self, arguments: bytes) -> None:
        """Basic.RecoverAsync: the same without an answer."""
        self._check_recover(decode(BASIC_RECOVER_ASYNC, arguments).requeue, BASIC_RECOVER_ASYNC)
        self.amqp.in_turn(self._recover)

    def _check_recover(self, requeue: bool, method: int) -> None:
        if not requeue:
            raise HardError(NOT_IMPLEMENTED, "requeue=false", method)

    def _recover(self) -> None:
        deliveries = [delivery for _, delivery in self.unsettled.take_all() if delivery is not None]
        self.gotten.clear()
        if deliveries:
            with suppress(NotHeld):  # what was taken away from the client is back already
                self.amqp.channel.nack_many(deliveries, requeue=True)
        self.settled(0)

    def _take(self, tag: int, multiple: bool) -> list[Taken]:
        """Take out what a tag means. Raises as `ack`."""
        unsettled = self.unsettled
        taken = unsettled.take_through(tag) if multiple else [(tag, unsettled.take(tag))]
        if self.gotten:
            self.gotten.difference_update([number for number, _ in taken])
        return taken

    # -- transactions -------------------------------------------------------

    def _settle_later(self, taken: list[Taken], how: How) -> None:
        """Leave it to the transaction; until that ends it counts as unsettled."""
        transaction = self.amqp.transaction
        assert transaction is not None
        kept = [(tag, delivery) for tag, delivery in taken if delivery is not None]
        self.uncommitted += len(kept)
        transaction.settle(kept, how)

    def settled(self, count: int) -> None:
        """So many deliveries of a transaction are settled, or others without one."""
        self.uncommitted -= count
        if self.stopped:
            self.room_again()

    def restore(self, taken: list[tuple[int, Delivery]]) -> None:
        """Take back what was settled in a transaction that is rolled back: it is unsettled again, under its tags."""
        self.uncommitted -= len(taken)
        self.unsettled.restore(list(taken))
