"""What may be declared, deleted, bound and purged, and what goes with it?"""

from __future__ import annotations

from dataclasses import fields, replace
from itertools import islice
from typing import TYPE_CHECKING

from gateway.api.channel import QueueInfo
from gateway.engine.definitions.bounds import Boundless, Bounds
from gateway.engine.queues.delivery import UNWRITTEN, Entry, in_order
from gateway.engine.queues.queue import Queue
from gateway.engine.vhost import VirtualHost
from gateway.errors import AccessRefused, GatewayError, NotFound, PreconditionFailed, ResourceLocked
from gateway.model.arguments import COMPARED
from gateway.model.declare import Binding, ExchangeSpec, QueueSpec
from gateway.model.exchange_arguments import check_exchange
from gateway.model.message import Message
from gateway.model.names import DEFAULT_VHOST
from gateway.model.records import (
    Bound,
    DeliveryCounted,
    ExchangeDeclared,
    ExchangeDeleted,
    QueueDeclared,
    QueueDeleted,
    QueueDepth,
    QueuePurged,
    Record,
    Unbound,
)
from gateway.routing.equivalence import check_same, check_same_arguments
from gateway.routing.exchange import encoded_length
from gateway.routing.table import refuse_default

if TYPE_CHECKING:
    from gateway.engine.engine import Engine

MAX_NAME_BYTES = 255
CHOSEN_PREFIX = "amq.gen-"
AT_ONCE = 1_000
"""Queues of one owner that are deleted in one go: about ten milliseconds."""
PAUSE_MS = 1
VHOSTS = "engine.vhosts"
"""Namespace of the records of virtual hosts that were defined: key its name."""


class Definitions:
    """What is declared in an engine. Durable queues have ids above 0, others 0. ``bounds``: how much there may be."""

    def __init__(self, engine: Engine, node_id: str) -> None:
        self.engine: Engine = engine
        self.bounds: Bounds = Boundless()
        self.node_id: str = node_id
        self.next_queue_id: int = 1
        self.names_made: int = 0
        self.owned: dict[object, dict[Queue, None]] = {}

    def _check_journal(self, *, durable: bool) -> None:
        """Refuse what must last while the journal can't take it."""
        if durable and self.engine.refusal is not None:
            raise self.engine.refusal

    def _record(self, record: Record) -> None:
        self.engine.batch.records.append(record)

    # -- virtual hosts ------------------------------------------------------

    def define_vhost(self, name: str) -> None:
        """Have a virtual host exist, over restarts too, whether anything is in it or not.

        Raises:
            PreconditionFailed: that can't be its name. Overloaded: the journal can't take it now.
        """
        if not name or encoded_length(name) > MAX_NAME_BYTES:
            raise PreconditionFailed(f"the name of a virtual host has 1 to {MAX_NAME_BYTES} bytes")
        if name != DEFAULT_VHOST and name not in self.engine.kept.state(VHOSTS):
            self._check_journal(durable=True)
            self.engine.kept.put_state(VHOSTS, name, b"")
        self.engine.vhost(name)

    # -- exchanges ----------------------------------------------------------

    def declare_exchange(self, vhost: str, spec: ExchangeSpec, *, passive: bool = False) -> None:
        """Make an exchange, or check that the one there is the same. Errors as `Channel.declare_exchange`."""
        table = self.engine.vhost(vhost).table
        if passive:
            refuse_default(spec.name)
            table.get(spec.name)
            return
        is_new = table.find(spec.name) is None
        if is_new:
            check_exchange(spec, unknown="keep")
            self._check_journal(durable=spec.durable)
            self.bounds.new_exchange()
        if table.declare(spec):
            self.engine.policies.declared(vhost, table.get(spec.name))
            self.engine.generation += 1
            if spec.durable:
                self._record(ExchangeDeclared(vhost, spec))

    def delete_exchange(self, vhost: str, name: str, *, if_unused: bool = False) -> None:
        """Delete an exchange and its bindings. Errors as `Channel.delete_exchange`."""
        table = self.engine.vhost(vhost).table
        exchange = table.deletable(name)
        if if_unused and exchange.bindings:
            raise PreconditionFailed(f"exchange '{name}' in vhost '{vhost}' in use")
        self._check_journal(durable=exchange.spec.durable)
        for source in self._drop_exchange(vhost, exchange.spec):
            self._auto_delete(vhost, source)

    def _drop_exchange(self, vhost: str, spec: ExchangeSpec) -> list[str]:
        """Delete an exchange and its bindings; return which exchanges lost one."""
        removed = self.engine.vhost(vhost).table.delete(spec.name)
        self.engine.special.deleted(vhost, spec.name)
        self.engine.kept.values.leave(vhost, spec.name)
        self.engine.generation += 1
        for binding in removed:
            self._unbound(vhost, binding, durable=spec.durable)
        if spec.durable:
            self._record(ExchangeDeleted(vhost, spec.name))
        return [binding.source for binding in removed]

    def _auto_delete(self, vhost: str, name: str) -> None:
        """Delete an exchange that lost its last binding, and those before it that lose theirs by that."""
        table = self.engine.vhost(vhost).table
        pending = [name]
        while pending:
            name = pending.pop()
            if table.is_spent(name):
                pending += self._drop_exchange(vhost, table.get(name).spec)

    # -- queues -------------------------------------------------------------

    def usable_queue(self, vhost: str, name: str, owner: object | None) -> Queue:
        """Return a queue that `owner` may use.

        Raises:
            NotFound: there is none. ResourceLocked: it is another's exclusive queue.
        """
        queue = self.engine.vhost(vhost).queues.get(name)
        if queue is None:
            raise NotFound(f"no queue '{name}' in vhost '{vhost}'")
        if queue.owner is not None and queue.owner is not owner:
            raise ResourceLocked(_locked(vhost, name))
        return queue

    def declare_queue(
        self, vhost: str, spec: QueueSpec, owner: object, *, passive: bool = False, prefix: str = CHOSEN_PREFIX
    ) -> QueueInfo:
        """Make a queue, or check that the one there is the same. Errors as `Channel.declare_queue`."""
        host = self.engine.vhost(vhost)
        if passive or spec.name in host.queues:
            queue = self.usable_queue(vhost, spec.name, owner)
            if not passive:
                _check_equivalent(vhost, queue.spec, spec)
                queue.used()
        else:
            queue = self._make_queue(host, self._named(host, spec, prefix), owner)
        return QueueInfo(queue.name, queue.ready_count, len(queue.consumers), queue.body_bytes)

    def _named(self, host: VirtualHost, spec: QueueSpec, prefix: str) -> QueueSpec:
        if spec.name:
            if encoded_length(spec.name) > MAX_NAME_BYTES:
                raise PreconditionFailed(f"the name of a queue has at most {MAX_NAME_BYTES} bytes")
            if spec.name.startswith("amq."):
                raise AccessRefused(f"queue name '{spec.name}' contains reserved prefix 'amq.*'")
            return spec
        name = ""
        while not name or name in host.queues:
            self.names_made += 1
            name = f"{prefix}{self.node_id}-{self.names_made}"
        if encoded_length(name) > MAX_NAME_BYTES:
            raise PreconditionFailed(f"the name of a queue has at most {MAX_NAME_BYTES} bytes")
        return replace(spec, name=name)

    def _make_queue(self, host: VirtualHost, spec: QueueSpec, owner: object) -> Queue:
        queue_id = 0
        self._check_journal(durable=spec.durable and not spec.exclusive)
        self.bounds.new_queue()
        if spec.durable and not spec.exclusive:
            queue_id = self.next_queue_id
            self.next_queue_id += spec.max_priority + 1
            self._record(QueueDeclared(host.name, queue_id, spec))
        return self._add_queue(host, spec, queue_id, owner if spec.exclusive else None)

    def _add_queue(self, host: VirtualHost, spec: QueueSpec, queue_id: int, owner: object | None) -> Queue:
        queue = Queue(self.engine, host.name, spec, self.engine.policies.terms(host.name, spec), queue_id, owner)
        host.queues[spec.name] = queue
        if owner is not None:
            self.owned.setdefault(owner, {})[queue] = None
        if queue_id:
            self.engine.queues_by_id.update((lane.id, lane) for lane in queue.lanes)
        self.engine.generation += 1
        return queue

    def delete_queue(self, vhost: str, name: str, owner: object, *, if_unused: bool = False, if_empty: bool = False) -> int:
        """Delete a queue; return how many ready messages went with it. Errors as `Channel.delete_queue`."""
        queue = self.usable_queue(vhost, name, owner)
        if if_unused and queue.consumers:
            raise PreconditionFailed(f"queue '{name}' in vhost '{vhost}' in use")
        if if_empty and queue.ready_count:
            raise PreconditionFailed(f"queue '{name}' in vhost '{vhost}' not empty")
        self._check_journal(durable=queue.durable)
        return self.remove_queue(queue)

    def remove_queue(self, queue: Queue, reason: GatewayError | None = None) -> int:
        """Delete a queue with its bindings, consumers (told `reason`) and messages; return how many were ready."""
        host = self.engine.vhost(queue.vhost)
        removed, entries, _ = queue.purge()
        queue.deleted = True
        del host.queues[queue.name]
        self._disown(queue)
        self.engine.generation += 1
        for binding in host.table.unbind_all(queue.name, to_exchange=False):
            self._unbound(queue.vhost, binding, durable=queue.durable)
            self._auto_delete(queue.vhost, binding.source)
        for entry in entries:
            self._forget(entry)
        for entry in self.held(queue, queue.count - removed):
            self._forget(entry)
        self.engine.burial.detach(queue, [lane.id for lane in queue.lanes])
        if queue.durable:
            for lane in queue.lanes:
                del self.engine.queues_by_id[lane.id]
            self._record(QueueDeleted(queue.vhost, queue.id, queue.name, len(queue.lanes)))
        queue.end(reason)
        return removed

    def _disown(self, queue: Queue) -> None:
        owned = self.owned.get(queue.owner)
        if owned is not None:
            owned.pop(queue, None)
            if not owned:
                del self.owned[queue.owner]

    def release(self, owner: object) -> None:
        """Delete the exclusive queues of an owner that goes; if they are very many a part at a time."""
        for queue in list(islice(self.owned.get(owner, ()), AT_ONCE)):
            self.remove_queue(queue)
        if owner in self.owned:
            self.engine.timers.at(self.engine.now_ms + PAUSE_MS, lambda _: self.release(owner))

    def purge_queue(self, vhost: str, name: str, owner: object) -> int:
        """Remove what is ready; return how many. What is delivered and unsettled stays. Errors as `Channel.purge_queue`."""
        queue = self.usable_queue(vhost, name, owner)
        self._check_journal(durable=queue.durable)
        removed, entries, lanes = queue.purge()
        for entry in entries:
            self._forget(entry)
        survivors = sorted(self.held(queue, queue.count - removed), key=in_order)
        queue.count = len(survivors)
        queue.body_bytes = sum(len(entry.message.body) for entry in survivors)
        if queue.durable:
            purged = {lane.id for lane in lanes}
            self.engine.burial.detach(queue, purged)
            for entry in survivors:
                if entry.queue_id in purged:
                    self._rewrite(entry)
            for lane_id in sorted(purged):
                self._record(QueuePurged(lane_id))
        return removed

    def held(self, queue: Queue, amount: int | None = None) -> list[Entry]:
        """Return what channels hold of a queue. Cost: what all channels hold, until the `amount` is found."""
        found: list[Entry] = []
        if amount is None:
            amount = queue.count - queue.ready_count
        for held in self.engine.holdings.values() if amount > 0 else ():
            found += [entry for entry in held if entry.queue is queue and not entry.settled]
            if len(found) >= amount:
                break
        return found

    def _rewrite(self, entry: Entry) -> None:
        """Let an entry that is on disk join the open batch, under its old position: its former place there goes."""
        if entry.segment is None:
            return
        old = entry.message
        message = Message(old.address, old.body, True, old.wire_tag, old.wire, old.priority, old.expires_at_ms)
        message.first = entry
        message.live = 1
        entry.message = message
        entry.segment = None
        entry.slot = UNWRITTEN
        batch = self.engine.batch
        batch.messages.append(message)
        batch.unsettled += 1
        batch.undelivered += 1
        if entry.count > 1:
            self._record(DeliveryCounted(entry, entry.count - 1))

    def _forget(self, entry: Entry) -> None:
        """Settle an entry whose references on disk go by a record of their own."""
        self.engine.discard(entry, told=True)

    # -- bindings -----------------------------------------------------------

    def bind(self, vhost: str, binding: Binding, owner: object) -> None:
        """Bind a queue or an exchange to an exchange; binding again replaces the options. Errors as `Channel.bind`."""
        table = self.engine.vhost(vhost).table
        source = table.get(binding.source)
        destination, durable = self._destination(vhost, binding, owner)
        there = source.bindings.get(binding.identity())
        if there == binding:
            return
        lasts = durable and source.spec.durable
        self.engine.joining.check(source.spec, binding)
        self._check_journal(durable=lasts)
        if there is None:
            self.bounds.new_binding()
        table.bind(binding, destination)
        self.engine.generation += 1
        if lasts:
            self._record(Bound(vhost, binding))
        if there is None and isinstance(destination, Queue):
            self.engine.joining.bound(vhost, binding, destination, lasts=lasts)

    def unbind(self, vhost: str, binding: Binding, owner: object) -> None:
        """Undo `bind`. Errors as `Channel.unbind`."""
        table = self.engine.vhost(vhost).table
        table.get(binding.source)
        durable = self._destination(vhost, binding, owner)[1]
        self._check_journal(durable=durable)
        if table.unbind(binding):
            self.engine.generation += 1
            self._unbound(vhost, binding, durable=durable)
            self._auto_delete(vhost, binding.source)

    def _destination(self, vhost: str, binding: Binding, owner: object) -> tuple[object, bool]:
        if binding.to_exchange:
            exchange = self.engine.vhost(vhost).table.get(binding.destination)
            return exchange, exchange.spec.durable
        queue = self.usable_queue(vhost, binding.destination, owner)
        return queue, queue.durable

    def _unbound(self, vhost: str, binding: Binding, *, durable: bool) -> None:
        if durable:
            self._record(Unbound(vhost, binding))

    # -- recovery -----------------------------------------------------------

    def replay(self, record: Record) -> None:
        """Take a definition that the journal kept."""
        match record:
            case ExchangeDeclared(vhost=vhost, spec=exchange):
                table = self.engine.vhost(vhost).table
                table.declare(exchange)
                self.engine.policies.declared(vhost, table.get(exchange.name))
            case QueueDeclared(vhost=vhost, queue_id=queue_id, spec=spec):
                self.next_queue_id = max(self.next_queue_id, queue_id + spec.max_priority + 1)
                self._add_queue(self.engine.vhost(vhost), spec, queue_id, None)
            case Bound(vhost=vhost, binding=binding):
                self.engine.vhost(vhost).table.bind(binding, self._destination(vhost, binding, None)[0])
            case QueueDepth(queue_id=queue_id, live=live, live_bytes=live_bytes, next_position=next_position):
                lane = self.engine.queues_by_id[queue_id]
                lane.queue.recover(lane, live, live_bytes, next_position)
            case _:
                raise GatewayError(f"a journal can't yield {record!r}")


def _locked(vhost: str, name: str) -> str:
    """Say what AMQP clients read, and their suites expect, word by word."""
    return (
        f"cannot obtain exclusive access to locked queue '{name}' in vhost '{vhost}'. It could be originally declared on another "
        "connection or the exclusive property value does not match that of the original declaration."
    )


_FLAGS = ("durable", "auto_delete")
_APART = ("name", "arguments", "exclusive", *_FLAGS)
_SAME = tuple(f.name for f in fields(QueueSpec) if f.name not in _APART)


def _check_equivalent(vhost: str, there: QueueSpec, asked: QueueSpec) -> None:
    """Refuse a second declaration that differs (AMQP 0-9-1 §1.7.2.1, rule equivalent)."""
    what = f"queue '{there.name}' in vhost '{vhost}'"
    if there.exclusive != asked.exclusive:
        raise ResourceLocked(_locked(vhost, there.name))
    for attribute in _FLAGS if not there.exclusive else ("auto_delete",):  # those never last
        check_same(what, attribute, getattr(there, attribute), getattr(asked, attribute))
    check_same_arguments(what, there.arguments, asked.arguments, COMPARED)
    for attribute in _SAME:
        check_same(what, attribute, getattr(there, attribute), getattr(asked, attribute))
