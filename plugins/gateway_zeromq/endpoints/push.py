"""How do a queue's messages get to plain PULL peers?

A message is settled when libzmq takes it, and that is all that can be known: what libzmq and the kernels hold for a peer is lost
with it. So the settlement is automatic: it spares the message no way to the disk, and confirms nothing to its publisher.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import trio
import zmq

from gateway.api import Principal, swap_key
from gateway_zeromq.endpoints.alarm import Alarm
from gateway_zeromq.endpoints.feed import Feed
from gateway_zeromq.endpoints.frames import join_body, join_key, joiner_of
from gateway_zeromq.endpoints.spot import LINGER_MS, Spot
from gateway_zeromq.settings import PushEndpoint
from trio_zmq.pump import COPY_BELOW_BYTES, MORE, NOBLOCK, Pump, Whole, whole_messages

PER_TURN = 1_024
"""Messages that are sent in one turn; the rest waits for the next, so that others get theirs."""


class PushSocket:
    """One PUSH endpoint: a consumer of its queue.

    It gets no credit while libzmq has no room (no peer is there, or all are full), so that the messages stay in the queue, for
    other consumers too.
    """

    def __init__(self, spot: Spot, settings: PushEndpoint, principal: Principal) -> None:
        self._spot = spot
        self._settings = settings
        self._blocked = Alarm()
        self._ended = False
        self._feed = Feed(spot, principal, settings.queue, self)
        self._feed.has_room = False
        self._join = joiner_of(settings.frames, spot.gateway.properties)
        self._sending = self._way()
        socket = spot.socket()
        socket.setsockopt(zmq.SNDHWM, settings.sndhwm)
        socket.setsockopt(zmq.IMMEDIATE, 1)  # only to peers that are there
        self._pump: Pump[Whole] = Pump(socket, whole_messages(socket))

    def _way(self) -> Callable[[], Iterator[None]]:
        """Return how messages are sent: the common layouts have loops of their own."""
        if self._join is join_body:
            return self._sent_bodies
        return self._sent_pairs if self._join is join_key and self._settings.key_syntax == "amqp" else self._sent_frames

    def open(self) -> None:
        """Bind and connect. Errors as `Spot.attach`."""
        self._spot.attach(self._pump.socket)

    async def start(self) -> None:
        """Become a consumer of the queue. Errors and cancellation as `Feed.start`."""
        await self._feed.start()

    async def run(self) -> None:
        """Send what comes, until cancelled or closed. Cancellation: safe."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._feed.run)
            await self._watch_room()
            nursery.cancel_scope.cancel()

    async def _watch_room(self) -> None:
        try:
            while True:
                await self._pump.writable()
                self._feed.has_room = True
                self.flush()
                if self._feed.has_room:
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
        self._feed.close()

    # -- the way of every message

    def flush(self) -> None:
        """See `gateway.api.Flushable`: send what was collected in this turn, and let as much more come."""
        feed = self._feed
        if feed.has_room and not self._ended:
            self._send()
            if feed.has_room:
                feed.grant(self._settings.prefetch - len(feed.pending))
        else:
            feed.taken()

    def _send(self) -> None:
        """Hand over what is pending; what libzmq doesn't take stays, unsettled."""
        feed = self._feed
        taken = 0
        try:
            for _ in self._sending():
                taken += 1
        except zmq.Again:
            feed.has_room = False
        except zmq.ZMQError as error:
            feed.has_room = False
            if not self._pump.closed:
                log = self._spot.gateway.log
                log.error("sending failed", endpoint=self._spot.name, error=str(error))  # noqa: TRY400 - not logging's
        handed, feed.pending[:taken] = feed.pending[:taken], []
        feed.hand_over(handed)
        feed.taken()
        self._pump.recheck()
        if not feed.has_room or taken >= PER_TURN:
            self._blocked.ring()

    def _sent_bodies(self) -> Iterator[None]:
        """Send bodies; one step per message that libzmq took."""
        send = self._pump.send
        for item in self._feed.pending[:PER_TURN]:
            body = item.message.body
            send(body, NOBLOCK, len(body) < COPY_BELOW_BYTES)
            yield

    def _sent_pairs(self) -> Iterator[None]:
        """Send key and body of each."""
        send = self._pump.send
        for item in self._feed.pending[:PER_TURN]:
            message = item.message
            send(message.address.routing_key.encode(), MORE)
            body = message.body
            send(body, NOBLOCK, len(body) < COPY_BELOW_BYTES)
            yield

    def _sent_frames(self) -> Iterator[None]:
        """Send what the joiner makes of each message."""
        send, join, mqtt = self._pump.send_frames, self._join, self._settings.key_syntax == "mqtt"
        for item in self._feed.pending[:PER_TURN]:
            message = item.message
            key = swap_key(message.routing_key) if mqtt else message.routing_key
            send(join(message, key.encode()))
            yield
