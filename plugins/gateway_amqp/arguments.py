"""Which arguments of a queue, an exchange or a consumer can't be, and in which words does RabbitMQ say so?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from gateway_amqp.codec.names import PRECONDITION_FAILED, SoftError

MOST_MS: Final = 315_360_000_000
"""Ten years."""
MOST_PRIORITY: Final = 255
_INT_BITS: Final = 31
_OVERFLOWS: Final = ("drop-head", "reject-publish", "reject-publish-dlx")
_TYPES: Final = ("classic", "quorum", "stream")
_TEXTS: Final = ("x-dead-letter-exchange", "alternate-exchange")

Why = Callable[[Any], str]


def type_name(value: object) -> str:
    """Return what RabbitMQ calls the type of a field."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "signedint" if -(1 << _INT_BITS) <= value < 1 << _INT_BITS else "long"
    names = {str: "longstr", bytes: "longstr", float: "double", dict: "table", list: "array"}
    return names.get(type(value), "void")


def not_an_integer(value: object) -> str:
    """Return why a value can't be where an integer is wanted; empty: it can."""
    if isinstance(value, int) and not isinstance(value, bool):
        return ""
    return f'"expected integer, got {type_name(value)}"'


def _amount(value: Any) -> str:
    return not_an_integer(value) or (f"{{value_negative,{value}}}" if value < 0 else "")


def _time(value: Any) -> str:
    return _amount(value) or (f"{{value_too_large,{value}}}" if value > MOST_MS else "")


def _expiry(value: Any) -> str:
    return _time(value) or ("" if value else "{value_zero,0}")


def _priority(value: Any) -> str:
    return _amount(value) or (f"{{max_value_exceeded,{value}}}" if value > MOST_PRIORITY else "")


def _text(value: Any) -> str:
    return "" if isinstance(value, str) else f"{{unacceptable_type,{type_name(value)}}}"


def _overflow(value: Any) -> str:
    return _text(value) or ("" if value in _OVERFLOWS else "invalid_overflow")


def _queue_type(value: Any) -> str:
    return _text(value) or ("" if value in _TYPES else f"\"unsupported queue type '{value}'\"")


def _flag(value: Any) -> str:
    return "" if isinstance(value, bool) else f"{{unacceptable_type,{type_name(value)}}}"


_QUEUE: Final[dict[str, Why]] = {
    "x-expires": _expiry,
    "x-message-ttl": _time,
    "x-dead-letter-routing-key": _text,
    "x-max-length": _amount,
    "x-max-length-bytes": _amount,
    "x-max-priority": _priority,
    "x-overflow": _overflow,
    "x-single-active-consumer": _flag,
    "x-queue-type": _queue_type,
}


def check_queue(arguments: Mapping[str, Any], name: str, vhost: str) -> None:
    """Refuse what a queue can't be declared with.

    Raises:
        SoftError: 406.
    """
    what = f"queue '{name}' in vhost '{vhost}'"
    _check_name(arguments, what)
    for argument, why in _QUEUE.items():
        if argument in arguments:
            _refuse(argument, what, why(arguments[argument]))
    if "x-dead-letter-routing-key" in arguments and "x-dead-letter-exchange" not in arguments:
        _refuse("x-dead-letter-routing-key", what, "routing_key_but_no_dlx_defined")


def check_exchange(arguments: Mapping[str, Any], name: str, vhost: str) -> None:
    """Refuse what an exchange can't be declared with. Raises as `check_queue`."""
    _check_name(arguments, f"exchange '{name}' in vhost '{vhost}'")


def consumer_priority(arguments: Mapping[str, Any], queue: str, vhost: str) -> int:
    """Return what a consumer says of its priority. Raises as `check_queue`."""
    value: Any = arguments.get("x-priority", 0)
    _refuse("x-priority", f"queue '{queue}' in vhost '{vhost}'", not_an_integer(value))
    return int(value)


def _refuse(argument: str, what: str, why: str) -> None:
    if why:
        raise SoftError(PRECONDITION_FAILED, f"invalid arg '{argument}' for {what}: {why}")


def _check_name(arguments: Mapping[str, Any], what: str) -> None:
    """Refuse the name of another exchange that is none."""
    for argument in _TEXTS:
        value = arguments.get(argument, "")
        if not isinstance(value, str):
            raise SoftError(PRECONDITION_FAILED, f"invalid type '{type_name(value)}' for arg '{argument}' in {what}")
