"""Which bindings are there? All of them match."""

from __future__ import annotations

from gateway.model.declare import Binding
from gateway.routing.exchange import Found, HeaderSource, Targets, add_all, check_key, target


class Fanout:
    """The fanout exchange type (AMQP 0-9-1 §3.1.3.2): the key tells bindings apart and selects nothing."""

    __slots__ = ("_targets", "cacheable")

    def __init__(self) -> None:
        self.cacheable: bool = True
        self._targets: Targets = {}

    def __len__(self) -> int:
        return len(self._targets)

    def bind(self, key: str, destination: object, binding: Binding) -> None:
        """See `ExchangeType.bind`."""
        check_key(key)
        self._targets[target(key, destination, binding)] = binding.options

    def unbind(self, key: str, destination: object, binding: Binding) -> bool:
        """See `ExchangeType.unbind`."""
        return self._targets.pop(target(key, destination, binding), None) is not None

    def route(self, key: str, headers: HeaderSource, found: Found) -> None:
        """See `ExchangeType.route`. Cost: the number of bindings."""
        add_all(self._targets, found)
