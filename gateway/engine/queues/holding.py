"""What does a queue hold, and what may it hold?"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from gateway.engine.queues.aging import Idleness
from gateway.engine.queues.consumer import Consumer
from gateway.engine.queues.delivery import Entry
from gateway.engine.queues.lane import Lane
from gateway.engine.queues.lease import Leases
from gateway.engine.queues.line import Line, SingleActive
from gateway.engine.queues.returns import Returns
from gateway.engine.queues.terms import Terms
from gateway.engine.queues.turns import Turns
from gateway.model.declare import Overflow, QueueSpec
from gateway.model.message import Message

if TYPE_CHECKING:
    from gateway.engine.engine import Engine
    from gateway.engine.queues.backlog import Backlog
    from gateway.engine.queues.queue import Queue
    from gateway.engine.timers import Timer


class Holding:
    """What a queue is made of: one lane of entries, or one for each priority (then `turns` says whose turn it is).

    ``count`` and ``body_bytes`` are of ready and unacked entries, as the limits are. ``window_bytes`` is what the entries that
    are ready cost in memory. ``paged``: lanes of which a part is on disk only. ``able`` are the consumers that can take a
    message, in turns; ``waiting`` who waits for the answer to a `get`. ``mortal``: something in memory may expire.
    From `terms`: ``bounded`` (the head goes when it is full), ``rejects`` (it refuses, or ends, when full), ``ttl_ms``,
    ``restless`` (what is on disk has to come, even if nobody consumes: it may expire). ``plain``: its lane, if it has but one and
    nothing expires for being here too long: the short way in. ``short``: the same, if nobody looks how long deliveries are held:
    the short way through. ``line``: who is next, where not all consumers are alike.
    ``leases``: how long deliveries are held, if there is a limit to that. ``returns``: what came back and waits.
    """

    __slots__ = (
        "able",
        "body_bytes",
        "bounded",
        "consumers",
        "count",
        "deleted",
        "durable",
        "engine",
        "head_timer",
        "id",
        "idleness",
        "lane",
        "leases",
        "line",
        "mortal",
        "name",
        "owner",
        "paged",
        "plain",
        "rejects",
        "restless",
        "returns",
        "short",
        "spec",
        "terms",
        "ttl_ms",
        "turns",
        "vhost",
        "waiting",
        "window_bytes",
    )

    def __init__(self, engine: Engine, vhost: str, spec: QueueSpec, terms: Terms, queue_id: int, owner: object | None) -> None:
        self.engine: Engine = engine
        self.vhost: str = vhost
        self.name: str = spec.name
        self.spec: QueueSpec = spec
        self.id: int = queue_id
        self.owner: object | None = owner
        self.durable: bool = queue_id != 0
        queue = cast("Queue", self)
        self.lane: Lane = Lane(queue, queue_id)
        self.turns: Turns | None = None
        if spec.max_priority:
            others = [Lane(queue, queue_id + priority) for priority in range(1, spec.max_priority + 1)]
            self.turns = Turns([self.lane, *others], spec.priority_burst)
        self.consumers: list[Consumer] = []
        self.able: list[Consumer] = []
        self.line: Line | None = SingleActive(queue) if spec.single_active_consumer else None
        self.waiting: deque[tuple[object, int, Consumer]] | None = None
        self.head_timer: Timer | None = None
        self.leases: Leases | None = None
        self.returns: Returns | None = None
        self.idleness: Idleness | None = None
        self.count: int = 0
        self.body_bytes: int = 0
        self.window_bytes: int = 0
        self.paged: int = 0
        self.mortal: bool = False
        self.deleted: bool = False
        self.take_terms(terms)

    def take_terms(self, terms: Terms) -> None:
        """Take settings, without doing yet what they ask for."""
        self.terms: Terms = terms
        self.rejects: bool = terms.limited and terms.overflow is not Overflow.DROP_HEAD
        self.bounded: bool = terms.limited and terms.overflow is Overflow.DROP_HEAD
        self.ttl_ms: int = terms.message_ttl_ms
        self.plain: Lane | None = self.lane if self.turns is None and self.ttl_ms < 0 else None
        self.restless: bool = terms.message_ttl_ms >= 0 or terms.dead_letter_exchange is not None
        self._take_timeout(terms.consumer_timeout_ms)
        if self.idleness is not None:
            self.idleness.end()
            self.idleness = None
        if terms.expires_ms:
            self.idleness = Idleness(cast("Queue", self), terms.expires_ms)

    def _take_timeout(self, timeout_ms: int) -> None:
        if not timeout_ms:
            if self.leases is not None:
                self.leases.end()
            self.leases = None
        elif self.leases is None:
            self.leases = Leases(cast("Queue", self), timeout_ms)
        else:
            self.leases.change(timeout_ms)
        self.short: Lane | None = self.plain if self.leases is None else None

    # -- limits -------------------------------------------------------------

    def expiry_of(self, message: Message, since_ms: int) -> int:
        """Return when an entry expires that is in this queue since a time (0: since now); 0: never."""
        expires_at_ms = message.expires_at_ms
        if self.ttl_ms < 0:
            return expires_at_ms
        ends_ms = max((since_ms or self.engine.now_ms) + self.ttl_ms, 1)
        return min(expires_at_ms, ends_ms) if expires_at_ms else ends_ms

    def is_full_for(self, body_bytes: int, others: int = 0) -> bool:
        """Say whether a message is one too many; `others`: how many come before it. `body_bytes`: of the bodies of all of these."""
        terms = self.terms
        return bool(
            (terms.max_length and self.count + others >= terms.max_length)
            or (terms.max_length_bytes and self.body_bytes + body_bytes > terms.max_length_bytes)
        )

    def is_over(self) -> bool:
        """Say whether the head has to go."""
        terms = self.terms
        return self.bounded and bool(
            (terms.max_length and self.count > terms.max_length)
            or (terms.max_length_bytes and self.body_bytes > terms.max_length_bytes)
        )

    def gone(self, entry: Entry) -> None:
        """Account for an entry that is settled, or will be."""
        self.count -= 1
        self.body_bytes -= len(entry.message.body)

    # -- lanes --------------------------------------------------------------

    @property
    def lanes(self) -> Sequence[Lane]:
        """Its lanes, the lowest priority first."""
        return (self.lane,) if self.turns is None else self.turns.lanes

    @property
    def ready(self) -> Sequence[Entry]:
        """What waits in memory, the highest priority first. Only to be looked at."""
        if self.turns is None:
            return self.lane.ready or ()
        return [entry for lane in reversed(self.lanes) for entry in lane.ready or ()]

    @property
    def backlog(self) -> Backlog | None:
        """What of the highest priority with a backlog is on disk; None: all is in memory."""
        return next((lane.backlog for lane in reversed(self.lanes) if lane.backlog is not None), None)

    @property
    def ready_count(self) -> int:
        """Messages that wait: in memory and on disk, and what came back and is not due yet."""
        return sum(map(len, self.lanes)) + self.returning_count

    @property
    def returning_count(self) -> int:
        """Messages that came back and are not ready again yet."""
        return len(self.returns) if self.returns is not None else 0

    @property
    def next_position(self) -> int:
        """One more than it ever gave positions."""
        return 1 + sum(lane.next_position - 1 for lane in self.lanes)

    def purge(self) -> tuple[int, list[Entry], list[Lane]]:
        """Forget all that is ready; return how many, the entries that were in memory, and the lanes that had any."""
        removed = 0
        entries: list[Entry] = []
        lanes: list[Lane] = []
        for lane in self.lanes:
            amount, found = lane.clear()
            if amount:
                removed += amount
                entries += found
                lanes.append(lane)
        if self.returns is not None:
            found = self.returns.end()
            self.returns = None
            removed += len(found)
            entries += found
            lanes += {self.lanes[entry.queue_id - self.id]: None for entry in found}
        self.engine.getting.pop(cast("Queue", self), None)
        while self.waiting:
            channel, number, _ = self.waiting.popleft()
            self.engine.events.got(channel, number, None)
        return removed, entries, lanes
