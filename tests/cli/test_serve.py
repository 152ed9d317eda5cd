"""Does `tidegate serve` start, stop and fail as its contract says?"""

from __future__ import annotations

import re
import shlex
import signal
import socket
import sqlite3
import stat
import time
from contextlib import closing
from pathlib import Path

import pytest

import gateway
from tests.ports import free_port

from .conftest import LONGEST_S, TIDEGATE

pytestmark = pytest.mark.slow

LOCAL = 'frontend.mqtt.listen=["tcp://127.0.0.1:0"]'
NO_ZEROMQ = "frontend.zeromq.enabled=false"
ALONE = ("--set", LOCAL, "--set", NO_ZEROMQ)


def connected(lines: list[str]) -> socket.socket:
    (address,) = [line.removeprefix("listening mqtt tcp://") for line in lines if line.startswith("listening mqtt")]
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def test_it_says_listeners_version_data_directory_durability_hints_and_ready(tidegate, tmp_path):
    broker = tidegate("serve", *ALONE)
    lines = broker.lines_until("ready")
    assert re.fullmatch(r"listening mqtt tcp://127\.0\.0\.1:[1-9]\d*", lines[0])
    assert lines[1].startswith(f"tidegate {gateway.__version__} (")
    assert lines[2] == f"data directory {tmp_path / 'tidegate-data'}"
    assert lines[3].startswith("durability ")
    assert any(re.match(r"(/\S+/)?tidegate pub -h 127\.0\.0\.1 -p ", line) for line in lines[4:-1])
    connected(lines).close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(tidegate, number):
    broker = tidegate("serve", *ALONE)
    with connected(broker.lines_until("ready")) as peer:
        broker.signal(number)
        assert peer.recv(1) == b""
    assert broker.ends() == 0
    assert "Traceback" not in broker.errors


ENDPOINTS = ", ".join(
    f'{{socket = "{kind}", bind = ["tcp://127.0.0.1:0"]{more}}}'
    for kind, more in [("PULL", ""), ("PUSH", ', queue = "jobs"'), ("ROUTER", "")]
)


def test_both_bundled_front_ends_are_on_unless_switched_off_and_come_back_with_what_they_declared(tidegate):
    for _ in range(2):
        broker = tidegate("serve", "--set", LOCAL, "--set", f"frontend.zeromq.endpoint=[{ENDPOINTS}]")
        lines = broker.lines_until("ready")
        assert [line.rpartition(":")[0] for line in lines[:4]] == [
            "listening mqtt tcp://127.0.0.1",
            "listening zeromq PULL tcp://127.0.0.1",
            "listening zeromq PUSH tcp://127.0.0.1",
            "listening zeromq ROUTER tcp://127.0.0.1",
        ]
        assert not any(line.endswith(":0") for line in lines)
        broker.signal(signal.SIGTERM)
        assert broker.ends() == 0


@pytest.mark.slow
def test_zeromq_alone_comes_back_with_what_it_declared(tidegate):
    # Nothing else keeps the loop awake: what was declared before is answered without a commit, and must be heard all the same.
    for _ in range(2):
        broker = tidegate("serve", "--set", "frontend.mqtt.enabled=false", "--set", f"frontend.zeromq.endpoint=[{ENDPOINTS}]")
        broker.lines_until("ready")
        broker.signal(signal.SIGTERM)
        assert broker.ends() == 0


def test_the_journal_lies_in_the_data_directory_for_its_owner_only(tidegate, tmp_path):
    broker = tidegate("serve", *ALONE, "--data-dir", tmp_path / "deep/data")
    broker.lines_until("ready")
    directory = tmp_path / "deep/data"
    assert (directory / "journal.db").exists()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()} == {0o600}
    assert not (tmp_path / "tidegate-data").exists()


def test_a_taken_port_ends_with_69_and_says_which_where_and_how_to_do_without(said):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, output, errors = said("serve", "--set", f'frontend.mqtt.listen=["tcp://127.0.0.1:{port}"]', "--set", NO_ZEROMQ)
    assert code == 69
    assert "ready" not in output
    assert errors.splitlines()[-1].startswith("tidegate: ")
    for part in (str(port), "frontend.mqtt.listen", "frontend.mqtt.enabled"):
        assert part in errors
    assert "Traceback" not in errors


def test_a_failed_start_leaves_a_journal_that_the_next_start_takes(refused, tidegate):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused("serve", "--set", f'frontend.mqtt.listen=["tcp://127.0.0.1:{taken.getsockname()[1]}"]', "--set", NO_ZEROMQ)
    tidegate("serve", *ALONE).lines_until("ready")


def test_a_data_directory_that_another_broker_has_ends_with_75_and_its_pid(tidegate, said):
    first = tidegate("serve", *ALONE)
    first.lines_until("ready")
    code, _, errors = said("serve", *ALONE)
    assert code == 75
    assert str(first.pid) in errors
    assert "Traceback" not in errors


def test_a_killed_broker_leaves_no_lock(tidegate):
    first = tidegate("serve", *ALONE)
    first.lines_until("ready")
    first.signal(signal.SIGKILL)
    assert first.ends() == -signal.SIGKILL
    tidegate("serve", *ALONE).lines_until("ready")


def test_a_data_directory_that_can_not_be_written_ends_with_73(refused, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, errors = refused("serve", *ALONE, "--data-dir", tmp_path / "file/data")
    assert code == 73
    assert str(tmp_path / "file") in errors
    assert "--data-dir or broker.data_dir" in errors
    assert "Traceback" not in errors


def no_database(path: Path) -> None:
    path.write_text("no database " * 100)


def of_another_program(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE mine (x)")


@pytest.mark.parametrize("make", [no_database, of_another_program])
def test_a_journal_that_is_none_ends_with_74_and_is_named(refused, tmp_path, make):
    (tmp_path / "tidegate-data").mkdir(mode=0o700)
    journal = tmp_path / "tidegate-data/journal.db"
    make(journal)
    code, output, errors = refused("serve", *ALONE)
    assert (code, output) == (74, "")
    assert str(journal) in errors
    assert "Traceback" not in errors


def test_a_journal_of_a_newer_version_ends_with_74(refused, tidegate, tmp_path):
    first = tidegate("serve", *ALONE)
    first.lines_until("ready")
    first.signal(signal.SIGTERM)
    first.ends()
    with closing(sqlite3.connect(tmp_path / "tidegate-data/journal.db")) as database:
        database.execute("PRAGMA user_version = 99")
    code, _, errors = refused("serve", *ALONE)
    assert code == 74
    assert "newer version" in errors


@pytest.mark.parametrize(("mode", "warned"), [(0o755, True), (0o700, False)])
def test_a_data_directory_that_others_can_read_is_warned_of(tidegate, tmp_path, mode, warned):
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(mode)
    broker = tidegate("serve", *ALONE, "--data-dir", "data")
    broker.lines_until("ready")
    assert ("open to other users" in broker.errors) is warned


def test_one_address_needs_no_list_and_lines_to_paste_lead_to_this_machine(tidegate):
    options = ("--set", "frontend.mqtt.listen=tcp://0.0.0.0:0", "--set", "security.anonymous=true", "--set", NO_ZEROMQ)
    lines = tidegate("serve", *options).lines_until("ready")
    assert lines[0].startswith("listening mqtt tcp://0.0.0.0:")
    assert any(" sub -h 127.0.0.1 -p " in line for line in lines)
    assert not any("0.0.0.0" in line for line in lines[1:])


@pytest.mark.slow
def test_lines_to_paste_name_a_program_that_is_there(tidegate):
    broker = tidegate("serve", *ALONE, environment={"PATH": "/nowhere"})
    (line,) = [line for line in broker.lines_until("ready") if " pub -h " in line]
    program = shlex.split(line)[0]
    assert program == TIDEGATE


@pytest.mark.slow
def test_lines_to_paste_are_short_where_the_program_is_on_the_path(tidegate):
    broker = tidegate("serve", *ALONE, environment={"PATH": str(Path(TIDEGATE).parent)})
    assert any(line.startswith("tidegate pub -h ") for line in broker.lines_until("ready"))


def test_an_address_that_is_none_ends_with_2(refused):
    code, _, errors = refused(
        "serve", "--set", 'frontend.mqtt.listen=["nonsense"]', "--set", NO_ZEROMQ, "--set", "security.anonymous=true"
    )
    assert code == 2
    assert "frontend.mqtt.listen" in errors


def test_the_journal_in_memory_is_said(tidegate, tmp_path):
    broker = tidegate("serve", *ALONE, "--set", "journal.kind=memory")
    lines = broker.lines_until("ready")
    assert "data directory none: the journal is in memory" in lines
    assert not (tmp_path / "tidegate-data").exists()
    assert "nothing outlives this process" in broker.errors


def test_logs_can_be_json(tidegate):
    broker = tidegate("serve", *ALONE, "--set", "journal.kind=memory", "--set", "log.format=json")
    broker.lines_until("ready")
    assert all(line.startswith("{") for line in broker.errors.splitlines())
    assert broker.errors


@pytest.mark.slow
def test_it_goes_on_when_nobody_reads_its_output(tidegate):
    port = free_port()
    broker = tidegate("serve", "--set", f'frontend.mqtt.listen=["tcp://127.0.0.1:{port}"]', "--set", NO_ZEROMQ)
    broker.process.stdout.close()
    begin = time.monotonic()
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except ConnectionRefusedError:
            assert broker.process.poll() is None, broker.errors
            assert time.monotonic() - begin < LONGEST_S, broker.errors
            time.sleep(0.05)
    broker.signal(signal.SIGTERM)
    assert broker.ends() == 0


PLUGIN = """
import trio
from pydantic import BaseModel
from gateway.api import hookimpl

class Settings(BaseModel):
    pass

class Slow:
    name = "slow"
    settings_model = Settings

    def addresses(self, settings):
        return ()

    def hints(self, listeners):
        return ()

    async def serve(self, gateway, settings, *, task_status):
        gateway.announce("nowhere")
        task_status.started()
        await gateway.draining()
        print("draining", flush=True)
        await trio.sleep(3600)

@hookimpl
def tidegate_frontends():
    return [Slow()]
"""


@pytest.fixture
def slow_plugin(tmp_path_factory) -> dict[str, str]:
    directory = tmp_path_factory.mktemp("plugins-of-others")
    (directory / "slow_frontend.py").write_text(PLUGIN)
    info = Path(directory / "dist_slow-1.0.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dist-slow\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tidegate.frontends]\nslow = slow_frontend\n")
    return {"PYTHONPATH": str(directory)}


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once(tidegate, slow_plugin):
    broker = tidegate("serve", *ALONE, "--set", "frontend.slow={}", "--set", "limits.drain_timeout_s=3600", environment=slow_plugin)
    assert "listening slow nowhere" in broker.lines_until("ready")
    broker.signal(signal.SIGTERM)
    broker.lines_until("draining")
    broker.signal(signal.SIGTERM)
    assert broker.ends() == -signal.SIGTERM


@pytest.mark.slow
def test_a_package_of_the_same_name_from_another_distribution_is_warned_of(tidegate, tmp_path_factory):
    directory = tmp_path_factory.mktemp("other")
    info = directory / "other_gateway-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-gateway\nVersion: 1.0\n")
    (info / "top_level.txt").write_text("gateway\n")
    broker = tidegate("serve", *ALONE, environment={"PYTHONPATH": str(directory)})
    broker.lines_until("ready")
    assert "other-gateway" in broker.errors
