"""A delivery that becomes a message of another queue: in one batch, and for good."""

from __future__ import annotations

import pytest

from gateway.errors import MessageRefused, NotFound, Overloaded
from gateway.model.declare import Overflow
from gateway.model.message import Message
from tests.engine.support import Bench


@pytest.fixture
def bench():
    bench = Bench()
    bench.engine.advance(1_000_000)
    bench.queue("from")
    bench.queue("to")
    return bench


def held(bench, *bodies, **options):
    for body in bodies:
        bench.publish(body, "from")
    consumer, sink = bench.consume("from", **options)
    return consumer, sink


def move(bench, delivery, key="to", *, persistent=True):
    route = bench.engine.vhost("/").route("", key)
    return bench.engine.move(delivery, route, Message(route.address, delivery.message.body, persistent))


@pytest.mark.parametrize("committed", [False, True])
def test_it_leaves_the_one_queue_and_is_in_the_other_in_one_batch(bench, committed):
    _, sink = held(bench, b"1")
    if committed:
        bench.commit()
    assert move(bench, sink.deliveries[0]) is None
    assert bench["from"].count == 0
    assert bench.bodies("to") == [b"1"]
    batch = bench.commit()
    assert [message.body for message in batch.messages if message.live] == [b"1"]
    assert len(batch.settled) == committed
    assert not bench.engine.ours


@pytest.mark.parametrize("under_way", [False, True])
def test_it_is_never_withdrawn_as_its_source_is_gone(bench, under_way):
    _, sink = held(bench, b"1")
    bench.commit()
    assert move(bench, sink.deliveries[0]) is None
    bench.publish(b"2", "to")
    if under_way:
        bench.hand_over()
    assert len(bench.engine.withdraw(lambda entry: entry.segment == 0)) == 1
    assert bench.bodies("to") == [b"1"]
    assert bench["from"].count == 0


def test_it_gives_credit_back(bench):
    _, sink = held(bench, b"1", b"2", prefetch=1)
    move(bench, sink.deliveries[0])
    assert sink.bodies == [b"1", b"2"]


@pytest.mark.parametrize(("reason", "error"), [("full", MessageRefused), ("journal", Overloaded), ("nowhere", NotFound)], ids=str)
def test_what_is_refused_is_held_as_before(bench, reason, error):
    bench.queue("full", max_length=1, overflow=Overflow.REJECT_PUBLISH)
    bench.publish(b"0", "full")
    _, sink = held(bench, b"1")
    bench.commit()
    if reason == "journal":
        bench.engine.refuse_durable("the disk is full")
    answer = move(bench, sink.deliveries[0], {"full": "full", "journal": "to", "nowhere": "nobody"}[reason])
    assert isinstance(answer, error)
    assert not bench.engine.ours
    assert bench["from"].count == 1
    bench.engine.ack(sink.deliveries[0])
    assert bench["from"].count == 0


def test_what_is_not_held_is_not_published(bench):
    _, sink = held(bench, b"1")
    bench.engine.ack(sink.deliveries[0])
    with pytest.raises(NotFound):
        move(bench, sink.deliveries[0])
    assert bench["to"].count == 0


def test_a_delivery_whose_lease_has_ended_is_somebody_elses(bench):
    bench.queue("leased", consumer_timeout_ms=10)
    bench.publish(b"1", "leased")
    _, sink = bench.consume("leased")
    _, other = bench.consume("leased")
    bench.engine.advance(1_000_100)
    with pytest.raises(NotFound):
        move(bench, sink.deliveries[0])
    assert bench["to"].count == 0
    assert other.bodies == [b"1"]


def test_what_is_held_of_a_queue_that_was_deleted_is_moved_all_the_same(bench):
    _, sink = held(bench, b"1")
    bench.engine.definitions.remove_queue(bench["from"])
    assert move(bench, sink.deliveries[0]) is None
    assert bench.bodies("to") == [b"1"]


def test_what_does_not_last_may_be_moved_too(bench):
    _, sink = held(bench, b"1")
    assert move(bench, sink.deliveries[0], persistent=False) is None
    assert bench.bodies("to") == [b"1"]
    assert not bench.engine.ours
