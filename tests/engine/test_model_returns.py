"""Do leases, retries and delays do what the naive broker does, whatever comes in which order?"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from gateway.errors import NotFound
from gateway.model.declare import QueueSpec, Retry
from tests.engine.machine import OWNER
from tests.engine.naive import is_durable
from tests.engine.test_model import DEEP, QUICK, channels, picks, sizes
from tests.engine.test_model_features import NO_BURST, TO_DEAD, FeatureMachine

LEASE = {"consumer_timeout_ms": 37}
RETURNS = (
    QueueSpec("retry", retry=Retry(10, 2.0, 35)),
    QueueSpec("retry-dead", retry=Retry(10, 1.0, attempts=2), **TO_DEAD),
    QueueSpec("retry-drops", durable=False, max_length=3, retry=Retry(13)),
    QueueSpec("leased", **LEASE),
    QueueSpec("leased-retry", retry=Retry(13), **LEASE),
    QueueSpec("leased-limited", delivery_limit=1, **LEASE, **TO_DEAD),
    QueueSpec("leased-single", single_active_consumer=True, **LEASE),
    QueueSpec("leased-urgent", max_priority=1, **NO_BURST, **LEASE),
    QueueSpec("leased-transient", durable=False, retry=Retry(13), **LEASE),
)


class ReturnsMachine(FeatureMachine):
    """As its parent. Which leases end is taken from the engine, and checked: it may, and where it must it does."""

    choice = RETURNS

    def _fill(self):
        """Start with what is held by one, and somebody else who could have it."""
        for number in range(len(self.specs)):
            self.publish_to_one_queue(number, persistent=True, size=15, times=6, commit=True)
            self.consume(number, OWNER, prefetch=3, no_ack=False, exclusive=False, manual_credit=False)
            self.consume(number, 1, prefetch=2, no_ack=False, exclusive=False, manual_credit=False)

    def _start(self):
        self.lapsed = []
        self.closing = False
        self.passed = None
        super()._start()

    # -- what waits ---------------------------------------------------------

    def put_back(self, entry, item, taker, delay_ms=0):
        super().put_back(entry, item, taker)
        queue = self.naive.queues.get(taker.queue)
        if queue is None or item not in queue.items:
            return
        retry = queue.spec.retry
        if retry is not None and 0 < retry.attempts < item.times and item not in self.too_often:
            self.too_often.append(item)
        if item in self.too_often or self.closing:
            return
        if retry is not None:
            delay_ms = max(delay_ms, retry.delay_ms(item.times))
        if delay_ms:
            item.due = self.due(item, self.now_ms + delay_ms)
            item.times_on_disk = item.times

    def awake(self, queue):
        returns = self.engine.vhost("/").queues[queue.spec.name].returns
        asleep = returns._overdue if returns is not None else ()
        return [item for item in queue.ready if item.place not in asleep]

    def due(self, item, due):
        """Nothing waits longer than it lives."""
        return min(due, item.expires_at) if item.expires_at else due

    def expected(self, queue, entry):
        """What sleeps may be passed, and so may what is due in this very moment."""
        for item in self.awake(queue):
            if item.body == entry.message.body or item.was_due != self.now_ms:
                return item
        raise AssertionError("it is not ready")

    def has_its_turn(self, queue, taker):
        """While a lease ends its holder is passed."""
        rest = [other for other in queue.takers if other.can_take and other is not self.passed]
        return super().has_its_turn(queue, taker) or (self.passed in queue.takers and taker in queue.first(rest))

    def delivered(self, taker, entry, *, may_take=False):
        queue = self.naive.queues[taker.queue]
        item = self.expected(queue, entry)
        super().delivered(taker, entry, may_take=may_take)
        item.place = entry.queue_id, entry.position
        if entry.expires_at_ms == item.expires_on_disk:
            item.expires_at = item.expires_on_disk  # it was read from there, where it has lived since its commit
        item.lease_until = self.now_ms + queue.spec.consumer_timeout_ms

    def fade(self):
        """Let queues go that nobody used."""

    # -- leases -------------------------------------------------------------

    def _others(self, queue, taker):
        """Return who else is there, and who of them could take something now."""
        others = [other for other in queue.takers if other is not taker]
        return others, [other for other in others if other.can_take and (not self._single(queue) or other is queue.active)]

    def _single(self, queue):
        return queue.spec.single_active_consumer

    def _is_getter(self, queue, taker):
        return taker.active and taker not in queue.takers

    def returned(self, entry):
        """An entry comes back: if its delivery is still held, its lease has ended."""
        name = entry.queue.name
        place = entry.queue, entry.queue_id, entry.position
        found = [d for d in self.deliveries if (d[0].queue, d[0].queue_id, d[0].position) == place]
        if not found:
            return
        (delivery,) = found
        old, item, taker = delivery
        queue = self.naive.queues[name]
        assert old is not entry
        assert queue.spec.consumer_timeout_ms
        assert item.lease_until <= self.now_ms, "it ended too early"
        if self._single(queue) and taker is queue.active and len(queue.takers) > 1:
            queue.depose()
        others, able = self._others(queue, taker)
        self.deliveries.remove(delivery)
        if not self._is_getter(queue, taker):
            assert others, "nobody else was there"
            holder_able = taker.can_take and (not self._single(queue) or taker is queue.active)
            assert able or not holder_able, "the holder would have got it again"
            self.lapsed.append(delivery)
            self.passed = taker
        self.put_back(entry, item, taker)
        taker.held += 1

    def _check_leases(self):
        for _, item, taker in self.deliveries:
            queue = self.naive.queues.get(taker.queue)
            if queue is None or item not in queue.items or not queue.spec.consumer_timeout_ms or item.lease_until > self.now_ms:
                continue
            assert not self._is_getter(queue, taker)
            others, able = self._others(queue, taker)
            assert not able, "another could have had it"
            assert not (self._single(queue) and taker is queue.active and others), "it is still the active one"
            item.lease_until = self.now_ms + queue.spec.consumer_timeout_ms

    # -- rules --------------------------------------------------------------

    @rule(ms=st.sampled_from([3, 10, 20, 40, 100]))
    def time_passes(self, ms):
        """From appointment to appointment, so that all happens when it should."""
        target = self.now_ms + ms
        while True:
            self.now_ms = min(max(self.engine.timers.next_due_ms, self.now_ms), target)
            self.fade()
            for queue in self.naive.queues.values():
                for item in queue.items:
                    if item.due and item.due <= self.now_ms:
                        item.due, item.was_due = 0, self.now_ms
            self.engine.advance(self.now_ms)
            self.passed = None
            if self.engine.timers.next_due_ms > self.now_ms:
                self._check_leases()
                if self.now_ms == target:
                    return

    @rule(which=picks, persistent=st.sampled_from([True, True, False]), size=sizes, priority=st.sampled_from([0, 0, 1]))
    def publish_special(self, which, persistent, size, priority):
        self._publish("", self._name(which), persistent, size, priority)

    @rule(pick=picks, delay_ms=st.sampled_from([0, 5, 25, 80]), times=st.integers(1, 4))
    def give_back(self, pick, delay_ms, times):
        for _ in range(min(times, len(self.deliveries))):
            entry, item, taker = self.deliveries.pop(pick % len(self.deliveries))
            self.put_back(entry, item, taker, delay_ms)
            self.engine.nack(entry, requeue=True, delay_ms=delay_ms)

    @precondition(lambda self: self.deliveries)
    @rule(pick=picks, lease_ms=st.sampled_from([0, 5, 60, 200]))
    def extend(self, pick, lease_ms):
        entry, item, _ = self.deliveries[pick % len(self.deliveries)]
        self.engine.extend(entry, lease_ms)
        item.lease_until = self.now_ms + lease_ms

    @precondition(lambda self: self.lapsed)
    @rule(pick=picks, how=st.sampled_from(["ack", "nack", "reject", "hand over", "extend"]))
    def say_it_too_late(self, pick, how):
        entry, _, taker = delivery = self.lapsed[pick % len(self.lapsed)]
        say = {
            "ack": lambda: self.engine.ack(entry),
            "nack": lambda: self.engine.nack(entry, requeue=True, delay_ms=5),
            "reject": lambda: self.engine.nack(entry, requeue=False),
            "hand over": lambda: self.engine.handed_over(entry),
            "extend": lambda: self.engine.extend(entry, 5),
        }[how]
        if how != "extend":
            self.lapsed.remove(delivery)
            taker.held -= 1
        if entry.queue.deleted:
            say()
        else:
            with pytest.raises(NotFound):
                say()

    @rule(channel=channels)
    def close_channel(self, channel):
        self.lapsed = [d for d in self.lapsed if d[2].channel != channel]
        self.closing = True
        super().close_channel(channel)
        self.closing = False


class SmallWindowReturnsMachine(ReturnsMachine):
    """The same with room for two messages of a durable queue in memory: what waits sleeps on disk."""

    window_budget = 2 * 410
    choice = tuple(spec for spec in RETURNS if is_durable(spec))


TestReturns = ReturnsMachine.TestCase
TestReturns.settings = settings(QUICK, max_examples=30)
TestReturnsWithBacklogs = SmallWindowReturnsMachine.TestCase
TestReturnsWithBacklogs.settings = settings(QUICK, max_examples=30)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("machine", [ReturnsMachine, SmallWindowReturnsMachine])
def test_returns_do_what_the_naive_broker_does_over_long_sequences(machine):
    run_state_machine_as_test(machine, settings=DEEP)
