"""What front-ends ask of a channel reaches the engine, with permission only."""

from __future__ import annotations

import pytest
import trio

from gateway.api.consumer import ConsumeOptions
from gateway.api.frontend import Principal
from gateway.errors import AccessRefused, GatewayError, JournalError, MessageTooLarge, NotFound, PreconditionFailed
from gateway.model.declare import ExchangeSpec, QueueSpec
from gateway.model.message import Message
from gateway.runtime.clock import VirtualClock
from tests.engine.support import Sink
from tests.runtime.support import HandJournal, Log, Outcomes, running, turns


def open_channel(broker, sink=None, principal=None):
    return broker.gateway("test", lambda _: None, Log()).open_channel(principal or Principal("u"), sink)


async def ready(broker, sink=None):
    channel = open_channel(broker, sink)
    channel.declare_queue(QueueSpec("q"))
    await turns()
    return channel


def message_on(route, body=b"m", *, persistent=True):
    return Message(route.address, body, persistent)


async def test_a_scheduled_message_is_listed_and_comes_when_it_is_due(autojump_clock):
    async with running(HandJournal(automatic=True), clock=VirtualClock(0)) as broker:
        channel = await ready(broker)
        route = channel.route("", "q")
        number = (await channel.outcome(channel.schedule(route, message_on(route), 30_000))).result
        (listed,) = channel.scheduled()
        assert (listed.scheduled_id, listed.due_ms, listed.routing_key, listed.body_bytes) == (number, 30_000, "q", 1)
        await trio.sleep(29)
        assert channel.queue_info("q").messages == 0
        await trio.sleep(1.1)
        assert channel.queue_info("q").messages == 1
        assert channel.scheduled() == []


async def test_a_scheduled_message_that_was_cancelled_does_not_come(autojump_clock):
    async with running(HandJournal(automatic=True), clock=VirtualClock(0)) as broker:
        channel = await ready(broker)
        route = channel.route("", "q")
        number = (await channel.outcome(channel.schedule(route, message_on(route), 30_000))).result
        await channel.outcome(channel.cancel_scheduled(number))
        with pytest.raises(NotFound):
            await channel.outcome(channel.cancel_scheduled(number))
        await trio.sleep(60)
        assert channel.queue_info("q").messages == 0


async def test_an_address_that_is_none_is_the_outcome_of_its_number(autojump_clock):
    async with running(HandJournal(automatic=True)) as broker:
        outcomes = Outcomes()
        channel = await ready(broker, outcomes)
        channel.declare_exchange(ExchangeSpec("hidden", "fanout", internal=True))
        numbers = []
        for exchange in ("missing", "hidden"):
            route = channel.route(exchange, "k")
            numbers.append(channel.schedule(route, message_on(route), 1 << 50))
        await turns()
        assert [type(outcomes.exceptions[number].error) for number in numbers] == [NotFound, AccessRefused]


async def test_who_may_not_write_neither_schedules_nor_sees_nor_cancels(autojump_clock):
    reader = Principal("reader", authorize=lambda action, resource, key: action == "read" or resource == "amq.topic")
    async with running(HandJournal(automatic=True)) as broker:
        channel, restricted = await ready(broker), open_channel(broker, principal=reader)
        route = channel.route("", "q")
        number = (await channel.outcome(channel.schedule(route, message_on(route), 1 << 50))).result
        with pytest.raises(AccessRefused):
            await restricted.outcome(restricted.schedule(route, message_on(route), 1 << 50))
        assert restricted.scheduled() == []
        with pytest.raises(NotFound):
            await restricted.outcome(restricted.cancel_scheduled(number))
        own = restricted.route("amq.topic", "k")
        mine = (await restricted.outcome(restricted.schedule(own, message_on(own), 1 << 50))).result
        assert [item.scheduled_id for item in restricted.scheduled()] == [mine]
        await restricted.outcome(restricted.cancel_scheduled(mine))
        assert [item.scheduled_id for item in channel.scheduled()] == [number]


async def test_the_list_comes_in_parts_of_what_one_may_see(autojump_clock):
    reader = Principal("reader", authorize=lambda action, resource, key: key != "q")
    async with running(HandJournal(automatic=True)) as broker:
        channel, restricted = await ready(broker), open_channel(broker, principal=reader)
        for number in range(9):
            route = channel.route("amq.topic", "q" if number % 3 == 0 else "k")
            channel.schedule(route, message_on(route), (1 << 50) + number)
        first = restricted.scheduled(limit=4)
        assert [item.due_ms - (1 << 50) for item in first] == [1, 2, 4, 5]
        assert [item.due_ms - (1 << 50) for item in restricted.scheduled(limit=4, after=first[-1])] == [7, 8]
        assert restricted.scheduled(limit=0) == []


class ForgetfulJournal(HandJournal):
    """Fails to read scheduled messages at first."""

    failures = 2

    def read_scheduled(self, ids, done):
        if self.failures:
            self.failures -= 1

            def fail():
                raise JournalError("no luck")

            done(fail)
        else:
            super().read_scheduled(ids, done)


async def test_scheduled_messages_that_cannot_be_read_at_once_are_read_again(autojump_clock):
    journal = ForgetfulJournal(automatic=True)
    async with running(journal, clock=VirtualClock(0)) as broker:
        channel = await ready(broker)
        route = channel.route("", "q")
        message = message_on(route)
        number = (await channel.outcome(channel.schedule(route, message, 3_600_000))).result
        journal.scheduled[number] = message
        await trio.sleep(3_600)
        await trio.sleep(0.8)
        assert channel.queue_info("q").messages == 0
        await trio.sleep(1)
        assert channel.queue_info("q").messages == 1
        assert [event for kind, event, _ in broker.log.lines if kind == "error"] == ["scheduled messages can't be read"] * 2


async def test_what_a_channel_does_not_hold_is_neither_given_back_nor_extended(autojump_clock):
    async with running(HandJournal(automatic=True)) as broker:
        channel, other, sink = await ready(broker), open_channel(broker), Sink()
        channel.consume("q", sink, ConsumeOptions(prefetch=1))
        await channel.send("", "q", b"1")
        (delivery,) = sink.deliveries
        channel.extend(delivery, 1_000)
        with pytest.raises(NotFound):
            other.extend(delivery, 1_000)
        with pytest.raises(NotFound):
            other.nack(delivery, requeue=True, delay_ms=5)
        channel.ack(delivery)
        with pytest.raises(NotFound):
            channel.extend(delivery, 1_000)


async def test_many_deliveries_are_settled_in_one_call_and_those_of_another_channel_are_not(autojump_clock):
    journal = HandJournal(automatic=True)
    async with running(journal) as broker:
        mine, other = open_channel(broker), open_channel(broker)
        await mine.outcome(mine.declare_queue(QueueSpec("q")))
        sinks = Sink(), Sink()
        for channel, sink in zip((mine, other), sinks, strict=True):
            channel.consume("q", sink, ConsumeOptions())
        route = mine.route("", "q")
        for number in range(6):
            mine.publish(route, Message(route.address, b"%d" % number, True))
        with pytest.raises(NotFound):
            mine.ack_many([*sinks[0].deliveries, sinks[1].deliveries[0]])
        queue = broker.engine.vhost("/").queues["q"]
        assert queue.count == len(sinks[1].deliveries) == 3
        other.ack_many(sinks[1].deliveries)
        assert queue.count == 0


async def test_one_publish_reaches_the_queues_of_several_keys(autojump_clock):
    async with running(HandJournal(automatic=True)) as broker:
        channel = open_channel(broker)
        for name in "abc":
            await channel.outcome(channel.declare_queue(QueueSpec(name)))
        route = channel.route("", "a", also=("b", "b", "a", "none"))
        outcome = await channel.outcome(channel.publish(route, message_on(route)))
        assert not outcome.unroutable
        assert [channel.queue_info(name).messages for name in "abc"] == [1, 1, 0]


async def test_every_one_of_several_keys_has_to_be_permitted_and_there_are_not_too_many(autojump_clock):
    async with running(HandJournal(automatic=True)) as broker:
        some = Principal("u", authorize=lambda action, resource, key: key != "secret")
        channel = open_channel(broker, principal=some)
        with pytest.raises(AccessRefused):
            channel.route("amq.topic", "a", also=("secret",))
        with pytest.raises(AccessRefused, match="at most 1000 keys"):
            channel.route("amq.topic", "a", also=tuple(map(str, range(1_000))))
        with pytest.raises(AccessRefused, match="256 words"):
            channel.route("amq.topic", "a", also=("." * 256,))


async def test_the_name_that_is_chosen_for_a_queue_begins_as_asked_for_and_is_new(autojump_clock):
    async with running(HandJournal(automatic=True)) as broker:
        channel = open_channel(broker)
        chosen = (await channel.outcome(channel.declare_queue(QueueSpec(), prefix="mine-"))).result.name
        head, number = chosen.rsplit("-", 1)
        assert head.startswith("mine-")
        taken = f"{head}-{int(number) + 1}"
        await channel.outcome(channel.declare_queue(QueueSpec(taken)))
        another = (await channel.outcome(channel.declare_queue(QueueSpec(), prefix="mine-"))).result.name
        assert another not in (chosen, taken)
        assert (await channel.outcome(channel.declare_queue(QueueSpec()))).result.name.startswith("amq.gen-")
        with pytest.raises(PreconditionFailed):
            await channel.outcome(channel.declare_queue(QueueSpec(), prefix="x" * 255))


async def test_refusals_say_what_clients_of_amqp_brokers_read(autojump_clock):
    locked = (
        "cannot obtain exclusive access to locked queue 'q' in vhost '/'. It could be originally declared on another connection "
        "or the exclusive property value does not match that of the original declaration."
    )
    async with running(HandJournal(automatic=True)) as broker:
        channel, other = open_channel(broker), open_channel(broker)

        async def refusal(number, asked=channel):
            with pytest.raises(GatewayError) as error:
                await asked.outcome(number)
            return error.value.code, error.value.text

        await channel.outcome(channel.declare_queue(QueueSpec("q", exclusive=True)))
        assert await refusal(other.purge_queue("q"), other) == (405, locked)
        assert await refusal(channel.declare_queue(QueueSpec("q"))) == (405, locked)
        assert await refusal(channel.purge_queue('it\'s "q"')) == (404, "no queue 'it's \"q\"' in vhost '/'")
        assert await refusal(channel.declare_exchange(ExchangeSpec("x", "odd"))) == (503, "unknown exchange type 'odd'")
        assert await refusal(channel.declare_queue(QueueSpec("amq.mine"))) == (
            403,
            "queue name 'amq.mine' contains reserved prefix 'amq.*'",
        )


async def test_what_is_answered_at_once_is_known_at_once(autojump_clock):
    async with running(HandJournal(automatic=True)) as broker:
        channel = open_channel(broker)
        number = channel.declare_queue(QueueSpec())
        name = channel.result(number).name
        consuming = channel.consume(name, Sink(), ConsumeOptions())
        assert channel.result(number) is None
        assert channel.result(consuming).queue.name == name
        failing = channel.purge_queue("none")
        assert channel.result(failing) is None
        assert channel.refused(failing).code == 404
        assert (await channel.outcome(number)).result.name == name


async def test_why_a_route_refuses_is_known_before_anything_is_published(autojump_clock):
    async with running(HandJournal(automatic=True)) as broker:
        channel = open_channel(broker)
        route = channel.route("inside", "k")
        assert channel.refusal(route).text == "no exchange 'inside' in vhost '/'"
        await channel.outcome(channel.declare_exchange(ExchangeSpec("inside", internal=True)))
        assert isinstance(channel.refusal(route), AccessRefused)
        assert channel.refusal(channel.route("amq.topic", "nowhere")) is None


async def test_a_message_that_is_too_large_is_told_from_a_full_queue(autojump_clock):
    async with running(HandJournal(automatic=True), max_message_bytes=1_024) as broker:
        channel = await ready(broker)
        route = channel.route("", "q")
        with pytest.raises(MessageTooLarge):
            await channel.outcome(channel.publish(route, message_on(route, b"x" * 1_025)))
        assert broker.counters["refused.too large"] == 1


async def test_many_deliveries_are_given_back_in_one_call_and_those_of_another_channel_are_not(autojump_clock):
    async with running(HandJournal(automatic=True)) as broker:
        channel = await ready(broker)
        other, sink = open_channel(broker), Sink()
        consumer = (await channel.outcome(channel.consume("q", sink, ConsumeOptions(prefetch=3)))).result
        route = channel.route("", "q")
        for body in (b"1", b"2", b"3"):
            channel.publish(route, message_on(route, body))
        consumer.pause()
        with pytest.raises(NotFound):
            other.nack_many(sink.deliveries, requeue=True)
        assert channel.queue_info("q").messages == 0
        channel.nack_many(sink.deliveries, requeue=True)
        assert channel.queue_info("q").messages == 3
