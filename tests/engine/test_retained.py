"""Are last values kept, given out, limited and forgotten as they should be, over a restart too?"""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.engine.engine import UNROUTABLE, Engine
from gateway.engine.retained import EXPIRED_AT_ONCE, LOOK_AGAIN_MS, RetainedLimits
from gateway.engine.timers import NOTHING_DUE
from gateway.errors import MessageRefused, NotFound, Overloaded
from gateway.journal.memory import MemoryJournal, MemoryStore
from gateway.journal.sqlite import SqliteJournal
from gateway.model.declare import Overflow
from gateway.model.message import Address, Decoders, Message
from gateway.model.records import Retained
from tests.engine.journals import JournalDisk
from tests.engine.support import Bench, Events

TOPIC = "amq.topic"
NOW = 1_000_000


def new_engine(now_ms=NOW, **limits):
    engine = Engine(Events(), Decoders().properties)
    engine.now_ms = now_ms
    engine.kept.values.limits = RetainedLimits(**limits)
    return engine


@pytest.fixture
def engine():
    return new_engine()


@pytest.fixture
def bench():
    return Bench()


def value(key, body=b"x", *, vhost="/", exchange=TOPIC, **how):
    return Message(Address(vhost, exchange, key), body, **how)


def put(engine, key, body=b"x", **how):
    message = value(key, body, **how)
    return engine.kept.values.put(message.address, message)


def publish(engine, key, body, *, exchange=TOPIC, persistent=True):
    route = engine.vhost("/").route(exchange, key)
    message = Message(route.address, body, persistent)
    return engine.kept.values.publish(engine.publish, route, message, route, message)


def given(engine, pattern="#", **where):
    where = {"vhost": "/", "exchange": TOPIC, **where}
    return {message.routing_key: message.body for message in engine.kept.retained(pattern=pattern, **where)}


def recorded(engine):
    return [(record.key, record.message and record.message.body) for record in engine.take_batch().records]


def held(engine):
    return engine.kept.values.held("/")


# -- what is kept ---------------------------------------------------------


def test_the_last_value_of_a_key_replaces_the_one_before_and_an_empty_one_clears_it(engine):
    for key, body in (("a", b"1"), ("a", b"2"), ("b", b"3"), ("b", b""), ("c", b"")):
        assert put(engine, key, body) is None
    assert given(engine) == {"a": b"2"}
    assert recorded(engine) == [("a", b"1"), ("a", b"2"), ("b", b"3"), ("b", None)]
    assert held(engine) == (1, 2)


def test_virtual_hosts_and_exchanges_have_values_of_their_own(engine):
    put(engine, "a", b"1")
    put(engine, "a", b"2", vhost="other")
    put(engine, "a", b"3", exchange="news")
    assert given(engine) == {"a": b"1"}
    assert given(engine, vhost="other") == {"a": b"2"}
    assert given(engine, exchange="news") == {"a": b"3"}
    assert given(engine, exchange="none") == {}


def test_a_value_that_is_not_persistent_is_kept_on_disk_too(engine):
    assert publish(engine, "a", b"1", persistent=False) is UNROUTABLE
    batch = engine.take_batch()
    assert [record.key for record in batch.records] == ["a"]
    assert batch.messages == []
    assert batch.body_bytes > 0, "publishers are held back by what waits to be written"


def test_numbers_of_putting_tell_what_was_put_since(engine):
    put(engine, "a")
    put(engine, "b")
    mark = engine.kept.values.puts
    put(engine, "a", b"new")
    found = engine.kept.values.look_up("/", TOPIC, "#").next_slice(9, 9)
    assert [(message.routing_key, number > mark) for message, number in found] == [("a", True), ("b", False)]


def test_a_look_up_goes_on_while_values_come_and_go(engine):
    for n in range(10):
        put(engine, f"k.{n}")
    look_up = engine.kept.values.look_up("/", TOPIC, "k.#")
    seen = [message.routing_key for message, _ in look_up.next_slice(4, 100)]
    put(engine, "k.0", b"")
    put(engine, "k.9", b"")
    put(engine, "k.5", b"new")
    put(engine, "j")
    while not look_up.done:
        seen += [message.routing_key for message, _ in look_up.next_slice(4, 100)]
    assert seen == [f"k.{n}" for n in range(9)]
    assert look_up.next_slice(1, 1) == []


def test_a_look_up_outlives_the_last_value_of_its_exchange(engine):
    put(engine, "a")
    look_up = engine.kept.values.look_up("/", TOPIC, "#")
    put(engine, "a", b"")
    put(engine, "b")
    assert look_up.next_slice(9, 9) == []


# -- both or neither ------------------------------------------------------


def test_what_is_refused_is_not_kept(engine):
    assert isinstance(publish(engine, "a", b"1", exchange="none"), NotFound)
    assert given(engine, exchange="none") == {}
    assert recorded(engine) == []


def test_what_can_not_be_kept_is_not_published(bench):
    engine = bench.engine
    engine.kept.values.limits = RetainedLimits(max_body_bytes=3)
    bench.queue(durable=True)
    bench.bind(TOPIC, "q", "#")
    _, sink = bench.consume()
    engine.take_batch()
    assert isinstance(publish(engine, "a", b"1234"), MessageRefused)
    assert sink.bodies == []
    assert engine.take_batch().messages == []
    assert publish(engine, "a", b"123") is None
    assert sink.bodies == [b"123"]


def test_a_full_queue_refuses_the_value_as_well(bench):
    bench.queue(max_length=1, overflow=Overflow.REJECT_PUBLISH)
    bench.bind(TOPIC, "q", "#")
    assert publish(bench.engine, "a", b"1") is None
    assert isinstance(publish(bench.engine, "a", b"2"), MessageRefused)
    assert given(bench.engine) == {"a": b"1"}


@pytest.mark.parametrize("body", [b"2", b""])
def test_while_nothing_can_be_written_values_and_clearing_are_refused(engine, body):
    put(engine, "a", b"1")
    engine.refuse_durable("the disk is full")
    engine.take_batch()
    assert isinstance(publish(engine, "a", body, persistent=False), Overloaded)
    assert given(engine) == {"a": b"1"}
    assert recorded(engine) == []


# -- limits ---------------------------------------------------------------


def test_there_are_at_most_so_many_values_in_a_virtual_host():
    engine = new_engine(max_messages=2)
    assert put(engine, "a") is None
    assert put(engine, "b", exchange="news") is None
    refusal = put(engine, "c")
    assert isinstance(refusal, MessageRefused)
    assert "2 messages" in refusal.text
    assert put(engine, "a", b"replaced") is None
    assert put(engine, "c", vhost="other") is None
    assert put(engine, "a", b"") is None
    assert put(engine, "c") is None
    assert given(engine) == {"c": b"x"}


def test_values_have_at_most_so_many_bytes_in_a_virtual_host():
    engine = new_engine(max_bytes=10)
    assert put(engine, "a", b"12345") is None
    assert isinstance(put(engine, "b", b"1234"), MessageRefused)
    assert put(engine, "b", b"123") is None
    assert held(engine) == (2, 10)
    assert isinstance(put(engine, "a", b"123456"), MessageRefused)
    assert isinstance(put(engine, "a", b"12345", wire_tag="t", wire=b"w"), MessageRefused)
    assert put(engine, "a", b"54321") is None
    assert given(engine) == {"a": b"54321", "b": b"123"}


def test_what_is_above_a_limit_that_was_lowered_stays_and_may_shrink():
    engine = new_engine()
    put(engine, "a", b"12345")
    put(engine, "b", b"12345")
    engine.kept.values.limits = RetainedLimits(max_messages=1, max_bytes=3)
    assert put(engine, "a", b"1234") is None
    assert isinstance(put(engine, "c", b"1"), MessageRefused)
    assert given(engine) == {"a": b"1234", "b": b"12345"}


def test_a_refused_value_changes_nothing():
    engine = new_engine(max_body_bytes=1)
    put(engine, "a", b"1")
    engine.take_batch()
    assert isinstance(put(engine, "a", b"12"), MessageRefused)
    assert given(engine) == {"a": b"1"}
    assert held(engine) == (1, 2)
    assert recorded(engine) == []


# -- expiry ---------------------------------------------------------------


def test_a_value_is_given_out_until_it_expires_and_then_removed(engine):
    put(engine, "a", expires_at_ms=NOW + 10)
    put(engine, "b")
    assert engine.timers.next_due_ms == NOW + 10
    engine.now_ms = NOW + 9
    assert set(given(engine)) == {"a", "b"}
    engine.now_ms = NOW + 10
    assert set(given(engine)) == {"b"}, "it isn't given out although nobody has removed it yet"
    engine.take_batch()
    engine.advance(NOW + 10)
    assert recorded(engine) == [("a", None)]
    assert held(engine) == (1, 2)
    assert engine.timers.next_due_ms == NOTHING_DUE


def test_one_appointment_is_there_for_all_and_for_the_earliest(engine):
    for n in (30, 10, 20, 40):
        put(engine, f"k.{n}", expires_at_ms=NOW + n)
    gone = []
    for _ in range(4):
        engine.advance(engine.timers.next_due_ms)
        gone.append((engine.now_ms - NOW, len(given(engine))))
    assert gone == [(10, 3), (20, 2), (30, 1), (40, 0)]


@pytest.mark.parametrize(("body", "expires"), [(b"", 0), (b"new", 0), (b"new", NOW + 50)])
def test_what_replaces_or_clears_a_value_takes_its_expiry_with_it(engine, body, expires):
    put(engine, "a", expires_at_ms=NOW + 10)
    put(engine, "a", body, expires_at_ms=expires)
    engine.take_batch()
    engine.advance(NOW + 10)
    assert given(engine) == ({"a": body} if body else {})
    assert recorded(engine) == []
    engine.advance(NOW + 50)
    assert recorded(engine) == ([("a", None)] if expires else [])


def test_expiry_is_done_a_part_at_a_time(engine):
    for n in range(EXPIRED_AT_ONCE * 2 + 1):
        put(engine, f"k.{n}", expires_at_ms=NOW + 1)
    engine.take_batch()
    parts = []
    engine.now_ms = NOW + 5
    assert given(engine) == {}
    while engine.timers.next_due_ms <= NOW + 5:
        engine.advance(NOW + 5)
        parts.append(len(engine.take_batch().records))
    assert parts == [EXPIRED_AT_ONCE, EXPIRED_AT_ONCE, 1]
    assert held(engine) == (0, 0)


def test_what_has_expired_waits_to_be_removed_while_nothing_can_be_written(engine):
    put(engine, "a", expires_at_ms=NOW + 1)
    engine.take_batch()
    engine.refuse_durable("the disk is full")
    engine.advance(NOW + 1)
    assert recorded(engine) == []
    assert given(engine) == {}
    engine.accept_durable()
    assert engine.timers.next_due_ms == NOW + 1 + LOOK_AGAIN_MS
    engine.advance(engine.timers.next_due_ms)
    assert recorded(engine) == [("a", None)]


# -- restart --------------------------------------------------------------


@pytest.fixture(params=["memory", "sqlite"])
def disk(request, tmp_path):
    store = MemoryStore()
    make = {"memory": lambda: MemoryJournal(store), "sqlite": lambda: SqliteJournal(tmp_path / "data")}[request.param]
    disk = JournalDisk(make)
    yield disk
    disk.close()


def restarted(disk, engine, now_ms, **limits):
    disk.apply(disk.prepare(engine.take_batch()))
    after = new_engine(now_ms, **limits)
    for record in disk.load():
        after.replay(record)
    return after


def test_values_and_their_expiry_outlive_a_restart(disk, engine):
    put(engine, "a", b"1")
    put(engine, "b", b"2", expires_at_ms=NOW + 10, persistent=True)
    put(engine, "c", b"3", expires_at_ms=NOW + 1_000)
    put(engine, "d", b"4")
    put(engine, "d", b"")
    after = restarted(disk, engine, NOW + 500, max_messages=1)
    assert given(after) == {"a": b"1", "c": b"3"}
    assert held(after)[0] == 3
    assert after.timers.next_due_ms <= NOW + 500
    after.advance(NOW + 500)
    assert held(after) == (2, 4)
    assert isinstance(put(after, "e"), MessageRefused)
    again = restarted(disk, after, NOW + 500)
    assert held(again) == (2, 4)
    again.advance(NOW + 1_000)
    assert given(again) == {"a": b"1"}


# -- all together ---------------------------------------------------------

KEYS = [f"{a}.{b}" for a in "ab" for b in "xyz"]


class LastValueMachine(RuleBasedStateMachine):
    """Put, clear, let time pass and restart at random; the model is a dictionary."""

    def __init__(self):
        super().__init__()
        self.engine = new_engine(max_messages=4, max_bytes=40)
        self.model = {}
        self.disk = {}

    def committed(self):
        for record in self.engine.take_batch().records:
            assert isinstance(record, Retained)
            if record.message is None:
                del self.disk[record.key]
            else:
                self.disk[record.key] = record

    def cost(self, key):
        return len(key) + len(self.model[key][0]) if key in self.model else 0

    @rule(key=st.sampled_from(KEYS), body=st.binary(max_size=12), expires_in=st.sampled_from([0, 0, 1, 5, 20]))
    def put(self, key, body, expires_in):
        due = self.engine.now_ms + expires_in if expires_in else 0
        more = len(key) + len(body) - self.cost(key)
        many = key not in self.model and len(self.model) >= 4
        large = more > 0 and sum(map(self.cost, self.model)) + more > 40
        refusal = put(self.engine, key, body, expires_at_ms=due)
        assert bool(refusal) is bool(body and (many or large))
        if refusal is None:
            self.model.pop(key, None)
            if body:
                self.model[key] = (body, due)

    @rule(ms=st.integers(0, 10))
    def time_passes(self, ms):
        self.engine.advance(self.engine.now_ms + ms)
        self.model = {key: kept for key, kept in self.model.items() if not 0 < kept[1] <= self.engine.now_ms}

    @rule()
    def commit(self):
        self.committed()

    @precondition(lambda self: self.model)
    @rule()
    def restart(self):
        self.committed()
        engine = new_engine(self.engine.now_ms, max_messages=4, max_bytes=40)
        for record in self.disk.values():
            engine.replay(record)
        self.engine = engine

    @invariant()
    def what_is_given_out_is_right(self):
        bodies = {key: body for key, (body, due) in self.model.items() if not 0 < due <= self.engine.now_ms}
        assert given(self.engine) == bodies
        assert given(self.engine, "a.#") == {key: body for key, body in bodies.items() if key[0] == "a"}
        assert given(self.engine, "*.x") == {key: body for key, body in bodies.items() if key[2] == "x"}
        assert held(self.engine) == (len(self.model), sum(map(self.cost, self.model)))


TestLastValueMachine = LastValueMachine.TestCase
TestLastValueMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
