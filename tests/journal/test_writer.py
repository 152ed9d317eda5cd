"""What becomes of a commit when the disk says no?"""

from __future__ import annotations

import resource
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway.config import JournalSettings
from gateway.errors import JournalError
from gateway.journal import writer
from gateway.journal.space import Space
from gateway.model.declare import QueueSpec
from gateway.model.records import Batch, QueueDeclared, QueueDepth, QueuePurged, StatePut
from tests.programs import missing


class FaultyConnection:
    """A connection whose commits fail: `faults` holds (before or after a statement, SQLite's code) or None, the next one first."""

    def __init__(self, connection: sqlite3.Connection, faults: list[tuple[str, int]]) -> None:
        self._connection = connection
        self._faults = faults
        self.closed = False

    def execute(self, sql, *parameters):
        fault = self._faults.pop(0) if self._faults and sql.startswith(("INSERT", "COMMIT")) else None
        if fault and fault[0] == "before":
            raise _error(fault[1])
        cursor = self._connection.execute(sql, *parameters)
        if fault:
            raise _error(fault[1])
        return cursor

    def close(self) -> None:
        self.closed = True
        self._connection.close()


def _error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error" if code & 0xFF == sqlite3.SQLITE_IOERR else "database or disk is full")
    error.sqlite_errorcode = code
    return error


@pytest.fixture
def faults():
    return []


@pytest.fixture
def rig(sqlite_rig, faults):
    writer = sqlite_rig.journal._writer
    writer._connection = FaultyConnection(writer._connection, faults)
    connect = writer._connect
    writer._connect = lambda: FaultyConnection(connect(), faults)
    sqlite_rig.record(QueueDeclared("/", 1, QueueSpec("q1")), QueueDeclared("/", 2, QueueSpec("q2")))
    sqlite_rig.commit()
    return sqlite_rig


def count(rig, table: str) -> int:
    with closing(sqlite3.connect(rig.journal._path)) as connection:
        return connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def test_a_commit_that_fails_is_told_and_can_be_written_again(rig, faults):
    rig.publish(b"x", 1)
    rig.record(StatePut("test", "k", b"v"))
    commit = rig.prepare()
    faults += [("before", sqlite3.SQLITE_IOERR_FSYNC)] * 2
    for _ in range(2):
        error = rig.write(commit)
        assert isinstance(error, JournalError)
        assert "journal.db: disk I/O error" in str(error)
        assert (rig.bodies(1), count(rig, "state")) == ([], 0)
    assert rig.write(commit) is None
    assert (rig.bodies(1), count(rig, "state")) == ([b"x"], 1)
    assert (rig.journal.counters.failed_commits, rig.journal.counters.commits) == (2, 2)


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_FULL])
def test_a_commit_that_landed_all_the_same_is_found_and_not_written_twice(rig, faults, code):
    references = [rig.publish(b"%d" % number, 1, 2)[0] for number in range(3)]
    commit = rig.prepare()
    faults.append(("after", code))
    assert rig.write(commit) is not None
    assert rig.write(commit) is None
    assert count(rig, "seg") == 1
    rig.settle(references[1])
    rig.commit()
    rig.restart()
    assert rig.bodies(1) == [b"0", b"2"]


WRITE, DISK_FULL = sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_FULL
TROUBLES = (
    [("before", WRITE)],
    [None, ("before", DISK_FULL)],
    [None, ("after", WRITE)],
    [None, None, ("before", DISK_FULL)],
    [None, None, ("after", WRITE)],
)


@pytest.mark.parametrize(("most", "trouble"), [(1, []), (5_000, []), *((4_500, trouble) for trouble in TROUBLES)])
@pytest.mark.parametrize("landed", [False, True])
def test_what_undoes_a_commit_that_failed_is_written_with_it_or_not_at_all(rig, faults, landed, most, trouble):
    """Of two segments a part goes, or one of them, or both; whatever becomes of the attempts."""
    references = [rig.publish(b"%d" % number, 1)[0] for number in range(5_000)]
    rig.record(StatePut("test", "kept", b"v"), StatePut("test", "undone", b"v"))
    commit = rig.prepare()
    faults.append(("after" if landed else "before", WRITE))
    assert rig.write(commit) is not None
    rig.settle(*references[:most])
    rig.record(StatePut("test", "undone", None))
    undone, rig.batch = rig.batch, Batch()
    rig.journal.amend(undone)
    faults += trouble
    while rig.write(commit) is not None:
        assert count(rig, "state") in (2 if landed else 0, 1)
    faults.clear()  # what had landed has one statement less
    rig.publish(b"next", 1)
    rig.commit()
    left = [*(b"%d" % number for number in range(most, 5_000)), b"next"]
    assert rig.bodies(1) == left
    rig.restart()
    assert rig.bodies(1) == left
    assert {record.key for record in rig.loaded if isinstance(record, StatePut)} == {"kept"}


def test_a_commit_without_messages_that_landed_is_written_again_without_harm(rig, faults):
    references = [rig.publish(b"%d" % number, 1, 2) for number in range(3)]
    rig.commit()
    rig.settle(references[0][0], *(pair[1] for pair in references))
    rig.record(QueuePurged(2), StatePut("test", "k", b"v"))
    commit = rig.prepare()
    faults += [("after", sqlite3.SQLITE_IOERR_WRITE)] * 3
    while rig.write(commit) is not None:
        pass
    rig.restart()
    assert (rig.bodies(1), rig.bodies(2)) == ([b"1", b"2"], [])
    assert [count(rig, table) for table in ("seg", "segq", "segack", "state")] == [1, 1, 1, 1]


@pytest.mark.parametrize(("code", "reopened"), [(sqlite3.SQLITE_IOERR_WRITE, True), (sqlite3.SQLITE_FULL, False)])
def test_the_connection_is_opened_anew_after_an_io_error_and_kept_on_a_full_disk(rig, faults, code, reopened):
    before = rig.journal._writer._connection
    rig.publish(b"x", 1)
    commit = rig.prepare()
    faults.append(("before", code))
    assert rig.write(commit) is not None
    assert rig.write(commit) is None
    assert (rig.journal._writer._connection is not before) == reopened
    assert before.closed == reopened


def test_pages_are_read_while_the_journal_can_not_be_written(rig, faults):
    rig.publish(b"x", 1)
    rig.commit()
    rig.publish(b"y", 1)
    commit = rig.prepare()
    faults += [("before", sqlite3.SQLITE_IOERR_WRITE)]
    assert rig.write(commit) is not None
    assert rig.bodies(1) == [b"x"]


def test_acknowledgements_wait_with_the_commit_that_fails(rig, faults):
    reference = rig.publish(b"x", 1)[0]
    rig.commit()
    rig.settle(reference)
    commit = rig.prepare()
    faults += [("before", sqlite3.SQLITE_FULL)]
    assert rig.write(commit) is not None
    assert rig.bodies(1) == []  # settled in memory
    assert rig.write(commit) is None
    assert count(rig, "seg") == 0


def test_a_journal_that_can_not_be_opened_again_says_so_until_it_can(rig, faults, monkeypatch):
    writer = rig.journal._writer
    working = writer._connect

    def broken():
        raise sqlite3.OperationalError("unable to open database file")

    rig.publish(b"x", 1)
    commit = rig.prepare()
    faults.append(("before", sqlite3.SQLITE_IOERR))
    monkeypatch.setattr(writer, "_connect", broken)
    assert rig.write(commit) is not None
    assert "unable to open" in str(rig.write(commit))
    monkeypatch.setattr(writer, "_connect", working)
    assert rig.write(commit) is None
    assert rig.bodies(1) == [b"x"]


def test_a_batch_that_can_not_be_written_at_all_is_refused_and_not_swallowed(rig):
    rig.publish(b"lost", 1)
    commit = rig.prepare()
    commit.settlement.places.append([object()])
    assert isinstance(rig.write(commit), JournalError)
    rig.publish(b"x", 1)
    rig.commit()
    assert rig.bodies(1) == [b"x"]


def test_a_disk_that_is_full_for_a_while_loses_nothing(rig):
    """The limit on the size of a file stands in for the disk: the process can move it."""
    rig.publish(b"x" * 3_000_000, 1)
    rig.commit()
    size = rig.journal._path.with_name("journal.db-wal").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    rig.publish(b"y" * 100_000, 1)
    commit = rig.prepare()
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20_000, hard))
    try:
        errors = [rig.write(commit) for _ in range(3)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert all(isinstance(error, JournalError) for error in errors)
    assert rig.write(commit) is None
    rig.restart()
    assert [body[:1] for body in rig.bodies(1)] == [b"x", b"y"]


def test_an_end_while_the_disk_is_full_leaves_no_trace_of_what_was_not_confirmed(rig, faults):
    rig.publish(b"confirmed", 1)
    rig.commit()
    sent, _ = rig.publish(b"sent", 1)[0], rig.publish(b"not", 1)
    rig.settle_automatically(sent)
    commit = rig.prepare()
    faults.append(("before", sqlite3.SQLITE_FULL))
    assert rig.write(commit) is not None
    rig.restart(clean=True)
    assert [record.live for record in rig.loaded if isinstance(record, QueueDepth)] == [1]
    assert rig.bodies(1) == [b"confirmed"]


def test_commits_are_written_in_the_order_they_were_given(rig):
    commits = []
    for number in range(5):
        rig.publish(b"%d" % number, 1)
        commits.append(rig.prepare())
    assert [rig.write(commit) for commit in commits] == [None] * 5
    assert rig.bodies(1) == [b"0", b"1", b"2", b"3", b"4"]


# -- many and large -----------------------------------------------------


def test_a_batch_of_many_messages_is_several_segments_in_one_commit(rig):
    commits = rig.journal.counters.commits
    for number in range(10_000):
        rig.publish(b"%d" % number, 1)
    rig.commit()
    assert rig.journal.counters.commits == commits + 1
    with closing(sqlite3.connect(rig.journal._path)) as connection:
        sizes = connection.execute("SELECT n, length(body) FROM seg ORDER BY id").fetchall()
    assert len(sizes) >= 3
    assert max(n for n, _ in sizes) <= 4096
    assert sum(n for n, _ in sizes) == 10_000
    rig.restart()
    assert rig.bodies(1) == [b"%d" % number for number in range(10_000)]


def test_a_large_body_has_a_segment_of_its_own(rig):
    bodies = [b"a" * 10, b"b" * (1 << 20), b"c" * (3 << 20), b"d" * 600_000, b"e" * 600_000, b"f"]
    for body in bodies:
        rig.publish(body, 1)
    rig.commit()
    with closing(sqlite3.connect(rig.journal._path)) as connection:
        assert [n for (n,) in connection.execute("SELECT n FROM seg ORDER BY id")] == [1, 1, 1, 1, 2]
    rig.restart()
    assert rig.bodies(1) == bodies


def test_a_body_for_many_queues_is_written_once(rig):
    queues = range(1, 201)
    rig.publish(b"x" * 100_000, *queues)
    rig.commit()
    with closing(sqlite3.connect(rig.journal._path)) as connection:
        assert connection.execute("SELECT n, refs, length(body) FROM seg").fetchall() == [(1, 200, 100_000)]
    rig.restart()
    assert all(rig.bodies(queue) == [b"x" * 100_000] for queue in queues)


# -- counters -----------------------------------------------------------


def test_counters_count(rig):
    counters = rig.journal.counters
    references = [rig.publish(b"12345", 1, 2) for _ in range(4)]
    rig.settle(*references[0])
    rig.commit()
    assert (counters.messages_written, counters.messages_elided, counters.references_written) == (3, 1, 6)
    assert counters.body_bytes == 15
    assert counters.index_bytes > 0
    assert counters.last_commit_s > 0
    assert counters.segments_live == 1
    rig.settle(*(reference for pair in references[1:] for reference in pair))
    rig.commit()
    assert counters.segments_live == 0


def test_segments_are_counted_when_they_were_paged_or_purged(rig):
    for _ in range(3):
        rig.publish(b"x", 1, 2)
        rig.commit()
    rig.restart()
    assert rig.journal.counters.segments_live == 3
    rig.settle(*(rig.entry(1, paged) for paged in rig.drain(1)))
    rig.commit()
    paged = rig.drain(2)
    rig.settle(rig.entry(2, paged[0]))
    rig.commit()
    rig.record(StatePut("test", "k", b""))
    rig.commit()  # the count comes after the commit's answer
    assert rig.journal.counters.segments_live == 2
    rig.record(QueuePurged(2))
    rig.commit()
    rig.record(StatePut("test", "k", b""))
    rig.commit()
    assert rig.journal.counters.segments_live == 0


# -- what state it is in, and what it costs the disk --------------------------


def test_the_state_is_failing_then_read_only_and_writable_again_without_a_restart(rig, faults, monkeypatch):
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(writer, "time", SimpleNamespace(perf_counter=lambda: clock.now, time_ns=time.time_ns))
    rig.journal._writer._refuse_after_s = 0.3
    rig.publish(b"x", 1)
    commit = rig.prepare()
    assert rig.journal.state == "writable"
    faults += [("before", sqlite3.SQLITE_IOERR_WRITE)] * 3
    assert rig.write(commit) is not None
    assert rig.journal.state == "failing"
    clock.now += 0.25
    assert rig.write(commit) is not None
    assert rig.journal.state == "failing"
    clock.now += 0.1
    assert rig.write(commit) is not None
    assert rig.journal.state == "read-only"
    assert rig.write(commit) is None
    assert rig.journal.state == "writable"
    faults.append(("before", sqlite3.SQLITE_FULL))
    rig.publish(b"y", 1)
    assert rig.write(rig.prepare()) is not None
    assert rig.journal.state == "failing"  # the time counts from the first failure of a row


def test_on_a_full_disk_the_ballast_is_given_up_and_the_commit_is_tried_again_at_once(rig, faults, tmp_path):
    space = Space(tmp_path / "data", min_free_bytes=0, ballast_bytes=1 << 20)
    space.take()
    space.begin(rig.journal._anchor)
    rig.journal._writer._space = space
    ballast = tmp_path / "data" / "journal.ballast"
    assert ballast.stat().st_size == 1 << 20
    rig.publish(b"x", 1)
    faults.append(("before", sqlite3.SQLITE_FULL))
    assert rig.write(rig.prepare()) is None
    assert (rig.journal.counters.failed_commits, rig.journal.state) == (1, "writable")
    assert ballast.stat().st_size == 1 << 20  # there is room after all: it is there again
    rig.publish(b"y", 1)
    faults += [("before", sqlite3.SQLITE_FULL)] * 2
    assert rig.write(rig.prepare()) is not None  # the ballast is given up once for a commit


def test_another_error_leaves_the_ballast_alone(rig, faults, tmp_path):
    space = Space(tmp_path / "data", min_free_bytes=0, ballast_bytes=1 << 20)
    space.take()
    space.begin(rig.journal._anchor)
    rig.journal._writer._space = space
    rig.publish(b"x", 1)
    faults.append(("before", sqlite3.SQLITE_IOERR_WRITE))
    assert rig.write(rig.prepare()) is not None
    assert (tmp_path / "data" / "journal.ballast").stat().st_size == 1 << 20


def written(new_rig, directory, pages: int) -> float:
    """Return the bytes written per message of 100 bytes, with a backlog of 5,000."""
    rig = new_rig(directory, wal_autocheckpoint=pages)
    rig.record(QueueDeclared("/", 1, QueueSpec("q1")))
    rig.commit()
    before = rig.journal.counters.bytes_written
    live = []
    for _ in range(150):
        live += [rig.publish(b"x" * 100, 1)[0] for _ in range(100)]
        if len(live) > 5000:
            rig.settle(*live[:100])
            del live[:100]
        rig.commit()
    return (rig.journal.counters.bytes_written - before) / 15_000


def test_bytes_written_are_those_of_the_log_and_of_checkpoints(new_rig, tmp_path):
    if not Path("/proc/self/io").exists():
        missing("this system does not count what a thread writes")
    rig = new_rig(tmp_path, wal_autocheckpoint=1_000_000)  # no checkpoint
    rig.record(QueueDeclared("/", 1, QueueSpec("q1")))
    rig.commit()
    log = tmp_path / "journal.db-wal"
    size, before = log.stat().st_size, rig.journal.counters.bytes_written
    for _ in range(20):
        rig.publish(b"x" * 10_000, 1)
        rig.commit()
    assert rig.journal.counters.bytes_written - before == log.stat().st_size - size
    after = rig.journal.counters.bytes_written
    rig.journal.close()
    assert rig.journal.counters.bytes_written >= after  # known beyond the end


def test_where_nobody_counts_what_a_thread_writes_there_is_a_lower_bound(rig):
    rig.journal.counters.meter = lambda: -1
    rig.publish(b"12345", 1)
    rig.commit()
    counters = rig.journal.counters
    assert counters.bytes_written == counters.body_bytes + counters.index_bytes > 5


def test_a_quarter_of_the_log_writes_somewhat_more(new_rig, tmp_path):
    small, usual = (JournalSettings(log_mib=size).wal_autocheckpoint for size in (4, 16))
    costs = {pages: written(new_rig, tmp_path / str(pages), pages) for pages in (small, usual)}
    logs = {pages: (tmp_path / str(pages) / "journal.db-wal").stat().st_size for pages in costs}
    assert logs[small] < 1.1 * small * 4120 < logs[usual]
    assert 1.0 <= costs[small] / costs[usual] < 1.3
