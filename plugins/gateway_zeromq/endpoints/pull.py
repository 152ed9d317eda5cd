"""How does what plain peers send get published?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio
import zmq

from gateway.api import COMMON, AccessRefused, Message, Outcome, Principal, Route, swap_key
from gateway_zeromq.endpoints.frames import SPLITTERS, WrongFrames
from gateway_zeromq.endpoints.spot import Alarm, Spot
from gateway_zeromq.settings.taking import TakingEndpoint
from trio_zmq.pump import POLLIN, Oversized, Pump, Whole, whole_messages

MAX_PENDING = 16_384
"""Messages without an outcome; with more nothing is received, and TCP holds the peers back."""
ROUTES_KEPT = 10_000
_LONGEST_KEY = 65_535
_MOST_FRAMES = 3
_DRAIN_S = 0.5


class PullSocket:
    """One endpoint that takes in (PULL; SUB and XSUB subscribe besides), and the sink of its channel's outcomes."""

    def __init__(self, spot: Spot, settings: TakingEndpoint, principal: Principal) -> None:
        self._spot = spot
        self._settings = settings
        self._gateway = spot.gateway
        self._persistent = settings.persistent
        self._channel = spot.gateway.open_channel(principal, self)
        self._split = SPLITTERS[settings.frames]
        self._routes: dict[bytes, Route] = {}
        self._fixed = self._channel.route(settings.exchange, self._key(settings.routing_key or ""))
        self._submitted = self._decided = 0
        self._room = Alarm()
        self._waiting = False
        socket = spot.socket()
        socket.setsockopt(zmq.RCVHWM, settings.rcvhwm)
        take = whole_messages(socket, max_frames=max(settings.max_frames, _MOST_FRAMES), max_bytes=settings.max_message_bytes)
        self._pump: Pump[Whole] = Pump(socket, take)

    async def start(self) -> None:
        """Nothing is to be done first. Cancellation: safe."""
        await trio.lowlevel.checkpoint()

    def open(self) -> None:
        """Bind and connect. Errors as `Spot.attach`."""
        self._spot.attach(self._pump.socket)

    async def run(self) -> None:
        """Publish what comes, until cancelled or closed. Cancellation: what was received is published."""
        work = self._work()
        try:
            while True:
                if self._gateway.holding:
                    await self._gateway.until_released()
                while self._submitted - self._decided >= MAX_PENDING:
                    self._waiting = True
                    await self._room.wait()
                work(await self._pump.receive())
        except trio.ClosedResourceError:
            return

    async def drain(self) -> None:
        """Publish what libzmq has taken already, for as long as that needs but not for ever. Cancellation: safe."""
        work = self._work()
        with trio.move_on_after(_DRAIN_S):
            while self._pump.events() & POLLIN:
                work(await self._pump.receive())

    def close(self) -> None:
        """Close socket and channel."""
        self._pump.close()
        self._channel.close()

    # -- the way of every message

    def _work(self) -> Callable[[list[Whole]], None]:
        if self._persistent:
            return {"body": self._publish_bodies, "key,body": self._publish_pairs}.get(self._settings.frames, self._publish_all)
        return {"body": self._post_bodies, "key,body": self._post_pairs}.get(self._settings.frames, self._post_all)

    def _publish_bodies(self, batch: list[Whole]) -> None:
        route, publish = self._fixed, self._channel.publish
        address = route.address
        for message in batch:
            if type(message) is bytes:
                self._submitted = publish(route, Message(address, message, True))
            else:
                self._publish_one(message)

    def _publish_pairs(self, batch: list[Whole]) -> None:
        routes, publish = self._routes, self._channel.publish
        for message in batch:
            if type(message) is list and len(message) == 2 and (route := routes.get(message[0])) is not None:  # noqa: PLR2004
                self._submitted = publish(route, Message(route.address, message[1], True))
            else:
                self._publish_one(message)

    def _publish_all(self, batch: list[Whole]) -> None:
        for message in batch:
            self._publish_one(message)

    def _publish_one(self, whole: Whole) -> None:
        found = self._understand(whole)
        if found is not None:
            self._submitted = self._channel.publish(*found)

    def _post_bodies(self, batch: list[Whole]) -> None:
        route, post = self._fixed, self._channel.post
        address = route.address
        for message in batch:
            if type(message) is bytes:
                post(route, Message(address, message))
            else:
                self._post_one(message)

    def _post_pairs(self, batch: list[Whole]) -> None:
        routes, post = self._routes, self._channel.post
        for message in batch:
            if type(message) is list and len(message) == 2 and (route := routes.get(message[0])) is not None:  # noqa: PLR2004
                post(route, Message(route.address, message[1]))
            else:
                self._post_one(message)

    def _post_all(self, batch: list[Whole]) -> None:
        for message in batch:
            self._post_one(message)

    def _post_one(self, whole: Whole) -> None:
        found = self._understand(whole)
        if found is not None:
            self._channel.post(*found)

    # -- the rest

    def _understand(self, whole: Whole) -> tuple[Route, Message] | None:
        """Return route and message; None: it was dropped, counted, and the first time logged."""
        if isinstance(whole, Oversized):
            limits = f"allowed are {self._settings.max_message_bytes} bytes, for frames raw {self._settings.max_frames} frames"
            self._drop("too large", f"{whole.frames} frames, {whole.body_bytes} bytes; {limits}")
            return None
        try:
            key, body, wire = self._split(whole)
            route = self._fixed if key is None else self._routes.get(key) or self._route(key)
        except WrongFrames as error:
            self._drop("frames", str(error))
        except UnicodeDecodeError:
            self._drop("key", "a routing key that is not UTF-8")
        except AccessRefused as error:
            self._drop("refused", error.text)
        else:
            return route, Message(route.address, body, self._persistent, COMMON if wire else "", wire)
        return None

    def _route(self, key: bytes) -> Route:
        if len(key) > _LONGEST_KEY:
            raise WrongFrames(f"a routing key of {len(key)} bytes; at most {_LONGEST_KEY} are allowed")
        if len(self._routes) >= ROUTES_KEPT:
            self._routes.clear()
        route = self._routes[key] = self._channel.route(self._settings.exchange, self._key(key.decode()))
        return route

    def _key(self, key: str) -> str:
        return swap_key(key) if self._settings.key_syntax == "mqtt" else key

    def _drop(self, reason: str, text: str) -> None:
        self._gateway.count("dropped", reason=reason)
        self._spot.say_once("message dropped", reason, reason=text)

    # -- OutcomeSink

    def on_outcomes(self, through: int, exceptions: Sequence[Outcome]) -> None:
        """See `gateway.api.OutcomeSink`. Nobody can be told: refusals are counted and logged."""
        self._decided = through
        for outcome in exceptions:
            if outcome.error is not None:
                self._drop(f"refused {outcome.error.code}", outcome.error.text)
        if self._waiting:
            self._waiting = False
            self._room.ring()
