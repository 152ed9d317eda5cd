"""What is a session, a subscription or a refusal in the common model, and back?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from gateway.api import (
    TOPIC_EXCHANGE,
    AccessRefused,
    Binding,
    BindingOptions,
    Channel,
    GatewayError,
    Overflow,
    QueueSpec,
    swap_key,
)
from gateway_mqtt.codec import packets, reasons
from gateway_mqtt.codec.fields import split_share
from gateway_mqtt.codec.packets import MalformedPacket, Subscription

SESSION_PREFIX: Final = "mqtt.session."
MAX_CLIENT_ID_BYTES: Final = 255 - len(SESSION_PREFIX)
"""A session is a queue, and queues have names of at most 255 bytes."""

SESSION_OVERFLOW: Final = {"reject": Overflow.REJECT_PUBLISH, "end-session": Overflow.END_QUEUE}
"""What the setting of that name makes of a persistent session's queue."""

NEVER_S: Final = 0xFFFFFFFF
"""Session expiry interval of a session that does not end (MQTT 5.0 §3.1.2.11.2)."""

_RETURN_CODES: Final = {
    reasons.UNSUPPORTED_PROTOCOL_VERSION: packets.BAD_LEVEL,
    reasons.CLIENT_IDENTIFIER_NOT_VALID: packets.BAD_IDENTIFIER,
    reasons.BAD_USER_NAME_OR_PASSWORD: packets.BAD_CREDENTIALS,
    reasons.NOT_AUTHORIZED: packets.NOT_AUTHORIZED,
    reasons.SERVER_UNAVAILABLE: packets.UNAVAILABLE,
}


class Refused(Exception):
    """A CONNECT gets a no.

    Args:
        code: reason code of MQTT 5.
        reason: one line for the log.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code: int = code
        self.reason: str = reason


def return_code(code: int) -> int:
    """Return the CONNACK return code of MQTT 3.1.1 (§3.2.2.3) for a reason code of MQTT 5; 0: there is none."""
    return _RETURN_CODES.get(code, 0)


def connect_refusal(error: GatewayError, *, named: bool) -> Refused:
    """Return the refusal that an error of the gateway means to a CONNECT. `named`: it had a user name."""
    if not isinstance(error, AccessRefused):
        return Refused(reasons.SERVER_UNAVAILABLE, error.text)
    return Refused(reasons.BAD_USER_NAME_OR_PASSWORD if named else reasons.NOT_AUTHORIZED, error.text)


# -- the session ------------------------------------------------------------


def session_queue_name(client_id: str) -> str:
    """Return the name of the queue that is a client's session."""
    return SESSION_PREFIX + client_id


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What a session may hold, unacknowledged messages included, and what it does when it is full; 0: no limit."""

    messages: int
    body_bytes: int
    overflow: Overflow
    keep_transient: bool = False


def session_queue(client_id: str, limits: SessionLimits, *, lasts: bool) -> QueueSpec:
    """Return the queue of a session.

    One that does not last is its connection's own, and ends with it; where the queue ends first, the connection ends with that.
    """
    return QueueSpec(
        session_queue_name(client_id),
        durable=lasts,
        exclusive=not lasts,
        max_length=limits.messages,
        max_length_bytes=limits.body_bytes,
        overflow=limits.overflow,
        keep_transient=limits.keep_transient,  # QoS 1 and 2 wait in any case [MQTT-3.1.2-5]
    )


def shortest(expiry_s: int, limit_s: int) -> int:
    """Return a session expiry interval held to a limit; 0 is none."""
    return min(expiry_s, limit_s) if limit_s else expiry_s


def keep_alive(asked_s: int, most_s: int) -> int:
    """Return the keep alive that holds for a client; 0: it may be silent for ever."""
    return min(asked_s or most_s, most_s) if most_s else asked_s


def response_topic(prefix: str, client_id: str) -> str:
    """Return the topic that a client may get its answers at; no two clients have the same."""
    return f"{prefix}/{quote(client_id, safe='')}"


# -- subscriptions ----------------------------------------------------------


def subscription(queue: str, wanted: Subscription, subscription_ids: tuple[int, ...] = ()) -> Binding:
    """Return the binding that a subscription is. Its QoS is the granted one."""
    options = BindingOptions(wanted.qos, wanted.no_local, wanted.retain_as_published, subscription_ids, mqtt=True)
    return Binding(TOPIC_EXCHANGE, queue, swap_key(wanted.pattern), options=options)


def subscribed(channel: Channel, queue: str) -> Iterator[tuple[str, BindingOptions]]:
    """Yield the topic filters of a session that exists, and their options."""
    for binding in channel.bindings(queue):
        if binding.source == TOPIC_EXCHANGE and not binding.to_exchange:
            yield swap_key(binding.key), binding.options


def split_shared(pattern: str) -> tuple[str, str] | None:
    """Return group and topic filter of a shared subscription; None: it is not well-formed [MQTT5-4.8.2-1] [MQTT5-4.8.2-2]."""
    try:
        return split_share(pattern)
    except MalformedPacket:
        return None
