"""What does an AMQP client consume on one channel, and how much at once?"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from pamqp import commands

from gateway.api import ConsumeOptions, Delivery, Outcome
from gateway_amqp.arguments import consumer_priority
from gateway_amqp.codec.methods import decode, encode
from gateway_amqp.codec.names import (
    BASIC_CANCEL,
    BASIC_CANCEL_OK,
    BASIC_CONSUME,
    BASIC_GET,
    BASIC_NACK,
    BASIC_QOS,
    BASIC_RECOVER,
    BASIC_RECOVER_ASYNC,
    BASIC_REJECT,
    NOT_ALLOWED,
    NOT_IMPLEMENTED,
    HardError,
)
from gateway_amqp.codec.writing import cancel, get_empty, get_ok
from gateway_amqp.consumption import Consumption
from gateway_amqp.contents import content_key
from gateway_amqp.direct_reply import NAME as DIRECT_REPLY
from gateway_amqp.outflow import Outflow
from gateway_amqp.settling import Settling
from gateway_amqp.translate.tables import common_table

if TYPE_CHECKING:
    from gateway_amqp.channel import AmqpChannel

MOST_CONSUMERS: Final = 10_000
"""Of one channel."""
CONGESTED: Final = 1
SPILT: Final = 2
FULL: Final = 4
"""Why the consumers of a channel pause: the client does not read; there is much to be sent already; it has as much as it wanted."""

_TAG_BYTES: Final = 16


class Consuming(Settling):
    """The consumers of one channel, and what it has not settled (a `gateway.api.Flushable`).

    ``limit``: how many unsettled deliveries the consumers may have together; 0: any.
    """

    __slots__ = (
        "_consumptions",
        "_counts",
        "_key",
        "_prefetch",
        "_turn",
        "limit",
    )

    def __init__(self, amqp: AmqpChannel) -> None:
        super().__init__(amqp)
        self.stopped = CONGESTED if amqp.link.connection.is_congested else 0
        self.limit: int = 0
        self._consumptions: dict[str, Consumption] = {}
        self._key: int = content_key(amqp.number, amqp.frame_max)
        self._prefetch: int = 0
        self._turn: int = 0
        self._counts: bool = False

    # -- consumers ----------------------------------------------------------

    def consume(self, arguments: bytes) -> None:
        """Basic.Consume. What was said before the client is told that it consumes is answered before, too; messages come behind."""
        command: commands.Basic.Consume = decode(BASIC_CONSUME, arguments)
        amqp = self.amqp
        tag = self._free_tag(command.consumer_tag)
        queue = amqp.declaring.named(command.queue)
        given = common_table(command.arguments or {})
        priority = consumer_priority(given, queue, amqp.principal.vhost)
        if queue == DIRECT_REPLY:
            queue = amqp.direct_reply.open(tag, command.no_ack)
        amqp.declaring.note("consumer", [name for name in given if name.startswith("x-") and name != "x-priority"])
        options = ConsumeOptions(
            prefetch=0 if command.no_ack else self._prefetch,
            no_ack=command.no_ack,
            exclusive=command.exclusive,
            priority=priority,
            paused=True,
        )
        consumption = Consumption(self, tag, command.no_ack, self._outflow())
        self._consumptions[tag] = consumption
        number = amqp.channel.consume(queue, consumption, options)
        amqp.expect(number, partial(self._began, consumption, command.nowait), BASIC_CONSUME)

    def _free_tag(self, asked: str) -> str:
        if asked in self._consumptions:
            raise HardError(NOT_ALLOWED, f"attempt to reuse consumer tag '{asked}'", BASIC_CONSUME)
        if len(self._consumptions) >= MOST_CONSUMERS:
            raise HardError(NOT_ALLOWED, f"reached maximum ({MOST_CONSUMERS}) of consumers per channel", BASIC_CONSUME)
        return asked or "amq.ctag-" + secrets.token_urlsafe(_TAG_BYTES)

    def _outflow(self) -> Outflow:
        link = self.amqp.link
        outflow = link.outflow
        if outflow is None:
            outflow = link.outflow = Outflow(self.amqp.gateway, link.connection)
        return outflow

    def _began(self, consumption: Consumption, nowait: bool, outcome: Outcome) -> None:
        amqp = self.amqp
        if not nowait:
            amqp.send(encode(amqp.number, commands.Basic.ConsumeOk(consumption.tag)))
        if consumption.lost:
            self._tell_lost(consumption)
        elif consumption.over:
            amqp.channel.cancel(outcome.result)
        else:
            consumption.consumer = outcome.result
            if not self.stopped:
                outcome.result.resume()

    def cancel(self, arguments: bytes) -> None:
        """Basic.Cancel. What was delivered stays unsettled; a consumer that is unknown, or gone, is none all the same."""
        command: commands.Basic.Cancel = decode(BASIC_CANCEL, arguments)
        amqp = self.amqp
        tag = command.consumer_tag or ""
        consumption = self._consumptions.pop(tag, None)
        if consumption is not None:
            consumption.over = True
            amqp.direct_reply.cancelled(consumption.tag)
            if consumption.consumer is not None:
                amqp.channel.cancel(consumption.consumer)
        if not command.nowait:
            amqp.answer(encode(amqp.number, commands.Basic.CancelOk(tag)))

    def cancel_ok(self, arguments: bytes) -> None:
        """Basic.CancelOk: the client knows that a consumer has gone."""
        decode(BASIC_CANCEL_OK, arguments)

    def gone(self, consumption: Consumption) -> None:
        """Tell that a consumer has ended though nobody cancelled it."""
        if self._consumptions.get(consumption.tag) is consumption:
            del self._consumptions[consumption.tag]
        self.amqp.direct_reply.cancelled(consumption.tag)
        if consumption.consumer is not None:
            self._tell_lost(consumption)

    def _tell_lost(self, consumption: Consumption) -> None:
        amqp = self.amqp
        if amqp.link.tells_of_cancel and not amqp.is_over:
            amqp.tell(cancel(amqp.number, consumption.tag))

    def close(self) -> None:
        """The channel is over: its consumers are, and what is unsettled goes back, with the gateway's channel."""
        for consumption in self._consumptions.values():
            consumption.over = True
        self._consumptions = {}
        self.unsettled.deliveries = {}  # whole messages, which nobody knows when the collector would find

    # -- one message --------------------------------------------------------

    def get(self, arguments: bytes) -> None:
        """Basic.Get."""
        command: commands.Basic.Get = decode(BASIC_GET, arguments)
        amqp = self.amqp
        queue = amqp.declaring.named(command.queue)
        info = amqp.channel.queue_info(queue)
        left = max(info.messages - 1, 0) if info is not None else 0
        number = amqp.channel.get(queue, no_ack=command.no_ack)
        amqp.expect(number, partial(self._got, command.no_ack, left), BASIC_GET)

    def _got(self, no_ack: bool, left: int, outcome: Outcome) -> None:
        amqp = self.amqp
        delivery: Delivery | None = outcome.result
        if delivery is None:
            amqp.send(get_empty(amqp.number))
            return
        unsettled = self.unsettled
        tag = unsettled.last_tag = unsettled.last_tag + 1
        if not no_ack:
            unsettled.deliveries[tag] = delivery
            self.gotten.add(tag)
        contents = amqp.link.broker.contents
        content = contents.whole(delivery.message, self._key)
        amqp.link.send_large(get_ok(amqp.number, tag, delivery.redelivered, contents.where, left, content))

    # -- how much at once ---------------------------------------------------

    def qos(self, arguments: bytes) -> None:
        """Basic.Qos: for each consumer from now on; or (global) for all of the channel together, which the other one lifts."""
        command: commands.Basic.Qos = decode(BASIC_QOS, arguments)
        if command.prefetch_size:
            raise HardError(NOT_IMPLEMENTED, f"prefetch_size!=0 ({command.prefetch_size})", BASIC_QOS)
        amqp = self.amqp
        amqp.answer(encode(amqp.number, commands.Basic.QosOk()))
        if command.global_:
            self.limit = command.prefetch_count
            self.gotten.clear()
        else:
            self.limit = 0
            self._prefetch = command.prefetch_count
        self._count_soon()

    def room_again(self) -> None:
        """See `Settling`."""
        if self.stopped & FULL:
            self._count_soon()

    def _count_soon(self) -> None:
        """Look at the end of the turn who may go on: it may be many consumers, and many acknowledgements."""
        if not self._counts:
            self._counts = True
            self.amqp.gateway.touch(self)

    def flush(self) -> None:
        """See `gateway.api.Flushable`."""
        self._counts = False
        self.count()

    def count(self) -> None:
        """Stop the consumers if they have as much together as they may, or let them go on."""
        held = len(self.unsettled) + self.uncommitted - len(self.gotten)
        if self.limit and held >= self.limit:
            self._stop(FULL)
        elif self.stopped & FULL:
            self._go_on(FULL)

    def spilt(self) -> None:
        """There is much to be sent in this turn already: the rest comes when it is seen that the client reads."""
        if not self.stopped & SPILT:
            self._stop(SPILT)
            self._outflow().wait(self)

    def flushed(self) -> None:
        """It was handed to the socket."""
        self._go_on(SPILT)

    def congested(self) -> None:
        """The client does not read."""
        self._stop(CONGESTED)

    def decongested(self) -> None:
        """It has read."""
        self._go_on(CONGESTED)

    def _stop(self, why: int) -> None:
        if not self.stopped:
            for consumption in self._consumptions.values():
                if consumption.consumer is not None:
                    consumption.consumer.pause()
        self.stopped |= why

    def _go_on(self, why: int) -> None:
        """Let the consumers have their turns again, another one first each time, until there is a reason to stop."""
        self.stopped &= ~why
        waiting = list(self._consumptions.values())
        self._turn += 1
        first = self._turn % len(waiting) if waiting else 0
        for consumption in waiting[first:] + waiting[:first]:
            if self.stopped:
                return
            if consumption.consumer is not None:
                consumption.consumer.resume()


METHODS: Final[dict[int, Callable[[Consuming, bytes], None]]] = {
    BASIC_QOS: Consuming.qos,
    BASIC_CONSUME: Consuming.consume,
    BASIC_CANCEL: Consuming.cancel,
    BASIC_CANCEL_OK: Consuming.cancel_ok,
    BASIC_GET: Consuming.get,
    BASIC_NACK: Consuming.nack,
    BASIC_REJECT: Consuming.reject,
    BASIC_RECOVER: Consuming.recover,
    BASIC_RECOVER_ASYNC: Consuming.recover_async,
}
