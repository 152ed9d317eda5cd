"""Is a second declaration the same as the first, and if not, what differs?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gateway.errors import PreconditionFailed
from gateway.model.declare import arguments_text


def check_same(what: str, argument: str, current: object, received: object) -> None:
    """Refuse a value that differs (AMQP 0-9-1 §1.7.2.1, rule equivalent).

    Args:
        what: ``queue 'q' in vhost '/'``.

    Raises:
        PreconditionFailed: says both values.
    """
    if current != received:
        raise PreconditionFailed(
            f"inequivalent arg '{argument}' for {what}: received {_shown(received)} but current is {_shown(current)}"
        )


def check_same_arguments(what: str, current: Mapping[str, Any], received: Mapping[str, Any]) -> None:
    """Refuse arguments that differ, and name the first of them. Raises as `check_same`."""
    if arguments_text(current) == arguments_text(received):
        return
    for argument in sorted({*current, *received}):
        here, there = _one(current, argument), _one(received, argument)
        if arguments_text(here) != arguments_text(there):
            check_same(what, argument, _text(here), _text(there))
            check_same(what, argument, arguments_text(here), arguments_text(there))  # text and number look the same


def _one(arguments: Mapping[str, Any], argument: str) -> Mapping[str, Any]:
    return {argument: arguments[argument]} if argument in arguments else {}


def _text(argument: Mapping[str, Any]) -> str | None:
    for value in argument.values():
        return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
    return None


def _shown(value: object) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return f"'{str(value).lower()}'"
        case _:
            return f"'{value}'"
