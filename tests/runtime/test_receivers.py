"""Receivers have no tasks: who feeds them, and tells them of the end?"""

from __future__ import annotations

import os
import socket
import struct

import pytest
import trio

from gateway.api.stream import CloseReason
from gateway.runtime.streams import listener as listening
from tests.runtime.receivers import Echo, Server, some, until
from tests.runtime.support import HandJournal, running, turns

RESET = struct.pack("ii", 1, 0)


@pytest.fixture
def patient(autojump_clock):
    """How long a connection lingers is not a matter of how fast the machine is: time passes when nothing else does."""
    autojump_clock.autojump_threshold = 0.002


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


async def test_a_half_closed_peer_gets_what_the_kernel_did_not_take_at_once(start, patient):
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
    await stream.aclose()
    await server.all_gone()


async def test_a_goodbye_is_read_though_the_peer_has_sent_more(start, patient):
    server = await start()
    stream, echo = await server.connect()
    await stream.send_all(b"quit")
    await until(lambda: echo.reasons)
    await stream.send_all(bytes(100_000))
    assert await some(stream) == b"bye"
    assert await some(stream) == b""
    assert echo.reasons == [CloseReason.LOCAL]
    assert echo.got == [b"quit"]


async def test_a_peer_that_does_not_close_is_left_after_a_while(start, monkeypatch, patient):
    monkeypatch.setattr("gateway.runtime.streams.connection.LINGER_S", 0.1)
    server = await start()
    stream, _ = await server.connect()
    await stream.send_all(b"quit")
    assert await some(stream) == b"bye"
    assert server.connections
    await server.all_gone()


async def test_of_very_many_closing_connections_the_oldest_are_left(start, monkeypatch, patient):
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


async def test_draining_stops_reading_and_sends_what_is_there(start, patient):
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


async def test_a_closing_connection_keeps_nothing_of_what_it_served(start, patient):
    server = await start()
    stream, echo = await server.connect()
    connection = echo.connection
    sink = Echo(connection, [])
    connection.watch(sink)
    connection.publisher = object()
    await stream.send_all(b"quit")
    assert await some(stream) == b"bye"
    assert connection in server.connections
    kept = [getattr(connection, name) for kind in type(connection).__mro__ for name in getattr(kind, "__slots__", ())]
    assert echo not in kept
    assert sink not in kept
    assert connection.publisher is None
    assert connection.out == []


async def test_all_are_told_when_the_broker_is_killed(epoll):
    served = []
    async with running(HandJournal()) as broker, trio.open_nursery() as nursery:
        server = Server(broker, epoll)
        server.served = served
        await server.start(nursery)
        pairs = [await server.connect() for _ in range(5)]
        nursery.cancel_scope.cancel()
    assert [echo.reasons for echo in served] == [[CloseReason.SHUTDOWN]] * 5
    assert all(echo.connection.number == -1 for echo in served)
    for stream, _ in pairs:
        stream.socket.close()


async def test_who_may_be_served_by_a_handler_or_by_a_receiver_is_not_served_by_both(start):
    server = await start()
    for wrong in ({}, {"handler": server.accept, "accept": server.accept}):
        with pytest.raises(TypeError):
            await server.gateway.serve_streams(["tcp://127.0.0.1:0"], setting="s", task_status=trio.TASK_STATUS_IGNORED, **wrong)


async def test_what_is_sent_does_not_wait_for_more(start):
    server = await start()
    _, echo = await server.connect()
    with socket.socket(fileno=os.dup(echo.connection.number)) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
