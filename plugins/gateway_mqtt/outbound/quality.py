"""Which quality of service, and which flags, does a message have for a client?"""

from __future__ import annotations

from typing import Final

from gateway.api import BindingOptions, Message
from gateway_mqtt.translate.properties import QOS, RETAIN, WIRE_TAG

RETAINED: Final = 1


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
    """Return the RETAIN flag of a live message [MQTT-3.3.1-9] [MQTT5-3.3.1-12] [MQTT5-3.3.1-13]."""
    if options is not None and options.retain_as_published and message.wire_tag == WIRE_TAG:
        return RETAINED if message.wire[0] & RETAIN else 0
    return 0
