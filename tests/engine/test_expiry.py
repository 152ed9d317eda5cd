"""Time passes: messages expire at the head of their queue, queues that nobody uses go."""

from __future__ import annotations

import pytest

from gateway.api.consumer import ConsumeOptions
from gateway.engine.engine import LATER
from gateway.engine.queues.consumer import Consumer
from gateway.engine.timers import NOTHING_DUE
from gateway.model.declare import QueueSpec
from gateway.model.records import QueueDeclared, QueueDeleted, QueueDepth
from tests.engine.support import Bench

T = 1_000_000
ENTRY = 400 + 4


@pytest.fixture
def bench():
    bench = Bench()
    bench.engine.advance(T)
    return bench


def at(bench, ms):
    bench.engine.advance(T + ms)


def get(bench, name="q"):
    return bench.engine.get(bench[name], Consumer(bench[name], None, ConsumeOptions(), set(), None), "channel", 1)


# -- messages ---------------------------------------------------------------


def test_a_message_is_removed_when_its_time_is_up_and_counted(bench):
    bench.queue(message_ttl_ms=100)
    bench.publish(b"1")
    at(bench, 50)
    bench.publish(b"2")
    at(bench, 99)
    assert bench.bodies() == [b"1", b"2"]
    assert bench.engine.timers.next_due_ms == T + 100
    at(bench, 100)
    assert bench.bodies() == [b"2"]
    assert bench.events.drops == [("q", "expired", 1)]
    at(bench, 150)
    assert bench["q"].count == bench["q"].body_bytes == bench["q"].window_bytes == 0
    assert bench.engine.timers.next_due_ms == NOTHING_DUE


def test_the_earlier_of_the_queues_and_the_messages_time_holds(bench):
    bench.queue(message_ttl_ms=100)
    bench.publish(b"own", expires_at_ms=T + 50)
    at(bench, 50)
    assert bench.bodies() == []
    bench.publish(b"the queue's", expires_at_ms=T + 900)
    at(bench, 150)
    assert bench.bodies() == []


def test_what_expires_behind_an_unexpired_head_waits_there_and_is_never_delivered(bench):
    bench.queue()
    bench.publish(b"stays")
    bench.publish(b"expires", expires_at_ms=T + 10)
    bench.publish(b"stays too")
    at(bench, 1000)
    assert bench["q"].count == 3
    assert bench.events.drops == []
    assert get(bench).message.body == b"stays"
    assert bench.events.drops == [("q", "expired", 1)]
    assert get(bench).message.body == b"stays too"
    assert get(bench) is None


def test_a_head_that_comes_forward_by_a_get_or_a_drop_expires_at_its_time(bench):
    bench.queue(max_length=2)
    bench.publish(b"first")
    bench.publish(b"second", expires_at_ms=T + 10)
    get(bench)
    at(bench, 10)
    assert bench.bodies() == []
    bench.queue("other", max_length=2)
    bench.publish(b"first", "other")
    bench.publish(b"second", "other", expires_at_ms=T + 20)
    bench.publish(b"third", "other")
    at(bench, 20)
    assert bench.bodies("other") == [b"third"]


def test_a_head_that_comes_forward_expires_at_its_time_though_nobody_looks(bench):
    bench.queue()
    bench.publish(b"first", expires_at_ms=T + 500)
    bench.publish(b"second", expires_at_ms=T + 100)
    consumer, _ = bench.consume(prefetch=1)
    bench.engine.cancel(consumer)
    assert bench.bodies() == [b"second"]
    at(bench, 100)
    assert bench.bodies() == []


def test_a_time_to_live_of_0_means_at_once_or_not_at_all(bench):
    bench.queue(message_ttl_ms=0)
    bench.publish(b"nobody is there")
    assert bench["q"].count == 0
    assert bench.events.drops == [("q", "expired", 1)]
    _, sink = bench.consume(prefetch=1)
    bench.publish(b"delivered")
    bench.publish(b"no credit")
    assert sink.bodies == [b"delivered"]
    assert bench["q"].count == 1


def test_a_message_that_is_too_late_when_it_comes_is_not_delivered(bench):
    bench.queue()
    _, sink = bench.consume()
    bench.publish(b"late", expires_at_ms=T - 1)
    bench.publish(b"just in time", expires_at_ms=T)
    assert sink.bodies == [b"just in time"]
    assert bench.events.drops == [("q", "expired", 1)]


def test_what_is_delivered_does_not_expire_until_it_comes_back(bench):
    bench.queue(message_ttl_ms=10)
    bench.publish(b"1")
    _, sink = bench.consume(prefetch=1)
    at(bench, 500)
    assert bench["q"].count == 1
    bench.engine.nack(sink.deliveries[0], requeue=True)
    assert bench["q"].count == 0
    assert len(sink.deliveries) == 1
    assert bench.events.drops == [("q", "expired", 1)]


def test_what_expires_is_settled_on_disk(bench):
    bench.queue(message_ttl_ms=10)
    bench.publish(b"1")
    bench.commit()
    at(bench, 10)
    assert [entry.message.body for entry in bench.engine.batch.settled] == [b"1"]
    bench.publish(b"2")
    at(bench, 20)
    assert bench.engine.batch.unsettled == 0


def test_every_priority_loses_its_expired_heads(bench):
    bench.queue(max_priority=2)
    bench.publish(b"low", expires_at_ms=T + 10)
    bench.publish(b"high", priority=2)
    bench.publish(b"middle", priority=1, expires_at_ms=T + 20)
    at(bench, 10)
    assert bench.bodies() == [b"high", b"middle"]
    at(bench, 20)
    assert bench.bodies() == [b"high"]


def test_a_jump_of_the_clock_only_expires(bench):
    bench.queue(message_ttl_ms=10)
    for _ in range(50):
        bench.publish(b"x")
    at(bench, 10**9)
    assert bench["q"].count == 0
    bench.publish(b"y")
    at(bench, 0)
    assert bench.bodies() == [b"y"]
    assert bench.engine.now_ms == T + 10**9


# -- from disk --------------------------------------------------------------


def long_queue(bench, number=40, **more):
    bench.engine.window_budget = 10 * ENTRY
    for at_number in range(number):
        bench.publish(b"%04d" % at_number, **more)
        if at_number % 5 == 0:
            bench.commit()
    bench.commit()


def test_a_queue_of_which_all_heads_expire_pages_on_until_nothing_is_left(bench):
    bench.queue()
    long_queue(bench, expires_at_ms=T + 10)
    bench.publish(b"lives")
    bench.commit()
    assert not bench.events.pages
    at(bench, 10)
    while bench.feed_pages(limit=6):
        pass
    assert bench.bodies() == [b"lives"]
    assert bench["q"].count == 1
    assert sum(amount for _, _, amount in bench.events.drops) == 40


def test_the_time_of_what_is_on_disk_counts_from_when_it_was_stored(bench):
    bench.queue(message_ttl_ms=100)
    long_queue(bench)
    at(bench, 60)
    bench.publish(b"late")
    bench.commit()
    at(bench, 100)
    while bench.feed_pages(limit=6):
        pass
    assert bench.bodies() == [b"late"]
    at(bench, 159)
    assert bench.bodies() == [b"late"]
    at(bench, 160)
    assert bench["q"].count == 0


def restarted(bench, **spec):
    second = Bench()
    second.disk, second.stored_ms = bench.disk, bench.stored_ms
    second.engine.replay(QueueDeclared("/", 1, QueueSpec("q", **spec)))
    second.engine.replay(QueueDepth(1, len(bench.disk[1]), 4 * len(bench.disk[1]), 1000))
    return second


def test_what_expired_while_the_broker_was_down_is_removed_at_start(bench):
    bench.queue(message_ttl_ms=100)
    long_queue(bench, 10)
    second = restarted(bench, message_ttl_ms=100)
    assert not second.events.pages, "nothing can be read yet"
    second.engine.advance(T + 99)
    second.feed_pages()
    assert second["q"].count == 10
    second.engine.advance(T + 100)
    assert second["q"].count == 0


def test_a_get_does_not_take_what_expired_on_disk(bench):
    bench.queue()
    long_queue(bench, 10, expires_at_ms=T + 10)
    bench.publish(b"live")
    bench.commit()
    second = restarted(bench)
    second.engine.advance(T + 10)
    assert get(second) is LATER
    while second.feed_pages(limit=3):
        pass
    assert [entry.message.body for _, _, entry in second.events.answers] == [b"live"]


# -- queues -----------------------------------------------------------------


def exists(bench):
    return "q" in bench.engine.vhost("/").queues


def test_a_queue_that_nobody_uses_goes_with_its_messages(bench):
    bench.queue(expires_ms=100)
    bench.publish(b"1")
    bench.commit()
    at(bench, 99)
    assert exists(bench)
    at(bench, 100)
    assert not exists(bench)
    assert bench.engine.batch.records == [QueueDeleted("/", 1, "q", 1)]


def test_declaring_it_again_and_getting_from_it_are_uses_publishing_is_none(bench):
    bench.queue(expires_ms=100)
    at(bench, 60)
    bench.queue(expires_ms=100)
    at(bench, 120)
    assert exists(bench)
    get(bench)
    at(bench, 219)
    bench.publish(b"1")
    assert exists(bench)
    at(bench, 220)
    assert not exists(bench)


def test_a_queue_does_not_expire_while_it_has_a_consumer(bench):
    bench.queue(expires_ms=100)
    consumer, _ = bench.consume()
    at(bench, 1000)
    assert exists(bench)
    bench.engine.cancel(consumer)
    at(bench, 1099)
    assert exists(bench)
    at(bench, 1100)
    assert not exists(bench)


def test_after_a_start_the_time_of_a_queue_begins_anew(bench):
    bench.engine = Bench().engine
    bench.engine.replay(QueueDeclared("/", 1, QueueSpec("q", expires_ms=100)))
    at(bench, 0)
    at(bench, 99)
    assert exists(bench)
    at(bench, 100)
    assert not exists(bench)


def test_a_durable_queue_does_not_go_while_the_journal_can_not_forget_it(bench):
    bench.queue(expires_ms=100)
    bench.engine.refuse_durable("full")
    at(bench, 100)
    assert exists(bench)
    bench.engine.accept_durable()
    at(bench, 1100)
    assert not exists(bench)


def test_a_deleted_queue_leaves_no_appointment(bench):
    bench.queue(expires_ms=100, message_ttl_ms=10)
    bench.publish(b"1")
    bench.engine.definitions.delete_queue("/", "q", None)
    at(bench, 10_000)
    assert bench.engine.timers.next_due_ms == NOTHING_DUE
    assert bench.events.drops == []
