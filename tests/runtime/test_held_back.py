"""Receivers: who is not read from now, who waits for whom, and who is silent for too long?"""

from __future__ import annotations

import math
import os
import threading
import time
from contextlib import contextmanager

import trio

from gateway.api.stream import CloseReason
from gateway.runtime.streams import poller
from tests.runtime.receivers import some, until
from tests.runtime.support import turns


async def test_a_silent_peer_is_ended_and_a_trickle_is_silence(start, autojump_clock):
    autojump_clock.autojump_threshold = 0.002
    server = await start({"idle_timeout_s": 0.2})
    _, one = await server.connect()
    trickling, two = await server.connect()
    alive, three = await server.connect()
    large, four = await server.connect()
    with trio.fail_after(30):
        while not (one.reasons and two.reasons):
            await trio.sleep(0.05)
            if not two.reasons:
                await trickling.send_all(b"part")
            await alive.send_all(b"whole")
            await large.send_all(b"part" * 300)
    assert one.reasons == two.reasons == [CloseReason.IDLE]
    assert three.reasons == four.reasons == []
    assert server.broker.counters["idle"] == 2


async def test_a_deadline_ends_a_connection_whatever_comes_unless_another_receiver_is_there(start, autojump_clock):
    autojump_clock.autojump_threshold = 0.002
    server = await start({"deadline_s": 0.2})
    busy, one = await server.connect()
    _, two = await server.connect()
    two.connection.attach(two)
    with trio.fail_after(30):
        while not one.reasons:
            await busy.send_all(b"x")
            await trio.sleep(0.05)
    assert one.reasons == [CloseReason.IDLE]
    assert two.reasons == []


async def test_a_peer_that_does_not_read_is_not_read_from_until_it_does(start):
    server = await start(outgoing_bytes=65_536)
    stream, echo = await server.connect()
    with trio.fail_after(30):
        while not echo.connection.resting:
            with trio.move_on_after(0.1):
                await stream.send_all(bytes(65_536))
    assert echo.connection.heard_at == math.inf
    held_back = len(echo.got)
    await turns(20)
    assert len(echo.got) == held_back
    with trio.fail_after(30):
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


async def test_nobody_is_read_from_while_the_journal_is_behind_and_silence_does_not_count_then(start, autojump_clock):
    autojump_clock.autojump_threshold = 0.002
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


async def test_a_slow_peer_closes_the_gate_for_a_moment_only(start, autojump_clock):
    autojump_clock.autojump_threshold = 0.002
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
        counted = counting()
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
    counted = counting()
    await trio.sleep(0.3)
    trio.lowlevel.remove_instrument(counted)
    assert counted.number < 20


class Turns(trio.abc.Instrument):
    def __init__(self):
        self.number = 0

    def after_io_wait(self, timeout):
        self.number += 1


def counting():
    """Return what counts the turns of the loop from now on."""
    counted = Turns()
    trio.lowlevel.add_instrument(counted)
    return counted


async def two(start):
    """Return a server, and two peers with their receivers."""
    server = await start()
    return server, await server.connect(), await server.connect()


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


class Clock:
    """Time that goes by as a test says."""

    def __init__(self):
        self.now = 1_000.0

    def perf_counter(self):
        return self.now


async def test_who_takes_little_waits_for_one_of_those_who_take_long_and_not_for_all_of_them(start, monkeypatch, epoll):
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock.perf_counter)
    server = await start()
    floods = [await server.connect() for _ in range(20)]
    stream, quiet = await server.connect()
    order = []

    def feed(echo):
        def taken(data):
            order.append(echo)
            clock.now += 0.004

        return taken

    for _, echo in floods:
        echo.feed = feed(echo)
    quiet.feed = lambda data: order.append(quiet)
    async with trio.open_nursery() as nursery:
        for flooding, _ in floods:
            nursery.start_soon(flood, flooding)
        await until(lambda: len(order) > 100)
        waited = []
        for _ in range(50):
            before = len(order)
            os.write(stream.socket.fileno(), b"ping")
            await until(lambda: quiet in order[before:])  # noqa: B023 - called at once
            waited.append(order.index(quiet, before) - before)
        nursery.cancel_scope.cancel()
    assert all(order.count(echo) > 5 for _, echo in floods)
    assert max(waited) <= (2 if epoll else 60)


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


async def test_a_slow_reader_keeps_nobody_waiting_and_gets_all_when_it_reads(start):
    server = await start()
    slow, echo = await server.connect()
    brisk, _ = await server.connect()
    body = os.urandom(1_000_000)
    for _ in range(20):
        echo.send(body)
        await turns(1)
    for _ in range(10):
        await brisk.send_all(b"ping")
        assert await some(brisk) == b"ping"
    taken = bytearray()
    while len(taken) < 20 * len(body):
        taken += await some(slow, 1_000_000)
    assert taken == body * 20


async def test_a_handler_that_takes_its_time_at_the_end_costs_no_turns(start):
    ended = trio.Event()
    let_go = trio.Event()

    async def handler(connection):
        await connection.pump(lambda data: connection.close())
        ended.set()
        await let_go.wait()

    server = await start({"handler": handler})
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    server.clients.append(stream)
    await stream.send_all(b"x")
    await ended.wait()
    await stream.send_all(b"what nobody reads")
    counted = counting()
    await trio.sleep(0.3)
    trio.lowlevel.remove_instrument(counted)
    assert counted.number < 20
    let_go.set()
    assert await some(stream) == b""


async def test_what_comes_while_others_are_read_is_read_in_the_same_turn_after_they_were_answered(start, epoll, monkeypatch):
    monkeypatch.setattr(poller, "TURN_S", 60.0)
    _, (stream, first), (other, second) = await two(start)
    counted = counting()
    fed = []

    def feed_first(data):
        fed.append(("first", counted.number))
        first.send(b"answer")
        os.write(other.socket.fileno(), b"meanwhile")

    def feed_second(data):
        fed.append(("second", counted.number))
        fed.append((os.read(stream.socket.fileno(), 100), counted.number))

    first.feed, second.feed = feed_first, feed_second
    os.write(stream.socket.fileno(), b"x")
    await until(lambda: len(fed) == 3)
    assert [what for what, _ in fed] == ["first", "second", b"answer"]
    assert (len({turn for _, turn in fed}) == 1) == epoll


async def test_nobody_is_read_on_for_ever(start, epoll):
    server = await start()
    pairs = [await server.connect() for _ in range(2)]
    counted = counting()
    fed = []

    def feed(other):
        def fed_one(data):
            fed.append(counted.number)
            os.write(other.socket.fileno(), b"x")

        return fed_one

    pairs[0][1].feed, pairs[1][1].feed = feed(pairs[1][0]), feed(pairs[0][0])
    os.write(pairs[0][0].socket.fileno(), b"x")
    await until(lambda: len(fed) > 2_000)
    assert max(fed.count(turn) for turn in set(fed)) <= poller.PER_TURN


async def test_while_a_commit_is_under_way_its_thread_is_given_way_to(start, epoll):
    server, (stream, first), (other, second) = await two(start)
    counted = counting()
    fed = []

    def feed_first(data):
        fed.append(counted.number)
        os.write(other.socket.fileno(), b"meanwhile")

    first.feed, second.feed = feed_first, lambda data: fed.append(counted.number)
    server.broker.committer.commit_since = 1.0
    os.write(stream.socket.fileno(), b"x")
    await until(lambda: len(fed) == 2)
    server.broker.committer.commit_since = 0.0
    assert fed[0] < fed[1]


async def test_packets_that_come_one_by_one_cost_no_turns_of_the_loop_while_nobody_else_wants_one(start, epoll, monkeypatch):
    for name in ("pause.PAUSE_S", "poller.TURN_S"):  # however long the machine stands still between two packets
        monkeypatch.setattr(f"gateway.runtime.streams.{name}", 5.0)
    for name in ("streams.listener.SWEEP_S", "alarms.LOOK_S"):
        monkeypatch.setattr(f"gateway.runtime.{name}", 600.0)
    server = await start()
    stream, echo = await server.connect()
    await trio.testing.wait_all_tasks_blocked()
    counted = counting()
    heard = []
    enough = trio.Event()

    def feed(data):
        heard.append(counted.number)
        if len(heard) == 30:
            enough.set()
        else:
            threading.Timer(0.01, os.write, (stream.socket.fileno(), b"x")).start()

    echo.feed = feed
    os.write(stream.socket.fileno(), b"x")
    with trio.fail_after(60):
        await enough.wait()
    assert (len(set(heard)) < 15) == epoll
