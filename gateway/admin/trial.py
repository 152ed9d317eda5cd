"""What would become of definitions in this engine, without touching it?"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.engine.engine import Engine
from gateway.engine.queues.delivery import Entry
from gateway.model.declare import Binding, ExchangeSpec, QueueSpec
from gateway.model.message import Address
from gateway.model.properties import NO_PROPERTIES
from gateway.model.records import Bound, ExchangeDeclared, QueueDeclared


class Trial:
    """An engine to try definitions in; what they meet in the real one is there as well. ``new`` counts what is new."""

    def __init__(self, real: Engine) -> None:
        self.engine = Engine(Nobody(), lambda _: NO_PROPERTIES)
        self.new = New()
        self.engine.definitions.bounds = self.new
        self._real = real
        self._met: set[tuple[str, bool, str]] = set()

    def dismantle(self) -> Iterator[None]:
        """Take it apart, bit by bit: what is thrown away whole, the collector looks through in one go, while all wait for it."""
        definitions = self.engine.definitions
        for name, host in self.engine.vhosts.items():
            for queue in list(host.queues):
                definitions.delete_queue(name, queue, None)
                self.engine.batch.records.clear()
                yield
            for exchange in list(host.table):
                if exchange.spec.name and not exchange.spec.name.startswith("amq."):
                    definitions.delete_exchange(name, exchange.spec.name)
                    self.engine.batch.records.clear()
                    yield

    def prepare(self, vhost: str, value: object) -> bool:
        """Copy what a declaration meets; return whether the thing itself exists."""
        match value:
            case ExchangeSpec(name=name):
                return self._exchange(vhost, name)
            case QueueSpec(name=name):
                return self._queue(vhost, name)
            case Binding() as binding:
                self._exchange(vhost, binding.source)
                (self._exchange if binding.to_exchange else self._queue)(vhost, binding.destination)
                self._binding(vhost, binding)
        return False

    def _exchange(self, vhost: str, name: str) -> bool:
        host = self._real.vhosts.get(vhost)
        there = host.table.find(name) if host is not None else None
        if there is None:
            return name.startswith("amq.") and self.engine.vhost(vhost).table.find(name) is not None
        if not self._is_met(vhost, True, name) and name and not name.startswith("amq."):
            self.engine.definitions.replay(ExchangeDeclared(vhost, there.spec))
        return True

    def _queue(self, vhost: str, name: str) -> bool:
        host = self._real.vhosts.get(vhost)
        there = host.queues.get(name) if host is not None else None
        if there is None:
            return False
        if there.owner is not None:
            self._real.definitions.usable_queue(vhost, name, None)
        if not self._is_met(vhost, False, name):
            definitions = self.engine.definitions
            definitions.replay(QueueDeclared(vhost, definitions.next_queue_id, there.spec))  # ids are counted on for new ones
        return True

    def _binding(self, vhost: str, binding: Binding) -> None:
        host = self._real.vhosts.get(vhost)
        source = host.table.find(binding.source) if host is not None else None
        there = source.bindings.get(binding.identity()) if source is not None else None
        if there is not None:
            self.engine.definitions.replay(Bound(vhost, there))

    def _is_met(self, vhost: str, is_exchange: bool, name: str) -> bool:
        key = (vhost, is_exchange, name)
        met = key in self._met
        self._met.add(key)
        return met


class New:
    """Counts what is new (`Bounds`); there is room for everything."""

    def __init__(self) -> None:
        self.exchanges = 0
        self.queues = 0
        self.bindings = 0

    def new_exchange(self) -> None:
        """Count an exchange."""
        self.exchanges += 1

    def new_queue(self) -> None:
        """Count a queue."""
        self.queues += 1

    def new_binding(self) -> None:
        """Count a binding."""
        self.bindings += 1

    def check_room(self, exchanges: int, queues: int, bindings: int) -> None:
        """Nothing is refused."""


class Nobody:
    """Is told what happens in an engine in which nothing happens (`EngineEvents`)."""

    def page_wanted(self, queue_id: int, after_position: int, max_bytes: int) -> None:
        """Read nothing."""

    def scheduled_wanted(self, ids: list[int]) -> None:
        """Read nothing."""

    def got(self, channel: object, number: int, entry: Entry | None) -> None:
        """Nobody gets anything."""

    def returned(self, entry: Entry) -> None:
        """Nothing is delivered."""

    def died(self, entry: Entry, reason: str) -> None:
        """Nothing is given up."""

    def dropped(self, queue: str, reason: str, amount: int) -> None:
        """Nothing is dropped."""

    def unroutable(self, address: Address, messages: int = 1) -> None:
        """Nothing is published."""

    def consumer_failed(self, queue: str, error: Exception) -> None:
        """Nobody consumes."""
