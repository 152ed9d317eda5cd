"""Starts the brokers that are compared, on loopback, each on a core of its own, and reads their CPU time."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Broker:
    def __init__(self, name: str, process: subprocess.Popen[bytes], port: int) -> None:
        self.name = name
        self.process = process
        self.port = port

    @property
    def pid(self) -> int:
        return self.process.pid

    def cpu_s(self) -> float:
        """User and system time of the process, its threads and its children, in seconds."""
        return sum(_cpu_s(pid) for pid in _tree(self.pid))

    def resident_kib(self) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        return 0


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _tree(pid: int) -> set[int]:
    """Return a process and all below it."""
    parents = {int(entry.name): _stat(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    found = {pid}
    while more := {child for child, fields in parents.items() if fields and int(fields[1]) in found} - found:
        found |= more
    return found


def _cpu_s(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def pinned(cores: set[int] | None):
    def pin() -> None:
        if cores:
            os.sched_setaffinity(0, cores)

    return pin


def wait_for(port: int, process: subprocess.Popen[bytes], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"the broker ended with status {process.returncode}")
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit("the broker does not listen")


def end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def tidegate_command() -> list[str]:
    return [sys.executable, "-m", "gateway"]


@contextmanager
def tidegate(cores: set[int] | None = None, *settings: str, data_dir: Path | None = None) -> Iterator[Broker]:
    """Start `tidegate serve` with MQTT on a free port and a data directory of its own."""
    port = free_port()
    directory = data_dir or Path(tempfile.mkdtemp(prefix="tidegate-bench-"))
    options = [f'frontend.mqtt.listen=["tcp://127.0.0.1:{port}"]', "frontend.zeromq.enabled=false", "log.level=error", *settings]
    command = [*tidegate_command(), "serve", "--data-dir", str(directory)]
    for option in options:
        command += ["--set", option]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=pinned(cores))  # noqa: PLW1509
    try:
        wait_for(port, process)
        yield Broker("tidegate", process, port)
    finally:
        end(process)
        if data_dir is None:
            shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def mosquitto(cores: set[int] | None = None) -> Iterator[Broker]:
    """Start mosquitto without persistence and without its limits on queues."""
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="mosquitto-bench-") as directory:
        config = Path(directory) / "mosquitto.conf"
        config.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_type error\n"
            "max_queued_messages 0\nmax_inflight_messages 0\nset_tcp_nodelay true\nuser root\n"
        )
        process = subprocess.Popen([program, "-c", str(config)], stdout=subprocess.DEVNULL, preexec_fn=pinned(cores))  # noqa: PLW1509
        try:
            wait_for(port, process)
            yield Broker("mosquitto", process, port)
        finally:
            end(process)


def has_mosquitto() -> bool:
    return bool(shutil.which("mosquitto")) or Path("/usr/sbin/mosquitto").exists()


def rabbitmq_script() -> Path | None:
    """The server itself: the command on the PATH changes to another user, who can't write our directory."""
    found = sorted(Path("/usr/lib/rabbitmq").glob("lib/rabbitmq_server-*/sbin/rabbitmq-server"))
    return found[-1] if found else None


@contextmanager
def rabbitmq(cores: set[int] | None = None) -> Iterator[Broker]:
    """Start RabbitMQ with AMQP on a free port of loopback and a directory of its own; CPU is its Erlang process's."""
    script = rabbitmq_script()
    assert script is not None
    port = free_port()
    directory = Path(tempfile.mkdtemp(prefix="rabbitmq-bench-"))
    (directory / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\nlog.file.level = error\n")
    (directory / "plugins").write_text("[].\n")
    environment = dict(
        os.environ,
        HOME=str(directory),
        RABBITMQ_NODENAME=f"bench{port}@localhost",
        RABBITMQ_CONFIG_FILE=str(directory / "rabbitmq"),
        RABBITMQ_ENABLED_PLUGINS_FILE=str(directory / "plugins"),
        RABBITMQ_MNESIA_BASE=str(directory / "data"),
        RABBITMQ_LOG_BASE=str(directory / "log"),
        RABBITMQ_PID_FILE=str(directory / "pid"),
        RABBITMQ_DIST_PORT=str(free_port()),
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}",
        ERL_EPMD_ADDRESS="127.0.0.1",
    )
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([str(script)], env=environment, preexec_fn=pinned(cores), **quiet)  # noqa: PLW1509
    try:
        wait_for(port, process, 60)
        time.sleep(1)
        yield Broker("rabbitmq", process, port)
    finally:
        end(process)
        shutil.rmtree(directory, ignore_errors=True)
