"""What should the engine do? Lists and loops with no thought of speed."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.api.consumer import ConsumeOptions
from gateway.model.declare import Overflow, QueueSpec
from gateway.routing.pattern import Pattern

HIGHEST_QOS = 2


@dataclass(eq=False)
class Item:
    """A message in one queue."""

    body: bytes
    lasting: bool
    consumer: Taker | None = None
    redelivered: bool = False
    times: int = 0
    times_on_disk: int = 0
    priority: int = 0
    expires_at: int = 0
    expires_on_disk: int = 0
    own_expiry: int = 0
    due: int = 0
    was_due: int = 0
    lease_until: int = 0
    place: tuple[int, int] = (0, 0)
    stored: bool = False
    source: str = ""
    unsure: bool = False


@dataclass(eq=False)
class Taker:
    """A consumer, or who calls `get`."""

    queue: str
    channel: int
    options: ConsumeOptions = field(default_factory=ConsumeOptions)
    credit: int = 0
    paused: bool = False
    active: bool = True
    held: int = 0

    @property
    def can_take(self):
        """Credit by hand if it is so, else what prefetch leaves; with no_ack prefetch means nothing."""
        if not self.active or self.paused:
            return False
        if self.options.manual_credit:
            return self.credit > 0
        return self.options.no_ack or not self.options.prefetch or self.held < self.options.prefetch


class NaiveQueue:
    """A queue: one list in order of publishing; what is taken stays in its place."""

    def __init__(self, spec: QueueSpec) -> None:
        self.spec = spec
        self.items: list[Item] = []
        self.takers: list[Taker] = []
        self._active: Taker | None = None
        self.unused_since = 0

    @property
    def ready(self) -> list[Item]:
        """What can be handed out, in that order: the highest priority first."""
        return sorted((item for item in self.items if item.consumer is None and not item.due), key=lambda item: -item.priority)

    @property
    def ready_count(self) -> int:
        """What nobody holds, due or not."""
        return sum(item.consumer is None for item in self.items)

    @property
    def active(self) -> Taker | None:
        """The single active one. To be asked for after every change, as it looks who is there."""
        if self._active not in self.takers:
            self._active = self.foremost
        return self._active

    @property
    def foremost(self) -> Taker | None:
        return max(self.takers, key=lambda taker: taker.options.priority, default=None)

    def depose(self) -> None:
        """Let another than the active one be active."""
        deposed = self._active
        self.takers.remove(deposed)
        self._active = self.foremost
        self.takers.append(deposed)

    @property
    def entitled(self) -> list[Taker]:
        """Who may be handed the next message."""
        if self.spec.single_active_consumer:
            return [taker for taker in self.takers if taker is self.active and taker.can_take]
        return self.first([taker for taker in self.takers if taker.can_take])

    def first(self, able: list[Taker]) -> list[Taker]:
        return [taker for taker in able if taker.options.priority == max(other.options.priority for other in able)]

    @property
    def lasting(self) -> list[Item]:
        """What is to be on disk, the lowest priority first."""
        return sorted((item for item in self.items if item.lasting), key=lambda item: item.priority)

    def expiry(self, own: int, since: int) -> int:
        """Return when an item expires that came then, and that its publisher let expire at `own`."""
        ttl = self.spec.message_ttl_ms
        return min(filter(None, (own, since + ttl if ttl >= 0 else 0)), default=0)

    def lowest(self) -> Item:
        return min(self.ready, key=lambda item: item.priority)

    @property
    def body_bytes(self) -> int:
        return sum(len(item.body) for item in self.items)

    @property
    def over(self) -> bool:
        spec = self.spec
        return bool(
            (spec.max_length and len(self.items) > spec.max_length)
            or (spec.max_length_bytes and self.body_bytes > spec.max_length_bytes)
        )

    def is_full(self, body: bytes) -> bool:
        spec = self.spec
        return bool(
            (spec.max_length and len(self.items) + 1 > spec.max_length)
            or (spec.max_length_bytes and self.body_bytes + len(body) > spec.max_length_bytes)
        )

    def refuses(self, body: bytes) -> bool:
        return self.spec.overflow in (Overflow.REJECT_PUBLISH, Overflow.REJECT_PUBLISH_DLX) and self.is_full(body)

    def ends(self, body: bytes) -> bool:
        return self.spec.overflow is Overflow.END_QUEUE and self.is_full(body)

    @property
    def must_drop(self) -> bool:
        return self.spec.overflow is Overflow.DROP_HEAD and self.over and bool(self.ready)

    def drop_heads(self, amount: int) -> None:
        for _ in range(amount):
            assert self.must_drop, "something was dropped without need"
            self.items.remove(self.lowest())


class NaiveBroker:
    """Queues by name, bindings of amq.topic, retained values."""

    def __init__(self) -> None:
        self.queues: dict[str, NaiveQueue] = {}
        self.bindings: dict[tuple[str, str], int] = {}
        self.retained: dict[str, bytes] = {}

    def reached(self, exchange: str, key: str) -> dict[str, int]:
        """Return the names of the queues that a key reaches, with the granted QoS."""
        if exchange == "":
            return {key: HIGHEST_QOS} if key in self.queues else {}
        found: dict[str, int] = {}
        for (queue, pattern), qos in self.bindings.items():
            if Pattern(pattern).matches(key):
                found[queue] = max(qos, found.get(queue, 0))
        return found

    def forget(self, name: str) -> NaiveQueue:
        """Delete a queue with its bindings."""
        self.bindings = {at: qos for at, qos in self.bindings.items() if at[0] != name}
        gone = self.queues.pop(name)
        for taker in gone.takers:
            taker.active = False
        return gone

    def restart(self) -> None:
        """Keep what lasts; what was taken is ready again."""
        for name in [name for name, queue in self.queues.items() if not is_durable(queue.spec)]:
            self.forget(name)
        for queue in self.queues.values():
            queue.takers = []
            queue._active = None
            queue.items = [item for item in queue.items if item.lasting]
            for item in queue.items:
                item.consumer = None
                item.redelivered = True
                item.times = item.times_on_disk


def is_durable(spec: QueueSpec) -> bool:
    """An exclusive queue goes with its owner, so it never lasts."""
    return spec.durable and not spec.exclusive
