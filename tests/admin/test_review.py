"""What does a question cost the broker, and is who can't be answered told so?"""

from __future__ import annotations

import time

import pytest
import trio

from gateway.admin import control
from gateway.admin.client import ask
from gateway.admin.questions import open_channel
from gateway.errors import Overloaded, PreconditionFailed
from gateway.journal.memory import MemoryJournal
from gateway.model.declare import QueueSpec


async def asked(directory, question, **params):
    return await trio.to_thread.run_sync(lambda: ask(directory, question, **params))


@pytest.mark.parametrize("pattern", ["a" * 1_000_000, "*" * 1_000_000, "[" * 1_000_000])
async def test_a_pattern_without_end_does_not_hold_up_the_broker(served, tmp_path, pattern):
    async with served(tmp_path):
        started = time.perf_counter()
        with pytest.raises(PreconditionFailed, match="at most 4096 bytes"):
            await asked(tmp_path, "queues", pattern=pattern)
        assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize("pattern", ["*a" * 2_000 + "b", "[a]*" * 1_000, "?" * 4_096])
async def test_a_pattern_of_many_stars_is_soon_tried(served, tmp_path, pattern):
    async with served(tmp_path) as broker:
        channel = open_channel(broker)
        await channel.outcome(channel.declare_queue(QueueSpec("a" * 250)))
        started = time.perf_counter()
        await asked(tmp_path, "queues", pattern=pattern)
        assert time.perf_counter() - started < 0.5
        channel.close()


async def test_one_too_many_is_told_so_and_not_that_no_broker_runs(served, tmp_path, monkeypatch):
    monkeypatch.setattr(control, "MAX_CLIENTS", 1)
    async with served(tmp_path):
        stream = await trio.open_unix_socket(str(tmp_path / "control.sock"))
        await stream.send_all(b'{"question": "hello"}\n')
        await stream.receive_some()
        with pytest.raises(Overloaded, match="1 others are being answered"):
            await asked(tmp_path, "hello")
        await stream.aclose()


class Disk(MemoryJournal):
    """A journal on a disk that may be full."""

    full = False

    @property
    def alarm(self):
        return "no room" if self.full else None


async def test_a_policy_that_makes_room_is_taken_while_the_disk_is_full(served, tmp_path):
    async with served(tmp_path, journal := Disk()) as broker:
        channel = open_channel(broker)
        await channel.outcome(channel.declare_queue(QueueSpec("q")))
        journal.full = True
        await asked(tmp_path, "hello")  # a turn ends
        with pytest.raises(Overloaded):
            await channel.outcome(channel.declare_queue(QueueSpec("q2")))
        row = await asked(tmp_path, "policy_set", name="p", policy={"pattern": "q", "definition": {"max-length": 1}})
        assert row["queues"] == 1
        await asked(tmp_path, "policy_clear", name="p")
        assert await asked(tmp_path, "policy_list") == []
        channel.close()
