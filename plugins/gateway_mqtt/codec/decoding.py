"""Which control packet do these bytes mean?"""
# ruff: noqa: PLR2004 - the numbers are the bits and lengths of the standard

from __future__ import annotations

from gateway_mqtt.codec.fields import UNBOUNDED, Bounds, Reader, is_shared, topic_filter, topic_name
from gateway_mqtt.codec.names import (
    AUTH,
    BRIDGE,
    CLIENT,
    CONNACK,
    CONNECT,
    DISCONNECT,
    EITHER,
    FLAGS,
    LEVELS,
    MQTT_5,
    MQTT_31,
    MQTT_311,
    NAMES,
    PINGREQ,
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    UNSUBSCRIBE,
    WILL,
    UnknownLevel,
    broken,
    malformed,
)
from gateway_mqtt.codec.packets import (
    FAILURE,
    Ack,
    Auth,
    ConnAck,
    Connect,
    Disconnect,
    Packet,
    Publish,
    Signal,
    SubAck,
    Subscribe,
    Subscription,
    UnsubAck,
    Unsubscribe,
    Will,
)
from gateway_mqtt.codec.properties import NO_PROPERTIES, Properties, decode_properties
from gateway_mqtt.codec.reasons import QUOTA_EXCEEDED, may_carry

_PROTOCOL_ERROR = 0x82


def decode(head: int, payload: bytes, level: int = 4, sender: int = EITHER, bounds: Bounds = UNBOUNDED) -> Packet:
    """Make a packet of its first byte and what follows the remaining length.

    Args:
        level: of the connection; a CONNECT says its own.
        sender: `CLIENT` or `SERVER`, to refuse properties and reason codes that are not that side's to send.
        bounds: a packet with more is refused as soon as that is seen.

    Raises:
        MalformedPacket: it breaks the standard. UnknownLevel: a CONNECT of a version that there is not.
    """
    type_ = head >> 4
    if type_ == PUBLISH:
        return _decode_publish(head, Reader(payload, level, bounds), sender)
    if type_ not in FLAGS or (type_ == AUTH and level != MQTT_5):
        raise broken(level, f"packet type {type_} is reserved", "§2.2.1", "5 §2.1.2")
    _check_flags(type_, head & 15, level)
    reader = Reader(payload, level, bounds)
    packet = _decode(type_, reader, sender)
    reader.end()
    return packet


def _decode(type_: int, reader: Reader, sender: int) -> Packet:  # noqa: PLR0911 - one per packet
    if PUBACK <= type_ <= PUBCOMP:
        packet_id = reader.identifier()
        code, properties = _reason(type_, reader, sender)
        return Ack(type_, packet_id, code, properties)
    if type_ == CONNECT:
        return _decode_connect(reader)
    if type_ == CONNACK:
        return _decode_connack(reader)
    if type_ == SUBSCRIBE:
        return _decode_subscribe(reader)
    if type_ == SUBACK:
        return _decode_suback(reader)
    if type_ == UNSUBSCRIBE:
        return _decode_unsubscribe(reader)
    if type_ == UNSUBACK:
        return _decode_unsuback(reader)
    if type_ in {PINGREQ, PINGRESP}:
        return Signal(type_)
    if type_ == DISCONNECT:
        code, properties = _reason(type_, reader, sender)
        return Disconnect(code, properties)
    return _decode_auth(reader, sender)


_FLAG_TAGS = {
    PUBREL: ("[MQTT-3.6.1-1]", "[MQTT5-3.6.1-1]"),
    SUBSCRIBE: ("[MQTT-3.8.1-1]", "[MQTT5-3.8.1-1]"),
    UNSUBSCRIBE: ("[MQTT-3.10.1-1]", "[MQTT5-3.10.1-1]"),
    DISCONNECT: ("[MQTT-3.14.1-1]", "[MQTT5-3.14.1-1]"),
    AUTH: ("", "[MQTT5-3.15.1-1]"),
}
_OTHER_FLAG_TAGS = ("[MQTT-2.2.2-2]", "[MQTT5-2.1.3-1]")


def _check_flags(type_: int, flags: int, level: int) -> None:
    if flags == FLAGS[type_] or (level == MQTT_31 and flags == 10 and FLAGS[type_] == 2):  # 3.1 has DUP there
        return
    tag, tag5 = _FLAG_TAGS.get(type_, _OTHER_FLAG_TAGS)
    raise broken(level, f"{NAMES[type_]} with wrong reserved bits", tag, tag5)


def _properties(kind: int, reader: Reader, sender: int = EITHER) -> Properties:
    """Take the properties of a packet, which none has below level 5."""
    if reader.level != MQTT_5:
        return NO_PROPERTIES
    length = reader.varint()  # [MQTT5-2.2.2-1]
    if not length:
        return NO_PROPERTIES
    return decode_properties(kind, reader.take(length), sender, reader.bounds.user_properties)


def _reason(type_: int, reader: Reader, sender: int) -> tuple[int, Properties]:
    """Take a reason code and properties, where both may be left out."""
    if reader.level != MQTT_5 or not reader.more():
        return 0, NO_PROPERTIES
    code = reader.byte()
    _check_code(type_, code, sender)
    return code, _properties(type_, reader, sender) if reader.more() else NO_PROPERTIES


_CODE_TAGS = {
    CONNACK: "[MQTT5-3.2.2-8]", PUBACK: "[MQTT5-3.4.2-1]", PUBREC: "[MQTT5-3.5.2-1]", PUBREL: "[MQTT5-3.6.2-1]",
    PUBCOMP: "[MQTT5-3.7.2-1]", SUBACK: "[MQTT5-3.9.3-2]", UNSUBACK: "[MQTT5-3.11.3-2]",
    DISCONNECT: "[MQTT5-3.14.2-1]", AUTH: "[MQTT5-3.15.2-1]",
}  # fmt: skip


def _check_code(type_: int, code: int, sender: int) -> None:
    if not may_carry(type_, code, sender):
        raise malformed(f"{NAMES[type_]} with the reason code 0x{code:02x}", _CODE_TAGS[type_], _PROTOCOL_ERROR)


# -- PUBLISH ----------------------------------------------------------------


def _decode_publish(head: int, reader: Reader, sender: int) -> Publish:
    level = reader.level
    qos = head >> 1 & 3
    dup = bool(head & 8)
    check_publish_flags(qos, dup=dup, level=level)
    name = reader.binary()  # [MQTT-3.3.2-1] [MQTT5-3.3.2-1]
    packet_id = reader.identifier(0x82) if qos else 0  # [MQTT-2.3.1-5] [MQTT5-2.2.1-2]
    properties = _properties(PUBLISH, reader, sender)
    if not name and level == MQTT_5:
        if properties.topic_alias is None:
            raise malformed("PUBLISH with neither a topic name nor a topic alias", "5 §3.3.2.1", _PROTOCOL_ERROR)
        topic = ""
    else:
        topic = topic_name(name, level)
    return Publish(topic, reader.rest(), qos, bool(head & 1), dup, packet_id, properties)


def check_publish_flags(qos: int, *, dup: bool, level: int = 4) -> None:
    """Refuse what no PUBLISH may have.

    Raises:
        MalformedPacket: QoS 3, or DUP with QoS 0.
    """
    if qos == 3:
        raise broken(level, "PUBLISH with QoS 3", "[MQTT-3.3.1-4]", "[MQTT5-3.3.1-4]")
    if dup and not qos:
        raise broken(level, "PUBLISH of QoS 0 with DUP", "[MQTT-3.3.1-2]", "[MQTT5-3.3.1-2]")


# -- CONNECT and CONNACK ----------------------------------------------------


_BRIDGES = {level | BRIDGE: level for level in (MQTT_31, MQTT_311)}


def _decode_connect(reader: Reader) -> Connect:
    name = reader.binary()
    level = reader.byte()
    if name not in {b"MQTT", b"MQIsdp"}:
        raise malformed("a protocol name other than MQTT", "[MQTT-3.1.2-1]", 0x84)
    bridge = level in _BRIDGES
    level = _BRIDGES.get(level, level)
    if LEVELS.get(level, "").encode() != name:
        raise UnknownLevel(f"protocol level {level} is not supported", "MQTT 3.1.1 [MQTT-3.1.2-2]", 0x84, level)
    reader.level = level
    flags = reader.byte()
    _check_connect_flags(flags, level)
    keep_alive_s = reader.word()
    properties = _properties(CONNECT, reader, CLIENT)
    # In this order [MQTT-3.1.3-1] [MQTT5-3.1.3-1], each if its flag says so [MQTT-3.1.2-9] [MQTT-3.1.2-18] [MQTT-3.1.2-19]
    # [MQTT-3.1.2-20] [MQTT-3.1.2-21] [MQTT5-3.1.2-9] [MQTT5-3.1.2-16] [MQTT5-3.1.2-17] [MQTT5-3.1.2-18] [MQTT5-3.1.2-19].
    client_id = reader.text()  # [MQTT-3.1.3-3] [MQTT-3.1.3-4] [MQTT5-3.1.3-3] [MQTT5-3.1.3-4]
    will = _decode_will(flags, reader) if flags & 4 else None
    user = reader.text() if flags & 0x80 and _is_there(reader) else None  # [MQTT-3.1.3-11] [MQTT5-3.1.3-12]
    password = reader.binary() if flags & 0x40 and _is_there(reader) else None
    return Connect(client_id, bool(flags & 2), keep_alive_s, will, user, password, level, properties, bridge)


def _is_there(reader: Reader) -> bool:
    """Return whether a flagged user name or password follows: in MQTT 3.1 (§3.1, user name flag) the length has the last word."""
    return reader.level != MQTT_31 or reader.more()


def connect_level(payload: bytes) -> int:
    """Return the protocol level that a CONNECT claims, for the answer to one that is malformed; 0 if it is none of ours."""
    size = 2 + int.from_bytes(payload[:2], "big")
    level = payload[size] if len(payload) > size else 0
    level = _BRIDGES.get(level, level)
    return level if LEVELS.get(level, "?").encode() == payload[2:size] else 0


def _decode_will(flags: int, reader: Reader) -> Will:
    properties = _properties(WILL, reader, CLIENT)
    topic = topic_name(reader.binary(), reader.level)  # [MQTT-3.1.3-10] [MQTT5-3.1.3-11]
    return Will(topic, reader.binary(), flags >> 3 & 3, bool(flags & 0x20), properties)


def _check_connect_flags(flags: int, level: int) -> None:
    if flags & 1:
        raise broken(level, "CONNECT with its reserved flag set", "[MQTT-3.1.2-3]", "[MQTT5-3.1.2-3]")
    if not flags & 4 and flags & 0x18:
        raise broken(level, "CONNECT with a will QoS and no will", "[MQTT-3.1.2-13]", "[MQTT5-3.1.2-11]")
    if not flags & 4 and flags & 0x20:
        raise broken(level, "CONNECT with will retain and no will", "[MQTT-3.1.2-15]", "[MQTT5-3.1.2-13]")
    if flags & 0x18 == 0x18:
        raise broken(level, "CONNECT with will QoS 3", "[MQTT-3.1.2-14]", "[MQTT5-3.1.2-12]")
    if flags & 0xC0 == 0x40 and level != MQTT_5:
        raise malformed("CONNECT with a password and no user name", "[MQTT-3.1.2-22]")


def _decode_connack(reader: Reader) -> ConnAck:
    level = reader.level
    flags = reader.byte()
    if flags > 1:
        raise broken(level, "CONNACK with reserved flags", "§3.2.2.1", "[MQTT5-3.2.2-1]")
    code = reader.byte()
    if level == MQTT_5:
        _check_code(CONNACK, code, EITHER)
    elif code > 5:
        raise malformed("CONNACK with a reserved return code", "§3.2.2.3")
    if flags and code:
        raise broken(level, "CONNACK with a refusal and a session", "[MQTT-3.2.2-4]", "[MQTT5-3.2.2-6]", _PROTOCOL_ERROR)
    return ConnAck(bool(flags), code, _properties(CONNACK, reader))


def _decode_auth(reader: Reader, sender: int) -> Auth:
    whole = reader.more()
    code = reader.byte() if whole else 0
    _check_code(AUTH, code, sender)
    if not whole:
        return Auth()
    properties = _properties(AUTH, reader)
    if properties.authentication_method is None:
        raise malformed("AUTH without an authentication method", "5 §3.15.2.2.2", _PROTOCOL_ERROR)
    return Auth(code, properties)


# -- subscriptions ----------------------------------------------------------


def _decode_subscribe(reader: Reader) -> Subscribe:
    level = reader.level
    packet_id = reader.identifier()
    properties = _properties(SUBSCRIBE, reader)
    filters: list[Subscription] = []
    while reader.more():
        _check_room(reader, len(filters))
        pattern = topic_filter(reader.binary(), level)  # [MQTT-3.8.3-1] [MQTT5-3.8.3-1]
        options = reader.byte()
        filters.append(_subscription(pattern, options) if level == MQTT_5 else _plain(pattern, options))
    if not filters:
        raise broken(level, "SUBSCRIBE without a topic filter", "[MQTT-3.8.3-3]", "[MQTT5-3.8.3-2]", _PROTOCOL_ERROR)
    return Subscribe(packet_id, tuple(filters), properties)


def _check_room(reader: Reader, filters: int) -> None:
    if filters >= reader.bounds.filters:
        raise malformed(f"more than {filters} topic filters in one packet", "5 §4.13.1", QUOTA_EXCEEDED)


def _plain(pattern: str, qos: int) -> Subscription:
    if qos > 2:
        raise malformed("SUBSCRIBE with a QoS above 2 or reserved bits", "[MQTT-3.8.3-4]")
    return Subscription(pattern, qos)


def _subscription(pattern: str, options: int) -> Subscription:
    if options & 0xC0:
        raise malformed("SUBSCRIBE with reserved bits in its options", "[MQTT5-3.8.3-5]")
    if options & 3 == 3:
        raise malformed("SUBSCRIBE with QoS 3", "5 §3.8.3.1", _PROTOCOL_ERROR)
    if options & 0x30 == 0x30:
        raise malformed("SUBSCRIBE with retain handling 3", "5 §3.8.3.1", _PROTOCOL_ERROR)
    if options & 4 and is_shared(pattern):
        raise malformed("a shared subscription with no local", "[MQTT5-3.8.3-4]", _PROTOCOL_ERROR)
    return Subscription(pattern, options & 3, bool(options & 4), bool(options & 8), options >> 4)


def _decode_suback(reader: Reader) -> SubAck:
    packet_id = reader.identifier()
    properties = _properties(SUBACK, reader)
    codes = reader.rest()
    if reader.level == MQTT_5:
        for code in codes:
            _check_code(SUBACK, code, EITHER)
    elif any(code > 2 and code != FAILURE for code in codes):
        raise malformed("SUBACK with a reserved return code", "[MQTT-3.9.3-2]")
    if not codes:
        raise broken(reader.level, "SUBACK without a return code", "§3.9.3", "5 §3.9.3", _PROTOCOL_ERROR)
    return SubAck(packet_id, codes, properties)


def _decode_unsubscribe(reader: Reader) -> Unsubscribe:
    level = reader.level
    packet_id = reader.identifier()
    properties = _properties(UNSUBSCRIBE, reader)
    filters: list[str] = []
    while reader.more():
        _check_room(reader, len(filters))
        filters.append(topic_filter(reader.binary(), level))  # [MQTT-3.10.3-1] [MQTT5-3.10.3-1]
    if not filters:
        raise broken(level, "UNSUBSCRIBE without a topic filter", "[MQTT-3.10.3-2]", "[MQTT5-3.10.3-2]", _PROTOCOL_ERROR)
    return Unsubscribe(packet_id, tuple(filters), properties)


def _decode_unsuback(reader: Reader) -> UnsubAck:
    packet_id = reader.identifier()
    if reader.level != MQTT_5:
        return UnsubAck(packet_id)
    properties = _properties(UNSUBACK, reader)
    codes = reader.rest()
    for code in codes:
        _check_code(UNSUBACK, code, EITHER)
    if not codes:
        raise malformed("UNSUBACK without a reason code", "5 §3.11.3", _PROTOCOL_ERROR)
    return UnsubAck(packet_id, codes, properties)
