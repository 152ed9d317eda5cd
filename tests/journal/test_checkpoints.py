"""Is a log that does not get into the database noticed, told, and brought in when that can be done again?"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.model.declare import QueueSpec
from gateway.model.records import QueueDeclared
from tests.journal import test_crash
from tests.journal.test_crash import operations

shim = test_crash.shim
WRITER = Path(__file__).with_name("crash_writer.py")


class NoCheckpoints:
    """A connection on which checkpoints fail, as long as `fails`; those that SQLite makes of itself are switched off."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.fails = True
        self.asked = 0
        connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall()

    def execute(self, sql, *parameters):
        if "wal_checkpoint" in sql:
            self.asked += 1
            if self.fails:
                raise sqlite3.OperationalError("disk I/O error")
        return self._connection.execute(sql, *parameters)

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def rig(new_rig, tmp_path):
    rig = new_rig(tmp_path / "data", wal_autocheckpoint=100)
    rig.record(QueueDeclared("/", 1, QueueSpec("q1")))
    rig.commit()
    return rig


@pytest.fixture
def disk(rig):
    disk = rig.journal._writer._connection = NoCheckpoints(rig.journal._writer._connection)
    return disk


def log_bytes(rig) -> int:
    return rig.journal._path.with_name("journal.db-wal").stat().st_size


def fill(rig, most: int) -> None:
    for _ in range(most):
        rig.publish(bytes(50_000), 1)
        rig.commit()
        if rig.journal.alarm is not None:
            return


def looked(rig, said) -> bool:
    deadline = time.monotonic() + 60
    while not said() and time.monotonic() < deadline:
        rig.journal.look()
        time.sleep(0.005)
    return said()


def test_while_checkpoints_work_nobody_asks_and_there_is_no_alarm(rig):
    disk = rig.journal._writer._connection = NoCheckpoints(rig.journal._writer._connection)
    disk._connection.execute("PRAGMA wal_autocheckpoint = 100").fetchall()
    fill(rig, 100)
    assert (disk.asked, rig.journal.alarm) == (0, None)
    assert log_bytes(rig) < 1 << 20


def test_a_log_that_grows_as_checkpoints_fail_raises_the_alarm_with_the_reason(rig, disk, monkeypatch):
    monkeypatch.setattr("gateway.journal.checkpoints.AGAIN_AFTER_S", 3_600.0)
    fill(rig, 200)
    assert "can't be brought into the database: disk I/O error" in rig.journal.alarm
    assert log_bytes(rig) < 4 << 20
    assert rig.journal.counters.failed_checkpoints == 1


def test_it_is_tried_again_about_once_a_second_and_works_without_a_commit(rig, disk, monkeypatch):
    fill(rig, 200)
    monkeypatch.setattr("gateway.journal.checkpoints.AGAIN_AFTER_S", 0.05)
    began, asked = time.monotonic(), disk.asked
    assert looked(rig, lambda: disk.asked > asked + 1)
    assert disk.asked - asked <= 2 + (time.monotonic() - began) / 0.05
    disk.fails = False
    assert looked(rig, lambda: rig.journal.alarm is None)
    rig.publish(b"new", 1)
    rig.commit()
    assert rig.journal.alarm is None


def test_a_log_that_one_large_commit_has_made_large_is_no_cause_for_alarm(rig, disk):
    disk.fails = False
    rig.publish(bytes(5_000_000), 1)
    rig.commit()
    fill(rig, 50)
    assert rig.journal.alarm is None
    assert disk.asked == 1


def test_syncs_are_at_least_as_many_as_are_said(shim, tmp_path):
    trace = tmp_path / "trace"
    trace.touch()
    environment = {**os.environ, "LD_PRELOAD": str(shim), "SHIM_TRACE": str(trace), "SHIM_MATCH": "journal.db", "SYNCS": "1"}
    command = [sys.executable, WRITER, tmp_path / "data", "FULL", "5", "100", trace]
    said = subprocess.run(command, env=environment, check=True, timeout=100, stderr=subprocess.PIPE, text=True).stderr
    syncs = sum(kind == b"S" for kind, *_ in operations(trace.read_bytes()))
    at_least = int(said.rpartition("syncs ")[2])
    assert 110 < at_least <= syncs < at_least * 1.5 + 20
