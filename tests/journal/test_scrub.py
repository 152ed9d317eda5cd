"""Is damage found before somebody needs what it took, without being in anybody's way?"""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from types import SimpleNamespace

import pytest

from gateway.journal import scrub
from gateway.journal.scrub import Scrub
from gateway.journal.sqlite import Care
from gateway.model.declare import QueueSpec
from gateway.model.records import QueueDeclared

FAST = Care(scrub_mib_per_s=10_000)


@pytest.fixture
def reports():
    return []


@pytest.fixture
def begin_at_once(monkeypatch):
    monkeypatch.setattr(scrub, "FIRST_AFTER_S", 0.0)


@pytest.fixture
def rig(new_rig, tmp_path, reports, begin_at_once):
    """Many small segments, a large one of a small body and one of a large body; the journal is closed."""
    rig = new_rig(tmp_path, report=reports.append, care=FAST)
    rig.record(QueueDeclared("/", 1, QueueSpec("q1")))
    rig.commit()
    for number in range(20):
        rig.publish(b"small %02d " % number * 10, 1)
        rig.commit()
    rig.publish(b"large " * 100_000, 1)
    rig.commit()
    rig.publish(b"huge! " * 600_000, 1)
    rig.commit()
    rig.journal.close()
    return rig


def flip(path, marker: bytes) -> None:
    """Wherever it stands: pages keep what was once on them."""
    path.write_bytes(path.read_bytes().replace(marker, marker[:1] + bytes([marker[1] ^ 4]) + marker[2:]))


def reopen(rig) -> None:
    rig.journal = rig._new_journal()
    rig.open()


def wait_for(said) -> None:
    deadline = time.monotonic() + 60
    while not said():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def quarantined(path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [number for (number,) in connection.execute("SELECT seg FROM quarantine ORDER BY seg")]


def scrubbed(rig) -> None:
    wait_for(lambda: rig.journal._scrub.passes)
    rig.journal.look()


def test_a_whole_journal_is_read_to_its_end_and_nothing_is_said(rig, reports):
    reopen(rig)
    scrubbed(rig)
    assert rig.journal.counters.segments_scrubbed == 22
    assert (reports, rig.journal.counters.segments_quarantined) == ([], 0)


@pytest.mark.parametrize(
    ("marker", "segment"), [(b"small 07 ", 8), (b"large large ", 21), (b"huge! huge! ", 22)], ids=["small", "large", "huge"]
)
def test_a_flipped_byte_is_found_and_its_segment_quarantined_without_anybody_reading_it(rig, tmp_path, reports, marker, segment):
    flip(tmp_path / "journal.db", marker)
    reopen(rig)
    scrubbed(rig)
    rig.journal.look()
    assert len(reports) == 1  # told once
    assert f"segment {segment} " in reports[0]
    assert rig.journal.counters.segments_quarantined == 1
    assert rig.journal.upkeep  # so that an idle broker writes it down
    rig.commit()
    assert quarantined(tmp_path / "journal.db") == [segment]
    assert not rig.journal.upkeep


def test_whoever_reads_a_quarantined_segment_loses_its_messages_alone(rig, tmp_path, reports):
    flip(tmp_path / "journal.db", b"small 07 ")
    reopen(rig)
    scrubbed(rig)
    page = rig.page(1)
    assert page.lost + len(page.references) == 22
    assert page.lost == 1
    assert rig.journal.counters.segments_quarantined == 1
    assert len(reports) == 2  # of the segment, and of what the queue lost with it


def test_a_quarantined_segment_is_not_read_again(rig, tmp_path, reports):
    flip(tmp_path / "journal.db", b"small 07 ")
    reopen(rig)
    scrubbed(rig)
    rig.publish(b"new", 1)
    rig.commit()
    rig.restart(clean=True)
    scrubbed(rig)
    assert len(reports) == 1


def test_a_segment_that_sqlite_can_not_read_is_found_and_the_others_are_read(rig, tmp_path):
    path = tmp_path / "journal.db"
    data = bytearray(path.read_bytes())
    body = b"large " * 100_000
    at = next(at for at in range(0, len(data), 4096) if data[at + 4 : at + 4096] in body)
    data[at : at + 4] = b"\xff\xff\xff\xff"  # the number of the overflow page that follows
    path.write_bytes(data)
    reopen(rig)
    scrubbed(rig)
    assert rig.journal.counters.segments_quarantined == 1
    assert rig.journal.counters.segments_scrubbed == 21


def test_segments_that_go_while_they_are_read_are_not_called_damaged(rig, tmp_path, reports, monkeypatch):
    """Between the list and the reading, consumers have settled everything."""
    reopen(rig)
    wait_for(lambda: rig.journal._scrub.passes)
    portions = scrub._portions

    def delayed(connection):
        for portion in portions(connection):
            for paged in rig.drain(1):
                rig.settle(rig.entry(1, paged))
            rig.commit()
            yield portion

    monkeypatch.setattr(scrub, "_portions", delayed)
    with closing(rig.journal._scrub._connect()) as connection:
        for portion in delayed(connection):
            assert scrub._damaged(connection, portion) == set()
            assert all(scrub._damaged(connection, [one]) == set() for one in portion)
    assert reports == []


def test_after_an_unclean_end_it_begins_at_once_and_else_a_minute_later(new_rig, tmp_path):
    rig = new_rig(tmp_path, care=FAST)
    rig.record(QueueDeclared("/", 1, QueueSpec("q1")))
    rig.publish(b"x", 1)
    rig.commit()
    rig.restart(clean=False)
    scrubbed(rig)
    rig.restart(clean=True)
    assert rig.journal._scrub._first_after_s == scrub.FIRST_AFTER_S > 10


def test_it_goes_as_slowly_as_it_was_told(rig, tmp_path, monkeypatch):
    waits = []

    class Told(threading.Event):
        def wait(self, timeout=None):
            waits.append(timeout)
            return super().wait(0)

    ours = SimpleNamespace(Event=Told, Thread=threading.Thread, get_native_id=threading.get_native_id)
    monkeypatch.setattr(scrub, "threading", ours)  # of this room alone: threads themselves begin with an event
    monkeypatch.setattr(scrub, "EVERY_S", 1e9)
    rig._new_journal = _with(rig._new_journal, Care(scrub_mib_per_s=2.0))
    reopen(rig)
    wait_for(lambda: 1e9 in waits)
    paces = waits[: waits.index(1e9)]  # of the first pass
    size = 20 * 4096 + 600_000 + 3_600_000
    assert sum(paces) == pytest.approx(size / (2 << 20), rel=0.05)


def _with(new_journal, care):
    def new():
        journal = new_journal()
        journal._care = care
        return journal

    return new


def test_it_holds_up_no_checkpoint(rig, tmp_path, monkeypatch):
    """Between two statements the whole log can go to the database: no reader is in the way."""
    reopen(rig)
    wait_for(lambda: rig.journal._scrub.passes)
    with closing(rig.journal._scrub._connect()) as connection:
        for portion in scrub._portions(connection):
            scrub._damaged(connection, portion)
            rig.publish(b"x" * 10_000, 1)
            rig.commit()
            with closing(sqlite3.connect(tmp_path / "journal.db", timeout=60)) as other:  # the writer may be counting
                busy, _, _ = other.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
            assert busy == 0


def test_the_end_does_not_wait_for_it(rig):
    rig._new_journal = _with(rig._new_journal, Care(scrub_mib_per_s=0.001))
    reopen(rig)
    wait_for(lambda: rig.journal.counters.segments_scrubbed)
    began = time.monotonic()
    rig.journal.close()
    assert time.monotonic() - began < 20


def test_a_database_that_can_not_be_read_ends_the_pass_and_is_told():
    def connect():
        raise sqlite3.OperationalError("unable to open database file")

    found: list = []
    one = Scrub(connect, scrub.Counters(), mib_per_s=1, at_once=True)
    wait_for(lambda: found.extend(one.take()) or found)
    one.stop()
    assert found == ["not all segments could be read: unable to open database file"]
    assert one.passes == 0


def test_without_a_rate_nothing_is_read(new_rig, tmp_path):
    assert new_rig(tmp_path).journal._scrub is None
