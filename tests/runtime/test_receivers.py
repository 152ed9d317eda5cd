"""Receivers have no tasks: who feeds them, holds them back, and tells them of the end?"""

from __future__ import annotations

import math
import os
import socket
import struct
from contextlib import contextmanager

import pytest
import trio
import trio.lowlevel

from gateway.api.stream import CloseReason
from gateway.errors import ProtocolViolation
from gateway.runtime.streams import listener as listening
from gateway.runtime.streams import poller
from gateway.runtime.streams.poller import HAS_EPOLL
from tests.runtime.support import HandJournal, Log, running, turns

WAYS = [True, False] if HAS_EPOLL else [False]
RESET = struct.pack("ii", 1, 0)


class Echo:
    """A receiver that sends back what it got, and remembers."""

    def __init__(self, connection, served):
        self.connection = connection
        self.served = served
        self.got = []
        self.reasons = []
        served.append(self)

    def feed(self, data):
        assert not self.reasons, "nothing is fed after the end"
        self.got.append(data)
        if b"bad" in data:
            self.send(b"goodbye")
            raise ProtocolViolation("bad word", "SPEC 1")
        if b"bug" in data:
            raise ValueError("bug")
        if b"part" in data:
            return False
        if b"quit" in data:
            self.send(b"bye")
            self.connection.close()
            return None
        self.send(data)
        return None

    def send(self, data):
        if not self.connection.out:
            self.connection.touch()
        self.connection.out.append(data)

    def ended(self, reason):
        assert self.connection.closing
        self.reasons.append(reason)


class Server:
    """A front-end whose connections have receivers; `attached`: what is given to `attach`."""

    def __init__(self, broker, epoll, **attached):
        self.broker = broker
        self.log = Log()
        self.gateway = broker.gateway("test", lambda line: None, self.log, epoll=epoll)
        self.attached = attached
        self.served = []
        self.clients = []
        self.make = Echo
        self.handler = self.attached.pop("handler", None)

    @property
    def connections(self):
        return self.gateway._listeners.connections

    def accept(self, connection):
        connection.attach(self.make(connection, self.served), **self.attached)

    async def start(self, nursery):
        async def serve(task_status):
            accept = self.accept if self.handler is None else None
            listen = ["tcp://127.0.0.1:0"]
            await self.gateway.serve_streams(listen, self.handler, setting="s", task_status=task_status, accept=accept)

        (address,) = await nursery.start(serve)
        self.port = int(address.rpartition(":")[2])

    async def connect(self):
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        self.clients.append(stream)
        with trio.fail_after(5):
            while len(self.served) < len(self.clients):
                await turns(1)
        return stream, self.served[-1]

    async def all_gone(self):
        with trio.fail_after(5):
            while self.connections:
                await turns(1)


@pytest.fixture(params=WAYS, ids=lambda epoll: "epoll" if epoll else "tasks")
def epoll(request):
    return request.param


@pytest.fixture
async def start(epoll):
    """Start brokers and servers; all of it is over at the end of the test."""
    clients = []
    async with trio.open_nursery() as nursery:

        async def starting(server_options=None, journal=None, **limits):
            broker = await nursery.start(_run_broker, journal or HandJournal(automatic=True), limits)
            server = Server(broker, epoll, **(server_options or {}))
            server.clients = clients
            await server.start(nursery)
            return server

        yield starting
        for stream in clients:
            await stream.aclose()
        nursery.cancel_scope.cancel()


async def _run_broker(journal, limits, task_status):
    async with running(journal, **limits) as broker:
        task_status.started(broker)
        await trio.sleep_forever()


async def some(stream, most=65_536):
    with trio.fail_after(5):
        return await stream.receive_some(most)


async def until(condition):
    with trio.fail_after(5):
        while not condition():
            await turns(1)


async def test_what_arrives_is_fed_and_what_a_turn_collects_is_sent(start):
    server = await start()
    stream, echo = await server.connect()
    await stream.send_all(b"hello")
    assert await some(stream) == b"hello"
    assert echo.connection.transport == "tcp"
    assert echo.connection.certificate_subject is None
    assert echo.connection.is_loopback


async def test_many_connections_are_served_and_each_is_told_of_its_end_once(start):
    server = await start()
    pairs = [await server.connect() for _ in range(300)]
    for index, (stream, _) in enumerate(pairs):
        await stream.send_all(b"%d" % index)
    for index, (stream, _) in enumerate(pairs):
        assert await some(stream) == b"%d" % index
    for stream, _ in pairs:
        await stream.aclose()
    await server.all_gone()
    assert [echo.reasons for _, echo in pairs] == [[CloseReason.EOF]] * 300


async def test_a_peer_that_has_sent_all_still_gets_its_answer(start):
    server = await start()
    stream, echo = await server.connect()
    await stream.send_all(b"last words")
    await stream.send_eof()
    assert await some(stream) == b"last words"
    assert await some(stream) == b""
    assert echo.reasons == [CloseReason.EOF]
    await server.all_gone()


async def test_a_half_closed_peer_gets_what_the_kernel_did_not_take_at_once(start):
    server = await start()
    stream, echo = await server.connect()
    body = bytes(20_000_000)
    echo.send(body)
    await turns()
    await stream.send_eof()
    taken = 0
    while data := await some(stream, 1_000_000):
        taken += len(data)
    assert taken == len(body)
    await server.all_gone()


async def test_a_reset_is_a_lost_connection(start):
    server = await start()
    stream, echo = await server.connect()
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    stream.socket.close()
    await until(lambda: echo.reasons)
    assert echo.reasons == [CloseReason.ERROR]
    await server.all_gone()


async def test_a_violation_is_answered_counted_and_logged_and_others_live_on(start):
    server = await start()
    good, _ = await server.connect()
    bad, echo = await server.connect()
    await bad.send_all(b"bad")
    assert await some(bad) == b"goodbye"
    assert await some(bad) == b""
    assert echo.reasons == [CloseReason.VIOLATION]
    assert server.broker.counters["violations"] == 1
    assert [event for _, event, _ in server.log.lines] == ["protocol violation"]
    await good.send_all(b"x")
    assert await some(good) == b"x"


async def test_a_receiver_that_fails_ends_its_own_connection_only(start):
    server = await start()
    good, _ = await server.connect()
    bad, echo = await server.connect()
    await bad.send_all(b"bug")
    assert await some(bad) == b""
    assert echo.reasons == [CloseReason.ERROR]
    assert [event for level, event, _ in server.log.lines if level == "error"] == ["a connection failed"]
    await good.send_all(b"x")
    assert await some(good) == b"x"


async def test_a_receiver_that_fails_at_the_end_harms_nobody(start):
    server = await start()
    stream, echo = await server.connect()
    echo.ended = lambda reason: 1 / 0
    await stream.aclose()
    await server.all_gone()
    assert [event for level, event, _ in server.log.lines if level == "error"] == ["a connection failed"]


async def test_what_fails_while_a_connection_is_accepted_ends_it(start):
    server = await start()
    failing = trio.Event()

    def accept(connection, served):
        failing.set()
        raise ValueError("bug")

    server.make = accept
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    assert await some(stream) == b""
    assert failing.is_set()
    await server.all_gone()
    await stream.aclose()


async def test_a_goodbye_is_read_though_the_peer_has_sent_more(start):
    server = await start()
    stream, echo = await server.connect()
    await stream.send_all(b"quit")
    await until(lambda: echo.reasons)
    await stream.send_all(bytes(100_000))
    assert await some(stream) == b"bye"
    assert await some(stream) == b""
    assert echo.reasons == [CloseReason.LOCAL]
    assert echo.got == [b"quit"]


async def test_a_peer_that_does_not_close_is_left_after_a_while(start, monkeypatch):
    monkeypatch.setattr("gateway.runtime.streams.connection.LINGER_S", 0.1)
    monkeypatch.setattr("gateway.runtime.streams.listener.SWEEP_S", 0.05)
    server = await start()
    stream, _ = await server.connect()
    await stream.send_all(b"quit")
    assert await some(stream) == b"bye"
    assert server.connections
    await server.all_gone()


async def test_of_very_many_closing_connections_the_oldest_are_left(start, monkeypatch):
    monkeypatch.setattr(listening, "MOST_LINGERING", 10)
    server = await start()
    pairs = [await server.connect() for _ in range(30)]
    for stream, _ in pairs:
        await stream.send_all(b"quit")
    await until(lambda: all(echo.reasons for _, echo in pairs))
    assert len(server.connections) == 10
    assert [await some(stream) for stream, _ in pairs] == [b"bye"] * 30


async def test_what_an_aborted_connection_would_have_sent_is_dropped(start):
    server = await start()
    stream, echo = await server.connect()
    echo.send(b"never")
    echo.connection.abort()
    assert await some(stream) == b""
    await server.all_gone()
    assert echo.reasons == [CloseReason.ERROR]


async def test_another_receiver_takes_the_place_of_the_first_which_is_not_told(start):
    server = await start()
    stream, first = await server.connect()
    second = Echo(first.connection, [])
    first.feed = lambda data: first.connection.attach(second)
    await stream.send_all(b"one")
    await until(lambda: first.connection._receiver is second)
    await stream.send_all(b"two")
    assert await some(stream) == b"two"
    await stream.aclose()
    await server.all_gone()
    assert (first.reasons, second.reasons) == ([], [CloseReason.EOF])


async def test_a_receiver_that_comes_after_the_end_is_told_of_it(start):
    server = await start()
    stream, first = await server.connect()
    await stream.send_all(b"quit")
    assert await some(stream) == b"bye"
    late = Echo(first.connection, [])
    first.connection.attach(late)
    await until(lambda: late.reasons)
    assert late.reasons == [CloseReason.LOCAL]


async def test_a_silent_peer_is_ended_and_a_trickle_is_silence(start):
    server = await start({"idle_timeout_s": 0.2})
    _, one = await server.connect()
    trickling, two = await server.connect()
    alive, three = await server.connect()
    large, four = await server.connect()
    with trio.fail_after(5):
        while not (one.reasons and two.reasons):
            await trio.sleep(0.05)
            if not two.reasons:
                await trickling.send_all(b"part")
            await alive.send_all(b"whole")
            await large.send_all(b"part" * 300)
    assert one.reasons == two.reasons == [CloseReason.IDLE]
    assert three.reasons == four.reasons == []
    assert server.broker.counters["idle"] == 2


async def test_a_deadline_ends_a_connection_whatever_comes_unless_another_receiver_is_there(start):
    server = await start({"deadline_s": 0.2})
    busy, one = await server.connect()
    _, two = await server.connect()
    two.connection.attach(two)
    with trio.fail_after(5):
        while not one.reasons:
            await busy.send_all(b"x")
            await trio.sleep(0.05)
    assert one.reasons == [CloseReason.IDLE]
    assert two.reasons == []


async def test_a_peer_that_does_not_read_is_not_read_from_until_it_does(start):
    server = await start(outgoing_bytes=65_536)
    stream, echo = await server.connect()
    with trio.move_on_after(0.5) as patience:
        while True:
            await stream.send_all(bytes(65_536))
    assert patience.cancelled_caught
    assert echo.connection.resting
    assert echo.connection.heard_at == math.inf
    held_back = len(echo.got)
    await turns(20)
    assert len(echo.got) == held_back
    with trio.fail_after(5):
        while echo.connection.resting:
            await stream.receive_some(1_000_000)
        while len(echo.got) == held_back:
            await stream.receive_some(1_000_000)
    assert echo.connection.heard_at < math.inf


async def test_a_peer_that_does_not_read_is_still_read_from_if_its_front_end_is_told(start):
    told = []

    class Sink:
        def congested(self):
            told.append("congested")

        def decongested(self):
            told.append("decongested")

    server = await start(outgoing_bytes=65_536)
    stream, echo = await server.connect()
    echo.connection.watch(Sink())
    echo.send(bytes(20_000_000))
    await until(lambda: told)
    await stream.send_all(b"part")
    await until(lambda: echo.got)
    while told == ["congested"]:
        await some(stream, 1_000_000)
    assert told == ["congested", "decongested"]


async def test_nobody_is_read_from_while_the_journal_is_behind_and_silence_does_not_count_then(start):
    server = await start({"idle_timeout_s": 0.3})
    stream, echo = await server.connect()
    with holding(server.broker.flow):
        await stream.send_all(b"hello")
        await trio.sleep(0.6)
        assert echo.got == []
        assert echo.reasons == []
    assert await some(stream) == b"hello"
    await until(lambda: echo.reasons)
    assert echo.reasons == [CloseReason.IDLE]


@contextmanager
def holding(flow):
    """As if the open batch were full."""
    limit, flow._open_batch_bytes = flow._open_batch_bytes, -1
    yield
    flow._open_batch_bytes = limit
    flow.batch_taken()


async def test_a_slow_peer_closes_the_gate_for_a_moment_only(start):
    server = await start()
    stream, _ = await server.connect()
    server.broker.flow.fell_behind(trio.current_time())
    await stream.send_all(b"hello")
    await turns(1)
    assert server.broker.flow.holding
    assert await some(stream) == b"hello"
    assert not server.broker.flow.holding
    server.broker.flow.caught_up()


async def test_who_waits_while_nobody_is_read_from_costs_no_turns(start):
    server = await start()
    stream, echo = await server.connect()
    with holding(server.broker.flow):
        await stream.send_all(b"hello")
        await turns()
        counted = Turns()
        trio.lowlevel.add_instrument(counted)
        await trio.sleep(0.3)
        trio.lowlevel.remove_instrument(counted)
        assert counted.number < 20
        assert echo.got == []
    assert await some(stream) == b"hello"


async def test_a_connection_that_is_not_read_from_costs_no_turns(start):
    server = await start(outgoing_bytes=65_536)
    stream, echo = await server.connect()
    echo.send(bytes(20_000_000))
    await turns()
    await stream.send_all(b"hello")
    await until(lambda: echo.connection.resting)
    await stream.send_all(b"hello")
    await trio.sleep(0.1)  # the gate
    counted = Turns()
    trio.lowlevel.add_instrument(counted)
    await trio.sleep(0.3)
    trio.lowlevel.remove_instrument(counted)
    assert counted.number < 20


class Turns(trio.abc.Instrument):
    def __init__(self):
        self.number = 0

    def after_io_wait(self, timeout):
        self.number += 1


async def test_a_flood_keeps_nobody_waiting_for_more_than_two_turns_of_each_other(start, monkeypatch):
    monkeypatch.setattr(poller, "TURN_S", 0.0)  # a turn is as short as can be: one connection
    server = await start()
    floods = [await server.connect() for _ in range(5)]
    stream, quiet = await server.connect()
    order = []
    for _, echo in [*floods, (stream, quiet)]:
        echo.feed = lambda data, echo=echo: order.append(echo)
    async with trio.open_nursery() as nursery:
        for flooding, _ in floods:
            nursery.start_soon(flood, flooding)
        await until(lambda: len(order) > 100)
        for _ in range(5):
            before = len(order)
            os.write(stream.socket.fileno(), b"ping")  # at once: no turn goes by
            await until(lambda: quiet in order[before:])  # noqa: B023 - called at once
            waited = order[before : order.index(quiet, before)]
            assert max(waited.count(echo) for _, echo in floods) <= 2
        nursery.cancel_scope.cancel()


async def flood(stream):
    while True:
        await stream.send_all(bytes(262_144))


async def test_a_turn_is_bounded_however_many_have_something(start, epoll):
    server = await start()
    pairs = [await server.connect() for _ in range(300)]
    fed_in_turn = [0]

    class Counted(trio.abc.Instrument):
        def after_io_wait(self, timeout):
            fed_in_turn.append(0)

    def feed(data):
        fed_in_turn[-1] += 1

    for _, echo in pairs:
        echo.feed = feed
    trio.lowlevel.add_instrument(Counted())
    for stream, _ in pairs:
        os.write(stream.socket.fileno(), b"x")
    await until(lambda: sum(fed_in_turn) == 300)
    assert max(fed_in_turn) <= (poller.PER_TURN if epoll else 300)


async def test_a_task_of_a_connection_ends_with_it(start):
    server = await start()
    stream, echo = await server.connect()
    done = []

    async def check():
        try:
            await trio.sleep_forever()
        finally:
            done.append("cancelled")

    echo.connection.start(check)
    await turns()
    await stream.aclose()
    await until(lambda: done)
    await server.all_gone()
    assert done == ["cancelled"]


async def test_a_task_of_a_connection_may_attach_and_its_failure_ends_the_connection(start):
    server = await start()
    stream, echo = await server.connect()

    async def check():
        await trio.lowlevel.checkpoint()
        echo.send(b"welcome")
        raise ValueError("bug")

    echo.connection.start(check)
    assert await some(stream) == b"welcome"
    assert await some(stream) == b""
    assert echo.reasons == [CloseReason.ERROR]


async def test_draining_stops_reading_and_sends_what_is_there(start):
    server = await start()
    stream, echo = await server.connect()
    waiting, other = await server.connect()
    echo.send(bytes(3_000_000))
    await turns()
    server.broker.start_draining()
    await until(lambda: echo.reasons and other.reasons)
    assert echo.reasons == other.reasons == [CloseReason.SHUTDOWN]
    taken = 0
    while data := await some(stream, 1_000_000):
        taken += len(data)
    assert taken == 3_000_000
    assert await some(waiting) == b""
    await server.all_gone()


async def test_a_handler_may_attach_and_return(start):
    served = []

    async def handler(connection):
        assert await connection.receive() == b"first"
        connection.attach(Echo(connection, served))

    server = await start({"handler": handler})
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    server.clients.append(stream)
    await stream.send_all(b"first")
    await until(lambda: served)
    await stream.send_all(b"second")
    assert await some(stream) == b"second"
    await stream.aclose()
    await server.all_gone()
    assert served[0].reasons == [CloseReason.EOF]


async def test_what_feed_raises_is_raised_by_pump(start):
    raised = []

    def feed(data):
        raise KeyError(data)

    async def handler(connection):
        try:
            await connection.pump(feed)
        except KeyError as error:
            raised.append(error)

    server = await start({"handler": handler})
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    server.clients.append(stream)
    await stream.send_all(b"x")
    assert await some(stream) == b""
    assert len(raised) == 1
    assert server.log.lines == []
