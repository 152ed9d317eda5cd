"""What does a whole broker do when its disk, its files or its clock fail? A test per case, named after it."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import deque
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import zmq

from gateway.client import Confirm, Consumer, Delivery, PublishRefused, TimedOut, connect
from gateway.journal.space import Space
from gateway.journal.sqlite import SqliteJournal
from gateway.model.records import QueueDepth
from tests.programs import missing

HERE = Path(__file__).parent
TIDEGATE = Path(sys.executable).with_name("tidegate")
PATIENCE_S = 20.0
STORED, REFUSED = 0, 506
ENOSPC, EIO, EROFS = 28, 5, 30


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# -- a broker, a client, a disk that fails --------------------------------


def compiled(tmp_path_factory, source: Path) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        missing("no C compiler on Linux: a disk that fails can't be played")
    library = tmp_path_factory.mktemp("library") / f"{source.stem}.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, source, "-ldl", "-lpthread"], check=True
    )
    return library


@pytest.fixture(scope="session")
def injector(tmp_path_factory) -> Path:
    return compiled(tmp_path_factory, HERE / "faults" / "diskfault.c")


class Broker:
    """`tidegate serve` on one port, with TGP alone; what `rule` says happens to its journal from then on."""

    def __init__(self, directory: Path, library: Path | None = None, *settings: str) -> None:
        self.data = directory / "data"
        self._log = directory / "broker.log"
        self._control = directory / "rules"
        self._settings = ("journal.refuse_after_ms=300", "frontend.mqtt.enabled=false", *settings)
        self.port = 0
        self.environment = {**os.environ, "FAULT_CONTROL": str(self._control)}
        if library is not None:
            self.environment["LD_PRELOAD"] = str(library)
        self.process: subprocess.Popen[str] | None = None

    def rule(self, *rules: str) -> None:
        fresh = self._control.with_suffix(".new")
        fresh.write_text("".join(f"{rule}\n" for rule in rules))
        fresh.replace(self._control)

    def launch(self) -> subprocess.Popen[str]:
        listen = f'frontend.zeromq.endpoint=[{{socket = "ROUTER", bind = ["tcp://127.0.0.1:{self.port}"]}}]'
        settings = [word for setting in (listen, *self._settings) for word in ("--set", setting)]
        with self._log.open("a") as log:
            return subprocess.Popen(
                [TIDEGATE, "serve", "--data-dir", self.data, *settings],
                stdout=subprocess.PIPE, stderr=log, text=True, env=self.environment,
            )  # fmt: skip

    def start(self) -> None:
        self.process = self.launch()
        for line in self.process.stdout:
            if line.startswith("listening zeromq ROUTER"):
                self.port = int(line.rpartition(":")[2])
            if line == "ready\n":
                return
        raise AssertionError(self.log)

    def refuses_to_start(self) -> tuple[int, str]:
        """Return the exit status and what is said."""
        before = len(self.log)
        with self.launch() as process:
            out, _ = process.communicate(timeout=PATIENCE_S)
        assert "ready" not in out
        return process.returncode, self.log[before:]

    def end(self, number: int = signal.SIGKILL) -> int:
        process, self.process = self.process, None
        process.send_signal(number)
        try:
            return process.wait(PATIENCE_S)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()

    def restart(self, *rules: str) -> None:
        """Kill it and start it again, with these rules and no other."""
        self.end()
        self.rule(*rules)
        self.start()

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def says(self, text: str) -> None:
        until(lambda: text in self.log)


def until(said) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not said():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class Client:
    """A TGP client of the queue ``jobs``; its name outlasts connections."""

    def __init__(self, broker: Broker, name: str) -> None:
        self.tgp = connect(f"tcp://127.0.0.1:{broker.port}", client=name, heartbeat_ms=60_000, timeout=PATIENCE_S)
        self.deliveries: list[Delivery] = []
        self._sent: deque[Confirm] = deque()
        self._consumer: Consumer | None = None

    def send(self, body: str, **properties) -> None:
        self._sent.append(self.tgp.publish("", "jobs", body.encode(), properties))

    def outcome(self) -> int:
        try:
            self._sent.popleft().wait(PATIENCE_S)
        except PublishRefused as refused:
            return refused.code
        return STORED

    def publish(self, body: str, **properties) -> int:
        self.send(body, **properties)
        return self.outcome()

    def nothing_is_confirmed(self, for_s: float) -> None:
        with pytest.raises(TimedOut):
            self._sent[0].wait(for_s)

    def receive(self, count: int) -> list[str]:
        """Take and acknowledge messages."""
        found = []
        for _ in range(count):
            delivery = self._next(PATIENCE_S)
            assert delivery is not None, found
            found.append(delivery.body.decode())
        return found

    def _next(self, within_s: float) -> Delivery | None:
        if self._consumer is None:
            self._consumer = self.tgp.consume("jobs")
        delivery = self._consumer.receive(within_s)
        if delivery is not None:
            self.deliveries.append(delivery)
            delivery.ack()
        return delivery

    def nothing_more(self) -> None:
        assert self._next(0.2) is None

    def close(self) -> None:
        self.tgp.close()


@contextmanager
def clients(broker: Broker, *names: str):
    made = [Client(broker, name) for name in names]
    try:
        yield made[0] if len(made) == 1 else made
    finally:
        for client in made:
            client.close()


@pytest.fixture
def new_broker(tmp_path):
    brokers = []

    def new(library: Path | None = None, *settings: str) -> Broker:
        broker = Broker(tmp_path, library, *settings)
        brokers.append(broker)
        return broker

    yield new
    for broker in brokers:
        if broker.process is not None:
            broker.end()


@pytest.fixture
def broker(new_broker, injector) -> Broker:
    broker = new_broker(injector)
    broker.start()
    return broker


def with_a_queue(broker: Broker) -> None:
    with clients(broker, "reader") as reader:
        reader.tgp.declare_queue("jobs")


def everything_in(broker: Broker, count: int) -> list[str]:
    with clients(broker, "reader") as reader:
        found = reader.receive(count)
        reader.nothing_more()
        return found


# -- the process and the power ---------------------------------------------


def test_kill_9_every_confirmed_message_is_back_in_order_and_once(broker):
    with_a_queue(broker)
    with clients(broker, "writer") as writer:
        for number in range(100):
            writer.send(f"{number}")
        assert {writer.outcome() for _ in range(100)} == {STORED}
        broker.restart()
    assert everything_in(broker, 100) == [f"{number}" for number in range(100)]


def test_power_cut_whatever_was_confirmed_was_synced_before(new_broker, tmp_path_factory, tmp_path):
    crash = load("test_crash")
    trace = tmp_path / "trace"
    trace.touch()
    broker = new_broker(compiled(tmp_path_factory, HERE / "diskshim.c"))
    broker.environment |= {"SHIM_TRACE": str(trace), "SHIM_MATCH": "journal.db"}
    broker.start()
    with_a_queue(broker)
    confirmed_at = []
    with clients(broker, "writer") as writer:
        for number in range(20):
            assert writer.publish(f"{number}") == STORED
            confirmed_at.append(trace.stat().st_size)
    broker.end()
    chance = random.Random(3)
    for number, size in enumerate(confirmed_at, 1):
        disk = crash.Disk()
        for operation in crash.operations(trace.read_bytes()[:size]):
            disk.do(*operation)
        image = Path(tempfile.mkdtemp(dir=tmp_path))
        disk.cut(chance, image)
        journal = SqliteJournal(image)
        journal.open()
        depths = [record.live for record in journal.load() if isinstance(record, QueueDepth)]
        journal.close(clean=False)
        assert sum(depths) >= number


# -- a disk that is full, or fails -------------------------------------------

ONCE = {
    "disk-full-for-a-moment": f"W * {ENOSPC} 0 2",
    "half-a-write-on-a-full-disk": f"W * half:{ENOSPC} 0 1",
    "eio-on-write-once": f"W * {EIO} 0 1",
    "eio-on-sync-once": f"S * {EIO} 0 1",
}
FOR_EVER = {
    "disk-full-lasting": f"W * {ENOSPC} 0 -1",
    "eio-on-write-for-ever": f"W * {EIO} 0 -1",
    "eio-on-sync-for-ever": f"S * {EIO} 0 -1",
}


def each(rules: dict[str, str]) -> pytest.MarkDecorator:
    """By default a sync that fails, which says least of itself; all of them in the slow run."""
    marks = {name: () if "sync" in name else pytest.mark.slow for name in rules}
    return pytest.mark.parametrize("rule", [pytest.param(rule, id=name, marks=marks[name]) for name, rule in rules.items()])


once, for_ever = each(ONCE), each(FOR_EVER)


@once
def test_a_fault_that_passes_costs_time_alone(broker, rule):
    with_a_queue(broker)
    with clients(broker, "writer") as writer:
        assert writer.publish("before") == STORED
        broker.rule(rule)
        assert writer.publish("during") == STORED
        assert writer.publish("after") == STORED
        broker.restart()
    assert everything_in(broker, 3) == ["before", "during", "after"]


@for_ever
def test_nothing_is_confirmed_while_it_lasts_and_it_is_once_it_has_passed(new_broker, injector, rule):
    broker = new_broker(injector, "journal.refuse_after_ms=60000")
    broker.start()
    with_a_queue(broker)
    with clients(broker, "writer") as writer:
        broker.rule(rule)
        writer.send("during")
        broker.says("journal can't be written")
        writer.nothing_is_confirmed(0.3)
        broker.rule()
        assert writer.outcome() == STORED
        broker.says("journal works again")
        broker.restart()
    assert everything_in(broker, 1) == ["during"]


@for_ever
def test_if_it_lasts_publishers_are_refused_consumers_served_and_it_works_again_without_a_restart(broker, rule):
    with_a_queue(broker)
    with clients(broker, "writer") as writer:
        assert [writer.publish(f"stored {number}") for number in range(3)] == [STORED] * 3
        broker.rule(rule)
        assert writer.publish("refused") == REFUSED
        broker.says("durable messages are refused")
        assert writer.publish("refused too") == REFUSED
        with clients(broker, "reader", "") as (reader, passing):
            assert reader.receive(3) == ["stored 0", "stored 1", "stored 2"]  # and acknowledges them
            assert passing.publish("at most once", delivery_mode=1) == STORED
            assert reader.receive(1) == ["at most once"]
        broker.rule()
        broker.says("journal works again")
        assert writer.publish("stored again") == STORED
        broker.restart()
    with clients(broker, "reader") as reader:
        found = reader.receive(1)
        while found[-1] != "stored again":
            found += reader.receive(1)
        reader.nothing_more()
    assert not [body for body in found if body.startswith("stored ") and body != "stored again"]  # the acknowledgements waited


def test_disk_full_the_ballast_is_given_up_and_what_was_taken_in_is_stored_at_once(broker):
    with_a_queue(broker)
    ballast = broker.data / "journal.ballast"
    assert ballast.stat().st_size > 0
    with clients(broker, "writer") as writer:
        broker.rule(f"W * full:{ballast} 0 -1", f"F * {ENOSPC} 0 -1")
        assert writer.publish("stored") == STORED
        assert ballast.stat().st_size == 0
        assert "journal can't be written" not in broker.log
        broker.rule()
        assert writer.publish("another") == STORED
        until(lambda: ballast.stat().st_size > 0)
        broker.restart()
    assert everything_in(broker, 2) == ["stored", "another"]


def mountable() -> bool:
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    point = tempfile.mkdtemp()
    try:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", point], capture_output=True, check=False).returncode:
            return False
        subprocess.run(["umount", point], check=True)
    finally:
        os.rmdir(point)
    return True


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as junk:
        while True:
            try:
                junk.write(bytes(4096))
            except OSError:
                return


if mountable():  # a real file system, where this user may have one: the same case is played above for everybody

    def test_disk_full_on_a_small_file_system_acks_are_written_and_durable_messages_refused_until_there_is_room(tmp_path, new_rig):
        point = tmp_path / "small"
        point.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", point], check=True)
        try:
            rig = new_rig(point, space=Space(point), wal_autocheckpoint=100)
            references = []
            for number in range(100):
                references.append(rig.publish(b"%d " % number * 2000, 1)[0])
                rig.commit()
            assert rig.journal.alarm is None
            fill(point / "junk")
            rig.journal.look()
            assert "journal.min_free_bytes" in rig.journal.alarm
            for reference in references[:60]:
                rig.settle(reference)
                rig.commit()
            assert (point / "journal.ballast").stat().st_size == 0
            assert rig.journal.state == "writable"
            assert rig.journal.alarm is not None
            (point / "junk").unlink()
            rig.journal.look()
            assert rig.journal.alarm is None
            rig.publish(b"again", 1)
            rig.commit()
            assert (point / "journal.ballast").stat().st_size > 0
            rig.restart()
            assert len(rig.bodies(1)) == 41
            rig.journal.close()
        finally:
            subprocess.run(["umount", "-l", point], check=True)


# -- the data directory -----------------------------------------------------------


def test_locked_by_another_broker_it_refuses_to_start_and_names_the_pid(broker):
    pid = broker.process.pid
    broker.port = 0
    status, said = broker.refuses_to_start()
    assert status == 75
    assert re.search(rf"in use by another broker, process {pid}\b", said)


def test_lost_lock_file_lets_no_second_broker_in(broker):
    (broker.data / "journal.lock").unlink()
    broker.port = 0
    status, said = broker.refuses_to_start()
    assert (status, "in use by another broker" in said) == (75, True)


def test_read_only_directory_it_refuses_to_start_and_keeps_nothing_in_memory_instead(new_broker, injector):
    broker = new_broker(injector)
    broker.rule(f"O * {EROFS} 0 -1")
    status, said = broker.refuses_to_start()
    assert status == 73
    assert str(broker.data) in said


# -- damage ------------------------------------------------------------------------


def stored(broker: Broker, number: int = signal.SIGTERM) -> Path:
    """Have 10 messages stored, a segment each, and the broker stopped; return the database."""
    broker.start()
    with_a_queue(broker)
    with clients(broker, "writer") as writer:
        assert [writer.publish(f"message {number} " * 40) for number in range(10)] == [STORED] * 10
    broker.end(number)
    return broker.data / "journal.db"


def test_flipped_byte_its_segment_is_quarantined_and_the_rest_goes_on(new_broker):
    broker = new_broker()
    path = stored(broker)
    path.write_bytes(path.read_bytes().replace(b"message 4 message", b"message 4 massage"))
    broker.start()
    assert everything_in(broker, 9) == [f"message {number} " * 40 for number in range(10) if number != 4]
    broker.says("damaged")
    with clients(broker, "writer", "reader") as (writer, reader):
        assert writer.publish("new") == STORED
        assert reader.receive(1) == ["new"]
    broker.end(signal.SIGTERM)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM quarantine").fetchone() == (1,)


def test_broken_page_is_found_at_the_start_and_the_file_is_left_as_it_is(new_broker):
    broker = new_broker()
    path = stored(broker)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE meta SET value = 0 WHERE key = 'clean'")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'segq_seg'").fetchone()
    data = bytearray(path.read_bytes())
    data[(page - 1) * 4096 : (page - 1) * 4096 + 64] = b"\xff" * 64
    path.write_bytes(data)
    status, said = broker.refuses_to_start()
    assert status == 74
    assert f"{path} is damaged" in said
    assert path.read_bytes() == data


@pytest.mark.slow
def test_broken_header_is_found_at_the_start(new_broker):
    broker = new_broker()
    path = stored(broker)
    data = path.read_bytes()
    path.write_bytes(bytes(16) + data[16:])
    status, said = broker.refuses_to_start()
    assert (status, str(path) in said) == (74, True)
    assert path.read_bytes()[16:] == data[16:]


@pytest.mark.parametrize(
    "end", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)], ids=["after-a-clean-end", "after-a-kill"]
)
def test_truncated_file_is_found_at_the_start(new_broker, end):
    broker = new_broker(None, "journal.profile='flash'")
    path = stored(broker, end)
    if end == signal.SIGKILL:  # as if all had been checkpointed
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    os.truncate(path, path.stat().st_size // 2)
    status, said = broker.refuses_to_start()
    assert (status, str(path) in said) == (74, True)


def test_truncated_to_nothing_beside_its_log_it_is_not_taken_for_a_new_journal(new_broker):
    broker = new_broker()
    path = stored(broker, signal.SIGKILL)
    os.truncate(path, 0)
    status, said = broker.refuses_to_start()
    assert (status, "cut off" in said) == (74, True)


def test_deleted_log_costs_what_came_since_the_checkpoint_and_the_file_is_checked(new_broker):
    broker = new_broker()
    path = stored(broker, signal.SIGKILL)
    for name in ("journal.db-wal", "journal.db-shm"):
        (broker.data / name).unlink()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT value FROM meta WHERE key = 'clean'").fetchone() == (0,)  # so it will be checked
    broker.start()
    with_a_queue(broker)
    with clients(broker, "writer") as writer:
        assert writer.publish("new") == STORED
        broker.restart()
    assert everything_in(broker, 1) == ["new"]


# -- a slow disk, a wrong clock -------------------------------------------------


class Pinger:
    """A peer that asks for nothing but an answer."""

    def __init__(self, broker: Broker) -> None:
        self._socket = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.RCVTIMEO, int(PATIENCE_S * 1000))
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(f"tcp://127.0.0.1:{broker.port}")
        self._ask({"cmd": "HELLO", "r": 1, "version_max": 1})
        self.close = self._socket.close

    def _ask(self, header: dict) -> dict:
        self._socket.send(json.dumps(header).encode())
        return json.loads(self._socket.recv_multipart()[0])

    def ping(self) -> float:
        """Return how long the answer took, in seconds."""
        asked = time.monotonic()
        assert self._ask({"cmd": "PING", "token": 1})["cmd"] == "PONG"
        return time.monotonic() - asked


def test_slow_disk_confirms_wait_and_the_loop_does_not(broker):
    with_a_queue(broker)
    with clients(broker, "writer") as writer, closing(Pinger(broker)) as pinger:
        broker.rule("S * delay:150 0 -1")
        times = []
        for number in range(5):
            began = time.monotonic()
            writer.send(f"{number}")
            writer.tgp.poll()
            while time.monotonic() - began < 0.12:  # while the sync is under way
                times.append(pinger.ping())
            assert writer.outcome() == STORED
            assert time.monotonic() - began >= 0.14
        assert len(times) >= 20
        assert sorted(times)[len(times) // 2] < 0.02
        assert max(times) < 0.1


HOUR_MS = 3_600_000


def times_left(client: Client) -> list[int]:
    return [delivery.properties["expiration_ms"] for delivery in client.deliveries if "expiration_ms" in delivery.properties]


def test_clock_set_back_nothing_expires_early_or_has_a_negative_time_left(broker):
    with_a_queue(broker)
    with clients(broker, "writer") as writer:
        assert writer.publish("before", expiration_ms=1_000_000) == STORED
        broker.rule(f"C 0 {-HOUR_MS} 0 0")
        assert writer.publish("after", expiration_ms=1_000_000) == STORED
    broker.restart(f"C 0 {-HOUR_MS} 0 0")
    with clients(broker, "writer", "reader") as (writer, reader):
        assert writer.publish("new", expiration_ms=1_000_000) == STORED
        assert reader.receive(3) == ["before", "after", "new"]
        assert all(left > 0 for left in times_left(reader))


def test_clock_set_forward_what_has_expired_by_it_is_not_delivered_and_the_rest_is(broker):
    with_a_queue(broker)
    with clients(broker, "writer") as writer:
        assert writer.publish("short", expiration_ms=1_000_000) == STORED
        assert writer.publish("long", expiration_ms=100_000_000) == STORED
        assert writer.publish("for ever") == STORED
    broker.rule(f"C 0 {HOUR_MS} 0 0")
    broker.says("clock was set")
    with clients(broker, "reader") as reader:
        assert reader.receive(2) == ["long", "for ever"]
        reader.nothing_more()
        assert all(0 < left <= 100_000_000 for left in times_left(reader))
    broker.rule()  # and back again: time stands still until it is caught up
    with clients(broker, "writer", "reader") as (writer, reader):
        assert writer.publish("new", expiration_ms=1_000_000) == STORED
        assert reader.receive(1) == ["new"]
