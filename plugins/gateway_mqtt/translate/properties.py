"""What are the properties of an MQTT 5 message in the common model, and back?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from gateway.api import NO_PROPERTIES, Message, Properties
from gateway_mqtt.codec import properties as mqtt
from gateway_mqtt.codec.fields import is_utf8
from gateway_mqtt.codec.names import MAX_STRING_BYTES, PUBLISH
from gateway_mqtt.translate.topics import reply_to_of, response_topic_of

WIRE_TAG: Final = "mqtt"
"""Who wrote `Message.wire`: a byte of flags (`QOS`, `RETAIN`), then MQTT 5 publish properties as they came, in their order.

Topic alias, message expiry and subscription identifiers are not among them. It is empty (and the tag is) where it would say
nothing but QoS 0 or 1.
"""
QOS: Final = 3
RETAIN: Final = 4
LAST_VALUE: Final = 8
"""Of a copy in a session's queue: it was not live, and is sent with the RETAIN flag."""
UTF_8: Final = "utf-8"
"""Content encoding that stands for payload format 1."""


# -- beside the message -----------------------------------------------------


def wire_of(flags: int, kept: bytes) -> bytes:
    """Return `Message.wire` for flags (`QOS`, `RETAIN`) and properties; empty if it would say nothing."""
    return bytes((flags,)) + kept if kept or flags > 1 else b""


def published_qos(message: Message) -> int:
    """Return the QoS that a message was published with; what is persistent and comes from elsewhere has 1."""
    if message.wire_tag == WIRE_TAG and message.wire:
        return message.wire[0] & QOS
    return int(message.persistent)


# -- in the common model ----------------------------------------------------


def read_wire(wire: bytes) -> Properties:
    """Return in the common form what an MQTT client has said (a `gateway.api.WireDecoder`)."""
    if len(wire) < 2:  # noqa: PLR2004 - flags alone
        return NO_PROPERTIES
    return to_common(mqtt.decode_properties(PUBLISH, wire[1:]))


def to_common(said: mqtt.Properties) -> Properties:
    """Return publish or will properties in the common form."""
    return Properties(
        content_type=said.content_type,
        content_encoding=UTF_8 if said.payload_format == 1 else None,
        headers=_headers(said.user) or None,
        correlation_id=_correlation_id(said.correlation_data),
        reply_to=None if said.response_topic is None else reply_to_of(said.response_topic),
    )


def _correlation_id(data: bytes | None) -> str | bytes | None:
    """Return text where it is text: whoever asked by another protocol mostly said text, and looks for that in the answer."""
    return data.decode() if data is not None and is_utf8(data) else data


def _headers(user: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """Return user properties by name, in the order of their first; a name that comes more than once has a list."""
    headers: dict[str, Any] = {}
    for name, value in user:
        if name not in headers:
            headers[name] = value
        elif isinstance(headers[name], list):
            headers[name].append(value)
        else:
            headers[name] = [headers[name], value]
    return headers


# -- from the common model --------------------------------------------------


def from_common(properties: Properties, body: bytes) -> bytes:
    """Return common properties as MQTT 5 publish properties, without their length. What MQTT can't carry is left out.

    Cost: that of looking at the body, if it is said to be UTF-8.
    """
    if properties == NO_PROPERTIES:
        return b""
    encoding = properties.content_encoding
    is_text = encoding is not None and encoding.lower() == UTF_8 and is_utf8(body)
    response_topic = None if properties.reply_to is None else response_topic_of(properties.reply_to)
    others = {
        "reply-to": None if response_topic is not None else properties.reply_to,
        "content-encoding": None if is_text else encoding,
        "message-id": properties.message_id,
        "timestamp": properties.timestamp_s,
        "type": properties.type,
        "user-id": properties.user_id,
        "app-id": properties.app_id,
        "priority": properties.priority,
    }
    said = mqtt.Properties(
        payload_format=1 if is_text else None,
        content_type=_text_or_none(properties.content_type),
        response_topic=response_topic,
        correlation_data=_correlation(properties.correlation_id),
        user=tuple(_pairs(properties.headers or {})) + tuple(_pairs(others)),
    )
    encoded = mqtt.encode_properties(said)
    at = 1
    while encoded[at - 1] > 127:  # noqa: PLR2004 - the length in front
        at += 1
    return encoded[at:]


def _correlation(value: object) -> bytes | None:
    data = value.encode("utf-8", "replace") if isinstance(value, str) else value
    return data if isinstance(data, bytes) and len(data) <= MAX_STRING_BYTES else None


def _pairs(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield user properties for headers: one for each value of a list; not those whose name or value is too long."""
    for name, value in values.items():
        if value is None:
            continue
        key = _text_or_none(str(name))
        for one in value if isinstance(value, list | tuple) else (value,):
            text = _text_or_none(_as_text(one))
            if key is not None and text is not None:
                yield key, text


def _as_text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", "replace")
    if value is None or isinstance(value, bool | dict | list):
        return json.dumps(_plain(value), default=_as_text, ensure_ascii=False)
    return str(value)


def _plain(value: object) -> object:
    """Return a value whose maps have text as keys, as JSON wants it; msgpack has all kinds."""
    if isinstance(value, dict):
        return {_as_text(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _text_or_none(text: str | None) -> str | None:
    """Return what a string field of MQTT can hold: no U+0000 [MQTT5-1.5.4-2], no lone surrogates; None: it is too long."""
    if text is None:
        return None
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    data = text.encode("utf-8", "replace")
    return data.decode() if len(data) <= MAX_STRING_BYTES else None
