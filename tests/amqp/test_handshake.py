"""The beginning of a connection: what is said in which order, tuned how, where to?"""

from __future__ import annotations

import pytest
from pamqp import commands, frame

from gateway.api import AccessRefused
from tests.amqp.beginning import OPEN, START_OK, started, tuned
from tests.amqp.codec.streams import method
from tests.amqp.wire import HEADER, HEARTBEAT, amqp_broker, publishing


async def test_the_server_says_what_it_is_and_can_do():
    async with amqp_broker() as bench:
        start = (await started(bench)).start
    assert (start.version_major, start.version_minor, start.locales) == (0, 9, "en_US")
    assert start.mechanisms == "PLAIN AMQPLAIN"
    said = start.server_properties
    assert said["capabilities"] == dict.fromkeys(
        (
            "publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify", "connection.blocked",
            "consumer_priorities", "authentication_failure_close", "per_consumer_qos", "direct_reply_to",
        ),
        True,
    )  # fmt: skip
    assert said["product"] == "RabbitMQ"
    assert said["platform"].startswith("Tidegate")
    assert "Tidegate" in said["information"]


async def test_product_and_version_are_settings():
    async with amqp_broker(server_product="Tidegate", server_version="1") as bench:
        said = (await started(bench)).start.server_properties
    assert (said["product"], said["version"]) == ("Tidegate", "1")


@pytest.mark.parametrize(
    "wrong", [b"AMQP\x00\x01\x00\x00", b"AMQP\x01\x01\x00\x09", b"GET / HTTP/1.1\r\n", b"\x10\x0c\x00\x04MQTT\x04", b"X"]
)
async def test_a_wrong_header_is_answered_by_the_right_one_and_the_end(wrong):
    async with amqp_broker() as bench:
        client = bench.connect()
        client.raw(wrong)
        assert await client.hear() == HEADER
        assert await client.hear() is None
        assert bench.counted("amqp.connection_errors.protocol_header") == 1


async def test_a_header_may_come_in_pieces():
    async with amqp_broker() as bench:
        client = bench.connect()
        for octet in HEADER:
            assert not client.pipe.sent
            client.raw(bytes((octet,)))
        assert isinstance(await client.hear(0), commands.Connection.Start)


async def test_a_client_that_does_not_wait_may_send_all_in_one_piece():
    async with amqp_broker() as bench:
        client = bench.connect()
        client.raw(HEADER)
        client.say(0, START_OK, commands.Connection.TuneOk(0, 0, 0), OPEN)
        client.say(1, commands.Channel.Open())
        heard = [await client.hear() for _ in range(4)]
    assert [type(what) for what in heard] == [
        commands.Connection.Start, commands.Connection.Tune, commands.Connection.OpenOk, commands.Channel.OpenOk,
    ]  # fmt: skip


async def test_the_whole_beginning_may_come_octet_by_octet():
    async with amqp_broker() as bench:
        client = bench.connect()
        said = [START_OK, commands.Connection.TuneOk(9, 4096, 7), OPEN]
        for octet in HEADER + b"".join(frame.marshal(method, 0) for method in said):
            client.raw(bytes((octet,)))
        heard = [type(await client.hear()) for _ in range(3)]
        link = client.protocol
    assert heard == [commands.Connection.Start, commands.Connection.Tune, commands.Connection.OpenOk]
    assert (link.channel_max, link.frame_max, link.heartbeat_s) == (9, 4096, 7)


# -- how ------------------------------------------------------------------------


async def test_limits_and_heartbeat_are_proposed():
    async with amqp_broker(heartbeat_s=17, channel_max=99, frame_max=8_192) as bench:
        tune = (await tuned(bench)).tune
    assert (tune.channel_max, tune.frame_max, tune.heartbeat) == (99, 8_192, 17)


async def test_a_clients_zero_leaves_the_servers_limits():
    async with amqp_broker() as bench:
        client = await tuned(bench)
        client.say(0, commands.Connection.TuneOk(0, 0, 0), OPEN)
        assert isinstance(await client.hear(0), commands.Connection.OpenOk)
        link = client.protocol
        assert (link.channel_max, link.frame_max, link.heartbeat_s) == (2_047, 131_072, 0)
        assert client.pipe.idle_timeout_s == 0


@pytest.mark.parametrize(
    ("channel_max", "frame_max", "text"),
    [
        (2_047, 4_095, "negotiated frame_max = 4095 is lower than the minimum allowed value (4096)"),
        (2_047, 131_073, "negotiated frame_max = 131073 is higher than the maximum allowed value (131072)"),
        (2_048, 131_072, "negotiated channel_max = 2048 is higher than the maximum allowed value (2047)"),
    ],
)
async def test_what_is_out_of_range_is_not_allowed(channel_max, frame_max, text):
    async with amqp_broker() as bench:
        client = await tuned(bench)
        client.say(0, commands.Connection.TuneOk(channel_max, frame_max, 0), OPEN)
        assert await client.thrown_out() == (530, f"NOT_ALLOWED - {text}")


async def test_a_frame_beyond_what_was_agreed_on_ends_the_connection():
    async with amqp_broker() as bench:
        client = await bench.client(frame_max=4_096)
        client.raw(publishing(1, "", "nowhere", b"x" * 4_096, frame_max=4_096 + 8))  # clients may leave the 8 around it out
        assert isinstance(await client.call(1, commands.Queue.Declare(queue="q")), commands.Queue.DeclareOk)
        client.raw(publishing(1, "", "nowhere", b"x" * 4_097))
        assert (await client.thrown_out())[0] == 501


async def test_a_client_is_gone_when_it_is_not_heard_for_two_of_its_heartbeats():
    async with amqp_broker() as bench:
        client = await bench.client(heartbeat_s=30)
        assert client.pipe.idle_timeout_s == 60


# -- where to -------------------------------------------------------------------


async def test_an_unknown_virtual_host_is_not_allowed():
    async with amqp_broker() as bench:
        client = await tuned(bench)
        client.say(0, commands.Connection.TuneOk(0, 0, 0), commands.Connection.Open("none"))
        assert await client.thrown_out() == (530, "NOT_ALLOWED - vhost none not found")


async def test_a_virtual_host_may_be_closed_to_a_user():
    async with amqp_broker() as bench:

        def enter(principal, vhost):
            raise AccessRefused("not there")

        bench.broker.entrance.enter = enter
        client = await tuned(bench)
        client.say(0, commands.Connection.TuneOk(0, 0, 0), OPEN)
        assert await client.thrown_out() == (530, "NOT_ALLOWED - access to vhost '/' refused for user 'guest'")


# -- out of order ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("channel", "method", "code"),
    [
        (0, commands.Connection.TuneOk(0, 0, 0), 504),
        (0, OPEN, 504),
        (0, commands.Connection.Close(200, "bye", 0, 0), 504),
        (1, commands.Channel.Open(), 505),
    ],
)
async def test_methods_out_of_order_end_the_connection(channel, method, code):
    async with amqp_broker() as bench:
        client = await started(bench)
        client.say(channel, method)
        assert (await client.thrown_out())[0] == code


async def test_a_second_start_ok_ends_the_connection():
    async with amqp_broker() as bench:
        client = await tuned(bench)
        client.say(0, START_OK)
        assert await client.thrown_out() == (504, "CHANNEL_ERROR - unexpected method in connection state tuning")


async def test_a_publish_before_the_connection_is_open_ends_it():
    async with amqp_broker() as bench:
        client = await tuned(bench)
        client.raw(publishing(1, "", "q", b"x"))
        assert (await client.thrown_out())[0] == 505


async def test_a_client_may_close_before_it_has_opened():
    async with amqp_broker() as bench:
        client = await tuned(bench)
        client.say(0, commands.Connection.TuneOk(0, 0, 0), commands.Connection.Close(200, "bye", 0, 0))
        assert isinstance(await client.hear(0), commands.Connection.CloseOk)
        assert await client.silent()


async def test_a_heartbeat_is_no_offence_before_the_connection_is_open():
    async with amqp_broker() as bench:
        client = await started(bench)
        client.raw(HEARTBEAT)
        client.say(0, START_OK)
        assert isinstance(await client.hear(0), commands.Connection.Tune)


async def test_a_malformed_start_ok_ends_the_connection():
    async with amqp_broker() as bench:
        client = await started(bench)
        client.raw(method(0, 0x000A000B, b"\xff\xff\xff\xff"))
        assert (await client.thrown_out())[0] == 502


async def test_a_frame_beyond_what_is_taken_before_tuning_ends_the_connection():
    async with amqp_broker() as bench:
        client = await started(bench)
        client.raw(b"\x01\x00\x00" + (1_000_000).to_bytes(4, "big") + b"\x00\x0a\x00\x0b")
        assert (await client.thrown_out())[0] == 501


async def test_only_so_many_may_be_on_their_way():
    async with amqp_broker(max_unconnected=3) as bench:
        clients = [bench.connect() for _ in range(4)]
        assert await clients[0].hear() is None
        assert [client.pipe.closing for client in clients] == [True, False, False, False]
        assert bench.counted("amqp.unconnected_closed") == 1
        await bench.client(channel=0)
        assert len(bench.server.broker.unopened) == 2


async def test_virtual_hosts_are_worlds_of_their_own():
    async with amqp_broker(vhosts=["other"]) as bench:
        client = await bench.client()
        await client.call(1, commands.Queue.Declare(queue="q"))
        elsewhere = await bench.client(vhost="other")
        elsewhere.say(1, commands.Queue.Declare(queue="q", passive=True))
        assert await elsewhere.refused(1) == (404, "NOT_FOUND - no queue 'q' in vhost 'other'")
