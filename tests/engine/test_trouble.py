"""Is nothing lost, nothing told wrong and nothing left behind, where refusals, purges and many deaths come together?"""

from __future__ import annotations

import pytest

from gateway.api.consumer import ConsumeOptions
from gateway.engine.definitions.policy import Policy
from gateway.engine.engine import LATER
from gateway.engine.queues.aging import AT_ONCE
from gateway.engine.queues.burial import PORTION
from gateway.engine.queues.consumer import Consumer
from gateway.model.declare import Binding
from gateway.model.exchange_arguments import exchange_spec
from gateway.model.message import Message, with_properties
from gateway.model.properties import Properties
from gateway.model.records import DeliveryCounted, MessageScheduled, QueueDeclared, QueueDepth, QueuePurged, ScheduledGone
from tests.engine.support import Bench

T = 1_000_000
DLX = {"dead_letter_exchange": "", "dead_letter_routing_key": "dead"}


@pytest.fixture
def bench():
    bench = Bench()
    bench.engine.advance(T)
    return bench


def nothing_is_written(_reference):
    return False


def door(bench, **arguments):
    """Declare a durable fanout exchange with such arguments, before the queue ``q``."""
    bench.queue()
    told = {f"x-{name.replace('_', '-')}": value for name, value in arguments.items()}
    bench.engine.definitions.declare_exchange("/", exchange_spec("door", told.pop("x-type", "fanout"), arguments=told))
    bench.engine.definitions.bind("/", Binding("door", "q"), None)


def send(bench, body, message_id=None, **headers):
    route = bench.engine.vhost("/").route("door", "")
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    return bench.engine.publish(
        route, with_properties(route.address, body, Properties(message_id=message_id, headers=told or None))
    )


# -- a journal that fails -----------------------------------------------------


@pytest.mark.parametrize("handed_over", [False, True])
def test_an_id_of_which_the_message_was_refused_by_the_journal_is_no_repetition_when_it_comes_again(bench, handed_over):
    door(bench, deduplication_window_ms=60_000)
    bench.commit()
    send(bench, b"1", "one")
    if handed_over:
        bench.hand_over()
    assert len(bench.engine.withdraw(nothing_is_written)) == 1
    assert send(bench, b"1", "one") is None
    assert bench.bodies() == [b"1"]


def test_an_id_of_which_the_message_is_on_disk_stays_known_when_others_are_refused(bench):
    door(bench, deduplication_window_ms=60_000)
    send(bench, b"1", "one")
    bench.commit()
    send(bench, b"2", "two")
    assert len(bench.engine.withdraw(lambda entry: entry.segment == 1)) == 1
    assert send(bench, b"1", "one") is None
    assert bench.bodies() == [b"1"]
    assert bench.events.drops == [("door", "duplicate", 1)]


def test_a_dead_letter_that_is_delayed_is_not_taken_out_when_the_journal_fails(bench):
    door(bench, type="x-delayed-message", delayed_type="fanout")
    bench.queue("source", message_ttl_ms=10, dead_letter_exchange="door")
    route = bench.engine.vhost("/").route("", "source")
    bench.engine.publish(route, with_properties(route.address, b"1", Properties(headers={"x-delay": 500})))
    bench.commit()
    bench.engine.advance(T + 10)
    batch = bench.hand_over()
    assert any(isinstance(record, MessageScheduled) for record in batch.records)
    bench.engine.schedule.withdraw(batch.records)
    assert len(bench.engine.schedule) == 1
    bench.engine.committed()
    assert not bench.engine.ours
    bench.engine.advance(T + 510)
    assert bench.bodies() == [b"1"]


def test_what_a_publisher_scheduled_is_taken_out_when_the_journal_fails(bench):
    bench.queue()
    route = bench.engine.vhost("/").route("", "q")
    bench.engine.schedule.add(route, Message(route.address, b"1", True), T + 500)
    bench.engine.refuse_durable("broken")
    bench.engine.schedule.withdraw([*bench.engine.batch.records])
    assert len(bench.engine.schedule) == 0
    assert any(isinstance(record, ScheduledGone) for record in bench.engine.batch.records)


def test_an_id_of_which_the_scheduled_message_was_refused_is_no_repetition_when_it_comes_again(bench):
    door(bench, type="x-delayed-message", delayed_type="fanout", deduplication_window_ms=60_000)
    bench.commit()
    assert send(bench, b"1", "one", x_delay=500) is None
    bench.engine.withdraw(nothing_is_written)
    bench.engine.schedule.withdraw([*bench.engine.batch.records])
    assert send(bench, b"1", "one", x_delay=500) is None
    assert len(bench.engine.schedule) == 1


# -- many deaths at once ------------------------------------------------------


def expired(bench, amount):
    """Have so many committed messages expire at once; return what is not dead-lettered yet."""
    bench.queue("dead")
    bench.queue(message_ttl_ms=10, **DLX)
    for number in range(amount):
        bench.publish(b"%d" % number)
    bench.commit()
    bench.engine.now_ms = T + 10
    bench.engine.timers.run(T + 10)
    bench.engine.finish()
    return len(bench.engine.dead)


@pytest.mark.parametrize("what", ["purge_queue", "delete_queue"])
def test_what_died_before_its_queue_was_purged_or_deleted_is_dead_lettered_all_the_same(bench, what):
    assert expired(bench, PORTION + 50) == 50
    assert getattr(bench.engine.definitions, what)("/", "q", None) == 0
    for step in range(3):
        bench.engine.advance(T + 11 + step)
    assert bench["dead"].count == PORTION + 50


def test_what_died_before_its_queue_was_purged_does_not_come_back_from_disk(bench):
    assert expired(bench, PORTION + 50) == 50
    bench.publish(b"in the way of nobody")
    bench.engine.definitions.purge_queue("/", "q", None)
    for step in range(3):
        bench.engine.advance(T + 11 + step)
    batch = bench.hand_over()
    gone = {entry.position for entry in batch.settled}
    if not any(isinstance(record, QueuePurged) for record in batch.records):
        assert gone == set(range(1, PORTION + 51))


def test_what_died_before_a_purge_of_an_empty_queue_does_not_come_back_from_disk(bench):
    assert expired(bench, PORTION + 50) == 50
    bench.engine.definitions.purge_queue("/", "q", None)
    for step in range(3):
        bench.engine.advance(T + 11 + step)
    batch = bench.hand_over()
    assert [record for record in batch.records if isinstance(record, QueuePurged)] == []
    assert {entry.position for entry in batch.settled} == set(range(1, PORTION + 51))


# -- nothing grows without end ------------------------------------------------


def test_dead_letters_that_never_touch_the_journal_are_not_remembered(bench):
    bench.queue("dead", durable=False)
    bench.queue(durable=False, **DLX)
    _, sink = bench.consume(prefetch=1)
    for number in range(5):
        bench.publish(b"%d" % number)
        bench.engine.nack(sink.deliveries[-1], requeue=False)
    assert bench["dead"].count == 5
    assert not bench.engine.ours


def test_a_queue_of_which_every_get_is_answered_is_waited_for_no_more(bench):
    bench.engine.window_budget = 1
    bench.queue()
    for _ in range(4):
        bench.publish(b"1")
    bench.commit()
    getter = Consumer(bench["q"], None, ConsumeOptions(), set(), None)
    answers = [bench.engine.get(bench["q"], getter, "channel", number) for number in range(2)]
    assert answers[1] is LATER
    bench.engine.definitions.purge_queue("/", "q", None)
    assert bench.events.answers == [("channel", 1, None)]
    assert bench.engine.getting == {}


# -- settings that change -----------------------------------------------------


def test_no_page_is_asked_for_while_the_journal_is_still_read(bench):
    spec = bench.engine.definitions
    bench.queue("other")
    record = QueueDeclared("/", 7, bench["other"].spec.__class__("long"))
    spec.replay(record)
    spec.replay(QueueDepth(7, 50, 50, 51))
    bench.engine.policies.set("/", Policy("short", "^long$", {"max-length": 10}))
    assert bench.events.pages == []
    bench.engine.advance(T)
    assert [queue_id for queue_id, *_ in bench.events.pages] == [7]


# -- how often something came back --------------------------------------------


def test_what_comes_back_before_it_is_on_disk_is_counted_there(bench):
    bench.queue()
    _, sink = bench.consume(prefetch=1)
    bench.publish(b"1")
    bench.engine.nack(sink.deliveries[0], requeue=True)
    assert bench.engine.batch.records[-1] == DeliveryCounted(sink.deliveries[0], 1)


def test_a_return_that_was_counted_stays_so_when_a_lease_ends_in_the_same_batch(bench):
    bench.queue(consumer_timeout_ms=30)
    bench.consume(prefetch=1)
    _, other = bench.consume(prefetch=1)
    bench.publish(b"1")
    bench.publish(b"2")
    bench.engine.nack(other.deliveries[0], requeue=True, delay_ms=5)
    bench.engine.advance(T + 5)
    entry = other.deliveries[-1]
    assert entry.count == 2
    bench.consume(prefetch=1)
    bench.engine.advance(T + 35)
    latest = bench.engine.batch.records[-1]
    assert (latest.reference.position, latest.count) == (entry.position, 2)
    assert not latest.reference.settled


# -- leases -------------------------------------------------------------------


def test_a_lease_ends_in_time_though_another_that_was_extended_ends_much_later(bench):
    bench.queue(consumer_timeout_ms=30)
    _, one = bench.consume(prefetch=1)
    bench.publish(b"1")
    bench.engine.extend(one.deliveries[0], 1000)
    bench.engine.advance(T + 30)
    _, two = bench.consume(prefetch=1)
    bench.publish(b"2")
    _, three = bench.consume(prefetch=1)
    assert two.bodies == [b"2"]
    bench.engine.advance(T + 60)
    assert three.bodies == [b"2"]


# -- much at once ---------------------------------------------------------------


def test_a_great_many_that_expire_in_one_moment_go_a_part_in_each_turn(bench):
    bench.queue(durable=False, message_ttl_ms=10)
    for _ in range(2 * AT_ONCE + 1):
        bench.publish(b"")
    left = []
    while bench["q"].count:
        bench.engine.advance(T + 10)
        left.append(bench["q"].count)
        assert not bench["q"].count or bench.engine.timers.next_due_ms <= T + 10
    assert left == [AT_ONCE + 1, 1, 0]
    assert sum(amount for *_, amount in bench.events.drops) == 2 * AT_ONCE + 1


def test_what_has_expired_and_is_not_seen_to_yet_is_not_handed_out(bench):
    bench.queue(durable=False, message_ttl_ms=10)
    for _ in range(AT_ONCE + 1):
        bench.publish(b"old")
    bench.engine.advance(T + 10)
    assert bench["q"].count == 1
    bench.publish(b"new")
    _, sink = bench.consume()
    assert sink.bodies == [b"new"]


# -- what was refused and is on disk after all ------------------------------------


def test_what_was_withdrawn_does_not_come_back_with_a_page_when_its_commit_lands_after_all(bench):
    bench.engine.window_budget = 1000
    bench.queue()
    for number in range(10):
        bench.publish(b"%04d" % number)
    bench.commit()
    for number in range(10, 20):
        bench.publish(b"%04d" % number)
    bench.hand_over()
    bench.engine.withdraw(lambda entry: entry.segment == 1)
    refused = [entry for entry in bench.disk[1] if entry.settled]
    for entry in refused:
        entry.settled = False  # that it is settled is not on disk yet
    bench.engine.committed()
    bench.publish(b"0020")
    _, sink = bench.consume()
    while bench.feed_pages(limit=3):
        pass
    assert [int(body) for body in sink.bodies] == [*range(10), 20]
    assert bench["q"].count == 11
    assert bench["q"].body_bytes == 44
