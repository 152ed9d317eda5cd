"""Which bindings have exactly this key?"""

from __future__ import annotations

from gateway.model.declare import Binding
from gateway.routing.exchange import Found, HeaderSource, Targets, add_all, check_key, target


class Direct:
    """The direct exchange type (AMQP 0-9-1 §3.1.3.1)."""

    __slots__ = ("_count", "_keys", "cacheable")

    def __init__(self) -> None:
        self.cacheable: bool = True
        self._keys: dict[str, Targets] = {}
        self._count: int = 0

    def __len__(self) -> int:
        return self._count

    def bind(self, key: str, destination: object, binding: Binding) -> None:
        """See `ExchangeType.bind`."""
        check_key(key)
        targets = self._keys.setdefault(key, {})
        before = len(targets)
        targets[target(key, destination, binding)] = binding.options
        self._count += len(targets) - before

    def unbind(self, key: str, destination: object, binding: Binding) -> bool:
        """See `ExchangeType.unbind`."""
        targets = self._keys.get(key)
        if targets is None or targets.pop(target(key, destination, binding), None) is None:
            return False
        if not targets:
            del self._keys[key]
        self._count -= 1
        return True

    def route(self, key: str, headers: HeaderSource, found: Found) -> None:
        """See `ExchangeType.route`. Cost: the bindings that match."""
        targets = self._keys.get(key)
        if targets is not None:
            add_all(targets, found)
