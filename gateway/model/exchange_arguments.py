"""What do AMQP-style arguments (``alternate-exchange`` ...) say of an exchange?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.errors import NotSupported, PreconditionFailed
from gateway.model.arguments import MAX_MS, Unknown
from gateway.model.declare import ExchangeSpec

DELAYED = "x-delayed-message"
"""Exchange type: routes as its ``x-delayed-type`` says, after the delay of each message (its header ``x-delay``, ms)."""

CONSISTENT_HASH = "x-consistent-hash"

ALTERNATE = "alternate-exchange"
DELAYED_TYPE = "x-delayed-type"
WINDOW = "x-deduplication-window-ms"
SIZE = "x-deduplication-size"
HASH_HEADER = "hash-header"
HASH_PROPERTY = "hash-property"

HASH_PROPERTIES = ("correlation_id", "message_id", "timestamp")
DEFAULT_SIZE = 100_000
MAX_SIZE = 10_000_000

KNOWN = (ALTERNATE, DELAYED_TYPE, WINDOW, SIZE, HASH_HEADER, HASH_PROPERTY)


@dataclass(frozen=True, slots=True)
class Deduplication:
    """A repeated message id is dropped.

    Args:
        window_ms: for so long an id is remembered, from the first message on.
        size: so many ids are remembered at most; beyond that the oldest is forgotten.
    """

    window_ms: int
    size: int = DEFAULT_SIZE


def exchange_spec(  # noqa: PLR0913 - a value
    name: str,
    type: str = "direct",  # noqa: A002 - its name everywhere
    *,
    durable: bool = True,
    auto_delete: bool = False,
    internal: bool = False,
    arguments: Mapping[str, Any] | None = None,
    unknown: Unknown = "refuse",
) -> ExchangeSpec:
    """Make the specification of an exchange from AMQP-style arguments.

    ``alternate-exchange`` becomes `ExchangeSpec.alternate`; all others stay in `ExchangeSpec.arguments`. `exchange_arguments`
    is the way back. Whether there is such a type is not asked here.

    Args:
        unknown: what becomes of ``x-`` arguments that nobody knows. ``keep``: they are kept and shown, and have no meaning; who
            calls so says which they are (`unknown_exchange_arguments`), so that they are not ignored in silence.

    Raises:
        NotSupported: an ``x-`` argument that this engine can't honour.
        PreconditionFailed: a value that the argument can't have, or an argument without what it needs.
    """
    given = dict(arguments or {})
    alternate = _text(ALTERNATE, given.pop(ALTERNATE)) if ALTERNATE in given else None
    spec = ExchangeSpec(name, type, durable, auto_delete, internal, alternate, given)
    check_exchange(spec, unknown=unknown)
    return spec


def exchange_arguments(spec: ExchangeSpec) -> dict[str, Any]:
    """Return the AMQP-style arguments that `exchange_spec` makes this specification from."""
    given = dict(spec.arguments)
    if spec.alternate is not None:
        given[ALTERNATE] = spec.alternate
    return given


def unknown_exchange_arguments(arguments: Mapping[str, Any]) -> list[str]:
    """Return the ``x-`` arguments of an exchange that nobody knows."""
    return [name for name in arguments if name.startswith("x-") and name not in KNOWN]


def check_exchange(spec: ExchangeSpec, *, unknown: Unknown = "refuse") -> None:
    """Check the arguments of a specification, wherever it is from. Args and raises as of `exchange_spec`."""
    for argument in unknown_exchange_arguments(spec.arguments) if unknown == "refuse" else ():
        raise NotSupported(f"exchange argument {argument!r} is not supported; supported: {', '.join(sorted(KNOWN))}")
    if spec.type != DELAYED and DELAYED_TYPE in spec.arguments:
        raise PreconditionFailed(f"invalid arg '{DELAYED_TYPE}': it has no meaning unless the exchange's type is '{DELAYED}'")
    if routing_type(spec) == CONSISTENT_HASH:
        _check_hash(spec.arguments)
    deduplication(spec)


def routing_type(spec: ExchangeSpec) -> str:
    """Return the type by which an exchange routes: its own, or what stands behind the delays.

    Raises:
        PreconditionFailed: a delayed exchange without a type to route by, or with one that is no type's name.
    """
    if spec.type != DELAYED:
        return spec.type
    if DELAYED_TYPE not in spec.arguments:
        raise PreconditionFailed(
            f"an exchange of type '{DELAYED}' needs the argument '{DELAYED_TYPE}': the type by which it routes"
        )
    kind = _text(DELAYED_TYPE, spec.arguments[DELAYED_TYPE])
    if not kind or kind == DELAYED:
        raise PreconditionFailed(f"invalid arg '{DELAYED_TYPE}': the type by which the exchange routes is allowed, not {kind!r}")
    return kind


def deduplication(spec: ExchangeSpec) -> Deduplication | None:
    """Return what an exchange does with repeated ids; None: it does not look at them. Raises PreconditionFailed."""
    given = spec.arguments
    if WINDOW not in given:
        if SIZE in given:
            raise PreconditionFailed(f"invalid arg '{SIZE}': it has no meaning without '{WINDOW}'")
        return None
    window_ms = _integer(WINDOW, given[WINDOW], MAX_MS)
    return Deduplication(window_ms, _integer(SIZE, given.get(SIZE, DEFAULT_SIZE), MAX_SIZE))


def _check_hash(given: Mapping[str, Any]) -> None:
    if HASH_HEADER in given and HASH_PROPERTY in given:
        raise PreconditionFailed(f"invalid arg '{HASH_PROPERTY}': not together with '{HASH_HEADER}'")
    if HASH_HEADER in given and not _text(HASH_HEADER, given[HASH_HEADER]):
        raise PreconditionFailed(f"invalid arg '{HASH_HEADER}': the name of a header is allowed, not ''")
    if HASH_PROPERTY in given and given[HASH_PROPERTY] not in HASH_PROPERTIES:
        raise PreconditionFailed(
            f"invalid arg '{HASH_PROPERTY}': one of {', '.join(HASH_PROPERTIES)} is allowed, not {given[HASH_PROPERTY]!r}"
        )


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise PreconditionFailed(f"invalid arg '{name}': text is allowed, not {value!r}")
    return value


def _integer(name: str, value: object, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise PreconditionFailed(f"invalid arg '{name}': an integer from 1 to {most} is allowed, not {value!r}")
    return value
