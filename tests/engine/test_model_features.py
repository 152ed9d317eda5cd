"""Do priorities, times to live, delivery limits and dead letters do what the naive broker does, whatever comes in which order?"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule, run_state_machine_as_test

from gateway.engine.queues.dead_letter import Reason
from gateway.model.declare import QueueSpec
from tests.engine.machine import OWNER
from tests.engine.naive import Item, is_durable
from tests.engine.test_model import DEEP, QUICK, EngineMachine, channels, picks, sizes

DEAD = QueueSpec("dead")
TO_DEAD = {"dead_letter_exchange": "", "dead_letter_routing_key": "dead"}
NO_BURST = {"priority_burst": 10**6}  # turns of lower priorities have tests of their own
FEATURES = (
    QueueSpec("urgent", max_priority=2, **NO_BURST),
    QueueSpec("urgent-transient", durable=False, max_priority=2, **NO_BURST),
    QueueSpec("urgent-drops", max_priority=2, max_length=3, **NO_BURST, **TO_DEAD),
    QueueSpec("short", message_ttl_ms=25),
    QueueSpec("short-dead", message_ttl_ms=25, **TO_DEAD),
    QueueSpec("short-urgent", message_ttl_ms=35, max_priority=1, **NO_BURST, **TO_DEAD),
    QueueSpec("drops-dead", max_length=3, **TO_DEAD),
    QueueSpec("drops-bytes", durable=False, max_length_bytes=40, **TO_DEAD),
    QueueSpec("plain"),
    QueueSpec("limited", delivery_limit=1),
    QueueSpec("limited-dead", delivery_limit=0, **TO_DEAD),
)


class FeatureMachine(EngineMachine):
    """As its parent, with a clock. What a queue gives up is taken from the naive broker when the engine does, if it may."""

    choice = FEATURES

    @initialize(data=st.data())
    def begin(self, data):
        self.too_often = []
        self.getting = 0
        self.specs = self._some_specs(data, 2)
        self.specs.append(DEAD)
        self._begin()
        for number in range(len(self.specs)):
            self._declare(number, lambda _: OWNER)
            self._bind(number, data.draw)
        self._fill()

    # -- what the engine gives up ------------------------------------------

    def died(self, entry, reason):
        """Check that a queue may give up an entry, and let the naive broker do the same."""
        queue = self.naive.queues[entry.queue.name]
        found = [item for item in queue.items if item.body == entry.message.body]
        if reason == Reason.EXPIRED.value:
            (item,) = [item for item in found if item.expires_at]
            assert item.consumer is None
            assert 0 < item.expires_at <= self.now_ms
            others = [other for other in self.awake(queue) if other is item or other.was_due != self.now_ms]  # due this moment
            heads = [other for other in others if other.priority == item.priority]
            assert item in heads[: 1 + self.getting], "not the head"
            queue.items.remove(item)
        elif reason == Reason.MAXLEN.value:
            assert queue.must_drop
            ready = [item for item in self.awake(queue) if item is found[0] or item.was_due != self.now_ms]
            assert found[0] is min(ready, key=lambda item: item.priority), "what sleeps may be passed, what is awake may not"
            queue.items.remove(found[0])
        elif reason == Reason.DELIVERY_LIMIT.value:
            self.too_often.remove(found[0])
            queue.items.remove(found[0])
        else:
            assert found == [] or queue.spec is DEAD  # which may have a message and its dead letter
        if queue.spec.dead_letter_exchange is not None and "dead" in self.naive.queues:
            source = queue.spec.name if self.is_stored(entry) else "nowhere"
            self.naive.queues["dead"].items.append(Item(entry.message.body, entry.message.persistent, source=source))

    def is_stored(self, entry):
        """Say whether an entry that is given up is known to be on disk."""
        return False

    def dropped(self, queue, reason, amount):
        if self.naive.queues[queue].spec.dead_letter_exchange is None:
            super().dropped(queue, reason, amount)

    def put_back(self, entry, item, taker):
        super().put_back(entry, item, taker)
        queue = self.naive.queues.get(taker.queue)
        if queue is not None and item in queue.items and 0 <= queue.spec.delivery_limit < item.times:
            self.too_often.append(item)

    def delivered(self, taker, entry, *, may_take=False):
        item = self.expected(self.naive.queues[taker.queue], entry)
        assert not item.expires_at or self.now_ms < max(item.expires_at, item.expires_on_disk), "what has expired was handed out"
        assert item not in self.too_often
        super().delivered(taker, entry, may_take=may_take)

    def _get(self, which, channel, no_ack):
        """While a `get` is under way it may have taken one that the naive broker has not heard of."""
        self.getting = 1
        super()._get(which, channel, no_ack)
        self.getting = 0

    # -- rules -------------------------------------------------------------

    @rule(ms=st.sampled_from([10, 10, 20, 100]))
    def time_passes(self, ms):
        self.now_ms += ms
        self.engine.advance(self.now_ms)

    @rule(
        which=picks,
        persistent=st.sampled_from([True, True, False]),
        size=sizes,
        priority=st.sampled_from([0, 0, 1, 2, 9]),
        lives_ms=st.lists(st.sampled_from([0, 0, 5, 15, 95]), min_size=1, max_size=4),
    )
    def publish_special(self, which, persistent, size, priority, lives_ms):
        for lives in lives_ms:
            self._publish("", self._name(which), persistent, size, priority, self.now_ms + lives if lives else 0)

    @rule(channel=channels, which=picks, prefetch=st.integers(1, 3))
    def consume_by_hand(self, channel, which, prefetch):
        self.consume(which, channel, prefetch=prefetch, no_ack=False, exclusive=False, manual_credit=False)

    # -- the disk: what comes back from there has been there since its commit

    @precondition(lambda self: self.under_way is None)
    @rule()
    def begin_commit(self):
        self.disk.now_ms = self.now_ms
        super().begin_commit()
        for queue in self.naive.queues.values():
            for item in queue.items:
                if item.body in self.disk.written:
                    item.expires_on_disk = queue.expiry(item.own_expiry, self.now_ms)

    # -- always ------------------------------------------------------------

    @invariant()
    def no_head_in_memory_has_expired(self):
        if self.naive is None:
            return
        for queue in self.engine.vhost("/").queues.values():
            for lane in queue.lanes:
                assert not lane.ready or not 0 < lane.ready[0].expires_at_ms <= self.now_ms

    @invariant()
    def nothing_is_left_undone(self):
        if self.naive is None:
            return
        assert not self.engine.dead
        assert not self.engine.burial.limbo
        assert self.too_often == []


class SmallWindowFeatureMachine(FeatureMachine):
    """The same with room for two messages of a durable queue in memory."""

    window_budget = 2 * 410
    choice = tuple(spec for spec in FEATURES if is_durable(spec))

    def _fill(self):
        """Start with more on disk than memory holds, of all priorities, and somebody who takes it one by one."""
        for number in range(len(self.specs)):
            for priority in (0, 1, 2, 0, 1, 0, 2, 2, 0, 1):
                self._publish("", self._name(number), True, 15, priority)
            self.publish_to_one_queue(number, persistent=True, size=15, times=2, commit=True)
            self.consume(number, OWNER, prefetch=1, no_ack=False, exclusive=False, manual_credit=False)


TestFeatures = FeatureMachine.TestCase
TestFeatures.settings = settings(QUICK, max_examples=30)
TestFeaturesWithBacklogs = SmallWindowFeatureMachine.TestCase
TestFeaturesWithBacklogs.settings = settings(QUICK, max_examples=30)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("machine", [FeatureMachine, SmallWindowFeatureMachine])
def test_features_do_what_the_naive_broker_does_over_long_sequences(machine):
    run_state_machine_as_test(machine, settings=DEEP)
