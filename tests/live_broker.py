"""A broker as its users have it: `tidegate serve` in a process of its own, on free ports of the loopback."""

from __future__ import annotations

import queue
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

from tests.ports import free_port

TIDEGATE = str(Path(sys.executable).with_name("tidegate"))

CONFIGURATION = """\
[frontend.amqp]
listen = ["tcp://127.0.0.1:5672"]

[frontend.mqtt]
listen = ["tcp://127.0.0.1:1883"]

[[frontend.zeromq.endpoint]]
name = "in"
socket = "PULL"
bind = ["tcp://127.0.0.1:5557"]
exchange = "amq.topic"
frames = "key,body"

[[frontend.zeromq.endpoint]]
name = "out"
socket = "PUSH"
bind = ["tcp://127.0.0.1:5558"]
queue = "zeromq.push"
frames = "body"
ack = "handover"
bindings = [{ exchange = "amq.topic", key = "zeromq.push.#" }]

[[frontend.zeromq.endpoint]]
name = "events"
socket = "XPUB"
bind = ["tcp://127.0.0.1:5559"]
exchange = "amq.topic"
frames = "key,body"

[[frontend.zeromq.endpoint]]
name = "services"
socket = "ROUTER"
bind = ["tcp://127.0.0.1:5570"]
protocols = ["tgp/1", "mdp/0.1", "mdp/0.2"]
"""


class LiveBroker:
    """Start it with ``with``; `kill` and `start` again as often as wanted, always on the same ports.

    Args:
        directory: of configuration, journal and logs.
        configuration: TOML; every port on 127.0.0.1 is replaced by a free one. There is no AMQP unless it has a section of that.

    ``addresses`` has what the broker says that it listens on, by ``mqtt``, ``ROUTER``, ``PULL``, ``PUSH``, ``XPUB``, or a
    front-end's name.
    """

    def __init__(self, directory: Path, configuration: str = CONFIGURATION) -> None:
        self.directory = directory
        self.addresses: dict[str, str] = {}
        self.lines: list[str] = []
        self._configuration = configuration
        self._process: subprocess.Popen[str] | None = None

    @property
    def mqtt(self) -> str:
        """``host:port``."""
        return self.addresses["mqtt"].removeprefix("tcp://")

    def where(self, name: str) -> tuple[str, int]:
        """Host and port of a listener."""
        host, _, port = self.addresses[name].removeprefix("tcp://").rpartition(":")
        return host, int(port)

    def _text(self) -> str:
        kind, lines = "mqtt", []
        for line in self._configuration.splitlines():
            named = re.match(r'socket = "(\w+)"|\[frontend\.(\w+)\]', line)
            kind = named[1] or named[2] if named else kind
            lines.append(re.sub(r"tcp://127\.0\.0\.1:\d+", self.addresses.get(kind, f"tcp://127.0.0.1:{free_port()}"), line))
        return "\n".join(lines) + "\n"

    def start(self) -> None:
        file = self.directory / "tidegate.toml"
        file.write_text(self._text())
        with (self.directory / "broker.log").open("a") as log:
            others = () if "[frontend.amqp]" in self._configuration else ("--set", "frontend.amqp.enabled=false")
            self._process = subprocess.Popen(
                [TIDEGATE, "serve", "--config", str(file), "--data-dir", str(self.directory / "data"), *others],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=self.directory,
            )
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, args=(lines,), daemon=True)
        self._reader.start()
        deadline = time.monotonic() + 60
        self.lines.clear()
        while (line := lines.get(timeout=max(0.0, deadline - time.monotonic()))) != "ready":
            assert line, (self.directory / "broker.log").read_text()
            self.lines.append(line)
            match line.split():
                case ["listening", "zeromq", kind, address]:
                    self.addresses[kind] = address
                case ["listening", front_end, address]:
                    self.addresses[front_end] = address

    def _read(self, lines: queue.SimpleQueue[str]) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            lines.put(line.rstrip("\n"))
        lines.put("")

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._end()

    def stop(self) -> int:
        """SIGTERM; return the exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._end()

    def _end(self) -> int:
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            return self._process.wait(60)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join()
            self._process.stdout.close()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.stop()
