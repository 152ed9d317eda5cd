"""A delivery that is held too long goes to somebody else, if there is anybody."""

from __future__ import annotations

import pytest

from gateway.api.consumer import ConsumeOptions
from gateway.engine.queues.consumer import MOST_LAPSED, Consumer
from gateway.engine.queues.lease import PORTION
from gateway.engine.queues.terms import Terms
from gateway.errors import NotFound
from gateway.model.declare import Retry
from gateway.model.records import DeliveryCounted
from tests.engine.support import Bench, Sink

T = 1_000_000


def leased(timeout_ms=100, **more):
    bench = Bench()
    bench.engine.advance(T)
    bench.queue("dead")
    bench.queue(consumer_timeout_ms=timeout_ms, **more)
    return bench


@pytest.fixture
def bench():
    return leased()


def settle(bench, now_ms):
    """Do all that is due, however many turns that takes."""
    bench.engine.advance(now_ms)
    while bench.engine.timers.next_due_ms <= now_ms:
        bench.engine.advance(now_ms)


# -- to somebody else -------------------------------------------------------


def test_an_expired_lease_goes_to_another_consumer_marked_and_counted(bench):
    _, one = bench.consume(prefetch=1)
    _, two = bench.consume(prefetch=1)
    bench.publish(b"1")
    bench.engine.advance(T + 99)
    assert two.bodies == []
    bench.engine.advance(T + 100)
    assert (one.bodies, two.bodies) == ([b"1"], [b"1"])
    assert two.deliveries[0].redelivered
    assert two.deliveries[0].count == 2
    bench.engine.ack(two.deliveries[0])
    assert bench["q"].count == 0


def test_it_never_goes_back_to_its_holder_while_another_can_take_it(bench):
    _, one = bench.consume()
    _, two = bench.consume()
    for body in (b"1", b"2", b"3", b"4"):
        bench.publish(body)
    bench.engine.ack(two.deliveries[0])
    bench.engine.ack(two.deliveries[1])
    settle(bench, T + 100)
    assert one.bodies == [b"1", b"3"]
    assert two.bodies == [b"2", b"4", b"1", b"3"]


def test_it_goes_past_a_higher_priority_that_holds_it(bench):
    _, high = bench.consume(priority=1)
    _, low = bench.consume()
    bench.publish(b"1")
    bench.engine.advance(T + 100)
    assert (high.bodies, low.bodies) == ([b"1"], [b"1"])
    bench.publish(b"2")
    assert high.bodies == [b"1", b"2"]


def test_without_another_consumer_it_stays_and_is_looked_at_again(bench):
    bench.consume(prefetch=1)
    bench.publish(b"1")
    for turn in range(1, 4):
        bench.engine.advance(T + 100 * turn)
    assert bench["q"].ready_count == 0
    _, two = bench.consume(prefetch=1)
    bench.engine.advance(T + 399)
    assert two.bodies == []
    bench.engine.advance(T + 400)
    assert two.bodies == [b"1"]
    assert two.deliveries[0].count == 2


def test_it_stays_while_all_others_are_busy_and_the_holder_would_get_it_again(bench):
    _, one = bench.consume()
    _, two = bench.consume(prefetch=1)
    bench.publish(b"1")
    bench.publish(b"2")
    bench.engine.advance(T + 50)
    bench.engine.extend(two.deliveries[0], 10_000)
    bench.engine.advance(T + 100)
    assert (one.bodies, two.bodies) == ([b"1"], [b"2"])
    bench.engine.ack(two.deliveries[0])
    bench.engine.advance(T + 200)
    assert (one.bodies, two.bodies) == ([b"1"], [b"2", b"1"])


def test_it_waits_at_its_place_while_all_are_busy(bench):
    _, one = bench.consume(prefetch=1)
    _, two = bench.consume(prefetch=1)
    for body in (b"1", b"2", b"3"):
        bench.publish(body)
    bench.engine.extend(two.deliveries[0], 10_000)
    bench.engine.advance(T + 100)
    assert bench.bodies() == [b"1", b"3"]
    bench.engine.ack(two.deliveries[0])
    assert two.bodies == [b"2", b"1"]
    assert one.bodies == [b"1"]


def test_it_counts_towards_the_delivery_limit():
    bench = leased(delivery_limit=1, dead_letter_exchange="", dead_letter_routing_key="dead")
    bench.consume()
    _, two = bench.consume()
    bench.publish(b"1")
    bench.engine.advance(T + 100)
    assert len(two.deliveries) == 1
    settle(bench, T + 200)
    assert bench.bodies("dead") == [b"1"]
    assert bench["q"].count == 0
    assert bench.engine.burial.counts == {"delivery_limit": 1}


def test_a_retry_delays_it():
    bench = leased(retry=Retry(first_ms=30))
    bench.consume(prefetch=1)
    _, two = bench.consume(prefetch=1)
    bench.publish(b"1")
    bench.engine.advance(T + 100)
    assert two.bodies == []
    bench.engine.advance(T + 130)
    assert two.bodies == [b"1"]


def test_a_single_active_consumer_hands_its_place_on():
    bench = leased(single_active_consumer=True)
    first, one = bench.consume(prefetch=2)
    second, two = bench.consume(prefetch=10)
    bench.publish(b"1")
    bench.publish(b"2")
    settle(bench, T + 100)
    assert two.bodies == [b"1", b"2"]
    assert (first.is_single_active, second.is_single_active) == (False, True)
    settle(bench, T + 200)
    assert first.is_single_active
    assert one.bodies == [b"1", b"2"]  # it has no credit: it still works on both


def test_a_single_active_consumer_alone_keeps_what_it_holds():
    bench = leased(single_active_consumer=True)
    first, one = bench.consume(prefetch=2)
    bench.publish(b"1")
    settle(bench, T + 100)
    assert first.is_single_active
    bench.engine.ack(one.deliveries[0])
    assert bench["q"].count == 0


def test_what_was_taken_by_get_comes_back_for_whoever_comes(bench):
    bench.publish(b"1")
    held = bench.engine.holdings.setdefault("channel", set())
    getter = Consumer(bench["q"], None, ConsumeOptions(), held, None)
    entry = bench.engine.get(bench["q"], getter, "channel", 1)
    bench.engine.advance(T + 100)
    assert bench.bodies() == [b"1"]
    assert held == set()
    with pytest.raises(NotFound):
        bench.engine.ack(entry)
    again = bench.engine.get(bench["q"], getter, "channel", 2)
    assert again.count == 2
    bench.engine.ack(again)


def test_nobody_holds_what_is_settled_automatically(bench):
    bench.consume(no_ack=True)
    bench.consume()
    bench.publish(b"1")
    settle(bench, T + 100)
    assert bench["q"].count == 0
    assert bench.engine.timers.next_due_ms > T + 10_000


# -- late -------------------------------------------------------------------


@pytest.mark.parametrize("how", ["ack", "nack", "reject", "hand over", "extend"])
def test_what_is_said_too_late_settles_nothing(bench, how):
    _, one = bench.consume(prefetch=1)
    _, two = bench.consume(prefetch=1)
    bench.publish(b"1")
    bench.engine.advance(T + 100)
    say = {
        "ack": bench.engine.ack,
        "nack": lambda entry: bench.engine.nack(entry, requeue=True),
        "reject": lambda entry: bench.engine.nack(entry, requeue=False),
        "hand over": bench.engine.handed_over,
        "extend": lambda entry: bench.engine.extend(entry, 10),
    }[how]
    for _ in range(2):
        with pytest.raises(NotFound, match="unknown delivery tag"):
            say(one.deliveries[0])
    assert bench["q"].count == 1
    bench.engine.ack(two.deliveries[0])
    assert bench["q"].count == 0


def test_one_channel_with_both_consumers_can_tell_them_apart(bench):
    held = set()
    bench.engine.holdings["channel"] = held
    sinks = [Sink(), Sink()]
    for sink in sinks:
        bench.engine.consume("/", "q", sink, ConsumeOptions(prefetch=1), held, None)
    bench.publish(b"1")
    bench.engine.advance(T + 100)
    first, second = sinks[0].deliveries[0], sinks[1].deliveries[0]
    assert first is not second
    with pytest.raises(NotFound):
        bench.engine.ack(first)
    bench.engine.ack(second)
    assert bench["q"].count == 0


def test_the_holder_keeps_its_credit_taken_until_it_says_something(bench):
    _, one = bench.consume(prefetch=1)
    bench.consume(prefetch=1)
    bench.publish(b"1")
    bench.engine.advance(T + 100)
    bench.publish(b"2")
    assert one.bodies == [b"1"]
    assert bench.bodies() == [b"2"]
    with pytest.raises(NotFound):
        bench.engine.ack(one.deliveries[0])
    assert one.bodies == [b"1", b"2"]


def test_a_channel_that_closes_puts_back_nothing_that_it_has_lost(bench):
    consumer, one = bench.consume(prefetch=1)
    _, two = bench.consume(prefetch=1)
    bench.publish(b"1")
    bench.engine.advance(T + 100)
    bench.close(one, consumer)
    assert bench["q"].ready_count == 0
    bench.engine.ack(two.deliveries[0])
    assert bench["q"].count == 0


def test_a_consumer_that_loses_many_leases_is_handed_nothing_until_it_settles_one(bench):
    _, hung = bench.consume()
    _, good = bench.consume()
    for number in range(2 * MOST_LAPSED):
        bench.publish(b"%d" % number)
    for delivery in list(good.deliveries):
        bench.engine.ack(delivery)
    settle(bench, T + 100)
    assert len(hung.deliveries) == MOST_LAPSED
    bench.publish(b"next")
    bench.publish(b"next")
    assert len(hung.deliveries) == MOST_LAPSED
    with pytest.raises(NotFound):
        bench.engine.ack(hung.deliveries[0])
    bench.publish(b"next")
    bench.publish(b"next")
    assert len(hung.deliveries) == MOST_LAPSED + 1


def test_a_late_word_about_a_queue_that_is_gone_is_no_error(bench):
    _, one = bench.consume(prefetch=1)
    bench.publish(b"1")
    bench.engine.definitions.delete_queue("/", "q", None)
    bench.engine.extend(one.deliveries[0], 10)
    bench.engine.ack(one.deliveries[0])


# -- extension --------------------------------------------------------------


def test_an_extension_counts_from_now(bench):
    _, one = bench.consume(prefetch=1)
    _, two = bench.consume(prefetch=1)
    bench.publish(b"1")
    bench.engine.advance(T + 90)
    bench.engine.extend(one.deliveries[0], 50)
    bench.engine.advance(T + 139)
    assert two.bodies == []
    bench.engine.advance(T + 140)
    assert two.bodies == [b"1"]


def test_an_extension_may_be_shorter_than_the_lease(bench):
    _, one = bench.consume(prefetch=1)
    _, two = bench.consume(prefetch=1)
    bench.publish(b"1")
    bench.engine.extend(one.deliveries[0], 10)
    bench.engine.advance(T + 10)
    assert two.bodies == [b"1"]
    bench.engine.advance(T + 109)
    assert bench["q"].ready_count == 0
    bench.engine.advance(T + 110)
    assert bench.bodies() == [b"1"]  # the second lease is as long as any; and both are busy


def test_the_last_extension_holds(bench):
    _, one = bench.consume(prefetch=1)
    _, two = bench.consume(prefetch=1)
    bench.publish(b"1")
    for lease_ms in (10, 500, 20, 300):
        bench.engine.extend(one.deliveries[0], lease_ms)
    bench.engine.advance(T + 299)
    assert two.bodies == []
    bench.engine.advance(T + 300)
    assert two.bodies == [b"1"]


def test_an_extended_delivery_that_was_given_back_has_a_lease_as_any_other(bench):
    _, one = bench.consume(prefetch=1)
    bench.publish(b"1")
    bench.engine.extend(one.deliveries[0], 10_000)
    bench.engine.nack(one.deliveries[0], requeue=True)
    _, two = bench.consume(prefetch=1)
    bench.engine.advance(T + 100)
    assert two.bodies == [b"1"]


def test_without_a_timeout_an_extension_does_nothing():
    bench = Bench()
    bench.queue()
    _, one = bench.consume(prefetch=1)
    bench.publish(b"1")
    bench.engine.extend(one.deliveries[0], 1)
    bench.engine.advance(T)
    bench.engine.ack(one.deliveries[0])


def test_many_extensions_leave_nothing_behind(bench):
    _, one = bench.consume(prefetch=1)
    bench.publish(b"1")
    for _ in range(10_000):
        bench.engine.extend(one.deliveries[0], 10_000)
    leases = bench["q"].leases
    assert len(leases._heap) < 300
    bench.engine.ack(one.deliveries[0])
    for _ in range(10):
        bench.publish(b"2")
        bench.engine.ack(one.deliveries[-1])
    settle(bench, T + 20_000)
    assert (len(leases._heap), len(leases._held), len(leases._extended)) == (0, 0, 0)


# -- bounds -----------------------------------------------------------------


def test_what_is_settled_is_soon_forgotten_even_behind_one_that_is_held_for_long(bench):
    _, one = bench.consume()
    bench.publish(b"stays")
    for _ in range(5000):
        bench.publish(b"goes")
        bench.engine.ack(one.deliveries.pop())
    assert len(bench["q"].leases._held) < 300


def test_so_many_leases_end_in_one_turn(bench):
    bench.consume()
    for number in range(3 * PORTION):
        bench.publish(b"%d" % number)
    _, two = bench.consume()
    bench.engine.advance(T + 100)
    assert len(two.deliveries) == PORTION
    settle(bench, T + 100)
    assert len(two.deliveries) == 3 * PORTION


# -- settings ---------------------------------------------------------------


def switch(bench, timeout_ms):

    queue = bench["q"]
    queue.apply(Terms({"consumer_timeout_ms": timeout_ms} if timeout_ms else {}))


def test_a_timeout_that_is_switched_on_holds_for_what_is_held_already():
    bench = leased(timeout_ms=0)
    bench.consume(prefetch=1)
    _, two = bench.consume(prefetch=1)
    bench.publish(b"1")
    bench.engine.advance(T + 50)
    switch(bench, 100)
    bench.engine.advance(T + 149)
    assert two.bodies == []
    bench.engine.advance(T + 150)
    assert two.bodies == [b"1"]


def test_a_timeout_that_is_switched_off_ends_nothing_any_more(bench):
    bench.consume(prefetch=1)
    _, two = bench.consume(prefetch=1)
    bench.publish(b"1")
    switch(bench, 0)
    bench.engine.advance(T + 1000)
    assert two.bodies == []


def test_a_shorter_timeout_holds_at_once(bench):
    bench.consume(prefetch=1)
    _, two = bench.consume(prefetch=1)
    bench.publish(b"1")
    switch(bench, 20)
    bench.engine.advance(T + 20)
    assert two.bodies == [b"1"]


# -- on disk ----------------------------------------------------------------


def test_the_return_is_counted_on_disk(bench):
    bench.consume(prefetch=1)
    _, two = bench.consume(prefetch=1)
    bench.publish(b"1")
    bench.commit()
    bench.engine.advance(T + 100)
    (counted,) = bench.engine.batch.records
    assert counted == DeliveryCounted(two.deliveries[0], 1, 0)
    bench.engine.ack(two.deliveries[0])
    assert bench.engine.batch.settled == [two.deliveries[0]]


@pytest.mark.parametrize("fan_out", [1, 2, 3])
def test_what_is_not_on_disk_yet_is_written_once_for_who_has_it_now(bench, fan_out):
    for number in range(fan_out):
        name = f"q{number}"
        bench.queue(name, consumer_timeout_ms=100)
        bench.bind("amq.fanout", name, "")
        bench.consume(name, prefetch=1)
    others = [bench.consume(f"q{number}", prefetch=1)[1] for number in range(fan_out)]
    bench.publish(b"1", "", "amq.fanout")
    bench.engine.advance(T + 100)
    (message,) = bench.engine.batch.messages
    assert message.live == fan_out
    batch = bench.hand_over()
    assert len(batch.messages) == 1
    assert all(other.deliveries[0].segment is not None for other in others)
    for other in others:
        bench.engine.ack(other.deliveries[0])
    assert len(bench.engine.batch.settled) == fan_out


def test_it_is_not_written_at_all_if_the_other_acknowledges_in_time(bench):
    bench.consume(prefetch=1)
    _, two = bench.consume(prefetch=1)
    bench.publish(b"1")
    bench.engine.advance(T + 100)
    bench.engine.ack(two.deliveries[0])
    (message,) = bench.engine.batch.messages
    assert message.live == 0
    assert bench.engine.batch.unsettled == 0
