"""Several messages and settlements as one change: all of it in one batch, or nothing."""

from __future__ import annotations

import pytest

from gateway.api.consumer import ConsumeOptions
from gateway.engine.queues.burial import PORTION
from gateway.errors import AccessRefused, GatewayError, MessageRefused, NotFound, Overloaded, PreconditionFailed
from gateway.model.declare import Binding, ExchangeSpec, Overflow, QueueSpec
from gateway.model.exchange_arguments import exchange_spec
from gateway.model.message import Message, with_properties
from gateway.model.properties import Properties
from tests.engine.restarts import T, commit
from tests.engine.support import Bench, Sink


@pytest.fixture
def bench():
    bench = Bench()
    bench.engine.advance(T)
    for name in ("from", "to", "other"):
        bench.queue(name)
    bench.queue("full", max_length=2, overflow=Overflow.REJECT_PUBLISH)
    return bench


def sending(bench, *sent, exchange=""):
    """Make what is to be published: a key and a body each, or a key and a message's further arguments."""
    publishes = []
    for key, body, *persistent in sent:
        route = bench.engine.vhost("/").route(exchange, key)
        publishes.append((route, Message(route.address, body, *(persistent or [True]))))
    return publishes


def held(bench, *bodies, queue="from"):
    for body in bodies:
        bench.publish(body, queue)
    consumer, sink = bench.consume(queue, prefetch=len(bodies))
    consumer.pause()
    return sink.deliveries


def snapshot(bench):
    engine = bench.engine
    queues = engine.vhost("/").queues
    return (
        {name: (queue.count, queue.body_bytes, bench.bodies(name)) for name, queue in queues.items()},
        {id(entry) for entries in engine.holdings.values() for entry in entries},
        len(engine.batch.messages),
        len(engine.batch.records),
        len(engine.batch.settled),
        len(engine.ours),
        len(engine.dead),
        list(bench.events.drops),
    )


def live(batch):
    return [message.body for message in batch.messages if message.live]


# -- all of it --------------------------------------------------------------


@pytest.mark.parametrize("committed", [False, True])
def test_messages_and_settlements_are_in_one_batch(bench, committed):
    acked, requeued, rejected = held(bench, b"1", b"2", b"3")
    if committed:
        bench.commit()
    settle = [(acked, "ack"), (requeued, "requeue"), (rejected, "reject")]
    assert bench.engine.transact(sending(bench, ("to", b"a"), ("other", b"b")), settle) == []
    assert [bench.bodies(name) for name in ("from", "to", "other")] == [[b"2"], [b"a"], [b"b"]]
    batch = bench.commit()
    assert live(batch) == [b"a", b"b"] if committed else [b"2", b"a", b"b"]
    assert len(batch.settled) == (2 if committed else 0)
    assert not bench.engine.ours


def test_messages_that_reach_no_queue_are_told_by_their_places(bench):
    assert bench.engine.transact(sending(bench, ("none", b"1"), ("to", b"2"), ("none", b"3")), []) == [0, 2]
    assert bench.bodies("to") == [b"2"]


def test_messages_come_before_what_is_given_back(bench):
    (delivery,) = held(bench, b"old")
    _, sink = bench.consume("to")
    bench.engine.transact(sending(bench, ("to", b"new")), [(delivery, "requeue")])
    assert sink.bodies == [b"new"]
    assert bench.bodies("from") == [b"old"]


def test_settling_gives_credit_back(bench):
    _, sink = bench.consume("from", prefetch=2)
    for number in range(4):
        bench.publish(b"%d" % number, "from")
    bench.engine.transact([], [(delivery, "ack") for delivery in sink.deliveries])
    assert sink.bodies == [b"0", b"1", b"2", b"3"]


def test_messages_that_need_no_disk_are_handed_on_and_leave_nothing_in_the_batch(bench):
    bench.commit()
    assert bench.engine.transact(sending(bench, ("to", b"1", False)), []) == []
    assert bench.bodies("to") == [b"1"]
    assert not bench.engine.take_batch()


def test_settling_what_is_on_disk_has_a_commit_of_its_own_even_if_nothing_else_does(bench):
    (delivery,) = held(bench, b"1")
    bench.commit()
    bench.engine.transact([], [(delivery, "ack")])
    batch = bench.engine.take_batch()
    assert batch.settled == [delivery]
    assert batch.records  # without any it could wait for others
    assert bench.engine.kept.state("engine.transactions") == {}


def test_all_that_is_rejected_is_dead_lettered_in_the_same_batch(bench):
    many = 3 * PORTION
    bench.queue("dlx", dead_letter_exchange="", dead_letter_routing_key="other")
    deliveries = held(bench, *(b"%d" % number for number in range(many)), queue="dlx")
    bench.commit()
    bench.engine.transact(sending(bench, ("to", b"x")), [(delivery, "reject") for delivery in deliveries])
    assert bench.bodies("other") == [b"%d" % number for number in range(many)]
    batch = bench.commit()
    assert len(batch.settled) == many
    assert len(live(batch)) == many + 1


def test_what_a_transaction_drives_out_is_dead_lettered_behind_it_and_takes_no_room_from_it(bench):
    bench.queue("one", max_length=1, dead_letter_exchange="", dead_letter_routing_key="full")
    publishes = sending(bench, ("one", b"1"), ("one", b"2"), ("one", b"3"), ("full", b"a"), ("full", b"b"))
    assert bench.engine.transact(publishes, []) == []
    assert bench.bodies("one") == [b"3"]
    assert bench.bodies("full") == [b"a", b"b"]
    assert bench.events.drops == [("one", "maxlen", 1), ("one", "maxlen", 1)]


# -- or nothing -------------------------------------------------------------


def refused(bench, publishes, settle=(), error=GatewayError):
    before = snapshot(bench)
    answer = bench.engine.transact(publishes, settle)
    assert isinstance(answer, error)
    assert snapshot(bench) == before
    return answer


@pytest.mark.parametrize("persistent", [False, True])
def test_messages_count_together_against_the_limit_of_a_queue(bench, persistent):
    (delivery,) = held(bench, b"1")
    three = sending(bench, *(("full", b"%d" % number, persistent) for number in range(3)))
    text = refused(bench, [*sending(bench, ("to", b"x")), *three], [(delivery, "ack")], MessageRefused).text
    assert text == "queue 'full' is full"
    assert bench.engine.transact(three[:2], [(delivery, "ack")]) == []
    assert bench.bodies("full") == [b"0", b"1"]


def test_bodies_count_together_against_the_limit_of_a_queue(bench):
    bench.queue("bytes", max_length_bytes=10, overflow=Overflow.REJECT_PUBLISH)
    refused(bench, sending(bench, ("bytes", b"x" * 6), ("bytes", b"x" * 5)), error=MessageRefused)
    assert bench.engine.transact(sending(bench, ("bytes", b"x" * 6), ("bytes", b"x" * 4)), []) == []


def test_what_the_transaction_settles_leaves_no_room_for_it(bench):
    deliveries = held(bench, b"1", b"2", queue="full")
    refused(bench, sending(bench, ("full", b"3")), [(delivery, "ack") for delivery in deliveries], MessageRefused)


def test_no_dead_letter_is_made_of_a_refused_transaction(bench):
    bench.queue("dlx", max_length=1, overflow=Overflow.REJECT_PUBLISH_DLX, dead_letter_exchange="", dead_letter_routing_key="other")
    refused(bench, sending(bench, ("dlx", b"1"), ("dlx", b"2")))
    assert bench.bodies("other") == []


def test_a_missing_or_internal_exchange_refuses_the_whole(bench):
    bench.engine.definitions.declare_exchange("/", ExchangeSpec("inside", internal=True))
    (delivery,) = held(bench, b"1")
    some = sending(bench, ("to", b"x"))
    refused(bench, [*some, *sending(bench, ("k", b"y"), exchange="none")], [(delivery, "ack")], NotFound)
    refused(bench, [*some, *sending(bench, ("k", b"y"), exchange="inside")], [(delivery, "ack")], AccessRefused)


def test_a_refusing_journal_refuses_what_must_last_and_nothing_else(bench):
    acked, other = held(bench, b"1", b"2")
    bench.commit()
    bench.engine.refuse_durable("the disk is full")
    refused(bench, sending(bench, ("to", b"x", False), ("to", b"y")), [(acked, "ack")], Overloaded)
    refused(bench, [], [(acked, "ack"), (other, "reject")], Overloaded)
    assert bench.engine.transact(sending(bench, ("to", b"x", False)), [(acked, "ack")]) == []
    assert bench.bodies("to") == [b"x"]


@pytest.mark.parametrize("how", ["ack", "requeue", "reject"])
def test_a_delivery_that_is_not_held_refuses_the_whole(bench, how):
    first, second = held(bench, b"1", b"2")
    bench.engine.ack(second)
    refused(bench, sending(bench, ("to", b"x")), [(first, how), (second, how)], NotFound)
    refused(bench, [], [(first, how), (first, "ack")], NotFound)


def test_a_delivery_whose_lease_has_ended_refuses_the_whole(bench):
    bench.queue("leased", consumer_timeout_ms=1_000)
    (delivery,) = held(bench, b"1", queue="leased")
    bench.consume("leased")
    bench.engine.advance(T + 1_001)
    assert delivery.settled
    refused(bench, sending(bench, ("to", b"x")), [(delivery, "ack")], NotFound)


def test_a_delivery_of_a_queue_that_is_gone_is_settled_and_refuses_nothing(bench):
    bench.queue("gone", durable=False)
    (delivery,) = held(bench, b"1", queue="gone")
    bench.engine.definitions.delete_queue("/", "gone", None)
    assert bench.engine.transact(sending(bench, ("to", b"x")), [(delivery, "reject")]) == []
    assert bench.bodies("to") == [b"x"]


# -- what is not plain ------------------------------------------------------


def special(bench, name, *sent, **arguments):
    route = bench.engine.vhost("/").route(name, "k")
    return [
        (route, with_properties(route.address, body, Properties(message_id=message_id, headers={"x-delay": delay})))
        for body, message_id, delay in sent
    ]


def test_exchanges_that_delay_and_look_for_repetitions_take_part(bench):
    arguments = {"x-delayed-type": "fanout", "x-deduplication-window-ms": 10_000}
    bench.engine.definitions.declare_exchange("/", exchange_spec("late", "x-delayed-message", arguments=arguments))
    bench.engine.definitions.bind("/", Binding("late", "full"), None)
    publishes = special(bench, "late", (b"1", "a", 0), (b"2", "b", 500), (b"1", "a", 0))
    refused(bench, [*publishes, *special(bench, "late", (b"3", "c", "soon"))], error=PreconditionFailed)
    refused(bench, [*publishes, *special(bench, "late", (b"3", "c", 0))], error=MessageRefused)
    assert bench.engine.transact(publishes, []) == []
    assert bench.bodies("full") == [b"1"]
    again = special(bench, "late", (b"1", "a", 0), (b"1", "a", 0), (b"4", "d", 0))
    assert bench.engine.transact(again, []) == []  # two are known, so they need no room
    assert bench.bodies("full") == [b"1", b"4"]
    (planned,) = bench.engine.schedule.listed("/")
    assert planned.due_ms == T + 500


def test_a_queue_that_ends_when_it_is_full_refuses_nothing(bench):
    bench.queue("ends", max_length=1, overflow=Overflow.END_QUEUE)
    publishes = sending(bench, ("ends", b"1"), ("ends", b"2"), ("ends", b"3"), ("to", b"4"))
    assert bench.engine.transact(publishes, []) == [1, 2]
    assert bench.bodies("to") == [b"4"]


@pytest.mark.parametrize("under_way", [False, True])
def test_it_is_never_withdrawn(bench, under_way):
    (delivery,) = held(bench, b"1")
    bench.commit()
    arguments = {"x-deduplication-window-ms": 10_000}
    bench.engine.definitions.declare_exchange("/", exchange_spec("once", "fanout", arguments=arguments))
    bench.engine.definitions.bind("/", Binding("once", "other"), None)
    once = special(bench, "once", (b"y", "m", 0))
    bench.engine.transact([*sending(bench, ("to", b"x")), *once], [(delivery, "ack")])
    bench.publish(b"plain", "to")
    if under_way:
        bench.hand_over()
    assert len(bench.engine.withdraw(lambda entry: False)) == 1
    assert bench.bodies("to") == [b"x"]
    assert bench["from"].count == 0
    assert bench.engine.transact(special(bench, "once", (b"y", "m", 0)), []) == []
    assert bench.bodies("other") == [b"y"]


def test_a_sink_that_fails_meanwhile_fails_alone(bench):
    class Failing(Sink):
        def deliver(self, delivery):
            raise ValueError("no")

    bench.consume("to", Failing())
    assert bench.engine.transact(sending(bench, ("to", b"1"), ("other", b"2")), []) == []
    assert bench.bodies("other") == [b"2"]
    assert [name for name, _ in bench.events.failures] == ["to"]


# -- over a crash -----------------------------------------------------------


def counts(engine):
    return {name: queue.count for name, queue in engine.vhost("/").queues.items()}


@pytest.mark.parametrize("written", [False, True])
def test_after_a_crash_there_is_all_of_it_or_nothing(start, written):
    engine, journal = start()
    for name in ("from", "to", "dead"):
        dead_letters = {"dead_letter_exchange": "", "dead_letter_routing_key": "dead"} if name == "from" else {}
        engine.definitions.declare_queue("/", QueueSpec(name, **dead_letters), None)
    source, target = (engine.vhost("/").route("", name) for name in ("from", "to"))
    for body in (b"1", b"2", b"3"):
        engine.publish(source, Message(source.address, body, True))
    commit(engine, journal)
    sink = Sink()
    held = engine.holdings.setdefault(sink, set())
    engine.consume("/", "from", sink, ConsumeOptions(prefetch=3), held, sink).pause()
    first, second, third = sink.deliveries
    publishes = [(target, Message(target.address, body, True)) for body in (b"a", b"b")]
    assert engine.transact(publishes, [(first, "ack"), (second, "reject"), (third, "requeue")]) == []
    if written:
        commit(engine, journal)
    engine, journal = start()
    assert counts(engine) == ({"from": 1, "to": 2, "dead": 1} if written else {"from": 3, "to": 0, "dead": 0})
