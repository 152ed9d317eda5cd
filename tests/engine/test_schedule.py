from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.engine.engine import UNROUTABLE, Engine
from gateway.engine.retained import Publish
from gateway.engine.route import RouteHandle
from gateway.engine.schedule.bodies import HELD_MS
from gateway.engine.schedule.schedule import PORTION, Schedule
from gateway.engine.timers import NOTHING_DUE
from gateway.errors import AccessRefused, MessageRefused, NotFound, Overloaded, PreconditionFailed
from gateway.journal.memory import MemoryJournal, MemoryStore
from gateway.journal.sqlite import SqliteJournal
from gateway.model.declare import Binding, ExchangeSpec, Overflow, QueueSpec
from gateway.model.exchange_arguments import exchange_spec
from gateway.model.message import Address, Decoders, Message, with_properties
from gateway.model.properties import Properties
from gateway.model.records import MessageScheduled, Scheduled, ScheduledGone, StatePut
from tests.engine.support import Bench, Events, Sink

START_MS = 1_700_000_000_000


def listing(of, vhost=None, after=None) -> list[Scheduled]:
    return [item for item in of.schedule.listed(vhost, after) if item is not None]


class Wanting(Events):
    def __init__(self) -> None:
        super().__init__()
        self.wanted: list[list[int]] = []

    def scheduled_wanted(self, ids: list[int]) -> None:
        self.wanted.append(ids)


class Desk(Bench):
    """An engine at a virtual time, with a disk for what is scheduled."""

    def __init__(
        self, held_budget: int = 1 << 20, stored: list[object] | None = None, now_ms: int = START_MS, publish: Publish | None = None
    ) -> None:
        super().__init__()
        self.events = self.engine.events = Wanting()
        self.schedule = self.engine.schedule = Schedule(self.engine, held_budget, publish)
        self.stored: dict[int, MessageScheduled] = {}
        self.state: dict[tuple[str, str], StatePut] = {}
        self.records: list[object] = []
        for record in stored or []:
            self.keep(record)
        for record in self.state.values():
            self.engine.kept.replay(record)
        for record in self.stored.values():
            address = record.message.address
            size = len(record.message.body)
            where = (address.vhost, address.exchange, address.routing_key)
            self.schedule.replay(Scheduled(record.scheduled_id, record.due_ms, *where, body_bytes=size))
        self.advance(now_ms)

    def advance(self, now_ms: int) -> None:
        self.engine.advance(now_ms)

    def settle_down(self) -> None:
        """Do all that is due by now, with the disk at hand."""
        for _ in range(10_000):
            if self.events.wanted:
                self.read()
            elif self.engine.timers.next_due_ms <= self.engine.now_ms:
                self.advance(self.engine.now_ms)
            else:
                return
        raise AssertionError("it never ends")

    def go_to(self, now_ms: int) -> None:
        self.advance(now_ms)
        self.settle_down()

    def add(
        self, body: bytes, delay_ms: int, key: str = "q", *, persistent: bool = True, exchange: str = "", **more: object
    ) -> int:
        route = self.engine.vhost("/").route(exchange, key)
        message = Message(route.address, body, persistent, **more)
        return self.schedule.add(route, message, self.engine.now_ms + delay_ms)

    def keep(self, record: object) -> None:
        match record:
            case MessageScheduled(scheduled_id=scheduled_id):
                self.stored[scheduled_id] = record
            case ScheduledGone(scheduled_id=scheduled_id):
                self.stored.pop(scheduled_id, None)
            case StatePut(namespace=namespace, key=key):
                self.state[namespace, key] = record

    def write(self) -> list[object]:
        batch = self.hand_over()
        self.schedule.batch_prepared()
        for record in batch.records:
            self.keep(record)
        self.records += batch.records
        self.engine.committed()
        self.schedule.committed()
        return batch.records

    def read(self) -> list[int]:
        ids = self.events.wanted.pop(0)
        assert not self.events.wanted, "one request at a time"
        found = [(i, self.stored[i].message) for i in ids if i in self.stored]
        self.schedule.loaded(
            [(i, Message(m.address, m.body, True, m.wire_tag, m.wire, m.priority, m.expires_at_ms)) for i, m in found]
        )
        return ids

    def restarted(self, **more: object) -> Desk:
        return Desk(stored=[*self.stored.values(), *self.state.values()], **{"now_ms": self.engine.now_ms, **more})


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.queue()
    return desk


def bodies(desk: Desk, queue: str = "q") -> list[bytes]:
    sink = Sink()
    consumer, _ = desk.consume(queue, sink)
    desk.engine.cancel(consumer)
    return sink.bodies


# -- when and what ----------------------------------------------------------


def test_a_message_is_published_when_its_time_has_come_and_not_before(desk: Desk):
    desk.add(b"later", 1_000)
    desk.go_to(START_MS + 999)
    assert bodies(desk) == []

    desk.go_to(START_MS + 1_000)
    assert bodies(desk) == [b"later"]
    assert len(desk.schedule) == 0
    assert desk.engine.timers.next_due_ms == NOTHING_DUE


def test_what_is_due_already_is_published_at_once_and_has_an_id_all_the_same(desk: Desk):
    first, second, third = desk.add(b"a", 0), desk.add(b"b", -5), desk.add(b"c", 1)

    assert bodies(desk) == [b"a", b"b"]
    assert first < second < third
    assert not [record for record in desk.write() if isinstance(record, MessageScheduled) and record.scheduled_id != third]


def test_the_same_time_means_the_order_of_submission_and_another_the_order_of_times(desk: Desk):
    for body, delay_ms in ((b"3", 20), (b"1", 10), (b"4", 20), (b"2", 10)):
        desk.add(body, delay_ms)
    desk.go_to(START_MS + 50)

    assert bodies(desk) == [b"1", b"2", b"3", b"4"]


def test_a_jump_of_the_clock_publishes_all_in_order_a_bounded_number_in_a_turn(desk: Desk):
    expected = [b"%d" % number for number in range(3 * PORTION)]
    for number, body in enumerate(expected):
        desk.add(body, 1 + number // 5)
    desk.advance(START_MS + 10**9)
    assert desk.schedule.published == PORTION
    assert desk.engine.timers.next_due_ms <= desk.engine.now_ms

    desk.settle_down()
    assert bodies(desk) == expected


def test_one_timer_serves_the_whole_schedule(desk: Desk):
    for number in range(100):
        desk.add(b"x", 1_000 - number)

    assert sum(timer.call is not None for _, _, timer in desk.engine.timers._heap) == 1
    assert desk.engine.timers.next_due_ms == START_MS + 901


def test_publish_and_removal_are_in_one_batch(desk: Desk):
    scheduled_id = desk.add(b"x", 10)
    assert [record.due_ms for record in desk.write() if isinstance(record, MessageScheduled)] == [START_MS + 10]

    desk.go_to(START_MS + 10)
    batch = desk.engine.batch
    assert [message.body for message in batch.messages] == [b"x"]
    assert ScheduledGone(scheduled_id) in batch.records


def test_what_is_not_persistent_is_in_memory_only(desk: Desk):
    scheduled_id = desk.add(b"x", 10, persistent=False)
    assert not [record for record in desk.write() if isinstance(record, MessageScheduled | ScheduledGone)]
    assert [record.scheduled_id for record in listing(desk, "/")] == [scheduled_id]

    desk.go_to(START_MS + 10)
    assert bodies(desk) == [b"x"]
    assert not [record for record in desk.write() if isinstance(record, MessageScheduled | ScheduledGone)]


def test_the_time_to_live_begins_when_the_message_is_due(desk: Desk):
    desk.add(b"x", 10_000, expires_at_ms=START_MS + 500)
    (record,) = [record for record in desk.write() if isinstance(record, MessageScheduled)]

    assert record.message.expires_at_ms == START_MS + 10_500


# -- refusals ---------------------------------------------------------------


def test_no_exchange_an_internal_one_a_sick_journal_or_no_such_time_are_refused(desk: Desk):
    desk.engine.definitions.declare_exchange("/", ExchangeSpec("inner", internal=True))
    with pytest.raises(NotFound):
        desk.add(b"x", 10, exchange="nowhere")
    with pytest.raises(AccessRefused):
        desk.add(b"x", 10, exchange="inner")
    with pytest.raises(PreconditionFailed):
        desk.add(b"x", 1 << 62)
    desk.engine.refuse_durable("disk full")
    with pytest.raises(Overloaded):
        desk.add(b"x", 10)

    assert len(desk.schedule) == 0
    assert desk.add(b"x", 10, persistent=False)


def test_one_that_is_due_already_is_refused_as_a_publish_is(desk: Desk):
    desk.queue("full", max_length=1, overflow=Overflow.REJECT_PUBLISH)
    desk.add(b"x", 0, "full")
    with pytest.raises(MessageRefused):
        desk.add(b"y", 0, "full")


def test_a_full_queue_puts_messages_off_keeps_their_order_and_stops_nobody_else(desk: Desk):
    desk.queue("full", max_length=1, overflow=Overflow.REJECT_PUBLISH)
    for number in range(4):
        desk.add(b"%d" % number, 10 + number, "full")
        desk.add(b"%d" % number, 10 + number)
    desk.go_to(START_MS + 100)

    assert bodies(desk) == [b"0", b"1", b"2", b"3"]
    assert (desk.schedule.put_off, len(desk.schedule)) == (1, 3)
    assert [record.due_ms for record in listing(desk, "/")] == [START_MS + 11, START_MS + 12, START_MS + 13]

    taken: list[bytes] = []
    while len(desk.schedule):
        taken += drained(desk, "full")
        desk.go_to(desk.engine.timers.next_due_ms)
    assert taken + drained(desk, "full") == [b"0", b"1", b"2", b"3"]
    assert not desk.events.drops


def drained(desk: Desk, queue: str) -> list[bytes]:
    consumer, sink = desk.consume(queue)
    for delivery in list(sink.deliveries):
        desk.engine.ack(delivery)
    desk.engine.cancel(consumer)
    return sink.bodies


def test_attempts_back_off_up_to_a_minute(desk: Desk):
    desk.queue("full", max_length=1, overflow=Overflow.REJECT_PUBLISH)
    desk.publish(b"x", "full")
    desk.add(b"y", 10, "full")
    desk.go_to(START_MS + 10)
    pauses = []
    for _ in range(8):
        pauses.append((desk.engine.timers.next_due_ms - desk.engine.now_ms) // 1_000)
        desk.go_to(desk.engine.timers.next_due_ms)

    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert desk.schedule.put_off == 9


def test_a_message_that_is_put_off_is_not_dead_lettered_at_every_attempt(desk: Desk):
    """It is not given up: it comes when there is room."""
    desk.queue("graves")
    desk.queue(
        "full", max_length=1, overflow=Overflow.REJECT_PUBLISH_DLX, dead_letter_exchange="", dead_letter_routing_key="graves"
    )
    desk.publish(b"x", "full")
    desk.add(b"y", 10, "full")
    desk.go_to(START_MS + 10)
    desk.go_to(START_MS + 60_000)
    assert desk.schedule.put_off == 2
    assert bodies(desk, "graves") == []

    desk.publish(b"z", "full")  # this one is given up
    assert drained(desk, "full") == [b"x"]
    desk.go_to(START_MS + 120_000)
    assert drained(desk, "full") == [b"y"]
    assert bodies(desk, "graves") == [b"z"]


def test_while_the_journal_refuses_nothing_is_read_and_nothing_is_lost():
    desk = Desk(held_budget=0)
    desk.queue()
    desk.add(b"x", 10)
    desk.write()
    desk.engine.refuse_durable("disk full")
    desk.go_to(START_MS + 20)
    desk.go_to(START_MS + 5_000)
    assert not desk.events.wanted
    assert len(desk.schedule) == 1

    desk.engine.accept_durable()
    desk.go_to(START_MS + 7_000)
    assert bodies(desk) == [b"x"]


def test_a_message_whose_exchange_is_gone_is_dropped_and_counted(desk: Desk):
    desk.engine.definitions.declare_exchange("/", ExchangeSpec("gone"))
    scheduled_id = desk.add(b"x", 10, exchange="gone")
    desk.engine.definitions.delete_exchange("/", "gone")
    desk.go_to(START_MS + 10)

    assert desk.events.drops == [("gone", "scheduled for no exchange", 1)]
    assert ScheduledGone(scheduled_id) in desk.write()
    assert len(desk.schedule) == 0


def test_a_message_that_reaches_no_queue_is_dropped_and_counted(desk: Desk):
    desk.add(b"x", 10, "no such queue")
    desk.go_to(START_MS + 10)

    assert desk.events.drops == [("", "scheduled, unroutable", 1)]
    assert len(desk.schedule) == 0


def test_an_exchange_that_became_internal_still_gets_what_was_scheduled_for_it(desk: Desk):
    desk.engine.definitions.declare_exchange("/", ExchangeSpec("inner", "fanout"))
    desk.add(b"x", 10, exchange="inner")
    desk.engine.definitions.delete_exchange("/", "inner")
    desk.engine.definitions.declare_exchange("/", ExchangeSpec("inner", "fanout", internal=True))
    desk.bind("inner", "q", "")
    desk.go_to(START_MS + 10)

    assert bodies(desk) == [b"x"]


def test_the_engine_may_schedule_for_an_internal_exchange(desk: Desk):
    desk.engine.definitions.declare_exchange("/", ExchangeSpec("inner", "fanout", internal=True))
    desk.bind("inner", "q", "")
    route = RouteHandle(desk.engine.vhost("/"), Address("/", "inner", "k"), ours=True)
    desk.schedule.add(route, Message(route.address, b"x", True), START_MS + 10)
    desk.go_to(START_MS + 10)

    assert bodies(desk) == [b"x"]


def test_where_a_message_will_go_is_known_by_its_id(desk: Desk):
    scheduled_id = desk.add(b"1", 10)
    address = desk.schedule.address_of("/", scheduled_id)

    assert address is not None
    assert address.routing_key == "q"
    assert desk.schedule.address_of("other", scheduled_id) is None
    assert desk.schedule.address_of("/", 99) is None


# -- cancelling and listing -------------------------------------------------


def test_what_is_cancelled_is_not_published(desk: Desk):
    first, second = desk.add(b"1", 10), desk.add(b"2", 10)
    desk.schedule.cancel("/", first)
    desk.go_to(START_MS + 10)

    assert bodies(desk) == [b"2"]
    assert ScheduledGone(first) in desk.write()
    for gone in (first, second, 99, 0):
        with pytest.raises(NotFound):
            desk.schedule.cancel("/", gone)


def test_cancelling_in_another_virtual_host_or_with_a_sick_journal_is_refused(desk: Desk):
    scheduled_id = desk.add(b"1", 10)
    transient = desk.add(b"2", 10, persistent=False)
    with pytest.raises(NotFound):
        desk.schedule.cancel("other", scheduled_id)
    desk.engine.refuse_durable("disk full")
    with pytest.raises(Overloaded):
        desk.schedule.cancel("/", scheduled_id)
    desk.schedule.cancel("/", transient)

    assert [record.scheduled_id for record in listing(desk, "/")] == [scheduled_id]


def test_cancelling_the_next_one_moves_the_timer(desk: Desk):
    first = desk.add(b"1", 10)
    desk.schedule.cancel("/", first)
    desk.go_to(START_MS + 10)
    assert desk.engine.timers.next_due_ms == NOTHING_DUE


def test_the_order_is_tidied_when_most_of_it_was_cancelled(desk: Desk):
    ids = [desk.add(b"x", 10_000 + number) for number in range(4_000)]
    for scheduled_id in ids[:-10]:
        desk.schedule.cancel("/", scheduled_id)

    assert len(desk.schedule._order) < 2_100
    assert [record.scheduled_id for record in listing(desk, "/")] == ids[-10:]


def test_the_list_goes_on_behind_any_item_whether_it_is_there_or_not(desk: Desk):
    for number in range(40):
        desk.add(b"%d" % number, 1_000 + number * 7 % 10)
    everything = listing(desk, "/")
    assert [(item.due_ms, item.scheduled_id) for item in everything] == sorted((r.due_ms, r.scheduled_id) for r in everything)
    for at in (0, 17, 39):
        assert listing(desk, "/", everything[at]) == everything[at + 1 :]
    gone = everything[17]
    desk.schedule.cancel("/", gone.scheduled_id)
    assert listing(desk, "/", gone) == everything[18:]


class Counting(dict):
    looks = 0

    def get(self, key, default=None):
        self.looks += 1
        return super().get(key, default)


def test_the_first_of_many_are_listed_without_looking_at_all_of_them(desk: Desk):
    for number in range(5_000):
        desk.add(b"", 10_000 - number)
    seen = desk.schedule._addresses = Counting(desk.schedule._addresses)
    first = [item.due_ms for item, _ in zip(desk.schedule.listed("/"), range(5), strict=False)]
    assert first == [START_MS + 5_001 + number for number in range(5)]
    assert seen.looks < 10


def test_where_nothing_is_asked_for_the_list_pauses_now_and_then(desk: Desk):
    for number in range(5_000):
        desk.add(b"", 10_000 - number)
    found = list(desk.schedule.listed("other"))
    assert found == [None] * (5_000 // 256)


def test_what_goes_while_it_is_listed_is_passed_over(desk: Desk):
    ids = [desk.add(b"", 1_000 + number) for number in range(10)]
    listed = desk.schedule.listed("/")
    next(listed)
    for scheduled_id in ids[1:9]:
        desk.schedule.cancel("/", scheduled_id)
    desk.add(b"", 1)
    assert [item.scheduled_id for item in listed] == ids[9:]


def test_the_list_is_by_time_and_of_one_virtual_host(desk: Desk):
    later, sooner = desk.add(b"12345", 20), desk.add(b"123", 10, persistent=False)
    route = desk.engine.vhost("other").route("amq.topic", "a.b")
    desk.schedule.add(route, Message(route.address, b"", True), START_MS + 5)

    assert listing(desk, "/") == [
        Scheduled(sooner, START_MS + 10, "/", "", "q", 3),
        Scheduled(later, START_MS + 20, "/", "", "q", 5),
    ]
    assert [record.routing_key for record in listing(desk, "other")] == ["a.b"]


def test_cancelling_while_the_address_is_being_tried_again_lets_the_next_one_try(desk: Desk):
    desk.queue("full", max_length=1, overflow=Overflow.REJECT_PUBLISH)
    desk.publish(b"x", "full")
    ids = [desk.add(b"%d" % number, 10, "full") for number in range(3)]
    desk.go_to(START_MS + 10)
    drained(desk, "full")
    desk.schedule.cancel("/", ids[0])
    desk.go_to(START_MS + 1_010)

    assert drained(desk, "full") == [b"1"]


# -- bodies on disk ---------------------------------------------------------


def test_what_is_due_soon_stays_in_memory_and_is_not_read(desk: Desk):
    desk.add(b"x", HELD_MS)
    desk.write()
    desk.advance(START_MS + HELD_MS)

    assert not desk.events.wanted
    assert bodies(desk) == [b"x"]


@pytest.mark.parametrize(("budget", "delay_ms"), [(1 << 20, HELD_MS + 1), (3, HELD_MS)])
def test_what_is_far_away_or_beyond_the_budget_is_read_when_it_is_due(budget: int, delay_ms: int):
    desk = Desk(budget)
    desk.queue()
    desk.add(b"body", delay_ms)
    assert desk.schedule.bodies.held_bytes == 4
    desk.write()
    assert desk.schedule.bodies.held_bytes == 0

    desk.advance(START_MS + delay_ms)
    assert len(desk.events.wanted) == 1
    desk.advance(START_MS + delay_ms + 1)
    assert len(desk.events.wanted) == 1
    desk.read()
    assert bodies(desk) == [b"body"]


def test_a_body_stays_in_memory_until_the_batch_that_holds_it_is_on_disk():
    desk = Desk(held_budget=0)
    desk.queue()
    desk.add(b"1", 10)
    desk.hand_over()
    desk.schedule.batch_prepared()
    desk.add(b"2", 10)
    desk.schedule.committed()
    assert desk.schedule.bodies.held_bytes == 1

    desk.stored[1] = MessageScheduled(1, 0, Message(desk.engine.vhost("/").route("", "q").address, b"1", True))
    desk.advance(START_MS + 10)
    assert desk.events.wanted == [[1]]
    desk.settle_down()
    assert bodies(desk) == [b"1", b"2"]


def test_reading_comes_in_portions_and_keeps_the_order():
    desk = Desk(held_budget=0)
    desk.queue()
    expected = [b"%d" % number for number in range(2 * PORTION + 7)]
    for body in expected:
        desk.add(body, 10)
    desk.write()
    desk.add(b"in memory", 11, persistent=False)
    desk.advance(START_MS + 20)
    assert [len(ids) for ids in desk.events.wanted] == [PORTION]

    desk.settle_down()
    assert bodies(desk) == [*expected, b"in memory"]


def test_what_was_cancelled_while_it_was_read_is_not_published():
    desk = Desk(held_budget=0)
    desk.queue()
    first = desk.add(b"1", 10)
    desk.add(b"2", 10)
    desk.write()
    desk.advance(START_MS + 10)
    desk.schedule.cancel("/", first)
    desk.settle_down()

    assert bodies(desk) == [b"2"]
    assert not desk.events.drops


def test_what_is_damaged_on_disk_is_counted_stays_there_and_stops_nobody():
    desk = Desk(held_budget=0)
    desk.queue()
    first = desk.add(b"1", 10)
    desk.add(b"2", 10)
    desk.write()
    del desk.stored[first]
    desk.go_to(START_MS + 10)

    assert bodies(desk) == [b"2"]
    assert desk.events.drops == [("", "scheduled, damaged", 1)]
    assert ScheduledGone(first) not in desk.engine.batch.records


# -- restart ----------------------------------------------------------------


def test_after_a_restart_what_was_persistent_is_published_in_its_order(desk: Desk):
    desk.add(b"2", 2_000)
    desk.add(b"lost", 1_500, persistent=False)
    desk.add(b"1", 1_000)
    desk.write()
    again = desk.restarted(now_ms=START_MS + 5_000)
    again.queue()
    listed = listing(again, "/")
    again.settle_down()

    assert [record.due_ms for record in listed] == [START_MS + 1_000, START_MS + 2_000]
    assert len(again.schedule) == 0
    assert again.events.drops == []


def test_ids_are_never_used_again_even_if_they_were_cancelled_or_in_memory_only(desk: Desk):
    ids = [desk.add(b"x", 10), desk.add(b"y", 10, persistent=False), desk.add(b"z", 10)]
    for scheduled_id in ids[:2]:
        desk.schedule.cancel("/", scheduled_id)
    desk.schedule.cancel("/", ids[2])
    desk.write()
    again = desk.restarted()
    again.queue()
    last = again.add(b"x", 10)
    assert last > max(ids)

    again.write()
    assert again.restarted().add(b"x", 10) > last


def test_ids_are_above_all_that_was_replayed_even_without_a_mark(desk: Desk):
    route = desk.engine.vhost("/").route("", "q")
    again = Desk(stored=[MessageScheduled(77, START_MS + 5, Message(route.address, b"", True))])
    assert again.add(b"x", 10) > 77


def test_the_mark_is_written_once_for_many_ids(desk: Desk):
    for _ in range(500):
        desk.add(b"x", 10)
    assert sum(isinstance(record, StatePut) for record in desk.write()) == 1


@pytest.fixture(params=["memory", "sqlite"])
def start(request, tmp_path):
    """Give a function that starts an engine on a journal, as often as it is called; each reads what the last one wrote."""
    store = MemoryStore()
    make = {"memory": lambda: MemoryJournal(store), "sqlite": lambda: SqliteJournal(tmp_path, synchronous="OFF")}[request.param]
    journals = []

    def run() -> tuple[Engine, object, Wanting]:
        for journal in journals:
            journal.close()
        journals[:] = [make()]
        journals[0].open()
        events = Wanting()
        engine = Engine(events, Decoders().properties)
        for record in journals[0].load():
            engine.replay(record)
        return engine, journals[0], events

    yield run
    journals[0].close()


def commit(engine: Engine, journal: object) -> None:
    prepared = journal.prepare(engine.take_batch())
    engine.batch_prepared()
    if prepared is not None:
        assert told(lambda done: journal.write(prepared, done)) is None
    engine.committed()


def told(ask: Callable[[Callable[[object], None]], None]) -> object:
    answers: list[object] = []
    event = threading.Event()
    ask(lambda answer: (answers.append(answer), event.set()))
    assert event.wait(60)
    return answers[0]


def read_wanted(engine: Engine, journal: object, events: Wanting) -> None:
    ids = events.wanted.pop(0)
    engine.scheduled_loaded(told(lambda done: journal.read_scheduled(ids, done))())


def test_what_is_scheduled_outlasts_a_restart_and_is_published_once(start):
    engine, journal, events = start()
    engine.advance(START_MS)
    engine.definitions.declare_queue("/", QueueSpec("q"), None)
    route = engine.vhost("/").route("", "q")
    ids = [engine.schedule.add(route, Message(route.address, b"%d" % number, True), START_MS + 10**6) for number in range(3)]
    commit(engine, journal)
    engine.schedule.cancel("/", ids[1])
    commit(engine, journal)
    listed = listing(engine, "/")

    engine, journal, events = start()
    assert listing(engine, "/") == listed
    engine.advance(START_MS + 10**6)
    read_wanted(engine, journal, events)
    assert engine.vhost("/").queues["q"].count == 2

    engine, journal, events = start()
    engine.advance(START_MS + 10**6)
    read_wanted(engine, journal, events)
    assert len(engine.schedule) == 0
    commit(engine, journal)

    engine, journal, events = start()
    engine.advance(START_MS + 10**7)
    assert not events.wanted
    assert listing(engine, "/") == []
    assert engine.vhost("/").queues["q"].count == 2
    route = engine.vhost("/").route("", "q")
    assert engine.schedule.add(route, Message(route.address, b"", True), 1 << 50) > max(ids)


def test_an_exchange_keeps_what_it_has_seen_over_a_restart_and_delays_outlast_it(start):
    engine, journal, events = start()
    engine.advance(START_MS)
    engine.definitions.declare_queue("/", QueueSpec("q"), None)
    arguments = {"x-delayed-type": "fanout", "x-deduplication-window-ms": 10**9}
    engine.definitions.declare_exchange("/", exchange_spec("late", "x-delayed-message", arguments=arguments))
    engine.definitions.bind("/", Binding("late", "q"), None)

    def send(message_id: str) -> object:
        route = engine.vhost("/").route("late", "k")
        properties = Properties(message_id=message_id, headers={"x-delay": 100_000})
        return engine.publish(route, with_properties(route.address, b"", properties))

    assert send("a") is None
    commit(engine, journal)
    engine, journal, events = start()
    engine.advance(START_MS + 1)
    assert send("a") is None
    assert send("b") is None
    assert events.drops == [("late", "duplicate", 1)]
    commit(engine, journal)

    engine.advance(START_MS + 200_000)
    read_wanted(engine, journal, events)
    assert engine.vhost("/").queues["q"].count == 2
    engine.definitions.delete_exchange("/", "late")
    commit(engine, journal)
    engine, journal, events = start()
    assert not [value for names in engine.kept._state for value in engine.kept.state(names) if "deduplication" in names]


# -- against a naive model --------------------------------------------------


class Scheduling(RuleBasedStateMachine):
    """Addresses refuse at will; batches are lost in crashes; the disk answers late. Each message comes once, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.refusing: set[str] = set()
        self.made = 0
        self.open: dict[int, tuple[int, str, bytes]] = {}
        self.transient: set[int] = set()
        self.taken: dict[str, list[tuple[int, int]]] = {"a": [], "b": []}
        self.written_open: dict[int, tuple[int, str, bytes]] = {}
        self.highest = 0
        self.written_highest = 0
        self.begin(Desk(held_budget=40, publish=self.publish))

    def begin(self, desk: Desk) -> None:
        self.desk = desk

    def publish(self, route: object, message: Message) -> object:
        key = message.address.routing_key
        if key in self.refusing:
            return MessageRefused("full")
        if key == "nowhere":
            return UNROUTABLE
        scheduled_id = next(i for i, (_, _, body) in self.open.items() if body == message.body)
        self.taken[key].append((self.open[scheduled_id][0], scheduled_id))
        assert self.open[scheduled_id][0] <= self.desk.engine.now_ms
        del self.open[scheduled_id]
        return None

    @rule(delay_ms=st.integers(1, 5_000), key=st.sampled_from("ab"), persistent=st.booleans(), size=st.integers(0, 30))
    def add(self, delay_ms: int, key: str, persistent: bool, size: int) -> None:
        self.made += 1
        body = b"%d." % self.made + bytes(size)
        scheduled_id = self.desk.add(body, delay_ms, key, persistent=persistent)
        assert scheduled_id > self.highest
        self.highest = scheduled_id
        self.open[scheduled_id] = (self.desk.engine.now_ms + delay_ms, key, body)
        if not persistent:
            self.transient.add(scheduled_id)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        scheduled_id = data.draw(st.sampled_from(sorted(self.open)))
        self.desk.schedule.cancel("/", scheduled_id)
        del self.open[scheduled_id]

    @rule(step_ms=st.sampled_from([0, 1, 300, 2_500, 70_000]))
    def advance(self, step_ms: int) -> None:
        self.desk.advance(self.desk.engine.now_ms + step_ms)

    @rule()
    def commit(self) -> None:
        self.desk.write()
        self.written_highest = self.highest
        self.written_open = {i: told for i, told in self.open.items() if i not in self.transient}

    @precondition(lambda self: self.desk.events.wanted)
    @rule()
    def read(self) -> None:
        self.desk.read()

    @rule(key=st.sampled_from("ab"))
    def turn(self, key: str) -> None:
        self.refusing ^= {key}

    @rule()
    def crash(self) -> None:
        self.begin(self.desk.restarted(held_budget=40, publish=self.publish))
        self.open = dict(self.written_open)
        self.taken = {"a": [], "b": []}
        self.transient.clear()
        self.highest = self.written_highest

    @invariant()
    def lists_what_is_open(self) -> None:
        listed = [(record.scheduled_id, record.due_ms, record.routing_key) for record in listing(self.desk, "/")]
        assert listed == [
            (i, due_ms, key) for i, (due_ms, key, _) in sorted(self.open.items(), key=lambda item: (item[1][0], item[0]))
        ]

    @invariant()
    def keeps_the_order(self) -> None:
        for taken in self.taken.values():
            assert taken == sorted(taken)

    @invariant()
    def wakes_in_time(self) -> None:
        if not self.desk.events.wanted and self.open:
            assert self.desk.engine.timers.next_due_ms < NOTHING_DUE

    def teardown(self) -> None:
        self.refusing.clear()
        self.desk.write()
        for _ in range(10):
            self.desk.go_to(self.desk.engine.now_ms + 70_000)
        assert not self.open
        assert len(self.desk.schedule) == 0
        assert self.desk.schedule.bodies.held_bytes == 0
        self.desk.write()
        assert not self.desk.stored
        assert not self.desk.events.drops
        assert not list(self.desk.schedule._stalls)


TestScheduling = Scheduling.TestCase
TestScheduling.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def test_a_message_far_away_costs_a_hundred_and_fifty_bytes_of_memory():
    desk = Desk()
    desk.queue()
    route = desk.engine.vhost("/").route("", "q")
    amount = 20_000
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(amount):
            desk.schedule.add(route, Message(route.address, b"some body", True), START_MS + 10**8 + number)
            if number % 5_000 == 0:
                release(desk)
        release(desk)
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(desk.schedule) == amount
    assert used / amount <= 150


def release(desk: Desk) -> None:
    desk.engine.take_batch()
    desk.schedule.batch_prepared()
    desk.schedule.committed()


def test_further_keys_outlast_a_restart_with_their_message(start):
    engine, journal, events = start()
    engine.advance(START_MS)
    for name in "ab":
        engine.definitions.declare_queue("/", QueueSpec(name), None)
    route = engine.vhost("/").route("", "a", also=("b",))
    engine.schedule.add(route, Message(route.address, b"1", True), START_MS + 10**6)
    gone = engine.schedule.add(route, Message(route.address, b"2", True), START_MS + 10**6)
    engine.schedule.cancel("/", gone)
    commit(engine, journal)

    engine, journal, events = start()
    engine.advance(START_MS + 10**6)
    read_wanted(engine, journal, events)
    assert [engine.vhost("/").queues[name].count for name in "ab"] == [1, 1]
    commit(engine, journal)
    assert engine.kept.state("engine.schedule.keys") == {}


def test_further_keys_of_what_is_not_persistent_are_kept_in_memory(start):
    engine, _, _ = start()
    engine.advance(START_MS)
    engine.definitions.declare_queue("/", QueueSpec("b"), None)
    route = engine.vhost("/").route("", "a", also=("b",))
    engine.schedule.add(route, Message(route.address, b"1"), START_MS + 1_000)
    assert engine.kept.state("engine.schedule.keys") == {}
    engine.advance(START_MS + 1_000)
    assert engine.vhost("/").queues["b"].count == 1
