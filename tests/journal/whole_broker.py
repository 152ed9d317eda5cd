"""What runs a whole broker on a disk that can be made to fail, and talks to it?"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.client import Confirm, Consumer, Delivery, PublishRefused, TimedOut, connect
from tests.ports import free_port
from tests.programs import missing

HERE = Path(__file__).parent
TIDEGATE = Path(sys.executable).with_name("tidegate")
PATIENCE_S = 60.0
STORED, REFUSED = 0, 506
ENOSPC, EIO, EROFS = 28, 5, 30


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
        self._settings = ("journal.refuse_after_ms=300", "frontend.mqtt.enabled=false", "frontend.amqp.enabled=false", *settings)
        self.port = free_port()
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
