"""Which messages are to be published later, and what becomes of them when their time has come?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from gateway.engine.route import RouteHandle
from gateway.engine.schedule.agenda import agenda, behind
from gateway.engine.schedule.appointment import appointment, due_of, id_of, size_of
from gateway.engine.schedule.bodies import HELD_BYTES, Bodies
from gateway.engine.schedule.later import expiring_later, reason_of
from gateway.engine.schedule.pledge import Pledges
from gateway.engine.schedule.stalls import Stall, Stalls
from gateway.engine.timers import Timer
from gateway.errors import AccessRefused, GatewayError, MessageRefused, NotFound, Overloaded, PreconditionFailed
from gateway.model.declare import ExchangeSpec
from gateway.model.message import Address, Message
from gateway.model.records import MessageScheduled, Record, Scheduled, ScheduledGone

if TYPE_CHECKING:
    from gateway.engine.engine import Engine
    from gateway.engine.retained import Publish

STATE = "engine.schedule"
"""Namespace of the one value that this room keeps: no id from there on was ever given."""

MAX_DUE_MS = 1 << 61
PORTION = 256
PORTION_BYTES = 4 * 1024 * 1024
PAUSE_MS = 1_000
_RESERVED = 1_000
_INTERNED = 10_000
_TIDY_FROM = 1_024


class Schedule:
    """Messages with an appointment, by virtual host; published in the order of their times, then of their submission.

    In memory there is one integer and one dictionary entry for each, beside its address; which of them are there whole is for
    ``bodies`` to know, by `held_budget`. ``put_off`` counts refused attempts; ``published`` what was published.

    What is due goes out by `publish`: the engine's `publish_now`, if nothing else is given.

    The engine calls `batch_prepared` and `committed` as it is called itself: until then bodies beyond the budget stay.
    """

    def __init__(self, engine: Engine, held_budget: int = HELD_BYTES, publish: Publish | None = None) -> None:
        self.put_off: int = 0
        self.published: int = 0
        self.bodies: Bodies = Bodies(held_budget)
        self.pledges: Pledges = Pledges(engine)
        self._engine: Engine = engine
        self._publish_now: Publish = publish or engine.publish_now
        self._addresses: dict[int, Address] = {}
        self._order: list[int] = []
        self._cancelled: int = 0
        self._stalls: Stalls = Stalls()
        self._timer: Timer | None = None
        self._not_before: int = 0
        self._ours: set[int] = set()
        self._next_id: int = 1
        self._reserved: int = 0
        self._interned: dict[tuple[str, str, str], Address] = {}

    def __len__(self) -> int:
        return len(self._addresses)

    # -- what is asked for --------------------------------------------------

    def add(self, route: RouteHandle, message: Message, due_ms: int) -> int:
        """Have a message published at a time (wall time in ms; at once if that is past); return its id.

        The time that a message may live begins when it is due. An exchange that drops repetitions sees it now: one that is a
        repetition has an id too, and is gone already.

        Raises:
            NotFound: no such exchange. AccessRefused: an internal one. Overloaded: the journal can't take it.
            PreconditionFailed: no such time. And, of one that is due already, whatever refuses it.
        """
        spec = self.check(route, message, due_ms)
        given: list[int] = []

        def place(route: RouteHandle, message: Message) -> GatewayError | None:
            try:
                given.append(self.place(route, message, due_ms))
            except GatewayError as error:
                return error
            return None

        answer = self._engine.special.deduplicated(route, message, spec, place)
        if isinstance(answer, GatewayError):
            raise answer
        return given[0] if given else self._take_id()

    def place(self, route: RouteHandle, message: Message, due_ms: int) -> int:
        """Do as `add`, for a message of which an exchange has seen that it is no repetition."""
        self.check(route, message, due_ms)
        engine = self._engine
        now_ms = engine.now_ms
        if due_ms <= now_ms:
            answer = self._publish_now(route, message)
            if isinstance(answer, GatewayError):
                raise answer
            return self._take_id()
        scheduled_id = self._take_id()
        if message in engine.ours:
            self._ours.add(scheduled_id)
        message = expiring_later(message, due_ms - now_ms)
        self._addresses[scheduled_id] = message.address
        heappush(self._order, appointment(due_ms, scheduled_id, len(message.body)))
        if message.persistent:
            engine.batch.records.append(MessageScheduled(scheduled_id, due_ms, message))
        self.pledges.note_keys(scheduled_id, route.also, lasting=message.persistent)
        self.bodies.hold(scheduled_id, message, due_ms - now_ms)
        self._arm(now_ms)
        return scheduled_id

    def address_of(self, vhost: str, scheduled_id: int) -> Address | None:
        """Return where a message will be published; None: it is not scheduled in this virtual host."""
        address = self._addresses.get(scheduled_id)
        return address if address is not None and address.vhost == vhost else None

    def cancel(self, vhost: str, scheduled_id: int) -> None:
        """Forget a message.

        Raises:
            NotFound: it was published, cancelled, or never scheduled in this virtual host. Overloaded: the journal can't forget it.
        """
        address = self.address_of(vhost, scheduled_id)
        if address is None:
            raise NotFound(f"no scheduled message {scheduled_id} in vhost '{vhost}'")
        if self._engine.refusal is not None and self.bodies.is_persistent(scheduled_id):
            raise self._engine.refusal
        self._take_out(scheduled_id, address)

    def withdraw(self, records: Iterable[Record]) -> None:
        """Forget what these records, not on disk yet, schedule: its publishers were told no.

        What the engine itself scheduled stays: its source is settled in the same batch.
        """
        for record in records:
            if isinstance(record, MessageScheduled) and record.scheduled_id not in self._ours:
                address = self._addresses.get(record.scheduled_id)
                if address is not None:
                    self._take_out(record.scheduled_id, address)

    def _take_out(self, scheduled_id: int, address: Address) -> None:
        self._forget(scheduled_id)
        self._cancelled += 1
        self._step(self._stalls.find(address))
        if self._cancelled > _TIDY_FROM and self._cancelled > len(self._order) // 2:
            self._tidy()
        self._arm(self._engine.now_ms)

    def listed(self, vhost: str | None = None, after: Scheduled | None = None) -> Iterator[Scheduled | None]:
        """Yield what is scheduled, by time, then by id, over as many turns as it takes; None now and then, as a pause.

        What is scheduled, published or cancelled meanwhile may be seen or not.

        Args:
            vhost: only this virtual host's; None: those of all.
            after: go on behind this one, there or not.

        Cost: about 10 ns for each there is, once; then as of `agenda`.
        """
        heaps = [list(keys) for keys in self._heaps()]
        return agenda(heaps, self._addresses, vhost, behind(after))

    def check(self, route: RouteHandle, message: Message, due_ms: int) -> ExchangeSpec:
        """Make sure that a message may be scheduled; return where it goes. Raises as `add`."""
        spec = route.vhost.table.get(route.address.exchange).spec
        if spec.internal and not route.ours:
            raise AccessRefused(f"cannot publish to internal exchange '{spec.name}' in vhost '{route.address.vhost}'")
        if message.persistent and self._engine.refusal is not None:
            raise self._engine.refusal
        if due_ms > MAX_DUE_MS:
            raise PreconditionFailed(f"a message can't be scheduled for {due_ms}: ms since 1970, at most {MAX_DUE_MS}")
        return spec

    def _take_id(self) -> int:
        """Return an id that was never given. Some are reserved in the journal at a time, so that this outlasts a restart."""
        if not self._reserved:
            self._reserved = int(self._engine.kept.state(STATE).get("next", b"1"))
            self._next_id = max(self._next_id, self._reserved)
        scheduled_id = self._next_id
        self._next_id += 1
        if self._next_id > self._reserved:
            self._reserved = self._next_id + _RESERVED
            self._engine.kept.put_state(STATE, "next", b"%d" % self._reserved)
        return scheduled_id

    # -- what is gone, or on disk -------------------------------------------

    def _forget(self, scheduled_id: int) -> None:
        """Let a message be gone, here and on disk."""
        if self.bodies.is_persistent(scheduled_id):
            self._engine.batch.records.append(ScheduledGone(scheduled_id))
        self.bodies.forget(scheduled_id)
        self.pledges.forget(scheduled_id)
        del self._addresses[scheduled_id]

    def batch_prepared(self) -> None:
        """The batch that was taken is on its way."""
        self.bodies.batch_prepared()

    def committed(self) -> None:
        """The batch that was taken is on disk."""
        self.bodies.committed()
        if self._ours:
            self._ours &= {r.scheduled_id for r in self._engine.batch.records if isinstance(r, MessageScheduled)}

    # -- when it is due -----------------------------------------------------

    def _arm(self, now_ms: int) -> None:
        """Have the one timer at the time of what comes next; what is asked for comes by `loaded`."""
        due_ms = self._stalls.next_due_ms
        if self._order and not (self.bodies.asked and due_of(self._order[0]) <= now_ms):
            due_ms = min(due_ms, due_of(self._order[0]))
        due_ms = max(due_ms, self._not_before)
        timer = self._timer
        if timer is not None and timer.due_ms == due_ms:
            return
        self._engine.timers.cancel(timer)
        self._timer = self._engine.timers.at(due_ms, self._run) if due_ms < MAX_DUE_MS else None

    def _run(self, now_ms: int) -> None:
        """Publish what is due: a portion; the rest in the next turn."""
        self._timer = None
        for stall in self._stalls.take_due(now_ms):
            self._release(stall, 1)
        left = PORTION
        while left and self._next_goes(now_ms):
            left -= 1
        self._arm(now_ms)

    def _next_goes(self, now_ms: int) -> bool:
        """Take the next message that is due out of the order; False: nothing is, or nothing can be, now."""
        order = self._order
        if not order or due_of(order[0]) > now_ms or now_ms < self._not_before:
            return False
        key = order[0]
        scheduled_id = id_of(key)
        address = self._addresses.get(scheduled_id)
        if address is None:
            heappop(order)
            self._cancelled -= 1
            return True
        stall = self._stalls.find(address)
        if stall is not None and stall.keeps(key):
            heappush(stall.keys, heappop(order))
            return True
        if self._engine.refusal is not None and self.bodies.is_persistent(scheduled_id):
            self._not_before = now_ms + PAUSE_MS
            self.put_off += 1
            return False
        message = self.bodies.find(scheduled_id)
        if message is None:
            self._ask(now_ms)
            return False
        heappop(order)
        self._publish(key, address, message, stall)
        return True

    def _publish(self, key: int, address: Address, message: Message, stall: Stall | None) -> None:
        engine = self._engine
        vhost = engine.vhost(address.vhost)
        engine.tried = message
        also = self.pledges.keys_of(id_of(key))
        answer = self._publish_now(vhost.route(address.exchange, address.routing_key, also=also), message)
        if isinstance(answer, AccessRefused):  # who may publish there was asked when it was scheduled
            answer = self._publish_now(RouteHandle(vhost, address, ours=True, also=also), message)
        engine.tried = None
        if isinstance(answer, MessageRefused | Overloaded):
            self.put_off += 1
            self.bodies.unload(id_of(key))
            self._stalls.refuse(address, key, engine.now_ms)
            return
        if not isinstance(answer, GatewayError):
            self.pledges.keep(id_of(key), message)
        if answer is None:
            self.published += 1
        else:
            engine.events.dropped(address.exchange, reason_of(answer), 1)
        self._forget(id_of(key))
        self._step(stall)

    def _step(self, stall: Stall | None) -> None:
        """One message of an address that was refused has gone: the next ones may try, twice as many each time."""
        if stall is not None and stall.open:
            self._release(stall, 2)

    def _release(self, stall: Stall, amount: int) -> None:
        """Put so many messages back into the order; an address of which none is left is forgotten."""
        released = 0
        while stall.keys and released < amount:
            key = heappop(stall.keys)
            if id_of(key) in self._addresses:
                heappush(self._order, key)
                released += 1
            else:
                self._cancelled -= 1
        if not released:
            self._stalls.forget(stall)

    # -- from disk ----------------------------------------------------------

    def _ask(self, now_ms: int) -> None:
        """Have the next bodies read that are due and not in memory; one request at a time."""
        asked = self.bodies.asked
        if asked:
            return
        looked_at: list[int] = []
        size = 0
        order = self._order
        while order and due_of(order[0]) <= now_ms and len(looked_at) < PORTION and size < PORTION_BYTES:
            key = heappop(order)
            looked_at.append(key)
            scheduled_id = id_of(key)
            if scheduled_id in self._addresses and self.bodies.find(scheduled_id) is None:
                asked.add(scheduled_id)
                size += size_of(key)
        for key in looked_at:
            heappush(order, key)
        self._engine.events.scheduled_wanted(sorted(asked))

    def loaded(self, items: list[tuple[int, Message]]) -> None:
        """Take what `EngineEvents.scheduled_wanted` asked for, and publish it.

        What is missing is damaged: it is dropped and counted, but stays where it is on disk for whoever can mend it.
        """
        for scheduled_id in self.bodies.load(items, self._addresses):
            address = self._addresses.pop(scheduled_id)
            self._engine.events.dropped(address.exchange, "scheduled, damaged", 1)
            self._cancelled += 1
            self._step(self._stalls.find(address))
        self._engine.timers.cancel(self._timer)
        self._run(self._engine.now_ms)

    def replay(self, record: Scheduled) -> None:
        """Take one that the journal kept. Only at start."""
        where = (record.vhost, record.exchange, record.routing_key)
        address = self._interned.get(where)
        if address is None:
            if len(self._interned) >= _INTERNED:
                self._interned.clear()
            address = self._interned[where] = Address(*where)
        self._addresses[record.scheduled_id] = address
        self._next_id = max(self._next_id, record.scheduled_id + 1)
        heappush(self._order, appointment(record.due_ms, record.scheduled_id, record.body_bytes))
        self._arm(self._engine.now_ms)

    # -- the order ----------------------------------------------------------

    def _heaps(self) -> Iterator[list[int]]:
        yield self._order
        for stall in self._stalls:
            yield stall.keys

    def _tidy(self) -> None:
        """Forget the keys of what was cancelled. Cost: how much is scheduled, once for as many that were cancelled."""
        for keys in self._heaps():
            keys[:] = [key for key in keys if id_of(key) in self._addresses]
            heapify(keys)
        self._cancelled = 0
