"""A reader waits by itself only while nobody else has anything to do."""

from __future__ import annotations

import select
import socket
import sys

import pytest
import trio

from gateway.runtime.streams import pause
from gateway.runtime.streams.pause import Pause

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="only Linux has such sets")


@pytest.fixture
async def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
async def waiting(pair):
    """A pause on one end of a pair, in a loop that is at rest."""
    waiting = Pause(pair[0].fileno())
    await trio.testing.wait_all_tasks_blocked()
    yield waiting
    waiting.close()


async def test_it_tells_when_the_descriptor_can_be_read(waiting, pair):
    assert not waiting.wait()
    pair[1].send(b"x")
    assert waiting.wait()


async def test_it_does_not_wait_while_a_task_wants_to_run(waiting, pair):
    pair[1].send(b"x")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 0)
        assert not waiting.wait()
    assert waiting.wait()


async def test_it_does_not_wait_when_something_is_due(waiting, pair):
    pair[1].send(b"x")
    with trio.CancelScope(deadline=trio.current_time() + pause.PAUSE_S / 2):  # noqa: ASYNC100  only that it is there counts
        assert not waiting.wait()
    with trio.CancelScope(deadline=trio.current_time() + 60):  # noqa: ASYNC100
        assert waiting.wait()


async def test_what_others_wait_for_ends_it(waiting, pair):
    ours, theirs = socket.socketpair()
    read = []

    async def read_other():
        await trio.lowlevel.wait_readable(ours)
        read.append(ours.recv(10))

    with ours, theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_other)
            await trio.testing.wait_all_tasks_blocked()
            pair[1].send(b"x")
            assert waiting.wait()
            theirs.send(b"other")
            assert not waiting.wait()
    assert read == [b"other"]


async def test_what_a_thread_says_ends_it(waiting, pair):
    pair[1].send(b"x")
    said = []
    trio.lowlevel.current_trio_token().run_sync_soon(said.append, "word")
    assert not waiting.wait()
    await trio.testing.wait_all_tasks_blocked()
    assert said == ["word"]
    assert waiting.wait()


async def test_what_is_added_is_told_though_the_loop_waits_for_it_too(waiting, pair):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        waiting.add(ours.fileno())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.wait_readable, ours)
            await trio.testing.wait_all_tasks_blocked()
            theirs.send(b"x")
            assert waiting.wait() == ours.fileno()
            pair[1].send(b"x")
            assert waiting.wait() == ours.fileno()
            ours.recv(10)
            assert waiting.wait() == pair[0].fileno()
            theirs.send(b"x")
            waiting.remove(ours.fileno())
            assert not waiting.wait(), "it is the loop's alone"


async def test_it_is_short(waiting, monkeypatch):
    monkeypatch.setattr(pause, "PAUSE_S", 0.05)
    began = trio.current_time()
    assert not waiting.wait()
    assert trio.current_time() - began < 10


async def test_what_is_closed_does_not_wait_and_leaves_no_descriptor(pair):
    one = Pause(pair[0].fileno())
    kernels = one._set
    assert not kernels.closed
    one.close()
    one.close()
    pair[1].send(b"x")
    assert not one.wait()
    assert kernels.closed


@pytest.mark.parametrize("missing", ["trio._core._run", "runner", "io_manager", "runq", "deadlines"])
async def test_where_the_loop_keeps_nothing_of_what_is_asked_nobody_waits(pair, monkeypatch, missing):
    class Parts:
        def __init__(self, **parts):
            self.__dict__.update(parts)

    found = pause._runner()
    parts = {"io_manager": found.io_manager, "runq": found.runq, "deadlines": found.deadlines}
    parts.pop(missing, None)
    if missing == "trio._core._run":
        monkeypatch.setitem(sys.modules, missing, None)
    else:
        monkeypatch.setattr(pause, "_runner", lambda: None if missing == "runner" else Parts(**parts))
    one = Pause(pair[0].fileno())
    pair[1].send(b"x")
    assert not one.wait()
    one.close()
