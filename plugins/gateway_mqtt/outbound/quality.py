"""Which quality of service, and which flags, does a message have for a client?"""

from __future__ import annotations

from typing import Final

from gateway.api import BindingOptions, Message
from gateway_mqtt.codec.fields import encode_length
from gateway_mqtt.translate.properties import LAST_VALUE, QOS, RETAIN, WIRE_TAG

RETAINED: Final = 1
SUBSCRIPTION_ID: Final = b"\x0b"


def published_qos(message: Message) -> int:
    """Return the QoS that a message was published with; one that came by another protocol has 1 if it is persistent."""
    if message.wire_tag == WIRE_TAG:
        return message.wire[0] & QOS
    return int(message.persistent)


def quality(message: Message, options: BindingOptions | None) -> int:
    """Return the QoS that a delivery has: the published one, or the granted one if that is lower [MQTT-3.8.4-6]."""
    if not message.persistent:
        return 0
    published = published_qos(message)
    return published if options is None else min(published, options.qos)


def published_flags(message: Message, options: BindingOptions | None) -> int:
    """Return the RETAIN flag of a live message [MQTT-3.3.1-9] [MQTT5-3.3.1-12] [MQTT5-3.3.1-13], or of what `last_value` made."""
    if options is None and message.wire_tag == WIRE_TAG and message.wire[0] & LAST_VALUE:
        return RETAINED
    if options is not None and options.retain_as_published and message.wire_tag == WIRE_TAG:
        return RETAINED if message.wire[0] & RETAIN else 0
    return 0


def last_value(message: Message, qos: int, own: bytes, ids: tuple[int, ...]) -> Message:
    """Return a retained message as it waits in the queue of a session.

    Args:
        own: its properties, from `Encoder.own_properties`.
        ids: subscription identifiers that it is to be sent with.
    """
    wire = bytes((qos | LAST_VALUE,)) + own + b"".join(SUBSCRIPTION_ID + encode_length(number) for number in ids)
    return Message(message.address, message.body, True, WIRE_TAG, wire, message.priority, message.expires_at_ms)
