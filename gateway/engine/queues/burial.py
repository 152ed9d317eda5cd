"""How do dead letters get to where they go, without one commit in which a message is nowhere or in both places?"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from gateway.engine.queues.dead_letter import Reason, dead_letter, forms_cycle, further_keys, readable
from gateway.engine.route import RouteHandle, Unroutable
from gateway.errors import GatewayError
from gateway.model.caching import make_room
from gateway.model.message import Address, Message

if TYPE_CHECKING:
    from gateway.engine.engine import Engine
    from gateway.engine.queues.delivery import Entry
    from gateway.engine.queues.queue import Queue
    from gateway.engine.timers import Timer

PORTION = 100
"""So many are seen to in one operation; the rest in the next turns."""
MOST_WAITING = 10_000
"""With more than that waiting no page is asked for on behalf of queues that dead-letter."""
MAX_ROUTES = 10_000


class Dead:
    """A message that a queue gave up; without an entry it was refused before it had one, or its entry is gone from the disk.

    ``count``: how often it was delivered. ``lasts``: it has, or had, an entry: then it waits while the journal refuses.
    """

    __slots__ = ("count", "entry", "lasts", "message", "queue", "reason")

    def __init__(self, queue: Queue, message: Message, reason: Reason, entry: Entry | None) -> None:
        self.queue: Queue = queue
        self.message: Message = message
        self.reason: Reason = reason
        self.entry: Entry | None = entry
        self.count: int = entry.count if entry is not None else 0
        self.lasts: bool = entry is not None


class Burial:
    """Works off `Engine.dead`: publishes each as a dead letter and settles the entry that it was, in the same batch.

    Its queue counts such an entry no more, but it is in nobody's hands either: on disk it stays where it is until then. While
    the journal refuses, what must last stays in `limbo`. ``counts``: how many were dead-lettered, by reason.
    """

    __slots__ = ("_engine", "_held_up", "_routes", "_timer", "_working", "counts", "limbo")

    def __init__(self, engine: Engine) -> None:
        self.counts: dict[str, int] = {}
        self.limbo: list[Dead] = []
        self._engine: Engine = engine
        self._routes: dict[tuple[str, ...], RouteHandle] = {}
        self._held_up: dict[Queue, None] = {}
        self._timer: Timer | None = None
        self._working: bool = False

    def has_room_for(self, queue: Queue) -> bool:
        """Say whether a queue may have a page now. If not, it is asked for later."""
        if queue.terms.dead_letter_exchange is None or len(self._engine.dead) + len(self.limbo) < MOST_WAITING:
            return True
        self._held_up[queue] = None
        return False

    def work_off(self) -> None:
        """See to a portion of what died. What dies by that joins the list."""
        if self._working:
            return
        engine = self._engine
        dead = engine.dead
        self._working = True
        try:
            for _ in range(PORTION):
                if not dead:
                    break
                self._bury(dead.popleft())
        finally:
            self._working = False
        if dead:
            if self._timer is None:
                self._timer = engine.timers.at(engine.now_ms, self._go_on)
        elif self._held_up and len(self.limbo) < MOST_WAITING:
            held_up, self._held_up = self._held_up, {}
            for queue in held_up:
                queue.want_page()

    def postpone(self) -> None:
        """Let what dies wait, until `catch_up`."""
        self._working = True

    def catch_up(self) -> None:
        """See to all that has died since, in one batch. What dies by that joins the list."""
        self._working = False
        for _ in range(0, len(self._engine.dead), PORTION):
            self.work_off()

    def _go_on(self, _: int) -> None:
        self._timer = None
        self.work_off()

    def accepted(self) -> None:
        """The journal takes again what must last."""
        self._engine.dead.extend(self.limbo)
        self.limbo.clear()

    def detach(self, queue: Queue, lane_ids: Collection[int]) -> None:
        """What is on disk of these lanes goes by a record of its own; what they gave up before is dead-lettered all the same.

        Cost: all that wait.
        """
        for waiting in (self._engine.dead, self.limbo):
            for dead in waiting:
                entry = dead.entry
                if dead.queue is queue and entry is not None and entry.queue_id in lane_ids:
                    self._engine.discard(entry, told=True)
                    dead.entry = None

    # -- one ----------------------------------------------------------------

    def _bury(self, dead: Dead) -> None:
        entry = dead.entry
        if entry is not None and entry.settled:
            return
        engine = self._engine
        answer = self._publish(dead)
        if dead.lasts and engine.refusal is not None and answer is engine.refusal:
            self.limbo.append(dead)
            return
        reason = dead.reason.value
        if answer is None:
            self.counts[reason] = self.counts.get(reason, 0) + 1
        else:
            engine.events.dropped(dead.queue.name, reason, 1)
        if entry is not None:
            engine.discard(entry)

    def _publish(self, dead: Dead) -> GatewayError | Unroutable | str | None:
        """Publish the dead letter; None: somebody has it. A text: nobody may have it."""
        engine = self._engine
        queue = dead.queue
        exchange = queue.terms.dead_letter_exchange
        if exchange is None:
            return "no dead-letter exchange any more"
        properties = readable(dead.message, engine.properties)
        letter = dead_letter(
            dead.message,
            properties,
            queue.name,
            dead.reason,
            now_ms=engine.now_ms,
            count=dead.count,
            exchange=exchange,
            routing_key=queue.terms.dead_letter_routing_key,
        )
        with_others = queue.terms.dead_letter_routing_key is None and properties.headers is not None
        route = self._route(letter.address, further_keys(properties) if with_others else ())
        letter.address = route.address
        engine.resolve(route, letter)
        delayed = route.through is not None and engine.special.delays(route, letter)
        if letter.persistent and (delayed or route.durable):
            engine.ours.add(letter)
        if delayed:
            return engine.publish(route, letter)  # nobody knows yet where it will go: the next death looks for circles
        shorter = self._without_cycles(route, letter)
        return "in a circle" if shorter is None else engine.publish_now(shorter, letter)

    def _route(self, address: Address, also: tuple[str, ...]) -> RouteHandle:
        """Return a route that leads to internal exchanges too."""
        where = (address.vhost, address.exchange, address.routing_key, *also)
        route = self._routes.get(where)
        if route is None:
            make_room(self._routes, MAX_ROUTES)
            route = self._routes[where] = RouteHandle(self._engine.vhost(address.vhost), address, ours=True, also=also)
        return route

    def _without_cycles(self, route: RouteHandle, letter: Message) -> RouteHandle | None:
        """Return a route without the queues that the letter has come from in a circle; None: there is no other."""
        engine = self._engine
        properties = readable(letter, engine.properties)
        barred = {queue for queue, _ in (*route.stored, *route.queued) if forms_cycle(properties, queue.name)}
        if not barred:
            return route
        shorter = RouteHandle(route.vhost, route.address, ours=True, also=route.also)
        engine.resolve(shorter, letter, barred)
        shorter.generation = engine.generation
        return shorter if shorter.matched else None
