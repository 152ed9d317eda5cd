"""How does a connection end: closed by its client, by the broker, or lost?"""

from __future__ import annotations

import pytest
from pamqp import commands, frame

from gateway.api import CloseReason
from gateway_amqp.protocol import LINGER_S
from tests.amqp.rooms import refusing, until
from tests.amqp.wire import HEADER, amqp_broker, publishing
from tests.runtime.support import HandJournal

CLOSE = commands.Connection.Close(200, "bye", 0, 0)
QUEUE = commands.Queue.Declare(queue="q")
DURABLE = commands.Queue.Declare(queue="lasts", durable=True)


async def test_a_client_closes_and_is_answered():
    async with amqp_broker() as bench:
        client = await bench.client()
        client.say(0, CLOSE)
        assert isinstance(await client.hear(0), commands.Connection.CloseOk)
        assert not bench.server.broker.connections
        assert await client.silent()
        assert client.pipe.reason is None  # to close the socket is up to the client, for some seconds
        assert client.pipe.deadline_s == LINGER_S


async def test_what_comes_behind_a_close_is_not_carried_out():
    async with amqp_broker() as bench:
        client = await bench.client()
        client.raw(frame.marshal(CLOSE, 0) + frame.marshal(QUEUE, 1))
        assert isinstance(await client.hear(0), commands.Connection.CloseOk)
        client.say(1, QUEUE)
        assert await client.silent()
        assert bench.queue("q") is None


async def test_who_closes_a_connection_is_told_first_what_it_asked_before():
    journal = HandJournal()
    async with amqp_broker(journal) as bench:
        client = await bench.client()
        client.say(1, commands.Confirm.Select())
        assert isinstance(await client.hear(1), commands.Confirm.SelectOk)
        client.say(1, DURABLE)
        client.publish(1, "", DURABLE.queue, b"x", delivery_mode=2)
        client.raw(frame.marshal(CLOSE, 0) + frame.marshal(QUEUE, 1))
        assert await client.silent()
        journal.finish()
        heard = [await client.hear(1), await client.hear(1)]
        assert {type(one) for one in heard} == {commands.Queue.DeclareOk, commands.Basic.Ack}
        assert isinstance(await client.hear(0), commands.Connection.CloseOk)
        assert await client.silent()
        assert bench.queue(DURABLE.queue).count == 1
        assert bench.queue("q") is None
        assert client.pipe.deadline_s == LINGER_S


async def test_who_closes_a_connection_has_an_answer_though_what_came_before_is_refused(autojump_clock):
    journal = HandJournal()
    async with amqp_broker(journal) as bench:
        client = await bench.client()
        client.say(1, DURABLE)
        client.say(0, CLOSE)
        await refusing(bench, journal)
        assert (await client.refused(1))[0] == 506
        assert isinstance(await client.hear(0), commands.Connection.CloseOk)


async def test_who_closes_a_connection_behind_what_ends_it_for_an_error_is_answered():
    journal = HandJournal()
    async with amqp_broker(journal) as bench:
        client = await bench.client()
        client.say(1, DURABLE, commands.Exchange.Declare(exchange="e", exchange_type="nonsense"))
        client.say(0, CLOSE)
        assert await client.silent()
        journal.finish()
        assert isinstance(await client.hear(1), commands.Queue.DeclareOk)
        assert isinstance(await client.hear(0), commands.Connection.CloseOk)


async def test_who_goes_while_its_close_waits_leaves_nothing():
    journal = HandJournal()
    async with amqp_broker(journal) as bench:
        client = await bench.client()
        client.say(1, DURABLE, commands.Queue.Declare(queue="mine", exclusive=True))
        client.say(0, CLOSE)
        client.vanish()
        await until(lambda: bench.queue("mine") is None)
        assert not bench.server.broker.connections
        journal.finish()
        assert await client.silent()


async def test_exclusive_queues_go_with_their_connection_and_not_with_their_channel():
    async with amqp_broker() as bench:
        client = await bench.client()
        await client.call(1, commands.Queue.Declare(queue="mine", exclusive=True))
        await client.call(1, commands.Channel.Close(200, "", 0, 0))
        assert bench.queue("mine") is not None
        other = await bench.client()
        other.say(1, commands.Queue.Declare(queue="mine", passive=True))
        assert (await other.refused(1))[0] == 405
        client.vanish()
        await until(lambda: bench.queue("mine") is None)


async def test_exclusive_queues_are_gone_when_a_close_is_answered():
    async with amqp_broker() as bench:
        client = await bench.client()
        await client.call(1, commands.Queue.Declare(queue="mine", exclusive=True))
        client.say(0, CLOSE)
        assert isinstance(await client.hear(0), commands.Connection.CloseOk)
        assert bench.queue("mine") is None


async def test_after_an_error_everything_is_dropped_until_the_client_answers():
    async with amqp_broker() as bench:
        client = await bench.client()
        client.say(7, QUEUE)
        close = await client.hear(0)
        assert (close.reply_code, close.reply_text) == (504, "CHANNEL_ERROR - expected 'channel.open'")
        assert (close.class_id, close.method_id) == (50, 10)
        client.say(1, QUEUE)
        client.raw(publishing(1, "", "q", b"x" * 100_000))
        client.say(0, commands.Connection.UpdateSecret("x", "y"))
        assert await client.silent()
        assert not client.pipe.closing
        assert client.pipe.deadline_s == 5
        client.say(0, commands.Connection.CloseOk())
        assert await client.hear() is None
        assert bench.queue("q") is None
        assert bench.counted("amqp.connection_errors.channel_error") == 1


@pytest.mark.parametrize("at", range(1, 12))
async def test_an_answer_to_a_close_may_come_in_pieces(at):
    answer = frame.marshal(commands.Connection.CloseOk(), 0)
    async with amqp_broker() as bench:
        client = await bench.client()
        client.raw(b"\xff" * 8)
        assert isinstance(await client.hear(0), commands.Connection.Close)
        client.raw(b"garbage" + answer[:at])
        assert not client.pipe.closing
        client.raw(answer[at:])
        assert await client.hear() is None


async def test_two_closes_that_cross_both_end_the_connection():
    async with amqp_broker() as bench:
        client = await bench.client()
        client.raw(b"\xff" * 8)
        assert isinstance(await client.hear(0), commands.Connection.Close)
        client.say(0, CLOSE)
        assert isinstance(await client.hear(0), commands.Connection.CloseOk)
        assert await client.hear() is None


async def test_a_client_is_told_that_the_broker_stops():
    async with amqp_broker() as bench:
        client = await bench.client()
        client.pipe.close(CloseReason.SHUTDOWN)
        close = await client.hear(0)
        assert (close.reply_code, close.reply_text) == (
            320,
            "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'",
        )
        assert await client.hear() is None


async def test_who_has_not_opened_its_connection_is_not_told_that_the_broker_stops():
    async with amqp_broker() as bench:
        client = bench.connect()
        client.raw(HEADER)
        assert isinstance(await client.hear(0), commands.Connection.Start)
        client.pipe.close(CloseReason.SHUTDOWN)
        assert await client.hear() is None


async def test_a_client_that_is_not_heard_gets_no_words():
    async with amqp_broker() as bench:
        client = await bench.client(heartbeat_s=1)
        client.pipe.close(CloseReason.IDLE)
        assert await client.hear() is None
        assert bench.counted("amqp.heartbeats_missed") == 1
        newcomer = bench.connect()
        newcomer.pipe.close(CloseReason.IDLE)
        assert await newcomer.hear() is None
        assert bench.counted("amqp.connect_timeouts") == 1


async def test_a_connection_that_is_lost_leaves_nothing_behind():
    async with amqp_broker() as bench:
        client = await bench.client(heartbeat_s=1)
        await client.call(1, QUEUE)
        await client.call(1, commands.Basic.Consume(queue="q"))
        client.raw(publishing(1, "", "q", b"x" * 1_000)[:-100])
        link = client.protocol
        client.vanish()
        assert await client.hear() is None
        broker = bench.server.broker
        assert not link.channels
        assert not broker.connections
        assert broker.partial.held_bytes == 0
        assert broker.beats.due_at == float("inf")
