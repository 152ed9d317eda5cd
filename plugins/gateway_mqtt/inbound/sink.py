"""What becomes of a client's publishes, and when may it be told?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from gateway.api import (
    AccessRefused,
    Channel,
    Connection,
    Gateway,
    GatewayError,
    Message,
    Outcome,
    ProtocolViolation,
    Route,
)
from gateway_mqtt.codec.fields import is_utf8
from gateway_mqtt.codec.names import PUBACK, malformed
from gateway_mqtt.codec.publishes import parts_of
from gateway_mqtt.codec.publishing import PublishProperties, publish_properties
from gateway_mqtt.codec.reasons import (
    NO_MATCHING_SUBSCRIBERS,
    PAYLOAD_FORMAT_INVALID,
    PROTOCOL_ERROR,
    QOS_NOT_SUPPORTED,
    QUOTA_EXCEEDED,
    RECEIVE_MAXIMUM_EXCEEDED,
    RETAIN_NOT_SUPPORTED,
    TOPIC_ALIAS_INVALID,
)
from gateway_mqtt.inbound.answers import ANY, Answers, Reply, Terms
from gateway_mqtt.inbound.exactly_once import Arrivals, Identifiers
from gateway_mqtt.store import Kept, SessionStore
from gateway_mqtt.translate.messages import Encoder, PacketRun
from gateway_mqtt.translate.properties import RETAIN, WIRE_TAG, wire_of
from gateway_mqtt.translate.refusals import reason_code
from gateway_mqtt.translate.topics import ANSWERS, Routes

PUBACK_FRONT: Final = b"\x40\x02"
IDENTIFIER_BYTES: Final = 2
MOST_REMEMBERED_BYTES: Final = 512
"""Properties that come again and again are read once, unless they are longer."""
_NO_PROPERTIES: Final = PublishProperties()
_QOS_0: Final = 0x30
_QOS_1: Final = 0x32
_ANSWERS: Final = ANSWERS.encode()
"""What is published under such topics goes elsewhere under another key: no subscriber is sent the packet as it came."""


class Inbound:
    """A connection's publishes on their way in (a `PublishSink`), and the outcomes of its channel (an `OutcomeSink`).

    ``pending`` has one element for each number of the channel that is not decided yet, ``first`` being the number of
    the first: a packet identifier as received (QoS 1), ``b""`` for what is no publish, or the whole PUBACK where that is known.
    Numbers rise by one, from 1. Messages of QoS 2 go through a channel of their own (`Arrivals`), opened when the first comes.

    Args:
        encoder: of the connection's protocol level.
        reply: sends bytes to the client.
        terms: what the client may publish.
    """

    __slots__ = (
        "_aliases", "_answers", "_arrivals", "_awaited", "_channel", "_encoder", "_first", "_five", "_gateway", "_identifiers",
        "_known", "_last_raw", "_last_said", "_others", "_over", "_owner", "_pending", "_post", "_reply", "_routes",
        "_submit", "_terms",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - what it brings together
        self,
        gateway: Gateway,
        connection: Connection,
        encoder: Encoder,
        client_id: str,
        reply: Reply,
        terms: Terms = ANY,
        reply_last: Callable[[bytes], None] | None = None,
    ) -> None:
        self._gateway: Gateway = gateway
        self._encoder: Encoder = encoder
        self._reply: Reply = reply
        self._terms: Terms = terms
        self._answers: Answers = Answers(gateway, connection, client_id, reply, terms, reply_last or reply)
        self._five: bool = self._answers.five
        self._awaited: dict[int, Callable[[Outcome], None]] | None = None
        self._pending: list[bytes] = []
        self._first: int = 1
        self._others: int = 0
        self._over: bool = False
        self._aliases: dict[int, bytes] | None = None
        self._last_raw: bytes = b""
        self._last_said: PublishProperties = _NO_PROPERTIES
        self._arrivals: Arrivals | None = None

    def attach(self, channel: Channel, routes: Routes, identifiers: Identifiers | None = None, owner: object | None = None) -> None:
        """Publish on this channel from now on. Nothing may have been submitted on it.

        Args:
            identifiers: the session's `SessionStore`; None: what comes with QoS 2 is remembered as long as the connection.
            owner: as the channel was opened with, if it was.
        """
        self._channel: Channel = channel
        self._post: Callable[[Route, Message], None] = channel.post
        self._submit: Callable[[Route, Message], int] = channel.publish
        self._routes: Routes = routes
        self._known: dict[bytes, Route] = routes.known
        self._identifiers: Identifiers | None = identifiers
        self._owner: object = owner

    @property
    def maximum_qos(self) -> int:
        """The highest QoS that the client may publish with [MQTT5-3.2.2-11]."""
        return self._terms.maximum_qos

    def keep_from(self, queue: str) -> None:
        """Publish past the bindings of this queue that say no local: a subscription of the connection has it. Empty: to all."""
        self._routes.keep_from(queue)
        if not self._over:
            self._known = self._routes.known

    def stop(self) -> None:
        """The client was said goodbye: whatever else it has sent is not published any more [MQTT5-4.13.2-1].

        No topic is known from now on, so that only who asks for an unknown one has to look.
        """
        self._over = True
        self._known = {}

    # -- in: the path of every message --------------------------------------

    def publish(self, topic: bytes, body: bytes, packet: bytes) -> None:
        """QoS 0 [MQTT-4.3.1-1]. Subscribers of QoS 0 are sent the very packet."""
        route = self._known.get(topic)
        if route is None:
            if topic.startswith(_ANSWERS):
                self.publish_other(_QOS_0, topic, body, b"", b"")
                return
            route = self._resolve(topic, 0, b"")
            if route is None:
                return
        message = Message(route.address, body)
        encoder = self._encoder
        encoder.plain = message
        encoder.packet = packet
        self._post(route, message)

    def publish_run(self, topic: bytes, packets: bytes, count: int, longest: int) -> bool:
        """QoS 0 [MQTT-4.3.1-1], several in a row: they go on as they are, if nobody has to look at them one by one."""
        field_bytes = len(topic) + (3 if self._five else 2)
        route = self._known.get(topic)
        if route is not None:
            run = PacketRun(route.address, packets, count, longest, field_bytes, self._encoder)
            if self._channel.post_run(route, run):
                return True
        for packet, body in parts_of(packets, field_bytes):
            self.publish(topic, body, packet)
        return False

    def publish_confirmed(self, topic: bytes, body: bytes, packet_id: bytes, front: bytes) -> None:
        """QoS 1 [MQTT-4.3.2-2]: the PUBACK comes with the outcome."""
        route = self._known.get(topic)
        if route is None:
            if topic.startswith(_ANSWERS):
                self.publish_other(_QOS_1, topic, body, packet_id, b"")
                return
            route = self._resolve(topic, 1, packet_id)
            if route is None:
                return
        message = Message(route.address, body, True)
        encoder = self._encoder
        encoder.confirmed = message
        encoder.front = front
        self._submit(route, message)
        self._pending.append(packet_id)

    # -- in: all others -----------------------------------------------------

    def publish_other(self, head: int, topic: bytes, body: bytes, packet_id: bytes, properties: bytes) -> None:
        """QoS 2, to be retained, sent before, or with properties.

        Raises:
            MalformedPacket: it is against the standard, or against what the client was told of this broker.
            ProtocolViolation: below level 5: the client may not publish there.
        """
        if self._over:
            return
        qos = head >> 1 & 3
        retain = head & 1 == 1
        if qos > 1 or retain or self._terms.maximum_qos < 1:
            self._check_terms(qos, retain=retain)
        said = self._read(properties) if properties else _NO_PROPERTIES
        if said.too_many:
            self._refuse_properties(qos, packet_id, QUOTA_EXCEEDED)
            return
        if self._five and (said.topic_alias or not topic):
            topic = self._topic_of(topic, said.topic_alias)
        if qos == 2 and self._exactly_once().is_known(packet_id):  # noqa: PLR2004 - the QoS
            return
        route = self._known.get(topic) or self._resolve(topic, qos, packet_id)
        kept = said.kept
        if route is None or (kept and self._objects(said, qos, packet_id, body)):
            return
        retain = retain and not topic.startswith(_ANSWERS)  # answers are nobody's last value
        expiry_s = said.message_expiry_s
        expires_at_ms = 0 if expiry_s is None else self._gateway.now_ms() + (expiry_s * 1000 or 1)  # 0 is not never
        wire = wire_of(qos | RETAIN if retain else qos, kept) if kept or retain or qos > 1 else b""
        message = Message(route.address, body, qos > 0, WIRE_TAG if wire else "", wire, 0, expires_at_ms)
        self._publish(route, message, qos, packet_id, retain=retain)

    def _publish(self, route: Route, message: Message, qos: int, packet_id: bytes, *, retain: bool) -> None:
        if qos == 2:  # noqa: PLR2004 - the QoS
            self._exactly_once().publish(route, message, packet_id, retain=retain)
            return
        if retain:  # the topic's last value from now on [MQTT-3.3.1-5]; an empty one clears it [MQTT-3.3.1-10]
            self._channel.retain(route, message)
        if qos:
            self._submit(route, message)
            self._pending.append(packet_id)
        else:
            self._post(route, message)

    def released(self, packet_id: int, code: int) -> None:
        """PUBREL: the PUBCOMP comes when that is on disk [MQTT-4.3.3-2]. Whatever it says of a reason, the identifier is free."""
        if not self._over:  # else it is sent again when the client comes back
            self._exactly_once().released(packet_id)

    def fed(self) -> None:
        """All packets of a read have been taken.

        Raises:
            MalformedPacket: more are unanswered than the client was told that there may be.
        """
        if self._over:
            return
        arrivals = self._arrivals
        unanswered = len(self._pending)
        if arrivals is not None:
            unanswered += arrivals.unanswered  # no PUBCOMP of this read has been sent
        most = self._terms.receive_maximum
        if most and unanswered > most and unanswered - self._pending.count(b"") > most:
            raise malformed(f"more than {most} messages are unanswered", "5 §3.3.4", RECEIVE_MAXIMUM_EXCEEDED)
        if arrivals is not None:
            arrivals.fed()

    def _exactly_once(self) -> Arrivals:
        arrivals = self._arrivals
        if arrivals is None:
            identifiers = self._identifiers
            if identifiers is None:
                identifiers = SessionStore(self._channel, ("", ""), Kept(), lasts=False)
            owner = self._channel if self._owner is None else self._owner
            arrivals = Arrivals(self._gateway, self._routes.principal, identifiers, self._answers, owner)
            self._arrivals = arrivals
        return arrivals

    def _check_terms(self, qos: int, *, retain: bool) -> None:
        if qos > self._terms.maximum_qos:
            raise malformed(f"QoS {qos} is not supported", "[MQTT5-3.2.2-11]", QOS_NOT_SUPPORTED)
        if retain and not self._terms.retained:
            raise malformed("retained messages are not supported", "[MQTT5-3.2.2-14]", RETAIN_NOT_SUPPORTED)

    def _read(self, properties: bytes) -> PublishProperties:
        if properties == self._last_raw:
            return self._last_said
        said = publish_properties(properties, self._terms.max_user_properties)
        if len(properties) <= MOST_REMEMBERED_BYTES:
            self._last_raw = properties
            self._last_said = said
        return said

    def _topic_of(self, topic: bytes, alias: int) -> bytes:
        """Return what a topic alias stands for, or let it stand for this topic from now on [MQTT5-3.3.2-7]."""
        if not alias:
            raise malformed("neither a topic nor a topic alias", "5 §3.3.2.1", PROTOCOL_ERROR)
        if alias > self._terms.topic_alias_maximum:
            most = self._terms.topic_alias_maximum
            raise malformed(f"topic alias {alias} is above the maximum of {most}", "[MQTT5-3.3.2-9]", TOPIC_ALIAS_INVALID)
        aliases = self._aliases
        if aliases is None:
            aliases = self._aliases = {}
        if topic:
            aliases[alias] = topic
            return topic
        known = aliases.get(alias)
        if known is None:
            raise malformed(f"no topic, and topic alias {alias} was not set", "5 §3.3.4", PROTOCOL_ERROR)
        return known

    # -- refusals before anything is submitted ------------------------------

    def _resolve(self, topic: bytes, qos: int, packet_id: bytes) -> Route | None:
        """Find the route of a topic that is not known; None: the client may not publish there, and is told so, or is gone."""
        if self._over:
            return None
        try:
            return self._routes.resolve(topic, self._terms.level)
        except AccessRefused as error:
            if not self._five:
                raise ProtocolViolation(error.text, "MQTT 3.1.1 [MQTT-3.3.5-2]") from None
            self._answers.count(error)
            self._turn_down(qos, packet_id, reason_code(error))
            return None

    def _objects(self, said: PublishProperties, qos: int, packet_id: bytes, body: bytes) -> bool:
        """Refuse what is not as its properties promise; return whether it was refused."""
        code = 0
        if said.payload_format and not is_utf8(body):
            code = PAYLOAD_FORMAT_INVALID
            if not qos:  # there is no other way to say it
                raise malformed("a payload is not UTF-8, as was promised", "5 §3.3.2.3.2", code)
        if code:
            self._refuse_properties(qos, packet_id, code)
        return code != 0

    def _refuse_properties(self, qos: int, packet_id: bytes, code: int) -> None:
        self._gateway.count("publishes_refused", reason="properties")
        self._turn_down(qos, packet_id, code)

    def _turn_down(self, qos: int, packet_id: bytes, code: int) -> None:
        """Say no in its turn [MQTT5-4.6.0-2]; to QoS 0 nothing is said."""
        if qos == 2:  # noqa: PLR2004 - the QoS
            self._exactly_once().refuse(packet_id, code)
        elif qos:
            self._channel.barrier()
            self._pending.append(self._answers.packet(PUBACK, packet_id, code))
            self._others += 1

    # -- back: outcomes -----------------------------------------------------

    def expect(self, number: int, then: Callable[[Outcome], None]) -> None:
        """Call `then` with the outcome of something submitted just now that is no publish."""
        if self._awaited is None:
            self._awaited = {}
        self._awaited[number] = then
        self._pending.append(b"")
        self._others += 1

    def on_outcomes(self, through: int, exceptions: Sequence[Outcome]) -> None:
        """Send the PUBACKs of what is stored, in the order of the publishes [MQTT-4.6.0-2]."""
        if self._over:
            return
        awaited = self._awaited
        for outcome in exceptions:
            then = awaited.pop(outcome.number, None) if awaited is not None else None
            if then is not None:
                then(outcome)
            elif outcome.error is not None:
                if not self._five:
                    self._refuse(outcome.number, outcome.error)
                    return
                self._reword(outcome.number, self._answers.count(outcome.error))
            elif outcome.unroutable and self._five:
                self._reword(outcome.number, NO_MATCHING_SUBSCRIBERS)
        self._acknowledge(through)

    def _reword(self, number: int, code: int) -> None:
        """Give a PUBACK a reason code; one that has one keeps it."""
        at = number - self._first
        if len(self._pending[at]) == IDENTIFIER_BYTES:
            self._pending[at] = self._answers.packet(PUBACK, self._pending[at], code)
            self._others += 1

    def _acknowledge(self, through: int) -> None:
        count = through + 1 - self._first
        decided = self._pending[:count]
        del self._pending[:count]
        self._first = through + 1
        if self._others:
            self._reply_to(decided)
        elif decided:
            self._reply(PUBACK_FRONT + PUBACK_FRONT.join(decided), len(decided))

    def _reply_to(self, decided: list[bytes]) -> None:
        """Send the PUBACKs among others, or with reason codes."""
        plain = [answer for answer in decided if len(answer) == IDENTIFIER_BYTES]
        self._others -= len(decided) - len(plain)
        replies = [PUBACK_FRONT + answer if len(answer) == IDENTIFIER_BYTES else answer for answer in decided if answer]
        if replies:
            self._reply(b"".join(replies), len(replies))

    def _refuse(self, number: int, error: GatewayError) -> None:
        """Say no in the only way that MQTT 3.1.1 has: acknowledge what came before, and close."""
        self._acknowledge(number - 1)
        self.stop()
        self._answers.close(error)

    # -- the end ------------------------------------------------------------

    def end(self) -> None:
        """The connection is gone; to be called before its channel is closed."""
        self.stop()
        if self._arrivals is not None:
            self._arrivals.end()
