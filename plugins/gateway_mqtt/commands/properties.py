"""Which MQTT 5 properties does ``-D`` set, on which packet?"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import typer
from typer.core import TyperCommand

from gateway_mqtt.codec.properties import NO_PROPERTIES, Properties

SEPARATOR = "\0"
"""Between the words of one ``-D``; no word of a command line has it."""
USER = "user-property"


def _whole(most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or int(text) > most:
            raise ValueError(f"must be a whole number of at most {most}")
        return int(text)

    return read


def _bit(text: str) -> bool:
    return bool(_whole(1)(text))


_WORD, _LONG = 65_535, 4_294_967_295
_READ: dict[str, tuple[str, Callable[[str], Any]]] = {
    "content-type": ("content_type", str),
    "correlation-data": ("correlation_data", os.fsencode),
    "maximum-packet-size": ("maximum_packet_size", _whole(_LONG)),
    "message-expiry-interval": ("message_expiry_s", _whole(_LONG)),
    "payload-format-indicator": ("payload_format", _whole(1)),
    "receive-maximum": ("receive_maximum", _whole(_WORD)),
    "request-problem-information": ("request_problem_information", _bit),
    "request-response-information": ("request_response_information", _bit),
    "response-topic": ("response_topic", str),
    "session-expiry-interval": ("session_expiry_s", _whole(_LONG)),
    "subscription-identifier": ("subscription_ids", lambda text: (_whole(268_435_455)(text),)),
    "topic-alias-maximum": ("topic_alias_maximum", _whole(_WORD)),
    "will-delay-interval": ("will_delay_s", _whole(_LONG)),
}
_MESSAGE = ("content-type", "correlation-data", "message-expiry-interval", "payload-format-indicator", "response-topic", USER)
ALLOWED: dict[str, tuple[str, ...]] = {
    "connect": (
        "maximum-packet-size", "receive-maximum", "request-problem-information", "request-response-information",
        "session-expiry-interval", "topic-alias-maximum", USER,
    ),
    "publish": _MESSAGE,
    "will": (*_MESSAGE, "will-delay-interval"),
    "subscribe": ("subscription-identifier", USER),
}  # fmt: skip
"""Which property can be set on which packet."""


class PropertyCommand(TyperCommand):
    """A command whose ``-D`` takes as many words as its property needs: three, or four for a user property."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Join the words of each ``-D`` to one."""
        joined: list[str] = []
        rest = list(args)
        while rest:
            word = rest.pop(0)
            joined.append(word)
            if word == "--":
                joined += rest
                break
            if word in {"-D", "--property"}:
                count = 4 if rest[1:2] == [USER] else 3
                joined.append(SEPARATOR.join(rest[:count]))
                del rest[:count]
        return super().parse_args(ctx, joined)


def properties_of(given: Sequence[str], packet: str, start: Properties = NO_PROPERTIES) -> Properties:
    """Return what ``-D`` says for one kind of packet, on top of `start`.

    Raises:
        typer.BadParameter: a packet, a property or a value that can't be; says what can.
    """
    properties = start
    for text in given:
        command, name, *values = [*text.split(SEPARATOR), "", ""][: max(text.count(SEPARATOR) + 1, 2)]
        if name not in _allowed(command):
            raise typer.BadParameter(f"-D {command} {name!r}: known are {', '.join(_allowed(command))}")
        if command == packet:
            properties = _with(properties, name, values)
    return properties


def _allowed(command: str) -> tuple[str, ...]:
    if command not in ALLOWED:
        raise typer.BadParameter(f"-D {command!r}: known are {', '.join(ALLOWED)}")
    return ALLOWED[command]


def _with(properties: Properties, name: str, values: list[str]) -> Properties:
    if len(values) != (2 if name == USER else 1):
        raise typer.BadParameter(f"-D ... {name} needs {'a name and a value' if name == USER else 'a value'}")
    if name == USER:
        return replace(properties, user=(*properties.user, (values[0], values[1])))
    field, read = _READ[name]
    try:
        return replace(properties, **{field: read(values[0])})
    except ValueError as error:
        raise typer.BadParameter(f"-D ... {name} {values[0]!r}: {error}") from None
