from __future__ import annotations

import pytest

from gateway.engine.engine import UNROUTABLE
from gateway.errors import AccessRefused, MessageRefused, NotFound
from gateway.model.declare import ExchangeSpec, Overflow
from tests.engine.support import Bench


@pytest.fixture
def bench():
    return Bench()


def test_a_message_to_the_default_exchange_reaches_the_queue_named_by_its_key(bench):
    bench.queue("jobs")
    assert bench.publish(b"1", "jobs") is None
    _, sink = bench.consume("jobs")
    assert sink.bodies == [b"1"]


def test_a_message_that_reaches_no_queue_is_told_and_joins_no_batch(bench):
    assert bench.publish(b"1", "nobody") is UNROUTABLE
    assert [a.routing_key for a in bench.events.nowhere] == ["nobody"]
    assert not bench.engine.batch


def test_a_message_to_a_missing_exchange_is_refused(bench):
    assert isinstance(bench.publish(b"1", "k", "missing"), NotFound)


def test_a_message_to_an_internal_exchange_is_refused(bench):
    bench.engine.definitions.declare_exchange("/", ExchangeSpec("inner", "fanout", internal=True))
    assert isinstance(bench.publish(b"1", "k", "inner"), AccessRefused)


def test_a_message_reaches_a_queue_once_however_many_bindings_match(bench):
    bench.queue("q")
    bench.bind("amq.topic", "q", "a.#")
    bench.bind("amq.topic", "q", "*.b")
    bench.publish(b"1", "a.b", "amq.topic")
    _, sink = bench.consume("q")
    assert sink.bodies == [b"1"]


def test_overlapping_bindings_give_the_highest_qos(bench):
    bench.queue("q", keep_transient=False)
    _, sink = bench.consume("q", prefetch=10)
    bench.bind("amq.topic", "q", "a.#", qos=0)
    bench.bind("amq.topic", "q", "*.b", qos=1)
    bench.publish(b"1", "a.b", "amq.topic")
    assert sink.bodies == [b"1"]
    assert sink.deliveries[0].options.qos == 1


def test_a_new_binding_reaches_a_route_that_was_used_before(bench):
    bench.queue("q")
    assert bench.publish(b"1", "a", "amq.topic") is UNROUTABLE
    bench.bind("amq.topic", "q", "a")
    assert bench.publish(b"2", "a", "amq.topic") is None


def test_a_full_queue_refuses_and_no_other_queue_keeps_the_message(bench):
    bench.queue("full", max_length=1, overflow=Overflow.REJECT_PUBLISH)
    bench.queue("free")
    for name in ("full", "free"):
        bench.bind("amq.fanout", name, "")
    assert bench.publish(b"1", "", "amq.fanout") is None
    assert isinstance(bench.publish(b"2", "", "amq.fanout"), MessageRefused)
    _, sink = bench.consume("free")
    assert sink.bodies == [b"1"]


def test_a_full_queue_counts_what_is_delivered_and_not_settled(bench):
    bench.queue("full", max_length=1, overflow=Overflow.REJECT_PUBLISH)
    _, sink = bench.consume("full")
    assert bench.publish(b"1", "full") is None
    assert isinstance(bench.publish(b"2", "full"), MessageRefused)
    bench.engine.ack(sink.deliveries[0])
    assert bench.publish(b"3", "full") is None


def test_a_byte_limit_refuses_what_does_not_fit(bench):
    bench.queue("full", max_length_bytes=10, overflow=Overflow.REJECT_PUBLISH)
    assert bench.publish(b"x" * 8, "full") is None
    assert isinstance(bench.publish(b"x" * 3, "full"), MessageRefused)
    assert bench.publish(b"x" * 2, "full") is None


def test_a_full_queue_that_ends_is_deleted_and_the_others_get_the_message(bench):
    bench.queue("slow", max_length=1, overflow=Overflow.END_QUEUE)
    bench.queue("free")
    for name in ("slow", "free"):
        bench.bind("amq.fanout", name, "")
    _, slow = bench.consume("slow", prefetch=1)
    assert bench.publish(b"1", "", "amq.fanout") is None
    assert bench.publish(b"2", "", "amq.fanout") is None
    assert [type(reason) for reason in slow.cancellations] == [MessageRefused]
    assert "slow" not in bench.engine.vhost("/").queues
    assert bench.events.drops == [("slow", "queue ended", 1)]
    _, free = bench.consume("free")
    assert free.bodies == [b"1", b"2"]


def test_a_queue_does_not_end_for_a_message_that_another_refuses(bench):
    bench.queue("slow", max_length=1, overflow=Overflow.END_QUEUE)
    bench.queue("full", max_length=1, overflow=Overflow.REJECT_PUBLISH)
    for name in ("slow", "full"):
        bench.bind("amq.fanout", name, "")
    assert bench.publish(b"1", "", "amq.fanout") is None
    assert isinstance(bench.publish(b"2", "", "amq.fanout"), MessageRefused)
    assert "slow" in bench.engine.vhost("/").queues


def test_drop_head_drops_the_oldest_and_counts_it(bench):
    bench.queue("q", max_length=2)
    for body in (b"1", b"2", b"3"):
        assert bench.publish(body) is None
    _, sink = bench.consume()
    assert sink.bodies == [b"2", b"3"]
    assert bench.events.drops == [("q", "maxlen", 1)]


def test_a_message_too_large_for_a_dropping_queue_leaves_nothing_behind(bench):
    bench.queue("q", max_length_bytes=2)
    assert bench.publish(b"xxx") is None
    assert bench.engine.batch.unsettled == 0
    assert bench.engine.vhost("/").queues["q"].count == 0


def test_what_needs_no_acknowledgement_goes_past_a_queue_that_keeps_none(bench):
    bench.queue("q", keep_transient=False)
    bench.bind("amq.topic", "q", "#")
    bench.publish(b"early", "a", "amq.topic", persistent=False)
    _, sink = bench.consume("q", prefetch=1)
    bench.publish(b"1", "a", "amq.topic", persistent=False)
    bench.publish(b"2", "a", "amq.topic", persistent=False)
    assert [m.body for m in sink.transient] == [b"1", b"2"]
    assert bench.events.drops == [("a", "offline", 1)]
    assert not bench.engine.batch.messages


def test_a_persistent_message_on_a_qos_0_binding_is_handed_over_and_not_journaled(bench):
    bench.queue("q", keep_transient=False)
    bench.bind("amq.topic", "q", "#", qos=0)
    _, sink = bench.consume("q", prefetch=1)
    bench.publish(b"1", "a", "amq.topic")
    assert [m.body for m in sink.transient] == [b"1"]
    assert not bench.engine.batch.messages


def test_refusing_durable_messages_leaves_transient_ones_alone(bench):
    bench.queue("q")
    bench.engine.refuse_durable("disk full")
    refused = bench.publish(b"1")
    assert isinstance(refused, Exception)
    assert "disk full" in str(refused)
    assert bench.publish(b"2", persistent=False) is None
    bench.engine.accept_durable()
    assert bench.publish(b"3") is None
    _, sink = bench.consume()
    assert sink.bodies == [b"2", b"3"]


def test_retained_values_are_kept_per_key_and_cleared_by_an_empty_body(bench):
    for key, body in (("a.b", b"1"), ("a.c", b"2"), ("a.b", b"3")):
        route = bench.engine.vhost("/").route("amq.topic", key)
        bench.engine.kept.retain(route, _message(route, body))
    assert sorted(m.body for m in bench.engine.kept.retained("/", "amq.topic", "a.*")) == [b"2", b"3"]
    bench.engine.kept.retain(route, _message(route, b""))
    assert [m.body for m in bench.engine.kept.retained("/", "amq.topic", "#")] == [b"2"]


def _message(route, body):
    from gateway.model.message import Message

    return Message(route.address, body, True)
