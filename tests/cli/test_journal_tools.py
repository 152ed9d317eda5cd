"""What do the verbs about a journal find, save, and leave as it was?"""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli.commands import app
from gateway.journal.migrate import VERSION
from gateway.journal.recovery import DirectoryLock
from gateway.journal.sqlite import SqliteJournal
from gateway.journal.tools.inspection import find_queue, reading
from gateway.journal.tools.peek import peek
from tests.admin.journals import EMPTY, ORDERS, URGENT, fill, fingerprint, rig
from tests.journal.conftest import Rig

READING = [
    ("queues",),
    ("queues", "--json"),
    ("peek", "orders"),
    ("peek", "urgent", "--json"),
    ("scheduled", "list"),
    ("journal", "check"),
    ("journal", "stats"),
    ("journal", "stats", "--json"),
]


@pytest.fixture
def run():
    """Run a command in this process; return exit code, standard output, standard error."""

    def _run(*arguments):
        result = CliRunner().invoke(app, list(map(str, arguments)), prog_name="tidegate")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return _run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    directory = tmp_path_factory.mktemp("made") / "data"
    with rig(directory) as found:
        fill(found)
    return directory


@pytest.fixture
def data(made, tmp_path):
    return shutil.copytree(made, tmp_path / "data")


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory):
    """The directory of a broker that was killed: the log is there, and its index."""
    live = tmp_path_factory.mktemp("live") / "data"
    found = Rig(lambda: SqliteJournal(live))
    found.open()
    fill(found)
    copy = shutil.copytree(live, live.with_name("killed"))
    found.journal.close(clean=False)
    assert (copy / "journal.db-wal").stat().st_size
    return copy


@pytest.fixture
def killed(cut_off, tmp_path):
    return shutil.copytree(cut_off, tmp_path / "killed")


def bodies(found, queue):
    return [reference.message.body for reference in found.drain(queue)]


def change(path, sql, *values):
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(sql, values)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()


# -- reading changes nothing ----------------------------------------------------


def test_a_reading_command_changes_no_byte_and_makes_no_file(run, data):
    before = fingerprint(data)
    names = {path.name for path in data.iterdir()}
    for command in READING:
        code, output, _ = run(*command, "--data-dir", data)
        assert code == 0
        assert output
        assert fingerprint(data) == before
        assert {path.name for path in data.iterdir()} == names


@pytest.mark.parametrize("index", [True, False])
def test_the_journal_of_a_killed_broker_is_read_with_its_log_and_left_alone(run, killed, index):
    if not index:
        (killed / "journal.db-shm").unlink()
    before, names = fingerprint(killed), sorted(path.name for path in killed.iterdir())
    for command in READING:
        code, output, _ = run(*command, "--data-dir", killed)
        assert code == 0
        assert output
        assert fingerprint(killed) == before
        assert sorted(path.name for path in killed.iterdir()) == names
    assert len(json.loads(run("peek", "orders", "--limit", "99", "--json", "--data-dir", killed)[1])) == 14


OWN_PERMISSIONS = """
import ctypes, os, sys
if os.geteuid() == 0:  # whom no permission stops, unless he gives that up
    for right in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, right, 0, 0, 0)  # PR_CAPBSET_DROP
os.execv(sys.executable, [sys.executable, "-m", "gateway", *sys.argv[1:]])
"""


@pytest.mark.skipif(os.geteuid() == 0 and sys.platform != "linux", reason="nobody can stop root here")
@pytest.mark.parametrize("log", [True, False])
def test_a_directory_that_can_not_be_written_can_be_read(data, killed, log):
    directory = killed if log else data
    (killed / "journal.db-shm").unlink()
    for path in directory.iterdir():
        path.chmod(0o400)
    directory.chmod(0o500)
    try:
        for command in (("peek", "orders"), ("journal", "compact")):
            arguments = [sys.executable, "-c", OWN_PERMISSIONS, *command, "--data-dir", str(directory)]
            done = subprocess.run(arguments, capture_output=True, text=True, check=False)
            wanted = (73, "can't be written") if "compact" in command else (0, "")
            assert (done.returncode, wanted[1] in done.stderr) == (wanted[0], True), done.stderr
    finally:
        directory.chmod(0o700)


# -- check ----------------------------------------------------------------------


def test_a_whole_journal_has_no_findings(run, data):
    code, output, _ = run("journal", "check", "--data-dir", data)
    assert code == 0
    assert "whole (5 segments)" in output


def test_a_flipped_bit_in_a_body_is_found(run, data):
    change(data / "journal.db", "UPDATE seg SET body = CAST(replace(body, 'ada', 'adb') AS BLOB) WHERE id = 2")
    code, output, _ = run("journal", "check", "--data-dir", data)
    assert code == 1
    assert "segment 2: its CRC is wrong" in output


@pytest.mark.parametrize(
    ("sql", "finding"),
    [
        (
            "UPDATE segq SET live = live + 1 WHERE seg = 1",
            "segment 1, queue id 1: live messages: 5 are counted, the segment itself says 4",
        ),
        ("UPDATE segq SET live_bytes = 7 WHERE seg = 2", "segment 2, queue id 1: live bytes: 7 are counted"),
        ("UPDATE segq SET last_position = 900 WHERE seg = 2", "segment 2, queue id 1: last position: 900 are counted"),
        ("UPDATE segq SET first_position = 0 WHERE seg = 2", "segment 2, queue id 1: first position: 0 are counted"),
        ("DELETE FROM segq WHERE seg = 2", "segment 2: nothing refers to it"),
        ("DELETE FROM seg WHERE id = 2", "segment 2 is missing; it had"),
        ("DELETE FROM queue WHERE id = 1", "messages of queue id 1 are here, but no such queue"),
        ("INSERT INTO quarantine VALUES (3, 0)", "segment 3 was found damaged before"),
        ("UPDATE queue SET spec = '[]' WHERE id = 1", "definitions:"),
        ("UPDATE retained SET body = x'00'", "the last value of 'plant.3.temperature'"),
    ],
)
def test_each_disagreement_is_a_finding(run, data, sql, finding):
    change(data / "journal.db", sql)
    code, output, _ = run("journal", "check", "--data-dir", data)
    assert code == 1
    assert finding in output


def test_damage_of_sqlites_own_is_a_finding_without_a_traceback(run, data):
    path = data / "journal.db"
    with path.open("r+b") as file:
        for page in range(3, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 100)
    code, output, errors = run("journal", "check", "--data-dir", data)
    assert code in {1, 74}
    assert output + errors


# -- what is no journal ---------------------------------------------------------


def missing(data):
    (data / "journal.db").unlink()


def foreign(data):
    missing(data)
    change(data / "journal.db", "CREATE TABLE somebody (elses)")


def newer(data):
    change(data / "journal.db", "PRAGMA user_version = 99")


def no_database(data):
    (data / "journal.db").write_bytes(b"something else entirely" * 100)


def a_directory(data):
    missing(data)
    (data / "journal.db").mkdir()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (missing, "there is no journal"),
        (foreign, "not a journal of Tidegate"),
        (newer, "has format 99, written by a newer version"),
        (no_database, "is no SQLite database"),
        (a_directory, "can't be read"),
    ],
)
def test_what_is_no_journal_is_said_so(run, data, monkeypatch, spoil, said):
    monkeypatch.chdir(data.parent)
    spoil(data)
    before = sorted(path.name for path in data.iterdir())
    for command in [*READING, ("journal", "export", "out.db"), ("journal", "compact"), ("backup", "out.db")]:
        code, _, errors = run(*command, "--data-dir", data)
        assert code == 74
        assert said in errors
        assert len(errors.splitlines()) == 1
        assert sorted(path.name for path in data.iterdir()) == before
    assert not (data.parent / "out.db").exists()


CHANGING = [("journal", "compact"), ("journal", "recover"), ("restore", "good.db", "--force")]


@pytest.mark.parametrize("command", CHANGING, ids=" ".join)
def test_what_changes_a_journal_refuses_while_a_broker_has_it(run, data, monkeypatch, command):
    monkeypatch.chdir(data.parent)
    assert run("backup", "good.db", "--data-dir", data)[0] == 0
    lock = DirectoryLock(data)
    lock.acquire()
    before = fingerprint(data)
    try:
        code, _, errors = run(*command, "--data-dir", data)
    finally:
        lock.release()
    assert code == 75
    assert "in use by another broker" in errors
    assert fingerprint(data) == before


@pytest.mark.parametrize(
    "command", [("peek",), ("peek", "q", "--header", "x"), ("peek", "q", "--json-path", "x"), ("queues", "--sort", "x"),
    ("backup", "x.db", "--every", "often"), ("journal", "nosuch"), ("peek", "q", "--raw", "--json")], ids=" ".join
)  # fmt: skip
def test_what_is_not_understood_ends_with_2(run, command):
    assert run(*command)[0] == 2


@pytest.fixture
def older(tmp_path):
    """A journal of the first format, as its broker left it."""
    directory = tmp_path / "older"
    directory.mkdir()
    shutil.copy(Path(__file__).parents[1] / "journal" / "formats" / "v1.db", directory / "journal.db")
    return directory


def test_a_journal_of_an_older_format_can_be_looked_at_and_is_left_as_it_is(run, older, tmp_path):
    before = fingerprint(older)
    names = [row["name"] for row in json.loads(run("queues", "--json", "--data-dir", older)[1])["queues"]]
    assert names
    for command in [("journal", "check"), ("journal", "stats"), ("scheduled", "list"), ("peek", names[0], "--vhost", "/")]:
        code, _, errors = run(*command, "--data-dir", older)
        assert (code, errors) == (0, ""), command
    assert run("journal", "export", tmp_path / "out.db", "--data-dir", older)[0] == 0
    assert run("backup", tmp_path / "copy.db", "--data-dir", older)[0] == 0
    assert fingerprint(older) == before


@pytest.mark.parametrize("command", ["compact", "recover"])
def test_an_older_format_is_compacted_and_recovered_into_this_one(run, older, command):
    held = json.loads(run("queues", "--json", "--data-dir", older)[1])["queues"]
    code, output, _ = run("journal", command, "--data-dir", older)
    assert code == 0, output
    assert json.loads(run("journal", "stats", "--json", "--data-dir", older)[1])["format"] == VERSION
    now = json.loads(run("queues", "--json", "--data-dir", older)[1])["queues"]
    assert [(row["name"], row["messages"]) for row in now] == [(row["name"], row["messages"]) for row in held]
    with rig(older) as found:
        assert found.loaded


# -- export ---------------------------------------------------------------------


def test_an_export_has_one_row_per_message_and_queue(run, data, tmp_path):
    out = tmp_path / "out.db"
    before = fingerprint(data)
    code, output, _ = run("journal", "export", out, "--data-dir", data)
    assert code == 0
    assert "18 messages" in output
    assert fingerprint(data) == before
    connection = sqlite3.connect(out)
    rows = connection.execute("SELECT position, headers, body FROM message WHERE queue = 'orders' ORDER BY position").fetchall()
    wanted = [number for number in range(20) if number % 3]
    assert [position - 1 for position, _, _ in rows] == [*wanted, 20]
    assert [json.loads(body)["id"] for _, _, body in rows[:-1]] == wanted
    assert json.loads(rows[0][1]) == {"region": "north"}
    assert connection.execute("SELECT deliveries FROM message WHERE position = 2 AND queue = 'orders'").fetchone() == (2,)
    priorities = connection.execute("SELECT priority, body FROM message WHERE queue = 'urgent' ORDER BY priority DESC, position")
    assert priorities.fetchall() == [(3, b"high"), (3, b"high too"), (1, b"\x00\xff\x01"), (0, b"low")]
    assert connection.execute("SELECT name, messages FROM queue ORDER BY name").fetchall() == [
        ("empty", 0),
        ("orders", 14),
        ("urgent", 4),
    ]
    assert connection.execute("SELECT name FROM exchange").fetchall() == [("shop",)]
    assert connection.execute("SELECT body FROM retained").fetchall() == [(b"21.5",)]
    assert connection.execute("SELECT count(*) FROM readable").fetchone() == (18,)
    connection.close()
    assert run("journal", "export", out, "--data-dir", data)[0] == 73, "what is there is not overwritten"


def test_an_export_leaves_nothing_behind_when_a_segment_is_damaged_unless_told_to_skip_it(run, data, tmp_path):
    change(data / "journal.db", "UPDATE seg SET crc = 1 WHERE id = 2")
    code, _, errors = run("journal", "export", tmp_path / "out.db", "--data-dir", data)
    assert code == 74
    assert "segment 2 is damaged" in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
    code, output, _ = run("journal", "export", tmp_path / "out.db", "--skip-damaged", "--data-dir", data)
    assert code == 1
    assert "segment 2 is damaged and left out" in output


# -- compact --------------------------------------------------------------------


def test_a_compacted_journal_is_smaller_and_holds_the_same_in_order(run, tmp_path):
    data = tmp_path / "data"
    with rig(data) as found:
        fill(found, messages=0)
        references = [found.publish(b"%4d" % number * 500, ORDERS, URGENT + 1) for number in range(600)]
        for number, pair in enumerate(references):
            if number % 60 == 0:
                found.commit()
            _ = pair
        found.commit()
        for number, (order, urgent) in enumerate(references):
            if number % 50:
                found.settle(order, urgent)
            elif number % 100:
                found.settle(urgent)
        found.commit()
        before = bodies(found, ORDERS), bodies(found, URGENT + 1)
    size = (data / "journal.db").stat().st_size
    code, output, _ = run("journal", "compact", "--data-dir", data)
    assert code == 0, output
    assert (data / "journal.db").stat().st_size < size / 3
    assert run("journal", "check", "--data-dir", data)[0] == 0
    assert sorted(path.name for path in data.iterdir() if path.suffix != ".ballast") == ["journal.db", "journal.lock"]
    with rig(data) as found:
        assert (bodies(found, ORDERS), bodies(found, URGENT + 1)) == before


def test_compaction_keeps_ages_and_delivery_counts(run, data):
    shown = json.loads(run("peek", "orders", "--limit", "99", "--json", "--data-dir", data)[1])
    assert run("journal", "compact", "--data-dir", data)[0] == 0
    after = json.loads(run("peek", "orders", "--limit", "99", "--json", "--data-dir", data)[1])
    for row in (*shown, *after):
        del row["age_ms"]
    assert after == shown
    assert shown[0]["deliveries"] == 2


def test_compaction_of_a_killed_brokers_journal_takes_its_log(run, killed):
    data = killed
    before = run("peek", "orders", "--raw", "--limit", "99", "--data-dir", data)[1]
    assert run("journal", "compact", "--data-dir", data)[0] == 0
    assert not (data / "journal.db-wal").exists()
    assert run("peek", "orders", "--raw", "--limit", "99", "--data-dir", data)[1] == before


def test_a_damaged_journal_is_not_compacted(run, data):
    change(data / "journal.db", "UPDATE seg SET crc = 1 WHERE id = 2")
    before = fingerprint(data)
    code, _, errors = run("journal", "compact", "--data-dir", data)
    assert code == 74
    assert "segment 2" in errors
    assert fingerprint(data) == before


# -- stats ----------------------------------------------------------------------


def test_stats_count_what_is_there(run, data):
    found = json.loads(run("journal", "stats", "--json", "--data-dir", data)[1])
    assert (found["segments"], found["references"], found["live"], found["queues"]) == (5, 25, 18, 3)
    assert found["clean"] is True
    assert [queue["name"] for queue in found["largest"]] == ["orders", "urgent"]


# -- recover --------------------------------------------------------------------


def recovered(run, data, *arguments):
    code, output, errors = run("journal", "recover", *arguments, "--data-dir", data)
    assert code in {0, 1}, errors
    return code, output


def test_what_is_whole_is_recovered_wholly(run, data, tmp_path):
    before = fingerprint(data)
    code, output = recovered(run, data, tmp_path / "new")
    assert code == 0, output
    assert "nothing is known to be lost" in output
    assert {name: what for name, what in fingerprint(data).items() if name != "journal.lock"} == {
        name: what for name, what in before.items() if name != "journal.lock"
    }
    assert run("journal", "check", "--data-dir", tmp_path / "new")[0] == 0
    for queue in ("orders", "urgent"):
        shown = [run("peek", queue, "--limit", "99", "--raw", "--data-dir", place)[1] for place in (data, tmp_path / "new")]
        assert shown[0] == shown[1]
    with rig(tmp_path / "new") as found:
        assert {record.spec.name for record in found.loaded if type(record).__name__ == "QueueDeclared"} == {
            "orders",
            "urgent",
            "empty",
        }


def test_a_killed_brokers_log_is_part_of_what_is_recovered(run, tmp_path, killed):
    data = killed
    code, output = recovered(run, data, tmp_path / "new")
    assert code == 0, output
    shown = [run("peek", "orders", "--limit", "99", "--raw", "--data-dir", place)[1] for place in (data, tmp_path / "new")]
    assert shown[0] == shown[1]
    assert shown[0]


def test_a_damaged_log_gives_what_was_committed_before_the_damage(run, tmp_path, killed):
    data = killed
    log = data / "journal.db-wal"
    with log.open("r+b") as file:
        file.seek(log.stat().st_size * 3 // 4)
        file.write(b"\x55" * 64)
    code, output = recovered(run, data, tmp_path / "new")
    assert code == 1
    assert "write-ahead log are damaged" in output
    assert run("journal", "check", "--data-dir", tmp_path / "new")[0] == 0


def test_a_broken_header_costs_nothing_that_can_be_read(run, data):
    wanted = run("peek", "orders", "--limit", "99", "--raw", "--data-dir", data)[1]
    path = data / "journal.db"
    broken = bytes(100) + path.read_bytes()[100:]
    path.write_bytes(broken)
    assert run("queues", "--data-dir", data)[0] == 74
    _, output = recovered(run, data)
    aside = next(data.glob("journal.db.broken-*"))
    assert aside.read_bytes() == broken, output
    assert run("journal", "check", "--data-dir", data)[0] == 0
    assert run("peek", "orders", "--limit", "99", "--raw", "--data-dir", data)[1] == wanted
    with rig(data) as found:
        assert found.page(ORDERS).references


def test_a_lost_first_page_costs_nothing_but_certainty(run, data):
    wanted = run("peek", "orders", "--limit", "99", "--raw", "--data-dir", data)[1]
    path = data / "journal.db"
    path.write_bytes(b"\xaa" * 4096 + path.read_bytes()[4096:])
    code, output = recovered(run, data)
    assert code == 1
    assert "damage: page 1" in output
    assert "may come back" in output
    assert run("peek", "orders", "--limit", "99", "--raw", "--data-dir", data)[1] == wanted


def test_a_bad_segment_is_named_with_what_it_held_and_the_rest_is_saved(run, data):
    change(data / "journal.db", "UPDATE seg SET crc = 1 WHERE id = 2")
    code, output = recovered(run, data)
    assert code == 1
    assert "segment 2 is lost, with messages: 5 of queue 'orders'" in output
    rows = json.loads(run("peek", "orders", "--limit", "99", "--json", "--data-dir", data)[1])
    assert [row["position"] - 1 for row in rows] == [n for n in range(20) if n % 3 and not 7 <= n < 14] + [20]


def test_messages_whose_queue_is_lost_get_a_new_one(run, data):
    change(data / "journal.db", "DELETE FROM queue WHERE name = 'orders'")
    code, output = recovered(run, data)
    assert code == 1
    assert "recovered.1" in output
    assert len(json.loads(run("peek", "recovered.1", "--limit", "99", "--json", "--data-dir", data)[1])) == 14


def test_a_file_in_which_nothing_can_be_read_stays_where_it_is(run, data):
    path = data / "journal.db"
    path.write_bytes(b"\x00" * 50_000)
    code, _, errors = run("journal", "recover", "--data-dir", data)
    assert code == 74
    assert "nothing in" in errors
    assert path.read_bytes() == b"\x00" * 50_000


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    data = tmp_path_factory.mktemp("larger") / "data"
    chance = random.Random(1)
    with rig(data) as found:
        fill(found, messages=40)
        for number in range(60):
            found.publish(b"%d-" % number + bytes(chance.randrange(3000)), ORDERS, EMPTY)
            if number % 10 == 9:
                found.commit()
    return data


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 60))])
def test_whatever_pages_are_broken_what_comes_out_is_whole_and_was_there(run, tmp_path, larger, seed):
    data = shutil.copytree(larger, tmp_path / "data")
    chance = random.Random(seed)
    known = contents(run, data, "orders")
    with reading(data / "journal.db") as connection:
        segments = {item.position: item.segment for item in peek(connection, find_queue(connection, "orders", "/"))}
    path = data / "journal.db"
    pages = path.stat().st_size // 4096
    with path.open("r+b") as file:
        for _ in range(3):
            file.seek(chance.randrange(pages) * 4096 + chance.choice([0, 0, chance.randrange(4000)]))
            file.write(bytes(chance.randrange(256) for _ in range(40)))
    code, output, errors = run("journal", "recover", "--data-dir", data)
    assert code in {0, 1}, errors
    assert run("journal", "check", "--data-dir", data)[0] == 0
    names = {row["name"] for row in json.loads(run("queues", "--json", "--data-dir", data)[1])["queues"]}
    (name,) = {"orders", "recovered.1"} & names or {"orders"}
    saved = contents(run, data, name) if names else set()
    # What was settled may come back where the damage took the note of it.
    assert {item for item in saved - known if item[0] > 40} == set(), output
    for position in {position for position, *_ in known - saved}:
        assert f"segment {segments[position]} is" in output, "what is lost is named"
    assert len(saved) > len(known) / 4


def contents(run, data, queue):
    rows = json.loads(run("peek", queue, "--limit", "999", "--json", "--data-dir", data)[1])
    return {(row["position"], row.get("body"), row.get("body_hex")) for row in rows}
