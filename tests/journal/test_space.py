"""Is there an alarm when there is no room, does it end when there is, and what may still be written meanwhile?"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from types import SimpleNamespace

import pytest

from gateway.errors import JournalUnwritable
from gateway.journal.space import Space, checkpoint_pages
from gateway.model.declare import QueueSpec
from gateway.model.records import QueueDeclared, StatePut

MIB = 1 << 20


class Disk:
    """What statvfs says: a disk of `total` MiB of which `free` are left, and what the ballast takes is not."""

    def __init__(self, directory, total: float = 100_000.0, free: float = 90_000.0) -> None:
        self.total = total
        self.free = free
        self.calls = 0
        self._ballast = directory / "journal.ballast"

    def statvfs(self, _path):
        self.calls += 1
        taken = self._ballast.stat().st_size if self._ballast.exists() else 0
        free = max(int(self.free * MIB) - taken, 0)
        return SimpleNamespace(f_frsize=4096, f_blocks=int(self.total * 256), f_bavail=free // 4096)


@pytest.fixture
def disk(tmp_path, monkeypatch):
    disk = Disk(tmp_path)
    monkeypatch.setattr(os, "statvfs", disk.statvfs)
    return disk


@pytest.fixture
def connection():
    with closing(sqlite3.connect(":memory:")) as connection:
        yield connection


@pytest.fixture
def make(tmp_path, disk, connection):
    def make(**settings) -> Space:
        space = Space(tmp_path, **settings)
        space.take()
        space.begin(connection)
        return space

    return make


def ballast(tmp_path) -> int:
    return (tmp_path / "journal.ballast").stat().st_size


# -- the limit of free space --------------------------------------------


def test_the_alarm_says_how_much_is_free_what_is_wanted_and_which_setting(make, disk, tmp_path):
    space = make(min_free_bytes=100 * MIB, ballast_bytes=0)
    assert space.alarm is None
    disk.free = 99.5
    space.look()
    assert "99.5 MiB" in space.alarm
    assert "journal.min_free_bytes wants 100.0 MiB" in space.alarm
    assert str(tmp_path) in space.alarm


def test_the_alarm_ends_only_with_an_eighth_more_than_the_limit(make, disk):
    space = make(min_free_bytes=100 * MIB, ballast_bytes=0)
    for free, alarmed in ((100, False), (99, True), (101, True), (112, True), (113, False), (101, False), (99, True)):
        disk.free = free
        space.look()
        assert (space.alarm is not None) == alarmed, free


@pytest.mark.parametrize(("total", "limit"), [(100_000, 256), (1_000, 50), (5_120, 256)])
def test_without_a_setting_the_limit_goes_by_the_size_of_the_disk(make, disk, total, limit):
    disk.total = total
    space = make(ballast_bytes=0)
    for free, alarmed in ((limit + 1, False), (limit - 1, True)):
        disk.free = free
        space.look()
        assert (space.alarm is not None) == alarmed


def test_a_limit_of_nothing_is_none(make, disk):
    space = make(min_free_bytes=0, ballast_bytes=0)
    disk.free = 0
    space.look()
    assert space.alarm is None


def test_a_disk_that_is_low_at_the_start_is_told_at_once(make, disk):
    disk.free = 10
    assert make().alarm is not None


def test_looking_takes_no_time(tmp_path, connection):
    space = Space(tmp_path, max_bytes=100 * MIB)
    space.take()
    space.begin(connection)

    def usual(call):
        times = []
        for _ in range(200):
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
        return sorted(times)[100]

    assert usual(space.look) < 1e-4 + 20 * usual(lambda: os.statvfs(tmp_path)), "it asks the system a few things"


def test_a_directory_that_is_gone_is_told_at_the_start_and_borne_later(tmp_path):
    with pytest.raises(JournalUnwritable):
        Space(tmp_path / "gone").take()


def test_commits_are_looked_after_when_what_they_wrote_may_matter(make, disk, connection):
    space = make(min_free_bytes=100 * MIB, ballast_bytes=0)
    calls = disk.calls
    for _ in range(100):
        space.wrote(connection, 1000)
    assert disk.calls == calls
    disk.free = 50
    space.wrote(connection, 90_000 * MIB)
    assert space.alarm is not None
    calls = disk.calls
    space.wrote(connection, 1)
    assert disk.calls > calls  # under alarm after every commit
    disk.free = 200
    space.wrote(connection, 1)
    assert space.alarm is None


# -- the ballast ---------------------------------------------------------


def test_the_ballast_has_real_blocks_and_is_for_its_owner_alone(make, tmp_path):
    make(ballast_bytes=2 * MIB)
    found = (tmp_path / "journal.ballast").stat()
    assert found.st_size == 2 * MIB
    assert found.st_blocks * 512 >= 2 * MIB
    assert found.st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("total", "size"), [(100_000, 16), (64, 4), (16, 1)])
def test_the_ballast_of_a_small_disk_is_small(make, disk, tmp_path, total, size):
    disk.total, disk.free = total, total * 0.9
    make()
    assert ballast(tmp_path) == size * MIB


def test_the_ballast_is_not_made_at_the_price_of_the_limit(make, disk, tmp_path):
    disk.free = 127
    space = make(min_free_bytes=100 * MIB)
    assert not (tmp_path / "journal.ballast").exists()
    assert space.alarm is None


def test_the_ballast_is_given_once_and_made_again_when_there_is_room(make, disk, tmp_path, connection):
    space = make(min_free_bytes=100 * MIB)
    disk.free = 16
    assert space.give_ballast()
    assert ballast(tmp_path) == 0
    assert space.alarm is not None
    assert not space.give_ballast()
    for free, there in ((101, False), (113, False), (130, False), (131, True)):
        disk.free = free
        space.wrote(connection, 100)
        assert (ballast(tmp_path) == 16 * MIB) == there, free
        assert (space.alarm is None) == there
    assert space.give_ballast()


def test_without_a_limit_too_a_ballast_that_was_given_raises_the_alarm_until_it_can_be_there_again(make, disk):
    space = make(min_free_bytes=0)
    disk.free = 16
    space.give_ballast()
    assert "journal.ballast_bytes" in space.alarm
    for free, alarmed in ((17, True), (18, False)):
        disk.free = free
        space.look()
        assert (space.alarm is not None) == alarmed


def test_no_ballast_is_wanted_and_an_earlier_one_goes(make, tmp_path):
    make()
    make(ballast_bytes=0)
    assert not (tmp_path / "journal.ballast").exists()


def test_the_ballast_of_an_earlier_broker_is_given_up_if_the_disk_is_full_at_the_start(make, disk, tmp_path):
    make()
    disk.free = 20
    space = make()
    assert ballast(tmp_path) == 0
    assert space.alarm is not None


def test_a_ballast_that_can_not_be_made_is_done_without(make, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    assert make().alarm is None
    assert ballast(tmp_path) == 0


# -- the cap ---------------------------------------------------------------


def test_a_small_cap_has_a_small_log():
    assert [checkpoint_pages(4000, cap) for cap in (0, 16 * MIB, 1 << 40)] == [4000, 1024, 4000]


@pytest.fixture
def capped(new_rig, tmp_path):
    """A journal of at most 16 MiB, with a queue."""
    rig = new_rig(tmp_path, space=Space(tmp_path, max_bytes=16 * MIB, min_free_bytes=0, ballast_bytes=0), wal_autocheckpoint=1024)
    rig.record(QueueDeclared("/", 1, QueueSpec("q1")))
    rig.commit()
    return rig


def size(directory) -> int:
    return sum((directory / name).stat().st_size for name in ("journal.db", "journal.db-wal"))


def fill(rig):
    references = []
    while rig.journal.alarm is None:
        references += [rig.publish(b"x" * 20_000, 1)[0] for _ in range(10)]
        rig.commit()
        assert len(references) < 2000
    return references


def test_at_the_cap_there_is_an_alarm_and_the_files_keep_within_it(capped, tmp_path):
    references = fill(capped)
    assert "journal.max_bytes allows 16.0 MiB" in capped.journal.alarm
    assert len(references) * 20_000 > 6 * MIB
    assert size(tmp_path) <= 16 * MIB


@pytest.mark.parametrize("batch", [40_000, 400_000, 3 * MIB])
def test_the_files_outgrow_the_cap_by_no_more_than_twice_what_one_commit_holds(capped, tmp_path, batch):
    """The alarm is there when it is handed over, for what comes while it is written. Twice: to the log, and to the database."""
    stored = 0
    while capped.journal.alarm is None:
        for _ in range(4):
            capped.publish(bytes(batch // 4), 1)
        commit = capped.prepare()
        told = capped.journal.alarm is not None
        before = size(tmp_path)
        assert capped.write(commit) is None
        stored += batch
        assert told or size(tmp_path) <= 16 * MIB
        assert size(tmp_path) <= max(before, 16 * MIB) + 2 * batch + 64 * 1024
    assert size(tmp_path) <= 16 * MIB + 2 * batch + 64 * 1024
    assert stored > 5 * MIB


def test_a_commit_that_would_go_beyond_the_cap_and_frees_more_than_it_brings_leaves_no_alarm(capped):
    references = [capped.publish(bytes(500_000), 1)[0] for _ in range(4)]
    capped.commit()
    capped.settle(*references)
    capped.publish(bytes(10 * MIB), 1)
    commit = capped.prepare()
    assert capped.journal.alarm is not None
    capped.write(commit)
    reference = capped.publish(b"", 1)[0]
    capped.settle(*[capped.entry(1, paged) for paged in capped.drain(1)], reference)
    capped.commit()
    assert capped.journal.alarm is None


def test_at_the_cap_acknowledgements_are_written_and_what_they_free_is_room_again(capped, tmp_path):
    references = fill(capped)
    for reference in references[: len(references) // 2]:
        capped.settle(reference)
        capped.commit()
    assert capped.journal.alarm is None
    assert size(tmp_path) <= 16 * MIB
    again = fill(capped)
    assert len(again) * 20_000 > 2 * MIB
    assert size(tmp_path) <= 16 * MIB
    capped.restart()
    assert len(capped.bodies(1)) == len(references) - len(references) // 2 + len(again)


def test_the_alarm_of_the_cap_ends_only_with_an_eighth_of_room(capped):
    references = fill(capped)
    for reference in references[:20]:
        capped.settle(reference)
    capped.commit()
    assert capped.journal.alarm is not None


def test_one_commit_that_is_larger_than_the_cap_does_not_leave_a_large_log_behind(capped, tmp_path):
    reference = capped.publish(b"x" * 30 * MIB, 1)[0]
    capped.commit()
    assert capped.journal.alarm is not None
    capped.settle(reference)
    capped.commit()
    assert capped.journal.alarm is None
    assert (tmp_path / "journal.db-wal").stat().st_size < 8 * MIB


def test_a_journal_that_is_full_at_the_start_says_so(capped, new_rig, tmp_path):
    fill(capped)
    capped.journal.close()
    rig = new_rig(tmp_path, space=Space(tmp_path, max_bytes=8 * MIB))
    assert rig.journal.alarm is not None


def test_the_journal_looks_when_it_is_asked_to(new_rig, tmp_path, disk):
    rig = new_rig(tmp_path, space=Space(tmp_path, min_free_bytes=100 * MIB))
    assert rig.journal.alarm is None
    disk.free = 10
    rig.journal.look()
    assert rig.journal.alarm is not None
    rig.record(StatePut("test", "k", b"v"))
    rig.commit()  # what was taken in before is written
