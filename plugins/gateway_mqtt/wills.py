"""What is published for a client that is lost, and may it be?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from gateway.api import AccessRefused, Channel, Gateway, Message, NotFound, NotSupported, PreconditionFailed, Principal
from gateway_mqtt.codec import reasons
from gateway_mqtt.codec.coding import is_utf8
from gateway_mqtt.codec.packets import PUBLISH, Will
from gateway_mqtt.codec.properties import NO_PROPERTIES, decode_properties, encode_properties
from gateway_mqtt.store import StoredWill
from gateway_mqtt.translate.properties import RETAIN, WIRE_TAG, wire_of
from gateway_mqtt.translate.sessions import Refused
from gateway_mqtt.translate.topics import ANSWERS, TopicLimits, address_of, check_answer, is_reserved

if TYPE_CHECKING:
    from gateway_mqtt.settings import MqttSettings

MILLISECONDS: Final = 1_000
FOR_EVER: Final = (AccessRefused, NotFound, NotSupported, PreconditionFailed)
"""What is refused so is refused whenever it is tried again."""


def stored_will(will: Will, most_bytes: int) -> StoredWill:
    """Return a will as it is kept, in memory and in the journal: its properties as they were sent, the delay apart.

    Raises:
        Refused: topic, payload and properties together are more than `most_bytes`.
    """
    properties = will.properties
    raw = b""
    if properties is not NO_PROPERTIES:
        raw = _raw(encode_properties(replace(properties, will_delay_s=None)))  # user properties in order [MQTT5-3.1.3-10]
    if len(will.topic.encode()) + len(will.payload) + len(raw) > most_bytes:
        raise Refused(reasons.QUOTA_EXCEEDED, f"a will of more than {most_bytes} bytes")
    return StoredWill(will.topic, will.payload, will.qos, will.retain, properties.will_delay_s or 0, raw)


def _raw(encoded: bytes) -> bytes:
    """Return encoded properties without the length in front of them."""
    at = 0
    while encoded[at] & 128:
        at += 1
    return encoded[at + 1 :]


def check_will(will: Will, gateway: Gateway, principal: Principal, limits: TopicLimits, settings: MqttSettings) -> None:
    """Refuse a will that could not be published when the time comes.

    Raises:
        Refused: this broker does not do what it asks for, or the client may not publish there.
    """
    if excess := limits.excess(will.topic):
        raise Refused(reasons.TOPIC_NAME_INVALID, excess)
    if is_reserved(will.topic):
        raise Refused(reasons.NOT_AUTHORIZED, "topics under $SYS and $share are the broker's own")
    if will.qos > settings.maximum_qos:
        raise Refused(reasons.QOS_NOT_SUPPORTED, f"a will of QoS {will.qos}")  # [MQTT5-3.2.2-12]
    if will.retain and not settings.retained:
        raise Refused(reasons.RETAIN_NOT_SUPPORTED, "a retained will")  # [MQTT5-3.2.2-13]
    if will.properties.payload_format and not is_utf8(will.payload):
        raise Refused(reasons.PAYLOAD_FORMAT_INVALID, "a will that is not the UTF-8 that it says it is")
    if principal.authorize is None and not will.topic.startswith(ANSWERS):
        return
    channel = gateway.open_channel(principal)
    try:
        route = channel.route(*address_of(will.topic))
        if will.topic.startswith(ANSWERS):
            check_answer(route.address, limits)
    except AccessRefused as error:
        raise Refused(reasons.NOT_AUTHORIZED, error.text) from None
    finally:
        channel.close()


def publish_will(channel: Channel, will: StoredWill, now_ms: int) -> bool:
    """Publish a will, with its properties, and retain it if it says so [MQTT-3.1.2-17] [MQTT5-3.1.2-15].

    Args:
        channel: of who may publish everywhere: whether the client may was looked at when it connected.
        now_ms: wall time; its expiry counts from here.
    Returns:
        False: it is refused for now (memory is short, the journal fails, a queue is full). One of QoS 0 is lost then.
    Raises:
        GatewayError: one of `FOR_EVER`: it can't be published at all.
    """
    route = channel.route(*address_of(will.topic))
    properties = decode_properties(PUBLISH, will.properties)
    expiry_s = properties.message_expiry_s
    raw = _raw(encode_properties(replace(properties, message_expiry_s=None))) if will.properties else b""
    wire = wire_of(will.qos | (RETAIN if will.retain else 0), raw)
    expires_at_ms = 0 if expiry_s is None else now_ms + (expiry_s * MILLISECONDS or 1)  # 0 is never
    message = Message(route.address, will.payload, will.qos > 0, WIRE_TAG if wire else "", wire, 0, expires_at_ms)
    if will.retain and not will.topic.startswith(ANSWERS):  # else it is a passing message [MQTT-3.1.2-16] [MQTT5-3.1.2-14]
        channel.retain(route, message)  # [MQTT-3.1.2-17] [MQTT5-3.1.2-15]
    if will.qos:
        refusal = channel.refused(channel.publish(route, message))
        if isinstance(refusal, FOR_EVER):
            raise refusal
        return refusal is None
    channel.post(route, message)
    return True
