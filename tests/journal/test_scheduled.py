"""Do scheduled messages last, and do they come back when they are asked for?"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing

from gateway.model.message import Address, Message
from gateway.model.records import MessageScheduled, QueueDepth, Scheduled, ScheduledGone

ADDRESS = Address("plant ☃", "alarms", "a.b\0c")


def planned(number: int, body: bytes = b"body", due_ms: int = 5000, **how) -> MessageScheduled:
    return MessageScheduled(number, due_ms, Message(ADDRESS, body, True, **how))


def read(rig, *ids: int):
    """Have scheduled messages read; the answer gives them."""
    told, answers = threading.Event(), []
    rig.journal.read_scheduled(list(ids), lambda answer: (answers.append(answer), told.set()))
    assert told.wait(30)
    return answers[0]


def bodies(rig, *ids: int) -> dict[int, bytes]:
    return {number: message.body for number, message in read(rig, *ids)()}


def listed(rig) -> list[Scheduled]:
    return [record for record in rig.loaded if isinstance(record, Scheduled)]


def test_a_scheduled_message_is_listed_without_its_body_and_read_with_everything(rig):
    rig.record(planned(7, b"body", 1 << 42, wire_tag="mqtt", wire=b"\1\2", priority=9, expires_at_ms=1 << 43))
    rig.commit()
    rig.restart()
    assert listed(rig) == [Scheduled(7, 1 << 42, "plant ☃", "alarms", "a.b\0c", 4)]
    ((number, message),) = read(rig, 7)()
    assert (number, message.body, message.persistent, message.wire_tag, message.wire) == (7, b"body", True, "mqtt", b"\1\2")
    assert (message.priority, message.expires_at_ms) == (9, 1 << 43)
    address = message.address
    assert (address.vhost, address.exchange, address.routing_key) == ("plant ☃", "alarms", "a.b\0c")


def test_what_is_gone_is_left_out_and_stays_away(rig):
    rig.record(*(planned(number, b"%d" % number) for number in range(1, 6)), ScheduledGone(5))
    rig.commit()
    rig.record(ScheduledGone(2), ScheduledGone(99))
    rig.commit()
    assert bodies(rig, 1, 2, 3, 5, 77) == {1: b"1", 3: b"3"}
    rig.restart()
    assert [record.scheduled_id for record in listed(rig)] == [1, 3, 4]
    assert bodies(rig, *range(10)) == {1: b"1", 3: b"3", 4: b"4"}


def test_what_is_not_committed_is_not_there(rig):
    rig.record(planned(1))
    commit = rig.prepare()
    rig.restart()
    assert commit is not None
    assert listed(rig) == []
    assert bodies(rig, 1) == {}


def test_publishing_and_removing_are_one_commit(rig):
    rig.record(planned(1, b"now"))
    rig.commit()
    rig.record(ScheduledGone(1))
    rig.publish(b"now", 4)
    assert rig.prepare() is not None
    rig.restart()
    assert len(listed(rig)) == 1
    assert not any(isinstance(record, QueueDepth) for record in rig.loaded)
    rig.record(ScheduledGone(1))
    rig.publish(b"now", 4)
    rig.commit()
    rig.restart()
    assert listed(rig) == []
    assert rig.bodies(4) == [b"now"]


def test_what_goes_while_it_is_read_is_left_out(rig):
    rig.record(*(planned(number, b"%d" % number) for number in range(1, 5)))
    rig.commit()
    rig.record(ScheduledGone(1))
    assert (commit := rig.prepare()) is not None
    answer = read(rig, 1, 2, 3, 4)
    assert rig.write(commit) is None
    rig.record(ScheduledGone(2))
    rig.commit()
    rig.record(ScheduledGone(3))
    assert rig.prepare() is not None
    assert [number for number, _ in answer()] == [4]


def test_many_and_large_ones_are_read_together(rig):
    large = {number: bytes([number]) * 300_000 for number in range(1, 9)}
    rig.record(*(planned(number, body) for number, body in large.items()))
    rig.commit()
    assert bodies(rig, *reversed(large)) == large


def test_a_damaged_one_is_reported_and_left_out(new_rig, tmp_path):
    told: list[str] = []
    rig = new_rig(tmp_path / "data", report=told.append)
    rig.record(planned(1, b"one"), planned(2, b"two"))
    rig.commit()
    with closing(sqlite3.connect(tmp_path / "data" / "journal.db", isolation_level=None)) as connection:
        connection.execute("UPDATE scheduled SET body = x'00' WHERE id = 1")
    assert bodies(rig, 1, 2) == {2: b"two"}
    assert bodies(rig, 1) == {}
    assert len(told) == 1
    assert "scheduled message 1" in told[0]
