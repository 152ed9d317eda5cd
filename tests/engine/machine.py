"""Does what the engine says and hands out agree with the naive broker? The rules that drive both are in the test."""

from __future__ import annotations

from hypothesis.stateful import RuleBasedStateMachine, invariant

from gateway.engine.engine import UNROUTABLE, Engine
from gateway.engine.queues.delivery import TRANSIENT
from gateway.errors import MessageRefused
from gateway.model.message import Decoders, Message
from tests.engine.disk import Disk, references
from tests.engine.naive import Item, NaiveBroker, is_durable

CHANNELS = (0, 1, 2)
OWNER = 0


class Sink:
    """Tells the machine what one consumer is handed."""

    def __init__(self, machine, taker):
        self.machine = machine
        self.taker = taker
        self.cancelled_with = []

    def deliver(self, delivery):
        self.machine.delivered(self.taker, delivery)

    def deliver_transient(self, message, options):
        self.machine.tapped(self.taker, message)

    def cancelled(self, reason):
        self.cancelled_with.append(reason)


class Observer(RuleBasedStateMachine):
    """The engine, the naive broker and the disk side by side; also whom the engine tells its events."""

    window_budget = 1 << 20

    def __init__(self):
        super().__init__()
        self.naive = None

    def _begin(self):
        self.naive = NaiveBroker()
        self.disk = self.make_disk()
        self.bodies = 0
        self.under_way = None
        self.now_ms = 1_000_000
        self.deliveries = []  # (entry, item, taker)
        self.to_be_written = set()
        self._start()

    def make_disk(self):
        return Disk()

    def _start(self):
        self.engine = Engine(self, Decoders().properties, window_budget=self.window_budget)
        self.engine.advance(self.now_ms)
        self.engine.holdings = {channel: set() for channel in CHANNELS}
        self.owners = {channel: object() for channel in CHANNELS}
        self.consumers = []  # (consumer, taker, sink)
        self.pages = []
        self.waiting = {}
        self.numbers = 0
        self.taps = None

    def check_invariants(self, settings, output, runtimes):
        """As it is, but not told step by step: a failing example is to be short."""
        super().check_invariants(settings, lambda _: None, runtimes)

    # -- what the engine says ----------------------------------------------

    def page_wanted(self, queue_id, after_position, max_bytes):
        self.pages.append((queue_id, after_position, max_bytes))

    def got(self, channel, number, entry):
        taker = self.waiting.pop((channel, number))
        if entry is None:
            queue = self.naive.queues.get(taker.queue)
            assert queue is None or queue.ready == []
        else:
            self.delivered(taker, entry, may_take=True)

    def returned(self, entry):
        pass

    def died(self, entry, reason):
        pass

    def dropped(self, queue, reason, amount):
        assert amount > 0
        if reason == "maxlen":
            self.naive.queues[queue].drop_heads(amount)

    def unroutable(self, address, messages=1):
        pass

    def consumer_failed(self, queue, error):
        raise error

    def delivered(self, taker, entry, *, may_take=False):
        """Take a delivery: it is the queue's first, and its consumer may have it."""
        assert may_take or taker.can_take, "prefetch, credit or pause was not heeded"
        queue = self.naive.queues[taker.queue]
        assert may_take or self.has_its_turn(queue, taker), "it was another's turn"
        item = self.expected(queue, entry)
        assert entry.message.body == item.body, "not in the order of publishing"
        item.times += 1
        assert entry.redelivered is item.redelivered
        assert entry.count == item.times
        taker.credit -= 1
        if taker.options.no_ack:
            queue.items.remove(item)
            self._automatically(entry, item)
            return
        item.consumer = taker
        taker.held += 1
        self.deliveries.append((entry, item, taker))

    def has_its_turn(self, queue, taker):
        return taker in queue.entitled

    def expected(self, queue, entry):
        """Return what is to be handed out next."""
        return queue.ready[0]

    def _automatically(self, entry, item):
        """Nobody acknowledged it: if it is not on disk, it has to go there all the same."""
        if item.lasting and entry.segment is None:
            self.to_be_written.add(item.body)

    def tapped(self, taker, message):
        assert self.taps is not None, "a transient message was handed out, but not while it was published"
        self.taps.append((taker, message.body))

    # -- what is done to both ------------------------------------------------

    def _publish(self, exchange, key, persistent, size, priority=0, expires_at_ms=0):
        self.bodies += 1
        body = b"%0*d" % (size, self.bodies)
        reached = self.naive.reached(exchange, key)
        queues = {name: self.naive.queues[name] for name in reached}
        lasting = {name: persistent and reached[name] > 0 for name in reached}
        queued = {n: q for n, q in queues.items() if lasting[n] or q.spec.keep_transient}
        refused = any(queue.refuses(body) for queue in queued.values())
        if not refused:
            for name in [name for name, queue in queued.items() if queue.ends(body)]:
                self.naive.forget(name)
                del reached[name], queues[name], queued[name]
            for name, queue in queued.items():
                item = Item(body, lasting[name] and is_durable(queue.spec), own_expiry=expires_at_ms)
                item.priority = min(priority, queue.spec.max_priority)
                item.expires_at = queue.expiry(expires_at_ms, self.now_ms)
                queue.items.append(item)
        if refused:
            self.refused(body, persistent, [queue for queue in queued.values() if queue.refuses(body)])
        self.taps = []
        route = self.engine.vhost("/").route(exchange, key)
        answer = self.engine.publish(
            route, Message(route.address, body, persistent, priority=priority, expires_at_ms=expires_at_ms)
        )
        self._check_answer(answer, refused=refused, reached=bool(reached))
        tapped = [queue.foremost for name, queue in queues.items() if name not in queued and queue.takers]
        assert sorted(map(id, (taker for taker, _ in self.taps))) == sorted(map(id, [] if refused else tapped))
        self.taps = None
        for name, queue in queued.items():
            waits = self.engine.vhost("/").queues[name].backlog is not None or not self.awake(queue)
            assert refused or waits or not queue.must_drop

    def awake(self, queue):
        """Return what is ready and not waiting to be read from disk."""
        return queue.ready

    def refused(self, body, persistent, queues):
        """Do in the naive broker what becomes of a message that these queues refuse."""

    def _check_answer(self, answer, *, refused, reached):
        if refused:
            assert isinstance(answer, MessageRefused)
        elif reached:
            assert answer is None
        else:
            assert answer is UNROUTABLE

    def _consumer(self, pick):
        active = [(consumer, taker) for consumer, taker, _ in self.consumers if taker.active]
        return active[pick % len(active)] if active else (None, None)

    def take_out(self, entry, item, taker, *, automatically):
        """Settle a delivery in the naive broker, if its queue is still there."""
        taker.held -= 1
        queue = self.naive.queues.get(taker.queue)
        if queue is not None and item in queue.items:
            queue.items.remove(item)
            if automatically:
                self._automatically(entry, item)

    def put_back(self, entry, item, taker):
        """Requeue a delivery in the naive broker."""
        taker.held -= 1
        item.consumer = None
        item.redelivered = True
        item.times_on_disk = item.times

    def check_that_all_agree(self):
        """Memory, disk and the naive broker hold the same, and nothing waits that could go."""
        for name, queue in self.naive.queues.items():
            if is_durable(queue.spec):
                assert self.disk.bodies(name) == [item.body for item in queue.lasting]
            backlog = self.engine.vhost("/").queues[name].backlog
            assert backlog is None or all(entry.slot == TRANSIENT for entry in backlog.in_memory())
            assert not (queue.ready and queue.entitled)
        assert self.waiting == {}
        lasting = {at: qos for at, qos in self.naive.bindings.items() if is_durable(self.naive.queues[at[0]].spec)}
        assert self.disk.granted() == lasting
        assert self.disk.last_values() == self.naive.retained

    # -- always ------------------------------------------------------------

    @invariant()
    def counts_are_right(self):
        if self.naive is None:
            return
        assert set(self.engine.vhost("/").queues) == set(self.naive.queues)
        for name, queue in self.naive.queues.items():
            real = self.engine.vhost("/").queues[name]
            assert real.count == len(queue.items)
            assert real.body_bytes == queue.body_bytes
            assert real.ready_count == queue.ready_count
            assert len(real.consumers) == len(queue.takers)
            assert real.window_bytes == sum(len(entry.message.body) + 400 for entry in real.ready)

    @invariant()
    def the_batch_knows_what_must_be_written(self):
        if self.naive is None:
            return
        for message in self.engine.batch.messages:
            assert message.live == len(references(message))
        assert self.engine.batch.unsettled == sum(message.live > 0 for message in self.engine.batch.messages)

    @invariant()
    def what_is_ready_is_handed_out(self):
        if self.naive is None:
            return
        for name, queue in self.naive.queues.items():
            if not self.engine.vhost("/").queues[name].paged:
                assert not (queue.ready and queue.entitled)
            real = self.engine.vhost("/").queues[name].consumers
            active = [taker for consumer, taker, _ in self.consumers if consumer in real and consumer.is_single_active]
            assert active == ([queue.active] if queue.spec.single_active_consumer and queue.takers else [])
