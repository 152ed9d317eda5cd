"""Which MQTT 5 reason is a no of the gateway?"""

from __future__ import annotations

from typing import Final

from gateway.api import (
    AccessRefused,
    GatewayError,
    MessageRefused,
    NotFound,
    NotSupported,
    Overloaded,
    PreconditionFailed,
    ResourceLocked,
)
from gateway_mqtt.codec.reasons import (
    IMPLEMENTATION_SPECIFIC_ERROR,
    NOT_AUTHORIZED,
    PAYLOAD_FORMAT_INVALID,
    QUOTA_EXCEEDED,
    TEXTS,
    UNSPECIFIED_ERROR,
)

CODES: Final[dict[type[GatewayError], int]] = {
    AccessRefused: NOT_AUTHORIZED,
    MessageRefused: QUOTA_EXCEEDED,
    Overloaded: QUOTA_EXCEEDED,
    NotFound: IMPLEMENTATION_SPECIFIC_ERROR,
    PreconditionFailed: IMPLEMENTATION_SPECIFIC_ERROR,
    ResourceLocked: IMPLEMENTATION_SPECIFIC_ERROR,
    NotSupported: IMPLEMENTATION_SPECIFIC_ERROR,
    GatewayError: UNSPECIFIED_ERROR,
}
"""Every refusal, and the reason code that says it in a PUBACK, PUBREC, SUBACK or UNSUBACK."""

_TEXTS: Final = {
    NOT_AUTHORIZED: "not authorized for this topic",
    QUOTA_EXCEEDED: "a queue is full, the message is too large, or messages can't be stored now",
    PAYLOAD_FORMAT_INVALID: "the payload is not UTF-8",
}


def reason_code(error: GatewayError) -> int:
    """Return the code for a refusal, or for the nearest kind of it that has one."""
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


def reason_text(code: int) -> str:
    """Return a reason string for a code. The gateway's own texts are for the log: they name what is not the client's business."""
    return _TEXTS.get(code) or TEXTS.get(code, "")
