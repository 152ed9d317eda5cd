"""What does `tidegate counters` say of a running broker?"""

from __future__ import annotations

import json

import trio

from gateway.journal.sqlite import SqliteJournal
from tests.admin.conftest import _served
from tests.cli.test_queues import run, run_beside


async def test_what_was_counted_is_shown_by_name(tmp_path):
    async with _served(tmp_path, SqliteJournal(tmp_path)) as broker:
        broker.counters.update({"zeromq.dropped.frames": 1234, "mqtt.dropped.slow reader": 2})
        code, output, _ = await run_beside("counters", "zeromq.*", "--data-dir", tmp_path)
        assert code == 0
        assert [line.split() for line in output.splitlines()] == [["counter", "number"], ["zeromq.dropped.frames", "1,234"]]
        everything = json.loads((await run_beside("counters", "--json", "--data-dir", tmp_path))[1])
        assert everything["mqtt.dropped.slow reader"] == 2
        assert any(name.startswith("journal.") for name in everything)


async def test_with_an_interval_it_is_what_is_new(tmp_path):
    async with _served(tmp_path, SqliteJournal(tmp_path)) as broker, trio.open_nursery() as nursery:
        broker.counters.update({"old": 5, "more": 1})

        async def count():
            while True:
                broker.counters["more"] += 1
                await trio.sleep(0.01)

        nursery.start_soon(count)
        output = (await run_beside("counters", "--interval", "0.3", "--json", "--data-dir", tmp_path))[1]
        nursery.cancel_scope.cancel()
        found = json.loads(output)
        assert found.get("old") is None
        assert 0 < found["more"] <= broker.counters["more"] - 1


def test_without_a_broker_it_says_so(tmp_path):
    code, output, errors = run("counters", "--data-dir", tmp_path)
    assert (code, output) == (1, "")
    assert "no broker" in errors
