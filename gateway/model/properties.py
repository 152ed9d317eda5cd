"""What does a message carry besides its body, in the common model?"""

from __future__ import annotations

from typing import Any

import msgspec

COMMON = "common"
"""Wire tag of properties in the common form: a msgpack map of the fields of `Properties`."""


class Properties(msgspec.Struct, frozen=True, omit_defaults=True):
    """AMQP's basic properties under their own names (AMQP 0-9-1 §1.8, class basic).

    ``expiration_ms`` is a duration; ``timestamp_s`` is seconds since 1970. Headers keep their order. ``correlation_id`` is
    text or bytes: protocols differ.
    """

    content_type: str | None = None
    content_encoding: str | None = None
    headers: dict[str, Any] | None = None
    priority: int | None = None
    correlation_id: Any = None
    reply_to: str | None = None
    expiration_ms: int | None = None
    message_id: str | None = None
    timestamp_s: int | None = None
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None

    def __post_init__(self) -> None:
        """Check what the type can't say.

        Raises:
            TypeError: the correlation id is neither text nor bytes.
        """
        if self.correlation_id is not None and not isinstance(self.correlation_id, str | bytes):
            raise TypeError("`correlation_id` is neither text nor bytes")


NO_PROPERTIES = Properties()


def encode_properties(properties: Properties) -> bytes:
    """Return the msgpack map of what is set, names as keys."""
    return msgspec.msgpack.encode(properties)


def decode_properties(wire: bytes) -> Properties:
    """Return the properties of a msgpack map.

    Raises:
        msgspec.ValidationError: a field has a type that it can't have.
        msgspec.DecodeError: the bytes are not msgpack.
    """
    return msgspec.msgpack.decode(wire, type=Properties) if wire else NO_PROPERTIES
