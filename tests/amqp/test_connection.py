"""One connection once it is open: what is wrong on it, and all that is about no channel."""

from __future__ import annotations

import pytest
import trio
import trio.lowlevel
from pamqp import base, commands, frame

from gateway.api import AccessRefused, CloseReason, Principal
from tests.amqp.codec.streams import method
from tests.amqp.rooms import refusing, until
from tests.amqp.wire import CAPABILITIES, HEARTBEAT, amqp_broker, publishing
from tests.runtime.support import HandJournal

CLOSE = commands.Connection.Close(200, "bye", 0, 0)
QUEUE = commands.Queue.Declare(queue="q")
WITHOUT_FLAGS = (
    frame.marshal(commands.Basic.Publish(routing_key="q"), 1)
    + b"\x02\x00\x01\x00\x00\x00\x0c\x00\x3c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\xce"
    + b"\x03\x00\x01\x00\x00\x00\x01x\xce"
)


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
