"""What does a question cost the broker, and is who can't be answered told so?"""

from __future__ import annotations

import json
import time
from functools import partial

import pytest
import trio
from hypothesis import given, strategies

from gateway.admin import control
from gateway.admin import parts as admin_parts
from gateway.admin.client import ask
from gateway.admin.definitions import export, importing
from gateway.admin.offline import new_engine
from gateway.admin.parts import SLICE_S, at_once, joined, split
from gateway.admin.questions import open_channel
from gateway.errors import Overloaded, PreconditionFailed
from gateway.journal.memory import MemoryJournal
from gateway.model.declare import QueueSpec


async def asked(directory, question, **params):
    return await trio.to_thread.run_sync(lambda: ask(directory, question, **params))


@pytest.mark.parametrize("pattern", ["a" * 200_000, "*" * 200_000, "[" * 200_000])
async def test_a_pattern_without_end_does_not_hold_up_the_broker(served, tmp_path, pattern):
    async with served(tmp_path):
        started = time.perf_counter()
        with pytest.raises(PreconditionFailed, match="at most 4096 bytes"):
            await asked(tmp_path, "queues", pattern=pattern)
        assert time.perf_counter() - started < 15


@pytest.mark.parametrize("pattern", ["*a" * 2_000 + "b", "[a]*" * 1_000, "?" * 4_096])
async def test_a_pattern_of_many_stars_is_soon_tried(served, tmp_path, pattern):
    async with served(tmp_path) as broker:
        channel = open_channel(broker)
        await channel.outcome(channel.declare_queue(QueueSpec("a" * 250)))
        started = time.perf_counter()
        await asked(tmp_path, "queues", pattern=pattern)
        assert time.perf_counter() - started < 15
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


# -- definitions that are many --------------------------------------------------------


def many(amount):
    return {
        "queues": [{"name": f"q{n}", "vhost": "/", "durable": True, "arguments": {"x-max-length": 10}} for n in range(amount)],
        "exchanges": [{"name": f"e{n}", "vhost": "/", "type": "topic", "durable": True} for n in range(amount)],
        "bindings": [
            {"source": f"e{n}", "destination": f"q{n}", "destination_type": "queue", "vhost": "/", "routing_key": "#"}
            for n in range(amount)
        ],
    }  # fmt: skip


class Looks:
    """Stands for `time`: a slice is over after ten looks, on every machine; `turns` are those in which somebody looked."""

    def __init__(self):
        self.turn = 0
        self.turns = set()
        self._now = 0.0

    def perf_counter(self):
        self._now += SLICE_S / 10
        self.turns.add(self.turn)
        return self._now


async def turns_taken(looks, during):
    """Do something while somebody else wants each turn; return in how many turns it was done, and what came of it."""
    results = []
    looks.turns.clear()

    async def act():
        results.append(await during())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(act)
        while not results:
            await trio.lowlevel.checkpoint()
            looks.turn += 1
    return len(looks.turns), results[0]


async def test_an_import_and_an_export_of_many_definitions_let_others_have_their_turn(served, tmp_path, monkeypatch):
    looks = Looks()
    for module in (admin_parts, control):
        monkeypatch.setattr(module, "time", looks)
    async with served(tmp_path) as broker:
        data = many(2_000)
        turns, (taken, *skipped) = await turns_taken(looks, partial(asked, tmp_path, "definitions_import", data=data))
        assert taken == {"exchanges": 2_000, "queues": 2_000, "bindings": 2_000}
        assert skipped == []
        assert turns > 500  # six thousand things, nine in a slice
        turns, parts = await turns_taken(looks, partial(asked, tmp_path, "definitions_export"))
        assert joined(parts) == export(broker.engine)
        assert len(joined(parts)["bindings"]) == 2_000
        assert turns > 500


async def test_a_part_of_a_definitions_file_that_is_wrong_is_named_by_its_place_in_the_file(served, tmp_path):
    data = many(3_000)
    data["queues"].append({"name": 5, "vhost": "/"})
    async with served(tmp_path) as broker:
        with pytest.raises(PreconditionFailed, match=r"queues\[3000\]"):
            await asked(tmp_path, "definitions_import", data=data)
        assert not broker.engine.vhost("/").queues


@pytest.mark.parametrize("known", [0, 1, 2])
def test_what_exists_and_what_is_new_may_come_in_any_order(known):
    engine = new_engine(None)
    data = many(3)
    at_once(importing(engine, {"queues": [data["queues"][known]]}))
    assert at_once(importing(engine, data)).taken == {"exchanges": 3, "queues": 3, "bindings": 3}
    assert at_once(importing(engine, data)).taken == {"exchanges": 3, "queues": 3, "bindings": 3}


async def test_two_imports_at_once_take_turns_and_both_are_taken(served, tmp_path):
    async with served(tmp_path) as broker:
        reports = []

        async def one():
            reports.append(await asked(tmp_path, "definitions_import", data=many(500)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            nursery.start_soon(one)
        assert [len(report) for report in reports] == [1, 1]
        assert len(broker.engine.vhost("/").queues) == 500


def test_what_was_changed_while_a_large_file_was_applied_is_told_and_the_rest_is_taken():
    engine = new_engine(None)
    work = importing(engine, many(300))
    while not engine.vhost("/").queues:
        next(work)
    engine.definitions.declare_queue("/", QueueSpec("q299", durable=False), None)
    report = at_once(work)
    assert report.taken == {"exchanges": 300, "queues": 299, "bindings": 300}
    assert [one.path for one in report.skipped] == ["queues[299]"]
    assert "it fits no more" in report.skipped[0].reason


@given(strategies.dictionaries(strategies.text(max_size=3), strategies.lists(strategies.text()) | strategies.integers()))
def test_what_is_split_is_joined_again(data):
    assert joined(json.loads(json.dumps(part)) for part in split(data)) == data


async def test_parts_without_end_are_refused(served, tmp_path, monkeypatch):
    monkeypatch.setattr(control, "MAX_DEFINITIONS_BYTES", 100_000)
    async with served(tmp_path):
        with pytest.raises(PreconditionFailed, match="definitions have at most 100000 bytes"):
            await asked(tmp_path, "definitions_import", data=many(1_000))
        assert await asked(tmp_path, "policy_list") == []
