"""What is a session, a subscription, a will or a refusal in the common model, and back?"""

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
    QueueSpec,
    Route,
    swap_key,
)
from gateway_mqtt.codec.packets import BAD_CREDENTIALS, NOT_AUTHORIZED, UNAVAILABLE, Connect
from gateway_mqtt.translate.topics import TopicLimits

SESSION_PREFIX = "mqtt.session."
MAX_CLIENT_ID_BYTES = 255 - len(SESSION_PREFIX)
"""A session is a queue, and queues have names of at most 255 bytes."""

SESSION_OVERFLOW = {"reject": Overflow.REJECT_PUBLISH, "end-session": Overflow.END_QUEUE}
"""What the setting of that name makes of a persistent session's queue."""

GRANTED_QOS = 1
"""The highest QoS that is granted."""


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
