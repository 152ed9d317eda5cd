from __future__ import annotations

from typing import Any

import pytest

from gateway.engine.retained import RetainedLimits
from gateway.engine.special import read_delay
from gateway.errors import NotSupported, Overloaded, PreconditionFailed
from gateway.model.arguments import MAX_MS
from gateway.model.declare import Binding, ExchangeSpec
from gateway.model.exchange_arguments import (
    DEFAULT_SIZE,
    Deduplication,
    check_exchange,
    deduplication,
    exchange_arguments,
    exchange_spec,
    routing_type,
)
from gateway.model.message import Message, with_properties
from gateway.model.properties import Properties
from gateway.model.records import MessageScheduled, Scheduled, StatePut
from tests.engine.support import Bench, Sink

START_MS = 1_700_000_000_000
DELAYED = {"x-delayed-type": "fanout"}


class Waiting(Bench):
    """An engine at a virtual time with an exchange that delays, bound to the queue ``q``."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.special = self.engine.special
        self.engine.advance(START_MS)
        self.spec = exchange_spec("late", "x-delayed-message", arguments={**DELAYED, **arguments})
        self.queue()
        self.engine.definitions.declare_exchange("/", self.spec)
        self.engine.definitions.bind("/", Binding("late", "q"), None)

    def send(self, body: bytes, delay: object = None, message_id: str | None = None, **more: Any) -> object:
        route = self.engine.vhost("/").route("late", "k")
        headers = {"mine": 1} if delay is None else {"mine": 1, "x-delay": delay}
        properties = Properties(message_id=message_id, headers=headers, content_type="text/plain")
        return self.pass_on(with_properties(route.address, body, properties, **more))

    def pass_on(self, message: Message) -> object:
        step = self.special.through("/", self.spec)
        assert step is not None
        return step(self.engine.vhost("/").route("late", "k"), message)

    def received(self) -> list[Message]:
        sink = Sink()
        consumer, _ = self.consume("q", sink)
        self.engine.cancel(consumer)
        return [delivery.message for delivery in sink.deliveries]


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


# -- delays -----------------------------------------------------------------


def test_a_message_with_a_delay_comes_after_it(waiting: Waiting):
    assert waiting.send(b"late", 500) is None
    assert waiting.send(b"now") is None
    assert [message.body for message in waiting.received()] == [b"now"]

    waiting.engine.advance(START_MS + 500)
    assert waiting.engine.vhost("/").queues["q"].count == 2


@pytest.mark.parametrize("delay", [None, 0, -5, "0", "-7", -0.5, 0.9])
def test_without_a_delay_it_is_published_at_once_as_it_is(waiting: Waiting, delay: object):
    waiting.send(b"now", delay)
    (message,) = waiting.received()

    assert (waiting.engine.properties(message).headers or {}).get("x-delay") == delay


@pytest.mark.parametrize(("delay", "ms"), [(5, 5), ("250", 250), (7.9, 7), (MAX_MS, MAX_MS)])
def test_text_and_fractions_count_as_what_they_say(waiting: Waiting, delay: object, ms: int):
    waiting.send(b"late", delay)
    (scheduled,) = waiting.engine.schedule.listed("/")

    assert scheduled.due_ms == START_MS + ms


@pytest.mark.parametrize("delay", ["soon", True, [5], {"a": 1}, b"5", float("inf"), float("nan"), MAX_MS + 1, ""])
def test_a_delay_that_is_none_is_refused(waiting: Waiting, delay: object):
    assert isinstance(waiting.send(b"x", delay), PreconditionFailed)
    assert len(waiting.engine.schedule) == 0
    assert waiting.received() == []


def test_what_comes_out_has_its_delay_negated_and_all_else_kept(waiting: Waiting):
    waiting.send(b"late", 500, "id", persistent=False)
    waiting.engine.advance(START_MS + 500)
    (message,) = waiting.received()

    assert waiting.engine.properties(message) == Properties(
        message_id="id", headers={"mine": 1, "x-delay": -500}, content_type="text/plain"
    )
    assert (message.persistent, message.exchange, message.routing_key) == (False, "late", "k")
    assert read_delay(waiting.engine.properties(message)) <= 0


def test_a_delayed_message_is_in_the_batch_of_its_publish(waiting: Waiting):
    waiting.engine.take_batch()
    waiting.send(b"late", 500)

    assert [record.due_ms for record in waiting.engine.batch.records if isinstance(record, MessageScheduled)] == [START_MS + 500]


def test_a_journal_that_can_not_take_it_refuses_it(waiting: Waiting):
    waiting.engine.refuse_durable("disk full")
    assert isinstance(waiting.send(b"late", 500), Overloaded)


def test_properties_that_can_not_be_decoded_are_refused(waiting: Waiting):
    route = waiting.engine.vhost("/").route("late", "k")
    assert isinstance(waiting.pass_on(Message(route.address, b"", True, "common", b"\xc1")), PreconditionFailed)


def test_repetitions_are_dropped_before_they_wait():
    waiting = Waiting(**{"x-deduplication-window-ms": 10_000})
    waiting.send(b"1", 500, "same")
    waiting.send(b"2", 600, "same")
    waiting.send(b"3", 0, "same")
    waiting.send(b"4", 0, "other")
    waiting.engine.advance(START_MS + 1_000)

    assert [message.body for message in waiting.received()] == [b"4", b"1"]
    assert waiting.events.drops == [("late", "duplicate", 1)] * 2


def test_what_is_scheduled_by_other_means_may_be_checked_for_repetitions_too():
    waiting = Waiting(**{"x-deduplication-window-ms": 10_000})
    route = waiting.engine.vhost("/").route("late", "k")
    made: list[bytes] = []

    def step(_: object, message: Message) -> None:
        made.append(message.body)

    for body in (b"1", b"2"):
        message = with_properties(route.address, body, Properties(message_id="same"))
        assert waiting.special.deduplicated(route, message, waiting.spec, step) is None
    assert waiting.special.deduplicated(route, message, exchange_spec("plain"), step) is None
    assert made == [b"1", b"2"]


def test_what_is_scheduled_by_its_time_is_checked_for_repetitions_when_it_is_submitted():
    waiting = Waiting(**{"x-deduplication-window-ms": 10_000})
    route = waiting.engine.vhost("/").route("late", "k")
    schedule = waiting.engine.schedule
    ids = [
        schedule.add(route, with_properties(route.address, body, Properties(message_id="same")), START_MS + delay_ms)
        for body, delay_ms in ((b"1", 100), (b"2", 100), (b"3", 0))
    ]

    assert len(set(ids)) == 3
    assert [scheduled.scheduled_id for scheduled in schedule.listed("/")] == ids[:1]
    assert waiting.events.drops == [("late", "duplicate", 1)] * 2


def test_a_message_says_beforehand_whether_it_would_wait(waiting: Waiting):
    route = waiting.engine.vhost("/").route("late", "k")
    other = waiting.engine.vhost("/").route("", "q")
    gone = waiting.engine.vhost("/").route("gone", "k")
    late, odd, now = (with_properties(route.address, b"", Properties(headers={"x-delay": delay})) for delay in (5, "odd", -5))

    assert [waiting.special.delays(route, message) for message in (late, odd, now)] == [True, False, False]
    assert not waiting.special.delays(other, late)
    assert not waiting.special.delays(gone, late)
    assert not waiting.special.delays(route, Message(route.address, b"", True, "common", b"\xc1"))


# -- arguments --------------------------------------------------------------


def test_an_alternate_exchange_is_read_and_written():
    spec = exchange_spec("e", "topic", arguments={"alternate-exchange": "other", "mine": [1]})

    assert spec == ExchangeSpec("e", "topic", alternate="other", arguments={"mine": [1]})
    assert exchange_arguments(spec) == {"alternate-exchange": "other", "mine": [1]}
    assert exchange_arguments(exchange_spec("e")) == {}


def test_what_a_peer_says_of_the_exchange_is_kept():
    spec = exchange_spec("e", "fanout", durable=False, auto_delete=True, internal=True)
    assert spec == ExchangeSpec("e", "fanout", durable=False, auto_delete=True, internal=True)


def test_the_arguments_of_a_deduplication_are_read():
    assert deduplication(exchange_spec("e", arguments={"x-deduplication-window-ms": 5})) == Deduplication(5, DEFAULT_SIZE)
    told = {"x-deduplication-window-ms": MAX_MS, "x-deduplication-size": 7}
    assert deduplication(exchange_spec("e", arguments=told)) == Deduplication(MAX_MS, 7)
    assert deduplication(exchange_spec("e")) is None


def test_a_delayed_exchange_routes_by_its_real_type():
    assert routing_type(exchange_spec("e", "x-delayed-message", arguments={"x-delayed-type": "topic"})) == "topic"
    assert routing_type(exchange_spec("e", "headers")) == "headers"


@pytest.mark.parametrize(
    ("type_", "arguments", "word"),
    [
        ("direct", {"x-deduplication-window-ms": 0}, "window-ms"),
        ("direct", {"x-deduplication-window-ms": True}, "window-ms"),
        ("direct", {"x-deduplication-window-ms": "5"}, "window-ms"),
        ("direct", {"x-deduplication-window-ms": MAX_MS + 1}, "window-ms"),
        ("direct", {"x-deduplication-size": 5}, "without"),
        ("direct", {"x-deduplication-window-ms": 5, "x-deduplication-size": 0}, "size"),
        ("direct", {"alternate-exchange": 5}, "alternate-exchange"),
        ("direct", {"x-delayed-type": "direct"}, "x-delayed-message"),
        ("x-delayed-message", {}, "x-delayed-type"),
        ("x-delayed-message", {"x-delayed-type": 5}, "x-delayed-type"),
        ("x-delayed-message", {"x-delayed-type": ""}, "x-delayed-type"),
        ("x-delayed-message", {"x-delayed-type": "x-delayed-message"}, "x-delayed-type"),
        ("x-consistent-hash", {"hash-header": "a", "hash-property": "message_id"}, "hash-header"),
        ("x-consistent-hash", {"hash-header": 5}, "hash-header"),
        ("x-consistent-hash", {"hash-header": ""}, "hash-header"),
        ("x-consistent-hash", {"hash-property": "body"}, "message_id"),
        ("x-delayed-message", {"x-delayed-type": "x-consistent-hash", "hash-property": 5}, "hash-property"),
    ],
)
def test_a_value_that_can_not_be_is_named(type_: str, arguments: dict[str, object], word: str):
    with pytest.raises(PreconditionFailed, match=word):
        exchange_spec("e", type_, arguments=arguments)


def test_an_argument_that_is_not_known_is_refused_not_ignored():
    with pytest.raises(NotSupported, match="x-unheard-of"):
        exchange_spec("e", arguments={"x-unheard-of": 1})
    with pytest.raises(NotSupported, match="x-unheard-of"):
        check_exchange(ExchangeSpec("e", arguments={"x-unheard-of": 1}))


def test_an_exchange_that_was_declared_with_nonsense_says_so_when_it_is_used(waiting: Waiting):
    with pytest.raises(PreconditionFailed):
        waiting.special.through("/", ExchangeSpec("e", arguments={"x-deduplication-window-ms": "x"}))


# -- last values --------------------------------------------------------------


def retain(waiting: Waiting, body: bytes, delay: object = None, message_id: str | None = None, **more: Any) -> object:
    """Publish a message that is to be the last value of its key."""
    engine = waiting.engine
    route = engine.vhost("/").route("late", "k")
    headers = None if delay is None else {"x-delay": delay}
    message = with_properties(route.address, body, Properties(message_id=message_id, headers=headers), **more)
    return engine.kept.values.publish(engine.publish, route, message, route, message)


def last(waiting: Waiting) -> list[bytes]:
    return [message.body for message in waiting.engine.kept.retained("/", "late", "#")]


@pytest.mark.parametrize("persistent", [True, False])
def test_a_delayed_message_becomes_the_last_value_when_it_is_published(waiting: Waiting, persistent: bool):
    assert retain(waiting, b"before") is None
    assert retain(waiting, b"late", 500, persistent=persistent) is None
    assert last(waiting) == [b"before"]
    waiting.engine.advance(START_MS + 500)
    assert last(waiting) == [b"late"]
    assert waiting.engine.kept.state("engine.schedule.retained") == {}


def test_a_delayed_message_without_a_body_clears_the_last_value_when_it_is_published(waiting: Waiting):
    retain(waiting, b"before")
    retain(waiting, b"", 500)
    assert last(waiting) == [b"before"]
    waiting.engine.advance(START_MS + 500)
    assert last(waiting) == []


def test_a_delayed_message_that_is_cancelled_is_never_retained(waiting: Waiting):
    retain(waiting, b"late", 500)
    (item,) = waiting.engine.schedule.listed("/")
    waiting.engine.schedule.cancel("/", item.scheduled_id)
    waiting.engine.advance(START_MS + 500)
    assert last(waiting) == []
    assert waiting.engine.kept.state("engine.schedule.retained") == {}


def test_what_is_to_be_retained_outlasts_a_restart(waiting: Waiting):
    retain(waiting, b"late", 500)
    again = Waiting()
    (planned,) = [r for r in waiting.engine.batch.records if isinstance(r, MessageScheduled)]
    for record in waiting.engine.batch.records:
        if isinstance(record, StatePut):
            again.engine.replay(record)
    again.engine.replay(Scheduled(planned.scheduled_id, planned.due_ms, "/", "late", "k", 4))
    again.engine.events.scheduled_wanted = lambda ids: None
    again.engine.advance(START_MS + 500)
    again.engine.scheduled_loaded([(planned.scheduled_id, planned.message)])
    assert last(again) == [b"late"]


def test_a_repetition_does_not_change_the_last_value():
    waiting = Waiting(**{"x-deduplication-window-ms": 10_000})
    assert retain(waiting, b"first", message_id="m") is None
    assert retain(waiting, b"again", message_id="m") is None
    assert last(waiting) == [b"first"]
    assert retain(waiting, b"second", message_id="n") is None
    assert last(waiting) == [b"second"]


def test_a_last_value_for_which_there_is_no_room_when_it_is_due_is_counted(waiting: Waiting):
    retain(waiting, b"late", 500)
    waiting.engine.kept.values.limits = RetainedLimits(max_body_bytes=2)
    waiting.engine.advance(START_MS + 500)
    assert last(waiting) == []
    assert waiting.engine.vhost("/").queues["q"].count == 1
    assert waiting.engine.events.drops == [("late", "scheduled, not retained", 1)]
