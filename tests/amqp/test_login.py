"""Who is let in, as whom, and what happens while that is decided?"""

from __future__ import annotations

import pytest
import trio
from pamqp import commands, encode

from gateway.api import AccessRefused, Credentials, Principal
from gateway.security import Authentication
from tests.amqp.beginning import OPEN, START_OK, started
from tests.amqp.codec.streams import method
from tests.amqp.wire import HEADER, amqp_broker


def start_ok(mechanism: str, response: str, **capabilities: bool) -> commands.Connection.StartOk:
    return commands.Connection.StartOk({"capabilities": capabilities}, mechanism, response, "en_US")


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


async def test_a_wrong_password_is_refused_though_everybody_is_let_in_without_one():
    async with amqp_broker() as bench:
        bench.broker.authenticate_now = Authentication(anonymous=True).decide
        client = await started(bench)
        client.say(0, start_ok("PLAIN", "\x00guest\x00wrong", authentication_failure_close=True))
        assert (await client.thrown_out())[0] == 403
