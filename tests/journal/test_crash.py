"""Is every confirmed message there after kill -9, a power cut, a disk that fails - and would these tests see it if not?"""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from gateway.journal.sqlite import SqliteJournal
from gateway.model.records import Retained
from tests.programs import missing

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
WRITER = HERE / "crash_writer.py"
SEED = 5
SECTOR = 512

_spec = importlib.util.spec_from_file_location("crash_writer", WRITER)
crash_writer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(crash_writer)


@pytest.fixture(scope="session")
def shim(tmp_path_factory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        missing("no C compiler on Linux: power cuts can't be played")
    library = tmp_path_factory.mktemp("shim") / "diskshim.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, HERE / "diskshim.c", "-ldl", "-lpthread"]
    subprocess.run(command, check=True)
    return library


states = partial(crash_writer.states, SEED)
verdict = crash_writer.verdict


# -- kill -9 ------------------------------------------------------------


@pytest.mark.parametrize("rounds", [3, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_kill_9_loses_nothing_that_was_confirmed(tmp_path, rounds):
    chance = random.Random(rounds)
    confirmed = 0
    for _ in range(rounds):
        command = [sys.executable, WRITER, tmp_path, "FULL", str(SEED), "100000"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            for _ in range(chance.randint(1, 40)):
                confirmed = int(writer.stdout.readline())
            writer.kill()
            confirmed = max([confirmed, *map(int, writer.stdout.read().split())])
        assert verdict(tmp_path, confirmed, states(confirmed + 1)) == "right"


# -- power cuts ---------------------------------------------------------


def operations(data: bytes) -> list[tuple[bytes, int, int, bytes]]:
    """Read a trace: every operation on the journal's files, and every confirmation, in order."""
    found = []
    at = 0
    while at < len(data):
        kind, number, offset, length = struct.unpack_from("<cBQI", data, at)
        at += 14
        found.append((kind, number, offset, data[at : at + length]))
        at += length
    return found


def record(shim: Path, directory: Path, synchronous: str, steps: int) -> list[tuple[bytes, int, int, bytes]]:
    """Have a history written, and return every operation on the journal's files and every confirmation, in order."""
    trace = directory / "trace"
    trace.touch()
    environment = {**os.environ, "LD_PRELOAD": str(shim), "SHIM_TRACE": str(trace), "SHIM_MATCH": "journal.db"}
    command = [sys.executable, WRITER, directory / "data", synchronous, str(SEED), str(steps), trace]
    said = subprocess.run(command, env=environment, check=True, timeout=100, stderr=subprocess.PIPE, text=True).stderr
    if "COMPACT" in environment:
        assert int(said.rpartition("moved ")[2]) > steps
    found = operations(trace.read_bytes())
    if not any(kind == b"W" for kind, *_ in found):
        missing("this Python's SQLite does not call the C library for its writes: power cuts can't be played")
    return found


class Disk:
    """Files as a disk has them: what was synced, and what may or may not be there."""

    def __init__(self, before: dict[str, bytes] | None = None) -> None:
        self.before = before or {}
        self.names: dict[int, str] = {}
        self.synced: dict[int, bytearray] = {}
        self.pending: dict[int, list[tuple[bytes, int, bytes]]] = {}
        self.confirmed = 0

    def do(self, kind: bytes, number: int, offset: int, data: bytes) -> None:
        match kind:
            case b"O":
                self.names[number] = Path(data.decode()).name
                self.synced.setdefault(number, bytearray(self.before.get(self.names[number], b"")))
            case b"W" | b"T":
                self.pending.setdefault(number, []).append((kind, offset, data))
            case b"S":
                for operation in self.pending.pop(number, ()):
                    _apply(self.synced[number], *operation)
            case b"F":
                self.pending.pop(number, None)
            case b"U":
                self.synced.pop(number, None)
                self.pending.pop(number, None)
            case b"C":
                self.confirmed = int(data)

    def cut(self, chance: random.Random, directory: Path) -> None:
        """Write the files as a power cut may leave them: of what wasn't synced nothing, all, any part, any sectors."""
        how = chance.choice(("nothing", "all", "some", "torn"))
        for number, name in self.names.items():
            if number not in self.synced:
                continue
            image = bytearray(self.synced[number])
            for operation in self.pending.get(number, ()):
                for part in _survivors(how, chance, *operation):
                    _apply(image, *part)
            (directory / name).write_bytes(image)


def _survivors(how: str, chance: random.Random, kind: bytes, offset: int, data: bytes):
    if how == "nothing" or (how != "all" and chance.random() < 0.5):
        return
    if how != "torn" or kind != b"W" or chance.random() < 0.5:
        yield kind, offset, data
        return
    for at in range(0, len(data), SECTOR):
        if chance.random() < 0.5:  # one in eight of these is itself written half
            yield kind, offset + at, data[at : at + (SECTOR if chance.random() < 0.875 else SECTOR // 2)]


def _apply(image: bytearray, kind: bytes, offset: int, data: bytes) -> None:
    if len(image) < offset:
        image.extend(bytes(offset - len(image)))
    if kind == b"T":
        del image[offset:]
    else:
        image[offset : offset + len(data)] = data


def play(shim: Path, directory: Path, synchronous: str, *, steps: int, cuts: int) -> Counter:
    """Cut the power at random moments of one history, and count the verdicts."""
    recorded = record(shim, directory, synchronous, steps)
    chance = random.Random(cuts)
    expected = states(steps)
    moments = Counter(chance.randrange(len(recorded)) for _ in range(cuts))
    disk = Disk()
    verdicts: Counter = Counter()
    for moment, operation in enumerate(recorded):
        disk.do(*operation)
        for _ in range(moments[moment]):
            image = Path(tempfile.mkdtemp(dir=directory))
            disk.cut(chance, image)
            verdicts[verdict(image, disk.confirmed, expected)] += 1
            shutil.rmtree(image)
    assert disk.confirmed == steps
    return verdicts


SIZES = [(40, 40), pytest.param((300, 1000), marks=[pytest.mark.slow, pytest.mark.timeout(900)])]


@pytest.mark.parametrize("size", SIZES, ids=["few", "many"])
def test_a_power_cut_loses_nothing_that_was_confirmed(shim, tmp_path, size):
    steps, cuts = size
    assert play(shim, tmp_path, "FULL", steps=steps, cuts=cuts) == {"right": cuts}


@pytest.mark.parametrize("size", SIZES, ids=["few", "many"])
def test_nor_does_it_while_segments_are_compacted(shim, tmp_path, monkeypatch, size):
    monkeypatch.setenv("COMPACT", "1")
    steps, cuts = size
    assert play(shim, tmp_path, "FULL", steps=steps, cuts=cuts) == {"right": cuts}


OLD = HERE / "formats" / "v1.db"
MIGRATE = """
import os, sys
from pathlib import Path
from gateway.journal.sqlite import SqliteJournal
SqliteJournal(Path(sys.argv[1])).open()
os._exit(0)
"""


def contents_of(directory: Path) -> list:
    """Return all that a journal holds; bring it up to date, if it is an older one."""
    journal = SqliteJournal(directory, synchronous="OFF")
    journal.open()
    try:
        found: list = [record.message.body if isinstance(record, Retained) else repr(record) for record in journal.load()]
        for queue in (2, 3, 5):
            after = 0
            while page := crash_writer.read_page(journal, queue, after):
                found += [(queue, one.position, one.message.body, one.count) for one in page]
                after = page[-1].position
        return found
    finally:
        journal.close(clean=False)


@pytest.mark.parametrize("cuts", [30, pytest.param(400, marks=pytest.mark.slow)])
def test_a_power_cut_while_an_older_format_is_brought_up_to_date_loses_nothing(shim, tmp_path, cuts):
    trace, data, whole = tmp_path / "trace", tmp_path / "data", tmp_path / "whole"
    for directory in (data, whole):
        directory.mkdir()
        shutil.copy(OLD, directory / "journal.db")
    expected = contents_of(whole)
    assert len(expected) > 100
    trace.touch()
    environment = {**os.environ, "LD_PRELOAD": str(shim), "SHIM_TRACE": str(trace), "SHIM_MATCH": "journal.db"}
    subprocess.run([sys.executable, "-c", MIGRATE, data], env=environment, check=True, timeout=100)
    recorded = operations(trace.read_bytes())
    writes = [moment for moment, (kind, *_) in enumerate(recorded) if kind == b"W"]
    if not writes:
        missing("this Python's SQLite does not call the C library for its writes: power cuts can't be played")
    chance = random.Random(cuts)
    moments = Counter(chance.choices(range(writes[0], len(recorded)), k=cuts))
    disk = Disk({"journal.db": OLD.read_bytes()})
    formats = set()
    for moment, operation in enumerate(recorded):
        disk.do(*operation)
        for _ in range(moments[moment]):
            image = Path(tempfile.mkdtemp(dir=tmp_path))
            disk.cut(chance, image)
            formats.add(int.from_bytes((image / "journal.db").read_bytes()[60:64], "big"))
            assert contents_of(image) == expected
            shutil.rmtree(image)
    assert formats == {1, 2}


@pytest.mark.parametrize("synchronous", ["OFF", "NORMAL"])
@pytest.mark.parametrize("size", SIZES, ids=["few", "many"])
def test_without_syncing_it_does_so_the_test_can_fail(shim, tmp_path, synchronous, size):
    steps, cuts = size
    verdicts = play(shim, tmp_path, synchronous, steps=steps, cuts=cuts)
    assert verdicts["lost"] > cuts // 10
    if synchronous == "NORMAL":
        assert verdicts["damaged"] + verdicts["wrong"] == 0


# -- a disk that fails --------------------------------------------------

FAILING = ["20:21", "20:26", "21:23", "30:60"]


@pytest.mark.parametrize("fails", FAILING)
def test_a_sync_that_fails_confirms_nothing_and_a_later_attempt_does(shim, tmp_path, fails):
    environment = {**os.environ, "LD_PRELOAD": str(shim), "SHIM_MATCH": "journal.db", "SHIM_FAIL_SYNC": fails, "ATTEMPTS": "40"}
    command = [sys.executable, WRITER, tmp_path, "FULL", str(SEED), "40"]
    run = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=100)
    assert run.returncode == 0, run.stderr
    if not run.stderr:
        missing("this Python's SQLite does not call the C library to sync: it can't be made to fail")
    assert b"disk I/O error" in run.stderr
    assert [int(line) for line in run.stdout.split()] == list(range(1, 41))
    (tmp_path / "journal.db-shm").unlink(missing_ok=True)  # the next reader learns from the files alone what is there
    assert verdict(tmp_path, 40, states(41)) == "right"


@pytest.mark.parametrize("cuts", [40, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("fails", FAILING)
def test_what_a_failed_sync_dropped_is_not_trusted_when_a_later_one_succeeds(shim, tmp_path, monkeypatch, fails, cuts):
    """Linux forgets what it could not write, and the next sync succeeds: `Disk` plays that."""
    monkeypatch.setenv("SHIM_FAIL_SYNC", fails)
    monkeypatch.setenv("ATTEMPTS", "40")
    assert play(shim, tmp_path, "FULL", steps=40, cuts=cuts) == {"right": cuts}
