"""Which settings hold for a queue, of its own and of the policies that match it?"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from gateway.model.declare import NEVER, Overflow, QueueSpec, Retry

Settings = Mapping[str, Any]
"""Attribute of `QueueSpec` -> value, read and checked."""

LIMITS: Mapping[str, int] = {
    "max_length": 0,
    "max_length_bytes": 0,
    "message_ttl_ms": NEVER,
    "expires_ms": 0,
    "delivery_limit": NEVER,
    "consumer_timeout_ms": 0,
}
"""Settings of which the lowest holds, each with the value that means "no limit"."""

CHOICES: Mapping[str, Any] = {
    "overflow": Overflow.DROP_HEAD,
    "dead_letter_exchange": None,
    "dead_letter_routing_key": None,
    "retry": None,
}
"""Settings of which the queue's own goes first, each with its default."""

NOTHING: Settings = {}


class Terms:
    """The effective settings of a queue; what each means is said at `QueueSpec`. Shared and never changed."""

    __slots__ = (
        "consumer_timeout_ms",
        "dead_letter_exchange",
        "dead_letter_routing_key",
        "delivery_limit",
        "expires_ms",
        "max_length",
        "max_length_bytes",
        "message_ttl_ms",
        "overflow",
        "retry",
    )

    def __init__(self, values: Settings = NOTHING) -> None:
        def chosen(name: str) -> Any:
            return values.get(name, CHOICES[name] if name in CHOICES else LIMITS[name])

        self.max_length: int = chosen("max_length")
        self.max_length_bytes: int = chosen("max_length_bytes")
        self.message_ttl_ms: int = chosen("message_ttl_ms")
        self.expires_ms: int = chosen("expires_ms")
        self.delivery_limit: int = chosen("delivery_limit")
        self.consumer_timeout_ms: int = chosen("consumer_timeout_ms")
        self.overflow: Overflow = chosen("overflow")
        self.dead_letter_exchange: str | None = chosen("dead_letter_exchange")
        self.dead_letter_routing_key: str | None = chosen("dead_letter_routing_key")
        self.retry: Retry | None = chosen("retry")

    @staticmethod
    def of(spec: QueueSpec, policy: Settings | None = None, operator: Settings | None = None) -> Terms:
        """Return what holds for a queue. PLAIN, the one object, if nothing of it is out of the ordinary.

        Args:
            spec: as declared: beats the policy, but for limits, of which the lowest holds.
            policy: of the first policy that matches.
            operator: of the first operator policy: only its limits count.
        """
        if policy is None and operator is None and _said_by(spec) == _ORDINARY:
            return PLAIN
        values: dict[str, Any] = {}
        for name, unlimited in LIMITS.items():
            given = [getattr(spec, name), *(source[name] for source in (policy, operator) if source and name in source)]
            lowest = min((value for value in given if value != unlimited), default=unlimited)
            if lowest != unlimited:
                values[name] = lowest
        for name, default in CHOICES.items():
            own = getattr(spec, name)
            value = own if own != default else (policy or NOTHING).get(name, default)
            if value != default:
                values[name] = value
        return Terms(values) if values else PLAIN

    @property
    def limited(self) -> bool:
        """There may be only so many messages or bytes."""
        return bool(self.max_length or self.max_length_bytes)


PLAIN = Terms()
_said_by = attrgetter(*LIMITS, *CHOICES)
_ORDINARY = (*LIMITS.values(), *CHOICES.values())
