"""Which one of the bindings gets this message, so that equal values always go the same way?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import blake2b
from math import log

from gateway.errors import PreconditionFailed
from gateway.model.declare import ExchangeSpec
from gateway.model.exchange_arguments import HASH_HEADER, HASH_PROPERTY, check_exchange
from gateway.model.properties import Properties
from gateway.routing.exchange import Found, HeaderSource, Link, add, headers_of

_ATTRIBUTES = {"timestamp": "timestamp_s"}
"""Where a property that ``hash-property`` may name has another name in `Properties`."""

SLOTS = 65_536
"""Values are hashed to slots; each slot belongs to one binding, found when it is first used."""

_WEIGHT = re.compile(r"[+-]?[0-9]{1,12}")
_WORD = 2**64 - 1


class ConsistentHash:
    """The exchange type ``x-consistent-hash``, as RabbitMQ's: exactly one binding gets a message.

    The binding key is the weight, an integer from 1 on: the share of the messages. What is hashed is the routing key, or with
    the exchange's argument ``hash-header`` that header, or with ``hash-property`` a property; where a message lacks it,
    all such messages go the same way. Which binding has a slot depends on the names and weights of the bindings alone (weighted
    rendezvous hashing): it is the same after a restart, and a binding that comes or goes moves its own share and nothing else.

    Of several bindings to one destination the heaviest counts.

    Raises:
        PreconditionFailed: arguments that contradict each other, or name what can't be hashed (`check_exchange`).
    """

    __slots__ = ("_header", "_links", "_property", "_slots", "cacheable", "takes_keys")

    def __init__(self, spec: ExchangeSpec) -> None:
        check_exchange(spec, unknown="keep")
        self._header: str | None = spec.arguments.get(HASH_HEADER)
        self._property: str | None = spec.arguments.get(HASH_PROPERTY)
        self._links: dict[Link, tuple[int, int, tuple[object, ...]]] = {}
        self._slots: dict[int, Link] = {}
        self.cacheable: bool = self._header is None and self._property is None
        self.takes_keys: bool = False  # one binding gets a message, whatever further keys it has

    def __len__(self) -> int:
        return len(self._links)

    def __iter__(self) -> Iterator[Link]:
        return iter(self._links)

    def bind(self, link: Link) -> None:
        """See `ExchangeType.bind`. Cost: the slots are found anew when they are used next."""
        binding = link.binding
        weight = _weight(binding.key)
        seed = _hash(f"{int(binding.to_exchange)}{binding.destination}".encode("utf-8", "surrogatepass"))
        self._links[link] = (seed, weight, binding.identity())
        self._slots.clear()

    def unbind(self, link: Link) -> None:
        """See `ExchangeType.unbind`. Cost: the slots; those that it had are found anew when they are used next."""
        del self._links[link]
        self._slots = {slot: owner for slot, owner in self._slots.items() if owner is not link}

    def route(self, key: str, headers: HeaderSource, found: Found) -> None:
        """See `ExchangeType.route`. Cost: one hash; for a slot that is used first, the number of bindings."""
        if not self._links:
            return
        slot = _hash(self._hashed(key, headers)) % SLOTS
        link = self._slots.get(slot)
        if link is None:
            link = self._slots[slot] = self._owner(slot)
        add(link.destination, link.options, found)

    def _hashed(self, key: str, source: HeaderSource) -> bytes:
        value: object = key
        if self._header is not None:
            value = headers_of(source).get(self._header)
        elif self._property is not None:
            given = source()
            value = getattr(given, _ATTRIBUTES.get(self._property, self._property)) if isinstance(given, Properties) else None
        if isinstance(value, bytes):
            return value
        return b"" if value is None else str(value).encode("utf-8", "surrogatepass")

    def _owner(self, slot: int) -> Link:
        """Return the binding that wins a slot: each draws a time, the shorter the heavier it is, and the first has it."""
        return min((_draw(seed, slot) / weight, tie, link) for link, (seed, weight, tie) in self._links.items())[2]


def _weight(key: str) -> int:
    if not _WEIGHT.fullmatch(key):
        raise PreconditionFailed(f"The binding key must be an integer: {key!r}")
    weight = int(key)
    if weight < 1:
        raise PreconditionFailed("The binding key must be greater than 0")
    return weight


def _hash(value: bytes) -> int:
    """Return 64 bits that are the same in every process (Python's own hash is not)."""
    return int.from_bytes(blake2b(value, digest_size=8).digest(), "little")


def _draw(seed: int, slot: int) -> float:
    """Return a number of the exponential distribution that depends on seed and slot alone (the mixing is SplitMix64's)."""
    bits = (seed + (slot + 1) * 0x9E3779B97F4A7C15) & _WORD
    bits = ((bits ^ bits >> 30) * 0xBF58476D1CE4E5B9) & _WORD
    bits = ((bits ^ bits >> 27) * 0x94D049BB133111EB) & _WORD
    bits ^= bits >> 31
    return -log(((bits >> 11) + 0.5) / 2**53)
