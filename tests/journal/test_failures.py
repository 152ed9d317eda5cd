"""What does a whole broker do when its power or its disk fails? A test per case, named after it."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest

from gateway.journal.sqlite import SqliteJournal
from gateway.model.records import QueueDepth
from tests.journal.whole_broker import (
    EIO,
    ENOSPC,
    HERE,
    REFUSED,
    STORED,
    clients,
    compiled,
    everything_in,
    load,
    until,
    with_a_queue,
)

pytestmark = pytest.mark.slow


# -- the process and the power ---------------------------------------------


def test_kill_9_every_confirmed_message_is_back_in_order_and_once(broker):
    with_a_queue(broker)
    with clients(broker, "writer") as writer:
        for number in range(100):
            writer.send(f"{number}")
        assert {writer.outcome() for _ in range(100)} == {STORED}
        broker.restart()
    assert everything_in(broker, 100) == [f"{number}" for number in range(100)]


def test_power_cut_whatever_was_confirmed_was_synced_before(new_broker, tmp_path_factory, tmp_path):
    crash = load("test_crash")
    trace = tmp_path / "trace"
    trace.touch()
    broker = new_broker(compiled(tmp_path_factory, HERE / "diskshim.c"))
    broker.environment |= {"SHIM_TRACE": str(trace), "SHIM_MATCH": "journal.db"}
    broker.start()
    with_a_queue(broker)
    confirmed_at = []
    with clients(broker, "writer") as writer:
        for number in range(20):
            assert writer.publish(f"{number}") == STORED
            confirmed_at.append(trace.stat().st_size)
    broker.end()
    chance = random.Random(3)
    for number, size in enumerate(confirmed_at, 1):
        disk = crash.Disk()
        for operation in crash.operations(trace.read_bytes()[:size]):
            disk.do(*operation)
        image = Path(tempfile.mkdtemp(dir=tmp_path))
        disk.cut(chance, image)
        journal = SqliteJournal(image)
        journal.open()
        depths = [record.live for record in journal.load() if isinstance(record, QueueDepth)]
        journal.close(clean=False)
        assert sum(depths) >= number


# -- a disk that is full, or fails -------------------------------------------

ONCE = {
    "disk-full-for-a-moment": f"W * {ENOSPC} 0 2",
    "half-a-write-on-a-full-disk": f"W * half:{ENOSPC} 0 1",
    "eio-on-write-once": f"W * {EIO} 0 1",
    "eio-on-sync-once": f"S * {EIO} 0 1",
}
FOR_EVER = {
    "disk-full-lasting": f"W * {ENOSPC} 0 -1",
    "eio-on-write-for-ever": f"W * {EIO} 0 -1",
    "eio-on-sync-for-ever": f"S * {EIO} 0 -1",
}


def each(rules: dict[str, str]) -> pytest.MarkDecorator:
    """By default a sync that fails, which says least of itself; all of them in the slow run."""
    marks = {name: () if "sync" in name else pytest.mark.slow for name in rules}
    return pytest.mark.parametrize("rule", [pytest.param(rule, id=name, marks=marks[name]) for name, rule in rules.items()])


once, for_ever = each(ONCE), each(FOR_EVER)


@once
def test_a_fault_that_passes_costs_time_alone(new_broker, injector, rule):
    broker = new_broker(injector, "journal.refuse_after_ms=60000")
    broker.start()
    with_a_queue(broker)
    with clients(broker, "writer") as writer:
        assert writer.publish("before") == STORED
        broker.rule(rule)
        assert writer.publish("during") == STORED
        assert writer.publish("after") == STORED
        broker.restart()
    assert everything_in(broker, 3) == ["before", "during", "after"]


@for_ever
def test_nothing_is_confirmed_while_it_lasts_and_it_is_once_it_has_passed(new_broker, injector, rule):
    broker = new_broker(injector, "journal.refuse_after_ms=60000")
    broker.start()
    with_a_queue(broker)
    with clients(broker, "writer") as writer:
        broker.rule(rule)
        writer.send("during")
        broker.says("journal can't be written")
        writer.nothing_is_confirmed(0.3)
        broker.rule()
        assert writer.outcome() == STORED
        broker.says("journal works again")
        broker.restart()
    assert everything_in(broker, 1) == ["during"]


@for_ever
def test_if_it_lasts_publishers_are_refused_consumers_served_and_it_works_again_without_a_restart(broker, rule):
    with_a_queue(broker)
    with clients(broker, "writer") as writer:
        assert [writer.publish(f"stored {number}") for number in range(3)] == [STORED] * 3
        broker.rule(rule)
        assert writer.publish("refused") == REFUSED
        broker.says("durable messages are refused")
        assert writer.publish("refused too") == REFUSED
        with clients(broker, "reader", "") as (reader, passing):
            assert reader.receive(3) == ["stored 0", "stored 1", "stored 2"]  # and acknowledges them
            assert passing.publish("at most once", delivery_mode=1) == STORED
            assert reader.receive(1) == ["at most once"]
        broker.rule()
        broker.says("journal works again")
        assert writer.publish("stored again") == STORED
        broker.restart()
    with clients(broker, "reader") as reader:
        found = reader.receive(1)
        while found[-1] != "stored again":
            found += reader.receive(1)
        reader.nothing_more()
    assert not [body for body in found if body.startswith("stored ") and body != "stored again"]  # the acknowledgements waited


def test_disk_full_the_ballast_is_given_up_and_what_was_taken_in_is_stored_at_once(broker):
    with_a_queue(broker)
    ballast = broker.data / "journal.ballast"
    assert ballast.stat().st_size > 0
    with clients(broker, "writer") as writer:
        broker.rule(f"W * full:{ballast} 0 -1", f"F * {ENOSPC} 0 -1")
        assert writer.publish("stored") == STORED
        assert ballast.stat().st_size == 0
        assert "journal can't be written" not in broker.log
        broker.rule()
        assert writer.publish("another") == STORED
        until(lambda: ballast.stat().st_size > 0)
        broker.restart()
    assert everything_in(broker, 2) == ["stored", "another"]


@pytest.mark.slow
def test_checkpoints_that_fail_while_the_log_can_be_written_are_told_and_stop_messages_until_they_work(new_broker, injector):
    broker = new_broker(injector, "journal.log_mib=4")
    broker.start()
    with_a_queue(broker)
    with clients(broker, "writer", "reader") as (writer, reader):
        broker.rule(f"W journal.db {EIO} 0 -1")
        outcomes = [STORED]
        while outcomes[-1] == STORED and len(outcomes) < 100:
            outcomes.append(writer.publish("x" * 400_000))
        assert outcomes[-1] == REFUSED
        broker.says("can't be brought into the database")
        assert (broker.data / "journal.db-wal").stat().st_size < 12 << 20
        stored = outcomes.count(STORED) - 1
        reader.receive(stored)
        broker.rule()
        until(lambda: writer.publish("new") == STORED)
        broker.restart()
    assert "new" in everything_in(broker, 1)
