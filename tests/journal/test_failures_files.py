"""What does a whole broker do when its data directory or its files are not as they should be? A test per case, named after it."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.journal.whole_broker import EROFS, STORED, Broker, clients, everything_in, with_a_queue

pytestmark = pytest.mark.slow


# -- the data directory -----------------------------------------------------------


def test_locked_by_another_broker_it_refuses_to_start_and_names_the_pid(broker):
    pid = broker.process.pid
    broker.port = 0
    status, said = broker.refuses_to_start()
    assert status == 75
    assert re.search(rf"in use by another broker, process {pid}\b", said)


def test_lost_lock_file_lets_no_second_broker_in(broker):
    (broker.data / "journal.lock").unlink()
    broker.port = 0
    status, said = broker.refuses_to_start()
    assert (status, "in use by another broker" in said) == (75, True)


def test_read_only_directory_it_refuses_to_start_and_keeps_nothing_in_memory_instead(new_broker, injector):
    broker = new_broker(injector)
    broker.rule(f"O * {EROFS} 0 -1")
    status, said = broker.refuses_to_start()
    assert status == 73
    assert str(broker.data) in said


# -- damage ------------------------------------------------------------------------


def stored(broker: Broker, number: int = signal.SIGTERM) -> Path:
    """Have 10 messages stored, a segment each, and the broker stopped; return the database."""
    broker.start()
    with_a_queue(broker)
    with clients(broker, "writer") as writer:
        assert [writer.publish(f"message {number} " * 40) for number in range(10)] == [STORED] * 10
    broker.end(number)
    return broker.data / "journal.db"


def test_flipped_byte_its_segment_is_quarantined_and_the_rest_goes_on(new_broker):
    broker = new_broker()
    path = stored(broker)
    path.write_bytes(path.read_bytes().replace(b"message 4 message", b"message 4 massage"))
    broker.start()
    assert everything_in(broker, 9) == [f"message {number} " * 40 for number in range(10) if number != 4]
    broker.says("damaged")
    with clients(broker, "writer", "reader") as (writer, reader):
        assert writer.publish("new") == STORED
        assert reader.receive(1) == ["new"]
    broker.end(signal.SIGTERM)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM quarantine").fetchone() == (1,)


def test_broken_page_is_found_at_the_start_and_the_file_is_left_as_it_is(new_broker):
    broker = new_broker()
    path = stored(broker)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE meta SET value = 0 WHERE key = 'clean'")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'segq_seg'").fetchone()
    data = bytearray(path.read_bytes())
    data[(page - 1) * 4096 : (page - 1) * 4096 + 64] = b"\xff" * 64
    path.write_bytes(data)
    status, said = broker.refuses_to_start()
    assert status == 74
    assert f"{path} is damaged" in said
    assert path.read_bytes() == data


@pytest.mark.slow
def test_broken_header_is_found_at_the_start(new_broker):
    broker = new_broker()
    path = stored(broker)
    data = path.read_bytes()
    path.write_bytes(bytes(16) + data[16:])
    status, said = broker.refuses_to_start()
    assert (status, str(path) in said) == (74, True)
    assert path.read_bytes()[16:] == data[16:]


@pytest.mark.parametrize(
    "end", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)], ids=["after-a-clean-end", "after-a-kill"]
)
def test_truncated_file_is_found_at_the_start(new_broker, end):
    broker = new_broker(None, "journal.log_mib=4")
    path = stored(broker, end)
    if end == signal.SIGKILL:  # as if all had been checkpointed
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    os.truncate(path, path.stat().st_size // 2)
    status, said = broker.refuses_to_start()
    assert (status, str(path) in said) == (74, True)


@pytest.mark.slow
def test_truncated_to_nothing_beside_its_log_it_is_not_taken_for_a_new_journal(new_broker):
    broker = new_broker()
    path = stored(broker, signal.SIGKILL)
    os.truncate(path, 0)
    status, said = broker.refuses_to_start()
    assert (status, "cut off" in said) == (74, True)


@pytest.mark.slow
def test_deleted_log_costs_what_came_since_the_checkpoint_and_the_file_is_checked(new_broker):
    broker = new_broker()
    path = stored(broker, signal.SIGKILL)
    for name in ("journal.db-wal", "journal.db-shm"):
        (broker.data / name).unlink()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT value FROM meta WHERE key = 'clean'").fetchone() == (0,)  # so it will be checked
    broker.start()
    with_a_queue(broker)
    with clients(broker, "writer") as writer:
        assert writer.publish("new") == STORED
        broker.restart()
    assert everything_in(broker, 1) == ["new"]
