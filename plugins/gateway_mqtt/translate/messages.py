"""What does a message look like to MQTT clients?"""

from __future__ import annotations

from gateway.api import Message, is_mqtt_topic, swap_key
from gateway_mqtt.codec.coding import encode_length, encode_string
from gateway_mqtt.codec.packets import MAX_LENGTH
from gateway_mqtt.translate.topics import MAX_CACHED_TOPIC_BYTES, MAX_CACHED_TOPICS

SHORT = 128
"""Lengths below fit into one byte."""
_FIRST_0 = tuple(bytes((0x30, length)) for length in range(SHORT))
_FIRST_1 = tuple(bytes((0x32, length)) for length in range(SHORT))
_RETAINED = (b"\x31", b"\x33")


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
