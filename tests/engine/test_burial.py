"""What a queue gives up goes to its dead-letter exchange, in one batch with its settling."""

from __future__ import annotations

import pytest

from gateway.engine.queues.burial import PORTION
from gateway.engine.queues.dead_letter import DEATHS
from gateway.errors import MessageRefused, Overloaded
from gateway.model.declare import Binding, ExchangeSpec, Overflow
from gateway.model.message import Address, Decoders, with_properties
from gateway.model.properties import Properties
from tests.engine.support import Bench

T = 1_000_000
headers_of = Decoders().properties
DLX = {"dead_letter_exchange": "", "dead_letter_routing_key": "dead"}


@pytest.fixture
def bench():
    bench = Bench()
    bench.engine.advance(T)
    bench.queue("dead")
    return bench


def deaths(bench, name="dead"):
    found = []
    for entry in bench[name].ready:
        last = headers_of(entry.message).headers[DEATHS][0]
        found.append((entry.message.body, last["queue"], last["reason"], last["count"]))
    return found


def live(batch):
    return [message.body for message in batch.messages if message.live]


# -- reasons ----------------------------------------------------------------


def test_what_expires_is_dead_lettered(bench):
    bench.queue(message_ttl_ms=10, **DLX)
    bench.publish(b"1")
    bench.engine.advance(T + 10)
    assert deaths(bench) == [(b"1", "q", "expired", 1)]
    assert bench["q"].count == 0
    assert bench.engine.burial.counts == {"expired": 1}
    assert bench.events.drops == []


def test_what_is_rejected_is_dead_lettered(bench):
    bench.queue(**DLX)
    bench.publish(b"1")
    _, sink = bench.consume(prefetch=1)
    bench.engine.nack(sink.deliveries[0], requeue=False)
    assert deaths(bench) == [(b"1", "q", "rejected", 1)]
    assert bench["q"].count == 0


def test_a_full_queue_dead_letters_its_head(bench):
    bench.queue(max_length=2, **DLX)
    for body in (b"1", b"2", b"3", b"4"):
        bench.publish(body)
    assert deaths(bench) == [(b"1", "q", "maxlen", 1), (b"2", "q", "maxlen", 1)]
    assert bench.bodies() == [b"3", b"4"]


def test_limits_count_what_is_delivered_and_that_can_not_be_dropped(bench):
    bench.queue(max_length_bytes=2, **DLX)
    bench.consume(prefetch=2)
    for body in (b"1", b"2", b"3"):
        bench.publish(body)
    assert deaths(bench) == [(b"3", "q", "maxlen", 1)]
    assert bench["q"].count == 2


def test_a_queue_that_refuses_may_dead_letter_what_it_refused(bench):
    bench.queue(max_length=1, overflow=Overflow.REJECT_PUBLISH_DLX, **DLX)
    assert bench.publish(b"1") is None
    assert isinstance(bench.publish(b"2"), MessageRefused)
    assert deaths(bench) == [(b"2", "q", "maxlen", 1)]
    assert bench.bodies() == [b"1"]


def test_a_queue_that_only_refuses_dead_letters_nothing(bench):
    bench.queue(max_length=1, overflow=Overflow.REJECT_PUBLISH, **DLX)
    bench.publish(b"1")
    assert isinstance(bench.publish(b"2"), MessageRefused)
    assert bench["dead"].count == 0


def test_what_comes_back_too_often_is_dead_lettered(bench):
    bench.queue(delivery_limit=2, **DLX)
    bench.publish(b"1")
    _, sink = bench.consume(prefetch=1)
    for _ in range(2):
        bench.engine.nack(sink.deliveries[-1], requeue=True)
    assert [d.count for d in sink.deliveries][-1] == 3
    assert bench["dead"].count == 0
    bench.engine.nack(sink.deliveries[-1], requeue=True)
    assert deaths(bench) == [(b"1", "q", "delivery_limit", 1)]
    assert len(sink.deliveries) == 3


def test_a_lost_channel_is_a_return_too(bench):
    bench.queue(delivery_limit=0, **DLX)
    bench.publish(b"1")
    consumer, sink = bench.consume(prefetch=1)
    bench.close(sink, consumer)
    assert deaths(bench) == [(b"1", "q", "delivery_limit", 1)]


def test_without_an_exchange_what_comes_back_too_often_is_dropped_and_counted(bench):
    bench.queue(delivery_limit=0)
    bench.publish(b"1")
    _, sink = bench.consume(prefetch=1)
    bench.engine.nack(sink.deliveries[0], requeue=True)
    assert bench.events.drops == [("q", "delivery_limit", 1)]
    assert bench["q"].count == 0


# -- where to ---------------------------------------------------------------


def test_the_messages_own_key_is_kept_if_no_other_is_given(bench):
    bench.engine.definitions.declare_exchange("/", ExchangeSpec("dlx", "topic", internal=True))
    bench.bind("dlx", "dead", "q")
    bench.queue(max_length=1, dead_letter_exchange="dlx")
    bench.publish(b"1")
    bench.publish(b"2")
    assert [entry.message.routing_key for entry in bench["dead"].ready] == ["q"]


def test_dead_letters_get_into_an_internal_exchange_and_clients_still_do_not(bench):
    bench.engine.definitions.declare_exchange("/", ExchangeSpec("dlx", "fanout", internal=True))
    bench.bind("dlx", "dead", "")
    bench.queue(max_length=1, dead_letter_exchange="dlx", dead_letter_routing_key="k")
    bench.publish(b"1")
    bench.publish(b"2")
    assert bench["dead"].count == 1
    assert bench.publish(b"3", "k", "dlx") is not None
    assert bench["dead"].count == 1


@pytest.mark.parametrize("where", [{"dead_letter_exchange": "missing"}, {"dead_letter_exchange": "amq.topic"}])
def test_what_has_nowhere_to_go_is_dropped_and_counted(bench, where):
    bench.queue(max_length=1, **where)
    bench.publish(b"1")
    bench.publish(b"2")
    assert bench.events.drops == [("q", "maxlen", 1)]
    assert bench.engine.burial.counts == {}
    assert bench["q"].count == 1


def test_headers_exchanges_take_dead_letters(bench):
    binding = Binding("amq.headers", "dead", arguments={"x-last-death-reason": "maxlen"})
    bench.engine.definitions.bind("/", binding, None)
    bench.queue(max_length=1, dead_letter_exchange="amq.headers")
    bench.publish(b"1")
    bench.publish(b"2")
    assert bench["dead"].count == 1


# -- circles and chains -----------------------------------------------------


def test_a_circle_without_a_rejection_ends(bench):
    bench.queue("a", message_ttl_ms=10, dead_letter_exchange="", dead_letter_routing_key="b")
    bench.queue("b", message_ttl_ms=10, dead_letter_exchange="", dead_letter_routing_key="a")
    bench.publish(b"1", "a")
    for step in range(1, 10):
        bench.engine.advance(T + 10 * step)
    assert bench["a"].count == bench["b"].count == 0
    assert bench.events.drops == [("b", "expired", 1)]


def test_a_circle_with_a_rejection_goes_on(bench):
    bench.queue("work", dead_letter_exchange="", dead_letter_routing_key="wait")
    bench.queue("wait", message_ttl_ms=10, dead_letter_exchange="", dead_letter_routing_key="work")
    bench.publish(b"1", "work")
    _, sink = bench.consume("work", prefetch=1)
    for step in range(1, 6):
        bench.engine.nack(sink.deliveries[-1], requeue=False)
        bench.engine.advance(T + 10 * step)
    assert len(sink.deliveries) == 6
    history = headers_of(sink.deliveries[-1].message).headers[DEATHS]
    assert [(death["queue"], death["reason"], death["count"]) for death in history] == [
        ("wait", "expired", 5),
        ("work", "rejected", 5),
    ]


@pytest.mark.parametrize(
    "exchange",
    [
        ExchangeSpec("special", "direct", arguments={"x-deduplication-window-ms": 1000}),
        ExchangeSpec("special", "x-delayed-message", arguments={"x-delayed-type": "direct"}),
    ],
    ids=["deduplicating", "delaying"],
)
def test_a_circle_through_a_special_exchange_ends(bench, exchange):
    bench.engine.definitions.declare_exchange("/", exchange)
    bench.queue(message_ttl_ms=10, dead_letter_exchange="special", dead_letter_routing_key="q")
    bench.bind("special", "q", "q")
    bench.publish(b"1")
    for turn in range(1, 4):
        bench.engine.advance(T + 10 * turn)
    assert bench["q"].count == 0
    assert bench.events.drops == [("q", "expired", 1)]


def test_other_queues_get_what_goes_in_a_circle_for_one(bench):
    bench.queue("q", message_ttl_ms=10, dead_letter_exchange="amq.fanout")
    bench.bind("amq.fanout", "q", "")
    bench.bind("amq.fanout", "dead", "")
    bench.publish(b"1")
    bench.engine.advance(T + 10)
    assert deaths(bench) == [(b"1", "q", "expired", 1)]
    assert bench["q"].count == 0


def test_a_full_queue_that_dead_letters_to_itself_does_not_run_for_ever(bench):
    bench.queue(max_length=1, dead_letter_exchange="", dead_letter_routing_key="q")
    bench.publish(b"1")
    bench.publish(b"2")
    assert bench.bodies() == [b"2"]
    assert bench.events.drops == [("q", "maxlen", 1)]


def test_a_long_chain_is_no_recursion(bench):
    for number in range(500):
        bench.queue(f"c{number}", max_length=1, dead_letter_exchange="", dead_letter_routing_key=f"c{number + 1}")
        bench.publish(b"%d" % number, f"c{number}")
    bench.publish(b"new", "c0")
    while bench.engine.dead:
        bench.engine.advance(bench.engine.now_ms)
    assert bench.bodies("c0") == [b"new"]
    assert bench.bodies("c499") == [b"498"]
    assert bench.events.drops == [("c499", "maxlen", 1)]


def test_one_operation_sees_to_a_portion_and_the_next_turns_to_the_rest(bench):
    bench.queue(message_ttl_ms=10, **DLX)
    for number in range(3 * PORTION):
        bench.publish(b"%04d" % number)
    bench.engine.advance(T + 10)
    assert bench["dead"].count == PORTION
    assert bench.engine.timers.next_due_ms <= T + 10
    for _ in range(3):
        bench.engine.advance(T + 10)
    assert [body for body, *_ in deaths(bench)] == [b"%04d" % number for number in range(3 * PORTION)]


# -- the batch --------------------------------------------------------------


def test_the_old_message_goes_in_the_batch_that_brings_the_new_one(bench):
    bench.queue(message_ttl_ms=10, **DLX)
    bench.publish(b"1")
    bench.commit()
    bench.engine.advance(T + 10)
    batch = bench.engine.batch
    assert live(batch) == [b"1"]
    assert [(entry.queue_id, entry.message.body) for entry in batch.settled] == [(bench["q"].id, b"1")]


def test_a_message_that_dies_in_its_own_batch_is_written_once_as_the_dead_letter(bench):
    bench.queue(max_length=1, **DLX)
    bench.publish(b"1")
    bench.publish(b"2")
    batch = bench.commit()
    assert live(batch) == [b"2", b"1"]
    assert [entry.message.body for entry in bench.disk[bench["dead"].id]] == [b"1"]
    assert batch.settled == []


def test_a_dead_letter_lasts_if_and_only_if_the_message_did(bench):
    bench.queue(durable=False, max_length=1, **DLX)
    bench.publish(b"kept")
    bench.publish(b"lost", persistent=False)
    bench.publish(b"3", persistent=False)
    assert [entry.message.persistent for entry in bench["dead"].ready] == [True, False]
    assert live(bench.engine.batch) == [b"kept"]


def test_what_waits_for_the_journal_stays_on_disk_and_is_not_handed_out(bench):
    bench.queue(message_ttl_ms=10, **DLX)
    bench.publish(b"1")
    bench.commit()
    bench.engine.refuse_durable("full")
    bench.engine.advance(T + 5000)
    _, sink = bench.consume()
    assert sink.deliveries == []
    assert bench.engine.batch.settled == []
    assert bench["dead"].count == 0
    bench.engine.accept_durable()
    assert deaths(bench) == [(b"1", "q", "expired", 1)]
    assert len(bench.engine.batch.settled) == 1
    assert bench.events.drops == []


def test_a_rejection_waits_for_the_journal_too(bench):
    bench.queue(**DLX)
    bench.publish(b"1")
    bench.commit()
    _, sink = bench.consume(prefetch=1)
    bench.engine.refuse_durable("full")
    bench.engine.nack(sink.deliveries[0], requeue=False)
    assert bench.engine.batch.settled == []
    bench.publish(b"t", persistent=False)
    bench.engine.nack(sink.deliveries[1], requeue=False)
    assert deaths(bench) == [(b"t", "q", "rejected", 1)], "what need not last does not wait"
    bench.engine.accept_durable()
    assert [body for body, *_ in deaths(bench)] == [b"t", b"1"]


def test_a_deletion_does_not_take_along_what_was_given_up_before(bench):
    bench.queue(**DLX)
    bench.publish(b"1")
    bench.publish(b"2")
    bench.commit()
    _, sink = bench.consume(prefetch=2)
    bench.engine.refuse_durable("full")
    bench.engine.nack(sink.deliveries[0], requeue=False)
    bench.engine.accept_durable()
    bench.engine.refuse_durable("full")
    bench.engine.nack(sink.deliveries[1], requeue=False)
    bench.engine.definitions.remove_queue(bench["q"])
    bench.engine.accept_durable()
    assert [body for body, *_ in deaths(bench)] == [b"1", b"2"]
    assert bench.engine.burial.limbo == []


# -- refused commits --------------------------------------------------------


def test_what_was_refused_and_never_handed_out_is_taken_out_again(bench):
    bench.queue()
    bench.publish(b"on disk")
    bench.commit()
    bench.publish(b"under way")
    bench.hand_over()
    bench.publish(b"in the open batch")
    bench.publish(b"transient", persistent=False)
    assert len(bench.engine.withdraw(lambda entry: entry.segment == 1)) == 2
    assert bench.bodies() == [b"on disk", b"transient"]
    assert [entry.message.body for entry in bench.engine.batch.settled] == [b"under way"]
    assert bench.engine.batch.unsettled == 0
    assert bench["q"].count == 2
    assert bench["q"].window_bytes == 2 * 400 + len(b"on disktransient")


def test_what_was_handed_out_stays_and_can_be_acknowledged(bench):
    bench.queue()
    _, sink = bench.consume(prefetch=1)
    bench.publish(b"1")
    bench.publish(b"2")
    bench.hand_over()
    assert len(bench.engine.withdraw(lambda entry: False)) == 1
    bench.engine.ack(sink.deliveries[0])
    assert len(sink.deliveries) == 1
    assert bench["q"].count == 0


def test_what_lies_beyond_the_window_is_taken_out_too(bench):
    bench.engine.window_budget = 1000
    bench.queue()
    for number in range(10):
        bench.publish(b"%04d" % number)
    bench.commit()
    for number in range(10, 20):
        bench.publish(b"%04d" % number)
    bench.hand_over()
    for number in range(20, 30):
        bench.publish(b"%04d" % number)
    assert len(bench.engine.withdraw(lambda entry: entry.segment == 1)) == 20
    assert bench["q"].count == bench["q"].ready_count == 10
    bench.engine.committed()
    _, sink = bench.consume()
    while bench.feed_pages():
        pass
    assert [int(body) for body in sink.bodies] == list(range(10))


def test_a_dead_letter_is_not_taken_out_as_its_source_goes_in_the_same_batch(bench):
    bench.queue(message_ttl_ms=10, **DLX)
    bench.publish(b"1")
    bench.commit()
    bench.engine.advance(T + 10)
    bench.hand_over()
    assert len(bench.engine.withdraw(lambda entry: False)) == 0
    assert bench["dead"].count == 1
    bench.engine.committed()
    assert not bench.engine.ours


def test_withdrawing_reaches_every_priority(bench):
    bench.queue(max_priority=2)
    for priority in (0, 1, 2):
        bench.publish(b"x", priority=priority)
    bench.hand_over()
    assert len(bench.engine.withdraw(lambda entry: False)) == 3
    assert bench["q"].count == 0


def test_an_overloaded_engine_says_so(bench):
    bench.engine.refuse_durable("full")
    assert isinstance(bench.publish(b"1", "dead"), Overloaded)


def test_what_came_with_further_keys_is_dead_lettered_with_them_unless_the_queue_has_a_key_of_its_own(bench):
    bench.queue("other")
    bench.queue("own", dead_letter_exchange="amq.direct", message_ttl_ms=10)
    bench.queue("fixed", dead_letter_exchange="amq.direct", dead_letter_routing_key="dead", message_ttl_ms=10)
    for key in ("dead", "other"):
        bench.bind("amq.direct", key, key)
    letter = with_properties(Address("/", "", "own"), b"1", Properties(headers={"CC": ["other", "other", 5]}))
    for queue in ("own", "fixed"):
        route = bench.engine.vhost("/").route("", queue)
        assert bench.engine.publish(route, letter) is None
    bench.engine.advance(T + 10)
    assert [bench.bodies(name) for name in ("dead", "other")] == [[b"1"], [b"1"]]
