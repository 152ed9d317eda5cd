"""Is a journal of every format since the first opened with everything in it, and does it work on?

``formats/v1.db`` was written by the code of format 1. It has seven queues' worth of history: 180 messages in six segments,
every third one in queue 5, the others in the queues 2 and 3; some settled, some delivered before.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gateway.errors import JournalError
from gateway.journal import migrate
from gateway.journal.index import Index
from gateway.journal.migrate import bring_up_to_date
from gateway.journal.recovery import connect
from gateway.model.declare import Binding, BindingOptions, ExchangeSpec, Overflow, QueueSpec
from gateway.model.records import (
    Bound,
    DeliveryCounted,
    ExchangeDeclared,
    QueueDeclared,
    QueueDeleted,
    QueueDepth,
    Retained,
    StatePut,
)
from tests.journal.test_model import check_rows

FIRST = Path(__file__).parent / "formats" / "v1.db"

IN_2 = [n for n in range(40, 180) if n % 3 and n % 5]
IN_3 = [n for n in range(180) if n % 3]
IN_5 = [n for n in range(90, 180) if n % 3 == 0]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A data directory with a journal of format 1."""
    (tmp_path / "data").mkdir()
    shutil.copy(FIRST, tmp_path / "data" / "journal.db")
    return tmp_path / "data"


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA user_version").fetchone()[0]


def schema(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT name, sql FROM sqlite_schema WHERE type <> 'table' AND sql IS NOT NULL"))


def columns(path: Path) -> dict[str, list[tuple]]:
    with closing(sqlite3.connect(path)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {name: connection.execute(f"PRAGMA table_info({name})").fetchall() for name in names}


def test_the_kept_file_is_of_format_1():
    with closing(sqlite3.connect(f"file:{FIRST}?mode=ro&immutable=1", uri=True)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert {idx[0] for (idx,) in connection.execute("SELECT idx FROM seg")} == {1}
        assert connection.execute("SELECT count(*) FROM segack").fetchone() == (5,)


def test_everything_of_format_1_is_there(directory, new_rig):
    rig = new_rig(directory)
    assert version(directory / "journal.db") == migrate.VERSION
    loaded = rig.loaded
    assert [r for r in loaded if isinstance(r, ExchangeDeclared)] == [
        ExchangeDeclared("/", ExchangeSpec("plant", "topic", alternate="lost")),
        ExchangeDeclared("v", ExchangeSpec("lost", "fanout", arguments={"x": b"\1"})),
    ]
    assert [r for r in loaded if isinstance(r, QueueDeclared)] == [
        QueueDeclared("/", 2, QueueSpec("alarms", max_length=9, overflow=Overflow.REJECT_PUBLISH)),
        QueueDeclared("/", 3, QueueSpec("mqtt-session.meter", keep_transient=False)),
        QueueDeclared("v", 5, QueueSpec("later", arguments={"x-max-length": 7})),
    ]
    options = BindingOptions(qos=1, subscription_ids=(4,), mqtt=True)
    assert {(r.vhost, r.binding.identity()): r.binding.options for r in loaded if isinstance(r, Bound)} == {
        ("/", Binding("plant", "alarms", "a.#").identity()): options,
        ("/", Binding("amq.topic", "mqtt-session.meter", "a.*").identity()): BindingOptions(),
        ("v", Binding("lost", "later", "", arguments={"x-match": "all", "k": 1}).identity()): BindingOptions(),
    }
    assert {(r.namespace, r.key): r.value for r in loaded if isinstance(r, StatePut)} == {
        ("mqtt", "meter"): b"\0session",
        ("tgp", "mark"): b"7",
    }
    (retained,) = [r for r in loaded if isinstance(r, Retained)]
    assert (retained.key, retained.message.body, retained.message.priority, retained.message.expires_at_ms) == (
        "a.b", b"last", 3, 1 << 42,
    )  # fmt: skip
    assert {r.queue_id: r.live for r in loaded if isinstance(r, QueueDepth)} == {2: len(IN_2), 3: len(IN_3), 5: len(IN_5)}


@pytest.mark.parametrize("max_bytes", [1, 1 << 20], ids=["segment by segment", "at once"])
def test_messages_of_format_1_come_in_order_with_everything(directory, new_rig, max_bytes):
    rig = new_rig(directory)
    for queue, numbers in ((2, IN_2), (3, IN_3), (5, IN_5)):
        assert rig.bodies(queue, max_bytes=max_bytes) == [b"message %03d" % n for n in numbers]
    for n, reference in zip(IN_3, rig.drain(3), strict=True):
        message = reference.message
        assert (message.exchange, message.routing_key) == ("plant" if n % 2 else "amq.topic", f"a.{n % 5}")
        assert (message.wire_tag, message.wire) == (("mqtt", b"w%d" % (n % 3)) if n % 6 else ("", b""))
        assert (message.priority, message.expires_at_ms) == (n % 3, (1 << 42) + n if n % 7 == 0 else 0)
        assert reference.options == (BindingOptions(qos=1) if n % 4 else None)
        assert (reference.count, reference.due_ms) == (int(n == 7), 0)
        assert reference.stored_ms > 1_600_000_000_000
    assert [r.count for r in rig.drain(2)] == [2 * (n == 41) for n in IN_2]


def test_a_migrated_journal_works_on(directory, new_rig):
    rig = new_rig(directory)
    assert rig.journal.next_queue_id > 5
    paged = rig.drain(2)
    rig.positions = {2: 10_000, 5: 10_000}
    rig.settle(*(rig.entry(2, reference) for reference in paged[::2]))
    rig.record(DeliveryCounted(rig.entry(2, paged[1]), 3, 1 << 42), QueueDeleted("/", 3, "mqtt-session.meter"))
    rig.publish(b"new", 2, 5)
    rig.commit()
    rig.restart()
    check_rows(directory / "journal.db")
    assert rig.bodies(2) == [b"message %03d" % n for n in IN_2[1::2]] + [b"new"]
    assert [(r.count, r.due_ms) for r in rig.drain(2)][:2] == [(3, 1 << 42), (0, 0)]
    assert rig.bodies(3) == []
    assert rig.bodies(5) == [b"message %03d" % n for n in IN_5] + [b"new"]


def test_a_migrated_journal_has_the_schema_of_a_new_one(directory, new_rig, tmp_path):
    new_rig(directory)
    new_rig(tmp_path / "new")
    assert schema(directory / "journal.db") == schema(tmp_path / "new" / "journal.db")
    assert columns(directory / "journal.db") == columns(tmp_path / "new" / "journal.db")


def test_the_next_id_is_greater_than_all_that_format_1_has(directory, new_rig):
    with closing(sqlite3.connect(directory / "journal.db", isolation_level=None)) as connection:
        connection.execute("UPDATE queue SET id = 70 WHERE id = 5")
    assert new_rig(directory).journal.next_queue_id == 71


def statements(script: str) -> list[str]:
    found, rest = [], ""
    for part in script.split(";"):
        rest += part + ";"
        if sqlite3.complete_statement(rest):
            found.append(rest)
            rest = ""
    return found


def test_a_migration_cut_off_anywhere_leaves_one_format_or_the_other(directory, new_rig):
    """The file is copied after every statement of the migration, with its log, as a crash would leave it."""
    path = directory / "journal.db"
    scripts: list[str] = []

    class Recorder:
        in_transaction = False

        def __init__(self, connection: sqlite3.Connection) -> None:
            self.execute = connection.execute

        def executescript(self, script: str) -> None:
            scripts.append(script)

    with closing(connect(path, synchronous="FULL", wal_autocheckpoint=10)) as connection:
        bring_up_to_date(Recorder(connection), "it")
        found = set()
        steps = [statement for script in scripts for statement in statements(script)]
        assert len(steps) > 10
        for number, statement in enumerate(steps):
            connection.execute(statement)
            if number % 6 and number < len(steps) - 2:
                continue
            copy = directory.parent / f"copy{number}"
            copy.mkdir()
            for file in directory.glob("journal.db*"):
                if not file.name.endswith("-shm"):
                    shutil.copy(file, copy / file.name)
            found.add(version(copy / "journal.db"))
            rig = new_rig(copy)
            assert rig.bodies(2) == [b"message %03d" % n for n in IN_2]
            rig.journal.close()
    assert found == {1, migrate.VERSION}


def test_an_older_format_is_brought_up_step_by_step_and_an_unknown_one_is_refused(directory):
    steps = {1: "CREATE TABLE one (a)", 2: "CREATE TABLE two (a); INSERT INTO two VALUES (2)"}
    with closing(connect(directory / "journal.db", synchronous="FULL", wal_autocheckpoint=10)) as connection:
        bring_up_to_date(connection, "it", version=3, migrations=steps)
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)
        assert connection.execute("SELECT a FROM two").fetchall() == [(2,)]
        with pytest.raises(JournalError, match="no way"):
            bring_up_to_date(connection, "it", version=5, migrations=steps)


def test_a_migration_that_fails_leaves_the_format_before_it(directory):
    with closing(connect(directory / "journal.db", synchronous="FULL", wal_autocheckpoint=10)) as connection:
        with pytest.raises(sqlite3.Error):
            bring_up_to_date(connection, "it", version=2, migrations={1: "CREATE TABLE one (a); INSERT INTO none VALUES (1)"})
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'one'").fetchone() == (0,)


def test_segments_of_index_format_1_can_be_read():
    with closing(sqlite3.connect(f"file:{FIRST}?mode=ro&immutable=1", uri=True)) as connection:
        indexes = [Index(idx) for (idx,) in connection.execute("SELECT idx FROM seg")]
    assert sum(len(index.positions) for index in indexes) > 180
