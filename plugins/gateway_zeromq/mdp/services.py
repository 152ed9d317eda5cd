"""Which queue is a service, which are made on demand, and which of them go again?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.api import DEFAULT_EXCHANGE, Binding, Channel, Overloaded, QueueSpec, Route, queue_spec

PREFIX = "mdp."
SWEEP_MS = 10_000
"""How often unused services are looked for."""
CROWDED_MS = 1_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where a service is, if that is not the queue ``mdp.SERVICE``: its queue, and the exchange and key that requests go to."""

    queue: str = ""
    exchange: str = DEFAULT_EXCHANGE
    routing_key: str = ""


@dataclass(frozen=True, slots=True)
class Terms:
    """How services are made.

    Args:
        durable: requests are on disk, and survive the broker.
        arguments: of the queues, as in AMQP.
        most: services that are known at a time.
        unused_ms: after so long a queue that was made here goes, if it is empty and nobody consumes from it.
        places: services that are elsewhere, by name.
    """

    durable: bool = False
    arguments: Mapping[str, object] = field(default_factory=dict)
    most: int = 1_000
    unused_ms: int = 3_600_000
    places: Mapping[str, Place] = field(default_factory=dict)


class Service:
    """One service. ``is_own``: its queue was made here, and is deleted when nobody uses it any more."""

    __slots__ = ("is_own", "name", "queue", "route", "used_ms")

    def __init__(self, name: str, queue: str, route: Route, now_ms: int) -> None:
        self.name: str = name
        self.queue: str = queue
        self.route: Route = route
        self.used_ms: int = now_ms
        self.is_own: bool = False


class Services:
    """The services that one user's clients and workers have named.

    Args:
        channel: declares, asks and deletes.
        terms: how services are made.
    """

    def __init__(self, channel: Channel, terms: Terms) -> None:
        self._channel = channel
        self._terms = terms
        self._known: dict[str, Service] = {}
        self._swept_ms = 0

    def find(self, name: str, now_ms: int) -> Service:
        """Return a service; its queue is made if it is missing.

        Raises:
            Overloaded: there are too many. AccessRefused: this user may not ask it.
        """
        service = self._known.get(name) or self._add(name, now_ms)
        service.used_ms = now_ms
        if service.route.address.exchange == DEFAULT_EXCHANGE and not self._channel.queue_exists(service.queue):
            self.make(service)
        return service

    def _add(self, name: str, now_ms: int) -> Service:
        if len(self._known) >= self._terms.most:
            self._make_room(now_ms)
            if len(self._known) >= self._terms.most:
                raise Overloaded(f"there are {self._terms.most} services already")
        place = self._terms.places.get(name, Place())
        queue = place.queue or PREFIX + name
        key = queue if place.exchange == DEFAULT_EXCHANGE else place.routing_key
        service = Service(name, queue, self._channel.route(place.exchange, key), now_ms)
        self._known[name] = service
        return service

    def make(self, service: Service) -> None:
        """Make sure that there is the queue of a service, bound to where requests go."""
        if not self._channel.queue_exists(service.queue):
            self._channel.declare_queue(self._spec(service.queue))
            service.is_own = True
        address = service.route.address
        if address.exchange != DEFAULT_EXCHANGE:
            self._channel.bind(Binding(address.exchange, service.queue, address.routing_key))

    def _spec(self, queue: str) -> QueueSpec:
        return queue_spec(queue, durable=self._terms.durable, arguments=self._terms.arguments)

    def is_served(self, name: str) -> bool:
        """Say whether somebody would get a request now (RFC 8/MMI, mmi.service). Nothing is made."""
        place = self._terms.places.get(name, Place())
        info = self._channel.queue_info(place.queue or PREFIX + name)
        if info is not None and info.consumers:
            return True
        elsewhere = place.exchange != DEFAULT_EXCHANGE and info is None
        return elsewhere and self._channel.reaches(self._channel.route(place.exchange, place.routing_key))

    def sweep(self, now_ms: int) -> None:
        """Forget what was not used for long; delete queues that were made here, are empty, and have no consumer."""
        if now_ms - self._swept_ms >= SWEEP_MS:
            self._sweep(now_ms, self._terms.unused_ms)

    def _make_room(self, now_ms: int) -> None:
        """There are too many: forget those, too, that were not used for a moment. Not each time: nobody else could do anything."""
        if now_ms - self._swept_ms >= CROWDED_MS:
            self._sweep(now_ms, min(self._terms.unused_ms, SWEEP_MS))

    def _sweep(self, now_ms: int, unused_ms: int) -> None:
        self._swept_ms = now_ms
        for service in [known for known in self._known.values() if now_ms - known.used_ms >= unused_ms]:
            info = self._channel.queue_info(service.queue)
            if info is not None and service.is_own:
                if info.messages or info.consumers:
                    continue
                self._channel.delete_queue(service.queue, if_unused=True, if_empty=True)
            del self._known[service.name]
