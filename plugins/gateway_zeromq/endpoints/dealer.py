"""How does a queue's message become a request to a plain worker, and the worker's reply an answer?

A request is a number, an empty frame, and the message; a REP worker sends number and empty frame back in front of its reply. libzmq
takes tens of thousands of messages for a worker that does nothing, so there are never more requests out than the window allows.
Which worker has which request is libzmq's secret: one that dies is noticed at once if it was the last, else by the time-out.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import trio
import zmq

from gateway.api import COMMON, AccessRefused, Delivery, Message, Overloaded, Principal, Properties, encode_properties
from gateway_zeromq.endpoints.alarm import Alarm
from gateway_zeromq.endpoints.feed import Feed, Item
from gateway_zeromq.endpoints.frames import MULTIPART, SPLITTERS, WrongFrames, joiner_of
from gateway_zeromq.endpoints.spot import LINGER_MS, Spot
from gateway_zeromq.settings import DealerEndpoint
from gateway_zeromq.standing import Rounds
from trio_zmq.pump import POLLIN, POLLOUT, Oversized, Pump, Whole, whole_messages

AGAIN_MS = 1_000
"""A request whose reply the disk has no room for is done again, not sooner."""
DRAIN_S = 0.5
"""So long replies are waited for at the end."""
_MOST_TICK_S = 0.5
_ENVELOPE = 2
_ENVELOPE_BYTES = 64
_NUMBER_BYTES = 8
_ROOM = 1_000


@dataclass(slots=True)
class Request:
    """A message that is with a worker until somebody replies, or the deadline (of trio's clock)."""

    item: Item
    deadline: float


class DealerSocket:
    """One DEALER endpoint: a consumer of its queue that acknowledges what is replied to."""

    def __init__(self, spot: Spot, settings: DealerEndpoint, principal: Principal) -> None:
        self._spot = spot
        self._settings = settings
        self._gateway = spot.gateway
        self._timeout_s = settings.reply_timeout_ms / 1_000
        self._requests: dict[bytes, Request] = {}
        self._origin = spot.gateway.node_id.encode()
        self._ended = False
        self._blocked = Alarm()
        self._join = joiner_of(settings.frames, spot.gateway.properties)
        self._split = SPLITTERS["raw" if settings.frames == "raw" else "body"]
        self._feed = Feed(spot, principal, settings.queue, self)
        self._feed.has_room = False
        socket = spot.socket()
        socket.setsockopt(zmq.IMMEDIATE, 1)  # only to workers that are there
        socket.setsockopt(zmq.SNDHWM, settings.window + _ROOM)
        most = settings.max_frames if settings.frames == "raw" else 1
        take = whole_messages(socket, max_frames=most + _ENVELOPE, max_bytes=settings.max_message_bytes + _ENVELOPE_BYTES)
        self._pump: Pump[Whole] = Pump(socket, take)

    # -- life

    async def start(self) -> None:
        """Become a consumer of the queue. Errors and cancellation as `Feed.start`."""
        await self._feed.start()

    def open(self) -> None:
        """Bind and connect. Errors as `Spot.attach`."""
        self._spot.attach(self._pump.socket)

    async def run(self) -> None:
        """Ask and hear until cancelled or closed. Cancellation: what was received is dealt with."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._feed.run)
            nursery.start_soon(self._watch_room)
            nursery.start_soon(self._tick)
            await self._listen()
            nursery.cancel_scope.cancel()

    async def _listen(self) -> None:
        try:
            while True:
                self._heed(await self._pump.receive())
                self._look_for_workers()
        except trio.ClosedResourceError:
            return

    async def _watch_room(self) -> None:
        try:
            while True:
                await self._pump.writable()
                self._feed.has_room = True
                self._feed.hold(held=False)
                self.flush()
                if self._feed.has_room:
                    await self._blocked.wait()
        except trio.ClosedResourceError:
            return

    async def _tick(self) -> None:
        interval_s = min(self._timeout_s / 4, _MOST_TICK_S)
        rounds = Rounds(trio.current_time())
        while True:
            await trio.sleep(interval_s)
            self._look_for_workers()
            now = trio.current_time()
            late_s = rounds.late_s(now, interval_s)
            for request in self._requests.values() if late_s else ():
                request.deadline += late_s  # what was replied meanwhile has not been read yet
            late = [number for number, request in self._requests.items() if request.deadline <= now]
            for number in late:
                self._gateway.count("timeouts")
                self._spot.say_once("no reply in time", "timeout", timeout_ms=self._settings.reply_timeout_ms)
                self._feed.give_back([self._requests.pop(number).item], "no reply")
            if late:
                self.flush()

    async def drain(self) -> None:
        """Ask no more; hear what comes soon. What nobody replied to goes back to the queue. Cancellation: safe."""
        self._ended = True
        self._feed.hold(held=True)
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(DRAIN_S):
            while self._requests:
                self._heed(await self._pump.receive())

    def close(self) -> None:
        """Close socket and channel."""
        self._ended = True
        self._pump.close(LINGER_MS)
        self._feed.close()

    # -- asking

    def flush(self) -> None:
        """See `gateway.api.Flushable`: send what was collected in this turn, as far as the window goes."""
        self._feed.taken()
        if self._ended or not self._feed.has_room:
            return
        pending, sent, is_refused = self._feed.pending, 0, False
        try:
            for item in pending:
                self._ask(item)
                sent += 1
        except zmq.Again:
            is_refused = True
        del pending[:sent]
        if is_refused:
            self._stop_asking()
        else:
            self._feed.grant(self._settings.window - len(self._requests) - len(pending))
        self._pump.recheck()

    def _ask(self, item: Item) -> None:
        message = item.message
        key = self._settings.spelled(message.routing_key)
        number = self._origin + secrets.token_bytes(_NUMBER_BYTES)  # a worker must not guess what others are asked
        frames = [number, b"", *self._join(message, key.encode())]
        try:
            self._pump.send_frames(frames)
        except zmq.Again:  # nobody is there; or its worker went in the middle of it, and others are
            self._pump.send_frames(frames)
        self._requests[number] = Request(item, trio.current_time() + self._timeout_s)

    def _look_for_workers(self) -> None:
        """Give back what is out if the last worker has gone."""
        if self._feed.has_room and not self._pump.closed and not self._pump.events() & (POLLIN | POLLOUT):
            self._stop_asking()

    def _stop_asking(self) -> None:
        """Nobody can be asked: what is out was lost with who had it, and the rest is for whoever else consumes the queue."""
        self._feed.has_room = False
        self._blocked.ring()
        self._feed.hold(held=True)
        requests, self._requests = self._requests, {}
        pending, self._feed.pending[:] = self._feed.pending[:], []
        self._feed.give_back([*(request.item for request in requests.values()), *pending], "no worker")
        if requests:
            self._gateway.count("requeued", len(requests), reason="no worker")

    # -- hearing

    def _heed(self, batch: list[Whole]) -> None:
        for said in batch:
            self._hear(said)
        if batch:
            self.flush()

    def _hear(self, said: Whole) -> None:
        if isinstance(said, Oversized):
            text = f"a reply of {said.frames} frames, {said.body_bytes} bytes, with its envelope of {_ENVELOPE} frames"
            self._drop("too large", f"{text}; allowed are {self._settings.max_message_bytes} bytes")
        elif isinstance(said, bytes) or said[1] or len(said) <= _ENVELOPE:
            self._drop("frames", "a reply is the request's number, an empty frame, and at least one more")
        else:
            self._reply(said[0], said[_ENVELOPE:])

    def _reply(self, number: bytes, frames: list[bytes]) -> None:
        request = self._requests.get(number)
        if request is None:
            self._drop("late reply", "a reply to what nobody asks, or not any more")
            return
        try:
            _, body, wire = self._split(frames[0] if len(frames) == 1 else frames)
        except WrongFrames as error:
            self._drop("frames", str(error))
            return
        del self._requests[number]
        self._feed.settle(request.item, lambda delivery: self._answer(delivery, body, is_multipart=bool(wire)))

    def _answer(self, delivery: Delivery, body: bytes, *, is_multipart: bool) -> None:
        """Acknowledge the request, and with the same commit publish the reply where the request says."""
        channel, asked = self._feed.channel, self._gateway.properties(delivery.message)
        if asked.reply_to is not None:
            try:
                route = channel.route("", asked.reply_to)
                known = Properties(correlation_id=asked.correlation_id, content_type=MULTIPART if is_multipart else None)
                answer = Message(route.address, body, delivery.message.persistent, COMMON, encode_properties(known))
                error = channel.move(delivery, route, answer)
            except AccessRefused as refusal:
                error = refusal
            if error is None:
                return
            self._drop("reply refused", f"to {asked.reply_to!r}: {error.text}")
            if isinstance(error, Overloaded):
                channel.nack(delivery, requeue=True, delay_ms=AGAIN_MS)
                return
        channel.ack(delivery)

    def _drop(self, reason: str, text: str) -> None:
        self._gateway.count("dropped", reason=reason)
        self._spot.say_once("reply dropped", reason, reason=text)
