"""What is an MQTT publish, subscription, session or refusal in the common model, and back?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.api import (
    TOPIC_EXCHANGE,
    AccessRefused,
    Binding,
    BindingOptions,
    Channel,
    GatewayError,
    Message,
    Overflow,
    Principal,
    ProtocolViolation,
    QueueSpec,
    Route,
    is_mqtt_topic,
    swap_key,
)
from gateway_mqtt.codec import encode_length, encode_string, topic_name
from gateway_mqtt.packets import BAD_CREDENTIALS, MAX_LENGTH, NOT_AUTHORIZED, UNAVAILABLE, Connect, malformed

SESSION_PREFIX = "mqtt.session."
MAX_CLIENT_ID_BYTES = 255 - len(SESSION_PREFIX)
"""A session is a queue, and queues have names of at most 255 bytes."""

SESSION_OVERFLOW = {"reject": Overflow.REJECT_PUBLISH, "end-session": Overflow.END_QUEUE}
"""What the setting of that name makes of a persistent session's queue."""

MAX_CACHED_TOPICS = 50_000
MAX_CACHED_TOPIC_BYTES = 256
"""Longer topics are resolved at every message: what a cache holds must be bounded in bytes too."""

GRANTED_QOS = 1
"""The highest QoS that is granted."""

SHORT = 128
"""Lengths below fit into one byte."""
_FIRST_0 = tuple(bytes((0x30, length)) for length in range(SHORT))
_FIRST_1 = tuple(bytes((0x32, length)) for length in range(SHORT))
_RETAINED = (b"\x31", b"\x33")


def session_queue_name(client_id: str) -> str:
    """Return the name of the queue that is a client's session."""
    return SESSION_PREFIX + client_id


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What a session may hold, unacknowledged messages included, and what it does when it is full; 0: no limit."""

    messages: int
    body_bytes: int
    overflow: Overflow


def session_queue(client_id: str, limits: SessionLimits, *, clean: bool) -> QueueSpec:
    """Return the queue of a session.

    A clean one is its connection's own, and ends with it; where the queue ends first, the connection ends with that.
    """
    return QueueSpec(
        session_queue_name(client_id),
        durable=not clean,
        exclusive=clean,
        max_length=limits.messages,
        max_length_bytes=limits.body_bytes,
        overflow=limits.overflow,
        keep_transient=False,
    )


def subscription(queue: str, pattern: str, qos: int) -> Binding:
    """Return the binding that a subscription is."""
    return Binding(TOPIC_EXCHANGE, queue, swap_key(pattern), options=BindingOptions(qos=qos, mqtt=True))


def subscribed(channel: Channel, queue: str) -> Iterator[str]:
    """Yield the topic filters of a session that exists."""
    for binding in channel.bindings(queue):
        if binding.source == TOPIC_EXCHANGE and not binding.to_exchange:
            yield swap_key(binding.key)


@dataclass(frozen=True, slots=True)
class TopicLimits:
    """How large topic names and filters may be."""

    levels: int
    bytes: int

    def excess(self, topic: str) -> str:
        """Return what is too much of a topic; empty: nothing is."""
        if topic.count("/") >= self.levels:
            return f"a topic of more than {self.levels} levels"
        if len(topic.encode()) > self.bytes:
            return f"a topic of more than {self.bytes} bytes"
        return ""

    def check(self, topic: str) -> None:
        """Refuse a topic that is too large.

        Raises:
            MalformedPacket: it is.
        """
        if reason := self.excess(topic):
            raise malformed(reason, "§4.7")


def filter_refusal(pattern: str, limits: TopicLimits) -> str:
    """Return why a well-formed topic filter is refused all the same; empty: it is not."""
    if pattern.startswith("$share/"):
        return "shared subscriptions are not supported by this version"
    return limits.excess(pattern)


class Routes:
    """Where do topics lead? One cache for all connections of a principal.

    Args:
        known: `Principal.cache`'s share: routes by topic, as it is received.
    """

    __slots__ = ("_channel", "_limits", "known")

    def __init__(self, channel: Channel, principal: Principal, limits: TopicLimits) -> None:
        self._channel: Channel = channel
        self._limits: TopicLimits = limits
        self.known: dict[bytes, Route] = principal.cache.setdefault("mqtt", {})

    def resolve(self, topic: bytes) -> Route:
        """Check a topic that is not in `known`, and put it there.

        Raises:
            MalformedPacket: it is not a topic name, or is too large.
            ProtocolViolation: the client may not publish to it: MQTT 3.1.1 has no other answer [MQTT-3.3.5-2].
        """
        name = topic_name(topic)
        self._limits.check(name)
        try:
            route = self._channel.route(TOPIC_EXCHANGE, swap_key(name))
        except AccessRefused as error:
            raise ProtocolViolation(error.text, "MQTT 3.1.1 [MQTT-3.3.5-2]") from None
        if len(topic) <= MAX_CACHED_TOPIC_BYTES:
            if len(self.known) >= MAX_CACHED_TOPICS:
                self.known.clear()
            self.known[topic] = route
        return route


class Encoder:
    """What does a message look like to MQTT subscribers? It remembers the last one, so that fan-out encodes it once.

    One for all connections. ``packet`` is the whole QoS 0 packet of ``plain``; ``front`` is the QoS 1 packet of ``confirmed`` up to
    its packet identifier. Who has them at hand (they were received so) sets them before publishing.
    """

    __slots__ = ("_topics", "confirmed", "front", "packet", "plain")

    def __init__(self) -> None:
        self.plain: Message | None = None
        self.packet: bytes = b""
        self.confirmed: Message | None = None
        self.front: bytes = b""
        self._topics: dict[str, bytes] = {}

    def encode_packet(self, message: Message) -> bytes:
        """Return and remember the QoS 0 packet; ``b""``: MQTT can't carry this message."""
        topic = self._topic(message.address.routing_key)
        body = message.body
        length = len(topic) + len(body)
        if not topic or length > MAX_LENGTH:
            return b""
        first = _FIRST_0[length] if length < SHORT else b"\x30" + encode_length(length)
        self.packet = packet = first + topic + body
        self.plain = message
        return packet

    def encode_front(self, message: Message) -> bytes:
        """Return and remember the QoS 1 packet up to its identifier; ``b""``: MQTT can't carry this message."""
        topic = self._topic(message.address.routing_key)
        length = len(topic) + 2 + len(message.body)
        if not topic or length > MAX_LENGTH:
            return b""
        self.front = front = (_FIRST_1[length] if length < SHORT else b"\x32" + encode_length(length)) + topic
        self.confirmed = message
        return front

    def _topic(self, key: str) -> bytes:
        """Return a routing key as a topic field; ``b""``: MQTT can't carry it."""
        field = self._topics.get(key)
        if field is None:
            field = _topic_field(swap_key(key))
            if len(self._topics) >= MAX_CACHED_TOPICS:
                self._topics.clear()
            if len(field) <= MAX_CACHED_TOPIC_BYTES:
                self._topics[key] = field
        return field


def _topic_field(topic: str) -> bytes:
    try:
        return encode_string(topic) if is_mqtt_topic(topic) else b""
    except UnicodeEncodeError:  # a lone surrogate, from a front-end that takes it
        return b""


def retained_start(message: Message, qos: int) -> bytes:
    """Return a PUBLISH with RETAIN [MQTT-3.3.1-8] up to its packet identifier, or (QoS 0) its body.

    ``b""``: MQTT can't carry this message. Nothing is remembered: most of them are sent once, and there may be very many.
    """
    topic = _topic_field(swap_key(message.address.routing_key))
    length = len(topic) + 2 * qos + len(message.body)
    if not topic or length > MAX_LENGTH:
        return b""
    return _RETAINED[qos] + encode_length(length) + topic


def with_flags(start: bytes, flags: int) -> bytes:
    """Return the beginning of a PUBLISH with flags set: 1 retain, 8 DUP."""
    return bytes((start[0] | flags,)) + start[1:]


@dataclass(frozen=True, slots=True)
class WillMessage:
    """What is to be published if a client is lost."""

    route: Route
    message: Message
    retain: bool


def will_message(connect: Connect, channel: Channel, limits: TopicLimits) -> WillMessage | None:
    """Return what is to be published if the client is lost.

    A will of QoS 2 is kept like one of QoS 1: it is published by the broker itself, once, and nobody is granted more.

    Raises:
        AccessRefused: the client may not publish there.
        MalformedPacket: its topic is too large.
    """
    will = connect.will
    if will is None:
        return None
    limits.check(will.topic)
    route = channel.route(TOPIC_EXCHANGE, swap_key(will.topic))
    return WillMessage(route, Message(route.address, will.payload, will.qos > 0), will.retain)


def connack_code(error: GatewayError, connect: Connect | None) -> int:
    """Return the CONNACK return code for a refusal (MQTT 3.1.1 §3.2.2.3)."""
    if isinstance(error, AccessRefused):
        return BAD_CREDENTIALS if connect is not None and connect.user is not None else NOT_AUTHORIZED
    return UNAVAILABLE
