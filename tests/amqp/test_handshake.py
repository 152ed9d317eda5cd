"""The beginning of a connection: who may come in, as whom, where to, tuned how."""

from __future__ import annotations

import pytest
import trio
from pamqp import commands, encode, frame

from gateway.api import AccessRefused, Credentials, Principal
from gateway.security import Authentication
from tests.amqp.codec.streams import method
from tests.amqp.wire import CAPABILITIES, HEADER, HEARTBEAT, amqp_broker, publishing

OPEN = commands.Connection.Open("/")
START_OK = commands.Connection.StartOk({"capabilities": CAPABILITIES}, "PLAIN", "\x00guest\x00guest", "en_US")


def start_ok(mechanism: str, response: str, **capabilities: bool) -> commands.Connection.StartOk:
    return commands.Connection.StartOk({"capabilities": capabilities}, mechanism, response, "en_US")


async def started(bench):
    client = bench.connect()
    client.raw(HEADER)
    client.start = await client.hear(0)
    return client


async def tuned(bench):
    client = await started(bench)
    client.say(0, START_OK)
    client.tune = await client.hear(0)
    return client


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


# -- who ------------------------------------------------------------------------


class Gate:
    """Decides who is let in; what it was asked is in `asked`."""

    def __init__(self, bench, *, refuses: bool = False, waits: bool = False) -> None:
        self.asked: list[Credentials] = []
        self.refuses = refuses
        self.go = trio.Event()
        bench.broker.authenticate_now = None if waits else self.decide
        bench.broker.authenticate = self.wait

    def decide(self, credentials: Credentials) -> Principal:
        self.asked.append(credentials)
        if self.refuses:
            raise AccessRefused("the password is wrong")
        return Principal(credentials.user or "anonymous")

    async def wait(self, credentials: Credentials) -> Principal:
        await self.go.wait()
        return self.decide(credentials)


TABLE = encode.field_table({"LOGIN": "guest", "PASSWORD": "pass"})[4:]


@pytest.mark.parametrize(
    ("mechanism", "response"),
    [("PLAIN", "\x00guest\x00pass"), ("PLAIN", "guest\x00guest\x00pass"), ("AMQPLAIN", TABLE.decode("latin-1"))],
)
async def test_user_and_password_are_understood(mechanism, response):
    async with amqp_broker() as bench:
        gate = Gate(bench)
        client = await started(bench)
        client.say(0, start_ok(mechanism, response))
        assert isinstance(await client.hear(0), commands.Connection.Tune)
    (asked,) = gate.asked
    assert (asked.mechanism, asked.user, asked.password, asked.front_end) == ("password", "guest", b"pass", "amqp")
    assert asked.loopback


async def test_a_password_may_be_any_octets():
    async with amqp_broker() as bench:
        gate = Gate(bench)
        client = await started(bench)
        password = bytes(range(256))
        response = b"\0guest\0" + password
        arguments = b"\0\0\0\0" + b"\x05PLAIN" + len(response).to_bytes(4, "big") + response + b"\x05en_US"
        client.raw(method(0, 0x000A000B, arguments))
        assert isinstance(await client.hear(0), commands.Connection.Tune)
    assert gate.asked[0].password == password


async def test_whether_a_client_is_on_the_same_machine_is_told_with_its_password():
    async with amqp_broker() as bench:
        gate = Gate(bench)
        client = bench.connect(loopback=False)
        client.raw(HEADER)
        await client.hear(0)
        client.say(0, START_OK)
        assert isinstance(await client.hear(0), commands.Connection.Tune)
        assert not gate.asked[0].loopback


async def test_a_user_name_that_is_no_text_ends_the_connection():
    async with amqp_broker() as bench:
        gate = Gate(bench)
        client = await started(bench)
        client.raw(method(0, 0x000A000B, b"\0\0\0\0\x05PLAIN\0\0\0\x05\0\xff\xfe\0p\x05en_US"))
        assert await client.thrown_out() == (502, "SYNTAX_ERROR - a user name that is not UTF-8")
    assert not gate.asked


async def test_a_client_certificate_is_enough_with_external():
    async with amqp_broker() as bench:
        gate = Gate(bench)
        client = bench.connect(subject="worker-7")
        client.raw(HEADER)
        start = await client.hear(0)
        assert start.mechanisms == "EXTERNAL PLAIN AMQPLAIN"
        client.say(0, start_ok("EXTERNAL", ""))
        assert isinstance(await client.hear(0), commands.Connection.Tune)
    assert (gate.asked[0].certificate_subject, gate.asked[0].user, gate.asked[0].password) == ("worker-7", None, None)


@pytest.mark.parametrize(
    ("mechanism", "response", "code"),
    [
        ("EXTERNAL", "", 503),
        ("SCRAM-SHA-256", "", 503),
        ("PLAIN", "", 502),
        ("PLAIN", "guest", 502),
        ("PLAIN", "root\x00guest\x00pass", 502),
        ("AMQPLAIN", "", 502),
        ("AMQPLAIN", "guest", 502),
    ],
)
async def test_credentials_that_are_none_end_the_connection(mechanism, response, code):
    async with amqp_broker() as bench:
        gate = Gate(bench)
        client = await started(bench)
        client.say(0, start_ok(mechanism, response))
        assert (await client.thrown_out())[0] == code
    assert not gate.asked


@pytest.mark.parametrize("waits", [False, True])
async def test_who_is_not_let_in_is_told_so_if_it_wants_to_be_told(waits):
    async with amqp_broker() as bench:
        gate = Gate(bench, refuses=True, waits=waits)
        gate.go.set()
        client = await started(bench)
        client.say(0, start_ok("PLAIN", "\x00guest\x00wrong", authentication_failure_close=True))
        assert await client.thrown_out() == (
            403,
            "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile.",
        )
        silent = await started(bench)
        silent.say(0, start_ok("PLAIN", "\x00guest\x00wrong"))
        assert await silent.hear() is None
        assert bench.counted("amqp.connects_refused") == 2
        assert bench.logged("a client was refused") == 2


async def test_what_comes_while_a_password_is_checked_waits_for_that():
    async with amqp_broker() as bench:
        gate = Gate(bench, waits=True)
        client = await started(bench)
        client.say(0, START_OK, commands.Connection.TuneOk(0, 0, 0), OPEN)
        client.say(1, commands.Channel.Open())
        assert await client.silent()
        gate.go.set()
        heard = [type(await client.hear()) for _ in range(3)]
    assert heard == [commands.Connection.Tune, commands.Connection.OpenOk, commands.Channel.OpenOk]


async def test_a_flood_while_a_password_is_checked_is_not_kept():
    async with amqp_broker() as bench:
        Gate(bench, waits=True)
        client = await started(bench)
        client.say(0, START_OK)
        client.say(1, *[commands.Channel.Open()] * 100)
        assert (await client.thrown_out())[0] == 506


async def test_a_client_that_goes_while_its_password_is_checked_leaves_nothing_behind():
    async with amqp_broker() as bench:
        gate = Gate(bench, waits=True)
        client = await started(bench)
        client.say(0, START_OK, commands.Connection.TuneOk(0, 0, 0), OPEN)
        client.vanish()
        assert await client.hear() is None
        sent = bytes(client.pipe.sent)
        gate.go.set()
        await trio.testing.wait_all_tasks_blocked()
        assert (client.pipe.sent, client.pipe.out) == (sent, [])
        assert not bench.server.broker.connections
        assert not bench.server.broker.unopened


async def test_a_close_while_a_password_is_checked_is_answered_behind_that():
    async with amqp_broker() as bench:
        gate = Gate(bench, waits=True)
        client = await started(bench)
        client.say(0, START_OK, commands.Connection.Close(200, "bye", 0, 0), commands.Connection.TuneOk(0, 0, 0), OPEN)
        assert await client.silent()
        gate.go.set()
        assert isinstance(await client.hear(0), commands.Connection.Tune)
        assert isinstance(await client.hear(0), commands.Connection.CloseOk)
        assert await client.silent()
        assert not bench.server.broker.connections
        assert not bench.server.broker.unopened


async def test_what_is_wrong_behind_credentials_that_are_checked_ends_the_connection():
    async with amqp_broker() as bench:
        gate = Gate(bench, waits=True)
        client = await started(bench)
        client.say(0, START_OK, OPEN)
        gate.go.set()
        assert isinstance(await client.hear(0), commands.Connection.Tune)
        assert await client.thrown_out() == (504, "CHANNEL_ERROR - unexpected method in connection state tuning")


async def test_a_refusal_behind_the_end_of_a_connection_is_not_told():
    async with amqp_broker() as bench:
        gate = Gate(bench, waits=True, refuses=True)
        client = await started(bench)
        client.say(0, START_OK)
        client.raw(b"\xff" * 8)
        assert (await client.thrown_out())[0] == 501
        sent = bytes(client.pipe.sent)
        gate.go.set()
        await trio.testing.wait_all_tasks_blocked()
        assert (client.pipe.sent, client.pipe.out) == (sent, [])
        assert bench.counted("amqp.connects_refused") == 0


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


async def test_a_wrong_password_is_refused_though_everybody_is_let_in_without_one():
    async with amqp_broker() as bench:
        bench.broker.authenticate_now = Authentication(anonymous=True).decide
        client = await started(bench)
        client.say(0, start_ok("PLAIN", "\x00guest\x00wrong", authentication_failure_close=True))
        assert (await client.thrown_out())[0] == 403
