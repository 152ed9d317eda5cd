"""What becomes of a message that has to wait for its time?"""

from __future__ import annotations

import msgspec

from gateway.engine.queues.dead_letter import encoded
from gateway.errors import GatewayError, NotFound
from gateway.model.message import Message
from gateway.model.properties import COMMON, Properties

DELAY = "x-delay"
"""Header: so many ms are to pass before an exchange with delays publishes a message."""


def delayed(message: Message, properties: Properties, delay_ms: int) -> Message:
    """Return the message that comes out after a delay: its header has the delay negated, so that nothing delays it again."""
    headers = {**(properties.headers or {}), DELAY: -delay_ms}
    wire = encoded(msgspec.structs.replace(properties, headers=headers))
    address, expires_at_ms = message.address, message.expires_at_ms
    return Message(address, message.body, message.persistent, COMMON, wire, message.priority, expires_at_ms)


def expiring_later(message: Message, delay_ms: int) -> Message:
    """Return a message whose time to live begins after the delay."""
    if not message.expires_at_ms:
        return message
    address, wire, wire_tag = message.address, message.wire, message.wire_tag
    expires_at_ms = message.expires_at_ms + delay_ms
    return Message(address, message.body, message.persistent, wire_tag, wire, message.priority, expires_at_ms)


def reason_of(answer: object) -> str:
    """Return why a message was dropped as it was due, to be counted by that."""
    if isinstance(answer, NotFound):
        return "scheduled for no exchange"
    return "scheduled, refused" if isinstance(answer, GatewayError) else "scheduled, unroutable"


def weight(message: Message) -> int:
    """Return how many bytes of a message stay in memory."""
    return len(message.body) + len(message.wire)
