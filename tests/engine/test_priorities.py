"""Higher priorities go first, but none waits for ever."""

from __future__ import annotations

import pytest

from gateway.api.consumer import ConsumeOptions
from gateway.engine.engine import LATER
from gateway.engine.queues.consumer import Consumer
from gateway.model.declare import QueueSpec
from gateway.model.records import QueueDeclared, QueueDeleted, QueueDepth, QueuePurged
from tests.engine.support import Bench

ENTRY = 400 + 4


@pytest.fixture
def bench():
    return Bench()


def publish(bench, *numbers, priority=0, **more):
    for number in numbers:
        bench.publish(b"%04d" % number, priority=priority, **more)


def numbers(sink):
    return [int(body) for body in sink.bodies]


def drain(bench, sink):
    settled = 0
    while settled < len(sink.deliveries) or bench.events.pages:
        while settled < len(sink.deliveries):
            bench.engine.ack(sink.deliveries[settled])
            settled += 1
        bench.feed_pages(limit=5)
    return numbers(sink)


def test_higher_priorities_go_first_and_in_order_of_publishing_within_one(bench):
    bench.queue(max_priority=5)
    publish(bench, 1, 2)
    publish(bench, 3, 4, priority=2)
    publish(bench, 5, priority=5)
    publish(bench, 6, priority=2)
    _, sink = bench.consume()
    assert numbers(sink) == [5, 3, 4, 6, 1, 2]


def test_a_priority_above_the_highest_counts_as_that(bench):
    bench.queue(max_priority=2)
    publish(bench, 1, priority=2)
    publish(bench, 2, priority=255)
    publish(bench, 3, priority=1)
    _, sink = bench.consume()
    assert numbers(sink) == [1, 2, 3]


def test_without_a_maximum_priorities_mean_nothing(bench):
    bench.queue()
    publish(bench, 1)
    publish(bench, 2, priority=9)
    _, sink = bench.consume()
    assert numbers(sink) == [1, 2]


def test_transient_messages_have_priorities_too(bench):
    bench.queue(durable=False, max_priority=1)
    publish(bench, 1, persistent=False)
    publish(bench, 2, persistent=False, priority=1)
    _, sink = bench.consume()
    assert numbers(sink) == [2, 1]


def test_a_returned_message_goes_back_to_its_place_in_its_priority(bench):
    bench.queue(max_priority=1)
    publish(bench, 1, 2, 3)
    publish(bench, 4, 5, priority=1)
    consumer, sink = bench.consume(prefetch=4)
    assert numbers(sink) == [4, 5, 1, 2]
    bench.close(sink, consumer)
    _, other = bench.consume()
    assert numbers(other) == [4, 5, 1, 2, 3]
    assert [d.redelivered for d in other.deliveries] == [True] * 4 + [False]


def test_after_a_burst_past_it_the_lane_that_waited_longest_has_a_turn(bench):
    bench.queue(max_priority=9, priority_burst=3)
    publish(bench, 20, 21, priority=2)
    publish(bench, 50, 51, priority=5)
    publish(bench, *range(90, 99), priority=9)
    _, sink = bench.consume()
    assert numbers(sink) == [90, 91, 92, 20, 93, 94, 95, 50, 96, 97, 98, 21, 51]


def test_nobody_starves_under_a_flood_of_higher_priority(bench):
    bench.queue(max_priority=3, priority_burst=4)
    publish(bench, 0)
    publish(bench, 1, priority=1)
    _, sink = bench.consume(prefetch=1)
    publish(bench, 2, 3, priority=3)
    for number in range(100, 120):
        publish(bench, number, priority=3)
        bench.engine.ack(sink.deliveries[-1])
    served = numbers(sink)
    assert served.index(1) <= 12
    assert {0, 1} <= set(served)


def test_each_priority_of_a_durable_queue_has_an_id_of_its_own(bench):
    bench.queue("a", max_priority=4)
    bench.queue("b")
    assert [bench["a"].id, bench["b"].id] == [1, 6]
    publish(bench, 1, priority=3)
    bench.publish(b"x", "a", priority=3)
    batch = bench.commit()
    assert [entry.queue_id for entry in bench.disk[4]] == [4]
    assert [r.queue_id for r in batch.records if isinstance(r, QueueDeclared)] == [1, 6]
    bench.engine.definitions.delete_queue("/", "a", None)
    assert bench.engine.batch.records == [QueueDeleted("/", 1, "a", 5)]
    assert list(bench.engine.queues_by_id) == [6]


def test_ids_go_on_behind_all_lanes_after_a_start(bench):
    bench.engine.replay(QueueDeclared("/", 3, QueueSpec("old", max_priority=10)))
    bench.queue("new")
    assert bench["new"].id == 14


def test_a_purge_forgets_every_priority_and_rewrites_what_is_delivered_only_where_it_has_to(bench):
    bench.queue(max_priority=2)
    publish(bench, 1, 2)
    publish(bench, 3, priority=2)
    bench.commit()
    _, sink = bench.consume(prefetch=2)
    assert numbers(sink) == [3, 1]
    assert bench.engine.definitions.purge_queue("/", "q", None) == 1
    batch = bench.engine.batch
    assert batch.records == [QueuePurged(1)]
    assert [int(message.body) for message in batch.messages] == [1]
    assert (bench["q"].count, bench["q"].ready_count) == (2, 0)


def test_when_it_is_full_the_lowest_priority_loses_its_oldest(bench):
    bench.queue(max_priority=2, max_length=3)
    publish(bench, 1, priority=2)
    publish(bench, 2, 3)
    publish(bench, 4, priority=1)
    publish(bench, 5, priority=2)
    _, sink = bench.consume()
    assert numbers(sink) == [1, 5, 4]


def test_a_higher_priority_on_disk_is_waited_for(bench):
    bench.engine.window_budget = 6 * ENTRY
    bench.queue(max_priority=1)
    publish(bench, *range(100, 107))
    publish(bench, *range(5), priority=1)
    bench.commit()
    _, sink = bench.consume(prefetch=1)
    assert numbers(sink) == [0]
    bench.engine.nack(sink.deliveries[0], requeue=False)
    assert numbers(sink) == [0], "the lower priority was handed out past one that is on disk"
    del sink.deliveries[0]
    bench.feed_pages(limit=5)
    assert [0, *drain(bench, sink)] == [*range(5), *range(100, 107)]


def test_long_lanes_come_back_in_order_and_the_window_is_one_for_all(bench):
    bench.engine.window_budget = 10 * ENTRY
    bench.queue(max_priority=3, priority_burst=1000)
    for number in range(200):
        publish(bench, number, priority=number % 4)
        if number % 7 == 0:
            bench.commit()
    bench.commit()
    assert len(bench["q"].ready) <= 14
    assert bench["q"].ready_count == 200
    _, sink = bench.consume(prefetch=3)
    served = drain(bench, sink)
    assert served == [number for lane in (3, 2, 1, 0) for number in range(lane, 200, 4)]
    assert bench["q"].count == 0
    assert bench["q"].window_bytes == 0


def test_a_get_takes_the_highest_and_waits_for_it_if_it_is_on_disk(bench):
    bench.engine.window_budget = 4 * ENTRY
    bench.queue(max_priority=1)
    publish(bench, *range(100, 106))
    publish(bench, 1, 2, 3, priority=1)
    bench.commit()
    queue = bench["q"]
    taken = []
    for number in range(9):
        entry = bench.engine.get(queue, Consumer(queue, None, ConsumeOptions(), set(), None), "channel", number)
        if entry is LATER:
            bench.feed_pages()
            entry = bench.events.answers.pop()[2]
        taken.append(int(entry.message.body))
    assert taken == [1, 2, 3, *range(100, 106)]


def test_lanes_come_back_after_a_start(bench):
    bench.queue(max_priority=1)
    publish(bench, 1)
    publish(bench, 2, priority=1)
    bench.commit()
    second = Bench()
    second.disk = bench.disk
    second.engine.replay(QueueDeclared("/", 1, QueueSpec("q", max_priority=1)))
    second.engine.replay(QueueDepth(1, 1, 4, 2))
    second.engine.replay(QueueDepth(2, 1, 4, 2))
    assert second["q"].count == 2
    _, sink = second.consume()
    second.feed_pages()
    second.feed_pages()
    assert numbers(sink) == [2, 1]
