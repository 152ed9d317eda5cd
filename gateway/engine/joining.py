"""Which last values does a queue get when it is bound, and how often?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gateway.engine.rounds import Rounds
from gateway.engine.route import RouteHandle
from gateway.errors import GatewayError, PreconditionFailed
from gateway.model.declare import Binding, ExchangeSpec
from gateway.model.exchange_arguments import routing_type
from gateway.model.message import Message

if TYPE_CHECKING:
    from gateway.engine.engine import Engine
    from gateway.engine.queues.queue import Queue
    from gateway.engine.retained import RetainedLookUp

ARGUMENT = "x-last-values"
"""Of a binding from a topic exchange to a queue: true: the queue gets the last values whose keys match, when it is bound."""
NAMESPACE = "engine.joining"
"""Of records while a queue still gets some: key a number, value JSON of virtual host and binding; NUMBER/N: JSON of keys."""

AT_ONCE = 500
VISITS = 2_000

Identity = tuple[str, bool, str, str, str]


class Handover:
    """One new binding, whose queue still gets last values.

    ``before``: those that were put later came by the binding. ``given``: keys of which it has got what it is to get. ``number``: of
    its records; 0: there are none. ``parts``: how many records of keys there are.
    """

    __slots__ = ("before", "binding", "given", "lasts", "look_up", "number", "parts", "queue", "vhost")

    def __init__(self, vhost: str, binding: Binding, queue: Queue, look_up: RetainedLookUp, before: int, *, lasts: bool) -> None:
        self.vhost: str = vhost
        self.binding: Binding = binding
        self.queue: Queue = queue
        self.look_up: RetainedLookUp = look_up
        self.before: int = before
        self.lasts: bool = lasts
        self.number: int = 0
        self.parts: int = 0
        self.given: set[str] = set()


class Joining:
    """Queues that get the last values of an exchange as they are bound: few at once, many a part at a time.

    Each value comes once, over restarts too, if queue and exchange are durable: what was given is noted with it.
    """

    __slots__ = ("_active", "_engine", "_is_found", "_last", "_rounds")

    def __init__(self, engine: Engine) -> None:
        self._engine: Engine = engine
        self._active: list[Handover] = []
        self._last: int = 0
        self._is_found: bool = False
        self._rounds: Rounds = Rounds(engine, self._go_on)

    def __bool__(self) -> bool:
        return bool(self._active) or self._is_found

    def check(self, source: ExchangeSpec, binding: Binding) -> None:
        """Refuse the argument where it has no meaning. Raises PreconditionFailed."""
        if ARGUMENT not in binding.arguments:
            return
        if not isinstance(binding.arguments[ARGUMENT], bool):
            raise PreconditionFailed(f"invalid arg '{ARGUMENT}': true or false is allowed, not {binding.arguments[ARGUMENT]!r}")
        if binding.to_exchange or routing_type(source) != "topic":
            raise PreconditionFailed(f"invalid arg '{ARGUMENT}': only bindings from topic exchanges to queues can have it")

    def bound(self, vhost: str, binding: Binding, queue: Queue, *, lasts: bool) -> None:
        """Give a queue what it is to get for a binding that is new. `lasts`: the binding is there after a restart."""
        if binding.arguments.get(ARGUMENT) is not True:
            return
        self._resume()
        for former in self._active:  # of a binding that was undone just now
            if former.queue is queue and former.binding.identity() == binding.identity():
                self._active.remove(former)
                self._forget(former)
                break
        handover = self._handover(vhost, binding, queue, lasts=lasts)
        keys = self._give_some(handover)
        if handover.look_up.done:
            return
        if lasts:
            self._last += 1
            handover.number = self._last
            text = json.dumps([vhost, *binding.identity()])
            self._engine.kept.put_state(NAMESPACE, str(handover.number), text.encode())
        self._note(handover, keys)
        self._active.append(handover)
        self._rounds.begin()

    def put(self, vhost: str, exchange: str, key: str) -> None:
        """A new last value comes by the bindings: it is not to be given once more."""
        self._resume()
        for handover in self._active:
            if handover.vhost == vhost and handover.binding.source == exchange and key not in handover.given:
                handover.given.add(key)
                self._note(handover, [key])

    def _handover(self, vhost: str, binding: Binding, queue: Queue, *, lasts: bool) -> Handover:
        values = self._engine.kept.values
        look_up = values.look_up(vhost, binding.source, binding.key, mqtt=binding.options.mqtt)
        return Handover(vhost, binding, queue, look_up, values.puts, lasts=lasts)

    # -- a part at a time ---------------------------------------------------

    def _go_on(self) -> bool:
        self._resume()
        if self._active:
            handover = self._active.pop(0)
            if self._is_wanted(handover):
                self._note(handover, self._give_some(handover))
            if self._is_wanted(handover) and not handover.look_up.done:
                self._active.append(handover)
            else:
                self._forget(handover)
        return len(self._active) > 0

    def _is_wanted(self, handover: Handover) -> bool:
        if handover.queue.deleted:
            return False
        source = self._engine.vhost(handover.vhost).table.find(handover.binding.source)
        return source is not None and handover.binding.identity() in source.bindings

    def _give_some(self, handover: Handover) -> list[str]:
        """Give a part; return the keys."""
        keys: list[str] = []
        for value, mark in handover.look_up.next_slice(AT_ONCE, VISITS):
            key = value.routing_key
            if mark <= handover.before and key not in handover.given:
                keys.append(key)
                self._give(handover, value)
        self._engine.finish()
        return keys

    def _give(self, handover: Handover, value: Message) -> None:
        """Put a value into the queue, by the normal way; one that it refuses is dropped and counted."""
        engine = self._engine
        queue = handover.queue
        if queue.deleted:
            return
        if queue.rejects and queue.is_full_for(len(value.body)):  # nor does it end for that
            engine.events.dropped(queue.name, "last value", 1)
            return
        tag, wire = value.wire_tag, value.wire
        message = Message(value.address, value.body, value.persistent, tag, wire, value.priority, value.expires_at_ms)
        route = RouteHandle(engine.vhost(handover.vhost), value.address, ours=True)
        route.lead_to([(queue, handover.binding.options)])
        route.generation = engine.generation
        if message.persistent and route.durable:
            engine.ours.add(message)
        if isinstance(engine.publish_now(route, message), GatewayError):
            engine.ours.discard(message)
            engine.events.dropped(queue.name, "last value", 1)

    # -- what outlasts a restart --------------------------------------------

    def _note(self, handover: Handover, keys: list[str]) -> None:
        if handover.number and keys:
            self._engine.kept.put_state(NAMESPACE, f"{handover.number}/{handover.parts}", json.dumps(keys).encode())
            handover.parts += 1

    def _forget(self, handover: Handover) -> None:
        if handover.number:
            self._forget_noted(handover.number, handover.parts)

    def replay(self) -> None:
        """Something was noted before the restart."""
        self._is_found = True
        self._rounds.begin(0)

    def _resume(self) -> None:
        """Once after recovery, before anything is put or bound: go on with what was not done."""
        if not self._is_found:
            return
        self._is_found = False
        noted = dict(self._engine.kept.state(NAMESPACE))
        for name, text in noted.items():
            number, slash, _ = name.partition("/")
            if slash:
                continue
            self._last = max(self._last, int(number))
            handover = self._found(json.loads(text))
            parts = [json.loads(value) for part, value in noted.items() if part.startswith(f"{number}/")]
            if handover is None:
                self._forget_noted(int(number), len(parts))
                continue
            handover.number, handover.parts = int(number), len(parts)
            handover.given.update(*parts)
            self._active.append(handover)

    def _found(self, names: list[Any]) -> Handover | None:
        """Return what was noted, if its binding is still there."""
        vhost, source, _, destination, key, arguments = names
        host = self._engine.vhost(vhost)
        exchange, queue = host.table.find(source), host.queues.get(destination)
        identity: Identity = (source, False, destination, key, arguments)
        binding = exchange.bindings.get(identity) if exchange is not None else None
        if binding is None or queue is None:
            return None
        return self._handover(vhost, binding, queue, lasts=True)

    def _forget_noted(self, number: int, parts: int) -> None:
        self._engine.kept.put_state(NAMESPACE, str(number), None)
        for part in range(parts):
            self._engine.kept.put_state(NAMESPACE, f"{number}/{part}", None)
