"""How do bytes become MQTT 3.1.1 control packets, and back?"""
# ruff: noqa: PLR2004 - the numbers are the bits and lengths of the standard

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from gateway_mqtt.codec.packets import (
    ACKS,
    CONNACK,
    CONNECT,
    FAILURE,
    FLAGS,
    LEVELS,
    MAX_LENGTH,
    MAX_STRING_BYTES,
    NAMES,
    PUBLISH,
    SIGNALS,
    SUBACK,
    SUBSCRIBE,
    UNSUBSCRIBE,
    Ack,
    ConnAck,
    Connect,
    Packet,
    Publish,
    Signal,
    SubAck,
    Subscribe,
    UnknownLevel,
    Unsubscribe,
    Will,
    malformed,
)

# -- topics -----------------------------------------------------------------


def text(data: bytes) -> str:
    """Read a UTF-8 encoded string.

    Raises:
        MalformedPacket: ill-formed, a surrogate among it, or with U+0000.
    """
    try:
        value = data.decode()  # strict: surrogates are ill-formed too
    except UnicodeDecodeError:
        raise malformed("a string is not UTF-8", "[MQTT-1.5.3-1]") from None
    if "\0" in value:
        raise malformed("a string has U+0000", "[MQTT-1.5.3-2]")
    return value


def topic_name(data: bytes) -> str:
    """Read the topic name of a PUBLISH or a will."""
    topic = text(data)
    if not topic:
        raise malformed("a topic name is empty", "[MQTT-4.7.3-1]")
    if "+" in topic or "#" in topic:
        raise malformed("a topic name has a wildcard", "[MQTT-3.3.2-2]")
    return topic


def topic_filter(data: bytes) -> str:
    """Read a topic filter."""
    pattern = text(data)
    if not pattern:
        raise malformed("a topic filter is empty", "[MQTT-4.7.3-1]")
    hash_at = pattern.find("#")
    if hash_at >= 0 and (hash_at != len(pattern) - 1 or pattern[-2:] not in {"#", "/#"}):
        raise malformed("'#' is not the last level of a topic filter", "[MQTT-4.7.1-2]")
    if "+" in pattern and any("+" in level and level != "+" for level in pattern.split("/")):
        raise malformed("'+' does not occupy a whole level of a topic filter", "[MQTT-4.7.1-3]")
    return pattern


# -- decoding ---------------------------------------------------------------


class _Reader:
    """Takes the fields of one packet from its front."""

    __slots__ = ("_at", "_data", "_end")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._end = len(data)

    @property
    def more(self) -> bool:
        return self._at < self._end

    def take(self, size: int) -> bytes:
        at = self._at
        if at + size > self._end:
            raise malformed("a packet is shorter than its fields", "[MQTT-4.8.0-1]")
        self._at = at + size
        return self._data[at : at + size]

    def byte(self) -> int:
        return self.take(1)[0]

    def word(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def identifier(self) -> int:
        value = self.word()
        if not value:
            raise malformed("packet identifier 0", "[MQTT-2.3.1-1]")
        return value

    def string(self) -> bytes:
        return self.take(self.word())

    def rest(self) -> bytes:
        return self.take(self._end - self._at)

    def end(self) -> None:
        if self.more:
            raise malformed("a packet has bytes after its last field", "[MQTT-4.8.0-1]")


def decode(head: int, payload: bytes) -> Packet:
    """Make a packet of its first byte and what follows the remaining length.

    Raises:
        MalformedPacket: it breaks the standard. UnknownLevel: a CONNECT of another version.
    """
    type_ = head >> 4
    if type_ == PUBLISH:
        return _decode_publish(head, payload)
    if head & 15 != FLAGS.get(type_):
        if type_ not in FLAGS:
            raise malformed(f"packet type {type_} is reserved", "§2.2.1")
        raise malformed(f"{NAMES[type_]} with wrong reserved bits", "[MQTT-2.2.2-2]")
    reader = _Reader(payload)
    packet = _DECODERS[type_](type_, reader)
    reader.end()
    return packet


def _decode_publish(head: int, payload: bytes) -> Publish:
    qos = head >> 1 & 3
    dup = bool(head & 8)
    check_publish_flags(qos, dup=dup)
    reader = _Reader(payload)
    topic = topic_name(reader.string())
    packet_id = reader.identifier() if qos else 0
    return Publish(topic, reader.rest(), qos, bool(head & 1), dup, packet_id)


def check_publish_flags(qos: int, *, dup: bool) -> None:
    """Refuse what no PUBLISH may have."""
    if qos == 3:
        raise malformed("PUBLISH with QoS 3", "[MQTT-3.3.1-4]")
    if dup and not qos:
        raise malformed("PUBLISH of QoS 0 with DUP", "[MQTT-3.3.1-2]")


def _decode_connect(_: int, reader: _Reader) -> Connect:
    name = reader.string()
    level = reader.byte()
    if name not in {b"MQTT", b"MQIsdp"}:
        raise malformed("a protocol name other than MQTT", "[MQTT-3.1.2-1]")
    if LEVELS.get(level, "").encode() != name:
        raise UnknownLevel(f"protocol level {level} is not supported", "MQTT 3.1.1 [MQTT-3.1.2-2]")
    flags = reader.byte()
    _check_connect_flags(flags)
    keep_alive_s = reader.word()
    client_id = text(reader.string())  # [MQTT-3.1.3-4]
    will = None
    if flags & 4:
        will = Will(topic_name(reader.string()), reader.string(), flags >> 3 & 3, bool(flags & 0x20))  # [MQTT-3.1.3-10]
    user = text(reader.string()) if flags & 0x80 else None  # [MQTT-3.1.3-11]
    password = reader.string() if flags & 0x40 else None
    return Connect(client_id, bool(flags & 2), keep_alive_s, will, user, password, level)


def _check_connect_flags(flags: int) -> None:
    if flags & 1:
        raise malformed("CONNECT with its reserved flag set", "[MQTT-3.1.2-3]")
    if not flags & 4 and flags & 0x18:
        raise malformed("CONNECT with a will QoS and no will", "[MQTT-3.1.2-13]")
    if not flags & 4 and flags & 0x20:
        raise malformed("CONNECT with will retain and no will", "[MQTT-3.1.2-15]")
    if flags & 0x18 == 0x18:
        raise malformed("CONNECT with will QoS 3", "[MQTT-3.1.2-14]")
    if flags & 0xC0 == 0x40:
        raise malformed("CONNECT with a password and no user name", "[MQTT-3.1.2-22]")


def _decode_connack(_: int, reader: _Reader) -> ConnAck:
    flags = reader.byte()
    if flags > 1:
        raise malformed("CONNACK with reserved flags", "§3.2.2.1")
    return ConnAck(bool(flags), reader.byte())


def _decode_ack(type_: int, reader: _Reader) -> Ack:
    return Ack(type_, reader.identifier())


def _decode_subscribe(_: int, reader: _Reader) -> Subscribe:
    packet_id = reader.identifier()
    filters = []
    while reader.more:
        pattern = topic_filter(reader.string())  # [MQTT-3.8.3-1]
        qos = reader.byte()
        if qos > 2:
            raise malformed("SUBSCRIBE with a QoS above 2 or reserved bits", "[MQTT-3.8.3-4]")
        filters.append((pattern, qos))
    if not filters:
        raise malformed("SUBSCRIBE without a topic filter", "[MQTT-3.8.3-3]")
    return Subscribe(packet_id, tuple(filters))


def _decode_suback(_: int, reader: _Reader) -> SubAck:
    packet_id = reader.identifier()
    codes = reader.rest()
    if not codes or any(code > 2 and code != FAILURE for code in codes):
        raise malformed("SUBACK with a reserved return code", "[MQTT-3.9.3-2]")
    return SubAck(packet_id, codes)


def _decode_unsubscribe(_: int, reader: _Reader) -> Unsubscribe:
    packet_id = reader.identifier()
    filters = []
    while reader.more:
        filters.append(topic_filter(reader.string()))  # [MQTT-3.10.3-1]
    if not filters:
        raise malformed("UNSUBSCRIBE without a topic filter", "[MQTT-3.10.3-2]")
    return Unsubscribe(packet_id, tuple(filters))


def _decode_signal(type_: int, _: _Reader) -> Signal:
    return Signal(type_)


_DECODERS: dict[int, Callable[[int, _Reader], Packet]] = {
    CONNECT: _decode_connect,
    CONNACK: _decode_connack,
    SUBSCRIBE: _decode_subscribe,
    SUBACK: _decode_suback,
    UNSUBSCRIBE: _decode_unsubscribe,
    **dict.fromkeys(ACKS, _decode_ack),
    **dict.fromkeys(SIGNALS, _decode_signal),
}


# -- encoding ---------------------------------------------------------------


def encode_length(length: int) -> bytes:
    """Return a remaining length.

    Raises:
        ValueError: it is beyond 268,435,455 bytes.
    """
    if length < 128:
        return bytes((length,))
    if length > MAX_LENGTH:
        raise ValueError(f"a packet of {length} bytes is too long for MQTT")
    digits = []
    while length > 127:
        digits.append(length & 127 | 128)
        length >>= 7
    return bytes((*digits, length))


def encode_string(data: str | bytes) -> bytes:
    """Return a string or binary field with its length in front.

    Raises:
        ValueError: it is beyond 65,535 bytes.
    """
    raw = data.encode() if isinstance(data, str) else data
    if len(raw) > MAX_STRING_BYTES:
        raise ValueError(f"a string of {len(raw)} bytes is too long for MQTT")
    return len(raw).to_bytes(2, "big") + raw


def _framed(head: int, *parts: bytes) -> bytes:
    payload = b"".join(parts)
    return bytes((head,)) + encode_length(len(payload)) + payload


def _identified(type_: int, packet_id: int, *parts: bytes) -> bytes:
    return _framed(type_ << 4 | FLAGS[type_], packet_id.to_bytes(2, "big"), *parts)


def encode(packet: Packet) -> bytes:  # noqa: PLR0911 - one per packet
    """Return a packet's bytes.

    Raises:
        ValueError: a field is too long.
        OverflowError: an identifier is out of range.
    """
    match packet:
        case Publish():
            head = 0x30 | packet.dup << 3 | packet.qos << 1 | packet.retain
            packet_id = packet.packet_id.to_bytes(2, "big") if packet.qos else b""
            return _framed(head, encode_string(packet.topic), packet_id, packet.payload)
        case Connect():
            return _encode_connect(packet)
        case ConnAck():
            return bytes((0x20, 2, packet.session_present, packet.code))
        case Ack():
            return _identified(packet.type, packet.packet_id)
        case Subscribe():
            filters = [encode_string(pattern) + bytes((qos,)) for pattern, qos in packet.filters]
            return _identified(SUBSCRIBE, packet.packet_id, *filters)
        case SubAck():
            return _identified(SUBACK, packet.packet_id, packet.codes)
        case Unsubscribe():
            return _identified(UNSUBSCRIBE, packet.packet_id, *map(encode_string, packet.filters))
        case Signal():
            return bytes((packet.type << 4, 0))
        case _:
            assert_never(packet)


def _encode_connect(packet: Connect) -> bytes:
    flags = packet.clean << 1 | (packet.user is not None) << 7 | (packet.password is not None) << 6
    fields: list[str | bytes] = [packet.client_id]
    if (will := packet.will) is not None:
        flags |= 4 | will.qos << 3 | will.retain << 5
        fields += [will.topic, will.payload]
    fields += [field for field in (packet.user, packet.password) if field is not None]
    header = bytes((packet.level, flags)) + packet.keep_alive_s.to_bytes(2, "big")
    return _framed(CONNECT << 4, encode_string(LEVELS[packet.level]), header, *map(encode_string, fields))
