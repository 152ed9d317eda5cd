"""What was begun to be sent does not expire, though it comes back."""

from __future__ import annotations

import pytest

from gateway.journal.memory import MemoryJournal, MemoryStore
from gateway.model.records import DeliveryCounted
from tests.engine.support import Bench

T = 1_000_000


@pytest.fixture
def bench():
    bench = Bench()
    bench.engine.advance(T)
    return bench


@pytest.mark.parametrize("spec", [{}, {"message_ttl_ms": 10}])
def test_what_is_spared_is_delivered_again_after_its_time_and_what_is_not_is_gone(bench, spec):
    bench.queue(**spec)
    for body in (b"1", b"2", b"3"):
        bench.publish(body, expires_at_ms=0 if spec else T + 10)
    consumer, sink = bench.consume()
    sink.deliveries[0].spare()
    sink.deliveries[2].spare()
    bench.close(sink, consumer)
    bench.engine.advance(T + 100)
    _, again = bench.consume()
    assert again.bodies == [b"1", b"3"]
    assert bench["q"].count == 2


def test_what_is_spared_hides_nothing_that_expires_behind_it(bench):
    bench.queue()
    for body in (b"1", b"2"):
        bench.publish(body, expires_at_ms=T + 10)
    consumer, sink = bench.consume()
    sink.deliveries[0].spare()
    bench.close(sink, consumer)
    bench.engine.advance(T + 100)
    _, again = bench.consume()
    assert again.bodies == [b"1"]


def test_it_is_written_down_once_and_only_where_there_is_something_to_spare(bench):
    bench.queue()
    bench.publish(b"1", expires_at_ms=T + 10)
    bench.publish(b"2")
    bench.publish(b"3", expires_at_ms=T + 10, persistent=False)
    bench.publish(b"4", expires_at_ms=T + 10)
    _, sink = bench.consume()
    bench.engine.ack(sink.deliveries[3])
    for delivery in [*sink.deliveries, *sink.deliveries]:
        delivery.spare()
    records = [record for record in bench.engine.batch.records if isinstance(record, DeliveryCounted)]
    assert [(record.reference.message.body, record.count, record.due_ms) for record in records] == [(b"1", 1, -1)]


@pytest.mark.parametrize("back", [False, True])
def test_it_is_spared_after_a_restart_too(back):
    store = MemoryStore()
    first = Bench()
    journal = MemoryJournal(store, lambda: T)
    journal.open()
    first.engine.advance(T)
    first.queue()
    for body in (b"1", b"2"):
        first.publish(body, expires_at_ms=T + 10)
    consumer, sink = first.consume()
    sink.deliveries[0].spare()
    if back:
        first.close(sink, consumer)
    commit = journal.prepare(first.engine.take_batch())
    journal.write(commit, lambda error: None)
    second = Bench()
    for record in journal.load():
        second.engine.replay(record)
    second.engine.advance(T + 100)
    _, again = second.consume()
    pages = []
    journal.read_page(second["q"].id, 0, 1_000_000, lambda make: pages.append(make()))
    second.engine.page_loaded(pages[0], 0)
    assert again.bodies == [b"1"]
    assert again.deliveries[0].redelivered
