"""Is the alarm early enough on a small disk, and can a journal on a full one be stopped, opened again and emptied?"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

import pytest

from gateway.journal.space import Space
from gateway.model.declare import QueueSpec
from gateway.model.records import QueueDeclared
from tests.journal import test_failures_full
from tests.journal.test_failures_full import fill, mountable
from tests.journal.whole_broker import REFUSED, STORED, clients, until, with_a_queue

pytestmark = pytest.mark.slow


small = test_failures_full.small
MIB = 1 << 20
BODY = 260 * 1024


def free(point) -> int:
    found = os.statvfs(point)
    return found.f_bavail * found.f_frsize


def clean(point) -> int:
    with closing(sqlite3.connect(f"file:{point / 'journal.db'}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT value FROM meta WHERE key = 'clean'").fetchone()[0]


def fill_up(rig, body: int = BODY, batch: int = 1) -> int:
    """Publish until the alarm; return how many."""
    sent = 0
    while rig.journal.alarm is None:
        for _ in range(batch):
            rig.publish(bytes(body), 1)
            sent += 1
        assert rig.write(rig.prepare()) is None  # ENOSPC would be seen here
        rig.journal.look()
        assert sent < 1_000_000
    return sent


def new_queue(rig) -> None:
    rig.record(QueueDeclared("/", 1, QueueSpec("q1")))
    rig.commit()


if mountable():

    @pytest.mark.parametrize(("mib", "body", "batch"), [(60, BODY, 1), (24, BODY, 1), (24, 2_000, 200), (60, 100_000, 10)])
    def test_on_a_small_disk_the_alarm_comes_before_it_is_full_and_leaves_room_for_the_log(small, new_rig, mib, body, batch):
        point = small(mib)
        space = Space(point)
        rig = new_rig(point, space=space, wal_autocheckpoint=4000)
        new_queue(rig)
        sent = fill_up(rig, body, batch)
        limit = os.statvfs(point).f_blocks * 4096 // 20
        assert sent * body > (mib // 4) * MIB
        assert rig.journal.counters.failed_commits == 0
        assert (point / "journal.ballast").stat().st_size > 0
        assert free(point) >= limit // 2
        found = rig.drain(1, max_bytes=8 * MIB)
        assert len(found) == sent
        for at in range(0, sent, 10 * batch):
            rig.settle(*[rig.entry(1, paged) for paged in found[at : at + 10 * batch]])
            rig.commit()
            assert free(point) >= limit // 2
        assert rig.journal.counters.failed_commits == 0
        assert rig.journal.alarm is None  # what was freed inside the file is room
        rig.journal.close()
        assert clean(point) == 1

    def test_a_journal_that_was_not_closed_can_be_opened_on_a_disk_without_any_room_and_emptied(small, new_rig):
        point = small(24)
        rig = new_rig(point, space=Space(point), wal_autocheckpoint=4000)
        new_queue(rig)
        sent = 30
        for _ in range(sent):
            rig.publish(bytes(100_000), 1)
            rig.commit()
        rig.journal.close(clean=False)
        fill(point / "junk")
        rig = new_rig(point, space=Space(point), wal_autocheckpoint=4000)
        assert "journal.min_free_bytes" in rig.journal.alarm
        found = rig.drain(1)
        assert len(found) == sent
        for paged in found:
            rig.settle(rig.entry(1, paged))
        rig.commit()
        assert rig.journal.state == "writable"
        (point / "junk").unlink()
        rig.journal.look()
        rig.commit()
        assert rig.journal.alarm is None
        rig.journal.close()
        assert clean(point) == 1

    def test_the_end_on_a_full_disk_is_in_order_as_the_ballast_serves_for_the_last_checkpoint(small, new_rig):
        point = small(24)
        rig = new_rig(point, space=Space(point), wal_autocheckpoint=4000)
        new_queue(rig)
        for _ in range(10):
            rig.publish(bytes(100_000), 1)
            rig.commit()
        fill(point / "junk")
        rig.journal.close()
        assert clean(point) == 1
        assert (point / "journal.ballast").stat().st_size > 0  # for the next start
        fill(point / "more")
        rig = new_rig(point, space=Space(point), wal_autocheckpoint=4000)
        assert len(rig.drain(1)) == 10
        rig.journal.close()

    def fill_broker(broker) -> int:
        broker.start()
        with_a_queue(broker)
        sent = 0
        with clients(broker, "writer") as writer:
            while writer.publish("x" * BODY) == STORED:
                sent += 1
        return sent

    def is_emptied(broker, sent: int) -> None:
        with clients(broker, "writer", "reader") as (writer, reader):
            assert writer.publish("x") == REFUSED
            reader.receive(sent)
            for junk in broker.data.parent.glob("junk*"):
                junk.unlink()
            until(lambda: writer.publish("again") == STORED)
            assert reader.receive(1) == ["again"]

    def test_a_broker_that_was_stopped_on_a_full_disk_starts_there_is_emptied_and_takes_messages_again(small, new_broker):
        broker = new_broker()
        broker.data = small(24) / "data"
        sent = fill_broker(broker)
        fill(broker.data.parent / "junk1")
        assert broker.end(15) == 0
        assert clean(broker.data) == 1
        fill(broker.data.parent / "junk2")
        broker.start()
        is_emptied(broker, sent)

    @pytest.mark.slow
    def test_a_broker_that_was_killed_on_a_full_disk_starts_there_also_without_a_ballast(small, new_broker):
        broker = new_broker(None, "journal.ballast_bytes=0")
        broker.data = small(24) / "data"
        sent = fill_broker(broker)
        fill(broker.data.parent / "junk1")
        broker.end()
        broker.start()
        is_emptied(broker, sent)

    def test_a_disk_that_only_the_journal_fills_is_room_again_when_consumers_have_emptied_it(small, new_broker):
        broker = new_broker()
        broker.data = small(24) / "data"
        sent = fill_broker(broker)
        assert broker.end(15) == 0
        broker.start()
        with clients(broker, "writer", "reader") as (writer, reader):
            reader.receive(sent)
            until(lambda: writer.publish("again") == STORED)
        assert "disk is full" not in broker.log
