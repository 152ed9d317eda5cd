"""Who comes in, and is read from at once?"""

from __future__ import annotations

import os
import socket
import threading

import pytest
import trio

from gateway.api.address import stream_address
from gateway.config import Transport
from gateway.runtime.streams.door import PER_TURN, Door, Serving
from gateway.runtime.streams.entrance import Entrance
from tests.runtime.receivers import Echo, some, until
from tests.runtime.support import turns

LOOPBACK = ("127.0.0.1", 1)


@pytest.fixture(autouse=True)
def no_hurry(monkeypatch):
    monkeypatch.setattr("gateway.runtime.streams.door.TURN_S", 60)


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0), backlog=200) as sock:
        sock.setblocking(False)
        yield sock


@pytest.fixture
def newcomers(listening):
    """Returns how many clients wait to be accepted, and have sent something."""
    with_sockets = []

    def come(count, data=b"x"):
        for _ in range(count):
            sock = socket.create_connection(listening.getsockname())
            with_sockets.append(sock)
            if data:
                sock.send(data)

    yield come
    for sock in with_sockets:
        sock.close()


class Rounds(trio.abc.Instrument):
    """How often the loop went its way round."""

    number = 0

    def before_io_wait(self, timeout):
        self.number += 1


def door(listening, server):
    entrance = Entrance(stream_address("tcp://127.0.0.1:1"), Transport(), (), None, changed=None, later=None)
    return Door(listening, entrance, Serving(accept=server.accept), server.gateway._listeners)


async def test_what_newcomers_have_sent_is_read_at_once(start, listening, newcomers):
    server = await start()
    newcomers(3)
    assert door(listening, server).let_in() == 3
    assert [echo.got for echo in server.served] == [[b"x"]] * 3


async def test_who_has_sent_nothing_yet_is_read_from_later(start, listening, newcomers):
    server = await start()
    newcomers(1, b"")
    assert door(listening, server).let_in() == 1
    (echo,) = server.served
    assert echo.got == []
    with socket.create_connection(listening.getsockname()) as another:
        another.send(b"late")
        assert door(listening, server).let_in() == 1
    await until(lambda: [b"late"] in [one.got for one in server.served])
    await until(lambda: len(server.connections) == 1)


async def test_nobody_is_read_from_while_publishers_are_held_back_but_newcomers_come_in(start, listening, newcomers):
    server = await start()
    flow = server.broker.flow
    flow.fell_behind(trio.current_time() + 3_600)
    newcomers(2)
    assert door(listening, server).let_in() == 2
    stream, _ = await server.connect()
    await stream.send_all(b"x")
    await turns(20)
    assert [echo.got for echo in server.served] == [[], [], []]
    flow.caught_up()
    assert await some(stream) == b"x"
    await until(lambda: [echo.got for echo in server.served] == [[b"x"]] * 3)


async def test_nobody_is_read_from_at_once_while_memory_is_short(start, listening, newcomers):
    resident = [0]
    server = await start(memory_high_bytes=1_000)
    alarms = server.broker.alarms
    alarms._resident = lambda: resident[0]
    resident[0] = 1_100
    alarms.look()
    assert alarms.level
    newcomers(1)
    assert door(listening, server).let_in() == 1
    (echo,) = server.served
    assert echo.got == [], "whose it is has to be known to those who are asked for memory"
    await until(lambda: echo.got == [b"x"])


async def test_of_very_many_newcomers_only_some_come_in_before_others_have_their_turn(start, listening, newcomers):
    server = await start()
    newcomers(PER_TURN + 2)
    one = door(listening, server)
    assert [one.let_in(), one.let_in(), one.let_in()] == [PER_TURN, 2, 0]


async def test_newcomers_that_take_long_come_in_one_by_one(start, listening, newcomers, monkeypatch):
    monkeypatch.setattr("gateway.runtime.streams.door.TURN_S", 0.0)
    server = await start()
    newcomers(2)
    one = door(listening, server)
    assert [one.let_in(), one.let_in(), one.let_in()] == [1, 1, 0]


async def test_newcomers_that_come_one_by_one_cost_no_turns_of_the_loop_while_nobody_else_wants_one(start, epoll, monkeypatch):
    for name in ("pause.PAUSE_S", "poller.TURN_S"):  # however long the machine stands still between two of them
        monkeypatch.setattr(f"gateway.runtime.streams.{name}", 5.0)
    for name in ("streams.listener.SWEEP_S", "alarms.LOOK_S"):
        monkeypatch.setattr(f"gateway.runtime.{name}", 600.0)
    server = await start()
    await trio.testing.wait_all_tasks_blocked()
    counted = Rounds()
    trio.lowlevel.add_instrument(counted)
    came, sockets, threads = [], [], []
    enough = trio.Event()

    def knock():
        sockets.append(socket.create_connection(("127.0.0.1", server.port)))

    def make(connection, served):
        came.append(counted.number)
        if len(came) == 20:
            enough.set()
        else:
            threads.append(threading.Timer(0.01, knock))
            threads[-1].start()
        return Echo(connection, served)

    server.make = make
    knock()
    with trio.fail_after(60):
        await enough.wait()
    trio.lowlevel.remove_instrument(counted)
    for thread in threads:
        thread.join()
    for sock in sockets:
        sock.close()
    assert (len(set(came)) < 10) == epoll


async def test_who_breaks_the_rules_with_the_first_bytes_is_gone(start, listening, newcomers):
    server = await start()
    newcomers(1, b"bad")
    assert door(listening, server).let_in() == 1
    (echo,) = server.served
    await until(lambda: echo.reasons)
    assert server.broker.counters["violations"] == 1


async def test_a_closed_connection_has_no_number_any_more(start):
    server = await start()
    stream, echo = await server.connect()
    await stream.aclose()
    await server.all_gone()
    assert echo.connection.number == -1


class Gone:
    """A listening socket whose next peer's socket can't be set to anything, as macOS says of a peer that has left."""

    def __init__(self, number):
        self.numbers = [number]

    def _accept(self):
        if not self.numbers:
            raise BlockingIOError
        return self.numbers.pop(), LOOPBACK


@pytest.mark.skipif(not hasattr(os, "O_PATH"), reason="what stands for such a socket is there on Linux only")
async def test_a_peer_that_is_gone_before_it_is_served_ends_nothing(start):
    server = await start()
    number = os.open("/", os.O_PATH)
    assert door(Gone(number), server).let_in() == 1
    assert not server.connections
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
