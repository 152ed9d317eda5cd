"""One connection once it is open: its end, both ways, and all that is about no channel."""

from __future__ import annotations

import pytest
import trio
import trio.lowlevel
from pamqp import base, commands, frame

from gateway.api import AccessRefused, CloseReason, Principal
from gateway_amqp.protocol import LINGER_S
from tests.amqp.codec.streams import method
from tests.amqp.rooms import refusing, until
from tests.amqp.wire import CAPABILITIES, HEADER, HEARTBEAT, amqp_broker, publishing
from tests.runtime.support import HandJournal

CLOSE = commands.Connection.Close(200, "bye", 0, 0)
QUEUE = commands.Queue.Declare(queue="q")
DURABLE = commands.Queue.Declare(queue="lasts", durable=True)
WITHOUT_FLAGS = (
    frame.marshal(commands.Basic.Publish(routing_key="q"), 1)
    + b"\x02\x00\x01\x00\x00\x00\x0c\x00\x3c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\xce"
    + b"\x03\x00\x01\x00\x00\x00\x01x\xce"
)


# -- closing --------------------------------------------------------------------


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


# -- what is wrong ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        (method(0, 0x0014000A, b"\0"), 504, "CHANNEL_ERROR - unexpected method in connection state running"),
        (method(0, 0x0032000A, QUEUE.marshal()), 504, "CHANNEL_ERROR - unexpected method in connection state running"),
        (method(0, 0x000A0033), 504, "CHANNEL_ERROR - unexpected method in connection state running"),
        (method(0, 0x000A000B, b"\0\0\0\0\0\0\0\0\0\0"), 504, "CHANNEL_ERROR - unexpected method in connection state running"),
        (method(0, 0x00630001), 503, "COMMAND_INVALID - unknown method 99.1"),
        (method(1, 0x00630001), 503, "COMMAND_INVALID - unknown method 99.1"),
        (method(1, 0x003C00C8), 503, "COMMAND_INVALID - unknown method 60.200"),
        (method(1, 0x000A0032, CLOSE.marshal()), 503, "COMMAND_INVALID - unimplemented method"),
        (method(1, 0x0014000A, b"\0"), 504, "CHANNEL_ERROR - second 'channel.open' seen"),
        (method(9, 0x00140028, b"\0\0\0\0\0\0\0"), 504, "CHANNEL_ERROR - expected 'channel.open'"),
        (publishing(9, "", "q", b"x"), 504, "CHANNEL_ERROR - expected 'channel.open'"),
        (method(1, 0x0032000A, b"\0"), 502, None),
        (WITHOUT_FLAGS, 502, "SYNTAX_ERROR - a content header without property flags"),
        (b"\x01\x00\x01" + (1 << 31).to_bytes(4, "big") + b"\0\0\0\0\0", 501, None),
        (b"\x01\x00\x01\x00\x00\x00\x05\x00\x14\x00\x0a\x00\xcd", 501, None),
        (b"\x07\x00\x01\x00\x00\x00\x05\x00\x14\x00\x0a\x00\xce", 501, None),
        (b"\x03\x00\x01\x00\x00\x00\x05\x00\x14\x00\x0a\x00\xce", 505, None),
        (b"\x08\x00\x01\x00\x00\x00\x00\xce", 505, None),
        (b"\x02\x00\x00\x00\x00\x00\x05\x00\x14\x00\x0a\x00\xce", 505, None),
    ],
)
async def test_what_is_wrong_ends_the_connection_with_its_code_and_nobody_else_notices(data, code, text):
    async with amqp_broker() as bench:
        other = await bench.client()
        client = await bench.client()
        client.raw(data)
        said = await client.thrown_out()
        assert said[0] == code
        assert text is None or said[1] == text
        assert isinstance(await other.call(1, QUEUE), commands.Queue.DeclareOk)
        assert bench.logged("a connection was closed for an error") == 1


async def test_more_channels_than_agreed_are_not_allowed():
    async with amqp_broker() as bench:
        client = await bench.client(channel_max=3, channel=0)
        for number in (1, 2, 3):
            await client.open(number)
        client.say(4, commands.Channel.Open())
        assert await client.thrown_out() == (
            530,
            "NOT_ALLOWED - number of channels opened (3) has reached the negotiated channel_max (3)",
        )


async def test_a_channels_number_is_any():
    async with amqp_broker() as bench:
        client = await bench.client(channel_max=3, channel=0)
        assert (await client.call(1_000, commands.Channel.Open())).channel_id == ""
        for number in (65_535, 4):
            await client.open(number)


async def test_channels_may_be_opened_and_closed_without_end():
    async with amqp_broker() as bench:
        client = await bench.client(channel=0)
        for _ in range(20):
            client.say(5, *[commands.Channel.Open(), commands.Channel.Close(200, "", 0, 0)] * 50)
            assert len(client.protocol.channels) == 0
            for _ in range(50):
                assert isinstance(await client.hear(5), commands.Channel.OpenOk)
                assert isinstance(await client.hear(5), commands.Channel.CloseOk)


async def test_who_has_sent_the_most_of_what_is_not_complete_makes_room():
    async with amqp_broker(max_partial_bytes=1024 * 1024) as bench:
        small, other, largest = [await bench.client() for _ in range(3)]
        small.raw(publishing(1, "", "q", b"x" * 1_000)[:-10])
        largest.raw(publishing(1, "", "q", b"x" * 800_000)[:-10])
        other.raw(publishing(1, "", "q", b"x" * 400_000)[:-10])
        assert await largest.thrown_out() == (506, "RESOURCE_ERROR - too much is kept of messages that are not complete")
        assert bench.counted("amqp.partial_messages_closed") == 1
        assert 400_000 < bench.server.broker.partial.held_bytes < 500_000
        for client, size in ((small, 1_000), (other, 400_000)):
            client.raw(publishing(1, "", "q", b"x" * size)[-10:])
            assert isinstance(await client.call(1, QUEUE), commands.Queue.DeclareOk)
        assert bench.server.broker.partial.held_bytes == 0


# -- heartbeats -------------------------------------------------------------------


async def test_heartbeats_are_taken():
    async with amqp_broker() as bench:
        client = await bench.client(heartbeat_s=1)
        client.raw(HEARTBEAT * 3)
        assert isinstance(await client.call(1, QUEUE), commands.Queue.DeclareOk)


# -- a new secret -----------------------------------------------------------------


@pytest.mark.parametrize("waits", [False, True])
async def test_a_new_secret_is_checked(waits):
    async with amqp_broker() as bench:
        client = await bench.client()

        def decide(credentials):
            if credentials.password != b"new":
                raise AccessRefused("wrong")
            return Principal(credentials.user)

        async def wait(credentials):
            await trio.lowlevel.checkpoint()
            return decide(credentials)

        bench.broker.authenticate_now = None if waits else decide
        bench.broker.authenticate = wait
        assert isinstance(await client.call(0, commands.Connection.UpdateSecret("new", "old")), commands.Connection.UpdateSecretOk)
        client.say(0, commands.Connection.UpdateSecret("wrong", "old"))
        assert await client.thrown_out() == (530, "NOT_ALLOWED - New secret was refused by one of the backends")


# -- alarms -----------------------------------------------------------------------


async def test_who_publishes_is_told_that_publishers_are_held_back_and_that_they_are_not_any_more(autojump_clock):
    journal = HandJournal(automatic=True)
    async with amqp_broker(journal) as bench, trio.open_nursery() as nursery:
        nursery.start_soon(bench.server._watch_alarms)
        publisher, consumer = await bench.client(), await bench.client()
        deaf = await bench.client(capabilities={**CAPABILITIES, "connection.blocked": False})
        for client in (publisher, deaf):
            client.raw(publishing(1, "", "nowhere", b"x"))
        await publisher.call(1, commands.Queue.Declare(queue="d", durable=True))
        journal.automatic = False
        publisher.raw(publishing(1, "", "d", b"x", delivery_mode=2))
        await until(lambda: journal.writes)
        await refusing(bench, journal)
        blocked = await hear_method(publisher, commands.Connection.Blocked)
        assert "no space left" in blocked.reason
        late = await bench.client()
        assert await consumer.silent()
        assert await late.silent()
        late.raw(publishing(1, "", "nowhere", b"x"))
        assert isinstance(await late.hear(0), commands.Connection.Blocked)
        journal.automatic = True
        with trio.fail_after(600):
            while bench.broker.alarms.causes:
                if journal.writes:
                    journal.finish()
                await trio.sleep(0.1)
        assert isinstance(await hear_method(publisher, commands.Connection.Unblocked), commands.Connection.Unblocked)
        assert isinstance(await late.hear(0), commands.Connection.Unblocked)
        assert await deaf.silent() or not isinstance(await deaf.hear(), commands.Connection.Blocked)
        nursery.cancel_scope.cancel()


async def test_nothing_is_said_of_alarms_and_no_heartbeat_is_sent_behind_the_end_of_a_connection():
    async with amqp_broker() as bench:
        leaving, failing = await bench.client(), await bench.client()
        links = [leaving.protocol, failing.protocol]
        for client in (leaving, failing):
            client.raw(publishing(1, "", "nowhere", b"x"))
        leaving.say(0, CLOSE)
        assert isinstance(await leaving.hear(0), commands.Connection.CloseOk)
        failing.say(7, QUEUE)
        bench.server.broker.blocked = "no space left"
        for link in links:  # those that tell many do so in several turns
            link.block()
            link.beat()
        assert isinstance(await failing.hear(0), commands.Connection.Close)
        assert await leaving.silent()
        assert await failing.silent()


async def hear_method(client, kind: type[base.Frame]):
    """Hear what else there is, up to a method of a kind."""
    while True:
        heard = await client.hear()
        assert heard is not None
        if isinstance(heard, kind):
            return heard


# -- a peer that does not read ------------------------------------------------------


async def test_a_client_that_asks_and_does_not_read_is_cut_off():
    async with amqp_broker(max_message_bytes=1_000_000) as bench:
        client = await bench.client()
        client.pipe.congest(True)
        link = client.protocol
        for _ in range(30):
            client.publish(1, "", "nowhere", b"x" * 1_000_000, mandatory=True)
            await trio.lowlevel.checkpoint()
        assert client.pipe.reason is CloseReason.SLOW
        assert link.is_over
        link.owe(1)
        assert bench.counted("amqp.slow_readers_closed") == 1


async def test_a_client_that_reads_again_owes_nothing():
    async with amqp_broker() as bench:
        client = await bench.client()
        for _ in range(3):
            client.pipe.congest(True)
            client.protocol.owe(100 * 1024 * 1024)
            client.pipe.congest(False)
        assert isinstance(await client.call(1, QUEUE), commands.Queue.DeclareOk)
