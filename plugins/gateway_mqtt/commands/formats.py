"""How does `tidegate sub` print a message?"""

from __future__ import annotations

import base64
import datetime
import json
import re
import time
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
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogateescape")


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


_TOKEN = re.compile(r"%(-?)(0?)(\d*)(?:\.(\d+))?(.?)|@(.?)|\\(.?)|[^%@\\]+", re.DOTALL)
_TIMES = frozenset("aAbBcCdDeFgGhHIjklmMnprRsStTuUVwWxXyYzZ%")


def formatter(template: str) -> Formatter:
    r"""Return the function that prints messages as a template says.

    ``%t`` is the topic, ``%p`` the payload and so on; ``%-10t`` is set to a width, ``%08x`` filled with zeros, ``%.5p`` cut.
    ``@Y`` and so on are parts of the time as strftime has them, ``@N`` is nanoseconds; ``\n`` and so on are what they always are.

    Raises:
        ValueError: a field, a part of the time or an escape is unknown; names what is allowed.
    """
    parts = [_part(token) for token in _TOKEN.finditer(template)]
    return lambda message: b"".join([part(message) for part in parts])


def _part(token: re.Match[str]) -> Formatter:
    left, zero, width, most, name, moment, escape = token.groups()
    if name is not None:
        return _set(
            _field(name), int(width or 0), None if most is None else int(most), left=bool(left), fill=b"0" if zero else b" "
        )
    if moment is not None:
        return _time(moment)
    return _constant(token[0].encode("utf-8", "surrogateescape") if escape is None else _escape(escape))


def _set(field: Formatter, width: int, most: int | None, *, left: bool, fill: bytes) -> Formatter:
    """Return a field that is cut to ``most`` bytes and filled up to ``width``."""
    if not width and most is None:
        return field
    if left:
        return lambda message: field(message)[:most].ljust(width)
    return lambda message: field(message)[:most].rjust(width, fill)


def _time(name: str) -> Formatter:
    if name == "@":
        return _constant(b"@")
    if name == "N":
        return lambda _: b"%09d" % (time.time_ns() % 1_000_000_000)
    if name not in _TIMES:
        raise ValueError(f"unknown part of the time '@{name}'; known: @@ @N {' '.join('@' + known for known in sorted(_TIMES))}")
    return lambda _: _text(time.strftime("%" + name))


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
