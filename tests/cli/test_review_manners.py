"""Who interrupts, mistypes, or reads while a broker comes and goes: is he told what he needs, and no more?"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import pytest

from gateway.cli import peek as peek_module
from gateway.errors import JournalError
from gateway.journal.sqlite import SqliteJournal
from gateway.journal.tools import backup as copying
from gateway.journal.tools.backup import copy_journal
from gateway.journal.tools.inspection import reading
from gateway.model.declare import QueueSpec
from gateway.model.records import QueueDeclared
from tests.admin.journals import rig
from tests.cli.conftest import TIDEGATE
from tests.cli.test_review_operations import bodies, data, made, run

pytestmark = pytest.mark.slow

__all__ = ["data", "made"]

C1 = "\x9b31m"


# -- a broker that comes and goes -------------------------------------------------


def come_and_go(directory) -> None:
    journal = SqliteJournal(directory)
    journal.open()
    journal.close(clean=True)


def test_who_reads_a_stopped_journal_is_told_if_a_broker_came_and_went_meanwhile(data):
    with pytest.raises(JournalError, match="a broker was started"), reading(data / "journal.db"):
        come_and_go(data)


def test_a_backup_during_which_a_broker_came_and_went_is_none(data, tmp_path, monkeypatch):
    monkeypatch.setattr(copying, "SMALL_BYTES", 0)
    out = tmp_path / "out.db"
    with pytest.raises(JournalError, match="a broker was started"):
        copy_journal(data / "journal.db", out, progress=lambda _: come_and_go(data))
    assert not out.exists()


# -- an interrupt -----------------------------------------------------------------


@pytest.mark.parametrize("where", ["gateway.cli.commands", "typer", "gateway.journal.tools.inspection"])
def test_an_interrupt_ends_a_command_without_a_word(tmp_path, where):
    """At any moment: here as a module is being imported."""
    script = f"""
import os, signal, sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {where!r}:
            os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)  # who is run in the background hears nothing of it
sys.meta_path.insert(0, Interrupt())
sys.argv = ["tidegate", "peek", "jobs"]
from gateway.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


# -- a wrong path -----------------------------------------------------------------


@pytest.mark.parametrize("more", [(), ("--every", "1h")])
def test_a_backup_into_a_directory_that_is_not_there_is_refused_at_once(data, tmp_path, more):
    code, _, errors = run("backup", tmp_path / "nowhere" / "out.db", "--data-dir", data, *more)
    assert code == 73
    assert "there is no directory" in errors


@pytest.mark.parametrize("kind", [os.mkfifo, os.mkdir])
@pytest.mark.parametrize("command", [("serve",), ("journal", "recover"), ("journal", "compact"), ("peek", "jobs")])
def test_a_journal_that_is_no_file_is_refused(tmp_path, kind, command):
    home = tmp_path / "home"
    home.mkdir()
    kind(home / "journal.db")
    if command == ("serve",):
        with pytest.raises(JournalError, match="no file"):
            SqliteJournal(home).open()
        return
    done = subprocess.run(
        [TIDEGATE, *command, "--data-dir", home], capture_output=True, text=True, check=False, timeout=100
    )  # fmt: skip
    assert done.returncode in {73, 74}
    assert "no file" in done.stderr


def test_a_data_directory_behind_a_link_is_the_same_one(data, tmp_path):
    (tmp_path / "link").symlink_to(data)
    assert bodies(tmp_path / "link") == bodies(data) != ""
    journal = SqliteJournal(data)
    journal.open()
    code, _, errors = run("journal", "compact", "--data-dir", tmp_path / "link")
    assert (code, "is in use by another broker" in errors) == (75, True)
    journal.close(clean=True)
    assert run("backup", tmp_path / "out.db", "--data-dir", tmp_path / "link")[0] == 0


@pytest.fixture
def open_to_all():
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can be somebody else")
def test_a_data_directory_of_another_user_is_refused_in_words(made, open_to_all):
    data = shutil.copytree(made, open_to_all / "data")
    data.chmod(0o700)
    for command in (["peek", "orders"], ["journal", "compact"], ["serve"]):
        done = subprocess.run(
            ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", TIDEGATE, *command, "--data-dir", data],
            capture_output=True, text=True, check=False, timeout=100, cwd="/",
        )  # fmt: skip
        if "ModuleNotFoundError" in done.stderr or "can't open file" in done.stderr or "setpriv" in done.stderr:
            pytest.skip("somebody else can't run this program here")
        assert done.returncode in {2, 73, 74}, done.stderr
        assert "ermission denied" in done.stderr or "is not readable" in done.stderr
        assert "Traceback" not in done.stderr


# -- what is shown ----------------------------------------------------------------


def test_json_says_nothing_to_a_terminal_and_the_same_to_a_program(tmp_path):
    home = tmp_path / "data"
    with rig(home) as found:
        found.record(QueueDeclared("/", 1, QueueSpec(f"q{C1}")))
        found.publish(f"body {C1} ".encode(), 1)
        found.commit()
    assert run("policy", "set", f"p{C1}", f"^x{C1}", '{"max-length": 3}', "--data-dir", home)[0] == 0
    for command, told in (
        (("policy", "list", "--json"), lambda found: found[0]["name"] == f"p{C1}"),
        (("definitions", "export"), lambda found: found["queues"][0]["name"] == f"q{C1}"),
        (("queues", "--json"), lambda found: found["queues"][0]["name"] == f"q{C1}"),
        (("peek", f"q{C1}", "--json"), lambda found: found[0]["bytes"] > 0),
    ):
        code, out, _ = run(*command, "--data-dir", home)
        assert code == 0
        assert "\x9b" not in out
        assert told(json.loads(out))


@pytest.mark.parametrize("how", [(), ("--raw",), ("--json",)])
def test_many_messages_are_shown_without_being_held_in_memory(tmp_path, monkeypatch, how):
    home = tmp_path / "data"
    with rig(home) as found:
        found.record(QueueDeclared("/", 1, QueueSpec("jobs")))
        for _ in range(20):
            found.publish(b"x" * 1_000_000, 1)
            found.commit()
    shown = []
    monkeypatch.setattr(peek_module, "_copy", lambda spool: shown.append(spool.tell()))
    tracemalloc.start()
    try:
        assert run("peek", "jobs", "--limit", "100", *how, "--data-dir", home)[0] == 0
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert shown[0] > (20_000_000 if how else 20_000)
    assert peak < 12_000_000
