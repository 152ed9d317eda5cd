"""What does somebody see who operates a broker that others are using, command by command?"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from contextlib import closing, suppress

import pytest
from typer.testing import CliRunner

from gateway.cli.commands import app
from gateway.client import connect
from tests.journal.whole_broker import REFUSED, STORED, TIDEGATE, Broker, Client, clients, until, with_a_queue


def run(*arguments) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(map(str, arguments)), prog_name="tidegate")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    found = Broker(tmp_path_factory.mktemp("operating"))
    found.start()
    yield found
    found.end()


@pytest.fixture
def client(broker):
    with closing(Client(broker, "operator")) as found:
        yield found.tgp


def shown(broker, *command) -> list | dict:
    more = ["--no-rates"] if command[0] == "queues" else []
    code, out = run(*command, *more, "--json", "--data-dir", broker.data)
    assert code == 0
    return json.loads(out)


def row_of(broker, name) -> dict:
    return next(row for row in shown(broker, "queues")["queues"] if row["name"] == name)


def depth(broker, name) -> int:
    return row_of(broker, name)["ready"]


def test_delayed_messages_are_listed_and_cancelled_and_the_others_come(broker, client):
    client.declare_exchange("later", "x-delayed-message", **{"x-delayed-type": "fanout"})
    client.declare_queue("due")
    client.bind("due", "later", "")
    for body, delay_ms in (("never", 3_600_000), ("soon", 300), ("also never", 7_200_000)):
        client.publish("later", "k", body.encode(), {"headers": {"x-delay": delay_ms}}, wait=True)
    listed = shown(broker, "scheduled", "list")
    assert [(row["exchange"], row["body_bytes"]) for row in listed][-2:] == [("later", 5), ("later", 10)]
    assert run("scheduled", "cancel", listed[-2]["scheduled_id"], "--data-dir", broker.data)[0] == 0
    assert run("scheduled", "cancel", listed[-2]["scheduled_id"], "--data-dir", broker.data)[0] == 1
    assert client.consume("due").receive(10).body == b"soon"
    assert [row["scheduled_id"] for row in shown(broker, "scheduled", "list")] == [listed[-1]["scheduled_id"]]
    broker.restart()
    assert [row["scheduled_id"] for row in shown(broker, "scheduled", "list")] == [listed[-1]["scheduled_id"]]


def test_messages_are_chosen_by_the_headers_that_their_publishers_gave(broker, client):
    client.declare_queue("headers")
    for number in range(4):
        headers = {"region": "north" if number % 2 else "süd", "n": number, "deep": {"a": [1, True]}}
        client.publish("", "headers", str(number).encode(), {"headers": headers}, wait=True)
    found = shown(broker, "peek", "headers", "--header", "region=süd")
    assert [row["body"] for row in found] == ["0", "2"]
    assert found[0]["properties"]["headers"] == {"region": "süd", "n": 0, "deep": {"a": [1, True]}}
    assert [row["body"] for row in shown(broker, "peek", "headers", "--header", "region=north", "--header", "n=3")] == ["3"]
    assert shown(broker, "peek", "headers", "--header", "region=n") == []
    assert depth(broker, "headers") == 4


def test_what_is_rejected_moves_to_the_queue_of_the_dead_and_back(broker, client):
    client.declare_queue("dead")
    client.declare_queue("work", **{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
    for number in range(5):
        client.publish("", "work", str(number).encode(), wait=True)
    consumer = client.consume("work")
    for _ in range(3):
        consumer.receive(10).nack(requeue=False)
    until(lambda: (depth(broker, "dead"), row_of(broker, "work")["unacked"]) == (3, 2))
    consumer.cancel()
    history = shown(broker, "peek", "dead")[0]["properties"]["headers"]["x-death"][0]
    assert (history["queue"], history["reason"], history["count"]) == ("work", "rejected", 1)
    dead = client.consume("dead")
    for _ in range(3):
        delivery = dead.receive(10)
        client.publish("", "work", delivery.body, wait=True)
        delivery.ack()
    until(lambda: (depth(broker, "dead"), depth(broker, "work")) == (0, 5))


@pytest.mark.slow
def test_two_backups_at_once_are_both_whole(broker, client, tmp_path):
    client.declare_queue("backed")
    for _ in range(20):
        client.publish("", "backed", bytes(1000), wait=True)
    for outs in (("a.db", "b.db"), ("same.db", "same.db")):
        running = [subprocess.Popen([TIDEGATE, "backup", tmp_path / out, "--data-dir", broker.data]) for out in outs]
        assert [process.wait(100) for process in running] == [0, 0]
        for number, out in enumerate(outs):
            home = tmp_path / f"{out}-{number}"
            assert run("restore", tmp_path / out, "--data-dir", home)[0] == 0
            assert run("journal", "check", "--data-dir", home)[0] == 0


def test_two_imports_at_once_are_both_taken(broker, tmp_path):
    files = []
    for number in range(2):
        files.append(tmp_path / f"{number}.json")
        queues = [{"name": f"imported-{number}-{n}", "vhost": "/", "durable": True} for n in range(300)]
        files[-1].write_text(json.dumps({"queues": [*queues, {"name": "both", "vhost": "/", "durable": True}]}))
    running = [subprocess.Popen([TIDEGATE, "definitions", "import", file, "--data-dir", broker.data]) for file in files]
    assert [process.wait(100) for process in running] == [0, 0]
    names = [row["name"] for row in shown(broker, "queues")["queues"]]
    assert sum(name.startswith("imported-") for name in names) == 600
    assert names.count("both") == 1


@pytest.mark.slow
def test_at_the_cap_messages_are_refused_and_taken_again_when_there_is_room(tmp_path):
    broker = Broker(tmp_path, None, f"journal.max_bytes={16 << 20}", "journal.min_free_bytes=0")
    broker.start()
    try:
        with_a_queue(broker)
        with clients(broker, "writer", "reader") as (writer, reader):
            for _ in range(2):
                sent = 0
                while writer.publish("x" * 100_000) == STORED:
                    sent += 1
                assert sent > 20
                assert sum(path.stat().st_size for path in broker.data.glob("journal.db*")) <= 17 << 20
                assert "journal.max_bytes" in shown(broker, "queues")["alarms"][0]
                assert writer.publish("y") == REFUSED
                reader.receive(sent)
                until(lambda: writer.publish("again") == STORED)
                assert reader.receive(1) == ["again"]
            assert shown(broker, "queues")["alarms"] == []
        assert broker.end(15) == 0
        broker.start()
    finally:
        broker.end()


@pytest.mark.slow
def test_compacting_and_a_start_at_once_never_meet(tmp_path):
    broker = Broker(tmp_path)
    broker.start()
    with_a_queue(broker)
    with clients(broker, "writer") as writer:
        assert [writer.publish("x" * 50_000) for _ in range(40)] == [STORED] * 40
    broker.end()
    outcomes = []
    stop = threading.Event()

    def compact() -> None:
        while not stop.is_set():
            command = [TIDEGATE, "journal", "compact", "--data-dir", broker.data]
            outcomes.append(subprocess.run(command, capture_output=True, check=False, timeout=100).returncode)

    compacting = threading.Thread(target=compact)
    compacting.start()
    try:
        deadline = time.monotonic() + 90
        while True:
            assert time.monotonic() < deadline
            with suppress(AssertionError):  # it was refused
                broker.start()
                break
            with broker.process as refused:
                assert refused.wait(60) == 75
        while outcomes[-1:] != [75]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        stop.set()
        compacting.join()
    assert set(outcomes) <= {0, 75}
    with closing(connect(f"tcp://127.0.0.1:{broker.port}", timeout=30)) as tgp:
        assert tgp.declare_queue("jobs")["messages"] == 40
    broker.end()
