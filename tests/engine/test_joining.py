"""A queue that is bound with ``x-last-values`` gets the last values that match, each of them once."""

from __future__ import annotations

import pytest

from gateway.engine.joining import AT_ONCE, NAMESPACE
from gateway.errors import Overloaded, PreconditionFailed
from gateway.model.declare import Binding, BindingOptions, ExchangeSpec, Overflow, QueueSpec
from gateway.model.message import Message
from tests.engine.restarts import T, commit, page
from tests.engine.support import Bench

WANTED = {"x-last-values": True}


@pytest.fixture
def bench():
    bench = Bench()
    bench.engine.advance(T)
    bench.queue()
    return bench


def retain(engine, key, body, *, persistent=True, exchange="amq.topic", **more):
    route = engine.vhost("/").route(exchange, key)
    message = Message(route.address, body, persistent, **more)
    return engine.kept.values.publish(engine.publish, route, message, route, message)


def bind(engine, key="#", arguments=WANTED, queue="q", exchange="amq.topic", **more):
    engine.definitions.bind("/", Binding(exchange, queue, key, arguments=arguments, **more), None)


def retain_many(engine, parts):
    """Leave as many last values as come in so many parts."""
    for number in range(parts * AT_ONCE):
        retain(engine, f"k.{number}", b"old")


def run(engine, steps=1):
    for _ in range(steps):
        engine.advance(max(engine.now_ms, min(engine.timers.next_due_ms, engine.now_ms + 2_000)))


def test_values_that_match_come_with_the_binding_and_later_ones_by_it(bench):
    retain(bench.engine, "plant.1.temp", b"20")
    retain(bench.engine, "plant.2.temp", b"21")
    retain(bench.engine, "plant.2.level", b"7")
    bind(bench.engine, "plant.*.temp")
    assert sorted(bench.bodies()) == [b"20", b"21"]
    retain(bench.engine, "plant.1.temp", b"22")
    assert bench.bodies()[2:] == [b"22"]
    (first, *_) = bench["q"].ready
    assert (first.message.exchange, first.message.persistent) == ("amq.topic", True)


def test_they_are_in_the_same_batch_as_the_binding_with_nothing_to_be_noted(bench):
    bench.commit()
    retain(bench.engine, "k", b"1")
    bench.commit()
    bind(bench.engine)
    batch = bench.commit()
    assert [message.body for message in batch.messages if message.live] == [b"1"]
    assert [type(record).__name__ for record in batch.records] == ["Bound"]


@pytest.mark.parametrize("arguments", [{}, {"x-last-values": False}, {"other": True}])
def test_without_the_argument_nothing_comes(bench, arguments):
    retain(bench.engine, "k", b"1")
    bind(bench.engine, arguments=arguments)
    assert bench.bodies() == []


def test_a_binding_that_is_there_already_brings_nothing_again(bench):
    retain(bench.engine, "k", b"1")
    bind(bench.engine)
    bind(bench.engine)
    bind(bench.engine, options=BindingOptions(qos=1))
    assert bench.bodies() == [b"1"]


def test_a_wildcard_that_spares_what_begins_with_a_dollar_spares_its_values(bench):
    retain(bench.engine, "$x.k", b"hidden")
    retain(bench.engine, "k", b"1")
    bind(bench.engine, options=BindingOptions(mqtt=True))
    assert bench.bodies() == [b"1"]


def test_values_are_messages_of_the_queue_like_others(bench):
    bench.queue("short", max_length=1, overflow=Overflow.REJECT_PUBLISH)
    bench.queue("ends", max_length=1, overflow=Overflow.END_QUEUE)
    bench.queue("mine", keep_transient=False)
    retain(bench.engine, "a", b"1", persistent=False)
    retain(bench.engine, "b", b"2", expires_at_ms=T + 100)
    for name in ("q", "short", "ends"):
        bind(bench.engine, queue=name)
    assert len(bench.bodies("short")) == len(bench.bodies("ends")) == 1
    assert bench.events.drops == [("short", "last value", 1), ("ends", "last value", 1)]
    bench.engine.advance(T + 101)
    _, sink = bench.consume()
    assert sink.bodies == [b"1"]
    _, sink = bench.consume("mine")
    bind(bench.engine, queue="mine")
    assert [message.body for message in sink.transient] == [b"1"]


def test_where_it_has_no_meaning_it_is_refused_and_nothing_is_bound(bench):
    bench.engine.definitions.declare_exchange("/", ExchangeSpec("x", "topic"))
    for wrong in (
        Binding("amq.direct", "q", "k", arguments=WANTED),
        Binding("amq.topic", "q", "k", arguments={"x-last-values": "yes"}),
        Binding("amq.topic", "x", "k", True, WANTED),
    ):
        with pytest.raises(PreconditionFailed, match="x-last-values"):
            bench.engine.definitions.bind("/", wrong, None)
    assert bench.engine.vhost("/").table.bindings_of("q") == []


def test_of_very_many_a_part_comes_at_a_time_and_each_once(bench):
    retain_many(bench.engine, 3)
    bind(bench.engine)
    assert bench["q"].count == AT_ONCE
    given = {entry.message.routing_key for entry in bench["q"].ready}
    waiting = next(f"k.{number}" for number in range(3 * AT_ONCE) if f"k.{number}" not in given)
    for key in (waiting, "k.new"):  # both come by the binding
        retain(bench.engine, key, b"new")
    run(bench.engine, 10)
    keys = [entry.message.routing_key for entry in bench["q"].ready]
    assert len(keys) == len(set(keys)) == 3 * AT_ONCE + 1
    assert bench.bodies().count(b"new") == 2
    assert bench.engine.kept.state(NAMESPACE) == {}
    assert not bench.engine.joining


@pytest.mark.parametrize("end", ["unbound", "deleted"])
def test_no_more_come_when_the_binding_or_the_queue_is_gone(bench, end):
    retain_many(bench.engine, 3)
    bind(bench.engine)
    if end == "unbound":
        bench.engine.definitions.unbind("/", Binding("amq.topic", "q", "#", arguments=WANTED), None)
    else:
        bench.engine.definitions.delete_queue("/", "q", None)
    run(bench.engine, 5)
    assert not bench.engine.joining
    assert bench.engine.kept.state(NAMESPACE) == {}
    if end == "unbound":
        assert bench["q"].count == AT_ONCE


def test_a_binding_that_is_made_anew_meanwhile_brings_each_value_once(bench):
    retain_many(bench.engine, 3)
    for _ in range(3):
        bind(bench.engine)
        bench.engine.definitions.unbind("/", Binding("amq.topic", "q", "#", arguments=WANTED), None)
    bind(bench.engine)
    run(bench.engine, 20)
    assert bench["q"].count == 3 * AT_ONCE + 3 * AT_ONCE
    assert bench.engine.kept.state(NAMESPACE) == {}


def test_while_the_journal_refuses_the_rest_waits(bench):
    retain_many(bench.engine, 2)
    bind(bench.engine)
    bench.engine.refuse_durable("no room")
    run(bench.engine, 3)
    assert bench["q"].count == AT_ONCE
    with pytest.raises(Overloaded):
        bind(bench.engine, "other")
    bench.engine.accept_durable()
    run(bench.engine, 3)
    assert bench["q"].count == 2 * AT_ONCE


def test_they_are_not_withdrawn_as_the_binding_stays(bench):
    retain(bench.engine, "k", b"1")
    bench.commit()
    bind(bench.engine)
    assert bench.engine.withdraw(lambda entry: False) == []
    assert bench.bodies() == [b"1"]


# -- over a restart ---------------------------------------------------------


@pytest.mark.parametrize("parts", [0, 1])
def test_after_a_restart_in_the_middle_the_rest_comes_and_nothing_comes_twice(start, parts):
    engine, journal = start()
    engine.definitions.declare_queue("/", QueueSpec("q"), None)
    retain_many(engine, 3)
    bind(engine)
    run(engine, parts)
    for number in range(3 * AT_ONCE - 5, 3 * AT_ONCE):
        retain(engine, f"k.{number}", b"new")
    commit(engine, journal)
    run(engine, 1)  # this part is lost
    committed = (parts + 1) * AT_ONCE + 5

    engine, journal = start()
    assert engine.vhost("/").queues["q"].count == committed
    retain(engine, "k.0", b"newest")
    run(engine, 10)
    commit(engine, journal)
    queue = engine.vhost("/").queues["q"]
    assert queue.count <= 3 * AT_ONCE + 5 + 1
    assert not engine.joining
    assert engine.kept.state(NAMESPACE) == {}

    engine, journal = start()
    run(engine, 3)
    assert engine.vhost("/").queues["q"].count == queue.count
    found = page(journal, engine.vhost("/").queues["q"].id).references
    keys = [(reference.message.routing_key, reference.message.body) for reference in found]
    assert len(keys) == len(set(keys))
    assert {key for key, _ in keys} == {f"k.{number}" for number in range(3 * AT_ONCE)}
    assert keys.count(("k.0", b"newest")) == 1


def test_what_is_put_and_bound_right_after_a_restart_comes_once_too(start):
    engine, journal = start()
    for name in ("q", "other"):
        engine.definitions.declare_queue("/", QueueSpec(name), None)
    retain_many(engine, 3)
    bind(engine)
    given = {entry.message.routing_key for entry in engine.vhost("/").queues["q"].ready}
    commit(engine, journal)

    engine, journal = start()
    waiting = next(f"k.{number}" for number in range(3 * AT_ONCE) if f"k.{number}" not in given)
    retain(engine, waiting, b"new")
    bind(engine, queue="other")
    run(engine, 20)
    commit(engine, journal)
    queues = engine.vhost("/").queues
    assert (queues["q"].count, queues["other"].count) == (3 * AT_ONCE, 3 * AT_ONCE)
    assert engine.kept.state(NAMESPACE) == {}


def test_a_binding_that_was_undone_before_the_restart_brings_nothing_after_it(start):
    engine, journal = start()
    engine.definitions.declare_queue("/", QueueSpec("q"), None)
    retain_many(engine, 2)
    bind(engine)
    commit(engine, journal)
    engine.definitions.unbind("/", Binding("amq.topic", "q", "#", arguments=WANTED), None)
    commit(engine, journal)
    engine, journal = start()
    run(engine, 5)
    assert engine.vhost("/").queues["q"].count == AT_ONCE
    assert engine.kept.state(NAMESPACE) == {}
