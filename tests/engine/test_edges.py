"""What happens at the engine's edges: a queue that drops at once, a reader that waits, a sink that fails?"""

from __future__ import annotations

import pytest

from gateway.api.consumer import ConsumeOptions
from gateway.api.frontend import Principal
from gateway.engine.engine import LATER
from gateway.engine.queues.consumer import Consumer
from gateway.errors import MessageRefused, NotFound, PreconditionFailed
from gateway.model.declare import Binding, ExchangeSpec, Overflow, QueueSpec
from gateway.model.message import COMMON, Message, with_properties
from gateway.model.properties import Properties, decode_properties, encode_properties
from gateway.model.records import DeliveryCounted, Page, PagedReference
from gateway.routing.table import PREDECLARED
from tests.engine.support import Bench, Sink
from tests.runtime.support import HandJournal, Log, Outcomes, running


@pytest.fixture
def bench():
    return Bench()


def unwritten(bench):
    """Return how many messages of the open batch a journal would have to write."""
    return sum(message.live > 0 for message in bench.engine.batch.messages)


def test_message_that_one_queue_drops_at_once_and_another_keeps_is_to_be_written(bench):
    bench.queue("short", max_length=1)
    bench.queue("long")
    for name in ("short", "long"):
        bench.bind("amq.fanout", name, "")
    bench.consume("short", prefetch=1)
    bench.publish(b"held", "short")
    bench.commit()
    bench.publish(b"m", "", "amq.fanout")
    assert unwritten(bench) == 1
    assert bench.engine.batch.unsettled == 1


def test_message_that_was_dropped_at_once_and_then_acked_leaves_the_count_at_zero(bench):
    bench.queue("short", max_length=1)
    bench.queue("long")
    for name in ("short", "long"):
        bench.bind("amq.fanout", name, "")
    bench.consume("short", prefetch=1)
    bench.publish(b"held", "short")
    bench.commit()
    _, sink = bench.consume("long", prefetch=5)
    bench.publish(b"m", "", "amq.fanout")
    bench.engine.ack(sink.deliveries[0])
    assert unwritten(bench) == 0
    assert bench.engine.batch.unsettled == 0


def waiting_getter(bench):
    """Have a `get` wait for a page of the queue q."""
    bench.engine.window_budget = 900
    bench.queue()
    for number in range(20):
        bench.publish(b"%d" % number)
    bench.commit()
    channel, held = object(), set()
    bench.engine.holdings[channel] = held
    queue = bench.engine.definitions.usable_queue("/", "q", None)
    getter = Consumer(queue, None, ConsumeOptions(), held, None)
    number = 0
    while bench.engine.get(queue, getter, channel, number) is not LATER:
        number += 1
    return channel, number


def test_get_that_waits_for_a_page_is_answered_when_the_queue_is_purged(bench):
    channel, number = waiting_getter(bench)
    bench.engine.definitions.purge_queue("/", "q", None)
    bench.feed_pages()
    assert bench.events.answers == [(channel, number, None)]


def test_get_that_waits_for_a_page_is_answered_when_the_queue_is_deleted(bench):
    channel, number = waiting_getter(bench)
    bench.engine.definitions.delete_queue("/", "q", None)
    bench.feed_pages()
    assert bench.events.answers == [(channel, number, None)]


def test_a_queue_that_refuses_is_asked_for_messages_granted_qos_0_too(bench):
    bench.queue("full", max_length=1, overflow=Overflow.REJECT_PUBLISH)
    bench.bind("amq.topic", "full", "k", qos=0)
    assert bench.publish(b"1", "k", "amq.topic") is None
    assert isinstance(bench.publish(b"2", "k", "amq.topic"), MessageRefused)
    assert bench.engine.vhost("/").queues["full"].count == 1


class Failing(Sink):
    def deliver(self, delivery):
        raise RuntimeError("broken front-end")

    def deliver_transient(self, message, options):
        raise RuntimeError("broken front-end")


def test_sink_that_fails_is_told_that_its_consumer_is_gone(bench):
    bench.queue()
    _, sink = bench.consume(sink=Failing())
    bench.publish(b"1")
    assert len(sink.cancellations) == 1


def test_auto_delete_queue_goes_with_its_last_consumer_when_that_failed(bench):
    bench.queue(auto_delete=True)
    bench.consume(sink=Failing())
    bench.publish(b"1")
    assert "q" not in bench.engine.vhost("/").queues


def test_sink_that_fails_with_a_transient_message_does_not_reach_the_publisher(bench):
    bench.queue(keep_transient=False)
    bench.consume(sink=Failing())
    assert bench.publish(b"1", persistent=False) is None
    assert [name for name, _ in bench.events.failures] == ["q"]


def test_sink_that_failed_is_handed_no_transient_message_any_more(bench):
    bench.queue(keep_transient=False)
    _, sink = bench.consume(sink=Failing())
    bench.publish(b"0", persistent=False, exchange="amq.topic", key="warm the cached route")
    bench.bind("amq.topic", "q", "k")
    calls = []
    sink.deliver_transient = lambda message, options: calls.append(message.body)
    bench.publish(b"transient", "k", "amq.topic", persistent=False)
    bench.publish(b"fails", "k", "amq.topic")
    bench.publish(b"transient", "k", "amq.topic", persistent=False)
    assert calls == [b"transient"]


def test_properties_come_back_as_they_were_written():
    properties = Properties(headers={"a": 1}, correlation_id="c", priority=3)
    assert decode_properties(encode_properties(properties)) == properties


def test_headers_exchange_routes_by_the_headers_of_a_message(bench):
    bench.queue()
    bench.engine.definitions.bind("/", Binding("amq.headers", "q", arguments={"a": 1}), None)
    route = bench.engine.vhost("/").route("amq.headers", "")
    for value in (1, 2):
        bench.engine.publish(route, with_properties(route.address, b"%d" % value, Properties(headers={"a": value})))
    _, sink = bench.consume()
    assert sink.bodies == [b"1"]


def test_headers_that_can_not_be_decoded_refuse_the_message_and_spare_the_publisher(bench):
    bench.queue()
    bench.engine.definitions.bind("/", Binding("amq.headers", "q", arguments={"a": 1}), None)
    route = bench.engine.vhost("/").route("amq.headers", "")
    answer = bench.engine.publish(route, Message(route.address, b"1", True, COMMON, b"\xc1 no msgpack"))
    assert answer is not None
    assert bench.engine.vhost("/").queues["q"].count == 0


def test_auto_delete_exchange_goes_when_the_exchange_behind_its_last_binding_is_deleted(bench):
    definitions = bench.engine.definitions
    definitions.declare_exchange("/", ExchangeSpec("source", "fanout", auto_delete=True))
    definitions.declare_exchange("/", ExchangeSpec("behind", "fanout"))
    definitions.bind("/", Binding("source", "behind", to_exchange=True), None)
    definitions.delete_exchange("/", "behind")
    with pytest.raises(NotFound):
        definitions.declare_exchange("/", ExchangeSpec("source", "fanout"), passive=True)


async def test_channel_can_not_ack_what_another_channel_holds_now(autojump_clock):
    async with running(HandJournal(automatic=True)) as broker:
        gateway = broker.gateway("test", lambda line: None, Log())
        one, other = (gateway.open_channel(Principal("anonymous"), Outcomes()) for _ in range(2))
        one.declare_queue(QueueSpec("q"))
        sinks = [Sink(), Sink()]
        one.consume("q", sinks[0], ConsumeOptions(prefetch=1))
        route = one.route("", "q")
        one.publish(route, Message(route.address, b"1", True))
        (delivery,) = sinks[0].deliveries
        other.consume("q", sinks[1], ConsumeOptions(prefetch=1))
        one.nack(delivery, requeue=True)
        assert len(sinks[1].deliveries) == 1
        with pytest.raises(NotFound):
            one.ack(delivery)
        assert broker.engine.vhost("/").queues["q"].count == 1


def test_page_that_a_purge_has_overtaken_is_dropped(bench):
    bench.engine.window_budget = 900
    bench.queue()
    for number in range(10):
        bench.publish(b"old %d" % number)
    bench.commit()
    _, sink = bench.consume(prefetch=1)
    while not bench.events.pages:
        bench.engine.ack(sink.deliveries[-1])
    bench.engine.definitions.purge_queue("/", "q", None)
    for number in range(10):
        bench.publish(b"new %d" % number)
    asked, bench.events.pages = bench.events.pages, []
    old = [r for r in bench.disk[1] if r.message.body.startswith(b"old") and not r.settled]
    bench.commit()
    for queue_id, after, _ in asked:
        page = [PagedReference(r.message, r.position, r.options, r.segment, r.slot, 0) for r in old if r.position > after]
        bench.engine.page_loaded(Page(queue_id, page), after)
    while not sink.deliveries[-1].settled:
        bench.engine.ack(sink.deliveries[-1])
        bench.feed_pages()
    assert [body for body in sink.bodies if body.startswith(b"new")] == [b"new %d" % number for number in range(10)]
    assert bench.engine.vhost("/").queues["q"].ready_count == 0


def test_gets_that_wait_are_answered_in_order(bench):
    channel, number = waiting_getter(bench)
    queue = bench.engine.definitions.usable_queue("/", "q", None)
    getter = Consumer(queue, None, ConsumeOptions(), bench.engine.holdings[channel], None)
    waiting = 16
    for more in range(1, waiting + 4):
        assert bench.engine.get(queue, getter, channel, number + more) is LATER
    bench.feed_pages()
    assert [answer[1] for answer in bench.events.answers] == list(range(number, number + waiting + 4))
    bodies = [entry.message.body for _, _, entry in bench.events.answers if entry is not None]
    assert bodies == [b"%d" % body for body in range(20)][-len(bodies) :]


class FailingAtTheEnd(Sink):
    def cancelled(self, reason):
        raise RuntimeError("broken front-end")


def test_sink_that_fails_when_its_queue_goes_does_not_reach_who_deletes_it(bench):
    bench.queue()
    bench.consume(sink=FailingAtTheEnd())
    _, other = bench.consume()
    assert bench.engine.definitions.delete_queue("/", "q", None) == 0
    assert len(other.cancellations) == 1
    assert [name for name, _ in bench.events.failures] == ["q"]


def test_long_chain_of_auto_delete_exchanges_goes_with_its_end(bench):
    definitions = bench.engine.definitions
    for number in range(1000):
        definitions.declare_exchange("/", ExchangeSpec(f"x{number}", "fanout", auto_delete=True))
        if number:
            definitions.bind("/", Binding(f"x{number - 1}", f"x{number}", to_exchange=True), None)
    bench.queue()
    definitions.bind("/", Binding("x999", "q"), None)
    definitions.delete_queue("/", "q", None)
    assert len(list(bench.engine.vhost("/").table)) == len(PREDECLARED)


def test_name_that_is_no_text_is_refused(bench):
    with pytest.raises(PreconditionFailed):
        bench.queue("\ud800")


def test_delivery_count_outlives_a_purge_and_a_restart(bench):
    bench.queue()
    _, sink = bench.consume(prefetch=1)
    bench.publish(b"1")
    bench.commit()
    bench.engine.nack(sink.deliveries[0], requeue=True)
    bench.publish(b"2")
    bench.commit()
    bench.engine.definitions.purge_queue("/", "q", None)
    batch = bench.commit()
    counted = {record.reference.position: record.count for record in batch.records if isinstance(record, DeliveryCounted)}
    assert counted == {1: 1}
