"""Is a backup what the journal was, whatever happens meanwhile, and does it come back?"""

from __future__ import annotations

import shutil
import sqlite3
import sys
import time
from pathlib import Path

import pytest
import trio
from typer.testing import CliRunner

from gateway.admin.questions import open_channel
from gateway.cli import backup as backup_module
from gateway.cli.backup import stamped, taken_before
from gateway.cli.commands import app
from gateway.cli.commands_shared import span_s
from gateway.config import Limits
from gateway.errors import JournalError, JournalUnwritable
from gateway.journal.recovery import connect
from gateway.journal.sqlite import SqliteJournal
from gateway.journal.tools import backup as copying
from gateway.journal.tools import files
from gateway.journal.tools.backup import copy_journal
from gateway.model.declare import QueueSpec
from gateway.runtime.broker import Broker
from tests.admin.conftest import Log, let_in
from tests.admin.journals import EMPTY, ORDERS, fill, fingerprint, rig

TIDEGATE = str(Path(sys.executable).with_name("tidegate"))


def run(*arguments):
    result = CliRunner().invoke(app, list(map(str, arguments)), prog_name="tidegate")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def orders(directory):
    return run("peek", "orders", "--limit", "999", "--raw", "--data-dir", directory)[1]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    directory = tmp_path_factory.mktemp("made") / "data"
    with rig(directory) as found:
        fill(found)
    return directory


@pytest.fixture
def data(made, tmp_path):
    return shutil.copytree(made, tmp_path / "data")


def test_a_backup_comes_back_as_it_was(data, tmp_path):
    before = fingerprint(data)
    code, output, _ = run("backup", tmp_path / "copy.db", "--data-dir", data)
    assert code == 0
    assert "whole" in output
    assert fingerprint(data) == before
    code, _, errors = run("restore", tmp_path / "copy.db", "--data-dir", tmp_path / "new")
    assert (code, errors) == (0, "")
    assert orders(tmp_path / "new") == orders(data) != ""
    with rig(tmp_path / "new") as found:
        assert found.page(ORDERS).references
        assert {path.stat().st_mode & 0o077 for path in (tmp_path / "new").iterdir()} == {0}


# -- the drill ------------------------------------------------------------------


async def test_drill_everything_confirmed_before_the_backup_survives_the_loss_of_the_data_directory(tmp_path):  # noqa: PLR0915
    """A broker under load, a backup meanwhile, the directory destroyed; then restore, start, and read it all in order."""
    data = tmp_path / "data"
    confirmed: list[int] = []
    async with trio.open_nursery() as life:
        broker = Broker(SqliteJournal(data, wal_autocheckpoint=50), limits=Limits(), authenticate=let_in, log=Log())
        await life.start(broker.run)
        channel = open_channel(broker)
        await channel.outcome(channel.declare_queue(QueueSpec("orders")))
        await channel.outcome(channel.declare_queue(QueueSpec("passing")))

        async def load():
            route, passing = channel.route("", "orders"), channel.route("", "passing")
            number = 0
            while True:
                numbers = []
                for _ in range(50):
                    numbers.append(channel.publish(route, message(route, number)))
                    channel.publish(passing, message(passing, number))
                    number += 1
                await channel.outcome(numbers[-1])
                confirmed.append(number)
                await channel.outcome(channel.purge_queue("passing"))
                await trio.sleep(0.002)

        life.start_soon(load)
        while not confirmed or confirmed[-1] < 2_000:  # noqa: ASYNC110 - a level, no event
            await trio.sleep(0.01)
        before = confirmed[-1]
        command = [TIDEGATE, "backup", str(tmp_path / "copy.db"), "--data-dir", str(data), "--pause-ms", "20"]
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True)
        assert done.returncode == 0
        after = confirmed[-1]
        life.cancel_scope.cancel()  # as by a power cut
    assert after > before, "the broker went on"
    shutil.rmtree(data)
    code, _, errors = run("restore", tmp_path / "copy.db", "--data-dir", data)
    assert (code, errors) == (0, "")
    async with trio.open_nursery() as life:
        broker = Broker(SqliteJournal(data), limits=Limits(), authenticate=let_in, log=Log())
        await life.start(broker.run)
        channel = open_channel(broker)
        found = []
        while (entry := (await channel.outcome(channel.get("orders", no_ack=True))).result) is not None:
            found.append(int(entry.message.body[:8]))
        assert found == list(range(len(found)))
        assert before <= len(found) <= after + 50
        channel.close()
        await broker.stop()


def message(route, number):
    from gateway.model.message import Message

    return Message(route.address, b"%08d" % number + bytes(400), True)


# -- while the journal changes ----------------------------------------------------


def test_segments_that_come_and_go_between_the_steps_are_right_in_the_copy(tmp_path, monkeypatch):
    monkeypatch.setattr(copying, "STEP_BYTES", 1)
    monkeypatch.setattr(copying, "SMALL_BYTES", 1)
    data = tmp_path / "data"
    with rig(data) as found:
        fill(found)
        references = []
        for number in range(10):
            references += found.publish(b"%d" % number, EMPTY)
            found.commit()

        def meanwhile(_):
            if references:
                found.settle(references.pop(0))
                found.publish(b"later", EMPTY)
                found.commit()

        # In the broker's own process: its database is open here, and closing a file gives up this process's locks on it.
        monkeypatch.setattr(copying, "check_header", lambda path: 0)
        copy_journal(data / "journal.db", tmp_path / "copy.db", progress=meanwhile)
        wanted = [reference.message.body for reference in found.drain(EMPTY)]
    assert run("restore", tmp_path / "copy.db", "--data-dir", tmp_path / "new")[0] == 0
    with rig(tmp_path / "new") as found:
        assert [reference.message.body for reference in found.drain(EMPTY)] == wanted
    assert b"later" in wanted


def test_a_backup_holds_no_checkpoint_up_for_longer_than_one_step(tmp_path, monkeypatch):
    """While it rests between two steps, a checkpoint gets everything into the database and the log begins anew."""
    data = tmp_path / "data"
    with rig(data) as found:
        fill(found)
        for number in range(8):
            found.publish(bytes(600_000) + b"%d" % number, ORDERS)
            found.commit()
    writer = connect(data / "journal.db", synchronous="OFF", wal_autocheckpoint=0)
    verdicts = []

    def checkpoint(_):
        writer.execute("INSERT OR REPLACE INTO state VALUES ('a', 'b', randomblob(5000))")
        verdicts.append(writer.execute("PRAGMA wal_checkpoint(RESTART)").fetchone())

    monkeypatch.setattr(copying, "STEP_BYTES", 1 << 20)
    monkeypatch.setattr(copying, "SMALL_BYTES", 1 << 20)
    writer.execute("INSERT INTO state VALUES ('x', 'y', x'00')")
    copy_journal(data / "journal.db", tmp_path / "copy.db", progress=checkpoint)
    writer.close()
    assert len(verdicts) >= 3
    assert {busy for busy, _, _ in verdicts} == {0}


def test_a_broker_that_starts_while_a_journal_at_rest_is_copied_makes_the_copy_void(data, tmp_path, monkeypatch):
    monkeypatch.setattr(copying, "SMALL_BYTES", 1)
    started = []

    def start(_):
        if not started:
            journal = SqliteJournal(data)
            journal.open()
            started.append(journal)

    with pytest.raises(JournalError, match="a broker was started"):
        copy_journal(data / "journal.db", tmp_path / "copy.db", progress=start)
    started[0].close(clean=True)
    assert not (tmp_path / "copy.db").exists()


# -- what goes wrong --------------------------------------------------------------


def test_a_broken_journal_never_takes_the_place_of_a_good_backup(data, tmp_path):
    out = tmp_path / "copy.db"
    assert run("backup", out, "--data-dir", data)[0] == 0
    good = out.read_bytes()
    connection = sqlite3.connect(data / "journal.db", isolation_level=None)
    connection.execute("UPDATE seg SET crc = 1 WHERE id = 2")
    connection.close()
    code, _, errors = run("backup", out, "--data-dir", data)
    assert code == 74
    assert "segment 2" in errors
    assert out.read_bytes() == good
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.db", "data"], "no draft is left"


def test_a_backup_that_can_not_be_written_is_an_error(data, tmp_path):
    code, _, errors = run("backup", tmp_path / "nowhere" / "copy.db", "--data-dir", data)
    assert code == 73
    assert "can't be written" in errors


def test_a_directory_with_a_journal_is_not_overwritten_without_force(data, tmp_path):
    out = tmp_path / "copy.db"
    assert run("backup", out, "--data-dir", data)[0] == 0
    with rig(data) as found:
        found.positions[ORDERS] = 900
        found.publish(b"newer", ORDERS)
        found.commit()
    newer = orders(data)
    code, _, errors = run("restore", out, "--data-dir", data)
    assert code == 74
    assert "is not empty (journal.db" in errors
    assert orders(data) == newer
    code, output, _ = run("restore", out, "--force", "--data-dir", data)
    assert code == 0
    assert orders(data) != newer
    (aside,) = data.glob("journal.db.before-restore-*")
    assert str(aside) in output
    aside.rename(tmp_path / "aside.db")
    assert run("restore", tmp_path / "aside.db", "--data-dir", tmp_path / "old")[0] == 0
    assert orders(tmp_path / "old") == newer


def test_the_log_of_a_killed_broker_is_not_taken_for_the_restored_journals(data, tmp_path):
    out = tmp_path / "copy.db"
    assert run("backup", out, "--data-dir", data)[0] == 0
    wanted = orders(data)
    journal = SqliteJournal(tmp_path / "live")
    found = rig_of(journal)
    fill(found, messages=3)
    shutil.copytree(tmp_path / "live", tmp_path / "killed")
    journal.close(clean=False)
    assert (tmp_path / "killed" / "journal.db-wal").stat().st_size
    assert run("restore", out, "--force", "--data-dir", tmp_path / "killed")[0] == 0
    assert orders(tmp_path / "killed") == wanted
    assert not (tmp_path / "killed" / "journal.db-wal").exists()


def rig_of(journal):
    from tests.journal.conftest import Rig

    found = Rig(lambda: journal)
    found.open()
    return found


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:9000]), "is not whole"),
        (lambda path: path.write_bytes(b"something else"), "is no SQLite database"),
        (lambda path: path.unlink(), "there is no journal"),
    ],
)
def test_what_is_no_whole_backup_is_not_restored(data, tmp_path, spoil, said):
    out = tmp_path / "copy.db"
    assert run("backup", out, "--data-dir", data)[0] == 0
    spoil(out)
    before = fingerprint(data)
    for place in (data, tmp_path / "new"):
        code, _, errors = run("restore", out, "--force", "--data-dir", place)
        assert code == 74
        assert said in errors or "can't be read" in errors
    assert fingerprint(data) == before
    assert not (tmp_path / "new" / "journal.db").exists()


# -- again and again --------------------------------------------------------------


def test_backups_go_on_with_times_in_their_names_and_old_ones_go_only_for_new_ones(data, tmp_path, monkeypatch):
    now = [1_700_000_000.0]
    slept = []
    good = (data / "journal.db").read_bytes()

    def sleep(seconds):
        slept.append(seconds)
        now[0] += 3600
        match len(slept):
            case 3:
                (data / "journal.db").write_bytes(b"broken")
            case 4:
                (data / "journal.db").write_bytes(good)
            case 6:
                raise KeyboardInterrupt

    class Time:
        strftime, gmtime = time.strftime, time.gmtime
        time = staticmethod(lambda: now[0])
        monotonic = staticmethod(lambda: now[0])

    Time.sleep = staticmethod(sleep)
    monkeypatch.setattr(backup_module, "time", Time)
    out = tmp_path / "copies" / "tidegate.db"
    out.parent.mkdir()
    (out.parent / "somebody-elses.db").write_text("stays")
    code, output, errors = run("backup", out, "--every", "1h", "--keep", "3", "--data-dir", data)
    assert code == 0
    assert "is no SQLite database" in errors
    assert "the next try is in 3,600 s" in errors
    names = [path.name for path in taken_before(out)]
    assert names == [stamped(out, 1_700_000_000 + 3600 * hour).name for hour in (2, 4, 5)]
    assert output.count("removed") == 2
    assert (out.parent / "somebody-elses.db").exists()


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86_400), ("250ms", 0.25)])
def test_durations_are_read(text, seconds):
    assert span_s(text) == seconds


def test_a_full_disk_while_the_copy_is_made_leaves_the_old_backup(data, tmp_path, monkeypatch):
    out = tmp_path / "copy.db"
    assert run("backup", out, "--data-dir", data)[0] == 0
    good = out.read_bytes()

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(JournalUnwritable, match="No space left"):
        copy_journal(data / "journal.db", out)
    assert out.read_bytes() == good
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.db", "data"]
