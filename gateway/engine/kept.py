"""Which last values and which front-ends' state does the broker keep?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from gateway.engine.route import RouteHandle
from gateway.errors import GatewayError
from gateway.model.message import Message
from gateway.model.records import Retained, StatePut

if TYPE_CHECKING:
    from gateway.engine.engine import Engine


class Kept:
    """Last values (by virtual host and exchange), and small values of front-ends (by namespace)."""

    __slots__ = ("_engine", "_state")

    def __init__(self, engine: Engine) -> None:
        self._engine: Engine = engine
        self._state: dict[str, dict[str, bytes]] = {}

    def retain(self, route: RouteHandle, message: Message) -> GatewayError | None:
        """Make a message the last value of its key; an empty body clears it. Return the refusal, if it is refused."""
        if self._engine.refusal is not None:
            return self._engine.refusal
        address = route.address
        tree = route.vhost.last_values(address.exchange)
        if message.body:
            tree.put(address.routing_key, message)
        elif not tree.remove(address.routing_key):
            return None
        value = message if message.body else None
        self._engine.batch.records.append(Retained(address.vhost, address.exchange, address.routing_key, value))
        return None

    def retained(self, vhost: str, exchange: str, pattern: str, *, mqtt: bool = False) -> Iterator[Message]:
        """Yield the last values whose keys match."""
        tree = self._engine.vhost(vhost).retained.get(exchange)
        return iter(()) if tree is None else tree.match(pattern, mqtt)

    def put_state(self, namespace: str, key: str, value: bytes | None) -> None:
        """Keep a front-end's small value; None: forget it."""
        values = self._state.setdefault(namespace, {})
        if value is None:
            values.pop(key, None)
        else:
            values[key] = value
        self._engine.batch.records.append(StatePut(namespace, key, value))

    def state(self, namespace: str) -> dict[str, bytes]:
        """Return what is kept in a namespace; only to be read."""
        return self._state.get(namespace, {})

    def replay(self, record: Retained | StatePut) -> None:
        """Take a fact that the journal kept."""
        match record:
            case Retained(vhost=vhost, exchange=exchange, key=key, message=message):
                if message is not None:
                    self._engine.vhost(vhost).last_values(exchange).put(key, message)
            case StatePut(namespace=namespace, key=key, value=value):
                if value is not None:
                    self._state.setdefault(namespace, {})[key] = value
