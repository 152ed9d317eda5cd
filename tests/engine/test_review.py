"""Does the engine stay exact, and quick, where much comes together?"""

from __future__ import annotations

import time

import pytest

from gateway.errors import GatewayError, Overloaded
from gateway.model.declare import Overflow, QueueSpec
from gateway.model.records import Page, QueueDeclared, QueueDepth
from tests.engine.support import Bench, Sink


@pytest.fixture
def bench():
    return Bench()


def queue_of(bench, name="q"):
    return bench.engine.vhost("/").queues[name]


# -- cost ---------------------------------------------------------------------


def test_order_is_kept_and_nobody_waits_long_when_two_give_back_what_they_hold_in_turns(bench):
    bench.queue()
    first, one = bench.consume(prefetch=20_000)
    second, other = bench.consume(prefetch=20_000)
    for number in range(40_000):
        bench.publish(b"%d" % number, persistent=False)
    began = time.process_time()
    bench.close(one, first)
    bench.close(other, second)
    assert time.process_time() - began < 3
    assert [int(entry.message.body) for entry in queue_of(bench).ready] == list(range(40_000))


def test_queue_of_which_nobody_holds_anything_goes_without_a_look_at_every_channel(bench):
    class Counted(dict):
        looks = 0

        def values(self):
            self.looks += 1
            return super().values()

    bench.engine.holdings = Counted()
    bench.queue()
    bench.publish(b"1")
    bench.commit()
    bench.engine.definitions.delete_queue("/", "q", None)
    assert bench.engine.holdings.looks == 0


def test_what_is_held_of_a_deleted_queue_is_settled_though_other_channels_hold_more(bench):
    bench.queue()
    bench.queue("r")
    sinks = []
    for number in range(4):
        bench.publish(b"%d" % number)
        bench.publish(b"%d" % number, "r")
        sinks.append(bench.consume(prefetch=1)[1])
        bench.consume("r", sinks[-1], prefetch=1)
    bench.commit()
    bench.engine.definitions.delete_queue("/", "q", None)
    for sink in sinks:
        assert sorted((d.queue.name, d.settled) for d in sink.deliveries) == [("q", True), ("r", False)]


# -- memory -------------------------------------------------------------------


def test_owner_remembers_no_queue_that_it_has_deleted(bench):
    definitions = bench.engine.definitions
    owner = object()
    for number in range(3):
        definitions.declare_queue("/", QueueSpec(f"q{number}", exclusive=True), owner)
    definitions.delete_queue("/", "q0", owner)
    definitions.delete_queue("/", "q1", owner)
    assert len(definitions.owned[owner]) == 1
    definitions.release(owner)
    assert not definitions.owned
    assert not bench.engine.vhost("/").queues


def recovered(bench, live, **spec):
    """Have a queue that an earlier start left on disk."""
    first = Bench()
    first.queue()
    for number in range(live):
        first.publish(b"%04d" % number)
    first.commit()
    bench.engine.replay(QueueDeclared("/", 1, QueueSpec("q", **spec)))
    bench.engine.replay(QueueDepth(1, live, 4 * live, live + 1))
    bench.disk = first.disk


def test_limit_of_a_recovered_queue_holds_against_messages_that_are_not_journaled(bench):
    recovered(bench, 10, max_length=10)
    for number in range(50):
        bench.publish(b"%d" % number, persistent=False)
        bench.feed_pages()
    assert queue_of(bench).count == 10
    assert [entry.message.body for entry in queue_of(bench).ready] == [b"%d" % number for number in range(40, 50)]


# -- counts -------------------------------------------------------------------


def test_messages_that_are_not_on_disk_after_all_do_not_count_for_ever(bench):
    recovered(bench, 5)
    bench.disk[1] = bench.disk[1][:3]  # the journal counted two more than it has
    _, sink = bench.consume(prefetch=10)
    bench.feed_pages()
    for delivery in sink.deliveries:
        bench.engine.ack(delivery)
    assert (queue_of(bench).count, queue_of(bench).ready_count) == (0, 0)


def test_loss_that_is_reported_too_large_spares_the_count_of_what_is_held(bench):
    recovered(bench, 5)
    _, sink = bench.consume(prefetch=10)
    (queue_id, after, _) = bench.events.pages.pop()
    bench.engine.page_loaded(Page(queue_id, [], lost=7), after)
    bench.publish(b"new")
    assert sink.bodies == [b"new"]
    assert queue_of(bench).count == 1


# -- what fails ---------------------------------------------------------------


class FailingAtTheEnd(Sink):
    def cancelled(self, reason: GatewayError) -> None:
        raise RuntimeError("broken front-end")


def test_sink_that_fails_twice_ends_nothing_but_its_consumer(bench):
    bench.queue()

    class Failing(FailingAtTheEnd):
        def deliver(self, delivery):
            raise RuntimeError("broken front-end")

    bench.consume(sink=Failing())
    _, other = bench.consume()
    bench.publish(b"1")
    bench.publish(b"2")
    assert other.bodies == [b"2"]
    assert len(bench.events.failures) == 2


def test_message_that_the_journal_refuses_ends_no_queue(bench):
    bench.queue(max_length=1, overflow=Overflow.END_QUEUE)
    bench.publish(b"1")
    bench.engine.refuse_durable("no disk")
    assert isinstance(bench.publish(b"2"), Overloaded)
    assert queue_of(bench).count == 1
