"""Which exchanges and bindings does a virtual host have, and which queues does a message reach through them?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

from gateway.errors import AccessRefused, CommandInvalid, NotFound, PreconditionFailed
from gateway.model.declare import DEFAULT_OPTIONS, Binding, ExchangeSpec
from gateway.model.exchange_arguments import CONSISTENT_HASH, KNOWN, exchange_arguments, routing_type
from gateway.model.names import BUILT_IN, DEFAULT_EXCHANGE, DEFAULT_VHOST
from gateway.routing.consistent_hash import ConsistentHash
from gateway.routing.direct import Direct
from gateway.routing.equivalence import check_same, check_same_arguments
from gateway.routing.exchange import ExchangeType, Found, HeaderSource, Link, add, encoded_length
from gateway.routing.fanout import Fanout
from gateway.routing.headers import Headers
from gateway.routing.topic import Topic

MAX_NAME_BYTES = 255

Make: TypeAlias = Callable[[ExchangeSpec], ExchangeType]

TYPES: Mapping[str, Make] = {
    "direct": lambda _: Direct(),
    "fanout": lambda _: Fanout(),
    "topic": lambda _: Topic(),
    "headers": lambda _: Headers(),
    CONSISTENT_HASH: ConsistentHash,
}

PREDECLARED = tuple(ExchangeSpec(name, kind) for name, kind in BUILT_IN.items())

Identity: TypeAlias = tuple[str, bool, str, str, str]
Inbound: TypeAlias = Link | dict[Identity, Link]


class Exchange:
    """An exchange that exists; also the destination of bindings from other exchanges.

    Args (attributes):
        spec: as declared.
        kind: its type, which holds the bindings in the form it needs.
        alternate: what gets what it can't route: the specification's, or a policy's.
    """

    __slots__ = ("_table", "alternate", "kind", "spec")

    def __init__(self, spec: ExchangeSpec, kind: ExchangeType, table: Table) -> None:
        self.spec: ExchangeSpec = spec
        self.kind: ExchangeType = kind
        self.alternate: str | None = spec.alternate
        self._table: Table = table

    @property
    def bindings(self) -> Mapping[Identity, Binding]:
        """Those that begin here, by identity; a view."""
        return Bindings(self, self._table)


class Bindings(Mapping[Identity, Binding]):
    """The bindings that begin at an exchange. Nothing is kept twice for it: an identity is made when it is asked for."""

    __slots__ = ("_exchange", "_table")

    def __init__(self, exchange: Exchange, table: Table) -> None:
        self._exchange = exchange
        self._table = table

    def __len__(self) -> int:
        return len(self._exchange.kind)

    def __iter__(self) -> Iterator[Identity]:
        return (link.binding.identity() for link in self._exchange.kind)

    def __getitem__(self, identity: Identity) -> Binding:
        source, to_exchange, destination, _, _ = identity
        found = self._table.inbound(destination, to_exchange).get(identity) if source == self._exchange.spec.name else None
        if found is None:
            raise KeyError(identity)
        return found.binding


class Table:
    """The exchanges and bindings of one virtual host. Whatever raises has changed nothing.

    Args:
        queue_by_name: gives the queue of a name, or None; the default exchange routes by it.
        vhost: for texts of errors.
        types: what makes an exchange of each type.
    """

    __slots__ = ("_exchanges", "_queue_by_name", "_to_exchanges", "_to_queues", "_types", "vhost")

    def __init__(
        self,
        queue_by_name: Callable[[str], object | None],
        vhost: str = DEFAULT_VHOST,
        types: Mapping[str, Make] = TYPES,
    ) -> None:
        self.vhost: str = vhost
        self._queue_by_name: Callable[[str], object | None] = queue_by_name
        self._types: Mapping[str, Make] = types
        self._exchanges: dict[str, Exchange] = {spec.name: Exchange(spec, types[spec.type](spec), self) for spec in PREDECLARED}
        # By name of the destination; where there is one link only, it stands for itself: a dict costs four times as much.
        self._to_queues: dict[str, Inbound] = {}
        self._to_exchanges: dict[str, Inbound] = {}

    def __iter__(self) -> Iterator[Exchange]:
        return iter(self._exchanges.values())

    def find(self, name: str) -> Exchange | None:
        """Return an exchange; None: it does not exist."""
        return self._exchanges.get(name)

    def get(self, name: str) -> Exchange:
        """Return an exchange.

        Raises:
            NotFound: it does not exist.
        """
        exchange = self._exchanges.get(name)
        if exchange is None:
            raise NotFound(f"no exchange '{name}' in vhost '{self.vhost}'")
        return exchange

    def declare(self, spec: ExchangeSpec) -> bool:
        """Make an exchange; False: it is there, and is the same.

        Raises:
            AccessRefused: the name is reserved (``amq.``), or is the default exchange's.
            PreconditionFailed: it exists and differs; the name is too long. CommandInvalid: there is no such type.
        """
        refuse_default(spec.name)
        existing = self._exchanges.get(spec.name)
        if existing is not None:
            self._check_equivalent(existing.spec, spec)
            return False
        if spec.name.startswith("amq."):
            raise AccessRefused(f"exchange name '{spec.name}' contains reserved prefix 'amq.*'")
        if encoded_length(spec.name) > MAX_NAME_BYTES:
            raise PreconditionFailed(f"the name of an exchange has at most {MAX_NAME_BYTES} bytes")
        kind = routing_type(spec)
        make = self._types.get(kind)
        if make is None:
            raise CommandInvalid(f"unknown exchange type '{kind}'")
        self._exchanges[spec.name] = Exchange(spec, make(spec), self)
        return True

    def deletable(self, name: str) -> Exchange:
        """Return an exchange that may be deleted. Raises as `delete`."""
        refuse_default(name)
        if name.startswith("amq."):
            raise AccessRefused(f"deletion of system exchange '{name}' in vhost '{self.vhost}' not allowed")
        return self.get(name)

    def delete(self, name: str) -> list[Binding]:
        """Delete an exchange and all bindings from it and to it; return those.

        Raises:
            NotFound: it does not exist.
            AccessRefused: it is predeclared.
        """
        exchange = self.deletable(name)
        removed = self.unbind_all(name, to_exchange=True)
        for link in list(exchange.kind):
            self._forget_inbound(link)
            removed.append(link.binding)
        del self._exchanges[name]
        return removed

    def bind(self, binding: Binding, destination: object = None) -> bool:
        """Add a binding; False: it was there, and has the new options now.

        Args:
            binding: what the peer asks for.
            destination: the queue. For bindings to an exchange it is looked up here, and this is not used.

        Raises:
            NotFound: the source, or the exchange that is the destination, does not exist.
            AccessRefused: from or to the default exchange.
            PreconditionFailed: a pattern or arguments that can't be.
        """
        refuse_default(binding.source)
        source = self.get(binding.source)
        if binding.to_exchange:
            refuse_default(binding.destination)
            destination = self.get(binding.destination)
        there = self._find(binding)
        if there is not None and there.destination is destination:
            there.renew(binding)
            return False
        link = Link(destination, binding)
        source.kind.bind(link)
        if there is not None:
            source.kind.unbind(there)
        self._note_inbound(link)
        return there is None

    def unbind(self, binding: Binding) -> bool:
        """Remove the binding of this identity; False: it was not there.

        Raises:
            NotFound: the source does not exist.
            AccessRefused: from the default exchange.
        """
        refuse_default(binding.source)
        source = self.get(binding.source)
        link = self._find(binding)
        if link is None:
            return False
        source.kind.unbind(link)
        self._forget_inbound(link)
        return True

    def bindings_of(self, destination_name: str, to_exchange: bool = False) -> list[Binding]:
        """Return what is bound to a queue (or exchange), in order of binding."""
        return [link.binding for link in self.inbound(destination_name, to_exchange).values()]

    def unbind_all(self, destination_name: str, to_exchange: bool = False) -> list[Binding]:
        """Remove everything that is bound to a queue (or exchange) and return it. Cost: its bindings."""
        inbound = self.inbound(destination_name, to_exchange)
        self._side(to_exchange).pop(destination_name, None)
        for link in inbound.values():
            self._exchanges[link.binding.source].kind.unbind(link)
        return [link.binding for link in inbound.values()]

    def is_spent(self, name: str) -> bool:
        """Say, after a binding from it was removed, whether an exchange should go: it deletes itself with its last binding."""
        exchange = self._exchanges.get(name)
        return exchange is not None and exchange.spec.auto_delete and not exchange.bindings

    def resolve(self, exchange_name: str, key: str, headers: HeaderSource, also: Sequence[str] = ()) -> tuple[Found, bool]:
        """Return the queues that a message reaches, and whether that holds for every message of this exchange and these keys.

        It follows bindings between exchanges, each exchange once; an exchange of which no binding matches hands over to its
        alternate, if that exists. What a queue's entry knows are the options of the bindings that lead to the queue, merged.
        The answer is good until an exchange, a binding or (default exchange) a queue comes or goes.

        Args:
            exchange_name: where it was published; whether clients may publish there (`ExchangeSpec.internal`) is not asked.
            key: the routing key.
            headers: called if a headers exchange takes part; what it raises is passed on.
            also: further keys; what any of the keys reaches is reached, once.

        Raises:
            NotFound: the exchange does not exist.
        """
        pending = [self.get(exchange_name)]
        seen = set(pending)
        queues: Found = {}
        cacheable = True
        for exchange in pending:  # grows as exchanges are reached
            cacheable = cacheable and exchange.kind.cacheable
            for destination, options in self._next(exchange, key, headers, also).items():
                if not isinstance(destination, Exchange):
                    add(destination, options, queues)
                elif destination not in seen:
                    seen.add(destination)
                    pending.append(destination)
        return queues, cacheable

    def _next(self, exchange: Exchange, key: str, headers: HeaderSource, also: Sequence[str]) -> Found:
        """Return the queues and exchanges that come right after an exchange."""
        found: Found = {}
        if exchange.spec.name == DEFAULT_EXCHANGE:
            for name in (key, *also):
                queue = self._queue_by_name(name)
                if queue is not None:
                    found[queue] = DEFAULT_OPTIONS
        else:
            exchange.kind.route(key, headers, found)
            if also and exchange.kind.takes_keys:
                for another in also:
                    exchange.kind.route(another, headers, found)
        if not found and exchange.alternate is not None:
            alternate = self._exchanges.get(exchange.alternate)
            if alternate is not None:
                found[alternate] = DEFAULT_OPTIONS
        return found

    # -- what leads to a destination ----------------------------------------

    def inbound(self, destination_name: str, to_exchange: bool) -> dict[Identity, Link]:
        """Return the links to a queue (or exchange) by identity, in order of binding; only to be read."""
        links = self._side(to_exchange).get(destination_name)
        if isinstance(links, Link):
            return {links.binding.identity(): links}
        return links or {}

    def _side(self, to_exchange: bool) -> dict[str, Inbound]:
        return self._to_exchanges if to_exchange else self._to_queues

    def _find(self, binding: Binding) -> Link | None:
        """Return the link of a binding's identity."""
        links = self._side(binding.to_exchange).get(binding.destination)
        if links is None:
            return None
        if isinstance(links, Link):
            return links if links.binding.identity() == binding.identity() else None
        return links.get(binding.identity())

    def _note_inbound(self, link: Link) -> None:
        """Add a link; one of the same identity is replaced."""
        binding = link.binding
        side = self._side(binding.to_exchange)
        links = side.get(binding.destination)
        if links is None:
            side[binding.destination] = link
        elif not isinstance(links, Link):
            links[binding.identity()] = link
        elif links.binding.identity() == binding.identity():
            side[binding.destination] = link
        else:
            side[binding.destination] = {links.binding.identity(): links, binding.identity(): link}

    def _forget_inbound(self, link: Link) -> None:
        binding = link.binding
        side = self._side(binding.to_exchange)
        links = side[binding.destination]
        if not isinstance(links, Link):
            del links[binding.identity()]
        if isinstance(links, Link) or not links:
            del side[binding.destination]

    def _check_equivalent(self, current: ExchangeSpec, received: ExchangeSpec) -> None:
        """Refuse a second declaration that differs (AMQP 0-9-1 §1.7.2.1, rule equivalent)."""
        what = f"exchange '{current.name}' in vhost '{self.vhost}'"
        for name in ("type", "durable", "auto_delete", "internal"):
            check_same(what, name, getattr(current, name), getattr(received, name))
        check_same_arguments(what, exchange_arguments(current), exchange_arguments(received), KNOWN)


def refuse_default(name: str) -> None:
    """Refuse what nobody may do to the default exchange. Raises AccessRefused."""
    if name == DEFAULT_EXCHANGE:
        raise AccessRefused("operation not permitted on the default exchange")
