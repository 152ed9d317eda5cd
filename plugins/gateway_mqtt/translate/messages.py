"""What does a message look like to MQTT clients?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.api import NO_PROPERTIES, Address, Message, Properties, is_mqtt_topic, make_room, swap_key
from gateway_mqtt.codec.coding import encode_length, encode_string
from gateway_mqtt.codec.names import MQTT_5
from gateway_mqtt.codec.packets import MAX_LENGTH
from gateway_mqtt.codec.publishes import parts_of
from gateway_mqtt.codec.publishing import encode_publish_properties
from gateway_mqtt.translate.properties import WIRE_TAG, from_common
from gateway_mqtt.translate.topics import MAX_CACHED_TOPIC_BYTES, MAX_CACHED_TOPICS

SHORT: Final = 128
"""Lengths below fit into one byte."""
_FIRST_0: Final = tuple(bytes((0x30, length)) for length in range(SHORT))
_FIRST_1: Final = tuple(bytes((0x32, length)) for length in range(SHORT))
_NONE: Final = b"\0"
"""No properties."""
_NO_TOPIC: Final = b"\0\0"
CAN_NOT: Final = (b"", b"")
_MOST_S: Final = 0xFFFF_FFFF
_ROUND_UP_MS: Final = 998
"""Whole seconds that a message has waited are counted; one that came with 0 seconds has a millisecond, and says 0 again."""


class Encoder:
    """What does a message look like to MQTT subscribers? It remembers the last one, so that fan-out encodes it once.

    One for all connections of a protocol level. ``packet`` is the whole QoS 0 packet of ``plain``; ``front`` is the QoS 1 packet of
    ``confirmed`` up to its packet identifier, behind which comes the body (at level 5 an empty property section before it: one
    byte 0). Who has them at hand (they were received so) sets them before publishing.

    Args:
        level: 3 and 4 know no properties, 5 does.
        properties: `Gateway.properties`: reads those of messages that came by other protocols.
        now_ms: `Gateway.now_ms`.
    """

    __slots__ = ("_five", "_kept", "_now_ms", "_of", "_read", "_topics", "confirmed", "front", "packet", "plain")

    def __init__(
        self,
        level: int = 4,
        properties: Callable[[Message], Properties] | None = None,
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        self.plain: Message | None = None
        self.packet: bytes = b""
        self.confirmed: Message | None = None
        self.front: bytes = b""
        self._topics: dict[str, bytes] = {}
        self._five: bool = level == MQTT_5
        self._read: Callable[[Message], Properties] = properties or _none
        self._now_ms: Callable[[], int] = now_ms or _never
        self._of: Message | None = None
        self._kept: bytes = b""

    def encode_packet(self, message: Message) -> bytes:
        """Return the QoS 0 packet, and remember it if it stays the same; ``b""``: MQTT can't carry this message."""
        five = self._five
        if five and (message.wire or message.expires_at_ms):
            return self._with_properties(message)
        topic = self._topic(message.address.routing_key)
        body = message.body
        length = len(topic) + len(body) + five
        if not topic or length > MAX_LENGTH:
            return b""
        first = _FIRST_0[length] if length < SHORT else b"\x30" + encode_length(length)
        self.packet = packet = first + topic + _NONE + body if five else first + topic + body
        self.plain = message
        return packet

    def encode_run(self, key: str, bodies: list[bytes], largest: int) -> bytes:
        """Return QoS 0 packets without properties, one behind the other; ``b""``: MQTT can't carry all of them.

        Args:
            largest: bytes of the largest body.
        """
        topic = self._topic(key)
        start = topic + _NONE if self._five else topic
        if not topic or len(start) + largest > MAX_LENGTH:
            return b""
        fields = len(start)
        packets: list[bytes] = []
        for body in bodies:
            length = fields + len(body)
            packets.append((_FIRST_0[length] if length < SHORT else b"\x30" + encode_length(length)) + start + body)
        return b"".join(packets)

    def _with_properties(self, message: Message) -> bytes:
        start, properties = self.packet_parts(message, 0)
        if not start:
            return b""
        packet = start + properties + message.body
        if not message.expires_at_ms:
            self.packet = packet
            self.plain = message
        return packet

    def encode_front(self, message: Message) -> bytes:
        """Return and remember the QoS 1 packet up to its identifier.

        ``b""``: it has properties (`packet_parts` is for all cases), or MQTT can't carry this message.
        """
        five = self._five
        if five and (message.wire or message.expires_at_ms):
            return b""
        topic = self._topic(message.address.routing_key)
        length = len(topic) + 2 + len(message.body) + five
        if not topic or length > MAX_LENGTH:
            return b""
        self.front = front = (_FIRST_1[length] if length < SHORT else b"\x32" + encode_length(length)) + topic
        self.confirmed = message
        return front

    def packet_parts(
        self,
        message: Message,
        qos: int,
        flags: int = 0,
        subscription_ids: tuple[int, ...] = (),
        alias: int = 0,
        *,
        with_topic: bool = True,
    ) -> tuple[bytes, bytes]:
        """Return any PUBLISH up to its packet identifier, and what is between that and the body.

        The packet is ``start + identifier + properties + body``, the identifier only with QoS 1 and 2. The second part is empty
        below level 5, and at least one byte there; what is left of the message expiry is counted at each call [MQTT5-3.3.2-6].
        The message's own properties are remembered, so fan-out reads them once.

        Args:
            flags: 1 RETAIN, 8 DUP.
            subscription_ids: of the subscriptions that brought it; level 5 only.
            alias: topic alias to be set or used, 0: none; level 5 only.
            with_topic: False: the client knows the alias already.

        Returns:
            two empty parts if MQTT can't carry this message.
        """
        topic = self._topic(message.address.routing_key)
        if not topic:
            return CAN_NOT
        if not with_topic:
            topic = _NO_TOPIC
        properties = self._section(message, subscription_ids, alias) if self._five else b""
        length = len(topic) + (2 if qos else 0) + len(properties) + len(message.body)
        if length > MAX_LENGTH:
            return CAN_NOT
        return bytes((0x30 | qos << 1 | flags,)) + encode_length(length) + topic, properties

    def _section(self, message: Message, subscription_ids: tuple[int, ...], alias: int) -> bytes:
        kept = b""
        if message.wire:
            if message is not self._of:
                self._kept = self._properties(message)
                self._of = message
            kept = self._kept
        expires_at_ms = message.expires_at_ms
        if not (kept or expires_at_ms or subscription_ids or alias):
            return _NONE
        expiry_s = self._left_s(expires_at_ms) if expires_at_ms else None
        return encode_publish_properties(kept, expiry_s, alias or None, subscription_ids)

    def _left_s(self, expires_at_ms: int) -> int:
        return min(max(expires_at_ms - self._now_ms() + _ROUND_UP_MS, 0) // 1000, _MOST_S)

    def own_properties(self, message: Message) -> bytes:
        """Return a message's own properties as `Message.wire` has them behind its flags, whichever protocol it came by."""
        return self._properties(message) if message.wire else b""

    def _properties(self, message: Message) -> bytes:
        """Return a message's own properties as MQTT 5 has them, without their length."""
        if message.wire_tag == WIRE_TAG:
            return message.wire[1:]
        return from_common(self._read(message), message.body)

    def _topic(self, key: str) -> bytes:
        """Return a routing key as a topic field; ``b""``: MQTT can't carry it."""
        field = self._topics.get(key)
        if field is None:
            field = _topic_field(swap_key(key))
            make_room(self._topics, MAX_CACHED_TOPICS)
            if len(field) <= MAX_CACHED_TOPIC_BYTES:
                self._topics[key] = field
        return field


class PacketRun:
    """Messages of QoS 0 to one address (a `MessageRun`), as they were received.

    Args:
        packets: the PUBLISHes, one behind the other.
        field_bytes: what each has between its remaining length and its body.
        encoder: of the level that they were received at.
    """

    __slots__ = ("_address", "_elsewhere", "_field_bytes", "_messages", "_other", "count", "encoder", "largest", "packets")

    def __init__(self, address: Address, packets: bytes, count: int, largest: int, field_bytes: int, encoder: Encoder) -> None:
        self.count: int = count
        self.largest: int = largest
        self.packets: bytes = packets
        self.encoder: Encoder = encoder
        self._address: Address = address
        self._field_bytes: int = field_bytes
        self._other: Encoder | None = None
        self._elsewhere: bytes = b""
        self._messages: list[Message] | None = None

    def messages(self) -> list[Message]:
        """Return them one by one."""
        messages = self._messages
        if messages is None:
            address = self._address
            messages = self._messages = [Message(address, body) for _, body in parts_of(self.packets, self._field_bytes)]
        return messages

    def packets_for(self, encoder: Encoder) -> bytes:
        """Return what subscribers of this encoder's level are sent; ``b""``: MQTT can't carry some of it there.

        It is remembered for the level that asked last: there are two.
        """
        if encoder is self.encoder:
            return self.packets
        if encoder is not self._other:
            self._other = encoder
            bodies = [body for _, body in parts_of(self.packets, self._field_bytes)]
            self._elsewhere = encoder.encode_run(self._address.routing_key, bodies, self.largest)
        return self._elsewhere


def _none(_: Message) -> Properties:
    return NO_PROPERTIES


def _never() -> int:
    return 0


def _topic_field(topic: str) -> bytes:
    try:
        return encode_string(topic) if is_mqtt_topic(topic) else b""
    except UnicodeEncodeError:  # a lone surrogate, from a front-end that takes it
        return b""
