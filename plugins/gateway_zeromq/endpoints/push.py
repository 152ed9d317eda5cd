"""How do a queue's messages get to plain PULL peers?

A message is settled when libzmq takes it, and that is all that can be known: what libzmq and the kernels hold for a peer is lost
with it. So the settlement is automatic: it spares the message no way to the disk, and confirms nothing to its publisher.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import trio
import zmq

from gateway.api import (
    BindingOptions,
    ConfigError,
    ConsumeOptions,
    Consumer,
    Delivery,
    GatewayError,
    Message,
    NotFound,
    Outcome,
    Principal,
    swap_key,
)
from gateway_zeromq.endpoints.frames import Joiner, join_body, join_headers, join_key, join_raw
from gateway_zeromq.endpoints.spot import LINGER_MS, Alarm, Spot
from gateway_zeromq.settings import PushEndpoint
from trio_zmq.pump import COPY_BELOW_BYTES, MORE, NOBLOCK, Pump, Whole, whole_messages

PER_TURN = 1_024
"""Messages that are sent in one turn; the rest waits for the next, so that others get theirs."""
RETRY_S = 1.0


class Loose:
    """A message that needs no settlement."""

    __slots__ = ("message",)

    def __init__(self, message: Message) -> None:
        self.message: Message = message


class PushSocket:
    """One PUSH endpoint: a consumer of its queue, and the sink of what it is delivered.

    Credit is given by hand: none while libzmq has no room (no peer is there, or all are full), so that the messages stay in the
    queue, for other consumers too.
    """

    def __init__(self, spot: Spot, settings: PushEndpoint, principal: Principal) -> None:
        self._spot = spot
        self._settings = settings
        self._gateway = spot.gateway
        self._principal = principal
        self._pending: list[Delivery | Loose] = []
        self._consumer: Consumer | None = None
        self._failure: GatewayError | None = None
        self._answered = Alarm()
        self._blocked = Alarm()
        self._ready = self._touched = self._ended = self._gone = False
        self._credit = 0
        self._join = self._joiner()
        self._sending = self._way()
        self._open_channel()
        socket = spot.socket()
        socket.setsockopt(zmq.SNDHWM, settings.sndhwm)
        socket.setsockopt(zmq.IMMEDIATE, 1)  # only to peers that are there
        self._pump: Pump[Whole] = Pump(socket, whole_messages(socket))

    def _joiner(self) -> Joiner:
        properties = self._gateway.properties
        return {"body": join_body, "key,body": join_key, "raw": join_raw}.get(self._settings.frames) or join_headers(properties)

    def _way(self) -> Callable[[], Iterator[None]]:
        """Return how messages are sent: the common layouts have loops of their own."""
        if self._join is join_body:
            return self._sent_bodies
        return self._sent_pairs if self._join is join_key and self._settings.key_syntax == "amqp" else self._sent_frames

    def open(self) -> None:
        """Bind and connect. Errors as `Spot.attach`."""
        self._spot.attach(self._pump.socket)

    async def start(self) -> None:
        """Become a consumer of the queue.

        Raises:
            ConfigError: somebody else has it for itself.
        Cancellation: safe.
        """
        await self._consume()
        if self._failure is not None:
            raise ConfigError(f"ZeroMQ endpoint {self._spot.name!r} can't consume {self._settings.queue!r}: {self._failure.text}")

    async def run(self) -> None:
        """Watch over room to send, until cancelled or closed. Cancellation: safe."""
        try:
            while True:
                while self._consumer is None:
                    await trio.sleep(RETRY_S)
                    self._begin_anew()
                    await self._consume()
                await self._pump.writable()
                self._ready = True
                self._send()
                self._grant()
                if self._ready:
                    await self._blocked.wait()
        except trio.ClosedResourceError:
            return

    async def drain(self) -> None:
        """Send no more; what was delivered and not handed over goes back to the queue. Cancellation: safe."""
        self._ended = True
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close socket and channel."""
        self._ended = True
        self._pump.close(LINGER_MS)
        self._channel.close()

    # -- the consumer

    def _open_channel(self) -> None:
        self._channel = self._gateway.open_channel(self._principal, self)
        self._settle: Callable[[Delivery], None] = self._channel.settle_handed_over

    async def _consume(self) -> None:
        self._gone = False
        options = ConsumeOptions(prefetch=0, manual_credit=True)
        self._channel.consume(self._settings.queue, self, options)
        await self._answered.wait()

    def _begin_anew(self) -> None:
        """Give back what the ended consumer still holds."""
        self._pending.clear()
        self._credit = 0
        self._channel.close()
        self._open_channel()

    def on_outcomes(self, through: int, exceptions: Sequence[Outcome]) -> None:
        """See `gateway.api.OutcomeSink`: the answer to `consume`."""
        for outcome in exceptions:
            self._failure = outcome.error
            self._consumer = None if self._gone else outcome.result
            if outcome.error is not None:
                self._spot.say_once("queue can't be consumed", "consume", queue=self._settings.queue, reason=outcome.error.text)
        self._answered.ring()

    def cancelled(self, reason: GatewayError) -> None:
        """See `gateway.api.ConsumerSink`: the queue is gone; it is asked for again until it is back."""
        self._spot.say_once("consumer ended", "cancelled", queue=self._settings.queue, reason=reason.text)
        self._consumer = None
        self._gone = True  # even if it is not known yet that there was one
        self._ready = False
        self._blocked.ring()

    def deliver(self, delivery: Delivery) -> None:
        """See `gateway.api.ConsumerSink`: collect; `flush` sends."""
        self._credit -= 1
        self._pending.append(delivery)
        if not self._touched:
            self._touched = True
            self._gateway.touch(self)

    def deliver_transient(self, message: Message, options: BindingOptions | None) -> None:
        """See `gateway.api.ConsumerSink`: it is settled already, and dropped if there is no room."""
        if self._ready:
            self._pending.append(Loose(message))
            if not self._touched:
                self._touched = True
                self._gateway.touch(self)
        else:
            self._gateway.count("dropped", reason="no room")

    # -- the way of every message

    def flush(self) -> None:
        """See `gateway.api.Flushable`: send what was collected in this turn."""
        self._touched = False
        if self._ready and not self._ended:
            self._send()
            self._grant()

    def _send(self) -> None:
        """Hand over what is pending; what libzmq doesn't take stays, unsettled."""
        self._touched = True  # what comes meanwhile is sent here, too
        taken = 0
        try:
            for _ in self._sending():
                taken += 1
        except zmq.Again:
            self._ready = False
        except zmq.ZMQError as error:
            self._ready = False
            if not self._pump.closed:
                self._gateway.log.error("sending failed", endpoint=self._spot.name, error=str(error))  # noqa: TRY400 - not logging's
        handed, self._pending[:taken] = self._pending[:taken], []
        settle = self._settle
        for item in handed:
            if not isinstance(item, Loose):
                try:
                    settle(item)
                except NotFound:  # its queue was deleted meanwhile
                    self._gateway.count("settled_without_delivery")
        self._touched = False
        self._pump.recheck()
        if not self._ready or taken >= PER_TURN:
            self._blocked.ring()

    def _sent_bodies(self) -> Iterator[None]:
        """Send bodies; one step per message that libzmq took."""
        send = self._pump.send
        for item in self._pending[:PER_TURN]:
            body = item.message.body
            send(body, NOBLOCK, len(body) < COPY_BELOW_BYTES)
            yield

    def _sent_pairs(self) -> Iterator[None]:
        """Send key and body of each."""
        send = self._pump.send
        for item in self._pending[:PER_TURN]:
            message = item.message
            send(message.address.routing_key.encode(), MORE)
            body = message.body
            send(body, NOBLOCK, len(body) < COPY_BELOW_BYTES)
            yield

    def _sent_frames(self) -> Iterator[None]:
        """Send what the joiner makes of each message."""
        send, join, mqtt = self._pump.send_frames, self._join, self._settings.key_syntax == "mqtt"
        for item in self._pending[:PER_TURN]:
            message = item.message
            key = swap_key(message.routing_key) if mqtt else message.routing_key
            send(join(message, key.encode()))
            yield

    def _grant(self) -> None:
        """Give credit for what was handed over, while there is room."""
        if self._ready and self._consumer is not None and not self._ended:
            delta = self._settings.prefetch - self._credit - len(self._pending)
            if delta > 0:
                self._credit += delta
                self._consumer.credit(delta)
