"""How does MQTT write numbers, strings and topics?"""
# ruff: noqa: PLR2004 - the numbers are the bits and lengths of the standard

from __future__ import annotations

from gateway_mqtt.codec.names import MAX_LENGTH, MAX_STRING_BYTES, MQTT_5, MalformedPacket, broken, malformed

SHARE = "$share/"


def is_utf8(data: bytes) -> bool:
    """Return whether a payload is what payload format 1 promises (MQTT 5.0 §3.3.2.3.2).

    U+0000 may be in it: it is no UTF-8 encoded string of MQTT.
    """
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def text(data: bytes, level: int = 4) -> str:
    """Read a UTF-8 encoded string.

    Raises:
        MalformedPacket: ill-formed, a surrogate among it, or with U+0000.
    """
    try:
        value = data.decode()  # surrogates are ill-formed too; U+FEFF stays [MQTT-1.5.3-3] [MQTT5-1.5.4-3]
    except UnicodeDecodeError:
        raise broken(level, "a string is not UTF-8", "[MQTT-1.5.3-1]", "[MQTT5-1.5.4-1]") from None
    if "\0" in value:  # in topics too [MQTT-4.7.3-2] [MQTT5-4.7.3-2]
        raise broken(level, "a string has U+0000", "[MQTT-1.5.3-2]", "[MQTT5-1.5.4-2]")
    return value


def topic_name(data: bytes, level: int = 4) -> str:
    """Read the topic name of a PUBLISH or a will.

    Raises:
        MalformedPacket: it is none.
    """
    topic = text(data, level)
    if not topic:
        raise broken(level, "a topic name is empty", "[MQTT-4.7.3-1]", "[MQTT5-4.7.3-1]")
    if "+" in topic or "#" in topic:  # [MQTT-4.7.1-1] [MQTT5-4.7.0-1]
        raise broken(level, "a topic name has a wildcard", "[MQTT-3.3.2-2]", "[MQTT5-3.3.2-2]", 0x82)
    return topic


def topic_filter(data: bytes, level: int = 4) -> str:
    """Read a topic filter; at level 5 it may be a shared one.

    Raises:
        MalformedPacket: it is none.
    """
    pattern = text(data, level)
    if not pattern:
        raise broken(level, "a topic filter is empty", "[MQTT-4.7.3-1]", "[MQTT5-4.7.3-1]")
    hash_at = pattern.find("#")
    if hash_at >= 0 and (hash_at != len(pattern) - 1 or pattern[-2:] not in {"#", "/#"}):
        raise broken(level, "'#' is not the last level of a topic filter", "[MQTT-4.7.1-2]", "[MQTT5-4.7.1-1]")
    if "+" in pattern and any("+" in part and part != "+" for part in pattern.split("/")):
        raise broken(level, "'+' does not occupy a whole level of a topic filter", "[MQTT-4.7.1-3]", "[MQTT5-4.7.1-2]")
    if level == MQTT_5:
        split_share(pattern)
    return pattern


def split_share(pattern: str) -> tuple[str, str] | None:
    """Return the share name and the topic filter of a shared subscription; None: it is an ordinary one.

    Below level 5 the standard knows no shared subscriptions, so `topic_filter` takes a malformed one as an ordinary filter;
    who has them there too asks here.

    Raises:
        MalformedPacket: the share name or the topic filter is none (MQTT 5.0 §4.8.2).
    """
    if not pattern.startswith(SHARE):
        return None
    group, slash, shared = pattern[len(SHARE) :].partition("/")
    if not group:
        raise malformed("a shared subscription without a share name", "[MQTT5-4.8.2-1]")
    if "+" in group or "#" in group:
        raise malformed("a share name with a wildcard", "[MQTT5-4.8.2-2]")
    if not slash or not shared:
        raise malformed("a shared subscription without a topic filter", "[MQTT5-4.8.2-2]")
    return group, shared


def is_shared(pattern: str) -> bool:
    """Return whether a topic filter is of a shared subscription, well-formed or not."""
    return pattern.startswith(SHARE)


class Bounds:
    """How many of what may be repeated one packet may have: reading them takes time that others wait.

    Args:
        filters: of a SUBSCRIBE or UNSUBSCRIBE.
        user_properties: of any packet, and of its will.
    """

    __slots__ = ("filters", "user_properties")

    def __init__(self, filters: int, user_properties: int) -> None:
        self.filters: int = filters
        self.user_properties: int = user_properties


UNBOUNDED = Bounds(MAX_LENGTH, MAX_LENGTH)


class Reader:
    """Takes the fields of one packet from its front."""

    __slots__ = ("_at", "_data", "_end", "bounds", "level")

    def __init__(self, data: bytes, level: int, bounds: Bounds = UNBOUNDED) -> None:
        self.bounds: Bounds = bounds
        self._data: bytes = data
        self._at: int = 0
        self._end: int = len(data)
        self.level: int = level

    def more(self) -> bool:
        """Whether there are bytes left."""
        return self._at < self._end

    def take(self, size: int) -> bytes:
        """Take bytes."""
        at = self._at
        if at + size > self._end:
            raise too_short(self.level)
        self._at = at + size
        return self._data[at : at + size]

    def byte(self) -> int:
        """Take a byte."""
        at = self._at
        if at >= self._end:
            raise too_short(self.level)
        self._at = at + 1
        return self._data[at]

    def word(self) -> int:
        """Take a two byte integer."""
        at = self._at
        if at + 2 > self._end:
            raise too_short(self.level)
        self._at = at + 2
        return self._data[at] << 8 | self._data[at + 1]

    def number(self, size: int) -> int:
        """Take an integer of so many bytes."""
        return int.from_bytes(self.take(size), "big")

    def varint(self) -> int:
        """Take a variable byte integer."""
        value = 0
        for shift in (0, 7, 14, 21):
            digit = self.byte()
            value |= (digit & 127) << shift
            if digit < 128:
                if shift and not digit:
                    break
                return value
        raise malformed("a variable byte integer of more than four bytes or with idle digits", "[MQTT5-1.5.5-1]")

    def identifier(self, code: int = 0x81) -> int:
        """Take a packet identifier; ``code``: what 0 is refused with."""
        value = self.word()
        if not value:
            raise broken(self.level, "packet identifier 0", "[MQTT-2.3.1-1]", "[MQTT5-2.2.1-3]", code)
        return value

    def binary(self) -> bytes:
        """Take binary data, or the bytes of a string."""
        return self.take(self.word())

    def text(self) -> str:
        """Take a UTF-8 encoded string."""
        return text(self.binary(), self.level)

    def rest(self) -> bytes:
        """Take what is left."""
        return self.take(self._end - self._at)

    def end(self) -> None:
        """Refuse a packet that has more."""
        if self.more():
            raise broken(self.level, "a packet has bytes after its last field", "[MQTT-4.8.0-1]", "[MQTT5-4.13.1-1]")


def too_short(level: int = 4) -> MalformedPacket:
    """Return the error for a packet that ends within a field."""
    return broken(level, "a packet is shorter than its fields", "[MQTT-4.8.0-1]", "[MQTT5-4.13.1-1]")


def encode_length(length: int) -> bytes:
    """Return a remaining length, or another variable byte integer.

    Raises:
        ValueError: it is beyond 268,435,455.
    """
    if length < 128:
        return bytes((length,))
    if length > MAX_LENGTH:
        raise ValueError(f"a packet of {length} bytes is too long for MQTT")
    digits = []
    while length > 127:
        digits.append(length & 127 | 128)
        length >>= 7
    return bytes((*digits, length))


def encode_string(data: str | bytes) -> bytes:
    """Return a string or binary field with its length in front.

    Raises:
        ValueError: it is beyond 65,535 bytes.
    """
    raw = data.encode() if isinstance(data, str) else data
    if len(raw) > MAX_STRING_BYTES:  # [MQTT-4.7.3-3] [MQTT5-4.7.3-3]
        raise ValueError(f"a string of {len(raw)} bytes is too long for MQTT")
    return len(raw).to_bytes(2, "big") + raw
