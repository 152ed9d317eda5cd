"""How does `tidegate sub` print a message?"""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Callable
from typing import Any

from gateway_mqtt.codec.packets import Publish

Formatter = Callable[[Publish], bytes]

PAYLOAD = "%p"
VERBOSE = "%t %p"


def _now() -> datetime.datetime:
    return datetime.datetime.now(tz=datetime.UTC).astimezone()


def _text(value: object) -> bytes:
    return b"" if value is None else value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")


def _users(message: Publish) -> bytes:
    return b" ".join(_text(f"{name}:{value}") for name, value in message.properties.user)


def _as_json(message: Publish, payload: object) -> bytes:
    """Return a line of JSON with everything that a message has; the names are mosquitto_sub's."""
    properties = message.properties
    told: dict[str, Any] = {
        "tst": _now().isoformat(timespec="microseconds"),
        "topic": message.topic,
        "qos": message.qos,
        "retain": int(message.retain),
        "payloadlen": len(message.payload),
    }
    if message.qos:
        told["mid"] = message.packet_id
    named = {
        "payload-format-indicator": properties.payload_format,
        "message-expiry-interval": properties.message_expiry_s,
        "content-type": properties.content_type,
        "response-topic": properties.response_topic,
        "correlation-data": None if properties.correlation_data is None else base64.b64encode(properties.correlation_data).decode(),
        "subscription-identifier": list(properties.subscription_ids) or None,
        "user-properties": [{name: value} for name, value in properties.user] or None,
    }
    present = {name: value for name, value in named.items() if value is not None}
    if present:
        told["properties"] = present
    told["payload"] = payload
    return json.dumps(told, ensure_ascii=False).encode("utf-8", "surrogateescape")


def _json_payload(message: Publish) -> bytes:
    try:
        payload = json.loads(message.payload)
    except ValueError:
        payload = message.payload.decode("utf-8", "backslashreplace")
    return _as_json(message, payload)


_FIELDS: dict[str, Formatter] = {
    "t": lambda message: _text(message.topic),
    "p": lambda message: message.payload,
    "x": lambda message: message.payload.hex().encode(),
    "X": lambda message: message.payload.hex().upper().encode(),
    "l": lambda message: b"%d" % len(message.payload),
    "q": lambda message: b"%d" % message.qos,
    "r": lambda message: b"%d" % message.retain,
    "d": lambda message: b"%d" % message.dup,
    "m": lambda message: b"%d" % message.packet_id,
    "j": lambda message: _as_json(message, message.payload.decode("utf-8", "backslashreplace")),
    "J": _json_payload,
    "A": lambda message: _text(message.properties.topic_alias),
    "C": lambda message: _text(message.properties.content_type),
    "D": lambda message: _text(message.properties.correlation_data),
    "E": lambda message: _text(message.properties.message_expiry_s),
    "F": lambda message: _text(message.properties.payload_format),
    "P": _users,
    "R": lambda message: _text(message.properties.response_topic),
    "S": lambda message: b" ".join(b"%d" % number for number in message.properties.subscription_ids),
    "I": lambda _: _now().isoformat(timespec="seconds").encode(),
    "U": lambda _: b"%.6f" % _now().timestamp(),
    "%": lambda _: b"%",
}
_ESCAPES = {"n": b"\n", "t": b"\t", "r": b"\r", "0": b"\0", "e": b"\x1b", "a": b"\a", "\\": b"\\"}


def formatter(template: str) -> Formatter:
    r"""Return the function that prints messages as a template says: ``%t`` topic, ``%p`` payload and so on, ``\n`` and so on.

    Raises:
        ValueError: a field or an escape is unknown; names what is allowed.
    """
    parts: list[Formatter] = []
    characters = iter(template)
    for character in characters:
        if character == "%":
            parts.append(_field(next(characters, "")))
        elif character == "\\":
            parts.append(_constant(_escape(next(characters, ""))))
        else:
            parts.append(_constant(character.encode("utf-8", "surrogateescape")))
    return lambda message: b"".join([part(message) for part in parts])


def _field(name: str) -> Formatter:
    if name not in _FIELDS:
        raise ValueError(f"unknown field '%{name}'; known: {' '.join('%' + known for known in _FIELDS)}")
    return _FIELDS[name]


def _escape(name: str) -> bytes:
    if name not in _ESCAPES:
        raise ValueError(f"unknown escape '\\{name}'; known: {' '.join(chr(92) + known for known in _ESCAPES)}")
    return _ESCAPES[name]


def _constant(value: bytes) -> Formatter:
    return lambda _: value
