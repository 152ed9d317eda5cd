"""A long queue leaves memory and comes back in order."""

from __future__ import annotations

import pytest

from gateway.api.consumer import ConsumeOptions
from gateway.engine.engine import LATER
from gateway.engine.queues.consumer import Consumer
from gateway.model.declare import QueueSpec
from gateway.model.records import QueueDeclared, QueueDepth, QueuePurged
from tests.engine.support import Bench

ENTRY = 400 + 4


@pytest.fixture
def bench():
    bench = Bench(window_budget=10 * ENTRY)
    bench.queue()
    return bench


def queue_of(bench):
    return bench.engine.vhost("/").queues["q"]


def fill(bench, start, stop, *, every=7):
    for number in range(start, stop):
        bench.publish(b"%04d" % number)
        if number % every == 0:
            bench.commit()
    bench.commit()


def drain(bench, sink):
    settled = 0
    while settled < len(sink.deliveries) or bench.events.pages:
        while settled < len(sink.deliveries):
            bench.engine.ack(sink.deliveries[settled])
            settled += 1
        bench.feed_pages(limit=13)
    return [int(body) for body in sink.bodies]


def test_memory_holds_the_head_only(bench):
    fill(bench, 0, 200)
    queue = queue_of(bench)
    assert len(queue.ready) <= 12
    assert len(queue.backlog.in_memory()) == 0
    assert queue.ready_count == 200


def test_it_drains_in_order(bench):
    fill(bench, 0, 200)
    _, sink = bench.consume(prefetch=3)
    assert drain(bench, sink) == list(range(200))
    assert queue_of(bench).count == 0


def test_it_drains_in_order_while_more_comes(bench):
    fill(bench, 0, 60)
    _, sink = bench.consume(prefetch=3)
    for number in range(60, 200):
        bench.publish(b"%04d" % number)
        if number % 5 == 0:
            bench.hand_over()
            bench.feed_pages(limit=9)
            bench.engine.committed()
        if number % 3 == 0:
            for delivery in [d for d in sink.deliveries if not d.settled]:
                bench.engine.ack(delivery)
    bench.commit()
    for delivery in [d for d in sink.deliveries if not d.settled]:
        bench.engine.ack(delivery)
    bench.feed_pages()
    drain(bench, _rest(bench, sink))
    assert [int(b) for b in sink.bodies] == list(range(200))


def _rest(bench, sink):
    while True:
        open_ones = [d for d in sink.deliveries if not d.settled]
        if not open_ones and not bench.events.pages:
            break
        for delivery in open_ones:
            bench.engine.ack(delivery)
        bench.feed_pages(limit=9)

    class Nothing:
        deliveries = ()
        bodies = ()

    return Nothing()


def test_transient_messages_keep_their_places_between_those_on_disk(bench):
    for number in range(100):
        bench.publish(b"%04d" % number, persistent=number % 3 != 0)
        if number % 8 == 0:
            bench.commit()
    bench.commit()
    _, sink = bench.consume(prefetch=3)
    assert drain(bench, sink) == list(range(100))


def test_only_what_an_earlier_start_may_have_delivered_is_flagged(bench):
    fill(bench, 0, 50)
    _, sink = bench.consume(prefetch=3)
    drain(bench, sink)
    assert not any(d.redelivered for d in sink.deliveries)


def test_a_requeued_message_goes_before_what_is_on_disk(bench):
    fill(bench, 0, 50)
    consumer, sink = bench.consume(prefetch=3)
    bench.close(sink, consumer)
    _, other = bench.consume(prefetch=3)
    assert drain(bench, other) == list(range(50))


def test_a_purge_forgets_what_is_on_disk_and_keeps_what_is_delivered(bench):
    fill(bench, 0, 50)
    _, sink = bench.consume(prefetch=3)
    removed = bench.engine.definitions.purge_queue("/", "q", None)
    assert removed == 47
    queue = queue_of(bench)
    assert (queue.count, queue.ready_count) == (3, 0)
    batch = bench.engine.batch
    assert batch.records == [QueuePurged(queue.id)]
    assert [m.body for m in batch.messages] == [b"0000", b"0001", b"0002"]
    bench.commit()
    for delivery in list(sink.deliveries):
        bench.engine.ack(delivery)
    assert queue.count == 0
    assert len(bench.engine.batch.settled) == 3


def test_a_page_that_a_purge_has_overtaken_is_dropped(bench):
    fill(bench, 0, 50)
    _, sink = bench.consume(prefetch=3)
    assert bench.events.pages or [bench.engine.ack(d) for d in list(sink.deliveries)]
    stale = list(bench.events.pages)
    bench.engine.definitions.purge_queue("/", "q", None)
    fill(bench, 50, 100)
    bench.events.pages[:0] = stale
    before = len(sink.deliveries)
    bench.feed_pages()
    drain(bench, _rest(bench, sink))
    fresh = [int(b) for b in sink.bodies[before:]]
    assert fresh == sorted(set(fresh))
    assert fresh[-1] == 99
    assert set(range(50, 100)) <= {int(b) for b in sink.bodies}


def test_a_recovered_queue_is_paged_in_when_somebody_consumes(bench):
    first = Bench()
    first.queue()
    for number in range(5):
        first.publish(b"%04d" % number)
    first.commit()
    bench = Bench()
    bench.engine.replay(QueueDeclared("/", 1, QueueSpec("q")))
    bench.engine.replay(QueueDepth(1, 5, 20, 6))
    bench.disk = first.disk
    assert queue_of(bench).ready_count == 5
    assert not bench.events.pages
    _, sink = bench.consume(prefetch=10)
    bench.feed_pages()
    bench.publish(b"0005")
    assert [int(b) for b in sink.bodies] == list(range(6))
    assert [d.redelivered for d in sink.deliveries] == [True] * 5 + [False]


def test_a_get_waits_for_its_page(bench):
    fill(bench, 0, 50)
    queue = queue_of(bench)
    held: set = set()
    answers = []
    for number in range(50):
        getter = Consumer(queue, None, ConsumeOptions(), held, None)
        entry = bench.engine.get(queue, getter, "channel", number)
        if entry is LATER:
            bench.feed_pages()
            _, asked, entry = bench.events.answers.pop()
            assert asked == number
        answers.append(int(entry.message.body))
    assert answers == list(range(50))
    assert bench.engine.get(queue, Consumer(queue, None, ConsumeOptions(), held, None), "channel", 50) is None


def test_references_lost_with_a_bad_segment_are_counted_and_the_rest_comes(bench):
    from gateway.model.records import Page, PagedReference

    fill(bench, 0, 30)
    queue = queue_of(bench)
    _, sink = bench.consume(prefetch=100)
    queue_id, after, _ = bench.events.pages.pop(0)
    found = [r for r in bench.disk[queue_id] if r.position > after]
    lost, rest = found[:4], found[4:]
    bench.engine.page_loaded(
        Page(queue_id, [PagedReference(r.message, r.position, r.options, r.segment, r.slot, 0) for r in rest], len(lost)), after
    )
    assert queue.count == 26
    assert queue.ready_count == 0
    assert len(sink.deliveries) == 26
    assert bench.events.drops == [("q", "journal", 4)]
