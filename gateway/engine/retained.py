"""Which message is the last value of a key, for how long, and how many are there room for?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from gateway.engine.leaving import Leaving
from gateway.errors import GatewayError, MessageRefused
from gateway.model.message import Address, Message
from gateway.model.records import Retained, StatePut
from gateway.routing.keytree import VISITS, KeyTree, LookUp
from gateway.routing.ordered import Ordered

if TYPE_CHECKING:
    from gateway.engine.engine import Engine, Unroutable
    from gateway.engine.route import RouteHandle
    from gateway.engine.timers import Timer

Publish: TypeAlias = "Callable[[RouteHandle, Message], GatewayError | Unroutable | None]"

EXPIRED_AT_ONCE = 500
"""So many are removed before others have their turn."""
LOOK_AGAIN_MS = 1_000
"""While nothing can be written, the removal of what has expired waits; nobody is given it meanwhile."""
RECORD_BYTES = 200
"""What a record costs in the open batch beside its body."""


@dataclass(frozen=True, slots=True)
class RetainedLimits:
    """What one virtual host may keep; 0: no limit.

    Args:
        max_messages: last values, of all exchanges together.
        max_bytes: of their bodies, properties and keys.
        max_body_bytes: of one body.
    """

    max_messages: int = 0
    max_bytes: int = 0
    max_body_bytes: int = 0


class LastValue:
    """A message that is the last value of its key, and the number of its putting."""

    __slots__ = ("mark", "message")

    def __init__(self, message: Message, mark: int) -> None:
        self.message: Message = message
        self.mark: int = mark

    @property
    def cost(self) -> int:
        """Bytes that count against the limit."""
        return _cost(self.message)


class Shelf:
    """The last values of one virtual host, by exchange."""

    __slots__ = ("bytes", "messages", "trees")

    def __init__(self) -> None:
        self.trees: dict[str, KeyTree[LastValue]] = {}
        self.messages: int = 0
        self.bytes: int = 0

    def get(self, address: Address) -> LastValue | None:
        """Return the last value of an address."""
        tree = self.trees.get(address.exchange)
        return None if tree is None else tree.get(address.routing_key)

    def put(self, exchange: str, key: str, value: LastValue, old: LastValue | None) -> None:
        """Take a value in place of the old one."""
        tree = self.trees.get(exchange)
        if tree is None:
            tree = self.trees[exchange] = KeyTree()
        tree.put(key, value)
        self.messages += old is None
        self.bytes += value.cost - (0 if old is None else old.cost)

    def remove(self, exchange: str, key: str, old: LastValue) -> None:
        """Forget a value that is there."""
        tree = self.trees[exchange]
        tree.remove(key)
        if not len(tree):
            del self.trees[exchange]
        self.count_out(old)

    def count_out(self, old: LastValue) -> None:
        """A value is in no tree any more."""
        self.messages -= 1
        self.bytes -= old.cost


class RetainedLookUp:
    """The last values that match a pattern, a slice at a time (`gateway.api.LookUp` says what each method does)."""

    __slots__ = ("_engine", "_look_up")

    def __init__(self, engine: Engine, look_up: LookUp[LastValue] | None) -> None:
        self._engine: Engine = engine
        self._look_up: LookUp[LastValue] | None = look_up

    @property
    def done(self) -> bool:
        """See `gateway.api.LookUp.done`."""
        return self._look_up is None or self._look_up.done

    def next_slice(self, most: int, visits: int) -> list[tuple[Message, int]]:
        """See `gateway.api.LookUp.next_slice`."""
        if self._look_up is None:
            return []
        now_ms = self._engine.now_ms
        found = self._look_up.next_slice(most, visits)
        return [(value.message, value.mark) for value in found if not 0 < value.message.expires_at_ms <= now_ms]


class LastValues:
    """The last value of each key of each exchange, for all front-ends.

    ``puts``: how many values were put so far; each has its number. ``limits``: set before anything is put.
    """

    __slots__ = ("_due", "_engine", "_leaving", "_offered", "_shelves", "_timer", "limits", "puts")

    def __init__(self, engine: Engine) -> None:
        self._engine: Engine = engine
        self._shelves: dict[str, Shelf] = {}
        self._due: Ordered[tuple[int, int, str, str, str]] = Ordered()
        self._timer: Timer | None = None
        self._offered: tuple[Message, Address, Message] | None = None
        self._leaving: Leaving = Leaving(engine, self._released)
        self.limits: RetainedLimits = RetainedLimits()
        self.puts: int = 0

    def publish(
        self, publish: Publish, route: RouteHandle, message: Message, kept_route: RouteHandle, value: Message
    ) -> GatewayError | Unroutable | None:
        """Publish a message, and make a value (the same, as a rule) the last one of its route: both, or neither.

        With a message that is delayed the value waits; with one that is a repetition it is dropped.

        Args:
            publish: `Engine.publish`, or what stands before it.
        """
        refusal = self.refusal(kept_route.address, value)
        if refusal is not None:
            return refusal
        self._offered = (message, kept_route.address, value)
        answer = publish(route, message)
        if self.take_offered(message) is None or isinstance(answer, GatewayError):
            return answer
        return self.put(kept_route.address, value) or answer

    def take_offered(self, message: Message) -> tuple[Address, Message] | None:
        """Take what was to be retained with a message that is not published now, or never: it is not retained by `publish`."""
        offered = self._offered
        if offered is None or offered[0] is not message:
            return None
        self._offered = None
        return offered[1], offered[2]

    def refusal(self, address: Address, message: Message) -> GatewayError | None:
        """Say why a message can't become the last value of an address; None: it can, or (no body) clears what is there."""
        if self._engine.refusal is not None or not message.body:
            return self._engine.refusal
        limits = self.limits
        if 0 < limits.max_body_bytes < len(message.body):
            return MessageRefused(f"{len(message.body)} bytes are too many to be retained: at most {limits.max_body_bytes}")
        shelf = self._shelf(address.vhost)
        old = shelf.get(address)
        if old is None and 0 < limits.max_messages <= shelf.messages:
            return MessageRefused(f"{shelf.messages} messages are retained already, as many as may be")
        more = _cost(message) - (0 if old is None else old.cost)
        if more > 0 and 0 < limits.max_bytes < shelf.bytes + more:
            return MessageRefused(f"{shelf.bytes} bytes are retained already, of {limits.max_bytes}")
        return None

    def put(self, address: Address, message: Message) -> GatewayError | None:
        """Make a message the last value of an address; an empty body clears it. Return the refusal, if it is refused."""
        refusal = self.refusal(address, message)
        if refusal is not None:
            return refusal
        if message.body:
            self._store(address.vhost, address.exchange, address.routing_key, message)
            if self._leaving:
                self._leaving.put(address.vhost, address.exchange, address.routing_key)
            if self._engine.joining:
                self._engine.joining.put(address.vhost, address.exchange, address.routing_key)
        elif not self._remove(address.vhost, address.exchange, address.routing_key):
            return None
        self.record(Retained(address.vhost, address.exchange, address.routing_key, message if message.body else None))
        return None

    def look_up(self, vhost: str, exchange: str, pattern: str, *, mqtt: bool = False) -> RetainedLookUp:
        """Begin to look for the last values whose keys match."""
        tree = self._shelf(vhost).trees.get(exchange)
        return RetainedLookUp(self._engine, None if tree is None else tree.look_up(pattern, mqtt))

    def match(self, vhost: str, exchange: str, pattern: str, *, mqtt: bool = False) -> Iterator[Message]:
        """Yield the last values whose keys match."""
        look_up = self.look_up(vhost, exchange, pattern, mqtt=mqtt)
        while not look_up.done:
            for message, _ in look_up.next_slice(VISITS, VISITS):
                yield message

    def held(self, vhost: str) -> tuple[int, int]:
        """Return how many last values a virtual host has, and how many bytes they count."""
        shelf = self._shelf(vhost)
        return shelf.messages, shelf.bytes

    def replay(self, record: Retained | StatePut) -> None:
        """Take a fact that the journal kept; limits that were lowered since refuse only what is new."""
        if isinstance(record, StatePut):
            self._leaving.replay(record)
        elif record.message is not None:
            self._store(record.vhost, record.exchange, record.key, record.message)
            if self._engine.vhost(record.vhost).table.find(record.exchange) is None:
                tree = self.detach(record.vhost, record.exchange)
                for key, value in tree.take(1) if tree is not None else ():
                    self._leaving.orphan(record.vhost, record.exchange, key, value)

    # -- deleted exchanges --------------------------------------------------

    def leave(self, vhost: str, exchange: str) -> None:
        """Forget the last values of an exchange that is deleted: nobody is given them from now on. Cost: a few hundred of them."""
        tree = self.detach(vhost, exchange)
        if tree is not None:
            self._leaving.leave(vhost, exchange, tree)

    def detach(self, vhost: str, exchange: str) -> KeyTree[LastValue] | None:
        """Take the values of an exchange out of sight; they count until they are released. None: there are none."""
        tree = self._shelf(vhost).trees.pop(exchange, None)
        return None if tree is None else tree.moved()

    def attach(self, vhost: str, exchange: str, key: str, value: LastValue) -> None:
        """Undo `detach` for one value."""
        shelf = self._shelf(vhost)
        shelf.count_out(value)
        shelf.put(exchange, key, value, None)

    def _released(self, vhost: str, exchange: str, key: str, value: LastValue) -> bool:
        """Let go of a value that was detached; say whether no other has taken its place on disk."""
        shelf = self._shelf(vhost)
        shelf.count_out(value)
        self._due.discard_if_there((value.message.expires_at_ms, value.mark, vhost, exchange, key))
        tree = shelf.trees.get(exchange)
        return tree is None or tree.get(key) is None

    def _shelf(self, vhost: str) -> Shelf:
        shelf = self._shelves.get(vhost)
        if shelf is None:
            shelf = self._shelves[vhost] = Shelf()
        return shelf

    def record(self, record: Retained) -> None:
        """Have a fact last."""
        batch = self._engine.batch
        batch.records.append(record)
        batch.body_bytes += RECORD_BYTES + (0 if record.message is None else len(record.message.body))

    def _store(self, vhost: str, exchange: str, key: str, message: Message) -> None:
        shelf = self._shelf(vhost)
        tree = shelf.trees.get(exchange)
        old = None if tree is None else tree.get(key)
        self.puts += 1
        shelf.put(exchange, key, LastValue(message, self.puts), old)
        if old is not None and old.message.expires_at_ms:
            self._due.discard((old.message.expires_at_ms, old.mark, vhost, exchange, key))
        if message.expires_at_ms:
            self._due.add((message.expires_at_ms, self.puts, vhost, exchange, key))
            self._appoint()

    def _remove(self, vhost: str, exchange: str, key: str) -> bool:
        shelf = self._shelf(vhost)
        tree = shelf.trees.get(exchange)
        old = None if tree is None else tree.get(key)
        if old is None:
            return False
        shelf.remove(exchange, key, old)
        if old.message.expires_at_ms:
            self._due.discard((old.message.expires_at_ms, old.mark, vhost, exchange, key))
        return True

    # -- expiry -------------------------------------------------------------

    def _appoint(self, not_before_ms: int = 0) -> None:
        """Have the first that expires removed then; an appointment that comes too early makes another."""
        first = self._due.first()
        if first is None:
            return
        due_ms = max(first[0], not_before_ms)
        if self._timer is not None:
            if self._timer.due_ms <= due_ms:
                return
            self._engine.timers.cancel(self._timer)
        self._timer = self._engine.timers.at(due_ms, self._expire)

    def _expire(self, now_ms: int) -> None:
        """Remove what has expired, a part at a time."""
        self._timer = None
        if self._engine.refusal is not None:
            self._appoint(now_ms + LOOK_AGAIN_MS)
            return
        for _ in range(EXPIRED_AT_ONCE):
            first = self._due.first()
            if first is None or first[0] > now_ms:
                break
            _, mark, vhost, exchange, key = first
            tree = self._shelf(vhost).trees.get(exchange)
            value = None if tree is None else tree.get(key)
            if value is not None and value.mark == mark:
                self._remove(vhost, exchange, key)
                self.record(Retained(vhost, exchange, key, None))
            else:  # detached: it goes with the others
                self._due.discard(first)
        self._appoint()


def _cost(message: Message) -> int:
    return len(message.body) + len(message.wire) + len(message.address.routing_key)
