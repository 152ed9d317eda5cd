"""What is in one virtual host?"""

from __future__ import annotations

from gateway.engine.queues.queue import Queue
from gateway.engine.route import STALE, RouteHandle
from gateway.model.caching import make_room
from gateway.model.message import Address
from gateway.routing.table import Table

MAX_ROUTES = 100_000
"""Cached routes; beyond that the oldest are forgotten (handles in use go on working)."""
MAX_ROUTE_KEY = 1_024
"""Longer keys have no cached route: what the cache holds must be bounded in bytes, too."""
MAX_ROUTE_KEYS = 16
"""Nor has one of more further keys than that."""
SEEN_AT_ONCE = 4


class VirtualHost:
    """Exchanges, queues and cached routes under one name."""

    __slots__ = ("_unseen", "name", "queues", "routes", "table")

    def __init__(self, name: str) -> None:
        self.name: str = name
        self.queues: dict[str, Queue] = {}
        self.table: Table = Table(self.queues.get, name)
        self.routes: dict[tuple[str, ...], RouteHandle] = {}
        self._unseen: list[tuple[str, ...]] = []

    def route(self, exchange: str, key: str, local_to: str = "", also: tuple[str, ...] = ()) -> RouteHandle:
        """Return the handle for an address, with the publisher's own queue where that matters, and further keys (`RouteHandle`)."""
        where = (exchange, key, local_to, *also)
        handle = self.routes.get(where)
        if handle is None:
            handle = RouteHandle(self, Address(self.name, exchange, key), local_to=local_to, also=also)
            if len(key) + sum(map(len, also)) > MAX_ROUTE_KEY or len(also) > MAX_ROUTE_KEYS:
                return handle
            make_room(self.routes, MAX_ROUTES)
            self.routes[where] = handle
        return handle

    def forget_stale(self, generation: int) -> None:
        """Have a few routes let go of what they knew before this generation: consumers, and all that these know, may be gone.

        To be called whenever some have gone, so that no more of them are kept than there are. Cost: bounded, on average.
        """
        if not self._unseen:
            self._unseen = list(self.routes)
        for _ in range(min(SEEN_AT_ONCE, len(self._unseen))):
            handle = self.routes.get(self._unseen.pop())
            if handle is not None and handle.generation not in (STALE, generation):
                handle.generation = STALE
                handle.clear()
