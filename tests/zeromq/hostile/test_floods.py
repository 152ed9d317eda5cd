"""Do floods of what is allowed once end who sends them, and nobody else?"""

from contextlib import suppress

import pytest
import trio
import zmq

from gateway.api import Message
from gateway_zeromq.endpoints.pong.vigil import MOST_UNASKED
from gateway_zeromq.zmtp import commands
from tests.zeromq.support import ANY, Plain, serving, until
from tests.zeromq.test_pong import Raw

PUSH = {"name": "out", "socket": "PUSH", "bind": ANY, "queue": "jobs", "ack": "pong"}
XPUB = {"name": "events", "socket": "XPUB", "bind": ANY, "exchange": "amq.topic"}


@pytest.mark.parametrize("command", [commands.ping(b""), commands.command(b"A"), commands.ping(bytes(16))], ids=repr)
async def test_commands_that_nobody_asked_for_end_a_peer_if_they_are_too_many(context, command):
    async with serving(PUSH) as running:
        worker = Plain(context, zmq.PULL, running.address("PUSH"))
        peer = await Raw.met(running)
        await peer.stream.send_all(command * (MOST_UNASKED // 2))
        with suppress(trio.BrokenResourceError):
            await peer.stream.send_all(command * 5_000)
        await until(lambda: running.count("violations") == 1)
        assert running.log.of("protocol violation")[0]["reason"] == "more commands than anybody needs"
        route = running.channel.route("", "jobs")
        for n in range(10):
            running.channel.post(route, Message(route.address, b"%d" % n, True))
        assert [await worker.receive() for _ in range(10)] == [b"%d" % n for n in range(10)]
        await peer.stream.aclose()


async def test_some_commands_that_nobody_asked_for_are_answered_or_passed_over(context):
    async with serving(PUSH) as running:
        peer = await Raw.met(running)
        await peer.stream.send_all(commands.command(b"A") * 100 + commands.ping(b"x") * 100)
        await peer.hear(commands.pong(b"x") * 100)
        assert running.count("violations") == 0
        await peer.stream.aclose()


@pytest.mark.parametrize("said", [b"", b"\xff", b"\xff" + bytes(7) + b"\1\x7f\3\1" + b"NULL"], ids=repr)
async def test_who_never_ends_its_handshake_is_sent_away(monkeypatch, said):
    monkeypatch.setattr("gateway_zeromq.endpoints.spot.HANDSHAKE_MS", 100)
    async with serving({"name": "in", "socket": "ROUTER", "bind": ANY}) as running:
        host, port = running.address("ROUTER").removeprefix("tcp://").split(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            if said:
                await stream.send_all(said)
            with trio.fail_after(10), suppress(trio.BrokenResourceError):
                while await stream.receive_some():
                    pass


async def test_a_flood_of_subscriptions_that_come_and_go_leaves_nothing_bound(context):
    async with serving(XPUB) as running:
        good = Plain(context, zmq.SUB, running.address("XPUB"), SUBSCRIBE=b"good.")
        bad = Plain(context, zmq.XSUB, running.address("XPUB"))
        for n in range(2_000):
            await bad.send(b"\1x%d." % (n % 50))
            await bad.send(b"\0x%d." % (n % 50))
        await bad.send(b"\1last.")
        route = running.channel.route("amq.topic", "last.one")
        while await bad.receive(0.02) != [b"last.one", b"x"]:
            running.channel.post(route, Message(route.address, b"x"))
        live = running.channel.route("amq.topic", "good.one")
        running.channel.post(live, Message(live.address, b"y"))
        assert await good.receive() == [b"good.one", b"y"]


@pytest.mark.parametrize("said", [b"", b"\2x", b"\1" + b"x" * 4_096 + b"y", b"\0" + b"nobody"], ids=lambda said: repr(said[:3]))
async def test_what_is_no_subscription_harms_nobody(context, said):
    async with serving(XPUB) as running:
        good = Plain(context, zmq.SUB, running.address("XPUB"), SUBSCRIBE=b"")
        bad = Plain(context, zmq.XSUB, running.address("XPUB"))
        for _ in range(20):
            await bad.send(said)
        route = running.channel.route("amq.topic", "k")
        while await good.receive(0.05) != [b"k", b"x"]:
            running.channel.post(route, Message(route.address, b"x"))
        assert not [line for line in running.log.lines if line[0] == "error"]
