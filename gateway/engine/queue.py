"""How does one queue keep its order, its limits and its consumers' turns?"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from operator import attrgetter
from typing import TYPE_CHECKING

from gateway.engine.backlog import Backlog
from gateway.engine.consumer import Consumer
from gateway.engine.delivery import TRANSIENT, UNWRITTEN, Entry
from gateway.errors import GatewayError, NotFound
from gateway.model.declare import BindingOptions, Overflow, QueueSpec
from gateway.model.message import Message
from gateway.model.records import DeliveryCounted, PagedReference

if TYPE_CHECKING:
    from gateway.engine.engine import Engine

PAGE_SHARE = 8
"""A page is this part of the window: what entries cost in memory comes on top of its bytes."""
ENTRY_COST_BYTES = 400
"""What an entry and its message cost in memory beside the body."""
_position = attrgetter("position")


class Queue:
    """A queue: entries in order of position, the head of them in `ready`, what is too much in `backlog`.

    ``count`` and ``body_bytes`` are of ready and unacked entries, as the limits are. ``window_bytes`` is what `ready` costs in
    memory. ``able`` are the consumers that can take a message, in turns. ``recovered_before``: entries of lower positions come
    from an earlier start and may have been delivered then.
    """

    __slots__ = (
        "able",
        "backlog",
        "body_bytes",
        "consumers",
        "count",
        "deleted",
        "durable",
        "engine",
        "id",
        "name",
        "next_position",
        "owner",
        "ready",
        "recovered_before",
        "rejects",
        "spec",
        "vhost",
        "waiting",
        "window_bytes",
    )

    def __init__(self, engine: Engine, vhost: str, spec: QueueSpec, queue_id: int, owner: object | None) -> None:
        self.engine: Engine = engine
        self.vhost: str = vhost
        self.name: str = spec.name
        self.spec: QueueSpec = spec
        self.id: int = queue_id
        self.owner: object | None = owner
        self.durable: bool = queue_id != 0
        self.rejects: bool = spec.overflow is not Overflow.DROP_HEAD and bool(spec.max_length or spec.max_length_bytes)
        self.ready: deque[Entry] = deque()
        self.backlog: Backlog | None = None
        self.consumers: list[Consumer] = []
        self.able: deque[Consumer] = deque()
        self.waiting: deque[tuple[object, int, Consumer]] = deque()
        self.next_position: int = 1
        self.recovered_before: int = 0
        self.count: int = 0
        self.body_bytes: int = 0
        self.window_bytes: int = 0
        self.deleted: bool = False

    # -- in -----------------------------------------------------------------

    def enqueue(self, message: Message, options: BindingOptions | None) -> None:
        """Take a message that wants an acknowledgement; journaled if the queue is durable and the message persistent."""
        position = self.next_position
        self.next_position = position + 1
        if self.durable and message.persistent:
            entry = Entry(message, self, position, options, UNWRITTEN)
            message.live += 1
            if message.first is None:
                message.first = entry
            elif message.more is None:
                message.more = [entry]
            else:
                message.more.append(entry)
        else:
            entry = Entry(message, self, position, options, TRANSIENT)
        self.count += 1
        self.body_bytes += len(message.body)
        if self.able and not self.ready and self.backlog is None:
            self._hand(entry)
        else:
            self._keep(entry)

    def enqueue_transient(self, message: Message, options: BindingOptions | None) -> None:
        """Take a message that is never journaled."""
        entry = Entry(message, self, self.next_position, options, TRANSIENT)
        self.next_position += 1
        self.count += 1
        self.body_bytes += len(message.body)
        if self.able and not self.ready and self.backlog is None:
            self._hand(entry)
        else:
            self._keep(entry)

    def is_full_for(self, body_bytes: int) -> bool:
        """Say whether a message with a body of so many bytes is one too many."""
        spec = self.spec
        return bool(
            (spec.max_length and self.count >= spec.max_length)
            or (spec.max_length_bytes and self.body_bytes + body_bytes > spec.max_length_bytes)
        )

    def _keep(self, entry: Entry) -> None:
        """Put a new entry at the end."""
        if entry.slot == UNWRITTEN:
            self.engine.batch.undelivered += 1
        if self.backlog is not None:
            self.backlog.append(entry)
        else:
            self.ready.append(entry)
            self.window_bytes += len(entry.message.body) + ENTRY_COST_BYTES
            if self.window_bytes > self.engine.window_budget and self.durable:
                self.backlog = Backlog(self, entry.position)
        spec = self.spec
        if (spec.max_length or spec.max_length_bytes) and not self.rejects:
            self._drop_head()
        if self.able:
            self.pump()

    def _drop_head(self) -> None:
        spec = self.spec
        dropped = 0
        while self.ready and (
            (spec.max_length and self.count > spec.max_length)
            or (spec.max_length_bytes and self.body_bytes > spec.max_length_bytes)
        ):
            self.engine.settle(self._pop())
            dropped += 1
        if dropped:
            self.engine.events.dropped(self.name, "maxlen", dropped)
        self.want_page()

    # -- out ----------------------------------------------------------------

    def _pop(self) -> Entry:
        entry = self.ready.popleft()
        self.window_bytes -= len(entry.message.body) + ENTRY_COST_BYTES
        return entry

    def _hand(self, entry: Entry) -> None:
        """Hand an entry to the consumer whose turn it is."""
        able = self.able
        consumer = able[0]
        if consumer.no_ack and not consumer.manual_credit:
            if len(able) > 1:
                able.rotate(-1)
        else:
            left = consumer.credit_left = consumer.credit_left - 1
            if left == 0:
                able.popleft()
            elif len(able) > 1:
                able.rotate(-1)
        entry.count += 1
        entry.consumer = consumer
        sink = consumer.sink
        assert sink is not None
        if consumer.no_ack:
            self.engine.settle_automatically(entry)
        else:
            consumer.held.add(entry)
        try:
            sink.deliver(entry)
        except Exception as error:  # a front-end's fault must not reach the publisher
            self.engine.consumer_failed(consumer, error)

    def pump(self) -> None:
        """Hand out what is ready while a consumer can take it."""
        ready = self.ready
        able = self.able
        while ready and able:
            self._hand(self._pop())
        if self.backlog is not None:
            self.want_page()

    def take(self, consumer: Consumer) -> Entry | None:
        """Take one entry for a `get`; None: nothing is in memory. The caller wants the next page."""
        if not self.ready:
            return None
        entry = self._pop()
        entry.count += 1
        entry.consumer = consumer
        if consumer.no_ack:
            self.engine.settle_automatically(entry)
        else:
            consumer.held.add(entry)
        return entry

    # -- back ---------------------------------------------------------------

    def gone(self, entry: Entry) -> None:
        """Account for an entry that is settled."""
        self.count -= 1
        self.body_bytes -= len(entry.message.body)

    def requeue(self, entry: Entry) -> None:
        """Put a delivered entry back to its old place. The caller pumps."""
        entry.consumer = None
        entry.redelivered = True
        if entry.segment is not None:
            self.engine.batch.records.append(DeliveryCounted(entry, entry.count))
        ready = self.ready
        self.window_bytes += len(entry.message.body) + ENTRY_COST_BYTES
        position = entry.position
        if not ready or position < ready[0].position:
            ready.appendleft(entry)
        elif position > ready[-1].position:
            ready.append(entry)
        else:
            ready.insert(bisect_left(ready, position, key=_position), entry)

    # -- consumers ----------------------------------------------------------

    def add_consumer(self, consumer: Consumer) -> None:
        """Let a consumer take its turns from now on."""
        self.consumers.append(consumer)
        if consumer.able:
            self.consumer_able(consumer)

    def remove_consumer(self, consumer: Consumer) -> None:
        """End a consumer's turns."""
        consumer.active = False
        self.consumer_unable(consumer)
        if consumer in self.consumers:
            self.consumers.remove(consumer)

    def consumer_able(self, consumer: Consumer) -> None:
        """A consumer got credit or was resumed."""
        if consumer not in self.able:
            self.able.append(consumer)
        self.pump()

    def consumer_unable(self, consumer: Consumer) -> None:
        """A consumer was paused or is gone."""
        if consumer in self.able:
            self.able.remove(consumer)

    # -- backlog ------------------------------------------------------------

    @property
    def ready_count(self) -> int:
        """Messages that wait: in memory and on disk."""
        return len(self.ready) + (len(self.backlog) if self.backlog is not None else 0)

    def recover(self, live: int, live_bytes: int, next_position: int) -> None:
        """Take over what the journal holds for this queue."""
        self.next_position = self.recovered_before = max(self.next_position, next_position)
        if live:
            self.count += live
            self.body_bytes += live_bytes
            self.backlog = Backlog(self, 0)
            self.backlog.on_disk = live

    def want_page(self) -> None:
        """Ask for the next page if the window runs low, or take over the backlog's end when nothing is left on disk."""
        backlog = self.backlog
        if backlog is None or self.window_bytes > self.engine.window_budget // 2:
            return
        if backlog.on_disk == 0:
            self.backlog = None
            self._admit(backlog.rest())
        elif not backlog.requested and (self.able or self.waiting or self._over_limit()):
            backlog.requested = True
            self.engine.events.page_wanted(self.id, backlog.window_end, max(self.engine.window_budget // PAGE_SHARE, 1))

    def _over_limit(self) -> bool:
        spec = self.spec
        if self.rejects or not (spec.max_length or spec.max_length_bytes):
            return False
        return bool(
            (spec.max_length and self.count > spec.max_length)
            or (spec.max_length_bytes and self.body_bytes > spec.max_length_bytes)
        )

    def page_loaded(self, after_position: int, references: list[PagedReference], lost: int) -> None:
        """Take a page that `want_page` asked for; one that a purge has overtaken is dropped."""
        backlog = self.backlog
        if backlog is None or backlog.window_end != after_position:
            return
        backlog.requested = False
        before = len(backlog)
        entries = backlog.take_page(references, lost)
        self.count -= before - len(backlog) - len(entries)
        if lost:
            self.engine.events.dropped(self.name, "journal", lost)
        self._admit(entries)

    def _admit(self, entries: list[Entry]) -> None:
        for entry in entries:
            self.ready.append(entry)
            self.window_bytes += len(entry.message.body) + ENTRY_COST_BYTES
        if self._over_limit():
            self._drop_head()
        while self.waiting and (self.ready or self.backlog is None):
            channel, number, consumer = self.waiting.popleft()
            self.engine.events.got(channel, number, self.take(consumer))
        self.pump()

    def purge(self) -> tuple[int, list[Entry]]:
        """Forget all that is ready; return how many, and the entries that were in memory."""
        entries = list(self.ready)
        self.ready.clear()
        self.window_bytes = 0
        removed = len(entries)
        if self.backlog is not None:
            removed += len(self.backlog)
            entries += self.backlog.in_memory()
            self.backlog = None
        while self.waiting:
            channel, number, _ = self.waiting.popleft()
            self.engine.events.got(channel, number, None)
        return removed, entries

    def cancel_consumers(self, error: GatewayError | None = None) -> None:
        """Cancel every consumer because the queue goes."""
        for consumer in list(self.consumers):
            self.remove_consumer(consumer)
            consumer.fail(error or NotFound(f"queue {self.name!r} was deleted"))
