"""One channel: opened, closed by either side, its answers in order."""

from __future__ import annotations

import gc
import tracemalloc

import pytest
from pamqp import commands, frame

from tests.amqp.rooms import refusing, unwritten
from tests.amqp.wire import amqp_broker, publishing
from tests.runtime.support import HandJournal

CLOSE = commands.Channel.Close(200, "bye", 0, 0)
OPEN = commands.Channel.Open()
QUEUE = commands.Queue.Declare(queue="q")
DURABLE = commands.Queue.Declare(queue="d", durable=True)
MISSING = commands.Queue.Declare(queue="none", passive=True)
ABSENT = "NOT_FOUND - no queue 'none' in vhost '/'"


def ack(tag: int, *, multiple: bool = False) -> commands.Basic.Ack:
    return commands.Basic.Ack(tag, multiple)


# -- closed by the client -----------------------------------------------------------


async def test_a_channel_is_closed_and_its_number_free():
    async with amqp_broker() as bench:
        client = await bench.client()
        for _ in range(3):
            assert isinstance(await client.call(1, CLOSE), commands.Channel.CloseOk)
            assert isinstance(await client.call(1, OPEN), commands.Channel.OpenOk)
        assert isinstance(await client.call(1, QUEUE), commands.Queue.DeclareOk)


async def test_what_was_submitted_before_a_close_is_told_before_its_answer():
    async with unwritten("d", first=commands.Confirm.Select()) as (_, journal, client):
        client.raw(publishing(1, "", "d", b"x", delivery_mode=2) + frame.marshal(CLOSE, 1))
        assert await client.silent()
        journal.finish()
        assert isinstance(await client.hear(1), commands.Basic.Ack)
        while journal.writes:
            journal.finish()
        assert isinstance(await client.hear(1), commands.Channel.CloseOk)


async def test_a_close_behind_a_publish_that_is_refused_hears_of_that_first():
    async with amqp_broker() as bench:
        client = await bench.client()
        client.raw(publishing(1, "none", "", b"x") + frame.marshal(CLOSE, 1))
        close = await client.hear(1)
        assert (close.reply_code, close.reply_text) == (404, "NOT_FOUND - no exchange 'none' in vhost '/'")
        assert isinstance(await client.hear(1), commands.Channel.CloseOk)
        client.say(1, commands.Channel.CloseOk())
        await client.open(1)


async def test_a_close_behind_a_method_that_is_refused_is_answered_behind_the_refusal():
    async with amqp_broker() as bench:
        client = await bench.client()
        client.say(1, MISSING, CLOSE)
        close = await client.hear(1)
        assert (close.reply_code, close.reply_text) == (404, ABSENT)
        assert isinstance(await client.hear(1), commands.Channel.CloseOk)
        await client.open(1)  # a client that takes that answer for the end of it


async def test_what_comes_behind_a_close_is_not_carried_out():
    async with unwritten("d") as (bench, journal, client):
        client.raw(publishing(1, "", "d", b"x", delivery_mode=2) + frame.marshal(CLOSE, 1) + frame.marshal(QUEUE, 1))
        client.raw(publishing(1, "", "d", b"y", delivery_mode=2))
        journal.automatic = True
        while journal.writes:
            journal.finish()
        assert isinstance(await client.hear(1), commands.Channel.CloseOk)
        assert bench.queue("q") is None
        assert journal.stored == [b"x"]


# -- closed for an error --------------------------------------------------------------


async def test_an_error_closes_the_channel_and_nothing_else():
    async with amqp_broker() as bench:
        client = await bench.client()
        await client.open(2)
        client.say(1, MISSING)
        close = await client.hear(1)
        assert (close.reply_code, close.reply_text, close.class_id, close.method_id) == (404, ABSENT, 50, 10)
        assert isinstance(await client.call(2, QUEUE), commands.Queue.DeclareOk)
        assert bench.counted("amqp.channel_errors.not_found") == 1


async def test_everything_is_dropped_on_a_closed_channel_until_the_client_has_seen_it():
    async with amqp_broker() as bench:
        client = await bench.client()
        client.say(1, MISSING)
        assert isinstance(await client.hear(1), commands.Channel.Close)
        client.say(1, QUEUE, ack(77), commands.Basic.Nack(5), commands.Channel.Flow(True), OPEN)
        client.raw(publishing(1, "", "q", b"x" * 300_000))
        client.raw(publishing(1, "none", "q", b"", mandatory=True))
        assert await client.silent()
        assert bench.queue("q") is None
        client.say(1, commands.Channel.CloseOk())
        await client.open(1)
        assert isinstance(await client.call(1, QUEUE), commands.Queue.DeclareOk)


async def test_closes_that_cross_are_both_answered():
    async with amqp_broker() as bench:
        client = await bench.client()
        client.say(1, MISSING)
        assert isinstance(await client.hear(1), commands.Channel.Close)
        assert isinstance(await client.call(1, CLOSE), commands.Channel.CloseOk)
        client.say(1, commands.Channel.CloseOk())
        await client.open(1)


async def test_a_late_answer_to_a_close_is_no_offence_on_the_channel_that_follows():
    async with amqp_broker() as bench:
        client = await bench.client()
        client.say(1, MISSING)
        assert isinstance(await client.hear(1), commands.Channel.Close)
        assert isinstance(await client.call(1, CLOSE), commands.Channel.CloseOk)
        await client.open(1)
        client.say(1, commands.Channel.CloseOk())
        assert isinstance(await client.call(1, QUEUE), commands.Queue.DeclareOk)


async def test_methods_behind_one_that_is_refused_are_not_carried_out():
    async with amqp_broker() as bench:
        client = await bench.client()
        client.say(1, MISSING, QUEUE)
        client.raw(publishing(1, "", "none", b"x"))
        assert await client.refused(1) == (404, ABSENT)
        assert bench.queue("q") is None


async def test_an_error_waits_for_what_was_submitted_before_it():
    async with unwritten("d", first=commands.Confirm.Select()) as (bench, journal, client):
        client.raw(publishing(1, "", "d", b"x", delivery_mode=2) + frame.marshal(ack(99), 1) + frame.marshal(QUEUE, 1))
        assert await client.silent()
        journal.automatic = True
        journal.finish()
        assert isinstance(await client.hear(1), commands.Basic.Ack)
        assert await client.refused(1) == (406, "PRECONDITION_FAILED - unknown delivery tag 99")
        assert bench.queue("q") is None


async def test_what_is_unsettled_on_a_channel_goes_back_when_it_is_closed():
    async with amqp_broker() as bench:
        client = await bench.client()
        await client.call(1, QUEUE)
        client.publish(1, "", "q", b"x")
        assert (await client.call(1, commands.Basic.Get(queue="q"))).body == b"x"
        client.say(1, MISSING)
        await client.refused(1)
        await client.open(2)
        again = await client.call(2, commands.Basic.Get(queue="q"))
        assert again.method.redelivered


async def test_a_refusal_that_is_one_for_the_connection_ends_that():
    async with amqp_broker() as bench:
        client = await bench.client()
        client.say(1, commands.Exchange.Declare(exchange="e", exchange_type="direct"))
        await client.hear(1)
        client.say(1, commands.Exchange.Declare(exchange="f", exchange_type="no-such-type"))
        assert (await client.thrown_out())[0] == 503


async def test_a_message_that_is_too_large_closes_its_channel():
    async with amqp_broker(max_message_bytes=1_024) as bench:
        client = await bench.client()
        await client.call(1, QUEUE)
        client.publish(1, "", "q", b"x" * 1_024)
        client.publish(1, "", "q", b"x" * 1_025)
        text = "PRECONDITION_FAILED - message size 1025 is larger than configured max size 1024"
        assert await client.refused(1) == (406, text)
        await client.open(1)
        assert (await client.call(1, QUEUE)).message_count == 1


# -- answers ---------------------------------------------------------------------------


async def test_answers_come_in_the_order_of_the_methods():
    async with amqp_broker() as bench:
        client = await bench.client()
        client.say(
            1, QUEUE, commands.Basic.Qos(prefetch_count=1), DURABLE, commands.Channel.Flow(True), commands.Queue.Purge(queue="q"),
            commands.Confirm.Select(), commands.Queue.Delete(queue="d"),
        )  # fmt: skip
        heard = [type(await client.hear(1)) for _ in range(7)]
    assert heard == [
        commands.Queue.DeclareOk, commands.Basic.QosOk, commands.Queue.DeclareOk, commands.Channel.FlowOk, commands.Queue.PurgeOk,
        commands.Confirm.SelectOk, commands.Queue.DeleteOk,
    ]  # fmt: skip


async def test_nothing_is_answered_before_it_is_on_disk():
    journal = HandJournal()
    async with amqp_broker(journal) as bench:
        client = await bench.client()
        client.say(1, DURABLE, commands.Basic.Qos(prefetch_count=1))
        assert await client.silent()
        journal.finish()
        assert isinstance(await client.hear(1), commands.Queue.DeclareOk)
        assert isinstance(await client.hear(1), commands.Basic.QosOk)


async def refused_for_the_disk(client):
    """Hear that the channel is closed for a failing journal."""
    code, text = await client.refused(1)
    assert code == 506
    assert "no space left" in text


async def test_a_declaration_that_the_journal_refuses_closes_the_channel(autojump_clock):
    async with unwritten() as (bench, journal, client):
        client.say(1, DURABLE)
        await refusing(bench, journal)
        await refused_for_the_disk(client)


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(frame.marshal(DURABLE, 1), id="a declaration"),
        pytest.param(publishing(1, "", "q", b"x", delivery_mode=2), id="a publish"),
    ],
)
async def test_who_closes_a_channel_is_told_first_that_what_came_before_is_refused(asked, autojump_clock):
    async with unwritten() as (bench, journal, client):
        client.say(1, asked, CLOSE)
        await refusing(bench, journal)
        await refused_for_the_disk(client)
        assert isinstance(await client.hear(1), commands.Channel.CloseOk)
        await client.open(1)


async def test_what_was_published_before_confirms_were_asked_for_is_not_refused_in_silence(autojump_clock):
    async with unwritten() as (bench, journal, client):
        client.publish(1, "", "q", b"x", delivery_mode=2)
        assert isinstance(await client.call(1, commands.Confirm.Select()), commands.Confirm.SelectOk)
        client.publish(1, "", "q", b"y", delivery_mode=2)
        await refusing(bench, journal)
        assert isinstance(await client.hear(1), commands.Basic.Nack)  # the one since
        assert (await client.refused(1))[0] == 506


async def test_flow_can_not_be_switched_off():
    async with amqp_broker() as bench:
        client = await bench.client()
        answer = await client.call(1, commands.Channel.Flow(True))
        assert answer.active
        client.say(1, commands.Channel.Flow(False))
        assert await client.thrown_out() == (540, "NOT_IMPLEMENTED - active=false")


@pytest.mark.parametrize("number", [1, 2, 2_047])
async def test_any_number_up_to_the_agreed_one_is_a_channel(number):
    async with amqp_broker() as bench:
        client = await bench.client(channel=number)
        assert isinstance(await client.call(number, QUEUE), commands.Queue.DeclareOk)


async def test_idle_channels_cost_little():
    async with amqp_broker() as bench:
        client = await bench.client(channel=0)
        for number in range(1, 101):
            await client.open(number)
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            client.say(0, b"".join(frame.marshal(OPEN, number) for number in range(101, 1_101)))
            gc.collect()
            each = (tracemalloc.get_traced_memory()[0] - before) / 1_000
        finally:
            tracemalloc.stop()
        assert len(client.protocol.channels) == 1_100
        assert each < 1_000
