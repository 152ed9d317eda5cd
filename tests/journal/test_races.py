"""Is a page right, whatever was committed between the reading and the making of it?

`rig.read` reads from the disk; what it returns makes the page, later.
"""

from __future__ import annotations

import gc
import sqlite3
import weakref
from contextlib import closing

import pytest

from gateway.model.declare import QueueSpec
from gateway.model.records import DeliveryCounted, QueueDeclared, QueueDeleted, QueuePurged, StatePut

BODIES = [b"%d" % number for number in range(8)]


@pytest.fixture
def full(sqlite_rig):
    """Queues 1 and 2 share two segments; nothing of them is in memory."""
    rig = sqlite_rig
    rig.record(QueueDeclared("/", 1, QueueSpec("q1")), QueueDeclared("/", 2, QueueSpec("q2")))
    for part in (BODIES[:4], BODIES[4:]):
        for body in part:
            rig.publish(body, 1, 2)
        rig.commit()
    rig.restart()
    assert len(rig.journal._ledger._resident) == 0
    return rig


def segments_on_disk(rig) -> int:
    with closing(sqlite3.connect(rig.journal._path)) as connection:
        return connection.execute("SELECT count(*) FROM seg").fetchone()[0]


def bodies(page) -> list[bytes]:
    return [reference.message.body for reference in page.references]


def settle_all(rig, queue: int, *numbers: int) -> None:
    """Page references in, settle some, commit, and keep nothing of it in memory."""
    paged = rig.drain(queue)
    rig.settle(*(rig.entry(queue, paged[number]) for number in numbers))
    rig.commit()
    rig.settle()
    del paged
    gc.collect()


def test_what_was_settled_and_committed_after_the_reading_is_left_out(full):
    page = full.read(1)
    settle_all(full, 1, 0, 2, 5)
    assert bodies(page()) == [BODIES[n] for n in (1, 3, 4, 6, 7)]


def test_so_it_is_when_many_commits_have_passed(full):
    page = full.read(1)
    for number in (0, 1, 2):
        settle_all(full, 1, 0)
        full.publish(b"later", 2)
        full.commit()
        gc.collect()
        assert number < 3
    assert bodies(page()) == BODIES[3:]


def test_when_everything_read_has_been_settled_the_page_goes_on_with_what_follows(full):
    page = full.read(1, max_bytes=1)
    settle_all(full, 1, 0, 1, 2, 3)
    assert bodies(page()) == BODIES[4:]


def test_an_empty_page_means_that_nothing_is_on_disk(full):
    page = full.read(1)
    settle_all(full, 1, *range(8))
    assert bodies(page()) == []
    assert bodies(full.page(1)) == []


def test_what_was_committed_after_an_empty_reading_is_found(full):
    page = full.read(1, after=8)
    full.publish(b"new", 1)
    full.positions[1] = 8
    full.batch.messages[-1].first.position = 9
    full.commit()
    assert bodies(page()) == [b"new"]


@pytest.mark.parametrize("written", [False, True], ids=["prepared", "committed"])
def test_a_purge_after_the_reading_empties_the_page(full, written):
    page = full.read(1)
    full.record(QueuePurged(1))
    commit = full.prepare()
    if written:
        assert full.write(commit) is None
        full.publish(b"other", 2)
        full.commit()
    assert bodies(page()) == []
    assert bodies(full.page(2))[:8] == BODIES


def test_what_follows_a_purge_is_in_the_page(full):
    page = full.read(1)
    full.positions[1] = 8
    full.record(QueuePurged(1))
    full.publish(b"new", 1)
    full.commit()
    assert bodies(page()) == [b"new"]


def test_a_queue_deleted_after_the_reading_has_an_empty_page(full):
    page = full.read(1)
    full.record(QueueDeleted("/", 1, "q1"))
    full.commit()
    assert bodies(page()) == []


def test_a_purge_of_another_queue_of_the_same_segment_changes_nothing(full):
    page = full.read(1)
    full.record(QueuePurged(2))
    full.commit()
    found = page()
    assert bodies(found) == BODIES
    full.settle(*(full.entry(1, reference) for reference in found.references))
    full.commit()
    assert segments_on_disk(full) == 0


def test_a_page_read_before_another_queue_settled_does_not_bring_its_numbers_back(full):
    page = full.read(1)
    settle_all(full, 2, *range(8))
    found = page()
    assert bodies(found) == BODIES
    full.settle(*(full.entry(1, reference) for reference in found.references))
    full.commit()
    assert segments_on_disk(full) == 0


def test_delivery_counts_of_commits_after_the_reading_are_in_the_page(full):
    page = full.read(1)
    paged = full.drain(1)
    full.record(DeliveryCounted(full.entry(1, paged[3]), 4))
    full.commit()
    del paged
    gc.collect()
    assert [reference.count for reference in page().references] == [0, 0, 0, 4, 0, 0, 0, 0]


def test_a_segment_that_went_between_listing_and_reading_is_passed_over(full):
    reads = [full.read(1) for _ in range(20)]
    settle_all(full, 1, 0, 1, 2, 3)
    settle_all(full, 2, 0, 1, 2, 3)
    assert all(bodies(page()) == BODIES[4:] for page in reads)


def test_what_is_prepared_and_not_written_is_not_on_disk(sqlite_rig):
    rig = sqlite_rig
    rig.record(QueueDeclared("/", 1, QueueSpec("q1")))
    rig.publish(b"x", 1)
    commit = rig.prepare()
    page = rig.read(1)
    assert rig.write(commit) is None
    assert bodies(page()) == [b"x"]  # an empty page would have been the end
    assert bodies(rig.page(1)) == [b"x"]


def test_a_page_that_nobody_makes_holds_nothing_back(full):
    paged = full.drain(1)
    page = full.read(1)
    full.settle(*(full.entry(1, reference) for reference in paged[:4]))
    full.commit()
    handle = weakref.ref(paged[0].segment)
    del paged, page
    gc.collect()
    full.page(3)
    full.publish(b"x", 3)
    full.commit()
    full.journal.prepare(full.batch)
    gc.collect()
    assert handle() is None


def test_a_segment_is_forgotten_when_nothing_refers_to_it(sqlite_rig):
    rig = sqlite_rig
    rig.record(QueueDeclared("/", 1, QueueSpec("q1")))
    reference = rig.publish(b"x", 1)[0]
    rig.commit()
    assert len(rig.journal._ledger._resident) == 1
    del reference
    rig.record(StatePut("test", "k", b""))
    rig.commit()
    gc.collect()
    assert len(rig.journal._ledger._resident) == 0


def test_pages_and_commits_at_the_same_time_lose_and_repeat_nothing(sqlite_rig):
    rig = sqlite_rig
    rig.record(QueueDeclared("/", 1, QueueSpec("q1")))
    rig.commit()
    consumed: list[int] = []
    page, entries = None, []
    for number in range(300):
        for _ in range(3):
            rig.publish(b"%d" % number, 1)
        rig.commit()
        if page is None:
            page = rig.read(1, after=consumed[-1] if consumed else 0, max_bytes=200)
        elif number % 3 == 0:
            references = page().references
            page = None
            consumed += [reference.position for reference in references]
            entries += [rig.entry(1, reference) for reference in references]
            rig.settle(*entries[::2])
            entries = entries[1::2]
    rig.settle(*entries)
    rig.commit()
    consumed += [reference.position for reference in rig.drain(1, after=consumed[-1])]
    assert consumed == list(range(1, 901))
