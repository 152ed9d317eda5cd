from __future__ import annotations

import pytest

from gateway.api.consumer import ConsumeOptions
from gateway.engine.definitions.definitions import AT_ONCE
from gateway.engine.queues.consumer import Consumer
from gateway.engine.timers import NOTHING_DUE
from gateway.errors import AccessRefused, NotFound, ResourceLocked
from gateway.model.declare import QueueSpec
from gateway.model.records import DeliveryCounted
from tests.engine.support import Bench, Sink


@pytest.fixture
def bench():
    bench = Bench()
    bench.queue()
    return bench


def test_prefetch_is_never_exceeded_and_an_ack_gives_credit_back(bench):
    for body in (b"1", b"2", b"3"):
        bench.publish(body)
    _, sink = bench.consume(prefetch=2)
    assert sink.bodies == [b"1", b"2"]
    bench.engine.ack(sink.deliveries[0])
    assert sink.bodies == [b"1", b"2", b"3"]


def test_consumers_take_turns(bench):
    _, one = bench.consume(prefetch=10)
    _, two = bench.consume(prefetch=10)
    for number in range(6):
        bench.publish(b"%d" % number)
    assert one.bodies == [b"0", b"2", b"4"]
    assert two.bodies == [b"1", b"3", b"5"]


def test_a_consumer_without_credit_leaves_its_turns_to_others(bench):
    _, one = bench.consume(prefetch=1)
    _, two = bench.consume(prefetch=10)
    for number in range(4):
        bench.publish(b"%d" % number)
    assert one.bodies == [b"0"]
    assert two.bodies == [b"1", b"2", b"3"]


def test_requeue_puts_a_message_back_to_its_old_place_with_the_redelivered_flag(bench):
    for body in (b"1", b"2", b"3"):
        bench.publish(body)
    consumer, sink = bench.consume(prefetch=2)
    consumer.pause()
    bench.engine.nack(sink.deliveries[0], requeue=True)
    bench.engine.nack(sink.deliveries[1], requeue=True)
    _, other = bench.consume(prefetch=10)
    assert other.bodies == [b"1", b"2", b"3"]
    assert [d.redelivered for d in other.deliveries] == [True, True, False]
    assert [d.count for d in other.deliveries] == [2, 2, 1]


def test_a_closing_channel_puts_back_everything_in_order(bench):
    for number in range(5):
        bench.publish(b"%d" % number)
    consumer, sink = bench.consume(prefetch=4)
    bench.engine.ack(sink.deliveries[1])
    bench.close(sink, consumer)
    _, other = bench.consume(prefetch=10)
    assert other.bodies == [b"0", b"2", b"3", b"4"]


def test_a_delivery_settles_once(bench):
    bench.publish(b"1")
    _, sink = bench.consume()
    bench.engine.ack(sink.deliveries[0])
    for settle in (bench.engine.ack, bench.engine.handed_over, lambda d: bench.engine.nack(d, requeue=True)):
        with pytest.raises(NotFound):
            settle(sink.deliveries[0])
    assert bench.engine.vhost("/").queues["q"].count == 0


def test_a_rejected_message_is_gone_and_counted(bench):
    bench.publish(b"1")
    _, sink = bench.consume(prefetch=1)
    bench.engine.nack(sink.deliveries[0], requeue=False)
    assert bench.events.drops == [("q", "rejected", 1)]
    assert bench.engine.vhost("/").queues["q"].count == 0


def test_a_paused_consumer_gets_nothing_until_it_is_resumed(bench):
    consumer, sink = bench.consume(prefetch=5)
    consumer.pause()
    bench.publish(b"1")
    assert sink.bodies == []
    consumer.resume()
    assert sink.bodies == [b"1"]


def test_credit_by_hand_is_not_given_back_by_an_ack(bench):
    consumer, sink = bench.consume(manual_credit=True)
    for number in range(3):
        bench.publish(b"%d" % number)
    assert sink.bodies == []
    consumer.credit(1)
    bench.engine.ack(sink.deliveries[0])
    assert sink.bodies == [b"0"]
    consumer.credit(5)
    assert sink.bodies == [b"0", b"1", b"2"]


def test_no_ack_deliveries_are_settled_and_not_limited(bench):
    _, sink = bench.consume(no_ack=True, prefetch=1)
    for number in range(3):
        bench.publish(b"%d" % number)
    assert sink.bodies == [b"0", b"1", b"2"]
    assert bench.engine.vhost("/").queues["q"].count == 0


def test_an_exclusive_consumer_keeps_others_away(bench):
    bench.consume(exclusive=True)
    for exclusive in (False, True):
        with pytest.raises(AccessRefused) as refused:
            bench.consume(exclusive=exclusive)
        assert str(refused.value) == "queue 'q' in vhost '/' in exclusive use"


def test_nobody_consumes_exclusively_where_others_consume(bench):
    other, _ = bench.consume()
    with pytest.raises(AccessRefused, match="in exclusive use"):
        bench.consume(exclusive=True)
    bench.engine.cancel(other)
    exclusive, _ = bench.consume(exclusive=True)
    bench.engine.cancel(exclusive)
    bench.consume()


def test_a_single_message_may_be_taken_where_somebody_consumes_exclusively(bench):
    bench.consume(exclusive=True, manual_credit=True)
    bench.publish(b"1")
    getter = Consumer(bench["q"], None, ConsumeOptions(), set(), object())
    assert bench.engine.get(bench["q"], getter, object(), 1).message.body == b"1"


def test_an_exclusive_queue_is_for_its_owner_only_and_goes_with_it(bench):
    owner = Sink()
    bench.engine.definitions.declare_queue("/", QueueSpec("mine", exclusive=True), owner)
    with pytest.raises(ResourceLocked):
        bench.consume("mine")
    bench.engine.definitions.release(owner)
    with pytest.raises(NotFound):
        bench.consume("mine")


def test_very_many_exclusive_queues_go_a_part_at_a_time(bench):
    owner, other = Sink(), Sink()
    definitions, queues = bench.engine.definitions, bench.engine.vhost("/").queues
    for number in range(2 * AT_ONCE + 10):
        definitions.declare_queue("/", QueueSpec(f"mine{number}", exclusive=True), owner)
    definitions.declare_queue("/", QueueSpec("another's", exclusive=True), other)
    definitions.release(owner)
    left = [len(queues)]
    while bench.engine.timers.next_due_ms < NOTHING_DUE:
        bench.engine.advance(bench.engine.timers.next_due_ms)
        left.append(len(queues))
    assert left == [AT_ONCE + 12, 12, 2]
    assert list(definitions.owned) == [other]


def test_an_auto_delete_queue_goes_with_its_last_consumer(bench):
    bench.queue("brief", auto_delete=True)
    first, _ = bench.consume("brief")
    second, _ = bench.consume("brief")
    bench.engine.cancel(first)
    assert "brief" in bench.engine.vhost("/").queues
    bench.engine.cancel(second)
    assert "brief" not in bench.engine.vhost("/").queues


def test_consumers_are_told_when_their_queue_is_deleted_and_late_acks_do_no_harm(bench):
    bench.publish(b"1")
    _, sink = bench.consume(prefetch=1)
    bench.commit()
    bench.engine.definitions.delete_queue("/", "q", None)
    assert [type(c) for c in sink.cancellations] == [NotFound]
    bench.engine.ack(sink.deliveries[0])
    assert not bench.engine.batch.settled


def test_a_sink_that_raises_is_cancelled_and_its_message_comes_back(bench):
    class Broken(Sink):
        def deliver(self, delivery):
            raise ValueError("bug")

    broken = Broken()
    consumer, _ = bench.consume(sink=broken, prefetch=5)
    assert bench.publish(b"1") is None
    assert [name for name, _ in bench.events.failures] == ["q"]
    bench.close(broken, consumer)
    _, sink = bench.consume()
    assert sink.bodies == [b"1"]


def test_a_requeue_of_what_is_on_disk_records_the_delivery_count(bench):
    bench.publish(b"1")
    consumer, sink = bench.consume(prefetch=1)
    bench.commit()
    consumer.pause()
    bench.engine.nack(sink.deliveries[0], requeue=True)
    assert bench.engine.batch.records == [DeliveryCounted(sink.deliveries[0], 1)]


# -- many at once -----------------------------------------------------------


def test_many_are_settled_at_once_as_they_would_be_one_by_one(bench):
    bench.queue("other")
    _, one = bench.consume(prefetch=3)
    _, two = bench.consume("other", prefetch=2)
    for number in range(6):
        bench.publish(b"%d" % number, persistent=number % 2 == 0)
        bench.publish(b"%d" % number, "other")
    bench.commit()
    both = [*one.deliveries, *two.deliveries]
    bench.engine.ack_many([both[0], both[3], both[1], both[4], both[2]])
    assert one.bodies == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert two.bodies == [b"0", b"1", b"2", b"3"]
    assert (bench["q"].count, bench["q"].body_bytes, bench["other"].count, bench["other"].body_bytes) == (3, 3, 4, 4)
    assert {entry.position for entry in bench.engine.batch.settled} == {1, 2, 3}
    assert len(bench.engine.batch.settled) == 4


def test_many_that_are_settled_before_they_are_written_are_never_written(bench):
    _, sink = bench.consume()
    for number in range(3):
        bench.publish(b"%d" % number)
    bench.engine.ack_many(iter(sink.deliveries))
    assert bench.engine.batch.unsettled == 0
    assert [message.live for message in bench.engine.batch.messages] == [0, 0, 0]


def test_one_unknown_among_many_is_told_and_the_others_are_settled(bench):
    consumer, sink = bench.consume(prefetch=2)
    bench.publish(b"1")
    bench.publish(b"2")
    first, second = sink.deliveries
    with pytest.raises(NotFound):
        bench.engine.ack_many([first, first, second])
    assert bench["q"].count == 0
    assert consumer.credit_left == 2


# -- paused -----------------------------------------------------------------


@pytest.mark.parametrize("line", [{}, {"single_active_consumer": True}])
def test_a_consumer_that_begins_paused_is_handed_nothing_before_it_is_resumed(line):
    bench = Bench()
    bench.queue(**line)
    bench.publish(b"1")
    consumer, sink = bench.consume(prefetch=5, paused=True, priority=3)
    bench.publish(b"2")
    assert sink.bodies == []
    consumer.resume()
    assert sink.bodies == [b"1", b"2"]


class Hesitant(Sink):
    """Pauses its consumer with every message that it is handed."""

    consumer: Consumer

    def deliver(self, delivery):
        super().deliver(delivery)
        self.consumer.pause()


@pytest.mark.parametrize("prefetch", [0, 1, 10])
@pytest.mark.parametrize("no_ack", [False, True])
@pytest.mark.parametrize("line", [{}, {"single_active_consumer": True}, {"max_priority": 2}, {"message_ttl_ms": 1_000}])
def test_a_sink_may_pause_its_consumer_while_it_is_handed_a_message(line, no_ack, prefetch):
    bench = Bench()
    bench.queue(**line)
    sink = Hesitant()
    sink.consumer, _ = bench.consume(sink=sink, prefetch=prefetch, no_ack=no_ack, paused=True)
    for number in range(4):
        bench.publish(b"%d" % number)
    for number in range(4):
        sink.consumer.resume()
        assert sink.bodies == [b"%d" % each for each in range(number + 1)]
        if not no_ack:
            bench.engine.ack(sink.deliveries[-1])
    bench.publish(b"4")  # past the queue, on the shortest way
    assert sink.bodies[4:] == []
    sink.consumer.resume()
    assert sink.bodies[4:] == [b"4"]


def test_who_is_paused_while_it_is_handed_a_message_leaves_its_turn_to_others():
    bench = Bench()
    bench.queue()
    hesitant = Hesitant()
    hesitant.consumer, _ = bench.consume(sink=hesitant)
    _, other = bench.consume()
    for number in range(4):
        bench.publish(b"%d" % number)
    assert (hesitant.bodies, other.bodies) == ([b"0"], [b"1", b"2", b"3"])


# -- many at once -----------------------------------------------------------


def test_many_come_back_to_their_old_places_before_any_is_handed_out_again(bench):
    for number in range(4):
        bench.publish(b"%d" % number)
    _, sink = bench.consume(prefetch=4)
    first = list(sink.deliveries)
    bench.engine.nack_many([first[2], first[0], first[3], first[1]], requeue=True)
    assert sink.bodies[4:] == [b"0", b"1", b"2", b"3"]
    assert all(delivery.redelivered for delivery in sink.deliveries[4:])


def test_many_that_are_rejected_are_dead_lettered_in_order(bench):
    bench.queue("dead")
    bench.queue("q2", dead_letter_exchange="", dead_letter_routing_key="dead")
    for number in range(3):
        bench.publish(b"%d" % number, "q2")
    _, sink = bench.consume("q2", prefetch=3)
    bench.engine.nack_many(sink.deliveries, requeue=False)
    assert bench.bodies("dead") == [b"0", b"1", b"2"]


def test_those_that_came_back_too_often_are_dead_lettered_in_order_and_the_others_come_back(bench):
    bench.queue("dead")
    bench.queue("q2", dead_letter_exchange="", dead_letter_routing_key="dead", delivery_limit=1)
    for number in range(3):
        bench.publish(b"%d" % number, "q2")
    consumer, sink = bench.consume("q2", prefetch=3)
    bench.engine.nack_many(sink.deliveries[:2], requeue=True)
    consumer.pause()
    bench.engine.nack_many(sink.deliveries[2:], requeue=True)
    assert bench.bodies("dead") == [b"0", b"1"]
    assert bench.bodies("q2") == [b"2"]


def test_of_many_some_of_which_are_unknown_the_others_are_given_back(bench):
    bench.publish(b"1")
    bench.publish(b"2")
    consumer, sink = bench.consume(prefetch=2)
    consumer.pause()
    bench.engine.ack(sink.deliveries[0])
    with pytest.raises(NotFound):
        bench.engine.nack_many(sink.deliveries, requeue=True)
    assert bench.bodies() == [b"2"]
    assert consumer.credit_left == 2
