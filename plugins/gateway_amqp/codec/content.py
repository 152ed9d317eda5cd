"""What do the raw properties of a content say that the broker must know?

They are passed on as they came; this reads from them what routing and queues ask for, and changes what the broker must change.
"""

from __future__ import annotations

from typing import Final

from gateway_amqp.codec.names import MAX_SHORT, syntax_error
from gateway_amqp.codec.tables import check_table, without_field

CONTENT_TYPE: Final = 0x8000
CONTENT_ENCODING: Final = 0x4000
HEADERS: Final = 0x2000
DELIVERY_MODE: Final = 0x1000
PRIORITY: Final = 0x0800
CORRELATION_ID: Final = 0x0400
REPLY_TO: Final = 0x0200
EXPIRATION: Final = 0x0100
MESSAGE_ID: Final = 0x0080
TIMESTAMP: Final = 0x0040
TYPE: Final = 0x0020
USER_ID: Final = 0x0010
APP_ID: Final = 0x0008
CLUSTER_ID: Final = 0x0004
_UNKNOWN: Final = 0x0003

PERSISTENT: Final = 2
"""Delivery mode of messages that outlive the broker's restart."""

ORDER: Final = (
    CONTENT_TYPE, CONTENT_ENCODING, HEADERS, DELIVERY_MODE, PRIORITY, CORRELATION_ID, REPLY_TO, EXPIRATION, MESSAGE_ID,
    TIMESTAMP, TYPE, USER_ID, APP_ID, CLUSTER_ID,
)  # fmt: skip
"""In which the properties follow the flags (AMQP 0-9-1 §1.8.1, class basic)."""
_WIDTHS: Final = {DELIVERY_MODE: 1, PRIORITY: 1, TIMESTAMP: 8}


class Facts:
    """What the broker must know of a message's properties. Don't change it: it is shared by messages."""

    __slots__ = ("expiration", "headers", "persistent", "priority", "reply_to", "user_id")

    def __init__(self) -> None:
        self.persistent: bool = False
        self.priority: int = 0
        self.expiration: bytes | None = None
        self.reply_to: bytes | None = None
        self.user_id: bytes | None = None
        self.headers: tuple[int, int] | None = None

    @property
    def has_headers(self) -> bool:
        """Whether there are headers: where they begin and end is `headers`, for `tables.decode_table(properties, *headers)`."""
        return self.headers is not None


def facts(properties: bytes) -> Facts:
    """Return what is to be known of a message's properties.

    Args:
        properties: property flags and properties, as in a header frame.

    Raises:
        HardError: 502, they are none.
    """
    size = len(properties)
    flags = properties[0] << 8 | properties[1] if size > 1 else _UNKNOWN
    if flags & _UNKNOWN:
        raise syntax_error("a content with property flags that AMQP has not")
    found = Facts()
    at = 2
    try:
        if flags & (CONTENT_TYPE | CONTENT_ENCODING):
            if flags & CONTENT_TYPE:
                at += 1 + properties[at]
            if flags & CONTENT_ENCODING:
                at += 1 + properties[at]
        if flags & HEADERS:
            end = check_table(properties, at, size)
            found.headers = (at, end)
            at = end
        if flags & DELIVERY_MODE:
            found.persistent = properties[at] == PERSISTENT
            at += 1
        if flags & (DELIVERY_MODE - 1):
            at = _seldom(found, properties, flags, at)
    except IndexError:
        at = size + 1
    if at != size:
        raise syntax_error("a content whose properties are not as long as its flags say")
    return found


def _seldom(found: Facts, properties: bytes, flags: int, at: int) -> int:
    """Read what comes behind the delivery mode, and return where it ends; it may be cut off."""
    if flags & PRIORITY:
        found.priority = properties[at]
        at += 1
    if flags & CORRELATION_ID:
        at += 1 + properties[at]
    if flags & REPLY_TO:
        start = at + 1
        at = start + properties[at]
        found.reply_to = properties[start:at]
    if flags & EXPIRATION:
        start = at + 1
        at = start + properties[at]
        found.expiration = properties[start:at]
    if flags & MESSAGE_ID:
        at += 1 + properties[at]
    if flags & TIMESTAMP:
        at += 8
    for flag in (TYPE, USER_ID, APP_ID, CLUSTER_ID):
        if flags & flag:
            start = at + 1
            at = start + properties[at]
            if flag == USER_ID:
                found.user_id = properties[start:at]
    return at


def spans(properties: bytes) -> list[tuple[int, int, int]]:
    """Return the properties that are there, in their order: each one's flag, and where it begins and ends, length included.

    Raises:
        HardError: 502, they are none.
    """
    size = len(properties)
    if size < 2:  # noqa: PLR2004
        raise syntax_error("a content without property flags")
    flags = properties[0] << 8 | properties[1]
    if flags & _UNKNOWN:
        raise syntax_error("a content with property flags that AMQP has not")
    found: list[tuple[int, int, int]] = []
    at = 2
    for flag in ORDER:
        if not flags & flag:
            continue
        start = at
        if flag == HEADERS:
            at = check_table(properties, at, size)
        else:
            width = _WIDTHS.get(flag, 0)
            at += width or (1 + properties[at] if at < size else 1)
        if at > size:
            raise syntax_error("a property is cut off")
        found.append((flag, start, at))
    if at != size:
        raise syntax_error("a content with more properties than flags")
    return found


def put(properties: bytes, wanted: int, value: bytes) -> bytes:
    """Return properties with one of them replaced, or put in.

    Args:
        wanted: its flag.
        value: as it stands in the frame, length included; b"": take it out.

    Raises:
        HardError: 502, they are none.
    """
    flags = properties[0] << 8 | properties[1] if len(properties) > 1 else 0
    start = end = 2
    for flag, begin, past in spans(properties):
        if flag == wanted:
            start, end = begin, past
            break
        if flag < wanted:
            break
        start = end = past
    flags = flags | wanted if value else flags & ~wanted
    return b"".join((flags.to_bytes(2, "big"), properties[2:start], value, properties[end:]))


def replace_reply_to(properties: bytes, new: bytes) -> bytes:
    """Return properties with another reply-to, of at most 255 bytes."""
    return put(properties, REPLY_TO, bytes((min(len(new), MAX_SHORT),)) + new[:MAX_SHORT])


def without_header(properties: bytes, name: bytes) -> bytes:
    """Return properties without one of the headers, the others as they were."""
    for flag, start, end in spans(properties):
        if flag == HEADERS:
            table = without_field(properties, start, end, name)
            return properties if len(table) == end - start else put(properties, HEADERS, table)
    return properties
