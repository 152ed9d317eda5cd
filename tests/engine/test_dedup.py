from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.engine.dedup import HEADER, message_key, namespace
from gateway.engine.queues.dead_letter import Reason, dead_letter
from gateway.errors import MessageRefused, PreconditionFailed
from gateway.model.declare import Binding, Overflow
from gateway.model.exchange_arguments import exchange_spec
from gateway.model.message import Message, with_properties
from gateway.model.properties import Properties
from gateway.model.records import StatePut
from tests.engine.support import Bench, Sink

START_MS = 1_700_000_000_000
WINDOW_MS = 1_000


class Door(Bench):
    """An engine at a virtual time with an exchange that drops repetitions, bound to the queue ``q``."""

    def __init__(
        self, state: list[StatePut] | None = None, *, now_ms: int = START_MS, durable: bool = True, **arguments: Any
    ) -> None:
        super().__init__()
        self.special = self.engine.special
        self.arguments = {"x-deduplication-window-ms": WINDOW_MS, **{f"x-{k.replace('_', '-')}": v for k, v in arguments.items()}}
        for record in state or []:
            self.engine.kept.replay(record)
        self.engine.advance(now_ms)
        self.spec = exchange_spec("once", "fanout", durable=durable, arguments=self.arguments)
        self.queue()
        self.engine.definitions.declare_exchange("/", self.spec)
        self.engine.definitions.bind("/", Binding("once", "q"), None)
        self.engine.take_batch()

    def send(self, message_id: object = None, body: bytes = b"", *, persistent: bool = True, **headers: object) -> object:
        route = self.engine.vhost("/").route("once", "k")
        told = {key.replace("_", "-"): value for key, value in headers.items()}
        properties = Properties(message_id=message_id, headers=told or None)
        return self.pass_on(with_properties(route.address, body, properties, persistent=persistent))

    def pass_on(self, message: Message) -> object:
        route = self.engine.vhost("/").route("once", "k")
        step = self.special.through("/", self.spec)
        assert step is not None
        return step(route, message)

    def wait(self, step_ms: int) -> None:
        self.engine.advance(self.engine.now_ms + step_ms)

    @property
    def stored(self) -> int:
        return self.engine.vhost("/").queues["q"].count

    @property
    def duplicates(self) -> int:
        return sum(amount for name, reason, amount in self.events.drops if (name, reason) == ("once", "duplicate"))

    def kept(self) -> dict[str, bytes]:
        return dict(self.engine.kept.state(namespace("/", "once")))

    def state(self) -> list[StatePut]:
        return [StatePut(namespace("/", "once"), key, value) for key, value in self.kept().items()]


@pytest.fixture
def door() -> Door:
    return Door()


# -- what is a repetition ---------------------------------------------------


def test_a_repeated_id_is_confirmed_but_not_stored_and_counted(door: Door):
    assert door.send("a") is None
    assert door.send("a") is None
    assert door.send("b") is None

    assert (door.stored, door.duplicates) == (2, 1)


def test_messages_without_an_id_pass(door: Door):
    for _ in range(3):
        assert door.send() is None
    assert (door.stored, door.duplicates) == (3, 0)


def test_the_header_counts_before_the_message_id(door: Door):
    door.send("a", x_deduplication_header="same")
    door.send("b", x_deduplication_header="same")
    door.send("a", x_deduplication_header="other")

    assert (door.stored, door.duplicates) == (2, 1)


def test_after_the_window_the_id_may_come_again_and_a_repetition_does_not_prolong_it(door: Door):
    door.send("a")
    door.wait(WINDOW_MS - 1)
    door.send("a")
    assert door.stored == 1

    door.wait(1)
    door.send("a")
    assert door.stored == 2
    door.wait(WINDOW_MS - 1)
    door.send("a")
    assert (door.stored, door.duplicates) == (2, 2)


def test_only_so_many_ids_are_remembered():
    door = Door(deduplication_size=2)
    for message_id in "abc":
        door.send(message_id)
    door.send("b")
    door.send("a")

    assert (door.stored, door.duplicates) == (4, 1)
    assert len(door.kept()) == 2


def test_what_was_refused_is_not_remembered(door: Door):
    door.queue("small", max_length=1, overflow=Overflow.REJECT_PUBLISH)
    door.engine.definitions.bind("/", Binding("once", "small"), None)
    door.send("first")
    assert isinstance(door.send("a"), MessageRefused)
    door.engine.definitions.purge_queue("/", "small", None)

    assert door.send("a") is None
    assert door.stored == 2
    assert door.duplicates == 0


def test_what_reached_no_queue_is_not_remembered(door: Door):
    door.engine.definitions.unbind("/", Binding("once", "q"), None)
    assert door.send("a") is not None
    door.engine.definitions.bind("/", Binding("once", "q"), None)

    assert door.send("a") is None
    assert door.stored == 1


def test_properties_that_can_not_be_decoded_are_refused(door: Door):
    route = door.engine.vhost("/").route("once", "k")
    answer = door.pass_on(Message(route.address, b"", True, "common", b"\xc1"))

    assert isinstance(answer, PreconditionFailed)
    assert door.stored == 0


def test_a_dead_letter_that_comes_back_is_no_repetition(door: Door):
    door.send("a")
    route = door.engine.vhost("/").route("once", "k")
    properties = Properties(message_id="a")
    first = with_properties(route.address, b"", properties)
    letter = dead_letter(first, properties, "q", Reason.EXPIRED, now_ms=0, count=0, exchange="once", routing_key=None)

    assert door.pass_on(letter) is None
    assert (door.stored, door.duplicates) == (2, 0)


def test_other_exchanges_are_left_alone(door: Door):
    assert door.special.through("/", exchange_spec("plain", "topic")) is None
    assert door.special.through("/", exchange_spec("plain", "topic", arguments={"mine": 1})) is None


@pytest.mark.parametrize("value", ["1", b"1", 1, 1.5, ["1"], {"a": 1}, "\u00fc" * 300, "'1'", "b'1'", "text:1"])
def test_ids_of_other_types_are_other_ids(value: object):
    keys = {message_key(Properties(headers={HEADER: other})) for other in ("plain", value, 2)}

    assert len(keys) == 3
    assert all(key is not None and key.isascii() and len(key) <= 140 for key in keys)


def test_an_empty_id_is_an_id_and_none_is_none():
    assert message_key(Properties(message_id="")) is not None
    assert message_key(Properties(headers={HEADER: None})) is None
    assert message_key(Properties()) is None


# -- on disk ----------------------------------------------------------------


def test_the_id_joins_the_batch_of_its_message(door: Door):
    door.send("a", b"body")
    batch = door.engine.batch

    assert [message.body for message in batch.messages] == [b"body"]
    assert [(record.namespace, record.value) for record in batch.records if isinstance(record, StatePut)] == [
        (namespace("/", "once"), b"%d 1" % (START_MS + WINDOW_MS))
    ]


def test_a_restart_restores_the_window(door: Door):
    door.send("a")
    door.wait(500)
    door.send("b")
    again = Door(door.state(), now_ms=door.engine.now_ms + 600)
    again.send("a")
    again.send("b")

    assert (again.stored, again.duplicates) == (1, 1)


def test_a_restart_keeps_the_oldest_first():
    door = Door(deduplication_size=3)
    for message_id in ("c", "b", "a"):
        door.send(message_id)
        door.wait(1)
    again = Door(door.state()[::-1], now_ms=door.engine.now_ms, deduplication_size=3)
    again.send("d")

    assert set(again.kept()) == {"text:a", "text:b", "text:d"}


def test_a_clock_that_was_set_back_does_not_make_the_window_longer(door: Door):
    door.send("a")
    again = Door(door.state(), now_ms=START_MS - 10**9)
    again.send("a")
    assert again.duplicates == 1
    again.wait(WINDOW_MS)
    again.send("a")
    assert again.stored == 1


def test_what_is_not_persistent_is_remembered_in_memory_only(door: Door):
    door.send("a", persistent=False)
    door.send("a", persistent=False)

    assert door.duplicates == 1
    assert not door.kept()


def test_of_an_exchange_that_is_not_durable_nothing_is_kept():
    door = Door(durable=False)
    door.send("a")
    door.send("a")

    assert door.duplicates == 1
    assert not door.kept()


def test_what_is_forgotten_is_deleted_from_disk_a_few_at_a_time(door: Door):
    for number in range(20):
        door.send(str(number))
    door.wait(WINDOW_MS)
    door.engine.take_batch()
    door.send("next")
    deleted = [record for record in door.engine.batch.records if isinstance(record, StatePut) and record.value is None]
    assert len(deleted) == 4

    for _ in range(5):
        door.send()
    assert list(door.kept()) == ["text:next"]


def test_the_window_goes_with_the_exchange(door: Door):
    for message_id in "abc":
        door.send(message_id)
    door.engine.take_batch()
    door.special.deleted("/", "once")

    assert len([record for record in door.engine.batch.records if isinstance(record, StatePut) and record.value is None]) == 3
    assert not door.kept()
    assert door.send("a") is None
    assert door.stored == 4


def test_the_window_goes_even_if_it_was_not_used_since_the_restart(door: Door):
    door.send("a")
    again = Door(door.state())
    again.special.deleted("/", "once")
    again.special.deleted("/", "never there")

    assert not again.kept()


def test_two_exchanges_and_two_virtual_hosts_remember_for_themselves(door: Door):
    assert len({namespace(vhost, name) for vhost, name in (("/", "a"), ("/a", ""), ("", "/a"), ("/", "b"))}) == 4


def test_another_window_begins_when_the_exchange_is_declared_otherwise(door: Door):
    door.send("a")
    door.special.deleted("/", "once")
    door.spec = exchange_spec("once", "fanout", arguments={"x-deduplication-window-ms": 5})
    door.send("a")
    door.wait(5)
    door.send("a")

    assert door.stored == 3


def test_a_restart_keeps_the_order_of_ids_that_came_in_one_millisecond():
    door = Door(deduplication_size=2)
    door.send("z")
    door.send("a")
    again = Door(door.state()[::-1], deduplication_size=2)
    again.send("m")

    assert set(again.kept()) == {"text:a", "text:m"}


# -- against a naive model --------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.sampled_from("abcdef"), st.booleans()),
        st.tuples(st.just("wait"), st.sampled_from([0, 1, 300, 999, 1_000]), st.none()),
        st.tuples(st.just("restart"), st.none(), st.none()),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.sampled_from([3, 100]))
def test_it_behaves_as_a_list_of_all_that_was_taken(steps: list[tuple[str, Any, Any]], size: int):
    door = Door(deduplication_size=size)
    taken: list[tuple[str, int, bool]] = []
    stored = 0
    for what, value, persistent in steps:
        if what == "wait":
            door.wait(value)
        elif what == "restart":
            door = Door(door.state(), now_ms=door.engine.now_ms, deduplication_size=size)
            taken = [entry for entry in taken if entry[2]]
            stored = 0
        else:
            now_ms = door.engine.now_ms
            taken = [entry for entry in taken if entry[1] > now_ms]
            if value not in [entry[0] for entry in taken]:
                taken = [*taken, (value, now_ms + WINDOW_MS, persistent)][-size:]
                stored += 1
            door.send(value, persistent=persistent)
        assert door.stored == stored
    assert len(door.kept()) <= size


def test_a_consumer_sees_each_message_once(door: Door):
    for message_id, body in (("a", b"1"), ("b", b"2"), ("a", b"1"), ("c", b"3"), ("b", b"2")):
        door.send(message_id, body)
    _, sink = door.consume("q", Sink())

    assert sink.bodies == [b"1", b"2", b"3"]
