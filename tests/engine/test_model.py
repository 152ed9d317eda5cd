"""Does the engine do what the naive broker does, whatever comes in which order?"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test

from gateway.api.consumer import ConsumeOptions
from gateway.engine.engine import LATER
from gateway.engine.queues.consumer import Consumer
from gateway.errors import AccessRefused, NotFound, PreconditionFailed, ResourceLocked
from gateway.model.declare import Binding, BindingOptions, Overflow, QueueSpec
from gateway.model.message import Message
from gateway.routing.pattern import Pattern
from tests.engine.machine import CHANNELS, OWNER, Observer, Sink
from tests.engine.naive import NaiveQueue, Taker, is_durable

REJECT = Overflow.REJECT_PUBLISH
SPECS = (
    QueueSpec("durable"),
    QueueSpec("transient", durable=False),
    QueueSpec("refuses", max_length=3, overflow=REJECT),
    QueueSpec("refuses-bytes", durable=False, max_length_bytes=40, overflow=REJECT),
    QueueSpec("drops", max_length=3),
    QueueSpec("drops-bytes", durable=False, max_length_bytes=40),
    QueueSpec("ends", max_length=3, overflow=Overflow.END_QUEUE),
    QueueSpec("ends-bytes", durable=False, max_length_bytes=40, overflow=Overflow.END_QUEUE),
    QueueSpec("session", keep_transient=False),
    QueueSpec("clean-session", durable=False, auto_delete=True, keep_transient=False, max_length=4),
    QueueSpec("fleeting", auto_delete=True),
    QueueSpec("mine", exclusive=True),
    QueueSpec("one-active", single_active_consumer=True),
)
KEYS = ["k.a", "k.b", ""]
PATTERNS = [*KEYS, "#", "k.*"]

channels = st.sampled_from(CHANNELS)
picks = st.integers(0, 1000)
sizes = st.sampled_from([6, 6, 6, 15])


class EngineMachine(Observer):
    """Every call goes to the engine and to the naive broker; what the engine says and hands out is checked on the way.

    A commit has two halves, so that anything can happen while one is under way; a page is answered whenever it likes.
    """

    choice = SPECS

    @initialize(data=st.data())
    def begin(self, data):
        self.specs = self._some_specs(data, 3)
        self._begin()
        for number in range(len(self.specs)):
            self._declare(number, lambda _: OWNER)
            self._bind(number, data.draw)
        self._fill()

    def _some_specs(self, data, most):
        """Draw them by name, which is shorter to read."""
        specs = {spec.name: spec for spec in self.choice}
        return [specs[name] for name in data.draw(st.lists(st.sampled_from(list(specs)), min_size=1, max_size=most, unique=True))]

    def _fill(self):
        """Start with empty queues."""

    def _name(self, pick):
        return self.specs[pick % len(self.specs)].name

    # -- definitions -------------------------------------------------------

    @rule(
        which=picks,
        what=st.sampled_from(["declare", "declare", "declare_otherwise", "delete", "bind", "bind", "unbind", "purge", "purge"]),
        data=st.data(),
    )
    def define(self, which, what, data):
        getattr(self, f"_{what}")(which, data.draw)

    def _declare(self, which, draw):
        channel = draw(channels)
        spec = self.specs[which % len(self.specs)]
        try:
            info = self.engine.definitions.declare_queue("/", spec, self.owners[channel])
        except ResourceLocked:
            assert spec.exclusive
            assert channel != OWNER
            assert spec.name in self.naive.queues
            return
        if spec.exclusive and channel != OWNER and spec.name not in self.naive.queues:
            self.engine.definitions.delete_queue("/", spec.name, self.owners[channel])  # only one owner, to keep it simple
            return
        queue = self.naive.queues.setdefault(spec.name, NaiveQueue(spec))
        assert (info.name, info.messages, info.consumers) == (spec.name, queue.ready_count, len(queue.takers))

    def _declare_otherwise(self, which, _draw):
        name = self._name(which)
        if name not in self.naive.queues:
            return
        other = replace(self.naive.queues[name].spec, max_length=99)
        try:
            self.engine.definitions.declare_queue("/", other, self.owners[OWNER])
        except PreconditionFailed:
            return
        raise AssertionError("another limit was taken for the same")

    def _delete(self, which, draw):
        if_unused, if_empty = draw(st.booleans()), draw(st.booleans())
        name = self._name(which)
        queue = self.naive.queues.get(name)
        sinks = [sink for _, taker, sink in self.consumers if taker.queue == name and taker.active]
        refused = queue is None or bool((if_unused and queue.takers) or (if_empty and queue.ready_count))
        if not refused:
            self.naive.forget(name)
        try:
            ready = self.engine.definitions.delete_queue("/", name, self.owners[OWNER], if_unused=if_unused, if_empty=if_empty)
        except NotFound:
            assert queue is None
        except PreconditionFailed:
            assert refused
            assert queue is not None
        else:
            assert not refused
            assert ready == queue.ready_count
            assert [len(sink.cancelled_with) for sink in sinks] == [1] * len(sinks)

    def _bind(self, which, draw):
        key, qos = draw(st.sampled_from(PATTERNS)), draw(st.sampled_from([0, 1, 2, 2]))
        name = self._name(which)
        if name in self.naive.queues:
            self.engine.definitions.bind("/", Binding("amq.topic", name, key, options=BindingOptions(qos=qos)), self.owners[OWNER])
            self.naive.bindings[name, key] = qos

    def _unbind(self, pick, _draw):
        if self.naive.bindings:
            name, key = list(self.naive.bindings)[pick % len(self.naive.bindings)]
            self.engine.definitions.unbind("/", Binding("amq.topic", name, key), self.owners[OWNER])
            del self.naive.bindings[name, key]

    def _purge(self, which, _draw):
        name = self._name(which)
        queue = self.naive.queues.get(name)
        if queue is not None:
            ready = queue.ready_count
            queue.items = [item for item in queue.items if item.consumer is not None]
            for entry, item, taker in self.deliveries:
                if taker.queue == name and ready and entry.segment is not None:
                    item.times_on_disk = item.times - 1  # it is written anew, with its count
            assert self.engine.definitions.purge_queue("/", name, self.owners[OWNER]) == ready

    # -- publishing --------------------------------------------------------

    @rule(key=st.sampled_from(KEYS), persistent=st.sampled_from([True, True, False]), size=sizes)
    def publish(self, key, persistent, size):
        self._publish("amq.topic", key, persistent, size)

    @rule(which=picks, persistent=st.sampled_from([True, True, False]), size=sizes, times=st.integers(1, 6), commit=st.booleans())
    def publish_to_one_queue(self, which, persistent, size, times, commit):
        name = self._name(which)
        for _ in range(times):
            self._publish("", name, persistent, size)
        if commit:
            if self.under_way is None:
                self.begin_commit()
            self.end_commit(page_comes_first=False)

    # -- consuming ---------------------------------------------------------

    @rule(
        which=picks,
        channel=channels,
        prefetch=st.integers(0, 3),
        no_ack=st.sampled_from([False, False, True]),
        exclusive=st.sampled_from([False] * 5 + [True]),
        manual_credit=st.sampled_from([False, False, True]),
        priority=st.sampled_from([0, 0, 0, 1, -1]),
    )
    def consume(self, which, channel, prefetch, no_ack, exclusive, manual_credit, priority=0):
        name = self._name(which)
        options = ConsumeOptions(prefetch, no_ack, exclusive, manual_credit, priority)
        queue = self.naive.queues.get(name)
        taker = Taker(name, channel, options, credit=prefetch)
        sink = Sink(self, taker)
        held = self.engine.holdings[channel]
        locked = queue is not None and (
            (queue.spec.exclusive and channel != OWNER)
            or (bool(queue.takers) and (exclusive or any(other.options.exclusive for other in queue.takers)))
            or (exclusive and queue.spec.single_active_consumer)
        )
        if queue is not None and not locked:
            queue.takers.append(taker)
        try:
            consumer = self.engine.consume("/", name, sink, options, held, self.owners[channel])
        except NotFound:
            assert queue is None
        except (AccessRefused, ResourceLocked):
            assert locked
        else:
            assert not locked
            self.consumers.append((consumer, taker, sink))

    @rule(pick=picks, how=st.sampled_from(["cancel", "pause", "resume", "resume", "credit", "credit"]), delta=st.integers(1, 3))
    def control(self, pick, how, delta):
        consumer, taker = self._consumer(pick)
        if consumer is None:
            return
        if how == "credit":
            if taker.options.manual_credit:
                taker.credit += delta
                consumer.credit(delta)
        elif how == "cancel":
            self._cancel(consumer, taker)
        else:
            taker.paused = how == "pause"
            getattr(consumer, how)()

    def _cancel(self, consumer, taker):
        taker.active = False
        queue = self.naive.queues[taker.queue]
        queue.takers.remove(taker)
        if queue.spec.auto_delete and not queue.takers:
            self.naive.forget(taker.queue)
        self.engine.cancel(consumer)

    @rule(which=picks, channel=channels, no_ack=st.booleans(), times=st.integers(1, 4))
    def get(self, which, channel, no_ack, times):
        for _ in range(times):
            self._get(which, channel, no_ack)

    def _get(self, which, channel, no_ack):
        name = self._name(which)
        queue = self.naive.queues.get(name)
        if queue is None or (queue.spec.exclusive and channel != OWNER):
            return
        taker = Taker(name, channel, ConsumeOptions(no_ack=no_ack))
        real = self.engine.definitions.usable_queue("/", name, self.owners[channel])
        getter = Consumer(real, None, taker.options, self.engine.holdings[channel], self.owners[channel])
        self.numbers += 1
        self.waiting[channel, self.numbers] = taker
        entry = self.engine.get(real, getter, channel, self.numbers)
        if entry is LATER:
            assert queue.ready_count or (channel, self.numbers) not in self.waiting
            return
        del self.waiting[channel, self.numbers]
        if entry is None:
            assert queue.ready == []
        else:
            self.delivered(taker, entry, may_take=True)

    # -- settling ----------------------------------------------------------

    @rule(pick=picks, how=st.sampled_from(["ack", "ack", "reject", "hand over", "requeue", "requeue"]), times=st.integers(1, 4))
    def settle(self, pick, how, times):
        for _ in range(min(times, len(self.deliveries))):
            entry, item, taker = self.deliveries.pop(pick % len(self.deliveries))
            if how == "requeue":
                self.put_back(entry, item, taker)
                self.engine.nack(entry, requeue=True)
                continue
            self.take_out(entry, item, taker, automatically=how == "hand over")
            settle = {
                "ack": self.engine.ack,
                "reject": partial(self.engine.nack, requeue=False),
                "hand over": self.engine.handed_over,
            }[how]
            settle(entry)
            with pytest.raises(NotFound):
                settle(entry)

    @rule(channel=channels)
    def close_channel(self, channel):
        for consumer, taker, _ in self.consumers:
            if taker.channel == channel and taker.active:
                self._cancel(consumer, taker)
        for entry, item, taker in [d for d in self.deliveries if d[2].channel == channel]:
            self.put_back(entry, item, taker)
        self.deliveries = [d for d in self.deliveries if d[2].channel != channel]
        self.waiting = {at: taker for at, taker in self.waiting.items() if at[0] != channel}
        if channel == OWNER and "mine" in self.naive.queues:
            self.naive.forget("mine")
        self.engine.forget_waiting(channel)
        self.engine.close_channel(channel)
        self.engine.definitions.release(self.owners[channel])
        self.engine.holdings[channel] = set()

    # -- last values -------------------------------------------------------

    @rule(
        key=st.sampled_from(KEYS),
        body=st.sampled_from([b"", b"1", b"2"]),
        persistent=st.booleans(),
        pattern=st.sampled_from(PATTERNS),
    )
    def retain(self, key, body, persistent, pattern):
        route = self.engine.vhost("/").route("amq.topic", key)
        assert self.engine.kept.retain(route, Message(route.address, body, persistent)) is None
        if body:
            self.naive.retained[key] = body
        else:
            self.naive.retained.pop(key, None)
        expected = sorted(body for key, body in self.naive.retained.items() if Pattern(pattern).matches(key))
        assert sorted(message.body for message in self.engine.kept.retained("/", "amq.topic", pattern)) == expected

    # -- the disk ----------------------------------------------------------

    @precondition(lambda self: self.under_way is None)
    @rule()
    def begin_commit(self):
        self.under_way = self.disk.prepare(self.engine.take_batch())
        self.engine.batch_prepared()
        assert self.to_be_written <= self.disk.written
        self.to_be_written = set()

    @precondition(lambda self: self.under_way is not None)
    @rule(page_comes_first=st.booleans())
    def end_commit(self, page_comes_first):
        self.disk.apply(self.under_way)
        if page_comes_first:
            self._answer_pages()  # it is on disk, and the engine has not heard of it
        self.under_way = None
        self.engine.committed()

    @precondition(lambda self: self.pages)
    @rule()
    def _answer_pages(self):
        pages, self.pages = self.pages, []
        for queue_id, after_position, max_bytes in pages:
            self.engine.page_loaded(self.disk.page(queue_id, after_position, max_bytes), after_position)

    @rule(now=st.sampled_from([False] * 3 + [True]))
    def settle_down(self, now):
        """Finish what is under way; then memory, disk and the naive broker agree, and nothing waits that could go."""
        if not now:
            return
        self._commit_all()
        self.check_that_all_agree()

    def _commit_all(self):
        while self.under_way is not None or self.pages or self.engine.batch or self.disk.carried:
            if self.under_way is None:
                self.begin_commit()
            self.end_commit(page_comes_first=False)
            if self.pages:
                self._answer_pages()

    @rule(now=st.sampled_from([False] * 5 + [True]))
    def restart(self, now):
        if not now:
            return
        self._commit_all()
        self.naive.restart()
        self.deliveries = []
        self._start()
        for record in self.disk.load():
            self.engine.replay(record)


class SmallWindowMachine(EngineMachine):
    """The same with room for two messages of a durable queue in memory: most of them live on disk."""

    window_budget = 2 * 410
    choice = tuple(spec for spec in SPECS if is_durable(spec))

    def _fill(self):
        """Start with more on disk than memory holds, and somebody who takes it one by one."""
        for number in range(len(self.specs)):
            for _ in range(4):
                self.publish_to_one_queue(number, persistent=True, size=15, times=6, commit=True)
            self.consume(number, OWNER, prefetch=1, no_ack=False, exclusive=False, manual_credit=False)


QUICK = settings(
    max_examples=50,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
DEEP = settings(QUICK, max_examples=400, stateful_step_count=120)

TestEngine = EngineMachine.TestCase
TestEngine.settings = QUICK
TestEngineWithBacklogs = SmallWindowMachine.TestCase
TestEngineWithBacklogs.settings = QUICK


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("machine", [EngineMachine, SmallWindowMachine])
def test_engine_does_what_the_naive_broker_does_over_long_sequences(machine):
    run_state_machine_as_test(machine, settings=DEEP)
