"""What does damage on the disk take with it, and is it told?"""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing

import pytest

from gateway.errors import JournalError
from gateway.model.declare import QueueSpec
from gateway.model.message import Address, Message
from gateway.model.records import QueueDeclared, QueueDepth, Retained


@pytest.fixture
def reports():
    return []


@pytest.fixture
def rig(new_rig, tmp_path, reports):
    """Three segments of queues 1 and 2, bodies a0 to c3; nothing in memory, nothing in the write-ahead log."""
    rig = new_rig(tmp_path, report=reports.append)
    rig.record(QueueDeclared("/", 1, QueueSpec("q1")), QueueDeclared("/", 2, QueueSpec("q2")))
    for letter in b"abc":
        for number in range(4):
            rig.publish(b"body %c%d" % (letter, number), 1, 2, address=Address("/", "", f"key {letter:c}"))
        rig.commit()
    rig.restart(clean=True)
    rig.journal.close()
    return rig


def flip(path, marker: bytes) -> None:
    data = bytearray(path.read_bytes())
    at = data.index(marker)
    data[at] ^= 1
    path.write_bytes(data)


def ask(path, query: str):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def reopen(rig) -> None:
    rig.journal = rig._new_journal()
    rig.open()


def read_all(rig, queue: int) -> tuple[list[bytes], int]:
    bodies, lost, after = [], 0, 0
    while True:
        page = rig.page(queue, after, 1)
        lost += page.lost
        if not page.references:
            return bodies, lost
        bodies += [reference.message.body for reference in page.references]
        after = page.references[-1].position


@pytest.mark.parametrize("marker", [b"body b2", b"key b"], ids=["body", "index"])
def test_a_flipped_byte_costs_its_segment_and_the_rest_goes_on(rig, tmp_path, reports, marker):
    flip(tmp_path / "journal.db", marker)
    reopen(rig)
    bodies, lost = read_all(rig, 1)
    assert bodies == [b"body %c%d" % (letter, number) for letter in b"ac" for number in range(4)]
    assert lost == 4
    assert len(reports) == 1
    assert "segment 2" in reports[0]
    assert (rig.journal.counters.segments_quarantined, rig.journal.counters.references_lost) == (1, 4)
    assert read_all(rig, 1) == (bodies, 0)  # told once
    rig.publish(b"new", 1)
    rig.commit()
    assert ask(tmp_path / "journal.db", "SELECT seg FROM quarantine") == [(2,)]
    bodies, lost = read_all(rig, 2)  # the other queue hears of its own loss
    assert (len(bodies), lost) == (8, 4)
    rig.restart(clean=True)
    assert {r.queue_id: r.live for r in rig.loaded if isinstance(r, QueueDepth)} == {1: 9, 2: 8}
    assert [read_all(rig, queue)[1] for queue in (1, 2)] == [0, 0]


def test_what_is_damaged_is_kept_aside(rig, tmp_path):
    flip(tmp_path / "journal.db", b"body b2")
    reopen(rig)
    for queue in (1, 2):
        bodies = [rig.entry(queue, paged) for paged in rig.drain(queue)]
        rig.settle(*bodies)
        rig.commit()
    rig.restart(clean=True)
    assert ask(tmp_path / "journal.db", "SELECT id FROM seg") == [(2,)]
    assert ask(tmp_path / "journal.db", "SELECT count(*) FROM segq") == [(0,)]
    assert b"body b3" in ask(tmp_path / "journal.db", "SELECT body FROM seg")[0][0]
    reopened = rig.publish(b"new", 1)[0]
    rig.commit()
    assert reopened.segment.id > 2


def test_what_was_settled_before_is_not_lost(rig, tmp_path):
    reopen(rig)
    paged = rig.drain(1)
    rig.settle(*(rig.entry(1, reference) for reference in paged[4:7]))
    rig.commit()
    rig.journal.close()
    flip(tmp_path / "journal.db", b"body b2")
    reopen(rig)
    assert rig.page(1).lost == 1


def test_damage_with_nothing_after_it_ends_in_an_empty_page(rig, tmp_path):
    for letter in (b"a", b"b", b"c"):
        flip(tmp_path / "journal.db", b"body %s1" % letter)
    reopen(rig)
    page = rig.page(1)
    assert (page.references, page.lost) == ([], 12)
    page = rig.page(1)
    assert (page.references, page.lost) == ([], 0)


def test_a_segment_that_sqlite_can_not_read_costs_only_itself(new_rig, tmp_path):
    rig = new_rig(tmp_path)
    rig.record(QueueDeclared("/", 1, QueueSpec("q1")))
    for number in range(3):
        rig.publish(b"%d" % number * 20_000, 1)
        rig.commit()
    rig.journal.close()
    path = tmp_path / "journal.db"
    data = bytearray(path.read_bytes())
    pages = [at for at in range(0, len(data), 4096) if data[at + 4 : at + 4096] == b"1" * 4092]
    data[pages[1] : pages[1] + 4] = b"\xff\xff\xff\xff"  # the number of the overflow page that follows
    path.write_bytes(data)
    reopen(rig)
    bodies, lost = read_all(rig, 1)
    assert ([body[:1] for body in bodies], lost) == ([b"0", b"2"], 1)
    rig.publish(b"new", 1)
    rig.commit()
    assert ask(path, "SELECT seg FROM quarantine") == [(2,)]


def test_a_damaged_retained_value_is_left_out_and_told(new_rig, tmp_path, reports):
    rig = new_rig(tmp_path, report=reports.append)
    for key in ("good", "bad"):
        rig.record(Retained("/", "amq.topic", key, Message(Address("/", "amq.topic", key), b"value of %s" % key.encode())))
    rig.commit()
    rig.journal.close()
    flip(tmp_path / "journal.db", b"value of bad")
    reopen(rig)
    assert [record.key for record in rig.loaded] == ["good"]
    assert len(reports) == 1
    assert "'bad'" in reports[0]


@pytest.mark.parametrize("flips", [40, pytest.param(600, marks=pytest.mark.slow)])
def test_whatever_byte_flips_nothing_wrong_is_delivered(rig, tmp_path, flips):
    path = tmp_path / "journal.db"
    original = path.read_bytes()
    published = [b"body %c%d" % (letter, number) for letter in b"abc" for number in range(4)]
    used = [at for at in range(len(original)) if original[at]]
    chance = random.Random(11)
    whole = 0
    for _ in range(flips):
        data = bytearray(original)
        data[chance.choice(used)] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        try:
            reopen(rig)
            bodies = [body for queue in (1, 2) for body in read_all(rig, queue)[0]]
        except JournalError:
            continue
        finally:
            rig.journal.close(clean=False)
            for name in ("journal.db-wal", "journal.db-shm"):
                (tmp_path / name).unlink(missing_ok=True)
        assert all(body in published for body in bodies)
        whole += bodies == published * 2
    assert whole  # most bytes are none of these messages'
