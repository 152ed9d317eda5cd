"""What does `tidegate queues` say of a running broker, and of a journal alone?"""

from __future__ import annotations

import gc
import json
import re
import sys
import time

import pytest
import trio
from typer.testing import CliRunner

from gateway.admin.client import ask
from gateway.admin.questions import open_channel
from gateway.cli.commands import app
from gateway.journal.sqlite import SqliteJournal
from gateway.model.declare import QueueSpec
from tests.admin.conftest import _served
from tests.admin.journals import fill, rig

NO_ZEROMQ = ("--set", "frontend.zeromq.enabled=false")


def run(*arguments):
    result = CliRunner().invoke(app, list(map(str, arguments)), prog_name="tidegate")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


async def run_beside(*arguments):
    return await trio.to_thread.run_sync(lambda: run(*arguments))


def test_without_a_broker_the_journal_is_shown_with_ages(tmp_path):
    with rig(tmp_path) as found:
        fill(found)
    code, output, _ = run("queues", "--data-dir", tmp_path)
    assert code == 0
    head, *lines = [line.split() for line in output.splitlines()]
    assert head == ["queue", "messages", "bytes", "oldest", "virtual", "host"]
    assert [(line[0], line[1], line[-1]) for line in lines] == [("empty", "0", "/"), ("orders", "14", "/"), ("urgent", "4", "/")]
    assert [line[3] == "-" for line in lines] == [True, False, False]
    by_size = json.loads(run("queues", "--data-dir", tmp_path, "--sort", "bytes", "--name", "*r*", "--json")[1])
    assert [row["name"] for row in by_size["queues"]] == ["orders", "urgent"]
    assert by_size["running"] is False


async def test_a_running_broker_tells_depths_consumers_and_rates(tmp_path):
    async with _served(tmp_path, SqliteJournal(tmp_path, synchronous="OFF")) as broker:
        channel = open_channel(broker)
        for name in ("work", "idle"):
            await channel.outcome(channel.declare_queue(QueueSpec(name)))
        for _ in range(3):
            await channel.send("", "work", b"12345")
        held = (await channel.outcome(channel.get("work"))).result

        async def go_on():
            while True:
                await channel.send("", "work", b"more")
                await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(go_on)
            output = (await run_beside("queues", "--json", "--interval", "0.5", "--data-dir", tmp_path))[1]
            nursery.cancel_scope.cancel()
        answer = json.loads(output)
        idle, work = answer["queues"]
        assert answer["running"] is True
        assert (idle["name"], idle["messages"], idle["in_per_s"], idle["age_ms"]) == ("idle", 0, 0.0, None)
        assert (work["unacked"], work["out_per_s"]) == (1, 0.0)
        assert 0 < work["in_per_s"] < 1_000, "about a hundred"
        assert work["age_ms"] is not None
        code, output, _ = await run_beside("queues", "--no-rates", "--data-dir", tmp_path)
        assert code == 0
        assert output.split()[:9] == ["queue", "ready", "unacked", "total", "bytes", "consumers", "oldest", "in/s", "out/s"]
        channel.ack(held)
        channel.close()


async def test_an_alarm_stands_above_the_table(tmp_path, monkeypatch):
    async with _served(tmp_path, SqliteJournal(tmp_path)):
        monkeypatch.setattr("gateway.admin.questions.alarms", lambda broker: ["the disk is full"])
        output = (await run_beside("queues", "--no-rates", "--data-dir", tmp_path))[1]
        assert output.splitlines()[0] == "ALARM: the disk is full"


async def test_scheduled_messages_are_listed_and_cancelled_for_good(tmp_path):
    from gateway.model.message import Message

    due_ms = int(time.time() * 1000) + 3_600_000
    async with _served(tmp_path, SqliteJournal(tmp_path)) as broker:
        channel = open_channel(broker)
        await channel.outcome(channel.declare_queue(QueueSpec("work")))
        route = channel.route("", "work")
        numbers = [channel.schedule(route, Message(route.address, body, True), due_ms) for body in (b"one", b"three")]
        first, second = [(await channel.outcome(number)).result for number in numbers]
        rows = json.loads((await run_beside("scheduled", "list", "--json", "--data-dir", tmp_path))[1])
        assert [(row["scheduled_id"], row["due_ms"], row["body_bytes"]) for row in rows] == [
            (first, due_ms, 3),
            (second, due_ms, 5),
        ]
        behind = await trio.to_thread.run_sync(lambda: ask(tmp_path, "scheduled", after_due_ms=due_ms, after_id=first))
        limited = await trio.to_thread.run_sync(lambda: ask(tmp_path, "scheduled", limit=1))
        assert [row["scheduled_id"] for row in (*limited, *behind)] == [first, second]
        assert len(json.loads((await run_beside("scheduled", "list", "--json", "--limit", "1", "--data-dir", tmp_path))[1])) == 1
        assert (await run_beside("scheduled", "cancel", str(first), "--data-dir", tmp_path))[0] == 0
        code, _, errors = await run_beside("scheduled", "cancel", str(first), "--data-dir", tmp_path)
        assert (code, "there is no scheduled message" in errors) == (1, True)
        channel.close()
    code, output, _ = run("scheduled", "list", "--data-dir", tmp_path)
    lines = output.splitlines()
    assert (len(lines), lines[1].split()[0]) == (2, str(second))
    assert run("scheduled", "list", "--vhost", "other", "--limit", "3", "--data-dir", tmp_path)[1].splitlines()[1:] == []
    assert "59m" in lines[1]
    code, _, errors = run("scheduled", "cancel", str(second), "--data-dir", tmp_path)
    assert (code, "start the broker" in errors) == (1, True)


ASK = "import sys; from pathlib import Path; from gateway.admin.client import ask; print(len(ask(Path(sys.argv[1]), 'queues')))"


@pytest.mark.slow
async def test_100_000_queues_are_listed_without_holding_up_the_broker(tmp_path):
    async with _served(tmp_path) as broker:
        for number in range(100_000):
            broker.engine.definitions.declare_queue("/", QueueSpec(f"q{number}", durable=False), None)
        gc.collect()
        gc.freeze()
        turns = []
        stop = trio.Event()

        async def watch():
            while not stop.is_set():
                before = time.thread_time()
                await trio.lowlevel.checkpoint()
                turns.append(time.thread_time() - before)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            done = await trio.run_process([sys.executable, "-c", ASK, str(tmp_path)], capture_stdout=True)
            stop.set()
        gc.unfreeze()
        assert done.stdout == b"100000\n"
        turns.sort()
        assert turns[-20] < 0.02, "all of it takes most of a second"
        assert turns[-1] < 0.2, "the interpreter's own collection, and the list of all queues, which is copied at once"


@pytest.mark.slow
def test_the_program_itself_shows_the_running_broker(tidegate, said):
    broker = tidegate("serve", "--data-dir", "d", "--set", "frontend.mqtt.listen=tcp://127.0.0.1:0", *NO_ZEROMQ)
    lines = broker.lines_until("ready")
    port = next(line.rpartition(":")[2] for line in lines if line.startswith("listening mqtt"))
    assert said("sub", "-p", port, "-i", "away", "-c", "-q", "1", "-t", "t", "-E")[0] == 0
    assert said("pub", "-p", port, "-q", "1", "-t", "t", "-m", "hello")[0] == 0
    code, output, errors = said("queues", "--data-dir", "d", "--no-rates")
    assert (code, errors) == (0, "")
    line = output.splitlines()[1].split()
    assert line[:6] == ["mqtt.session.away", "1", "0", "1", "5", "0"]
    code, output, _ = said("peek", "mqtt.session.away", "--data-dir", "d", "--raw")
    assert (code, output) == (0, "hello\n")
    code, output, _ = said("journal", "stats", "--data-dir", "d")
    assert re.search(r"^  messages written +1; 0 were done with", output, re.MULTILINE)
    assert re.search(r"^  bytes written +[\d.,]+ KiB, [\d,]+ for each message$", output, re.MULTILINE)
