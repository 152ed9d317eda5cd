"""Is what little is left in segments written anew, in order, with everything, and without anybody noticing?"""

from __future__ import annotations

import gc
import sqlite3
import time
from contextlib import closing

import pytest

from gateway.journal import compaction, leftovers
from gateway.journal.sqlite import Care, SqliteJournal
from gateway.model.declare import BindingOptions, QueueSpec
from gateway.model.message import Address
from gateway.model.records import DeliveryCounted, QueueDeclared, QueueDeleted, QueuePurged
from tests.journal.conftest import Rig
from tests.journal.test_model import check_rows


@pytest.fixture
def rig(sqlite_rig, monkeypatch):
    """A journal that leaves no segment alone for long, with queues 1 and 2."""
    monkeypatch.setattr(compaction, "UNCHANGED_COMMITS", 0)
    monkeypatch.setattr(compaction, "UNCHANGED_S", 0.0)
    sqlite_rig.record(QueueDeclared("/", 1, QueueSpec("q1")), QueueDeclared("/", 2, QueueSpec("q2")))
    sqlite_rig.commit()
    return sqlite_rig


def database(rig):
    return closing(sqlite3.connect(rig.journal._path))


def segments(rig) -> list[int]:
    with database(rig) as connection:
        return [number for (number,) in connection.execute("SELECT id FROM seg ORDER BY id")]


def look(rig) -> None:
    """Have leftovers read: a survey may be under way, what it finds is wanted next, and then read."""
    for _ in range(3):
        rig.journal.look()
        rig.read(99)


def steps(rig, most: int = 50) -> int:
    """Let the journal tidy up until it comes to rest; return in how many commits."""
    for number in range(most):
        look(rig)
        if not rig.journal.upkeep:
            return number
        commit = rig.journal.prepare(rig.batch)
        if commit is not None:
            assert rig.write(commit) is None
    raise AssertionError("it never comes to rest")


def fill(rig, parts: int, count: int = 40, *queues: int, body: bytes = b"") -> list:
    """Commit parts of messages ``part.number`` and return their references."""
    references = []
    for part in range(parts):
        for number in range(count):
            references += rig.publish(b"%d.%d" % (part, number) + body, *(queues or (1,)))
        rig.commit()
    return references


def every_tenth(references: list) -> list:
    return [reference for number, reference in enumerate(references) if number % 10]


def settled_but_every_tenth(rig, references: list) -> list[bytes]:
    rig.settle(*every_tenth(references))
    rig.commit()
    return [reference.message.body for reference in references[::10]]


@pytest.mark.parametrize("resident", [True, False], ids=["in memory", "only on disk"])
def test_what_is_left_of_many_segments_becomes_one_in_order(rig, resident):
    references = fill(rig, 6)
    left = settled_but_every_tenth(rig, references)
    old = segments(rig)
    if not resident:
        references.clear()
        rig.restart()
    assert steps(rig) == 1
    assert len(segments(rig)) == 1
    assert segments(rig)[0] > max(old)
    check_rows(rig.journal._path)
    assert rig.bodies(1) == left
    rig.restart()
    assert rig.bodies(1) == left


def test_it_comes_to_rest(rig):
    references = fill(rig, 6)
    settled_but_every_tenth(rig, references)
    steps(rig)
    found = segments(rig)
    assert steps(rig) == 0
    rig.restart()
    assert steps(rig) == 0
    assert segments(rig) == found


def test_everything_of_a_message_moves_with_it(rig):
    described = {}
    for number in range(40):
        options = BindingOptions(qos=number % 3, subscription_ids=(number,)) if number % 4 else None
        how = {"wire_tag": "mqtt", "wire": b"w" * (number % 5), "priority": number % 10, "expires_at_ms": (1 << 42) * (number % 3)}
        address = Address("/", "amq.topic", f"k.{number % 6}")
        described[number] = rig.publish(b"%d" % number, 1, 2, options=options, address=address, **how)
    rig.commit()
    rig.record(DeliveryCounted(described[8][0], 3, 1 << 42), DeliveryCounted(described[12][1], 1))
    rig.commit()
    before = {queue: {r.position: r for r in rig.drain(queue)} for queue in (1, 2)}
    rig.settle(*(r for number, pair in described.items() for r in pair if number % 4))
    rig.settle(described[20][0], described[24][1])
    rig.commit()
    time.sleep(0.005)
    described.clear()
    assert steps(rig) == 1
    rig.restart()
    expected = {1: [n + 1 for n in range(0, 40, 4) if n != 20], 2: [n + 1 for n in range(0, 40, 4) if n != 24]}
    for queue in (1, 2):
        found = rig.drain(queue)
        assert [r.position for r in found] == expected[queue]
        for reference in found:
            old = before[queue][reference.position]
            for name in ("position", "options", "count", "due_ms", "stored_ms"):
                assert getattr(reference, name) == getattr(old, name), name
            for name in ("body", "wire_tag", "wire", "priority", "expires_at_ms", "routing_key", "exchange", "persistent"):
                assert getattr(reference.message, name) == getattr(old.message, name), name
    assert {r.count for r in rig.drain(1)} == {0, 3}


def test_messages_of_different_times_keep_them(rig):
    references = fill(rig, 1)
    time.sleep(0.01)
    references += fill(rig, 1)
    stored = {r.position: r.stored_ms for r in rig.drain(1)}
    assert len(set(stored.values())) == 2
    settled_but_every_tenth(rig, references)
    steps(rig)
    assert len(segments(rig)) == 1
    assert {r.position: r.stored_ms for r in rig.drain(1)} == {p: stored[p] for p in stored if p % 10 == 1}


def test_references_in_memory_settle_where_their_messages_are_now(rig):
    references = fill(rig, 4)
    settled_but_every_tenth(rig, references)
    kept = references[::10]
    steps(rig)
    rig.settle(*kept[:8], *kept[:3])
    rig.record(DeliveryCounted(kept[9], 4, 77))
    rig.commit()
    check_rows(rig.journal._path)
    assert [r.position for r in rig.drain(1)] == [r.position for r in kept[8:]]
    assert [(r.count, r.due_ms) for r in rig.drain(1)][1] == (4, 77)
    rig.settle(*kept)
    rig.commit()
    assert segments(rig) == []


def test_they_may_move_again_and_again(rig, monkeypatch):
    references = fill(rig, 8)
    left = references
    for _ in range(2):
        rig.settle(*every_tenth(left))
        rig.commit()
        left = left[::10]
        steps(rig)
        assert rig.bodies(1) == [r.message.body for r in left]
        monkeypatch.setattr(leftovers, "TINY", 0)
    rig.settle(*left)
    rig.commit()
    assert segments(rig) == []


@pytest.mark.parametrize("moment", ["before the reading", "between reading and moving", "while it is written", "after"])
@pytest.mark.parametrize("deed", ["settle", "purge", "delete"])
def test_what_goes_at_any_moment_stays_away(rig, moment, deed):
    references = fill(rig, 4, 40, 1, 2)
    rig.settle(*(r for r in references if r.position % 10 != 1))
    rig.commit()
    kept = [r for r in references if r.position % 10 == 1]

    def go() -> None:
        if deed == "settle":
            rig.settle(*(r for r in kept if r.queue_id == 1))
        else:
            rig.record(QueuePurged(1) if deed == "purge" else QueueDeleted("/", 1, "q1"))

    if moment == "before the reading":
        go()
        rig.commit()
    look(rig)
    if moment == "between reading and moving":
        go()
    commit = rig.prepare()
    if moment == "while it is written":
        go()
    if commit is not None:
        assert rig.write(commit) is None
    if moment == "after":
        go()
    rig.commit()
    steps(rig)
    check_rows(rig.journal._path)
    assert rig.bodies(1) == []
    assert rig.bodies(2) == [b"%d.%d" % (part, number) for part in range(4) for number in range(0, 40, 10)]
    rig.restart()
    assert rig.bodies(1) == []
    assert len(rig.bodies(2)) == 16


@pytest.mark.parametrize("resident", [True, False], ids=["in memory", "only on disk"])
def test_a_page_read_before_the_move_and_made_after_it_is_right(rig, resident):
    references = fill(rig, 4)
    left = settled_but_every_tenth(rig, references)
    kept = references[::10]
    if not resident:
        references.clear()
        kept.clear()
        gc.collect()
    page = rig.read(1)
    assert steps(rig) == 1
    made = page().references
    assert [r.message.body for r in made] == left
    entries = [rig.entry(1, paged) for paged in made]
    rig.settle(*entries[:5])
    rig.commit()
    assert rig.bodies(1) == left[5:]
    rig.settle(*entries)
    rig.commit()
    assert segments(rig) == []


def test_a_page_read_before_the_move_leaves_out_what_was_settled_after_it(rig):
    references = fill(rig, 4)
    left = settled_but_every_tenth(rig, references)
    kept = references[::10]
    page = rig.read(1)
    steps(rig)
    rig.settle(*kept[::2])
    rig.commit()
    rig.record(DeliveryCounted(kept[1], 5, 9))
    rig.commit()
    references.clear()
    kept.clear()
    gc.collect()
    made = page().references
    assert [r.message.body for r in made] == left[1::2]
    assert (made[0].count, made[0].due_ms) == (5, 9)


def test_a_page_made_while_the_move_is_being_written_is_right(rig):
    left = settled_but_every_tenth(rig, fill(rig, 4))
    page = rig.read(1)
    look(rig)
    commit = rig.prepare()
    assert commit is not None
    between = rig.read(1)
    assert [r.message.body for r in page().references] == left
    assert rig.write(commit) is None
    after = rig.read(1)
    assert [r.message.body for r in between().references] == left
    assert [r.message.body for r in after().references] == left


def test_pages_before_and_after_the_move_follow_one_another(rig):
    """A segment with leftovers from everywhere reaches over one that is full."""
    sparse = fill(rig, 3)
    full = fill(rig, 2, body=b"full")
    sparse += fill(rig, 3)
    settled_but_every_tenth(rig, sparse)
    expected = [r.position for r in sorted(sparse[::10] + full, key=lambda r: r.position)]
    first = rig.page(1, max_bytes=1).references
    assert 0 < len(first) < 20
    steps(rig)
    assert len(segments(rig)) == 3
    rest = rig.drain(1, after=first[-1].position, max_bytes=1)
    assert [r.position for r in first + rest] == expected
    assert [r.position for r in rig.drain(1, max_bytes=1)] == expected
    pages, after = 0, 0
    while page := rig.page(1, after, 1).references:
        after = page[-1].position
        pages += 1
    assert pages >= 3


def test_a_page_read_when_a_segment_has_moved_in_part_has_nothing_twice(rig, monkeypatch):
    monkeypatch.setattr(leftovers, "MOST_REFERENCES", 5)
    references = fill(rig, 1, 120)
    rig.settle(*(r for r in references if r.position % 10))
    rig.commit()
    kept = references[9::10]
    look(rig)
    rig.commit()  # five of twelve
    assert len(segments(rig)) == 2
    assert [r.position for r in rig.drain(1)] == list(range(10, 121, 10))
    assert [r.position for r in rig.drain(1, max_bytes=1)] == list(range(10, 121, 10))
    rig.settle(*kept[1::2])
    assert [r.position for r in rig.drain(1)] == list(range(10, 121, 10))
    rig.commit()
    assert [r.position for r in rig.drain(1)] == [r.position for r in kept[::2]]


def test_a_crash_before_the_move_is_on_disk_changes_nothing(rig):
    left = settled_but_every_tenth(rig, fill(rig, 4))
    old = segments(rig)
    look(rig)
    assert rig.prepare() is not None
    rig.restart()
    assert segments(rig) == old
    assert rig.bodies(1) == left
    steps(rig)
    assert rig.bodies(1) == left
    assert len(segments(rig)) == 1


def test_a_move_is_written_again_after_an_error(rig):
    left = settled_but_every_tenth(rig, fill(rig, 4))
    look(rig)
    commit = rig.prepare()
    assert rig.write(commit) is None
    assert rig.write(commit) is None
    assert rig.bodies(1) == left
    check_rows(rig.journal._path)


def test_one_commit_moves_no_more_than_it_has_room_for(rig, monkeypatch):
    monkeypatch.setattr(leftovers, "MOST_REFERENCES", 7)
    left = settled_but_every_tenth(rig, fill(rig, 6, 100))
    assert steps(rig) > 60 // 7
    assert rig.bodies(1) == left
    check_rows(rig.journal._path)


def test_a_segment_with_more_than_that_moves_in_parts(rig, monkeypatch):
    monkeypatch.setattr(leftovers, "MOST_REFERENCES", 7)
    references = fill(rig, 1, 400, 1, 2)
    rig.settle(*(r for r in references if r.position % 10))
    rig.commit()
    assert steps(rig) >= 80 // 8
    check_rows(rig.journal._path)
    assert [r.position for r in rig.drain(1)] == [r.position for r in rig.drain(2)] == list(range(10, 401, 10))
    with database(rig) as connection:
        assert connection.execute("SELECT max(n), max(refs) FROM seg").fetchone() == (4, 8)  # a message is not torn apart


@pytest.mark.parametrize("restart", [False, True], ids=["at once", "found at start"])
def test_tiny_segments_of_messages_that_are_not_in_memory_become_few(rig, restart):
    fill(rig, 200, 1)
    gc.collect()
    if restart:
        rig.restart()
    assert len(segments(rig)) == 200
    steps(rig)
    assert len(segments(rig)) <= 2
    assert rig.bodies(1) == [b"%d.0" % part for part in range(200)]


def test_tiny_segments_of_messages_in_memory_are_left_alone(rig):
    references = fill(rig, 200, 1)
    assert steps(rig) == 0
    assert len(segments(rig)) == 200
    assert len(references) == 200


def test_a_few_tiny_segments_are_left_alone(rig):
    fill(rig, compaction.TINY_TOGETHER - 1, 1)
    gc.collect()
    assert steps(rig) == 0


def test_a_segment_that_is_worked_off_is_left_alone(sqlite_rig, monkeypatch):
    monkeypatch.setattr(compaction, "UNCHANGED_S", 3_600.0)
    rig = sqlite_rig
    references = fill(rig, 1, 400)
    rig.settle(*references[:350])
    rig.commit()
    for _ in range(3):
        look(rig)
        assert not rig.journal.upkeep


def test_a_body_that_many_queues_need_is_not_written_anew_for_nothing(rig):
    """A quarter of the references, but all of the bytes."""
    references = fill(rig, 1, 50, 1, 2, 3, 4, 5)
    rig.settle(*(r for r in references if r.queue_id != 3))
    rig.commit()
    old = segments(rig)
    assert steps(rig) == 0
    assert segments(rig) == old
    assert len(rig.bodies(3)) == 50


def test_references_of_one_message_share_its_body_after_the_move(rig):
    references = fill(rig, 1, 100, 1, 2, body=bytes(1000))
    rig.settle(*(r for r in references if r.position % 10))
    rig.commit()
    steps(rig)
    with database(rig) as connection:
        assert connection.execute("SELECT n, refs, length(body) < 11000 FROM seg").fetchall() == [(10, 20, 1)]


def test_a_damaged_segment_is_left_where_it_is(rig):
    settled_but_every_tenth(rig, fill(rig, 2))
    with closing(sqlite3.connect(rig.journal._path, isolation_level=None)) as connection:
        connection.execute("UPDATE seg SET crc = crc + 1 WHERE id = (SELECT min(id) FROM seg)")
        (damaged,) = connection.execute("SELECT min(id) FROM seg").fetchone()
    steps(rig)
    assert damaged in segments(rig)
    assert rig.page(1).lost == 4


def test_nothing_moves_where_it_is_switched_off(new_rig, tmp_path, monkeypatch):
    monkeypatch.setattr(compaction, "UNCHANGED_COMMITS", 0)
    rig = new_rig(tmp_path / "data", care=Care(compacting=False))
    settled_but_every_tenth(rig, fill(rig, 6))
    assert steps(rig) == 0
    assert len(segments(rig)) == 6


def churn(directory, *, compacting: bool, sticky: int, messages: int, size: int = 200) -> tuple[int, int, int]:
    """Publish messages and settle them a few commits later, but every `sticky`-th; return bytes of file, left, and written."""
    rig = Rig(lambda: SqliteJournal(directory, synchronous="OFF", care=Care(compacting=compacting)))
    rig.open()
    rig.record(QueueDeclared("/", 1, QueueSpec("q1")))
    waiting: list[list] = []
    left = 0
    for commit in range(messages // 500):
        waiting.append([r for number in range(500) for r in rig.publish(bytes(size), 1)])
        if len(waiting) > 3:
            oldest = waiting.pop(0)
            rig.settle(*(r for number, r in enumerate(oldest) if number % sticky))
            left += len(range(0, len(oldest), sticky))
        rig.commit()
        assert commit >= 0
    for batch in waiting:
        rig.settle(*(r for number, r in enumerate(batch) if number % sticky))
        left += len(range(0, len(batch), sticky))
    rig.commit()
    if compacting:
        monkey, compaction.UNCHANGED_COMMITS = compaction.UNCHANGED_COMMITS, 0
        try:
            steps(rig, 500)
        finally:
            compaction.UNCHANGED_COMMITS = monkey
    written = rig.journal.counters.bytes_written
    with database(rig) as connection:
        (pages,) = connection.execute("SELECT page_count - freelist_count FROM pragma_page_count, pragma_freelist_count").fetchone()
    assert len(rig.drain(1)) == left
    rig.journal.close()
    return (directory / "journal.db").stat().st_size, pages * 4096, written


def test_sticky_messages_do_not_hold_much_room(tmp_path):
    with_it, used, written = churn(tmp_path / "with", compacting=True, sticky=20, messages=20_000)
    without, _, written_without = churn(tmp_path / "without", compacting=False, sticky=20, messages=20_000)
    live = 1000 * 200
    assert used < 1.5 * live + 40 * 4096  # a new journal has some thirty pages
    assert with_it < without * 0.7
    assert written < written_without * 1.2
