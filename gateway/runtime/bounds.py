"""How many queues, bindings and exchanges may there be, and how large a message?"""

from __future__ import annotations

from collections.abc import Callable

from gateway.config import Limits
from gateway.engine.engine import Engine
from gateway.errors import PreconditionFailed
from gateway.routing.table import PREDECLARED

COUNT_EVERY_MS = 1_000
"""At a limit it is counted this often at most: room that was made is seen after so long."""


class Bound:
    """At most so many of something. They are counted when the room that there was at the last count may be used up."""

    __slots__ = ("_again_ms", "_count", "_engine", "_most", "_room", "_text")

    def __init__(self, engine: Engine, most: int, count: Callable[[], int], text: str) -> None:
        self._engine = engine
        self._most = most
        self._count = count
        self._text = text
        self._room = 0
        self._again_ms = 0

    def check(self) -> None:
        """Make sure that there may be one more. Raises PreconditionFailed."""
        if not self._most:
            return
        if self._room <= 0 and self._engine.now_ms >= self._again_ms:
            self._again_ms = self._engine.now_ms + COUNT_EVERY_MS
            self._room = self._most - self._count()
        if self._room <= 0:
            raise PreconditionFailed(f"{self._text} = {self._most} is reached")
        self._room -= 1

    def check_room(self, more: int) -> None:
        """Make sure that there may be so many more. Raises PreconditionFailed. Cost: a count, if there is a limit."""
        if not self._most or not more:
            return
        there = self._count()
        self._room = self._most - there
        if more > self._room:
            raise PreconditionFailed(f"{self._text} = {self._most} would be passed: there are {there}, and {more} would be new")


class Bounds:
    """What may be declared, over all virtual hosts (`gateway.engine.bounds.Bounds`). What recovery brings is not refused."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self._engine = engine
        self.max_message_bytes = limits.max_message_bytes
        self.queues = Bound(engine, limits.max_queues, self._count_queues, "limits.max_queues")
        self.exchanges = Bound(engine, limits.max_exchanges, self._count_exchanges, "limits.max_exchanges")
        self.bindings = Bound(engine, limits.max_bindings, self._count_bindings, "limits.max_bindings")

    def new_exchange(self) -> None:
        """See `gateway.engine.bounds.Bounds`."""
        self.exchanges.check()

    def new_queue(self) -> None:
        """See `gateway.engine.bounds.Bounds`."""
        self.queues.check()

    def new_binding(self) -> None:
        """See `gateway.engine.bounds.Bounds`."""
        self.bindings.check()

    def check_room(self, exchanges: int, queues: int, bindings: int) -> None:
        """See `gateway.engine.bounds.Bounds`."""
        self.exchanges.check_room(exchanges)
        self.queues.check_room(queues)
        self.bindings.check_room(bindings)

    def _count_queues(self) -> int:
        return sum(len(vhost.queues) for vhost in self._engine.vhosts.values())

    def _count_exchanges(self) -> int:
        return sum(1 for vhost in self._engine.vhosts.values() for _ in vhost.table) - len(PREDECLARED) * len(self._engine.vhosts)

    def _count_bindings(self) -> int:
        return sum(len(exchange.bindings) for vhost in self._engine.vhosts.values() for exchange in vhost.table)
