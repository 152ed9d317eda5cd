"""What are the properties of an AMQP message in the common model, and what do messages of other protocols look like to AMQP?"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any, Final

from gateway.api import NO_PROPERTIES, Message, Properties
from gateway_amqp.codec.content import (
    APP_ID,
    CONTENT_ENCODING,
    CONTENT_TYPE,
    CORRELATION_ID,
    DELIVERY_MODE,
    EXPIRATION,
    HEADERS,
    MESSAGE_ID,
    PRIORITY,
    REPLY_TO,
    TIMESTAMP,
    TYPE,
    USER_ID,
    spans,
)
from gateway_amqp.codec.names import MAX_SHORT, HardError
from gateway_amqp.codec.tables import LATEST_S, decode_table, encode_table
from gateway_amqp.translate.tables import common_table, shortened, table_of, text_of, utf8

WIRE_TAG: Final = "amqp"
"""Who wrote `Message.wire`: the property flags and properties of a content header as they came (AMQP 0-9-1 §4.2.6.1)."""

_PERSISTENT: Final = b"\x10\x00\x02"
_TRANSIENT: Final = b"\x10\x00\x01"
"""All that is said of messages that say nothing."""
_SAY_NOTHING: Final = (b"", b"\0\0", _PERSISTENT, _TRANSIENT)

MOST_BYTES: Final = 131_072 - 20
"""Of properties: a content header is one frame, and frames are no longer than this for most clients."""
MALFORMED: Final = "x-malformed-properties"
"""Header: the bytes of properties that can't be read."""
BASE64: Final = "base64:"
"""How a correlation id begins that is bytes, and no text in UTF-8: most clients read text here, and some end at other bytes."""
_MOST_OCTET: Final = 255

_TEXTS: Final = {
    CONTENT_TYPE: "content_type",
    CONTENT_ENCODING: "content_encoding",
    REPLY_TO: "reply_to",
    MESSAGE_ID: "message_id",
    TYPE: "type",
    USER_ID: "user_id",
    APP_ID: "app_id",
}


# -- in the common model ----------------------------------------------------


def read_wire(wire: bytes) -> Properties:
    """Return in the common form what an AMQP client has said (a `gateway.api.WireDecoder`).

    Text that is no UTF-8 has escapes for what can't be read; what can't be read at all is one header, `MALFORMED`.
    """
    if wire in _SAY_NOTHING:
        return NO_PROPERTIES
    try:
        return _read(wire)
    except (HardError, IndexError):
        return Properties(headers={MALFORMED: wire})


def _read(wire: bytes) -> Properties:
    said: dict[str, Any] = {}
    for flag, start, end in spans(wire):
        if flag in _TEXTS:
            said[_TEXTS[flag]] = text_of(wire[start + 1 : end])
        elif flag == HEADERS:
            said["headers"] = common_table(decode_table(wire, start, end, faithful=True)) or None
        elif flag == CORRELATION_ID:
            said["correlation_id"] = _correlation_said(wire[start + 1 : end])
        elif flag == EXPIRATION:
            said["expiration_ms"] = _milliseconds(wire[start + 1 : end])
        elif flag == PRIORITY:
            said["priority"] = wire[start]
        elif flag == TIMESTAMP:
            said["timestamp_s"] = int.from_bytes(wire[start:end], "big")
    return Properties(**said)


def _milliseconds(data: bytes) -> int | None:
    return int(data) if data.isdigit() else None


def _correlation_said(data: bytes) -> str | bytes:
    """Return text where it is text; else bytes, also if they are said as `_correlation` says them."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return data
    meant = _undone(text)
    if meant is None:
        return text
    try:
        return meant.decode()
    except UnicodeDecodeError:
        return meant


def _undone(text: str) -> bytes | None:
    """Return the bytes that `_correlation` says so; None: it never says this."""
    if not text.startswith(BASE64):
        return None
    try:
        data = b64decode(text.removeprefix(BASE64), validate=True)
    except ValueError:
        return None
    return data if _needs_base64(data) and BASE64 + b64encode(data).decode() == text else None


def _needs_base64(data: bytes) -> bool:
    """Say whether a correlation id can't be itself: it is no text, or one that would be read as such bytes."""
    try:
        return _undone(data.decode()) is not None
    except UnicodeDecodeError:
        return True


# -- from the common model --------------------------------------------------


def properties_for(message: Message, read: Callable[[Message], Properties], now_ms: Callable[[], int] | None = None) -> bytes:
    """Return a message's properties as AMQP has them, from the property flags on. Never raises.

    Those of an AMQP client are as they came. Of others: what a property or a table can't hold is told as text, or in a header
    (``x-`` and the property's name) if it is too long for a property.

    Args:
        read: `Gateway.properties`: reads those of messages that came by other protocols.
        now_ms: `Gateway.now_ms`; None: of what expires and does not say after how long nothing is told.
    """
    if message.wire_tag == WIRE_TAG:
        return message.wire
    if not (message.wire or message.priority or message.expires_at_ms):
        return _PERSISTENT if message.persistent else _TRANSIENT
    return from_common(_readable(message, read), message, now_ms)


def _readable(message: Message, read: Callable[[Message], Properties]) -> Properties:
    try:
        return read(message)
    except Exception:  # an edge: a front-end's decoder, or bytes of a former version
        return Properties(headers={MALFORMED: message.wire})


def from_common(properties: Properties, message: Message, now_ms: Callable[[], int] | None = None) -> bytes:
    """Return common properties, and what else a message says, as AMQP's properties."""
    section = _Section()
    section.text(CONTENT_TYPE, "content-type", properties.content_type)
    section.text(CONTENT_ENCODING, "content-encoding", properties.content_encoding)
    front = section.parts
    section.parts = []
    section.put(DELIVERY_MODE, b"\2" if message.persistent else b"\1")
    section.octet(PRIORITY, "priority", message.priority or None if properties.priority is None else properties.priority)
    section.correlation(properties.correlation_id)
    section.text(REPLY_TO, "reply-to", properties.reply_to)
    expiration_ms = _expiration(properties, message, now_ms)
    section.text(EXPIRATION, "expiration", None if expiration_ms is None else str(expiration_ms))
    section.text(MESSAGE_ID, "message-id", properties.message_id)
    section.timestamp(properties.timestamp_s)
    section.text(TYPE, "type", properties.type)
    section.text(USER_ID, "user-id", properties.user_id)
    section.text(APP_ID, "app-id", properties.app_id)
    return section.joined(front, properties.headers)


def _expiration(properties: Properties, message: Message, now_ms: Callable[[], int] | None) -> int | None:
    """Return the time to live as it was said, or of whom does not say it what is left."""
    if properties.expiration_ms is not None:
        return max(properties.expiration_ms, 0)
    if message.expires_at_ms and now_ms is not None:
        return max(message.expires_at_ms - now_ms(), 0)
    return None


class _Section:
    """Properties in the making; ``beside``: headers for what no property can hold."""

    __slots__ = ("beside", "flags", "parts")

    def __init__(self) -> None:
        self.flags: int = 0
        self.parts: list[bytes] = []
        self.beside: dict[str, Any] = {}

    def put(self, flag: int, data: bytes) -> None:
        self.flags |= flag
        self.parts.append(data)

    def text(self, flag: int, name: str, text: str | None) -> None:
        if text is None:
            return
        data = utf8(text)
        if len(data) <= MAX_SHORT:
            self.put(flag, bytes((len(data),)) + data)
        else:
            self.beside["x-" + name] = text

    def octet(self, flag: int, name: str, number: int | None) -> None:
        if number is None:
            return
        if 0 <= number <= _MOST_OCTET:
            self.put(flag, bytes((number,)))
        else:
            self.beside["x-" + name] = number

    def correlation(self, said: Any) -> None:
        if said is None:
            return
        data = utf8(said) if isinstance(said, str) else bytes(said)
        if _needs_base64(data):
            text = BASE64 + b64encode(data).decode()
            if len(text) > MAX_SHORT:
                self.beside["x-correlation-id"] = said
            else:
                self.text(CORRELATION_ID, "correlation-id", text)
        else:
            self.text(CORRELATION_ID, "correlation-id", data.decode())

    def timestamp(self, seconds: int | None) -> None:
        if seconds is None:
            return
        if 0 <= seconds <= LATEST_S:  # clients that have dates know no later ones, and some end at one
            self.put(TIMESTAMP, seconds.to_bytes(8, "big"))
        else:
            self.beside["x-timestamp"] = seconds

    def joined(self, front: list[bytes], headers: dict[str, Any] | None) -> bytes:
        """Return the whole of it, the headers behind `front`."""
        rest = b"".join(self.parts)
        start = b"".join(front)
        if headers or self.beside:
            table = table_of(headers or {}, self.beside)
            encoded = encode_table(table)
            most = MOST_BYTES - len(start) - len(rest)
            if len(encoded) > most:
                encoded = encode_table(shortened(table, most))
            self.flags |= HEADERS
            start += encoded
        return self.flags.to_bytes(2, "big") + start + rest
