"""Is nothing that was confirmed lost, and nothing wrong afterwards, when the broker is killed or the journal fails?"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from gateway.errors import Overloaded
from gateway.model.declare import Overflow, QueueSpec, Retry
from gateway.model.message import Message
from tests.engine.machine import OWNER
from tests.engine.naive import Item, is_durable
from tests.engine.test_model import DEEP, QUICK, picks
from tests.engine.test_model_features import DEAD, NO_BURST, TO_DEAD
from tests.engine.test_model_returns import LEASE, ReturnsMachine

TROUBLED = (
    QueueSpec("plain"),
    QueueSpec("urgent", max_priority=2, **NO_BURST),
    QueueSpec("short-dead", message_ttl_ms=25, **TO_DEAD),
    QueueSpec("short-retry", message_ttl_ms=55, retry=Retry(13), **TO_DEAD),
    QueueSpec("short-leased", message_ttl_ms=90, retry=Retry(13, attempts=2), **LEASE, **TO_DEAD),
    QueueSpec("drops-dead", max_length=3, **TO_DEAD),
    QueueSpec("refuses-dead", max_length=3, overflow=Overflow.REJECT_PUBLISH_DLX, **TO_DEAD),
    QueueSpec("limited-dead", delivery_limit=0, **TO_DEAD),
    QueueSpec("fades", expires_ms=60),
    QueueSpec("fades-leased", durable=False, expires_ms=60, **LEASE),
)


class TroubleMachine(ReturnsMachine):
    """As its parent, but the broker may be killed with an open batch, the journal may fail, and unused queues go."""

    choice = TROUBLED

    def _fill(self):
        """Start with empty queues."""

    def _bind(self, which, draw):
        """Each body is at most once in the queue for dead letters: one other queue that dead-letters gets what others get too."""
        spec = self.specs[which % len(self.specs)]
        burying = [other for other in self.specs if other.dead_letter_exchange is not None]
        if spec is not DEAD and spec not in burying[1:]:
            super()._bind(which, draw)

    # -- queues that nobody uses ---------------------------------------------

    def _use(self, name):
        if name in self.naive.queues:
            self.naive.queues[name].unused_since = self.now_ms

    def _declare(self, which, draw):
        super()._declare(which, draw)
        self._use(self._name(which))

    def _get(self, which, channel, no_ack):
        self._use(self._name(which))
        super()._get(which, channel, no_ack)

    def _cancel(self, consumer, taker):
        self._use(taker.queue)
        super()._cancel(consumer, taker)

    def fade(self):
        for name, queue in list(self.naive.queues.items()):
            expires_ms = queue.spec.expires_ms
            if expires_ms and not queue.takers and queue.unused_since + expires_ms <= self.now_ms:
                self.naive.forget(name)

    # -- what is refused, and goes on ----------------------------------------

    def refused(self, body, persistent, queues):
        for queue in queues:
            if queue.spec.overflow is Overflow.REJECT_PUBLISH_DLX and "dead" in self.naive.queues:
                self.naive.queues["dead"].items.append(Item(body, persistent, source="nowhere"))

    # -- what is confirmed ---------------------------------------------------

    def _begin(self):
        self.applied = 0
        super()._begin()

    def is_stored(self, entry):
        return entry.segment is not None and entry.segment <= self.applied

    @precondition(lambda self: self.under_way is None)
    @rule()
    def begin_commit(self):
        super().begin_commit()
        items = [item for queue in self.naive.queues.values() for item in queue.items]
        self.writing = [item for item in items if item.lasting and item.body in self.disk.written]

    @precondition(lambda self: self.under_way is not None)
    @rule(page_comes_first=st.booleans())
    def end_commit(self, page_comes_first):
        self.applied = self.disk.commits
        for item in self.writing:
            item.stored = True
        super().end_commit(page_comes_first)

    def delivered(self, taker, entry, *, may_take=False):
        item = self.expected(self.naive.queues[taker.queue], entry)
        if item.unsure:
            item.unsure = False
            item.times = item.times_on_disk = entry.count - 1
        super().delivered(taker, entry, may_take=may_take)

    @rule(now=st.sampled_from([False] * 5 + [True]))
    def restart(self, now):
        super().restart(now)
        if now:
            self._check_times()
            self.lapsed = []

    def _check_times(self):
        """What comes from disk has lived since its commit, and waits as long as was told there."""
        for name, queue in self.naive.queues.items():
            queue.unused_since = self.now_ms
            for item in queue.items:
                item.expires_at = item.expires_on_disk
                item.due = self._due_on_disk(name, item)

    def _due_on_disk(self, name, item):
        (first,) = [record for record in self.disk.queues.values() if record.spec.name == name]
        places = self.disk.places.get(first.queue_id + item.priority, {})
        (due,) = {p.reference.due_ms for p in places.values() if p.reference.message.body == item.body}
        due = self.due(item, due)
        return due if due > self.now_ms else 0

    # -- trouble -------------------------------------------------------------

    @rule(landed=st.booleans())
    def kill(self, landed):
        """What was in the open batch is gone; the commit under way may have landed."""
        if self.under_way is not None and landed:
            self.applied = self.disk.commits
            self.disk.apply(self.under_way)
        self.under_way = None
        self.disk.carried = []
        there = {record.spec.name: self.disk.bodies(record.spec.name) for record in self.disk.queues.values()}
        self._nothing_confirmed_is_lost(there)
        known = {(name, item.body): item for name, queue in self.naive.queues.items() for item in queue.items}
        for name in [name for name in self.naive.queues if name not in there]:
            self.naive.forget(name)
        self.naive.restart()
        for name, queue in self.naive.queues.items():
            queue.items = [self._found(known.get((name, body)), queue, body) for body in there[name]]
        self.naive.bindings = self.disk.granted()
        self.naive.retained = self.disk.last_values()
        self.to_be_written = set()
        self.too_often, self.lapsed = [], []
        self.deliveries = []
        self._start()
        for record in self.disk.load():
            self.engine.replay(record)
        for name in there:
            if name not in self.naive.queues:  # its deletion was not on disk
                self.engine.definitions.delete_queue("/", name, self.owners[OWNER])
        self.naive.bindings = {at: qos for at, qos in self.naive.bindings.items() if at[0] in self.naive.queues}
        self._check_times()

    def _found(self, item, queue, body):
        """Return what was found on disk as it should be now."""
        if item is None:  # it was settled, and that was not on disk
            item = Item(body, lasting=True)
            item.expires_at = item.expires_on_disk = queue.expiry(0, 0) and self._expiry_on_disk(queue, body)
        item.consumer, item.redelivered, item.stored, item.unsure, item.source = None, True, True, True, ""
        item.priority = self._reference(queue, body)[1]
        item.expires_on_disk = self._expiry_on_disk(queue, body)
        item.was_due = item.lease_until = 0
        return item

    def _reference(self, queue, body):
        (first,) = [record for record in self.disk.queues.values() if record.spec.name == queue.spec.name]
        for priority in range(queue.spec.max_priority + 1):
            for place in self.disk.places.get(first.queue_id + priority, {}).values():
                if place.reference.message.body == body:
                    return place.reference, priority
        raise AssertionError(body)

    def _expiry_on_disk(self, queue, body):
        reference, _ = self._reference(queue, body)
        return queue.expiry(reference.message.expires_at_ms, reference.stored_ms)

    def _nothing_confirmed_is_lost(self, there):
        for name, queue in self.naive.queues.items():
            for item in queue.lasting:
                if item.stored:
                    assert item.body in there[name], "it was confirmed, and is lost"
                elif item.source in self.naive.queues:
                    found = [where for where in (name, item.source) if item.body in there.get(where, ())]
                    assert len(found) == 1, "a dead letter is to be in one place"  # the one whose declaration is on disk

    @precondition(lambda self: self.under_way is not None)
    @rule(which=picks)
    def journal_fails(self, which):
        """The commit under way fails for so long that publishers are told no; then it lands."""
        for queue in self.naive.queues.values():
            queue.items = [item for item in queue.items if not self._is_withdrawn(item)]
        self.engine.refuse_durable("broken")
        self.engine.withdraw(lambda reference: reference.segment < self.disk.commits)
        name = self._name(which)
        if name in self.naive.queues and is_durable(self.naive.queues[name].spec):
            route = self.engine.vhost("/").route("", name)
            assert isinstance(self.engine.publish(route, Message(route.address, b"no", True)), Overloaded)
        self.end_commit(page_comes_first=False)
        self.engine.accept_durable()

    def _is_withdrawn(self, item):
        return item.lasting and not item.stored and item.times == 0 and item.consumer is None and not item.source


class SmallWindowTroubleMachine(TroubleMachine):
    """The same with room for two messages of a durable queue in memory."""

    window_budget = 2 * 410
    choice = tuple(spec for spec in TROUBLED if is_durable(spec))


TestTrouble = TroubleMachine.TestCase
TestTrouble.settings = settings(QUICK, max_examples=30)
TestTroubleWithBacklogs = SmallWindowTroubleMachine.TestCase
TestTroubleWithBacklogs.settings = settings(QUICK, max_examples=30)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("machine", [TroubleMachine, SmallWindowTroubleMachine])
def test_trouble_does_what_the_naive_broker_does_over_long_sequences(machine):
    run_state_machine_as_test(machine, settings=DEEP)
