"""What do AMQP-style arguments (``x-message-ttl`` ...) and the keys of policies say of a queue?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

from gateway.errors import NotSupported, PreconditionFailed
from gateway.model.declare import Overflow, QueueSpec, Retry

Read: TypeAlias = Callable[[str, object], Any]
"""``(name of the argument, value) -> value of the attribute``; raises PreconditionFailed."""

Unknown: TypeAlias = Literal["refuse", "keep"]
"""What becomes of ``x-`` arguments that nobody knows."""

MAX_MS = 315_360_000_000
"""Ten years."""


def _integer(least: int, most: int) -> Read:
    def read(name: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise PreconditionFailed(f"invalid arg '{name}': an integer from {least} to {most} is allowed, not {value!r}")
        return value

    return read


def _number(least: float, most: float) -> Read:
    def read(name: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise PreconditionFailed(f"invalid arg '{name}': a number from {least:g} to {most:g} is allowed, not {value!r}")
        return float(value)

    return read


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise PreconditionFailed(f"invalid arg '{name}': text is allowed, not {value!r}")
    return value


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise PreconditionFailed(f"invalid arg '{name}': true or false is allowed, not {value!r}")
    return value


def _one_of(*allowed: str) -> Read:
    def read(name: str, value: object) -> str:
        if value not in allowed:
            raise PreconditionFailed(f"invalid arg '{name}': one of {', '.join(allowed)} is allowed, not {value!r}")
        return str(value)

    return read


def _overflow(name: str, value: object) -> Overflow:
    return Overflow(_one_of(*(overflow.value for overflow in Overflow))(name, value))


def _queue_type(name: str, value: object) -> None:
    if value == "stream":
        raise NotSupported("queue type 'stream' is not supported; supported: classic, quorum (both are the same here)")
    _one_of("classic", "quorum")(name, value)


QUEUE_ARGUMENTS: Mapping[str, tuple[str, Read]] = {
    "x-message-ttl": ("message_ttl_ms", _integer(0, MAX_MS)),
    "x-expires": ("expires_ms", _integer(1, MAX_MS)),
    "x-max-length": ("max_length", _integer(0, 2**62)),
    "x-max-length-bytes": ("max_length_bytes", _integer(0, 2**62)),
    "x-overflow": ("overflow", _overflow),
    "x-max-priority": ("max_priority", _integer(0, 255)),
    "x-priority-burst": ("priority_burst", _integer(1, 2**31)),
    "x-dead-letter-exchange": ("dead_letter_exchange", _text),
    "x-dead-letter-routing-key": ("dead_letter_routing_key", _text),
    "x-delivery-limit": ("delivery_limit", _integer(-1, 2**31)),
    "x-single-active-consumer": ("single_active_consumer", _flag),
    "x-consumer-timeout": ("consumer_timeout_ms", _integer(0, MAX_MS)),
}
"""Argument -> attribute of `QueueSpec`, and how it is read. A policy has the same keys without ``x-`` (see `POLICY_KEYS`)."""

RETRY_ARGUMENTS: Mapping[str, tuple[str, Read]] = {
    "x-retry-delay": ("first_ms", _integer(1, MAX_MS)),
    "x-retry-factor": ("factor", _number(1, 1000)),
    "x-retry-max-delay": ("most_ms", _integer(1, MAX_MS)),
    "x-retry-attempts": ("attempts", _integer(0, 2**31)),
}
"""Argument -> attribute of `Retry`; ``x-retry-delay`` switches it on."""

WITHOUT_MEANING = frozenset((
    "x-queue-mode", "x-queue-version", "x-queue-leader-locator", "x-queue-master-locator", "x-quorum-initial-group-size",
    "x-quorum-target-group-size", "x-max-in-memory-length", "x-max-in-memory-bytes", "x-dead-letter-strategy", "x-ha-policy",
    "x-ha-policy-params", "x-ha-nodes", "x-initial-cluster-size",
))  # fmt: skip
"""What RabbitMQ knows, or knew, and what is so anyway, or can't matter, on one node: bodies of a long queue are on disk, dead
letters are in the same commit. Kept and shown."""

COMPARED = frozenset((*QUEUE_ARGUMENTS, *RETRY_ARGUMENTS))
"""What a second declaration has to say as the first did: all that makes a difference here."""

FIXED = frozenset(("max_priority", "priority_burst", "single_active_consumer"))
"""Attributes that a policy can't change: they are what a queue is made of."""

POLICY_KEYS: Mapping[str, tuple[str, Read]] = {
    argument.removeprefix("x-"): value for argument, value in QUEUE_ARGUMENTS.items() if value[0] not in FIXED
}
"""Key of a policy -> attribute of `QueueSpec`, and how it is read. The keys of `RETRY_ARGUMENTS` without ``x-`` come on top."""


def queue_spec(
    name: str,
    *,
    durable: bool = True,
    exclusive: bool = False,
    auto_delete: bool = False,
    arguments: Mapping[str, Any] | None = None,
    unknown: Unknown = "refuse",
) -> QueueSpec:
    """Make a queue specification from AMQP-style arguments (``x-max-length`` ...).

    Args:
        unknown: what becomes of ``x-`` arguments that nobody knows. ``keep``: they are kept and shown, and have no meaning; who
            calls so says which they are (`unknown_queue_arguments`), so that they are not ignored in silence.

    Raises:
        NotSupported: an ``x-`` argument that this engine can't honour.
        PreconditionFailed: a value that the argument can't have.
    """
    given = dict(arguments or {})
    values: dict[str, Any] = {}
    for argument, value in given.items():
        if argument == "x-queue-type":
            _queue_type(argument, value)
        elif argument in QUEUE_ARGUMENTS:
            attribute, read = QUEUE_ARGUMENTS[argument]
            values[attribute] = read(argument, value)
    for argument in unknown_queue_arguments(given) if unknown == "refuse" else ():
        known = ", ".join(sorted({*QUEUE_ARGUMENTS, *RETRY_ARGUMENTS, "x-queue-type"}))
        raise NotSupported(f"queue argument {argument!r} is not supported; supported: {known}")
    retry = read_retry(given)
    if retry is not None:
        values["retry"] = retry
    if "dead_letter_routing_key" in values and "dead_letter_exchange" not in values:
        raise PreconditionFailed("invalid arg 'x-dead-letter-routing-key': it has no meaning without 'x-dead-letter-exchange'")
    return QueueSpec(name, durable, exclusive, auto_delete, arguments=given, **values)


def unknown_queue_arguments(arguments: Mapping[str, Any]) -> list[str]:
    """Return the ``x-`` arguments of a queue that nobody knows."""
    known = (QUEUE_ARGUMENTS, RETRY_ARGUMENTS, WITHOUT_MEANING, ("x-queue-type",))
    return [name for name in arguments if name.startswith("x-") and not any(name in names for names in known)]


def read_retry(given: Mapping[str, Any], prefix: str = "x-") -> Retry | None:
    """Read what `RETRY_ARGUMENTS` (with another `prefix`: those of a policy) say; None: nothing. Raises PreconditionFailed."""
    values: dict[str, Any] = {}
    for argument, (attribute, read) in RETRY_ARGUMENTS.items():
        name = prefix + argument.removeprefix("x-")
        if name in given:
            values[attribute] = read(name, given[name])
    if values and "first_ms" not in values:
        raise PreconditionFailed(f"invalid arg '{prefix}retry-delay': the other arguments of a retry need it")
    return Retry(**values) if values else None
