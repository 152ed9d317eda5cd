"""What is in one virtual host?"""

from __future__ import annotations

from gateway.engine.queues.queue import Queue
from gateway.engine.route import RouteHandle
from gateway.model.message import Address
from gateway.routing.table import Table

MAX_ROUTES = 100_000
"""Cached routes; beyond that the cache is emptied (handles in use go on working)."""


class VirtualHost:
    """Exchanges, queues and cached routes under one name."""

    __slots__ = ("name", "queues", "routes", "table")

    def __init__(self, name: str) -> None:
        self.name: str = name
        self.queues: dict[str, Queue] = {}
        self.table: Table = Table(self.queues.get, name)
        self.routes: dict[tuple[str, str, str], RouteHandle] = {}

    def route(self, exchange: str, key: str, local_to: str = "") -> RouteHandle:
        """Return the one handle for an address, and for a publisher's own queue where that matters (`RouteHandle.local_to`)."""
        handle = self.routes.get((exchange, key, local_to))
        if handle is None:
            if len(self.routes) >= MAX_ROUTES:
                self.routes.clear()
            handle = RouteHandle(self, Address(self.name, exchange, key), local_to=local_to)
            self.routes[exchange, key, local_to] = handle
        return handle
