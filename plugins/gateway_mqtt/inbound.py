"""What becomes of a client's publishes, and when may it be told?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.api import Channel, CloseReason, Connection, Gateway, GatewayError, Message, Outcome
from gateway_mqtt.translate.messages import Encoder
from gateway_mqtt.translate.topics import Routes

PUBACK_FRONT = b"\x40\x02"


class Inbound:
    """A connection's publishes on their way in (a `PublishSink`), and all its outcomes (an `OutcomeSink`).

    ``pending`` has one element for each number of the channel that is not decided yet, ``first`` being the number of
    the first: a packet identifier as received, or ``b""`` for what is no publish. Numbers rise by one.
    """

    __slots__ = (
        "_awaited",
        "_channel",
        "_client_id",
        "_connection",
        "_encoder",
        "_first",
        "_gateway",
        "_known",
        "_others",
        "_pending",
        "_post",
        "_refused",
        "_reply",
        "_routes",
        "_submit",
    )

    def __init__(
        self, gateway: Gateway, connection: Connection, encoder: Encoder, client_id: str, reply: Callable[[bytes], None]
    ) -> None:
        self._gateway: Gateway = gateway
        self._connection: Connection = connection
        self._encoder: Encoder = encoder
        self._client_id: str = client_id
        self._reply: Callable[[bytes], None] = reply
        self._awaited: dict[int, Callable[[Outcome], None]] = {}
        self._pending: list[bytes] = []
        self._first: int = 0
        self._others: int = 0
        self._refused: bool = False

    def attach(self, channel: Channel, routes: Routes) -> None:
        """Publish on this channel from now on. Nothing may have been submitted on it."""
        self._channel: Channel = channel
        self._post = channel.post
        self._submit = channel.publish
        self._routes: Routes = routes
        self._known = routes.known

    # -- in: the path of every message --------------------------------------

    def publish(self, topic: bytes, body: bytes, packet: bytes) -> None:
        """QoS 0 [MQTT-4.3.1-1]. Subscribers of QoS 0 are sent the very packet."""
        route = self._known.get(topic)
        if route is None:
            route = self._routes.resolve(topic)
        message = Message(route.address, body)
        encoder = self._encoder
        encoder.plain = message
        encoder.packet = packet
        self._post(route, message)

    def publish_confirmed(self, topic: bytes, body: bytes, packet_id: bytes, front: bytes) -> None:
        """QoS 1 [MQTT-4.3.2-2]: the PUBACK comes with the outcome."""
        route = self._known.get(topic)
        if route is None:
            route = self._routes.resolve(topic)
        message = Message(route.address, body, True)
        if front:
            encoder = self._encoder
            encoder.confirmed = message
            encoder.front = front
        self._submit(route, message)
        self._pending.append(packet_id)

    def publish_retained(self, topic: bytes, body: bytes, packet_id: bytes) -> None:
        """Keep it as the topic's last value [MQTT-3.3.1-5], or clear that [MQTT-3.3.1-10], then publish it as any other."""
        route = self._known.get(topic)
        if route is None:
            route = self._routes.resolve(topic)
        message = Message(route.address, body, bool(packet_id))
        self._channel.retain(route, message)
        if packet_id:
            self._submit(route, message)
            self._pending.append(packet_id)
        else:
            self._post(route, message)

    # -- back: outcomes -----------------------------------------------------

    def expect(self, number: int, then: Callable[[Outcome], None]) -> None:
        """Call `then` with the outcome of something submitted just now that is no publish."""
        if not self._first:
            self._first = number
        self._awaited[number] = then
        self._pending.append(b"")
        self._others += 1

    def on_outcomes(self, through: int, exceptions: Sequence[Outcome]) -> None:
        """Send the PUBACKs of what is stored, in the order of the publishes [MQTT-4.6.0-2]."""
        if self._refused:
            return
        for outcome in exceptions:
            then = self._awaited.pop(outcome.number, None)
            if then is not None:
                then(outcome)
            elif outcome.error is not None:
                self._refuse(outcome.number, outcome.error)
                return
        self._acknowledge(through)

    def _acknowledge(self, through: int) -> None:
        count = through + 1 - self._first
        decided = self._pending[:count]
        del self._pending[:count]
        self._first = through + 1
        if self._others:
            submitted = len(decided)
            decided = [packet_id for packet_id in decided if packet_id]
            self._others -= submitted - len(decided)
        if decided:
            self._reply(PUBACK_FRONT + PUBACK_FRONT.join(decided))

    def _refuse(self, number: int, error: GatewayError) -> None:
        """Say no in the only way that MQTT 3.1.1 has: acknowledge what came before, and close."""
        self._acknowledge(number - 1)
        self._refused = True
        self._gateway.count("publishes_refused", reason=type(error).__name__)
        self._gateway.log.warning(
            "a publish was refused: connection closed", client=self._client_id, peer=self._connection.peer, reason=error.text
        )
        self._connection.close(CloseReason.LOCAL)
