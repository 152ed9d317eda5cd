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
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path


class Broker:
    def __init__(self, name: str, process: subprocess.Popen[bytes], port: int) -> None:
        self.name = name
        self.process = process
        self.port = port

    @property
    def pid(self) -> int:
        return self.process.pid

    def pids(self) -> set[int]:
        """Return the process and all below it."""
        return _tree(self.pid)

    def cpu_s(self) -> float:
        """User and system time of the process, its threads and its children, in seconds."""
        return sum(_cpu_s(pid) for pid in self.pids())

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


def tidegate_command(python: str = sys.executable) -> list[str]:
    return [python, "-m", "gateway"]


def tidegate_of(python: str) -> Callable[[set[int] | None], AbstractContextManager[Broker]]:
    """Return what starts the Tidegate of an environment."""
    return lambda cores: tidegate(cores, python=str(Path(python).absolute()))


@contextmanager
def tidegate(
    cores: set[int] | None = None,
    *settings: str,
    data_dir: Path | None = None,
    python: str = sys.executable,
    program: Sequence[str] = ("-m", "gateway"),
) -> Iterator[Broker]:
    """Start `tidegate serve`, or another program that does the same, with MQTT on a free port and a data directory of its own."""
    port = free_port()
    directory = data_dir or Path(tempfile.mkdtemp(prefix="tidegate-bench-"))
    options = [
        f'frontend.mqtt.listen=["tcp://127.0.0.1:{port}"]',
        "frontend.zeromq.enabled=false",
        "frontend.amqp.enabled=false",
        "log.level=error",
        *settings,
    ]
    command = [python, *program, "serve", "--data-dir", str(directory)]
    for option in options:
        command += ["--set", option]
    where = None if python == sys.executable else directory  # so that what is installed there is run, not what is here
    process = subprocess.Popen(command, cwd=where, stdout=subprocess.DEVNULL, preexec_fn=pinned(cores))  # noqa: PLW1509
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
def rabbitmq(cores: set[int] | None = None, *, mqtt: bool = False) -> Iterator[Broker]:
    """Start RabbitMQ with AMQP (or MQTT) on a free port of loopback and a directory of its own; CPU is its Erlang process's."""
    script = rabbitmq_script()
    assert script is not None
    port = free_port()
    directory = Path(tempfile.mkdtemp(prefix="rabbitmq-bench-"))
    amqp = f"listeners.tcp.1 = 127.0.0.1:{free_port() if mqtt else port}\n"
    also = f"mqtt.listeners.tcp.1 = 127.0.0.1:{port}\nmqtt.allow_anonymous = true\nmqtt.prefetch = 1000\n" if mqtt else ""
    (directory / "rabbitmq.conf").write_text(f"{amqp}{also}log.file.level = error\n")
    (directory / "plugins").write_text("[rabbitmq_mqtt].\n" if mqtt else "[].\n")
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


NATS = """
server_name: bench
listen: "127.0.0.1:{plain}"
jetstream {{ store_dir: "{directory}" }}
mqtt {{ host: "127.0.0.1", port: {port}, max_ack_pending: 1000 }}
"""


@contextmanager
def nats(cores: set[int] | None = None) -> Iterator[Broker]:
    """Start nats-server with MQTT on a free port."""
    program = shutil.which("nats-server") or "/usr/sbin/nats-server"
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="nats-bench-", ignore_cleanup_errors=True) as directory:
        config = Path(directory) / "nats.conf"
        config.write_text(NATS.format(plain=free_port(), directory=directory, port=port))
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen([program, "-c", str(config)], preexec_fn=pinned(cores), **quiet)  # noqa: PLW1509
        try:
            wait_for(port, process)
            yield Broker("nats", process, port)
        finally:
            end(process)


AMQTT = """
listeners:
  default: {{type: tcp, bind: "127.0.0.1:{port}", max_connections: 20000}}
plugins:
  amqtt.plugins.authentication.AnonymousAuthPlugin: {{allow_anonymous: true}}
"""


@contextmanager
def amqtt(cores: set[int] | None = None) -> Iterator[Broker]:
    """Start amqtt's broker on a free port."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="amqtt-bench-") as directory:
        config = Path(directory) / "amqtt.yaml"
        config.write_text(AMQTT.format(port=port))
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        command = [str(Path(sys.executable).with_name("amqtt")), "-c", str(config)]
        process = subprocess.Popen(command, preexec_fn=pinned(cores), **quiet)  # noqa: PLW1509
        try:
            wait_for(port, process)
            yield Broker("amqtt", process, port)
        finally:
            end(process)


def mqtt_peers() -> dict[str, Callable[[set[int] | None], AbstractContextManager[Broker]]]:
    """Return the other MQTT brokers that are installed here, by name."""
    found: dict[str, Callable[[set[int] | None], AbstractContextManager[Broker]]] = {}
    if has_mosquitto():
        found["mosquitto"] = mosquitto
    if shutil.which("nats-server") or Path("/usr/sbin/nats-server").exists():
        found["nats"] = nats
    if rabbitmq_script():
        found["rabbitmq"] = lambda cores: rabbitmq(cores, mqtt=True)
    if Path(sys.executable).with_name("amqtt").exists():
        found["amqtt"] = amqtt
    return found


def versions() -> dict[str, str]:
    """Return what each peer says of its version."""
    asked = {
        "mosquitto": [shutil.which("mosquitto") or "/usr/sbin/mosquitto", "-h"],
        "nats": [shutil.which("nats-server") or "/usr/sbin/nats-server", "--version"],
        "amqtt": [str(Path(sys.executable).with_name("pip")), "show", "amqtt"],
    }
    told: dict[str, str] = {}
    for name, command in asked.items():
        if Path(command[0]).exists():
            answer = subprocess.run(command, check=False, capture_output=True, text=True).stdout
            told[name] = next((word for word in answer.replace("v", " ").split() if word[:1].isdigit() and "." in word), "?")
    script = rabbitmq_script()
    if script is not None:
        told["rabbitmq"] = script.parts[-3].removeprefix("rabbitmq_server-")
    return told
