"""How does what one user sends to an endpoint get published?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.api import COMMON, AccessRefused, GatewayError, Message, Outcome, PreconditionFailed, Principal, Route
from gateway_zeromq.endpoints.frames import SPLITTERS, WrongFrames, WrongKey
from gateway_zeromq.endpoints.routes import Routes
from gateway_zeromq.endpoints.spot import Spot
from gateway_zeromq.lasting import check_kept, take_retain
from gateway_zeromq.settings.taking import CollectingEndpoint
from trio_zmq.pump import Oversized, Whole


class Intake:
    """A channel of one user, and the sink of its outcomes.

    ``work``: publishes messages.

    Args:
        spot: the endpoint.
        settings: of the endpoint.
        principal: as whom is published.
        decided: called when outcomes have come.

    Raises:
        AccessRefused: the user may not publish with the endpoint's own key.
    """

    def __init__(self, spot: Spot, settings: CollectingEndpoint, principal: Principal, decided: Callable[[], None]) -> None:
        self._spot = spot
        self._settings = settings
        self._gateway = spot.gateway
        self._persistent = settings.persistent
        self._tell = decided
        self._channel = spot.gateway.open_channel(principal, self)
        self._split = SPLITTERS[settings.frames]
        self._routes: Routes = self._ways()
        self._submitted = self._decided = 0
        self.work = self._work()

    def _ways(self) -> Routes:
        try:
            return Routes(self._channel, self._settings)
        except GatewayError:
            self._channel.close()
            raise

    @property
    def pending(self) -> int:
        """How many messages have no outcome yet."""
        return self._submitted - self._decided

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    # -- the way of every message

    def _work(self) -> Callable[[list[Whole]], None]:
        if self._settings.retain:
            return self._publish_all if self._persistent else self._post_all
        if self._persistent:
            return {"body": self._publish_bodies, "key,body": self._publish_pairs}.get(self._settings.frames, self._publish_all)
        return {"body": self._post_bodies, "key,body": self._post_pairs}.get(self._settings.frames, self._post_all)

    def _publish_bodies(self, batch: list[Whole]) -> None:
        route, publish = self._routes.fixed, self._channel.publish
        address = route.address
        for message in batch:
            if type(message) is bytes:
                self._submitted = publish(route, Message(address, message, True))
            else:
                self._publish_one(message)

    def _publish_pairs(self, batch: list[Whole]) -> None:
        routes, publish = self._routes.known, self._channel.publish
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
        route, post = self._routes.fixed, self._channel.post
        address = route.address
        for message in batch:
            if type(message) is bytes:
                post(route, Message(address, message))
            else:
                self._post_one(message)

    def _post_pairs(self, batch: list[Whole]) -> None:
        routes, post = self._routes.known, self._channel.post
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
            self.drop("too large", f"{whole.frames} frames, {whole.body_bytes} bytes; {limits}")
            return None
        try:
            key, body, wire = self._split(whole)
            retain, wire = take_retain(wire, default=self._settings.retain)
            route = self._routes.of(key)
            if retain:
                check_kept(route.address)
        except WrongKey as error:
            self.drop("key", str(error))
        except (WrongFrames, PreconditionFailed) as error:
            self.drop("frames", str(error))
        except UnicodeDecodeError:
            self.drop("key", "a routing key that is not UTF-8")
        except AccessRefused as error:
            self.drop("refused", error.text)
        else:
            message = Message(route.address, body, self._persistent, COMMON if wire else "", wire)
            if retain:  # with the publish that comes next
                self._channel.retain(route, message)
            return route, message
        return None

    def drop(self, reason: str, text: str) -> None:
        """Count a message that is not published; log it the first time."""
        self._gateway.count("dropped", reason=reason)
        self._spot.say_once("message dropped", reason, reason=text)

    # -- OutcomeSink

    def on_outcomes(self, through: int, exceptions: Sequence[Outcome]) -> None:
        """See `gateway.api.OutcomeSink`. Nobody can be told: refusals are counted and logged."""
        self._decided = through
        for outcome in exceptions:
            if outcome.error is not None:
                self.drop(f"refused {outcome.error.code}", outcome.error.text)
        self._tell()
