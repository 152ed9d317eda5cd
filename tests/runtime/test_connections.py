"""Sockets belong to the host: receiving, sending, congestion, the end."""

from __future__ import annotations

import socket

import pytest
import trio

from gateway.api.stream import CloseReason
from gateway.errors import ConfigError, ListenError, ProtocolViolation
from gateway.runtime.streams.poller import HAS_EPOLL
from tests.runtime.support import HandJournal, Log, running, turns

WAYS = [True, False] if HAS_EPOLL else [False]


@pytest.fixture(params=WAYS, ids=lambda epoll: "epoll" if epoll else "tasks", autouse=True)
def way(request):
    """Each test is run with each way to wait for sockets."""
    Server.epoll = request.param


class Server:
    """One front-end's listener with a handler; what it announced."""

    epoll = True

    def __init__(self, broker, handler):
        self.log = Log()
        self.lines = []
        self.gateway = broker.gateway("test", self.lines.append, self.log, epoll=self.epoll)
        self.handler = handler
        self.reasons = []

    async def start(self, nursery, listen=("tcp://127.0.0.1:0",)):
        async def serve(task_status):
            await self.gateway.serve_streams(list(listen), self.handler, setting="frontend.test.listen", task_status=task_status)

        return await nursery.start(serve)

    def echo(self, connection):
        def feed(data):
            if b"bad" in data:
                connection.out.append(b"goodbye")
                connection.touch()
                raise ProtocolViolation("bad word", "SPEC 1")
            if not connection.out:
                connection.touch()
            connection.out.append(data)

        return feed


@pytest.fixture
async def connect():
    """Connections of the test's, closed at its end."""
    streams = []

    async def to(address):
        stream = await trio.open_tcp_stream("127.0.0.1", port_of(address))
        streams.append(stream)
        return stream

    yield to
    for stream in streams:
        await stream.aclose()


def port_of(address):
    return int(address.rpartition(":")[2])


def echo_server(broker, **pump):
    server = Server(broker, None)

    async def handler(connection):
        server.connection = connection
        server.reasons.append(await connection.pump(server.echo(connection), **pump))

    server.handler = handler
    return server


async def test_what_a_turn_collects_is_sent_and_eof_ends_the_connection(connect):
    async with running(HandJournal()) as broker, trio.open_nursery() as nursery:
        server = echo_server(broker)
        (address,) = await server.start(nursery)
        assert server.lines == [address]
        stream = await connect(address)
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
        await stream.aclose()
        with trio.fail_after(30):
            while not server.reasons:
                await turns()
        assert server.reasons == [CloseReason.EOF]
        nursery.cancel_scope.cancel()


async def test_a_violation_is_told_counted_and_logged_and_ends_that_connection_only(connect):
    async with running(HandJournal()) as broker, trio.open_nursery() as nursery:
        server = echo_server(broker)
        (address,) = await server.start(nursery)
        good = await connect(address)
        bad = await connect(address)
        await bad.send_all(b"bad")
        with trio.fail_after(30):
            assert await bad.receive_some() == b"goodbye"
            assert await bad.receive_some() == b""
            await good.send_all(b"still here")
            assert await good.receive_some() == b"still here"
        assert broker.counters["violations"] == 1
        (line,) = [values for _, event, values in server.log.lines if event == "protocol violation"]
        assert (line["reason"], line["spec"]) == ("bad word", "SPEC 1")
        nursery.cancel_scope.cancel()


async def test_an_exception_of_a_handler_ends_that_connection_only(connect):
    async with running(HandJournal()) as broker, trio.open_nursery() as nursery:
        server = Server(broker, None)

        async def handler(connection):
            data = await connection.receive()
            if data == b"x":
                raise ValueError("bug")
            connection.out.append(data)
            connection.touch()

        server.handler = handler
        (address,) = await server.start(nursery)
        broken = await connect(address)
        await broken.send_all(b"x")
        with trio.fail_after(30):
            assert await broken.receive_some() == b""
            other = await connect(address)
            await other.send_all(b"y")
            assert await other.receive_some() == b"y"
        assert [event for level, event, _ in server.log.lines if level == "error"] == ["a connection failed"]
        nursery.cancel_scope.cancel()


async def test_a_silent_peer_is_ended_after_its_idle_timeout(connect):
    async with running(HandJournal()) as broker, trio.open_nursery() as nursery:
        server = echo_server(broker, idle_timeout_s=0.2)
        (address,) = await server.start(nursery)
        stream = await connect(address)
        with trio.fail_after(30):
            assert await stream.receive_some() == b""
        assert server.reasons == [CloseReason.IDLE]
        nursery.cancel_scope.cancel()


async def test_a_peer_that_does_not_read_is_told_of_and_comes_back_when_it_reads(connect):
    calls = []

    class Sink:
        def congested(self):
            calls.append("congested")

        def decongested(self):
            calls.append("decongested")

    async with running(HandJournal(), outgoing_bytes=65_536) as broker, trio.open_nursery() as nursery:
        server = Server(broker, None)
        ready = trio.Event()

        async def handler(connection):
            server.connection = connection
            connection.watch(Sink())
            ready.set()
            server.reasons.append(await connection.pump(lambda data: None))

        server.handler = handler
        (address,) = await server.start(nursery)
        stream = await connect(address)
        await ready.wait()
        sent = 0
        with trio.fail_after(30):
            while not calls:
                server.connection.out.append(bytes(65_536))
                server.connection.touch()
                sent += 65_536
                await turns(1)
            assert server.connection.is_congested
            received = 0
            while received < sent:
                received += len(await stream.receive_some(1_000_000))
            while len(calls) < 2:
                await turns(1)
        assert calls == ["congested", "decongested"]
        assert not server.connection.is_congested
        nursery.cancel_scope.cancel()


async def test_a_slow_peer_holds_others_back_for_a_moment_only():
    async with running(HandJournal()) as broker:
        before = trio.current_time()
        broker.flow.fell_behind(before)
        assert broker.flow.holding
        with trio.fail_after(30):
            await broker.flow.until_released()
        assert not broker.flow.holding
        broker.flow.caught_up()


async def test_draining_closes_connections_and_ends_the_listener(connect):
    async with running(HandJournal()) as broker, trio.open_nursery() as nursery:
        server = echo_server(broker)
        (address,) = await server.start(nursery)
        stream = await connect(address)
        await stream.send_all(b"a")
        assert await stream.receive_some() == b"a"
        broker.start_draining()
        with trio.fail_after(30):
            assert await stream.receive_some() == b""
            await stream.aclose()
            while server.gateway._listeners.connections:
                await turns()
        assert server.reasons == [CloseReason.SHUTDOWN]
        with pytest.raises(OSError, match=r"all attempts|refused"):
            await connect(address)


async def test_a_taken_port_names_port_setting_and_the_way_out():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with running(HandJournal()) as broker, trio.open_nursery() as nursery:
            server = echo_server(broker)
            with pytest.raises(ListenError) as caught:
                await server.start(nursery, [f"tcp://127.0.0.1:{port}"])
            assert str(port) in caught.value.text
            assert "frontend.test.listen" in caught.value.text
            assert "frontend.test.enabled = false" in caught.value.text


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1883", "http://127.0.0.1:1883", "tcp://127.0.0.1", "tcp://127.0.0.1:99999", "tcp://:1"]
)
async def test_an_address_that_cannot_be_is_refused(address):
    async with running(HandJournal()) as broker, trio.open_nursery() as nursery:
        server = echo_server(broker)
        with pytest.raises(ConfigError, match=r"frontend\.test\.listen"):
            await server.start(nursery, [address])


async def test_a_peer_that_does_not_read_is_not_received_from(connect):
    async with running(HandJournal(), outgoing_bytes=65_536) as broker, trio.open_nursery() as nursery:
        server = Server(broker, None)
        taken = 0

        async def handler(connection):
            nonlocal taken
            server.connection = connection
            while data := await connection.receive():
                taken += len(data)
                if not connection.out:
                    connection.touch()
                connection.out.append(bytes(10 * len(data)))

        server.handler = handler
        (address,) = await server.start(nursery)
        stream = await connect(address)
        with trio.move_on_after(1) as patience:
            while True:
                await stream.send_all(bytes(65_536))
        assert patience.cancelled_caught
        held_back = taken
        with trio.fail_after(30):
            while taken == held_back:
                await stream.receive_some(1_000_000)
        nursery.cancel_scope.cancel()


async def test_silent_peers_do_not_delay_a_stop(connect, autojump_clock):
    autojump_clock.autojump_threshold = 0.002
    async with running(HandJournal()) as broker, trio.open_nursery() as nursery:
        server = echo_server(broker)
        (address,) = await server.start(nursery)
        stream = await connect(address)
        await stream.send_all(b"a")
        assert await stream.receive_some() == b"a"
        started = trio.current_time()
        broker.start_draining()
        while server.gateway._listeners.connections:
            await turns()
        assert trio.current_time() - started < 1
