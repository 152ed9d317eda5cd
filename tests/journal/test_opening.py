"""Is a data directory taken, checked and given back as it should be?"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from gateway.errors import JournalError, JournalLocked, JournalUnwritable
from gateway.journal import migrate
from gateway.journal.sqlite import SqliteJournal
from gateway.model.declare import QueueSpec
from gateway.model.records import QueueDeclared

HOLD = """
import sys
from pathlib import Path
from gateway.journal.sqlite import SqliteJournal
journal = SqliteJournal(Path(sys.argv[1]))
journal.open()
print("open", flush=True)
sys.stdin.read()
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def opened(directory: Path, **how) -> SqliteJournal:
    journal = SqliteJournal(directory, **how)
    journal.open()
    return journal


def refusal(directory: Path, kind: type[JournalError] = JournalError) -> str:
    with pytest.raises(kind) as caught:
        SqliteJournal(directory).open()
    assert type(caught.value) is kind
    return caught.value.text


def edit(directory: Path, *statements: str) -> None:
    with closing(sqlite3.connect(directory / "journal.db", isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


# -- files --------------------------------------------------------------


def test_directory_and_files_are_for_their_owner_alone(tmp_path):
    before = os.umask(0)
    try:
        journal = opened(tmp_path / "a" / "data")
    finally:
        os.umask(before)
    try:
        assert mode(tmp_path / "a" / "data") == 0o700
        files = {path.name: mode(path) for path in (tmp_path / "a" / "data").iterdir()}
        assert files == dict.fromkeys(("journal.db", "journal.db-wal", "journal.db-shm", "journal.lock"), 0o600)
    finally:
        journal.close()


def test_a_directory_that_is_there_keeps_its_mode(tmp_path):
    directory = tmp_path / "data"
    directory.mkdir(mode=0o750)
    opened(directory).close()
    assert mode(directory) == 0o750


def test_a_file_in_the_place_of_the_directory_is_told(tmp_path):
    (tmp_path / "data").write_text("")
    assert str(tmp_path / "data") in refusal(tmp_path / "data", JournalUnwritable)
    assert "Not a directory" in refusal(tmp_path / "data" / "deeper", JournalUnwritable)


@pytest.mark.parametrize("what", ["directory", "lock", "database"])
def test_what_can_not_be_written_is_told(what):
    """Root may write anywhere: the attempt is made by nobody."""
    directory = Path(tempfile.mkdtemp(prefix="journal-"))
    try:
        opened(directory).close()
        directory.chmod(0o777)
        for path in directory.iterdir():
            path.chmod(0o666)
        protected = {"directory": directory, "lock": directory / "journal.lock", "database": directory / "journal.db"}[what]
        if what == "directory":
            (directory / "journal.lock").unlink()
        protected.chmod(0o555 if what == "directory" else 0o444)
        code = HOLD.replace("journal = ", "import os\nif os.getuid() == 0: os.setuid(65534)\njournal = ", 1)
        run = subprocess.run(
            [sys.executable, "-c", code, directory], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        assert "JournalUnwritable" in run.stderr
        assert str(directory) in run.stderr
        assert run.stdout == ""
    finally:
        directory.chmod(0o700)
        shutil.rmtree(directory)


# -- the lock -----------------------------------------------------------


def test_a_second_broker_is_told_the_pid_of_the_first(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout.readline() == b"open\n"
            assert re.search(rf"\bprocess {other.pid}\b", refusal(tmp_path, JournalLocked))
        finally:
            other.kill()
    opened(tmp_path).close()  # the lock ends with its process


def test_one_process_can_not_open_it_twice_either(tmp_path):
    journal = opened(tmp_path)
    assert str(os.getpid()) in refusal(tmp_path, JournalLocked)
    journal.close()
    opened(tmp_path).close()


def test_an_opening_that_fails_gives_the_lock_back(tmp_path):
    (tmp_path / "journal.db").write_bytes(b"this is not a database" * 100)
    refusal(tmp_path)
    (tmp_path / "journal.db").unlink()
    opened(tmp_path).close()


def test_closing_twice_does_no_harm(tmp_path):
    journal = opened(tmp_path)
    journal.close()
    journal.close()


# -- the format ---------------------------------------------------------


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path):
    (tmp_path / "journal.db").write_bytes(b"this is not a database" * 100)
    assert "not a database" in refusal(tmp_path)
    assert (tmp_path / "journal.db").read_bytes().startswith(b"this is not")


def test_a_database_of_something_else_is_refused_and_not_a_byte_of_it_changed(tmp_path):
    edit(tmp_path, "CREATE TABLE songs (name)")
    before = (tmp_path / "journal.db").read_bytes()
    assert "not a journal of Tidegate" in refusal(tmp_path)
    assert (tmp_path / "journal.db").read_bytes() == before


def test_a_newer_format_is_refused_with_what_to_do(tmp_path):
    opened(tmp_path).close()
    edit(tmp_path, "PRAGMA user_version = 7")
    text = refusal(tmp_path)
    assert "format 7" in text
    assert "newer version" in text


def test_the_format_is_marked_in_the_file(tmp_path):
    opened(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "journal.db")) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (migrate.APPLICATION_ID,)
        assert connection.execute("PRAGMA user_version").fetchone() == (migrate.VERSION,)


def test_an_sqlite_that_is_too_old_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 37, 2))
    assert "3.38" in refusal(tmp_path)
    assert not (tmp_path / "journal.db").exists()


def test_pragmas_are_what_durability_needs(tmp_path):
    journal = opened(tmp_path, wal_autocheckpoint=1234)
    try:
        connection = journal._writer._connection
        values = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in (
                "journal_mode", "synchronous", "secure_delete", "page_size", "auto_vacuum", "wal_autocheckpoint",
                "journal_size_limit", "cache_size", "temp_store",
            )
        }  # fmt: skip
        assert values == {
            "journal_mode": "wal",
            "synchronous": 2,
            "secure_delete": 0,
            "page_size": 4096,
            "auto_vacuum": 0,
            "wal_autocheckpoint": 1234,
            "journal_size_limit": -1,
            "cache_size": -16000,
            "temp_store": 2,
        }
    finally:
        journal.close()


def test_an_unknown_synchronous_is_refused(tmp_path):
    with pytest.raises(JournalError, match="FULL"):
        SqliteJournal(tmp_path, synchronous="SOMETIMES")


@pytest.mark.parametrize(
    ("synchronous", "said"), [("FULL", "power cut"), ("EXTRA", "power cut"), ("NORMAL", "NOT"), ("OFF", "NOT")]
)
def test_durability_says_whether_a_power_cut_is_survived(tmp_path, synchronous, said):
    text = SqliteJournal(tmp_path, synchronous=synchronous).durability
    assert said in text
    assert ("NOT" in text) == (said == "NOT")


# -- the check ----------------------------------------------------------


def break_a_page(directory: Path) -> None:
    """Break the root page of the index on segq, which nothing but the check reads."""
    path = directory / "journal.db"
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'segq_seg'").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xff" * 64)


def test_after_an_unclean_end_the_file_is_checked(tmp_path):
    journal = opened(tmp_path)
    journal.close(clean=False)
    break_a_page(tmp_path)
    assert "damaged" in refusal(tmp_path)


def test_after_a_clean_end_it_is_not(tmp_path):
    opened(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "journal.db")) as connection:
        assert connection.execute("SELECT value FROM meta WHERE key = 'clean'").fetchone() == (1,)
    assert not (tmp_path / "journal.db-wal").exists()
    journal = opened(tmp_path)
    with closing(sqlite3.connect(tmp_path / "journal.db")) as connection:
        assert connection.execute("SELECT value FROM meta WHERE key = 'clean'").fetchone() == (0,)
    journal.close(clean=False)


def test_a_definition_of_a_later_version_is_named(tmp_path):
    journal = opened(tmp_path)
    journal.close()
    edit(tmp_path, "INSERT INTO queue VALUES (1, '/', 'jobs', '{\"colour\":1}')")
    journal = opened(tmp_path)
    with pytest.raises(JournalError, match="'jobs'"):
        list(journal.load())
    journal.close()


def test_depths_can_be_read_by_anyone_while_the_broker_runs(sqlite_rig, tmp_path):
    sqlite_rig.record(QueueDeclared("/", 1, QueueSpec("jobs")), QueueDeclared("/", 2, QueueSpec("empty")))
    sqlite_rig.publish(b"four", 1)
    sqlite_rig.commit()
    with closing(sqlite3.connect(f"file:{tmp_path}/data/journal.db?mode=ro", uri=True)) as connection:
        assert connection.execute("SELECT * FROM depth ORDER BY name").fetchall() == [("/", "empty", 0, 0), ("/", "jobs", 1, 4)]
