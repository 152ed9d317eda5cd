"""How does an endpoint consume a queue, as fast as what it feeds can take?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

import trio

from gateway.api import (
    BindingOptions,
    Channel,
    ConfigError,
    ConsumeOptions,
    Consumer,
    Delivery,
    Flushable,
    GatewayError,
    Message,
    NotFound,
    Outcome,
    Principal,
)
from gateway_zeromq.endpoints.alarm import Alarm
from gateway_zeromq.endpoints.spot import Spot

RETRY_S = 1.0
_TOO_LATE = "settled_without_delivery"
"""Its queue was deleted, or asked for anew, meanwhile: it is settled, or back."""


class Loose:
    """A message that needs no settlement."""

    __slots__ = ("message",)

    def __init__(self, message: Message) -> None:
        self.message: Message = message


Item: TypeAlias = Delivery | Loose


class Feed:
    """A consumer of one queue. It collects what it is delivered in `pending`, for `flushable` to take at the end of the turn.

    Credit is given by hand, so that what can't be used stays in the queue. A queue that is deleted is asked for until it is back.

    ``channel``: the consumer's; another one when the queue was gone. ``has_room``: what needs no settlement, for which no credit
    counts, may be collected; without room it is dropped.

    Args:
        spot: the endpoint.
        principal: as whom it consumes.
        queue: whose messages.
        flushable: flushed once per turn in which something came.
        no_ack: nothing is to be settled.
        prepare: called with every new channel, before it consumes.
    """

    def __init__(
        self,
        spot: Spot,
        principal: Principal,
        queue: str,
        flushable: Flushable,
        *,
        no_ack: bool = False,
        prepare: Callable[[Channel], None] | None = None,
    ) -> None:
        self._spot = spot
        self._principal = principal
        self._flushable = flushable
        self._prepare = prepare
        self._options = ConsumeOptions(prefetch=0, no_ack=no_ack, manual_credit=True)
        self._consumer: Consumer | None = None
        self._failure: GatewayError | None = None
        self._answered = Alarm()
        self._lost = Alarm()
        self._gone = self._touched = self._held = self._has_loose = False
        self._credit = self._number = 0
        self.has_room = True
        self.queue = queue
        self.pending: list[Item] = []
        self.channel = spot.gateway.open_channel(principal, self)

    # -- life

    async def start(self) -> None:
        """Become a consumer of the queue.

        Raises:
            ConfigError: it can't be had.
        Cancellation: safe.
        """
        await self._consume()
        if self._failure is not None:
            raise ConfigError(f"ZeroMQ endpoint {self._spot.name!r} can't consume {self.queue!r}: {self._failure.text}")

    async def run(self) -> None:
        """Ask for the queue again whenever it is gone, and tell `flushable` when it is back. Cancellation: safe."""
        while True:
            while self._consumer is None:
                await trio.sleep(RETRY_S)
                self._begin_anew()
                await self._consume()
                self._flushable.flush()
            await self._lost.wait()

    def close(self) -> None:
        """Give back what is not settled."""
        self._consumer = None
        self.channel.close()

    async def _consume(self) -> None:
        self._gone = False
        self._failure = None
        if self._prepare is not None:
            self._prepare(self.channel)
        self._number = self.channel.consume(self.queue, self, self._options)
        await self._answered.wait()

    def _begin_anew(self) -> None:
        if not self._options.no_ack:
            self.pending.clear()
        self._credit = 0
        self._held = False
        self.channel.close()
        self.channel = self._spot.gateway.open_channel(self._principal, self)

    # -- credit

    def grant(self, most: int) -> None:
        """Let so many more come, less those that may come already."""
        if self._consumer is not None and most > self._credit:
            delta, self._credit = most - self._credit, most
            self._consumer.credit(delta)

    def hold(self, *, held: bool) -> None:
        """Let nothing come, whatever the credit; or again what the credit allows."""
        if self._consumer is not None and held is not self._held:
            self._held = held
            (self._consumer.pause if held else self._consumer.resume)()

    # -- settling

    def settle(self, delivery: Item, how: Callable[[Delivery], object]) -> None:
        """Settle a delivery, if it is one and its queue is still there."""
        if not isinstance(delivery, Loose):
            try:
                how(delivery)
            except NotFound:
                self._spot.gateway.count(_TOO_LATE)

    def hand_over(self, items: Sequence[Item]) -> None:
        """Settle what went where no acknowledgement comes from."""
        settle = self.channel.settle_handed_over
        for item in items:
            if not isinstance(item, Loose):
                try:
                    settle(item)
                except NotFound:
                    self._spot.gateway.count(_TOO_LATE)

    def ack(self, items: Sequence[Item]) -> None:
        """Settle what was acknowledged."""
        if self._has_loose:
            items = [item for item in items if not isinstance(item, Loose)]
        try:
            self.channel.ack_many(items)  # type: ignore[arg-type]  # they are deliveries
        except NotFound:
            self._spot.gateway.count(_TOO_LATE)

    def give_back(self, items: Sequence[Item], reason: str) -> None:
        """Return deliveries to their places in the queue; what needs no settlement is dropped, for this reason."""
        for item in items:
            if isinstance(item, Loose):
                self._spot.gateway.count("dropped", reason=reason)
            else:
                with suppress(NotFound):  # its queue is gone, or was asked for anew: it is back already
                    self.channel.nack(item, requeue=True)

    # -- ConsumerSink, OutcomeSink

    def deliver(self, delivery: Delivery) -> None:
        """See `gateway.api.ConsumerSink`."""
        self._credit -= 1
        self.pending.append(delivery)
        if not self._touched:
            self._touched = True
            self._spot.gateway.touch(self._flushable)

    def deliver_transient(self, message: Message, options: BindingOptions | None) -> None:
        """See `gateway.api.ConsumerSink`."""
        if self.has_room:
            self._has_loose = True
            self.pending.append(Loose(message))
            self.touch()
        else:
            self._spot.gateway.count("dropped", reason="no room")

    def touch(self) -> None:
        """Have `flushable` flushed at the end of the turn."""
        if not self._touched:
            self._touched = True
            self._spot.gateway.touch(self._flushable)

    def taken(self) -> None:
        """Say that `pending` is being looked at: what comes from now on needs another flush."""
        self._touched = False

    def cancelled(self, reason: GatewayError) -> None:
        """See `gateway.api.ConsumerSink`: the queue is gone."""
        self._spot.say_once("consumer ended", "cancelled", queue=self.queue, reason=reason.text)
        self._consumer = None
        self._gone = True  # even if it is not known yet that there was one
        self._lost.ring()

    def on_outcomes(self, through: int, exceptions: Sequence[Outcome]) -> None:
        """See `gateway.api.OutcomeSink`: the answers to what `prepare` and this have asked for."""
        for outcome in exceptions:
            if outcome.error is not None:
                self._failure = self._failure or outcome.error
                self._spot.gateway.count("refused", reason=str(outcome.error.code))
                self._spot.say_once("queue can't be used", outcome.error.text, queue=self.queue, reason=outcome.error.text)
            elif outcome.number == self._number and not self._gone:
                self._consumer = outcome.result
            if outcome.number == self._number:
                self._answered.ring()
