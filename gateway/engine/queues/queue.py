"""How does one queue keep its order, its limits and its consumers' turns?"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.engine.queues.aging import strip
from gateway.engine.queues.consumer import Consumer
from gateway.engine.queues.dead_letter import Reason
from gateway.engine.queues.delivery import TRANSIENT, UNWRITTEN, Entry, in_order
from gateway.engine.queues.holding import Holding
from gateway.engine.queues.lane import ENTRY_COST_BYTES, Lane
from gateway.engine.queues.line import Tiers
from gateway.engine.queues.returns import MOST_DELAY_MS, Returns
from gateway.engine.queues.terms import Terms
from gateway.errors import GatewayError, NotFound
from gateway.model.declare import BindingOptions
from gateway.model.message import Message
from gateway.model.records import DeliveryCounted


class Queue(Holding):
    """A queue: what comes in, goes out, comes back, and who takes it; `Holding` says what its attributes are."""

    __slots__ = ()

    # -- settings -----------------------------------------------------------

    def apply(self, terms: Terms) -> None:
        """Change the settings live: what is too much goes at once; a time to live is that of messages from now on."""
        rejects = self.rejects
        leases = self.leases
        self.take_terms(terms)
        if self.leases is not None and leases is None:
            self.leases.adopt(sorted(self.engine.definitions.held(self), key=in_order))
        if rejects or self.rejects:
            self.engine.generation += 1
        if self.bounded and self.window_bytes:
            self._drop_head()
        if self.paged:
            self.engine.timers.at(self.engine.now_ms, lambda _: self.want_page())  # at start nothing can be read yet
        self.engine.finish()

    # -- in -----------------------------------------------------------------

    def enqueue(self, message: Message, options: BindingOptions | None) -> None:
        """Take a message that wants an acknowledgement; journaled if the queue is durable and the message persistent."""
        lane = self.plain
        if lane is None or message.expires_at_ms:
            self._enqueue_the_long_way(message, options, journaled=self.durable and message.persistent)
            return
        position = lane.next_position
        lane.next_position = position + 1
        if self.durable and message.persistent:
            entry = Entry(message, lane, position, options, UNWRITTEN)
            message.live += 1
            if message.first is None:
                message.first = entry
            elif message.more is None:
                message.more = [entry]
            else:
                message.more.append(entry)
        else:
            entry = Entry(message, lane, position, options, TRANSIENT)
        self.count += 1
        self.body_bytes += len(message.body)
        if self.able and not lane.ready and lane.backlog is None:
            self._hand(entry)
        else:
            self._keep(lane, entry)

    def enqueue_transient(self, message: Message, options: BindingOptions | None) -> None:
        """Take a message that is never journaled."""
        lane = self.plain
        if lane is None or message.expires_at_ms:
            self._enqueue_the_long_way(message, options, journaled=False)
            return
        entry = Entry(message, lane, lane.next_position, options, TRANSIENT)
        lane.next_position += 1
        self.count += 1
        self.body_bytes += len(message.body)
        if self.able and not lane.ready and lane.backlog is None:
            self._hand(entry)
        else:
            self._keep(lane, entry)

    def _enqueue_the_long_way(self, message: Message, options: BindingOptions | None, *, journaled: bool) -> None:
        """Take a message that has a priority here, or expires.

        One whose time is up this very moment is still handed out if it need not wait.
        """
        lane = self.lane if self.turns is None else self.turns.lane_of(message)
        entry = Entry(message, lane, lane.next_position, options, UNWRITTEN if journaled else TRANSIENT)
        lane.next_position += 1
        if journaled:
            message.live += 1
            if message.first is None:
                message.first = entry
            elif message.more is None:
                message.more = [entry]
            else:
                message.more.append(entry)
        self.count += 1
        self.body_bytes += len(message.body)
        entry.expires_at_ms = self.expiry_of(message, self.engine.now_ms)
        if 0 < entry.expires_at_ms < self.engine.now_ms:
            self.engine.died(entry, Reason.EXPIRED)
        elif self.able and not self.paged and not self.window_bytes:
            self._hand(entry)
        else:
            self.mortal = self.mortal or entry.expires_at_ms > 0
            if self.turns is not None:
                self.turns.fill(lane)
            self._keep(lane, entry)
            if self.mortal:
                strip(self)

    def _keep(self, lane: Lane, entry: Entry) -> None:
        """Put a new entry at the end."""
        if entry.slot == UNWRITTEN:
            self.engine.batch.undelivered += 1
        size = len(entry.message.body) + ENTRY_COST_BYTES
        if lane.ready is not None and lane.backlog is None and self.window_bytes + size <= self.engine.window_budget:
            lane.ready.append(entry)  # what `Lane.append` does, most of the time
            self.window_bytes += size
        else:
            lane.append(entry)
        if self.bounded:
            self._drop_head()
        if self.able:
            self.pump()

    def _drop_head(self) -> None:
        """Drop the oldest of the lowest priority, until there are not too many. What was handed out can't be dropped."""
        dropped = 0
        engine = self.engine
        while self.is_over():
            lane = self.lane if self.turns is None else self.turns.lowest()
            if lane is None or not lane.ready:
                break
            if self.terms.dead_letter_exchange is not None:
                engine.died(lane.pop(), Reason.MAXLEN)
            else:
                engine.settle(lane.pop())
                dropped += 1
        if dropped:
            engine.events.dropped(self.name, Reason.MAXLEN.value, dropped)
        self.want_page()
        if self.mortal:
            strip(self)

    # -- out ----------------------------------------------------------------

    def _hand(self, entry: Entry) -> None:
        """Hand an entry to the consumer whose turn it is."""
        able = self.able
        consumer = able[0]
        if consumer.no_ack and not consumer.manual_credit:
            if len(able) > 1:
                able.append(able.pop(0))
        else:
            left = consumer.credit_left = consumer.credit_left - 1
            if left == 0:
                self.spent(consumer)
            elif len(able) > 1:
                able.append(able.pop(0))
        entry.count += 1
        entry.consumer = consumer
        sink = consumer.sink
        assert sink is not None
        if consumer.no_ack:
            self.engine.settle_automatically(entry)
        else:
            consumer.held.add(entry)
            if self.leases is not None:
                self.leases.began(entry)
        try:
            sink.deliver(entry)
        except Exception as error:  # a front-end's fault must not reach the publisher
            self.engine.consumer_failed(consumer, error)

    def spent(self, consumer: Consumer) -> None:
        """The consumer whose turn it is has no credit left."""
        del self.able[0]
        consumer.in_turn = False
        if self.line is not None and not self.able:
            self.line.spent()

    def pump(self) -> None:
        """Hand out what is ready while a consumer can take it."""
        if self.mortal or self.turns is not None or self.line is not None:
            self._pump_the_long_way()
            return
        ready = self.lane.ready
        able = self.able
        while ready and able:
            entry = ready.popleft()
            self.window_bytes -= len(entry.message.body) + ENTRY_COST_BYTES
            self._hand(entry)
        if self.paged:
            self.want_page()

    def _pump_the_long_way(self) -> None:
        """Hand out what has its turn and has not expired."""
        while self.able:
            entry = self._next()
            if entry is None:
                break
            self._hand(entry)
        if self.paged:
            self.want_page()
        if self.mortal:
            strip(self)

    def _next(self) -> Entry | None:
        """Take the next entry out of its lane; None: there is none, or none in memory. What has expired is given up."""
        turns = self.turns
        while True:
            lane = self.lane if turns is None else turns.lane()
            if lane is None or not lane.ready:
                return None
            entry = lane.pop()
            if 0 < entry.expires_at_ms <= self.engine.now_ms:
                self.engine.died(entry, Reason.EXPIRED)
                continue
            if turns is not None:
                turns.taken(lane)
            return entry

    def take(self, consumer: Consumer) -> Entry | None:
        """Take one entry for a `get`; None: nothing is in memory. The caller wants the next page."""
        entry = self._next()
        if entry is None:
            return None
        entry.count += 1
        entry.consumer = consumer
        if consumer.no_ack:
            self.engine.settle_automatically(entry)
        else:
            consumer.held.add(entry)
            if self.leases is not None:
                self.leases.began(entry)
        return entry

    # -- back ---------------------------------------------------------------

    def requeue(self, entry: Entry, delay_ms: int = 0) -> None:
        """Put a delivered entry back to its old place, at once or after a while. The caller pumps."""
        entry.consumer = None
        entry.redelivered = True
        due_ms = self.engine.now_ms + min(delay_ms, MOST_DELAY_MS) if delay_ms > 0 else 0
        self.note_return(entry, due_ms)
        if due_ms:
            self.hold(entry, due_ms)
        else:
            self.restore(entry)

    def note_return(self, entry: Entry, due_ms: int) -> None:
        """Have it last how often an entry was delivered, and when it may be again, or that it is spared."""
        if entry.slot != TRANSIENT:
            self.engine.batch.records.append(DeliveryCounted(entry, entry.count, due_ms or min(entry.expires_at_ms, 0)))

    def hold(self, entry: Entry, due_ms: int, *, on_disk: bool = False) -> None:
        """Let an entry wait until a time. `on_disk`: it comes from there."""
        if self.returns is None:
            self.returns = Returns(self)
        self.returns.hold(entry, due_ms, on_disk=on_disk)

    def restore(self, entry: Entry) -> None:
        """Put an entry back to its old place. The caller pumps."""
        lane = self.lane if self.turns is None else self.turns.lanes[entry.queue_id - self.id]
        if self.turns is not None:
            self.turns.fill(lane)
        lane.put_back(entry)
        if entry.expires_at_ms > 0:
            self.mortal = True

    # -- consumers ----------------------------------------------------------

    def other_able(self, holder: Consumer) -> Consumer | None:
        """Return a consumer that can take a message, but not `holder`."""
        if self.line is not None:
            return self.line.other_able(holder)
        return next((consumer for consumer in self.able[:2] if consumer is not holder), None)

    @property
    def foremost(self) -> Sequence[Consumer]:
        """The one consumer that gets what never waits; none: there is nobody."""
        return self.consumers[:1] if self.line is None else self.line.foremost

    def add_consumer(self, consumer: Consumer) -> None:
        """Let a consumer take its turns from now on."""
        self.consumers.append(consumer)
        if consumer.priority and self.line is None:
            self.line = Tiers(self)
        if self.line is not None:
            self.line.added(consumer)
        if consumer.able:
            self.consumer_able(consumer)

    def remove_consumer(self, consumer: Consumer) -> None:
        """End a consumer's turns. The caller pumps: another may have its turn now."""
        consumer.active = False
        self.consumer_unable(consumer)
        if consumer in self.consumers:
            self.consumers.remove(consumer)
            if self.line is not None:
                self.line.removed(consumer)
            self.used()

    def consumer_able(self, consumer: Consumer) -> None:
        """A consumer got credit or was resumed."""
        if not consumer.in_turn:
            if self.line is not None:
                self.line.enter(consumer)
            else:
                consumer.in_turn = True
                self.able.append(consumer)
        self.pump()
        if self.engine.dead:
            self.engine.burial.work_off()

    def consumer_unable(self, consumer: Consumer) -> None:
        """A consumer was paused or is gone. Cost: the consumers that can take a message."""
        if not consumer.in_turn:
            return
        if self.line is not None:
            self.line.leave(consumer)
        else:
            consumer.in_turn = False
            self.able.remove(consumer)

    def used(self) -> None:
        """Somebody uses the queue: the time after which it expires begins anew."""
        if self.idleness is not None:
            self.idleness.begin()

    # -- lanes --------------------------------------------------------------

    def recover(self, lane: Lane, live: int, live_bytes: int, next_position: int) -> None:
        """Take over what the journal holds for one of its lanes."""
        if self.turns is not None and live:
            self.turns.fill(lane)
        lane.recover(live, next_position)
        if not live:
            return
        self.count += live
        self.body_bytes += live_bytes
        if self.restless or self.is_over():
            self.engine.timers.at(0, lambda _: self.want_page())

    def want_page(self) -> None:
        """Have what is on disk come, if the window runs low and somebody has a use for it."""
        if not self.paged:
            return
        over = self.is_over()
        wanted = bool(self.able or self.waiting or over or self.restless)
        if self.turns is not None:
            filled = self.turns.refill(wanted=wanted, over=over)
        else:
            filled = self.lane.refill(urgent=True, wanted=wanted)
        if wanted and self.returns is not None:
            self.returns.ask()
        if filled:
            self.filled()

    def expired(self) -> None:
        """Heads have expired: see what comes behind them, if that is on disk."""
        filled = False
        for lane in self.lanes if self.paged else ():
            if not lane.ready:
                filled = lane.refill(urgent=True, wanted=True) or filled
        if filled:
            self.filled()

    def filled(self) -> None:
        """There is more in memory than before."""
        if self.is_over():
            self._drop_head()
        while self.waiting:
            entry = self.take(self.waiting[0][2])
            if entry is None and self.paged:
                break
            channel, number, _ = self.waiting.popleft()
            if not self.waiting:
                self.engine.getting.pop(self, None)
            self.engine.events.got(channel, number, entry)
        self.pump()

    def end(self, error: GatewayError | None = None) -> None:
        """Cancel every consumer and every timer because the queue goes."""
        for consumer in list(self.consumers):
            self.remove_consumer(consumer)
            consumer.fail(error or NotFound(f"queue {self.name!r} was deleted"))
        self.engine.timers.cancel(self.head_timer)
        if self.leases is not None:
            self.leases.end()
        if self.idleness is not None:
            self.idleness.end()
