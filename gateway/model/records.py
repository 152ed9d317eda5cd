"""What must last? The facts that the engine hands to the journal, and gets back at the next start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from gateway.model.declare import Binding, BindingOptions, ExchangeSpec, QueueSpec
from gateway.model.message import Message


class Reference:
    """A message's place in one durable queue, as the journal sees it. The engine's entries are references.

    ``segment`` and ``slot`` belong to the journal: None and -1 until the batch that holds the message is
    handed over; then the journal's own handle. ``settled`` is set by the engine; a reference that is settled while
    ``segment`` is None is left out of the batch.
    """

    __slots__ = ("message", "options", "position", "queue_id", "segment", "settled", "slot")

    def __init__(self, message: Message, queue_id: int, position: int, options: BindingOptions | None) -> None:
        self.message: Message = message
        self.queue_id: int = queue_id
        self.position: int = position
        self.options: BindingOptions | None = options
        self.segment: object | None = None
        self.slot: int = -1
        self.settled: bool = False


@dataclass(frozen=True, slots=True)
class ExchangeDeclared:
    """A durable exchange exists."""

    vhost: str
    spec: ExchangeSpec


@dataclass(frozen=True, slots=True)
class ExchangeDeleted:
    """A durable exchange is gone. Its bindings are told one by one."""

    vhost: str
    name: str


@dataclass(frozen=True, slots=True)
class QueueDeclared:
    """A durable queue exists, or its specification changed, under ids that are never used again.

    A queue with priorities is as many queues to the journal, its lanes: priority ``p`` has the id ``queue_id + p``, from 0 to
    ``spec.max_priority``. References, depths and pages name the lane's id.
    """

    vhost: str
    queue_id: int
    spec: QueueSpec


@dataclass(frozen=True, slots=True)
class QueueDeleted:
    """A durable queue is gone, with all references in this and all earlier batches.

    ``lanes``: so many ids from ``queue_id`` on.
    """

    vhost: str
    queue_id: int
    name: str
    lanes: int = 1


@dataclass(frozen=True, slots=True)
class QueuePurged:
    """All references of this lane in EARLIER batches are gone.

    What must survive (delivered and unsettled) the engine puts into this batch again, under its old position.
    """

    queue_id: int


@dataclass(frozen=True, slots=True)
class Bound:
    """A durable binding exists; one of the same identity is replaced."""

    vhost: str
    binding: Binding


@dataclass(frozen=True, slots=True)
class Unbound:
    """A durable binding is gone."""

    vhost: str
    binding: Binding


@dataclass(frozen=True, slots=True)
class Retained:
    """The last value of a key of an exchange; an empty body clears it (then `message` is None)."""

    vhost: str
    exchange: str
    key: str
    message: Message | None


@dataclass(frozen=True, slots=True)
class StatePut:
    """A small value that a front-end keeps (sequence marks, sessions, identifiers); None deletes it."""

    namespace: str
    key: str
    value: bytes | None


@dataclass(frozen=True, slots=True)
class DeliveryCounted:
    """A reference that is on disk was delivered this many times and came back.

    ``due_ms``: wall time before which it is not delivered again; 0: at once; below 0: at once, and it does not expire any more.
    """

    reference: Reference
    count: int
    due_ms: int = 0


@dataclass(frozen=True, slots=True)
class MessageScheduled:
    """A persistent message is to be published at a time. The id is never used again."""

    scheduled_id: int
    due_ms: int
    message: Message


@dataclass(frozen=True, slots=True)
class ScheduledGone:
    """A scheduled message was published (in this very batch) or cancelled."""

    scheduled_id: int


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A scheduled message without its body, as it is listed; at start one for each that the journal holds.

    Args:
        due_ms: wall time in ms since 1970.
        body_bytes: the size of its body.
    """

    scheduled_id: int
    due_ms: int
    vhost: str
    exchange: str
    routing_key: str
    body_bytes: int


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """At start only: what a lane of a durable queue holds on disk.

    Args:
        live: references.
        live_bytes: of bodies.
        next_position: greater than every position that the queue ever gave and that is on disk.
    """

    queue_id: int
    live: int
    live_bytes: int
    next_position: int


Record: TypeAlias = (
    ExchangeDeclared
    | ExchangeDeleted
    | QueueDeclared
    | QueueDeleted
    | QueuePurged
    | Bound
    | Unbound
    | Retained
    | StatePut
    | DeliveryCounted
    | MessageScheduled
    | ScheduledGone
    | Scheduled
    | QueueDepth
)


class Batch:
    """The open batch: all that joins the next commit.

    Args (attributes, filled by the engine):
        messages: persistent messages that reached a durable queue, in order. Those whose ``live`` fell to 0
            (every reference settled by an explicit acknowledgement) are left out of the commit.
        settled: references with a segment, settled since.
        deferred: references that were settled automatically while their segment was None: they are written with
            this batch and settled in the next one (what is in a socket buffer isn't safe).
        records: everything else, in order; for `Retained` and `StatePut` the last of a key holds.
        body_bytes: of `messages`, for back-pressure.
        unsettled: how many of `messages` have an unsettled reference.
        undelivered: how many references were not handed to a consumer that settles by hand.
    """

    __slots__ = ("body_bytes", "deferred", "messages", "records", "settled", "undelivered", "unsettled")

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.settled: list[Reference] = []
        self.deferred: list[Reference] = []
        self.records: list[Record] = []
        self.body_bytes: int = 0
        self.unsettled: int = 0
        self.undelivered: int = 0

    def __bool__(self) -> bool:
        return bool(self.messages or self.settled or self.deferred or self.records)


class PagedReference:
    """A reference read back from disk.

    Args:
        count: how often it is known to have been delivered.
        due_ms: wall time before which it is not to be delivered again; 0: none.
        stored_ms: wall time at which it was committed first.
    """

    __slots__ = ("count", "due_ms", "message", "options", "position", "segment", "slot", "stored_ms")

    def __init__(  # noqa: PLR0913 - a value; positional for speed
        self,
        message: Message,
        position: int,
        options: BindingOptions | None,
        segment: object,
        slot: int,
        count: int,
        stored_ms: int = 0,
        due_ms: int = 0,
    ) -> None:
        self.message: Message = message
        self.position: int = position
        self.options: BindingOptions | None = options
        self.segment: object = segment
        self.slot: int = slot
        self.count: int = count
        self.stored_ms: int = stored_ms
        self.due_ms: int = due_ms


@dataclass(frozen=True, slots=True)
class Page:
    """A run of a queue's references, in order of position.

    ``lost`` counts references that a bad segment took with it (quarantined and reported), ``lost_bytes`` their bodies.
    """

    queue_id: int
    references: list[PagedReference]
    lost: int = 0
    lost_bytes: int = 0
