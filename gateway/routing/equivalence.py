"""Is a second declaration the same as the first, and if not, what differs?"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
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
        _differs(what, argument, _shown(current), _shown(received))


def _differs(what: str, argument: str, current: str, received: str) -> None:
    raise PreconditionFailed(f"inequivalent arg '{argument}' for {what}: received {received} but current is {current}")


def check_same_arguments(what: str, current: Mapping[str, Any], received: Mapping[str, Any], compared: Container[str]) -> None:
    """Refuse arguments that differ, of those that are to be compared, and name the first. Raises as `check_same`."""
    if arguments_text(current) == arguments_text(received):
        return
    for argument in sorted({*current, *received}):
        if argument not in compared:
            continue
        here, there = _one(current, argument), _one(received, argument)
        if arguments_text(here) != arguments_text(there):
            _differs(what, argument, *_both(here.get(argument), there.get(argument), here=bool(here), there=bool(there)))


def _one(arguments: Mapping[str, Any], argument: str) -> Mapping[str, Any]:
    return {argument: arguments[argument]} if argument in arguments else {}


def _both(current: object, received: object, *, here: bool, there: bool) -> tuple[str, str]:
    """Say both values, in the words of RabbitMQ."""
    if not here:
        return "none", _typed(received)
    if not there:
        return _typed(current), "none"
    if _text(current) == _text(received):  # text and number look the same
        return f"'{json.dumps(current, default=str)}'", f"'{json.dumps(received, default=str)}'"
    return f"'{_text(current)}'", f"'{_text(received)}'"


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def _typed(value: object) -> str:
    return f"the value '{_text(value)}' of type '{_type_name(value)}'"


def _type_name(value: object) -> str:
    """Return what AMQP calls the type of a field."""
    if isinstance(value, int) and not isinstance(value, bool):
        return "signedint" if -(2**31) <= value < 2**31 else "long"
    return _TYPE_NAMES.get(type(value), "longstr")


_TYPE_NAMES: Mapping[type, str] = {bool: "bool", float: "double", bytes: "binary", list: "array", dict: "table", type(None): "void"}


def _shown(value: object) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return f"'{str(value).lower()}'"
        case _:
            return f"'{value}'"
