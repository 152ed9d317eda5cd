"""Does compaction come to rest, cost little at a time, and keep away where it would do harm?"""

from __future__ import annotations

import gc
import random
from types import SimpleNamespace

import pytest

from gateway.journal import compaction, leftovers
from gateway.journal.space import Space
from gateway.model.declare import QueueSpec
from gateway.model.records import QueueDeclared, QueuePurged
from tests.journal.test_compaction import database, fill, rig, segments, settled_but_every_tenth, steps

__all__ = ["rig"]  # the fixture

KIB = 1024


def read_leftovers(rig) -> None:
    for _ in range(3):
        rig.journal.look()
        rig.read(99)


# -- what must not happen --------------------------------------------------


def test_what_a_move_under_way_concerns_counts_as_written(rig):
    """Who is refused while the journal fails has it withdrawn if it is not on disk; what moves is."""
    settled_but_every_tenth(rig, fill(rig, 4))
    gc.collect()
    read_leftovers(rig)
    assert rig.prepare() is not None  # and it fails
    entries = [rig.entry(1, paged) for paged in rig.page(1).references]
    assert len(entries) == 16
    assert all(rig.journal.is_written(entry) for entry in entries)


def small_disk(monkeypatch, free: int) -> None:
    disk = SimpleNamespace(f_frsize=4096, f_blocks=1 << 30, f_bavail=free // 4096)
    monkeypatch.setattr("gateway.journal.space.os.statvfs", lambda _: disk)


def test_nothing_moves_while_the_disk_has_too_little_room(rig, new_rig, tmp_path, monkeypatch):
    settled_but_every_tenth(rig, fill(rig, 6))
    rig.journal.close()
    small_disk(monkeypatch, 10 << 20)
    low = new_rig(tmp_path / "data", space=Space(tmp_path / "data", min_free_bytes=100 << 20))
    assert low.journal.alarm is not None
    found = segments(low)
    read_leftovers(low)
    assert not low.journal.upkeep
    assert low.prepare() is None
    assert segments(low) == found
    small_disk(monkeypatch, 900 << 20)
    low.journal.look()
    assert steps(low) > 0
    assert len(segments(low)) == 1


def test_at_the_cap_things_move_as_that_makes_room(rig, new_rig, tmp_path):
    settled_but_every_tenth(rig, fill(rig, 6))
    rig.journal.close()
    full = new_rig(tmp_path / "data", space=Space(tmp_path / "data", max_bytes=4096, min_free_bytes=0, ballast_bytes=0))
    assert full.journal.alarm is not None
    assert steps(full) > 0
    assert len(segments(full)) == 1


# -- what is worth it ---------------------------------------------------------


@pytest.mark.parametrize("occasion", ["start", "purge"])
def test_segments_of_one_large_message_are_not_tiny(rig, occasion):
    fill(rig, 70, 1, body=bytes(20 * KIB))
    if occasion == "start":
        rig.restart()
    else:
        gc.collect()
        rig.record(QueuePurged(2))
        rig.commit()
    found = segments(rig)
    assert steps(rig) == 0
    assert segments(rig) == found


@pytest.mark.parametrize("found_by", ["settling", "start", "paging"])
def test_little_that_is_left_of_few_large_messages_is_worth_it(rig, found_by):
    references = fill(rig, 4, 10, body=bytes(60 * KIB))
    if found_by == "paging":
        references = []
        rig.restart()
        references = [rig.entry(1, paged) for paged in rig.drain(1)]
    left = settled_but_every_tenth(rig, references)
    if found_by == "start":
        references.clear()
        rig.restart()
    steps(rig)
    with database(rig) as connection:
        (size,) = connection.execute("SELECT sum(length(body)) FROM seg").fetchone()
    assert size < 5 * 61 * KIB
    assert rig.bodies(1) == left


def test_a_segment_that_was_not_worth_it_is_looked_at_again_when_half_of_what_it_had_is_gone(rig):
    """Not worth it: a quarter of the references, nearly all of the bytes. In no memory when it was looked at."""
    large = [rig.publish(bytes(10 * KIB), 1)[0] for _ in range(20)]
    small = [rig.publish(b"small", 1)[0] for _ in range(80)]
    rig.commit()
    rig.settle(*small)
    rig.commit()
    del large, small
    rig.restart()
    assert steps(rig) == 0
    entries = [rig.entry(1, paged) for paged in rig.drain(1)]
    rig.settle(*entries[2:])
    rig.commit()
    assert steps(rig) > 0
    with database(rig) as connection:
        assert connection.execute("SELECT sum(refs) FROM seg").fetchone() == (2,)


# -- what it costs -------------------------------------------------------------


def test_of_a_segment_with_very_many_references_the_main_thread_looks_at_no_more_than_it_moves(rig, monkeypatch):
    looked_at = []
    left = compaction._left

    def counted(stored, slots, handle):
        looked_at.append(len(slots))
        return left(stored, slots, handle)

    monkeypatch.setattr(compaction, "_left", counted)
    queues = tuple(range(1, 61))
    rig.record(*(QueueDeclared("/", queue, QueueSpec(f"q{queue}")) for queue in queues[2:]))
    references = fill(rig, 1, 500, *queues, body=bytes(50))
    rig.settle(*(r for r in references if r.position % 5))
    rig.commit()
    for _ in range(40):
        read_leftovers(rig)
        if not rig.journal.upkeep:
            break
        commit = rig.prepare()
        if commit is None:
            continue  # what was read had moved meanwhile
        assert rig.write(commit) is None
    assert len(looked_at) >= 100 * 60 // (leftovers.MOST_REFERENCES + 60)
    assert max(looked_at) <= leftovers.MOST_REFERENCES + 60, "six thousand were left"
    assert [r.position for r in rig.drain(60)] == list(range(5, 501, 5))


def test_a_message_that_more_queues_have_than_move_at_once_stays_where_it_is(rig, monkeypatch):
    monkeypatch.setattr(leftovers, "MOST_REFERENCES", 20)
    queues = tuple(range(1, 31))
    rig.record(*(QueueDeclared("/", queue, QueueSpec(f"q{queue}")) for queue in queues[2:]))
    references = fill(rig, 1, 10, *queues, body=bytes(50))
    rig.settle(*(r for r in references if r.position != 3))
    rig.commit()
    assert steps(rig) == 0
    assert len(rig.bodies(30)) == 1


ADVERSE = {
    "acknowledgements at random": lambda chance, number: (1,),
    "two queues in turn": lambda chance, number: (1 + number % 2,),
    "fan-out to fifty with one that never acknowledges": lambda chance, number: tuple(range(1, 51)),
}


@pytest.mark.parametrize("pattern", ADVERSE)
def test_what_moves_in_all_is_no_more_than_a_third_of_what_was_written_and_a_second_time_of_tiny_ones(rig, pattern):
    chance = random.Random(pattern)
    where = ADVERSE[pattern]
    rig.record(*(QueueDeclared("/", queue, QueueSpec(f"q{queue}")) for queue in range(3, 51)))
    waiting: list = []
    written = messages = 0
    for _ in range(60):
        for _ in range(chance.choice((1, 5, 40))):
            references = rig.publish(bytes(chance.choice((10, 1000))), *where(chance, messages))
            messages += 1
            written += len(references)
            waiting += [r for r in references if r.queue_id != 50]
        chance.shuffle(waiting)
        rig.settle(*waiting[len(waiting) // 3 :])
        del waiting[len(waiting) // 3 :]
        rig.commit()
        read_leftovers(rig)
    rig.settle(*waiting[: len(waiting) // 2])
    rig.commit()
    assert steps(rig, 200) < 200
    counters = rig.journal.counters
    assert counters.references_moved <= written // 3 + counters.commits * leftovers.TINY
    moved = counters.references_moved
    assert steps(rig) == 0
    assert counters.references_moved == moved


def test_an_idle_broker_makes_a_few_commits_and_then_none_for_an_hour(sqlite_rig, monkeypatch):
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(compaction, "time", SimpleNamespace(monotonic=lambda: clock.now))
    rig = sqlite_rig
    rig.record(QueueDeclared("/", 1, QueueSpec("q1")))
    kept = fill(rig, 100, 1)  # tiny, and in memory
    settled_but_every_tenth(rig, fill(rig, 30, 100))
    fill(rig, 100, 1)
    gc.collect()
    rig.record(QueuePurged(7))
    rig.commit()
    commits = []
    for second in range(3600):
        clock.now += 1.0
        rig.journal.look()
        if second < 100 or second % 60 == 0:
            rig.read(99)
        while rig.journal.upkeep:
            commits.append(second)
            rig.commit()
            rig.read(99)
    assert 0 < len(commits) < 20
    assert max(commits) < 300
    assert len(kept) == 100
