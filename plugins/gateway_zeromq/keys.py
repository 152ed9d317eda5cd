"""Which routing keys are taken from peers, and for which is the route remembered?"""

from __future__ import annotations

from typing import Final, TypeVar

from gateway.api import MAX_KEY_WORDS, Route

ROUTES_KEPT: Final = 10_000
REMEMBERED_BYTES: Final = 512
"""Routes of longer keys are found anew each time: what is remembered must be bounded in bytes, too."""

Name = TypeVar("Name")


def complaint_of(key: str) -> str | None:
    """Say what is wrong with a key in AMQP's spelling; None: nothing."""
    words = key.count(".") + 1
    return None if words <= MAX_KEY_WORDS else f"a routing key of {words} words; at most {MAX_KEY_WORDS} are allowed"


def remember(routes: dict[Name, Route], name: Name, route: Route) -> None:
    """Keep a route under a name for the next message, unless its names are too long for that."""
    address = route.address
    if len(address.routing_key) + len(address.exchange) <= REMEMBERED_BYTES:
        if len(routes) >= ROUTES_KEPT:
            routes.clear()
        routes[name] = route
