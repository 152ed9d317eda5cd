"""What happens in the demo, in which order?"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from gateway.cli.demo.children import Child
from gateway.cli.demo.reports import PAUSE, RESUME, STOP
from gateway.cli.demo.tally import Progress
from gateway.cli.demo.view import View, make_view
from gateway.client import Client, ClientError

QUEUE = "demo.readings"
_BINDING = "sensors.#"
_START_S = 15.0
_FINISH_S = 12.0
_DRAIN_S = 10.0
_TICK_S = 0.1
_PAUSE_S = 1.0
_USAGE_ERROR = 2
_TERMINATED = 143

_CONFIGURATION = """\
[broker]
data_dir = "data"

[frontend.mqtt]
listen = ["{mqtt}"]

[[frontend.zeromq.endpoint]]
name = "demo"
socket = "ROUTER"
bind = ["{router}"]
protocols = ["tgp/1"]
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, and how many."""

    seconds: float = 12.0
    sensors: int = 8
    workers: int = 3


class DemoFailed(Exception):
    """The demo itself could not go on; the text says why."""


class Broker:
    """The broker process: free ports at its first start, the same ones at every later start."""

    def __init__(self, directory: Path) -> None:
        self.mqtt = "tcp://127.0.0.1:0"
        self.router = "tcp://127.0.0.1:0"
        self._directory = directory
        self._starts = 0

    def start(self, meanwhile: Callable[[], None] = lambda: None) -> Child:
        """Start it and wait until it says that it is ready; `meanwhile` is called ten times a second.

        Raises:
            DemoFailed: it ended, or did not get ready in time.
        """
        self._starts += 1
        file = self._directory / "tidegate.toml"
        file.write_text(_CONFIGURATION.format(mqtt=self.mqtt, router=self.router))
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        name = f"broker-{self._starts}"
        child = Child(name, "gateway.cli.demo.broker", ["serve", "--config", str(file)], self._directory, lines.put)
        try:
            self._listen(child, lines, meanwhile)
        except BaseException:
            child.kill()
            raise
        return child

    def _listen(self, child: Child, lines: queue.SimpleQueue[str], meanwhile: Callable[[], None]) -> None:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            meanwhile()
            try:
                line = lines.get(timeout=_TICK_S)
            except queue.Empty:
                if child.status is not None:
                    raise DemoFailed(f"the broker ended with status {child.status}:\n{child.complaint()}") from None
                continue
            match line.split():
                case ["listening", "mqtt", address]:
                    self.mqtt = address
                case ["listening", "zeromq", "ROUTER", address]:
                    self.router = address
                case ["ready"]:
                    return
        raise DemoFailed(f"the broker was not ready within {_START_S:g} s:\n{child.complaint()}")


class Demo:
    """One run. `progress` fills while it goes on."""

    def __init__(self, plan: Plan, directory: Path, view: View) -> None:
        self.plan = plan
        self.progress = Progress()
        self._directory = directory
        self._view = view
        self._children = contextlib.ExitStack()
        self._broker = Broker(directory)
        self._process: Child | None = None
        self._sensors: Child | None = None
        self._workers: list[Child] = []
        self._resting: set[str] = set()
        self._done = threading.Event()

    def run(self) -> None:
        """Run it all.

        Raises:
            DemoFailed: something that has nothing to do with lost messages went wrong.
        """
        with self._children:
            self._start_broker()
            self._prepare()
            self._start_peers()
            pause = min(_PAUSE_S, self.plan.seconds / 4)
            self._watch_for(self.plan.seconds / 2 - pause)
            self._pause_workers()
            self._watch_for(pause)
            self._kill_broker()
            self._start_broker()
            self._tell_workers(RESUME)
            self._watch_for(self.plan.seconds / 2)
            self._finish()

    def _start_broker(self) -> None:
        self._process = self._children.enter_context(self._broker.start(self._show))
        self.progress.broker = f"running (pid {self._process.pid})"
        self.progress.note(f"broker ready: MQTT at {self._broker.mqtt}, ZeroMQ at {self._broker.router}")

    def _kill_broker(self) -> None:
        assert self._process is not None
        pid = self._process.pid
        self._process.kill()
        self.progress.killed()
        self.progress.broker = "killed"
        self.progress.depth = None
        confirmed, waiting = len(self.progress.confirmed), len(self.progress.waiting)
        self.progress.note(f"broker killed with SIGKILL (pid {pid}); of {confirmed} confirmed messages {waiting} wait in the queue")
        self._show()

    def _pause_workers(self) -> None:
        self.progress.note("workers pause, sensors go on: a backlog grows in the queue")
        self._tell_workers(PAUSE)
        self._watch_until(lambda: len(self._resting) == self.plan.workers, _START_S, "the workers did not pause")

    def _tell_workers(self, order: bytes) -> None:
        for worker in self._workers:
            worker.tell(order)

    def _prepare(self) -> None:
        with Client(self._broker.router, timeout=_START_S) as client:
            client.declare_queue(QUEUE, durable=True)
            client.bind(QUEUE, "amq.topic", _BINDING)

    def _start_peers(self) -> None:
        for n in range(1, self.plan.workers + 1):
            arguments = [self._broker.router, QUEUE]
            name = f"worker-{n}"
            worker = Child(name, "gateway.cli.demo.worker", arguments, self._directory, partial(self._hear_worker, name))
            self._workers.append(self._children.enter_context(worker))
        arguments = [self._broker.mqtt.replace("tcp://", "mqtt://"), str(self.plan.sensors)]
        sensors = Child("sensors", "gateway.cli.demo.sensors", arguments, self._directory, self._hear_sensors)
        self._sensors = self._children.enter_context(sensors)
        meter = threading.Thread(target=self._measure_depth, daemon=True)
        meter.start()
        self._children.callback(meter.join, 3.0)
        self._children.callback(self._done.set)
        self._watch_until(lambda: bool(self.progress.confirmed), _START_S, "no sensor's message was confirmed")

    def _hear_sensors(self, line: str) -> None:
        self.progress.confirm(json.loads(line)["confirmed"])

    def _hear_worker(self, name: str, line: str) -> None:
        told = json.loads(line)
        self.progress.worked_on(told["worked"], told["redelivered"], told["nacked"])
        if told["resting"]:
            self._resting.add(name)

    def _measure_depth(self) -> None:
        while not self._done.is_set():
            with contextlib.suppress(ClientError), Client(self._broker.router, timeout=1.0) as client:
                while not self._done.wait(0.25):
                    self.progress.depth = client.declare_queue(QUEUE, passive=True)["messages"]
            self.progress.depth = None

    def _finish(self) -> None:
        assert self._sensors is not None
        self._sensors.tell(STOP)
        self._watch_until(lambda: self._sensors is None or self._sensors.status is not None, _FINISH_S, "the sensors did not end")
        self._sensors.wait(1.0)
        self.progress.note("sensors have stopped; the workers take what is left")
        with contextlib.suppress(DemoFailed):  # what is missing then is lost, and the table says so
            self._watch_until(lambda: not self.progress.missing, _DRAIN_S, "")
        self._tell_workers(STOP)
        for worker in self._workers:
            worker.wait(3.0)
        self._show()

    def _watch_for(self, seconds: float) -> None:
        with contextlib.suppress(DemoFailed):
            self._watch_until(lambda: False, seconds, "")
        self._check_peers()

    def _watch_until(self, happened: Callable[[], bool], seconds: float, otherwise: str) -> None:
        deadline = time.monotonic() + seconds
        while not happened():
            if time.monotonic() >= deadline:
                raise DemoFailed(otherwise)
            time.sleep(_TICK_S)
            self._show()

    def _show(self) -> None:
        self._view.show(self.progress)

    def _check_peers(self) -> None:
        for child in [*self._workers, *([self._sensors] if self._sensors else [])]:
            if child.status is not None:
                raise DemoFailed(f"{child.name} ended with status {child.status}:\n{child.complaint()}")


def run_demo(plan: Plan) -> int:
    """Run the demo on this terminal and return the exit status."""
    if importlib.util.find_spec("amqtt") is None:
        sys.stderr.write(
            "tidegate demo: its sensors use amqtt's MQTT client, which is not installed. In a checkout: pip install '.[demo]'\n"
        )
        return _USAGE_ERROR
    _end_on_sigterm()
    with TemporaryDirectory(prefix="tidegate-demo-") as directory, make_view(plan.seconds) as view:
        demo = Demo(plan, Path(directory), view)
        try:
            demo.run()
        except DemoFailed as failure:
            view.say(f"the demo failed: {failure}")
            return 1
        except KeyboardInterrupt:
            view.say("interrupted")
            return 1
    result = demo.progress.result()
    view.conclude(demo.progress, result)
    return result.exit_status


def _end_on_sigterm() -> None:
    def end(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit(_TERMINATED)

    signal.signal(signal.SIGTERM, end)
