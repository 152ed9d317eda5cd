"""How does what plain REQ clients ask get its reply?

A REP socket takes one question at a time from all of its clients together. To them a ROUTER socket is the same,
and takes any number.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import trio
import zmq

from gateway.api import (
    COMMON,
    AccessRefused,
    Channel,
    Message,
    Outcome,
    Overloaded,
    Principal,
    Properties,
    QueueSpec,
    decode_properties,
    encode_properties,
)
from gateway_zeromq.endpoints.feed import Feed
from gateway_zeromq.endpoints.frames import SPLITTERS, WrongFrames, WrongKey, join_body, join_raw
from gateway_zeromq.endpoints.routes import Routes
from gateway_zeromq.endpoints.spot import LINGER_MS, Spot
from gateway_zeromq.endpoints.turns import Turns
from gateway_zeromq.settings import RepEndpoint
from trio_zmq.pump import NOBLOCK, Oversized, Pump, rest_of_message

PREFETCH = 1_000
_MOST_TICK_S = 0.5
_MOST_HOPS = 8
_ENVELOPE_BYTES = 4_096
_LEAST_FRAMES = 3
_NAME_BYTES = 8
_GIVEN = b"\0"
"""How names begin that libzmq gives; it gives none twice."""
_TOO_LARGE, _NO_ROUTE, _FORCED, _SYNTAX, _TIMEOUT = 311, 312, 320, 502, 504

Asked: TypeAlias = list[bytes] | tuple[bytes, Oversized]
"""All frames, the client's name first; or its name, and what was too much."""


@dataclass(slots=True)
class Question:
    """A request that waits for its reply: the frames in front of it, and until when (trio's clock)."""

    envelope: list[bytes]
    deadline: float


def take_from(socket: zmq.Socket[bytes], max_frames: int, max_bytes: int) -> Callable[[], Asked]:
    """Return a function that takes one message of a ROUTER socket. Whatever its frames are, it is read to its end."""

    def take() -> Asked:
        name = socket.recv(NOBLOCK)
        rest = rest_of_message(socket, [], max_frames, max_bytes)
        return (name, rest) if isinstance(rest, Oversized) else [name, *rest]

    return take


class RepSocket:
    """One REP endpoint: a publisher of requests, a consumer of replies, and the sink of what became of the requests."""

    def __init__(self, spot: Spot, settings: RepEndpoint, principal: Principal) -> None:
        self._spot = spot
        self._settings = settings
        self._gateway = spot.gateway
        self._timeout_s = settings.reply_timeout_ms / 1_000
        self._channel = spot.gateway.open_channel(principal, self)
        self._split = SPLITTERS[settings.frames]
        self._join = join_raw(spot.gateway.properties) if settings.frames == "raw" else join_body
        self._routes = Routes(self._channel, settings)
        self._questions: dict[str, Question] = {}
        self._submitted: deque[tuple[int, str]] = deque()
        self._out: list[list[bytes]] = []
        self._queue = f"zeromq.rep.{spot.name}"
        self._feed = Feed(spot, principal, self._queue, self, no_ack=True, prepare=self._prepare)
        socket = spot.socket(zmq.ROUTER)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.RCVHWM, settings.rcvhwm)
        socket.setsockopt(zmq.SNDHWM, settings.sndhwm)
        frames = max(settings.max_frames, _LEAST_FRAMES) + _MOST_HOPS
        self._pump: Pump[Asked] = Pump(socket, take_from(socket, frames, settings.max_message_bytes + _ENVELOPE_BYTES))

    def _prepare(self, channel: Channel) -> None:
        """Make the queue of replies."""
        channel.declare_queue(QueueSpec(self._queue, durable=False, exclusive=True))

    # -- life

    async def start(self) -> None:
        """Become a consumer of the replies. Errors and cancellation as `Feed.start`."""
        await self._feed.start()

    def open(self) -> None:
        """Bind and connect. Errors as `Spot.attach`."""
        self._spot.attach(self._pump.socket)
        self._feed.grant(PREFETCH)

    async def run(self) -> None:
        """Serve clients until cancelled or closed. Cancellation: what was received is published."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._feed.run)
            nursery.start_soon(self._tick)
            await self._listen()
            nursery.cancel_scope.cancel()

    async def _listen(self) -> None:
        turns = Turns(self._hear_all)
        try:
            while True:
                if self._gateway.holding:
                    await self._gateway.until_released()
                await turns.take(await self._pump.receive(turns.limit))
        except trio.ClosedResourceError:
            return

    async def _tick(self) -> None:
        """Tell who waits too long; the first in line is the one that waits longest."""
        while True:
            await trio.sleep(min(self._timeout_s / 4, _MOST_TICK_S))
            now = trio.current_time()
            late = [name for name, question in self._questions.items() if question.deadline <= now]
            for name in late:
                self._gateway.count("timeouts")
                self._fail(name, _TIMEOUT, f"nobody replied within {self._settings.reply_timeout_ms} ms")

    async def drain(self) -> None:
        """Tell who waits that no reply will come. Cancellation: safe."""
        await trio.lowlevel.checkpoint()
        for name in list(self._questions):
            self._fail(name, _FORCED, "the broker stops")
        self.flush()

    def close(self) -> None:
        """Close socket and channels."""
        self._pump.close(LINGER_MS)
        self._feed.close()
        self._channel.close()

    # -- what is asked

    def _hear_all(self, batch: list[Asked]) -> None:
        for asked in batch:
            self._hear(asked)

    def _hear(self, asked: Asked) -> None:
        if isinstance(asked, tuple):
            limits = f"allowed are {self._settings.max_message_bytes} bytes, for frames raw {self._settings.max_frames} frames"
            self._refuse(
                [asked[0], b""], "too large", _TOO_LARGE, f"{asked[1].frames - 1} frames, {asked[1].body_bytes} bytes; {limits}"
            )
            return
        try:
            end = asked.index(b"", 1) + 1
        except ValueError:
            self._drop("frames", "no empty frame before the question: a DEALER has to send one, a REQ does")
            return
        envelope, frames = asked[:end], asked[end:]
        if self._spot.knows_users and asked[0][:1] != _GIVEN:  # a reply would go to whoever takes the name of a client that went
            text = "users are known here: a routing id of your own choice is not allowed"
            self._refuse(envelope, "routing id", AccessRefused.code, text)
            return
        try:
            self._ask(envelope, frames)
        except WrongKey as error:
            self._refuse(envelope, "key", _SYNTAX, str(error))
        except WrongFrames as error:
            self._refuse(envelope, "frames", _SYNTAX, str(error))
        except UnicodeDecodeError:
            self._refuse(envelope, "key", _SYNTAX, "a routing key that is not UTF-8")
        except AccessRefused as error:
            self._refuse(envelope, "refused", error.code, error.text)

    def _ask(self, envelope: list[bytes], frames: list[bytes]) -> None:
        """Publish one request. Raises: WrongFrames, UnicodeDecodeError, AccessRefused."""
        if not frames:
            raise WrongFrames("nothing is asked: no frame after the empty one")
        settings = self._settings
        key, body, wire = self._split(frames[0] if len(frames) == 1 else frames)
        if len(body) > settings.max_message_bytes:
            raise WrongFrames(f"{len(body)} bytes; allowed are {settings.max_message_bytes}")
        route = self._routes.of(key)
        if len(self._questions) >= settings.max_waiting:
            self._refuse(envelope, "too many", Overloaded.code, f"{settings.max_waiting} requests wait for replies already")
            return
        name = secrets.token_hex(_NAME_BYTES)  # a worker must not guess what others are asked
        known = decode_properties(wire)
        properties = Properties(content_type=known.content_type, headers=known.headers, correlation_id=name, reply_to=self._queue)
        expires_at_ms = self._gateway.now_ms() + settings.reply_timeout_ms
        encoded = encode_properties(properties)
        message = Message(route.address, body, settings.persistent, COMMON, encoded, expires_at_ms=expires_at_ms)
        self._questions[name] = Question(envelope, trio.current_time() + self._timeout_s)
        self._submitted.append((self._channel.publish(route, message), name))

    def on_outcomes(self, through: int, exceptions: Sequence[Outcome]) -> None:
        """See `gateway.api.OutcomeSink`: who asked what nobody can get is told."""
        failed = {outcome.number: outcome for outcome in exceptions}
        while self._submitted and self._submitted[0][0] <= through:
            number, name = self._submitted.popleft()
            outcome = failed.get(number)
            if outcome is None:
                continue
            if outcome.error is not None:
                self._fail(name, outcome.error.code, outcome.error.text)
            elif outcome.unroutable:
                self._fail(name, _NO_ROUTE, "no queue takes such requests")

    # -- what is replied

    def flush(self) -> None:
        """See `gateway.api.Flushable`: send the replies that came in this turn."""
        self._feed.taken()
        replies, self._feed.pending[:] = self._feed.pending[:], []
        for item in replies:
            self._reply(item.message)
        out, self._out = self._out, []
        if not self._pump.closed:
            for frames in out:
                self._send(frames)
            self._pump.recheck()
            self._feed.grant(PREFETCH)

    def _reply(self, message: Message) -> None:
        name = self._gateway.properties(message).correlation_id
        text = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
        question = self._questions.pop(text, None)
        if question is None:
            self._drop("late reply", "a reply to what nobody asks, or not any more")
        else:
            self._out.append([*question.envelope, *self._join(message, b"")])

    def _send(self, frames: list[bytes]) -> None:
        try:
            self._pump.send_frames(frames)
        except zmq.Again:
            self._drop("no room", "a client does not read its replies")
        except zmq.ZMQError:  # EHOSTUNREACH
            self._drop("client gone", "a client went before its reply came")

    # -- what goes wrong

    def _fail(self, name: str, code: int, text: str) -> None:
        """Tell a client that no reply will come."""
        question = self._questions.pop(name, None)
        if question is not None:
            self._tell(question.envelope, code, text)

    def _refuse(self, envelope: list[bytes], reason: str, code: int, text: str) -> None:
        self._drop(reason, text)
        self._tell(envelope, code, text)

    def _tell(self, envelope: list[bytes], code: int, text: str) -> None:
        if self._settings.errors:
            if not self._out:
                self._gateway.touch(self)
            self._out.append([*envelope, b"", f"{code} {text}".encode()])

    def _drop(self, reason: str, text: str) -> None:
        self._gateway.count("dropped", reason=reason)
        self._spot.say_once("message dropped", reason, reason=text)
