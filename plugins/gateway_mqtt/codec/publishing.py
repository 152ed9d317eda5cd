"""What do the properties of a PUBLISH say to the broker, and which of them go on as they are?"""
# ruff: noqa: PLR2004 - the numbers are the identifiers and lengths of the standard

from __future__ import annotations

from typing import Final

from gateway_mqtt.codec.fields import encode_length, text, too_short
from gateway_mqtt.codec.names import MAX_LENGTH, MQTT_5, malformed
from gateway_mqtt.codec.properties import response_topic

_SIZES: Final = {0x01: 2, 0x02: 5, 0x23: 3}
"""Bytes of the properties of one size, with their identifier."""


class PublishProperties:
    """What the broker itself looks at; `kept` is fit to be sent on, and for `decode_properties`.

    Args:
        kept: raw properties less topic alias and message expiry, in order, without a length in front.
        topic_alias: 0 is none.
        message_expiry_s: None is none.
        payload_format: 1 promises that the payload is UTF-8.
        response_topic: None is none.
        too_many: there are more user properties than are taken: they were not read to their end.
    """

    __slots__ = ("kept", "message_expiry_s", "payload_format", "response_topic", "too_many", "topic_alias")

    def __init__(self, kept: bytes = b"") -> None:
        self.kept: bytes = kept
        self.topic_alias: int = 0
        self.message_expiry_s: int | None = None
        self.payload_format: int = 0
        self.response_topic: str | None = None
        self.too_many: bool = False


def publish_properties(  # noqa: C901, PLR0912, PLR0915 - a call less for each property
    data: bytes, most_user: int = MAX_LENGTH
) -> PublishProperties:
    """Read what a client has sent between the packet identifier and the payload of a PUBLISH.

    Args:
        data: the properties without the length in front of them.
        most_user: so many user properties are taken.

    Raises:
        MalformedPacket: as `decode_properties(PUBLISH, data, CLIENT)`.
    """
    found = PublishProperties(data)
    size = len(data)
    if size == 3 and data[0] == 0x23:  # a topic alias alone: clients that have them send them with every message
        _take_out(found, 0x23, data[1] << 8 | data[2])
        found.kept = b""
        return found
    parts: list[bytes] | None = None
    kept_from = at = seen = users = 0
    while at < size:
        number = data[at]
        start = at
        if number == 0x26:
            users += 1
            if users > most_user:
                found.too_many = True
                return found
            at = _user_end(data, start, size)
            continue
        if number in _SIZES:
            at += _SIZES[number]
            if at > size:
                raise too_short(MQTT_5)
        elif number in {0x03, 0x08, 0x09}:
            at = _string_end(data, at + 1, size)
        else:
            raise _not_here(number)
        if seen >> number & 1:
            raise malformed(f"PUBLISH with two of the property 0x{number:02x}", "5 §2.2.2.2", 0x82)
        seen |= 1 << number
        if number == 0x03:
            text(data[start + 3 : at], MQTT_5)  # [MQTT5-3.3.2-19]
        elif number == 0x08:
            found.response_topic = response_topic(data[start + 3 : at])
        elif number == 0x01:
            found.payload_format = data[start + 1]
            if found.payload_format > 1:
                raise malformed("the property payload_format is neither 0 nor 1", "5 §2.2.2.2", 0x82)
        elif number != 0x09:
            if parts is None:
                parts = []
            parts.append(data[kept_from:start])
            kept_from = at
            _take_out(found, number, int.from_bytes(data[start + 1 : at], "big"))
    if parts is not None:
        parts.append(data[kept_from:])
        found.kept = b"".join(parts)
    return found


def _take_out(found: PublishProperties, number: int, value: int) -> None:
    if number == 0x02:
        found.message_expiry_s = value
        return
    if not value:
        raise malformed("topic alias 0", "[MQTT5-3.3.2-8]", 0x94)
    found.topic_alias = value


def _string_end(data: bytes, at: int, size: int) -> int:
    end = at + 2
    if end <= size:
        end += data[at] << 8 | data[at + 1]
    if end > size:
        raise too_short(MQTT_5)
    return end


def _user_end(data: bytes, at: int, size: int) -> int:
    middle = _string_end(data, at + 1, size)
    end = _string_end(data, middle, size)
    text(data[at + 3 : middle], MQTT_5)  # [MQTT5-1.5.7-1]
    text(data[middle + 2 : end], MQTT_5)
    return end


def _not_here(number: int) -> Exception:
    if number == 0x0B:
        return malformed("PUBLISH of a client with a subscription identifier", "[MQTT5-3.3.4-6]", 0x82)
    return malformed(f"PUBLISH with a property 0x{number:02x}", "5 §2.2.2.2")


class _Identifiers:
    """Subscription identifiers as they are written; the last ones are remembered: all messages of a route have the same."""

    __slots__ = ("_encoded", "_ids")

    def __init__(self) -> None:
        self._ids: tuple[int, ...] = ()
        self._encoded: bytes = b""

    def of(self, ids: tuple[int, ...]) -> bytes:
        """Return them, each as a property."""
        if ids is not self._ids:
            self._encoded = b"".join([b"\x0b" + encode_length(identifier) for identifier in ids])
            self._ids = ids
        return self._encoded


_LAST: Final = _Identifiers()


def encode_publish_properties(
    kept: bytes, message_expiry_s: int | None = None, topic_alias: int | None = None, subscription_ids: tuple[int, ...] = ()
) -> bytes:
    """Return what stands between the packet identifier and the payload of a PUBLISH: all properties, their length in front.

    Args:
        kept: as `PublishProperties`.

    Raises:
        OverflowError: a number is out of range. ValueError: it is all too long.
    """
    if message_expiry_s is not None:
        kept += b"\x02" + message_expiry_s.to_bytes(4, "big")
    if topic_alias is not None:
        kept += b"\x23" + topic_alias.to_bytes(2, "big")
    if subscription_ids:
        kept += _LAST.of(subscription_ids)
    return encode_length(len(kept)) + kept
