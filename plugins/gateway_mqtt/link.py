"""What ties one MQTT client to its session, its subscriptions and its channel?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from gateway.api import (
    Channel,
    CloseReason,
    Connection,
    ConsumeOptions,
    Delivery,
    Gateway,
    GatewayError,
    Outcome,
    Overflow,
    Principal,
    ProtocolViolation,
)
from gateway_mqtt.codec.coding import encode
from gateway_mqtt.codec.packets import (
    ACCEPTED,
    FAILURE,
    PINGRESP,
    ConnAck,
    Connect,
    Disconnect,
    MalformedPacket,
    Packet,
    Signal,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
)
from gateway_mqtt.inbound import Inbound
from gateway_mqtt.outbound import Outbound
from gateway_mqtt.protocol import Connected
from gateway_mqtt.retained import Rota
from gateway_mqtt.session import Session, Sessions
from gateway_mqtt.settings import MqttSettings
from gateway_mqtt.translate.messages import Encoder
from gateway_mqtt.translate.sessions import (
    GRANTED_QOS,
    SESSION_OVERFLOW,
    SessionLimits,
    WillMessage,
    connack_code,
    session_queue,
    session_queue_name,
    subscribed,
    subscription,
    will_message,
)
from gateway_mqtt.translate.topics import Routes, TopicLimits, filter_refusal

KEEP_ALIVE_GRACE = 1.5
PONG = encode(Signal(PINGRESP))


@dataclass(frozen=True, slots=True)
class Broker:
    """What all MQTT connections share."""

    gateway: Gateway
    settings: MqttSettings
    topic_limits: TopicLimits
    session_limits: SessionLimits
    clean_limits: SessionLimits
    rota: Rota
    encoder: Encoder = field(default_factory=Encoder)
    sessions: Sessions[Link] = field(default_factory=Sessions)

    @classmethod
    def make(cls, gateway: Gateway, settings: MqttSettings) -> Broker:
        """Return what the connections of this front-end share."""
        return cls(
            gateway,
            settings,
            TopicLimits(settings.max_topic_levels, settings.max_topic_bytes),
            SessionLimits(settings.session_max_messages, settings.session_max_bytes, SESSION_OVERFLOW[settings.session_overflow]),
            SessionLimits(settings.clean_session_max_messages, settings.clean_session_max_bytes, Overflow.END_QUEUE),
            Rota(gateway.touch),
        )


@dataclass(slots=True)
class _Request:
    """A SUBSCRIBE that is not answered yet. `mark`: what was retained later comes live."""

    packet: Subscribe
    codes: list[int]
    mark: int
    refused: dict[str, int] = field(default_factory=dict)
    left: int = 0

    def refuse(self, reason: str, filters: int = 1) -> None:
        """Note why filters get `FAILURE`."""
        self.refused[reason] = self.refused.get(reason, 0) + filters


class Link:
    """One client from its CONNECT on. What it asks for besides messages ends up here (a `ControlSink`).

    Args:
        client_id: the one that it gave, or was assigned.
        decided: called once when `accepted` is known, or when it has ended before that.

    ``ahead``: what was received behind the CONNECT, until `feed_ahead`. ``idle_timeout_s``: how long the client may be silent.
    """

    __slots__ = (
        "_broker",
        "_channel",
        "_connect",
        "_connection",
        "_decided",
        "_ended",
        "_gateway",
        "_inbound",
        "_outbound",
        "_protocol",
        "_queue",
        "_session",
        "_will",
        "accepted",
        "ahead",
        "client_id",
        "idle_timeout_s",
    )

    def __init__(
        self,
        broker: Broker,
        connection: Connection,
        principal: Principal,
        connect: Connect,
        client_id: str,
        decided: Callable[[], None],
    ) -> None:
        settings = broker.settings
        self.client_id = client_id
        self.accepted = False
        self._ended = False
        self._broker = broker
        self._gateway = broker.gateway
        self._connection = connection
        self._connect: Connect | None = connect
        self._decided: Callable[[], None] | None = decided
        self.ahead = b""
        self.idle_timeout_s = _idle_timeout_s(connect.keep_alive_s, settings.max_keep_alive_s)
        self._queue = session_queue_name(client_id)
        self._session: Session[Delivery] = Session(principal.vhost, client_id, clean=connect.clean)
        self._outbound = Outbound(self._gateway, connection, broker.encoder, self._session, settings.max_inflight, broker.rota)
        self._inbound = Inbound(self._gateway, connection, broker.encoder, client_id, self._outbound.reply)
        self._channel: Channel = self._gateway.open_channel(principal, self._inbound)
        self._inbound.attach(self._channel, Routes(self._channel, principal, broker.topic_limits))
        self._outbound.attach(self._channel)
        self._protocol = Connected(self._inbound, self._outbound, self, settings.max_packet_bytes)
        self._will: WillMessage | None = None

    # -- the beginning ------------------------------------------------------

    def open(self) -> None:
        """Enter the session, ending whoever holds it now; `decided` tells when the CONNECT is answered.

        Raises:
            AccessRefused: the will may not be published where it wants.
            MalformedPacket: the will's topic is too large.
        """
        assert self._connect is not None
        self._will = will_message(self._connect, self._channel, self._broker.topic_limits)
        holder = self._broker.sessions.holder(self._session.key)
        if holder is not None:
            holder.take_over()
        exists = self._channel.queue_exists(self._queue)
        present = exists and not self._session.clean
        if exists and not present:
            self._inbound.expect(self._channel.delete_queue(self._queue), self._prepared)  # [MQTT-3.1.2-6]
        if present:  # not declared again: it keeps the limits that it was made with, whatever the settings say now
            self._session.filters.update(subscribed(self._channel, self._queue))
        else:
            spec = session_queue(self.client_id, self._limits, clean=self._session.clean)
            self._inbound.expect(self._channel.declare_queue(spec), self._prepared)
        self._broker.sessions.enter(self._session, self, present=present)
        options = ConsumeOptions(prefetch=self._broker.settings.max_inflight, exclusive=True)
        self._inbound.expect(self._channel.consume(self._queue, self._outbound, options), partial(self._consuming, present))

    @property
    def _limits(self) -> SessionLimits:
        return self._broker.clean_limits if self._session.clean else self._broker.session_limits

    def _prepared(self, outcome: Outcome) -> None:
        if outcome.error is not None:
            self._refuse(outcome.error)

    def _consuming(self, present: bool, outcome: Outcome) -> None:
        if self._ended:
            return
        error = outcome.error or self._outbound.ended
        if error is not None:
            self._refuse(error)
            return
        self.accepted = True
        self._connect = None  # with the password in it
        self._send(ConnAck(present, ACCEPTED))  # [MQTT-3.2.0-1] [MQTT-3.2.2-1] [MQTT-3.2.2-2] [MQTT-3.2.2-3]
        self._outbound.open(outcome.result)
        self._decide()

    def _decide(self) -> None:
        if self._decided is not None:
            self._decided()
            self._decided = None

    def _refuse(self, error: GatewayError) -> None:
        """Answer the CONNECT with a no, and close [MQTT-3.2.2-5]."""
        if self._ended:
            return
        self._gateway.log.warning("a session can't be opened", client=self.client_id, peer=self._connection.peer, reason=error.text)
        self._send(ConnAck(session_present=False, code=connack_code(error, self._connect)))  # [MQTT-3.2.2-4]
        self._connection.close(CloseReason.LOCAL)
        self.end()

    # -- bytes --------------------------------------------------------------

    def feed_ahead(self) -> None:
        """Take what was received in one piece with the CONNECT. Raises as `feed`."""
        ahead, self.ahead = self.ahead, b""
        if ahead:
            self.feed(ahead)

    def feed(self, data: bytes) -> None:
        """Take what was received after the CONNECT.

        Raises:
            ProtocolViolation: the client broke the standard, or wants what it may not have.
        """
        if self._ended:
            return
        try:
            self._protocol.feed(data)
        except MalformedPacket as error:
            raise ProtocolViolation(error.reason, error.spec) from None

    def _send(self, packet: Packet) -> None:
        self._outbound.reply(encode(packet))

    # -- what the client asks for -------------------------------------------

    def subscribe(self, packet: Subscribe) -> None:
        """Bind each filter; the SUBACK comes when all are on disk or refused [MQTT-3.8.4-1]."""
        request = _Request(packet, [FAILURE] * len(packet.filters), self._channel.retained_mark())
        filters = self._session.filters
        limit = self._broker.settings.max_subscriptions
        for index, (pattern, qos) in enumerate((wanted.pattern, wanted.qos) for wanted in packet.filters):
            if index >= limit or (len(filters) >= limit and pattern not in filters):
                request.refuse(f"more than {limit} subscriptions", len(packet.filters) - index)
                break
            reason = filter_refusal(pattern, self._broker.topic_limits)
            if reason:
                request.refuse(reason)
                continue
            granted = min(qos, GRANTED_QOS)  # [MQTT-3.8.4-6]
            filters.add(pattern)
            request.left += 1
            number = self._channel.bind(subscription(self._queue, pattern, granted))
            self._inbound.expect(number, partial(self._bound, request, index, granted))
        if not request.left:
            self._subscribed(request)

    def _bound(self, request: _Request, index: int, granted: int, outcome: Outcome) -> None:
        if outcome.error is None:
            request.codes[index] = granted
        else:
            self._session.filters.discard(request.packet.filters[index].pattern)
            request.refuse(outcome.error.text)
        request.left -= 1
        if not request.left:
            self._subscribed(request)

    def _subscribed(self, request: _Request) -> None:
        if self._ended:
            return
        self._send(SubAck(request.packet.packet_id, bytes(request.codes)))  # [MQTT-3.8.4-2] [MQTT-3.8.4-5] [MQTT-3.9.3-1]
        for wanted, granted in zip(request.packet.filters, request.codes, strict=True):
            if granted != FAILURE:
                self._outbound.want_retained(wanted.pattern, granted, request.mark)  # of one that was there too [MQTT-3.8.4-3]
        if request.refused:
            self._gateway.count("subscriptions_refused", sum(request.refused.values()))
            self._gateway.log.warning(
                "subscriptions were refused", client=self.client_id, peer=self._connection.peer, reasons=request.refused
            )

    def unsubscribe(self, packet: Unsubscribe) -> None:
        """Unbind each filter; the UNSUBACK comes even if none was there [MQTT-3.10.4-5]."""
        known = [pattern for pattern in dict.fromkeys(packet.filters) if pattern in self._session.filters]
        self._session.filters.difference_update(known)
        for pattern in known:
            self._outbound.unwant_retained(pattern)
        for pattern in known[:-1]:
            self._inbound.expect(self._channel.unbind(subscription(self._queue, pattern, 0)), _done)
        answer = partial(self._unsubscribed, packet.packet_id)
        if known:
            self._inbound.expect(self._channel.unbind(subscription(self._queue, known[-1], 0)), answer)
        else:
            answer(None)

    def _unsubscribed(self, packet_id: int, _: Outcome | None) -> None:
        if not self._ended:
            self._send(UnsubAck(packet_id))  # [MQTT-3.10.4-4]

    def ping(self) -> None:
        """Answer a PINGREQ [MQTT-3.12.4-1]."""
        self._outbound.reply(PONG)

    def disconnect(self, packet: Disconnect) -> None:
        """Forget the will [MQTT-3.14.4-3] and close."""
        self._will = None
        self._connection.close(CloseReason.LOCAL)

    # -- the end ------------------------------------------------------------

    def take_over(self) -> None:
        """Another connection has come with this client identifier [MQTT-3.1.4-2]."""
        self._gateway.count("takeovers")
        self._gateway.log.info("another connection took over", client=self.client_id, peer=self._connection.peer)
        self.end()
        self._connection.close(CloseReason.LOCAL)

    def end(self) -> None:
        """Publish the will if the client did not say goodbye [MQTT-3.1.2-8], leave the session, close the channel.

        It may be called any number of times.
        """
        if self._ended:
            return
        self._ended = True
        self._outbound.report()
        if self.accepted and self._will is not None:
            self._publish_will(self._will)
        self._broker.sessions.leave(self._session, self, self._is_there)
        self._channel.close()
        self._decide()

    def _is_there(self, client_id: str) -> bool:
        """Say whether a client has a session in this virtual host."""
        return self._channel.queue_exists(session_queue_name(client_id))

    def _publish_will(self, will: WillMessage) -> None:
        if will.retain:
            self._channel.retain(will.route, will.message)  # [MQTT-3.1.2-17]
        self._channel.publish(will.route, will.message)


def _idle_timeout_s(asked_s: int, most_s: int) -> float:
    """Return how long a client may be silent [MQTT-3.1.2-24]; 0: for ever."""
    return KEEP_ALIVE_GRACE * (min(asked_s or most_s, most_s) if most_s else asked_s)


def _done(_: Outcome) -> None:
    """Nothing hangs on it: the last one of the same packet answers."""
