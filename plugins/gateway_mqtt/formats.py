"""How does `tidegate sub` print a message?"""

from __future__ import annotations

from collections.abc import Callable

from gateway_mqtt.codec.packets import Publish

_FIELDS: dict[str, Callable[[Publish], bytes]] = {
    "t": lambda message: message.topic.encode(),
    "p": lambda message: message.payload,
    "x": lambda message: message.payload.hex().encode(),
    "X": lambda message: message.payload.hex().upper().encode(),
    "l": lambda message: b"%d" % len(message.payload),
    "q": lambda message: b"%d" % message.qos,
    "r": lambda message: b"%d" % message.retain,
    "d": lambda message: b"%d" % message.dup,
    "m": lambda message: b"%d" % message.packet_id,
    "%": lambda _: b"%",
}
_ESCAPES = {"n": b"\n", "t": b"\t", "r": b"\r", "0": b"\0", "e": b"\x1b", "a": b"\a", "\\": b"\\"}

Formatter = Callable[[Publish], bytes]

PAYLOAD = "%p"
VERBOSE = "%t %p"


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
