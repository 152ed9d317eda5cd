"""Is every confirmed message there, once and in order, whichever operation a kill -9 came at?"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from functools import cache
from pathlib import Path

import pytest

from gateway.journal.sqlite import SqliteJournal
from tests.programs import missing

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
OLDEST = HERE / "formats" / "v1.db"
SEED = 8
STEPS = 24

_spec = importlib.util.spec_from_file_location("crash_writer", HERE / "crash_writer.py")
crash_writer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(crash_writer)


@cache
def expected() -> list[dict]:
    return crash_writer.states(SEED, STEPS * 3)


@pytest.fixture(scope="module")
def injector(tmp_path_factory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        missing("no C compiler on Linux: a process can't be killed at a certain operation")
    library = tmp_path_factory.mktemp("injector") / "diskfault.so"
    source = HERE / "faults" / "diskfault.c"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, source, "-ldl", "-lpthread"], check=True
    )
    return library


@pytest.fixture(scope="module")
def ask(injector, tmp_path_factory):
    """Have a journal written, with a rule of the injector; return what was confirmed and how it ended."""
    control = tmp_path_factory.mktemp("control") / "rules"
    environment = {**os.environ, "LD_PRELOAD": str(injector), "FAULT_CONTROL": str(control), "BALLAST": "1"}
    command = [sys.executable, HERE / "crash_writer_forks.py"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True) as parent:

        def ask(directory: Path, rule: str, steps: int = STEPS) -> tuple[int, int]:
            question = {"directory": str(directory), "seed": SEED, "steps": steps, "rule": rule}
            parent.stdin.write(json.dumps(question) + "\n")
            parent.stdin.flush()
            answer = json.loads(parent.stdout.readline())
            return max(answer["confirmed"], default=0), answer["status"]

        yield ask
        parent.stdin.close()


KINDS = {
    "before-a-write": "W * kill",
    "in-the-middle-of-a-write": "W * torn",
    "after-a-write": "W * after",
    "before-a-sync": "S * kill",
    "after-a-sync": "S * after",
    "before-a-truncation": "T * kill",
    "after-a-truncation": "T * after",
    "before-the-ballast-is-made": "F * kill",
    "after-the-ballast-is-made": "F * after",
}


def kill_everywhere(ask, tmp_path, what: str, *, every: int) -> tuple[int, int]:
    """Kill at every `every`-th operation of its kind until none is left; return how often, and how many were right."""
    right = 0
    for kills, number in enumerate(range(0, 100_000, every)):
        directory = tmp_path / f"{number}"
        confirmed, status = ask(directory, f"{what} {number} 1\n")
        if status == 0:
            assert confirmed == STEPS
            return kills, right
        assert status == -signal.SIGKILL
        seen = crash_writer.verdict(directory, confirmed, expected())
        if kills % 8 == 0:  # it goes on from there
            confirmed, status = ask(directory, "", 2)
            assert (status, crash_writer.verdict(directory, confirmed, expected())) == (0, "right")
        right += seen == "right"
        shutil.rmtree(directory)
    raise AssertionError


@pytest.mark.parametrize("what", KINDS.values(), ids=KINDS.keys())
def test_killed_now_and_then(ask, tmp_path, what):
    kills, right = kill_everywhere(ask, tmp_path, what, every=61 if what.startswith("W") else 13)
    assert right == kills > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("what", KINDS.values(), ids=KINDS.keys())
def test_killed_everywhere(ask, tmp_path, what):
    """More than a thousand kills in all: at every operation, or after and in the middle of every other write."""
    kills, right = kill_everywhere(ask, tmp_path, what, every=2 if what in {"W * torn", "W * after"} else 1)
    assert right == kills > 0


def test_a_kill_would_be_noticed_that_cost_a_confirmed_message(ask, tmp_path):
    """Without its log a journal has lost what came since the last checkpoint: the verdict is no formality."""
    confirmed, status = ask(tmp_path / "data", "W journal.db-wal kill 250 1\n")
    assert status == -signal.SIGKILL
    assert confirmed
    for name in ("journal.db-wal", "journal.db-shm"):
        (tmp_path / "data" / name).unlink()
    assert crash_writer.verdict(tmp_path / "data", confirmed, expected()) == "lost"


def contents(directory: Path) -> dict[str, list]:
    """Open a journal, which brings it up to date, and return its tables."""
    journal = SqliteJournal(directory)
    journal.open()
    journal.close()
    with closing(sqlite3.connect(directory / "journal.db")) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]
        return {name: sorted(map(repr, connection.execute(f"SELECT * FROM {name}"))) for name in names}


@pytest.mark.parametrize("what", ["W * kill", "W * torn", "S * after", "T * kill"])
def test_killed_while_an_old_format_is_brought_up_to_date(ask, tmp_path, what):
    whole = tmp_path / "whole"
    whole.mkdir()
    shutil.copy(OLDEST, whole / "journal.db")
    expected = contents(whole)
    assert expected["seg"]
    for number in range(0, 1000, 5 if what.startswith("W") else 1):
        directory = tmp_path / f"{number}"
        directory.mkdir()
        shutil.copy(OLDEST, directory / "journal.db")
        _, status = ask(directory, f"{what} {number} 1\n", 0)
        assert contents(directory) == expected
        shutil.rmtree(directory)
        if status == 0:
            assert number
            return
    raise AssertionError
