"""Is anything lost by who mistypes a path, comes at a bad moment, or writes names that talk to a terminal?"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from gateway.cli import backup as backup_module
from gateway.cli.backup import stamped, taken_before
from gateway.cli.commands import app
from gateway.errors import JournalError
from gateway.journal.sqlite import SqliteJournal
from gateway.journal.tools import backup as copying
from gateway.journal.tools import restore as backup_restore
from gateway.journal.tools.inspection import check_undisturbed, how_to_read, reading
from tests.admin.journals import ORDERS, fill, fingerprint, rig
from tests.journal.conftest import Rig


def run(*arguments):
    result = CliRunner().invoke(app, list(map(str, arguments)), prog_name="tidegate")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def bodies(directory, queue="orders"):
    return run("peek", queue, "--limit", "999", "--raw", "--data-dir", directory)[1]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    directory = tmp_path_factory.mktemp("made") / "data"
    with rig(directory) as found:
        fill(found)
    return directory


@pytest.fixture
def data(made, tmp_path):
    return shutil.copytree(made, tmp_path / "data")


@pytest.fixture
def killed(tmp_path):
    """A data directory as a kill leaves it: what was committed is in the log alone."""
    found = Rig(lambda: SqliteJournal(tmp_path / "living"))
    found.open()
    fill(found)
    shutil.copytree(tmp_path / "living", tmp_path / "killed", ignore=shutil.ignore_patterns("*-shm"))
    found.journal.close(clean=True)
    assert (tmp_path / "killed" / "journal.db-wal").stat().st_size
    return tmp_path / "killed"


# -- a wrong path -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["journal.db", "journal.db-wal", "journal.db-shm", "journal.lock", "journal.ballast"])
@pytest.mark.parametrize("command", [("backup",), ("definitions", "export")])
def test_nothing_is_written_over_a_part_of_a_journal(data, command, name):
    before = fingerprint(data)
    code, _, errors = run(*command, data / name, "--data-dir", data)
    assert code == 73
    assert "belongs to the journal of" in errors
    assert fingerprint(data) == before


def test_a_backup_does_not_take_the_place_of_another_broker_s_journal(data, tmp_path, made):
    other = shutil.copytree(made, tmp_path / "other")
    before = fingerprint(other)
    assert run("backup", other / "journal.db", "--data-dir", data)[0] == 73
    assert fingerprint(other) == before


def test_a_backup_does_not_take_the_place_of_a_database_whose_log_would_be_taken_for_its_own(data, killed, tmp_path):
    for suffix in ("", "-wal"):
        (killed / f"journal.db{suffix}").rename(tmp_path / f"kept.db{suffix}")
    code, _, errors = run("backup", tmp_path / "kept.db", "--data-dir", data)
    assert code == 73
    assert "was not closed in order" in errors


def test_what_is_no_file_is_neither_replaced_by_a_backup_nor_waited_for(data, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    code, _, errors = run("backup", tmp_path / "pipe", "--data-dir", data)
    assert (code, (tmp_path / "pipe").is_fifo()) == (73, True), errors
    assert run("restore", tmp_path / "pipe", "--data-dir", tmp_path / "new")[0] == 74
    assert run("restore", tmp_path, "--data-dir", tmp_path / "new")[0] == 74


def test_definitions_that_can_not_be_written_leave_the_old_file(data, tmp_path, monkeypatch):
    out = tmp_path / "definitions.json"
    out.write_text("the old one")

    def full(self, data):
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert run("definitions", "export", out, "--data-dir", data)[0] == 2
    assert out.read_text() == "the old one"
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


# -- a bad moment -----------------------------------------------------------------


def test_a_backup_of_what_was_not_closed_in_order_has_what_is_in_its_log_alone(killed, tmp_path):
    expected, before = bodies(killed), fingerprint(killed)
    code, _, errors = run("backup", tmp_path / "copy.db", "--data-dir", killed)
    assert (code, errors) == (0, "")
    assert fingerprint(killed) == before
    shutil.rmtree(killed)
    assert run("restore", tmp_path / "copy.db", "--data-dir", killed)[0] == 0
    assert bodies(killed) == expected != ""


def test_restoring_what_was_not_closed_in_order_brings_back_its_log_too(killed, tmp_path):
    expected = bodies(killed)
    assert expected
    code, _, errors = run("restore", killed / "journal.db", "--data-dir", tmp_path / "new")
    assert (code, errors) == (0, "")
    assert bodies(tmp_path / "new") == expected


def test_a_draft_that_a_killed_process_left_behind_goes_with_the_next_one(data, tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead, living = tmp_path / f".copy.db.{gone.pid}.part", tmp_path / f".copy.db.{os.getppid()}.part"
    others = tmp_path / f".copy.db2.{gone.pid}.part"
    for path in (dead, living, others):
        path.write_bytes(b"half")
    assert run("backup", tmp_path / "copy.db", "--data-dir", data)[0] == 0
    assert (dead.exists(), living.exists(), others.exists()) == (False, True, True)


def test_a_restore_that_was_killed_is_no_reason_to_refuse_the_next_one(data, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "..journal.db.restoring.123.part").write_bytes(b"half")
    assert run("backup", tmp_path / "copy.db", "--data-dir", data)[0] == 0
    code, _, errors = run("restore", tmp_path / "copy.db", "--data-dir", tmp_path / "new")
    assert (code, errors) == (0, "")


def test_a_kill_while_a_journal_is_put_aside_leaves_it_whole_somewhere(killed, monkeypatch):
    """Whatever step is the last one, its old place or the new one has database and log."""
    expected = bodies(killed)
    steps = 0
    for last in range(1, 9):
        place = shutil.copytree(killed, killed.with_name(f"killed-{last}"))
        steps = _put_aside_until(place / "journal.db", last, monkeypatch)
        whole = [_bodies_of(path) for path in (place / "journal.db", *place.glob("journal.db.broken-*Z"))]
        assert expected in whole, f"after step {last}"
    assert steps < 8


def _put_aside_until(path, last, monkeypatch):
    done = 0

    class Killed(BaseException):
        pass

    def counted(call):
        def step(*arguments, **named):
            nonlocal done
            if done == last:
                raise Killed
            done += 1
            return call(*arguments, **named)

        return step

    with monkeypatch.context() as patched:
        patched.setattr(backup_restore.os, "link", counted(os.link))
        patched.setattr(Path, "rename", counted(Path.rename))
        patched.setattr(Path, "unlink", counted(Path.unlink))
        with suppress(Killed):
            backup_restore.put_aside(path, "broken", fold=False)
    return done


def _bodies_of(path):
    home = path.with_name(f"{path.name}-look")
    home.mkdir()
    for suffix in ("", "-wal"):
        if path.with_name(path.name + suffix).exists():
            shutil.copy(path.with_name(path.name + suffix), home / f"journal.db{suffix}")
    return bodies(home)


def test_who_reads_a_log_without_an_index_is_told_if_a_broker_was_started_meanwhile(killed):
    path = killed / "journal.db"
    how = how_to_read(path)
    check_undisturbed(path, how)
    journal = SqliteJournal(killed)
    with pytest.raises(JournalError, match="a broker was started"), reading(path):
        journal.open()
    journal.close(clean=True)


def test_a_clock_that_was_set_back_does_not_cost_the_newest_backups(data, tmp_path, monkeypatch):
    """Three are from a year that is yet to come: they go, one for each that is taken now."""
    out = tmp_path / "copies" / "tidegate.db"
    out.parent.mkdir()
    now_s = time.time()
    future = [stamped(out, now_s + 1_000_000 * n) for n in (100, 200, 300)]
    for path in future:
        path.write_bytes(b"")
    old = stamped(out, now_s - 1_000_000)
    old.write_bytes(b"")
    assert taken_before(out) == [*future, old]

    def end(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(backup_module, "time", SimpleNamespace(**{**vars(time), "sleep": end}))
    code, output, _ = run("backup", out, "--every", "1h", "--keep", "2", "--data-dir", data)
    assert code == 0
    newest = Path(output.split(": ", 1)[0])
    assert taken_before(out) == [old, newest]


# -- huge numbers -----------------------------------------------------------------


@pytest.mark.parametrize("option", ["--limit", "--offset"])
def test_a_huge_number_of_messages_is_as_good_as_all(data, option):
    code, output, _ = run("peek", "orders", option, 10**30, "--raw", "--data-dir", data)
    assert code == 0
    assert output == (bodies(data) if option == "--limit" else "")


@pytest.mark.parametrize("options", [("--every", "1e300d"), ("--every", "9999999999d"), ("--pause-ms", 10**30)])
def test_a_time_that_no_clock_has_is_a_mistake(data, tmp_path, options):
    code, _, errors = run("backup", tmp_path / "copy.db", *options, "--data-dir", data)
    assert code == 2
    assert "Traceback" not in errors
    assert not list(tmp_path.glob("*.db"))


# -- names that talk to a terminal --------------------------------------------------

EVIL = "evil\x1b]0;owned\x07\x9b31m\u202e"


def test_no_command_lets_a_name_talk_to_the_terminal(tmp_path):
    data = tmp_path / "data"
    (tmp_path / "evil.json").write_text(
        '{"queues": [{"name": "%s", "vhost": "/", "durable": true, "arguments": {}}'
        ', {"name": "%s2", "vhost": "/", "arguments": {"x-%s": 1}}]}'
        % ((EVIL.encode("unicode_escape").decode().replace("\\x", "\\u00"),) * 3)
    )
    said = [
        run("definitions", "import", tmp_path / "evil.json", "--data-dir", data),
        run("policy", "set", EVIL, EVIL, '{"max-length": 3}', "--data-dir", data),
        run("policy", "list", "--data-dir", data),
        run("queues", "--data-dir", data),
        run("journal", "stats", "--data-dir", data),
        run("peek", EVIL, "--data-dir", data),
        run("peek", EVIL + "3", "--data-dir", data),
        run("policy", "clear", EVIL, "--data-dir", data),
        run("policy", "clear", EVIL, "--data-dir", data),
    ]
    assert [code for code, *_ in said] == [0, 0, 0, 0, 0, 0, 74, 0, 1]
    for _, output, errors in said:
        assert all(c.isprintable() or c == "\n" for c in output + errors), output + errors


def test_a_copy_for_which_there_is_no_room_is_said_so(tmp_path, monkeypatch):
    """SQLite is told that its disk is full; exit code 73 is that of what can't be written."""
    data = tmp_path / "data"
    with rig(data) as found:
        fill(found)
        found.publish(bytes(500_000), ORDERS)
        found.commit()
    make = copying._make_tables

    def small(connection):
        make(connection)
        connection.execute("PRAGMA main.max_page_count = 1").fetchall()

    monkeypatch.setattr(copying, "_make_tables", small)
    before = fingerprint(data)
    for command in (("backup", tmp_path / "copy.db"), ("journal", "compact")):
        code, _, errors = run(*command, "--data-dir", data)
        assert (code, "No space left on device" in errors) == (73, True), errors
    assert fingerprint(data) == before
    assert not list(tmp_path.glob("*.db"))
