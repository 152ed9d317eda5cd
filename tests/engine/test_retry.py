"""What came back waits as long as its queue, or who gave it back, says: then it is ready again at its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.api.consumer import ConsumeOptions
from gateway.engine.engine import LATER, Engine
from gateway.engine.queues.consumer import Consumer
from gateway.errors import PreconditionFailed
from gateway.journal.memory import MemoryJournal, MemoryStore
from gateway.journal.sqlite import SqliteJournal
from gateway.model.declare import QueueSpec, Retry
from gateway.model.message import Decoders, Message
from gateway.model.records import DeliveryCounted
from tests.engine.disk import Disk
from tests.engine.journals import JournalDisk
from tests.engine.support import Bench, Events, Sink

T = 1_000_000
RETRY = Retry(first_ms=10, factor=2, most_ms=35, attempts=5)


@pytest.fixture
def bench():
    bench = Bench()
    bench.engine.advance(T)
    bench.queue()
    return bench


def retrying(**more):
    bench = Bench()
    bench.engine.advance(T)
    bench.queue("dead")
    bench.queue(retry=RETRY, **more)
    return bench


def back(bench, sink, at=-1, **more):
    bench.engine.nack(sink.deliveries[at], requeue=True, **more)


# -- a delay on nack --------------------------------------------------------


def test_what_is_given_back_with_a_delay_is_delivered_again_when_it_is_over(bench):
    _, sink = bench.consume(prefetch=1)
    bench.publish(b"1")
    back(bench, sink, delay_ms=10)
    bench.engine.advance(T + 9)
    assert sink.bodies == [b"1"]
    bench.engine.advance(T + 10)
    assert sink.bodies == [b"1", b"1"]
    assert sink.deliveries[1].redelivered
    assert sink.deliveries[1].count == 2


def test_what_waits_counts_as_ready_and_others_go_past_it(bench):
    _, sink = bench.consume(prefetch=1)
    bench.publish(b"1")
    bench.publish(b"2")
    back(bench, sink, delay_ms=10)
    assert sink.bodies == [b"1", b"2"]
    queue = bench["q"]
    assert (queue.count, queue.ready_count, queue.returning_count, queue.body_bytes) == (2, 1, 1, 2)


def test_it_comes_back_to_its_old_place(bench):
    for body in (b"1", b"2", b"3"):
        bench.publish(body)
    consumer, sink = bench.consume(prefetch=3)
    consumer.pause()
    back(bench, sink, 1, delay_ms=10)
    back(bench, sink, 0)
    back(bench, sink, 2)
    assert bench.bodies() == [b"1", b"3"]
    bench.engine.advance(T + 10)
    assert bench.bodies() == [b"1", b"2", b"3"]


def test_priorities_hold_for_what_comes_back():
    bench = Bench()
    bench.engine.advance(T)
    bench.queue(max_priority=1)
    bench.publish(b"high", priority=1)
    bench.publish(b"low")
    consumer, sink = bench.consume(prefetch=1)
    consumer.pause()
    back(bench, sink, delay_ms=10)
    bench.engine.advance(T + 10)
    assert bench.bodies() == [b"high", b"low"]


def test_a_rejection_has_no_delay(bench):
    _, sink = bench.consume(prefetch=1)
    bench.publish(b"1")
    bench.engine.nack(sink.deliveries[0], requeue=False, delay_ms=10)
    assert bench["q"].count == 0
    assert bench.events.drops == [("q", "rejected", 1)]


def test_an_absurd_delay_is_a_hundred_years(bench):
    _, sink = bench.consume(prefetch=1)
    bench.publish(b"1")
    back(bench, sink, delay_ms=10**40)
    (counted,) = bench.engine.batch.records[-1:]
    assert counted.due_ms < 1 << 62


def test_many_that_are_due_at_once_come_back_in_portions_in_order(bench):
    bodies = [b"%d" % number for number in range(2500)]
    for body in bodies:
        bench.publish(body)
    consumer, sink = bench.consume()
    bench.engine.cancel(consumer)
    for delivery in reversed(sink.deliveries):
        bench.engine.nack(delivery, requeue=True, delay_ms=10)
    bench.engine.advance(T + 10)
    assert len(bench.bodies()) == 1000
    while bench.engine.timers.next_due_ms <= T + 10:
        bench.engine.advance(T + 10)
    assert bench.bodies() == bodies


# -- retry ------------------------------------------------------------------


def test_every_return_waits_longer_up_to_the_longest_wait():
    bench = retrying()
    _, sink = bench.consume(prefetch=1)
    bench.publish(b"1")
    now, waits = T, []
    for _ in range(4):
        back(bench, sink)
        waits.append(bench.engine.timers.next_due_ms - now)
        now = bench.engine.timers.next_due_ms
        bench.engine.advance(now)
    assert waits == [10, 20, 35, 35]


def test_after_the_last_attempt_it_is_dead_lettered():
    bench = retrying(dead_letter_exchange="", dead_letter_routing_key="dead")
    _, sink = bench.consume(prefetch=1)
    bench.publish(b"1")
    now = T
    for _ in range(6):
        back(bench, sink)
        now += 100
        bench.engine.advance(now)
    assert len(sink.deliveries) == 6
    assert bench["q"].count == 0
    assert bench.bodies("dead") == [b"1"]
    assert bench.engine.burial.counts == {"delivery_limit": 1}


def test_the_longer_of_both_delays_holds():
    bench = retrying()
    _, sink = bench.consume(prefetch=2)
    bench.publish(b"1")
    bench.publish(b"2")
    back(bench, sink, 0, delay_ms=3)
    back(bench, sink, 1, delay_ms=15)
    bench.engine.advance(T + 9)
    assert len(sink.deliveries) == 2
    bench.engine.advance(T + 10)
    assert sink.bodies == [b"1", b"2", b"1"]
    bench.engine.advance(T + 15)
    assert sink.bodies == [b"1", b"2", b"1", b"2"]


def test_what_a_lost_channel_held_comes_back_at_once_but_counts():
    bench = retrying()
    bench.publish(b"1")
    for _ in range(5):
        consumer, sink = bench.consume(prefetch=1)
        assert sink.bodies == [b"1"]
        bench.close(sink, consumer)
    consumer, sink = bench.consume(prefetch=1)
    bench.close(sink, consumer)
    assert bench["q"].count == 0
    assert bench.events.drops == [("q", "delivery_limit", 1)]


def test_a_retry_without_attempts_goes_on():
    bench = Bench()
    bench.engine.advance(T)
    bench.queue(retry=Retry(first_ms=1, factor=1.0))
    _, sink = bench.consume(prefetch=1)
    bench.publish(b"1")
    for step in range(200):
        back(bench, sink)
        bench.engine.advance(T + 2 * step + 2)
    assert len(sink.deliveries) == 201


# -- what else happens to a queue meanwhile ---------------------------------


def test_its_time_to_live_passes_while_it_waits():
    bench = Bench()
    bench.engine.advance(T)
    bench.queue("dead")
    bench.queue(message_ttl_ms=10, dead_letter_exchange="", dead_letter_routing_key="dead")
    _, sink = bench.consume(prefetch=1)
    bench.publish(b"1")
    back(bench, sink, delay_ms=1000)
    bench.engine.advance(T + 9)
    assert bench["q"].count == 1
    bench.engine.advance(T + 10)
    bench.engine.advance(T + 10)
    assert bench["q"].count == 0
    assert bench.bodies("dead") == [b"1"]
    assert len(sink.deliveries) == 1


def test_a_purge_removes_what_waits(bench):
    _, sink = bench.consume(prefetch=1)
    bench.publish(b"1")
    bench.commit()
    back(bench, sink, delay_ms=10)
    assert bench.engine.definitions.purge_queue("/", "q", None) == 1
    assert bench["q"].count == bench["q"].body_bytes == 0
    assert [type(record).__name__ for record in bench.engine.batch.records] == ["DeliveryCounted", "QueuePurged"]
    bench.engine.advance(T + 10)
    assert len(sink.deliveries) == 1


def test_a_deletion_counts_what_waits_and_forgets_it(bench):
    _, sink = bench.consume(prefetch=1)
    bench.publish(b"1")
    back(bench, sink, delay_ms=10)
    assert bench.engine.definitions.delete_queue("/", "q", None) == 1
    bench.engine.advance(T + 10)
    assert len(sink.deliveries) == 1


def test_a_queue_in_which_something_waits_is_not_empty(bench):

    _, sink = bench.consume(prefetch=1)
    bench.publish(b"1")
    back(bench, sink, delay_ms=10)
    with pytest.raises(PreconditionFailed):
        bench.engine.definitions.delete_queue("/", "q", None, if_empty=True)


def test_it_counts_against_the_limit_and_is_not_dropped_for_what_comes():
    bench = Bench()
    bench.engine.advance(T)
    bench.queue(max_length=1)
    consumer, sink = bench.consume(prefetch=1)
    bench.publish(b"1")
    consumer.pause()
    back(bench, sink, delay_ms=10)
    bench.publish(b"2")
    assert bench.events.drops == [("q", "maxlen", 1)]
    bench.engine.advance(T + 10)
    assert bench.bodies() == [b"1"]


def test_transient_messages_wait_in_memory_and_leave_no_record(bench):
    _, sink = bench.consume(prefetch=1)
    bench.commit()
    bench.publish(b"1", persistent=False)
    back(bench, sink, delay_ms=10)
    assert not bench.engine.batch
    bench.engine.advance(T + 10)
    assert sink.bodies == [b"1", b"1"]


# -- on disk ----------------------------------------------------------------


def test_the_record_says_until_when(bench):
    _, sink = bench.consume(prefetch=1)
    bench.publish(b"1")
    bench.commit()
    back(bench, sink, delay_ms=10)
    (counted,) = bench.engine.batch.records
    assert counted == DeliveryCounted(sink.deliveries[0], 1, T + 10)


def test_what_is_not_on_disk_yet_goes_there_with_its_time(bench):
    _, sink = bench.consume(prefetch=1)
    bench.commit()
    bench.publish(b"1")
    back(bench, sink, delay_ms=10)
    batch = bench.commit()
    assert [type(record) for record in batch.records] == [DeliveryCounted]
    assert batch.records[0].reference.segment is not None


class Rig:
    """An engine on a disk that it can be started on again."""

    def __init__(self, disk, window_budget=1 << 20):
        self.disk = disk
        self.window_budget = window_budget
        self.now_ms = T
        self.start()
        self.engine.definitions.declare_queue("/", QueueSpec("q"), None)
        self.settle_down()

    def start(self):
        self.events = Events()
        self.engine = Engine(self.events, Decoders().properties, window_budget=self.window_budget)
        self.engine.advance(self.now_ms)
        self.held = self.engine.holdings.setdefault(self, set())

    def restart(self):
        self.start()
        for record in self.disk.load():
            self.engine.replay(record)

    @property
    def queue(self):
        return self.engine.vhost("/").queues["q"]

    def commit(self):
        commit = self.disk.prepare(self.engine.take_batch())
        self.engine.batch_prepared()
        self.disk.apply(commit)
        self.engine.committed()

    def settle_down(self):
        while self.engine.batch or self.events.pages:
            self.commit()
            pages, self.events.pages = self.events.pages, []
            for lane_id, after, most in pages:
                self.engine.page_loaded(self.disk.page(lane_id, after, most), after)

    def publish(self, body, **more):
        route = self.engine.vhost("/").route("", "q")
        assert self.engine.publish(route, Message(route.address, body, persistent=True, **more)) is None

    def consume(self, **options):
        sink = Sink()
        return self.engine.consume("/", "q", sink, ConsumeOptions(**options), self.held, None), sink

    def advance(self, ms):
        self.now_ms += ms
        while True:
            self.engine.advance(self.now_ms)
            if self.engine.timers.next_due_ms > self.now_ms:
                break
        self.settle_down()


@pytest.fixture(params=["dictionaries", "memory", "sqlite"])
def disk(request, tmp_path):
    if request.param == "dictionaries":
        yield Disk()
        return
    store = MemoryStore()
    make = {
        "memory": lambda: MemoryJournal(store),
        "sqlite": lambda: SqliteJournal(Path(tmp_path), synchronous="OFF"),
    }[request.param]
    disk = JournalDisk(make)
    yield disk
    disk.close()


@pytest.mark.parametrize("written_first", [True, False])
def test_after_a_restart_it_waits_for_the_rest_of_its_time(disk, written_first):
    rig = Rig(disk)
    consumer, sink = rig.consume(prefetch=2)
    rig.publish(b"1")
    rig.publish(b"2")
    if written_first:
        rig.settle_down()
    consumer.pause()
    rig.engine.nack(sink.deliveries[0], requeue=True, delay_ms=100)
    rig.settle_down()
    rig.now_ms += 40
    rig.restart()
    _, sink = rig.consume(prefetch=5)
    rig.settle_down()
    assert sink.bodies == [b"2"]
    assert (rig.queue.count, rig.queue.ready_count) == (2, 1)
    rig.advance(59)
    assert sink.bodies == [b"2"]
    rig.advance(1)
    assert sink.bodies == [b"2", b"1"]
    assert sink.deliveries[1].count == 2
    assert sink.deliveries[1].redelivered


def test_what_was_due_while_the_broker_was_down_comes_in_its_order(disk):
    rig = Rig(disk)
    consumer, sink = rig.consume(prefetch=2)
    rig.publish(b"1")
    rig.publish(b"2")
    consumer.pause()
    rig.engine.nack(sink.deliveries[0], requeue=True, delay_ms=100)
    rig.settle_down()
    rig.now_ms += 100
    rig.restart()
    _, sink = rig.consume(prefetch=5)
    rig.settle_down()
    assert sink.bodies == [b"1", b"2"]


def test_what_expired_while_the_broker_was_down_waits_for_nothing(disk):
    rig = Rig(disk)
    consumer, sink = rig.consume(prefetch=1)
    rig.publish(b"1", expires_at_ms=T + 50)
    consumer.pause()
    rig.engine.nack(sink.deliveries[0], requeue=True, delay_ms=100)
    rig.settle_down()
    rig.now_ms += 60
    rig.restart()
    _, sink = rig.consume()
    rig.settle_down()
    assert sink.bodies == []
    assert rig.events.drops == [("q", "expired", 1)]
    assert rig.queue.count == 0


def test_bodies_of_what_waits_leave_memory_and_come_back_when_it_is_due(disk):
    rig = Rig(disk, window_budget=20_000)
    bodies = [b"%0100d" % number for number in range(200)]
    consumer, sink = rig.consume()
    for body in bodies:
        rig.publish(body)
        rig.settle_down()
    consumer.pause()
    for delivery in sink.deliveries:
        rig.engine.nack(delivery, requeue=True, delay_ms=100)
    rig.settle_down()
    returns = rig.queue.returns
    in_memory = sum(len(entry.message.body) for entry in returns._members)
    assert in_memory <= 10_000
    assert (rig.queue.count, rig.queue.ready_count, rig.queue.body_bytes) == (200, 200, 20_000)
    rig.engine.cancel(consumer)
    rig.advance(100)
    _, sink = rig.consume()
    rig.settle_down()
    assert sorted(sink.bodies) == bodies
    assert {delivery.count for delivery in sink.deliveries} == {2}
    for delivery in sink.deliveries:
        rig.engine.ack(delivery)
    rig.settle_down()
    assert (rig.queue.count, rig.queue.ready_count, rig.queue.body_bytes, rig.queue.window_bytes, rig.queue.paged) == (
        0,
        0,
        0,
        0,
        0,
    )
    rig.restart()
    assert rig.queue.count == 0


def test_a_get_waits_for_a_sleeper_that_is_due():
    rig = Rig(Disk(), window_budget=500)
    consumer, sink = rig.consume()
    for body in (b"1", b"2"):
        rig.publish(body)
    rig.settle_down()
    consumer.pause()
    for delivery in sink.deliveries:
        rig.engine.nack(delivery, requeue=True, delay_ms=100)
    rig.settle_down()
    rig.engine.cancel(consumer)
    getter = Consumer(rig.queue, None, ConsumeOptions(), rig.held, None)
    assert rig.engine.get(rig.queue, getter, rig, 1) is None
    rig.now_ms += 100
    rig.engine.advance(rig.now_ms)
    assert rig.engine.get(rig.queue, getter, rig, 2) is LATER
    rig.settle_down()
    ((_, number, entry),) = rig.events.answers
    assert (number, entry.message.body) == (2, b"1")


def test_a_purge_while_a_sleeper_is_read_leaves_nothing():
    rig = Rig(Disk(), window_budget=500)
    _, sink = rig.consume()
    for body in (b"1", b"2", b"3"):
        rig.publish(body)
    rig.settle_down()
    for delivery in sink.deliveries:
        rig.engine.nack(delivery, requeue=True, delay_ms=100)
    rig.settle_down()
    rig.now_ms += 100
    rig.engine.advance(rig.now_ms)
    assert rig.events.pages
    taken = len(sink.deliveries)
    assert rig.engine.definitions.purge_queue("/", "q", None) == 6 - taken
    rig.settle_down()
    assert len(sink.deliveries) == taken
    assert rig.queue.paged == 0
    rig.restart()
    assert rig.queue.count == taken - 3


def test_a_sleeper_that_the_disk_lost_is_counted():
    rig = Rig(Disk(), window_budget=500)
    _, sink = rig.consume()
    for body in (b"1", b"2"):
        rig.publish(body)
    rig.settle_down()
    for delivery in list(sink.deliveries):
        rig.engine.nack(delivery, requeue=True, delay_ms=100)
    rig.settle_down()
    asleep = list(rig.queue.returns._asleep)
    for entry in asleep:
        rig.disk.places[rig.queue.id].pop(entry.position)
    rig.advance(100)
    assert rig.events.drops == [("q", "journal", 1)] * len(asleep)
    assert asleep
    assert rig.queue.count == 2 - len(asleep)
    assert rig.queue.paged == 0
