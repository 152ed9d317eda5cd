"""What small values of front-ends does the broker keep?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from gateway.engine.joining import NAMESPACE as JOINING
from gateway.engine.leaving import LEAVING, SINCE
from gateway.engine.retained import LastValues
from gateway.engine.route import RouteHandle
from gateway.errors import GatewayError
from gateway.model.message import Message
from gateway.model.records import Retained, StatePut

if TYPE_CHECKING:
    from gateway.engine.engine import Engine


class Kept:
    """Small values of front-ends, by namespace; beside them the last values (``values``)."""

    __slots__ = ("_engine", "_state", "values")

    def __init__(self, engine: Engine) -> None:
        self._engine: Engine = engine
        self._state: dict[str, dict[str, bytes]] = {}
        self.values: LastValues = LastValues(engine)

    def retain(self, route: RouteHandle, message: Message) -> GatewayError | None:
        """Make a message the last value of its route's address; see `LastValues.put`."""
        return self.values.put(route.address, message)

    def retained(self, vhost: str, exchange: str, pattern: str, *, mqtt: bool = False) -> Iterator[Message]:
        """Yield the last values whose keys match."""
        return self.values.match(vhost, exchange, pattern, mqtt=mqtt)

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
            case Retained():
                self.values.replay(record)
            case StatePut(namespace=namespace, key=key, value=value):
                if value is not None:
                    self._state.setdefault(namespace, {})[key] = value
                    if namespace in (LEAVING, SINCE):
                        self.values.replay(record)
                    elif namespace == JOINING:
                        self._engine.joining.replay()
