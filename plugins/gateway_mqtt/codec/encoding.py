"""Which bytes mean this control packet?"""

from __future__ import annotations

from typing import assert_never

from gateway_mqtt.codec.fields import encode_length, encode_string
from gateway_mqtt.codec.names import (
    AUTH,
    BRIDGE,
    CONNACK,
    CONNECT,
    DISCONNECT,
    FLAGS,
    LEVELS,
    MQTT_5,
    PUBLISH,
    SUBACK,
    SUBSCRIBE,
    UNSUBACK,
    UNSUBSCRIBE,
)
from gateway_mqtt.codec.packets import (
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
)
from gateway_mqtt.codec.properties import NO_PROPERTIES, Properties, encode_properties


def encode(packet: Packet, level: int = 4) -> bytes:  # noqa: C901, PLR0911 - one per packet
    """Return a packet's bytes. What the level has no place for is left out: below 5 properties, reason codes, options.

    Args:
        level: of the connection; a CONNECT says its own.

    Raises:
        ValueError: a field is too long.
        OverflowError: an identifier is out of range.
    """
    match packet:
        case Publish():
            return _encode_publish(packet, level)
        case Connect():
            return _encode_connect(packet)
        case ConnAck():
            return _framed(CONNACK << 4, bytes((packet.session_present, packet.code)), _encoded(packet.properties, level))
        case Ack():
            reason = _encode_reason(packet.code, packet.properties, level)
            return _identified(packet.type, packet.packet_id, reason)
        case Subscribe():
            filters = [_encode_subscription(wanted, level) for wanted in packet.filters]
            return _identified(SUBSCRIBE, packet.packet_id, _encoded(packet.properties, level), *filters)
        case SubAck():
            return _identified(SUBACK, packet.packet_id, _encoded(packet.properties, level), packet.codes)
        case Unsubscribe():
            patterns = [encode_string(pattern) for pattern in packet.filters]
            return _identified(UNSUBSCRIBE, packet.packet_id, _encoded(packet.properties, level), *patterns)
        case UnsubAck():
            codes = packet.codes if level == MQTT_5 else b""
            return _identified(UNSUBACK, packet.packet_id, _encoded(packet.properties, level), codes)
        case Signal():
            return bytes((packet.type << 4, 0))
        case Disconnect():
            return _framed(DISCONNECT << 4, _encode_reason(packet.code, packet.properties, level))
        case Auth():
            return _encode_auth(packet)
        case _:
            assert_never(packet)


def _framed(head: int, *parts: bytes) -> bytes:
    payload = b"".join(parts)
    return bytes((head,)) + encode_length(len(payload)) + payload


def _identified(type_: int, packet_id: int, *parts: bytes) -> bytes:
    return _framed(type_ << 4 | FLAGS[type_], packet_id.to_bytes(2, "big"), *parts)  # [MQTT-2.2.2-1] [MQTT5-2.1.3-1]


def _encoded(properties: Properties, level: int) -> bytes:
    return encode_properties(properties) if level == MQTT_5 else b""


def _encode_reason(code: int, properties: Properties, level: int) -> bytes:
    """Return a reason code and properties as short as they can be said."""
    if level != MQTT_5:
        return b""
    if properties != NO_PROPERTIES:
        return bytes((code,)) + encode_properties(properties)
    return bytes((code,)) if code else b""


def _encode_publish(packet: Publish, level: int) -> bytes:
    head = PUBLISH << 4 | packet.dup << 3 | packet.qos << 1 | packet.retain
    packet_id = packet.packet_id.to_bytes(2, "big") if packet.qos else b""
    return _framed(head, encode_string(packet.topic), packet_id, _encoded(packet.properties, level), packet.payload)


def _encode_subscription(wanted: Subscription, level: int) -> bytes:
    options = wanted.qos
    if level == MQTT_5:
        options |= wanted.no_local << 2 | wanted.retain_as_published << 3 | wanted.retain_handling << 4
    return encode_string(wanted.pattern) + bytes((options,))


def _encode_auth(packet: Auth) -> bytes:
    if not packet.code and packet.properties == NO_PROPERTIES:
        return bytes((AUTH << 4, 0))
    return _framed(AUTH << 4, bytes((packet.code,)), encode_properties(packet.properties))


def _encode_connect(packet: Connect) -> bytes:
    level = packet.level
    flags = packet.clean << 1 | (packet.user is not None) << 7 | (packet.password is not None) << 6
    fields = [encode_string(packet.client_id)]
    if (will := packet.will) is not None:
        flags |= 4 | will.qos << 3 | will.retain << 5
        fields += (_encoded(will.properties, level), encode_string(will.topic), encode_string(will.payload))
    if packet.user is not None:
        fields.append(encode_string(packet.user))
    if packet.password is not None:
        fields.append(encode_string(packet.password))
    header = bytes((level | (BRIDGE if packet.bridge else 0), flags)) + packet.keep_alive_s.to_bytes(2, "big")
    return _framed(CONNECT << 4, encode_string(LEVELS[level]), header, _encoded(packet.properties, level), *fields)
