"""What an acknowledgement may spare the disk, and what not."""

from __future__ import annotations

import pytest

from tests.engine.support import Bench


@pytest.fixture
def bench():
    bench = Bench()
    bench.queue()
    return bench


def test_what_a_consumer_acked_in_time_is_not_written(bench):
    _, sink = bench.consume(prefetch=5)
    bench.publish(b"1")
    bench.engine.ack(sink.deliveries[0])
    assert [m.live for m in bench.engine.batch.messages] == [0]
    assert bench.engine.batch.unsettled == 0


def test_a_message_in_two_queues_is_written_while_one_of_them_has_it(bench):
    bench.queue("other")
    for name in ("q", "other"):
        bench.bind("amq.fanout", name, "")
    _, sink = bench.consume(prefetch=5)
    bench.publish(b"1", "", "amq.fanout")
    bench.engine.ack(sink.deliveries[0])
    assert [m.live for m in bench.engine.batch.messages] == [1]


@pytest.mark.parametrize("how", ["no_ack", "handed over"])
def test_automatic_settlement_is_written_first(bench, how):
    _, sink = bench.consume(prefetch=5, no_ack=how == "no_ack")
    bench.publish(b"1")
    if how == "handed over":
        bench.engine.handed_over(sink.deliveries[0])
    batch = bench.engine.batch
    assert [m.live for m in batch.messages] == [1]
    assert batch.unsettled == 1
    assert [r.message.body for r in batch.deferred] == [b"1"]
    assert bench.engine.vhost("/").queues["q"].count == 0


def test_an_ack_after_the_hand_over_is_a_fact_of_its_own(bench):
    _, sink = bench.consume(prefetch=5)
    bench.publish(b"1")
    bench.hand_over()
    bench.engine.ack(sink.deliveries[0])
    assert bench.engine.batch.settled == [sink.deliveries[0]]


def test_hand_over_and_ack_leave_no_cycle_between_message_and_entry(bench):
    _, sink = bench.consume(prefetch=5)
    bench.publish(b"1")
    bench.publish(b"2")
    bench.engine.ack(sink.deliveries[0])
    bench.hand_over()
    assert all(d.message.first is None and d.message.more is None for d in sink.deliveries)
