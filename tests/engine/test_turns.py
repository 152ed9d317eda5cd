"""Which consumer gets a message: by priority, in turns, or one alone?"""

from __future__ import annotations

import pytest

from gateway.errors import AccessRefused
from tests.engine.support import Bench, Sink


@pytest.fixture
def bench():
    bench = Bench()
    bench.queue()
    return bench


@pytest.fixture
def single():
    bench = Bench()
    bench.queue(single_active_consumer=True)
    return bench


def fill(bench, *numbers, **more):
    for number in numbers:
        bench.publish(b"%d" % number, **more)


class Broken(Sink):
    def deliver(self, delivery):
        raise ValueError("broken")


# -- priorities -------------------------------------------------------------


def test_the_highest_priority_gets_everything_while_it_can_take_any(bench):
    _, low = bench.consume(prefetch=10, priority=-1)
    _, middle = bench.consume(prefetch=10)
    _, high = bench.consume(prefetch=2, priority=5)
    fill(bench, 1, 2, 3)
    assert (high.bodies, middle.bodies, low.bodies) == ([b"1", b"2"], [b"3"], [])
    bench.engine.ack(high.deliveries[0])
    fill(bench, 4, 5)
    assert (high.bodies, middle.bodies, low.bodies) == ([b"1", b"2", b"4"], [b"3", b"5"], [])


def test_equal_priorities_take_turns(bench):
    _, one = bench.consume(prefetch=10, priority=3)
    _, two = bench.consume(prefetch=10, priority=3)
    _, low = bench.consume(prefetch=10, priority=2)
    fill(bench, 1, 2, 3, 4)
    assert (one.bodies, two.bodies, low.bodies) == ([b"1", b"3"], [b"2", b"4"], [])


def test_turns_go_on_where_they_were_after_a_higher_one_came_and_went(bench):
    _, one = bench.consume(prefetch=10)
    _, two = bench.consume(prefetch=10)
    fill(bench, 1)
    high, sink = bench.consume(prefetch=1, priority=1)
    fill(bench, 2)
    bench.close(sink, high)
    fill(bench, 3)
    assert (one.bodies, two.bodies, sink.bodies) == ([b"1", b"3"], [b"2"], [b"2"])


def test_what_waits_goes_to_the_lower_one_when_the_higher_one_is_full_paused_or_gone(bench):
    high, first = bench.consume(prefetch=2, priority=1)
    fill(bench, 1, 2, 3)
    _, low = bench.consume(prefetch=1)
    assert low.bodies == [b"3"]
    bench.engine.ack(low.deliveries[0])
    high.pause()
    bench.engine.ack(first.deliveries[0])
    fill(bench, 4, 5)
    assert low.bodies == [b"3", b"4"]
    high.resume()
    assert first.bodies == [b"1", b"2", b"5"]
    bench.engine.cancel(high)
    bench.engine.ack(low.deliveries[1])
    fill(bench, 6)
    assert low.bodies == [b"3", b"4", b"6"]


def test_priorities_may_come_while_others_already_take_turns(bench):
    _, one = bench.consume(prefetch=1)
    fill(bench, 1)
    _, two = bench.consume(prefetch=2)
    _, high = bench.consume(prefetch=1, priority=1)
    fill(bench, 2, 3, 4)
    assert (one.bodies, high.bodies, two.bodies) == ([b"1"], [b"2"], [b"3", b"4"])


def test_a_failed_sink_of_the_highest_priority_leaves_the_rest_to_others(bench):
    _, low = bench.consume(prefetch=10)
    fill(bench, 1)
    bench.consume(sink=Broken(), prefetch=10, priority=9)
    fill(bench, 2, 3)
    assert low.bodies == [b"1", b"3"]  # the broken one holds 2 until its channel closes


def test_a_thousand_priorities_that_come_and_go_leave_nothing_behind(bench):
    for priority in range(1000):
        consumer, sink = bench.consume(prefetch=1, priority=priority)
        bench.close(sink, consumer)
    assert len(bench["q"].line._tiers) <= 2
    _, sink = bench.consume(prefetch=1)
    fill(bench, 1)
    assert sink.bodies == [b"1"]


def test_a_queue_whose_consumers_are_alike_keeps_no_line(bench):
    bench.consume()
    bench.consume()
    assert bench["q"].line is None


# -- a single active consumer -----------------------------------------------


def test_the_first_consumer_gets_everything(single):
    first, one = single.consume(prefetch=10)
    second, two = single.consume(prefetch=10, priority=9)
    fill(single, 1, 2, 3)
    assert (one.bodies, two.bodies) == ([b"1", b"2", b"3"], [])
    assert (first.is_single_active, second.is_single_active) == (True, False)


def test_no_consumer_of_another_queue_is_called_active(bench):
    assert not bench.consume()[0].is_single_active


@pytest.mark.parametrize("busy", ["without credit", "paused"])
def test_the_active_one_stays_active_however_busy_it_is(single, busy):
    first, one = single.consume(prefetch=1)
    second, two = single.consume(prefetch=10)
    if busy == "paused":
        first.pause()
    fill(single, 1, 2)
    assert two.bodies == []
    assert first.is_single_active
    second.pause()
    second.resume()
    if busy == "paused":
        first.resume()
    single.engine.ack(one.deliveries[0])
    assert (one.bodies, two.bodies) == ([b"1", b"2"], [])


def test_when_it_is_cancelled_the_highest_priority_takes_over_then_the_oldest(single):
    first, one = single.consume(prefetch=1)
    _, old = single.consume(prefetch=10)
    high, favoured = single.consume(prefetch=1, priority=1)
    fill(single, 1, 2, 3)
    single.engine.cancel(first)
    assert (one.bodies, favoured.bodies, old.bodies) == ([b"1"], [b"2"], [])
    assert high.is_single_active
    single.close(favoured, high)
    assert old.bodies == [b"2", b"3"]
    assert old.deliveries[0].redelivered


def test_what_a_closed_channel_held_goes_to_the_next_in_order(single):
    first, one = single.consume(prefetch=2)
    _, two = single.consume(prefetch=10)
    fill(single, 1, 2, 3)
    single.engine.cancel(first)
    single.engine.close_channel(one)
    assert sorted(two.bodies) == [b"1", b"2", b"3"]
    assert single["q"].ready_count == 0


def test_a_failed_sink_makes_the_next_one_active(single):
    _, two = Sink(), Sink()
    broken, _ = single.consume(sink=Broken(), prefetch=10)
    second, _ = single.consume(sink=two, prefetch=10)
    fill(single, 1, 2, 3)
    assert not broken.is_single_active
    assert second.is_single_active
    assert two.bodies == [b"2", b"3"]


def test_many_failing_sinks_in_a_row_are_no_recursion(single):
    sinks = [Broken() for _ in range(2000)]
    for sink in sinks:
        single.consume(sink=sink, prefetch=1)
    _, good = single.consume(prefetch=10)
    fill(single, *range(2001))
    assert good.bodies == [b"2000"]


def test_an_exclusive_consumer_is_refused_where_one_is_active_alone(single):
    with pytest.raises(AccessRefused, match="in exclusive use"):
        single.consume(exclusive=True)


def test_what_never_waits_goes_to_the_active_one():
    bench = Bench()
    bench.queue("session", keep_transient=False, single_active_consumer=True)
    first, one = bench.consume("session")
    _, two = bench.consume("session")
    bench.publish(b"1", "session", persistent=False)
    bench.engine.cancel(first)
    bench.publish(b"2", "session", persistent=False)
    assert [message.body for message in one.transient] == [b"1"]
    assert [message.body for message in two.transient] == [b"2"]


def test_a_queue_with_nobody_left_takes_the_next_that_comes(single):
    first, one = single.consume()
    single.close(one, first)
    fill(single, 1)
    second, two = single.consume()
    assert second.is_single_active
    assert two.bodies == [b"1"]
