"""Brokers that are killed while real MQTT clients publish: who was promised what, and who has it?"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import paho.mqtt.client as paho

from tests.ports import free_port

HONEST = (sys.executable, "-m", "gateway")
FILTER = "plant/#"
ENOUGH = 50
"""So many messages at least have been confirmed when a broker is killed."""


class BrokerProcess:
    """`tidegate serve` in a process that can be killed and started again over the same data."""

    def __init__(self, data_dir: Path, command: Sequence[str] = HONEST) -> None:
        self.port = free_port()
        self._command = [*command, "serve", "--data-dir", str(data_dir)]
        self._command += ["--set", f'frontend.mqtt.listen=["tcp://127.0.0.1:{self.port}"]']
        self._command += [
            "--set",
            "frontend.zeromq.enabled=false",
            "--set",
            "frontend.amqp.enabled=false",
            "--set",
            'log.level="error"',
        ]
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line == "ready\n":
                return
        raise AssertionError(f"the broker ended with status {self._process.wait()}")

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._ended()

    def stop(self) -> int:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._ended()

    def _ended(self) -> int:
        assert self._process is not None
        status = self._process.wait(60)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return status


class Client:
    """A paho client in its own thread."""

    def __init__(self, port: int, client_id: str, *, clean: bool = True) -> None:
        self.paho = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=clean, reconnect_on_failure=False
        )
        self.paho.max_inflight_messages_set(50)
        self._connected = threading.Event()
        self.paho.on_connect = lambda *_: self._connected.set()
        self._port = port

    def connect(self) -> None:
        self.paho.connect("127.0.0.1", self._port)
        self.paho.loop_start()
        assert self._connected.wait(60)

    def leave(self) -> None:
        self.paho.disconnect()
        self.paho.loop_stop()

    def lost(self) -> None:
        """The broker was killed: end the thread."""
        self.paho.loop_stop()


class Publisher(Client):
    """Publishes numbered messages with QoS 1, at most 50 of them unconfirmed, and fewer than 65,535 in all."""

    def __init__(self, port: int, name: str) -> None:
        super().__init__(port, name)
        self.name = name
        self._texts: dict[int, str] = {}
        self._confirmed: set[int] = set()
        self.paho.on_publish = lambda _client, _userdata, mid, *_: self._confirmed.add(mid)

    @property
    def confirmed(self) -> set[str]:
        """Those whose PUBACK came."""
        return {self._texts[mid] for mid in self._confirmed.copy() if mid in self._texts}

    def publish_until(self, stop: threading.Event, round_number: int) -> None:
        while not stop.is_set():
            if len(self._texts) - len(self._confirmed) >= 50:
                time.sleep(0.0005)
                continue
            text = f"{self.name} {round_number} {len(self._texts) + 1}"
            self._texts[self.paho.publish(f"plant/{self.name}", text, qos=1).mid] = text


class Subscriber(Client):
    """A persistent session on everything; `received` in order."""

    def __init__(self, port: int, name: str = "keeper") -> None:
        super().__init__(port, name, clean=False)
        self.received: list[str] = []
        self.paho.on_message = lambda _client, _userdata, message: self.received.append(message.payload.decode())

    def subscribe(self) -> None:
        done = threading.Event()
        self.paho.on_subscribe = lambda *_: done.set()
        self.paho.subscribe(FILTER, qos=1)
        assert done.wait(30)

    def drain(self, expected: set[str], timeout_s: float = 60.0) -> None:
        """Wait until all that is expected is there, or nothing more comes."""
        deadline = time.monotonic() + timeout_s
        quiet = time.monotonic()
        size = -1
        while time.monotonic() < deadline:
            if len(self.received) != size:
                size = len(self.received)
                quiet = time.monotonic()
            if expected <= set(self.received) or time.monotonic() - quiet > 10.0:
                return
            time.sleep(0.01)


def rounds(
    data_dir: Path, count: int, *, online: bool, seed: int, command: Sequence[str] = HONEST, publishers: int = 3
) -> tuple[set[str], list[str]]:
    """Kill the broker `count` times under load; return what was confirmed and what the subscriber got.

    Args:
        online: the subscriber is connected while the broker is killed; else it comes after the last round.
    """
    chance = random.Random(seed)
    broker = BrokerProcess(data_dir, command)
    broker.start()
    keeper = Subscriber(broker.port)
    keeper.connect()
    keeper.subscribe()
    keeper.leave()
    confirmed: set[str] = set()
    received: list[str] = []
    for number in range(count):
        confirmed |= _one_round(broker, number, publishers, chance.uniform(0.05, 0.35), received if online else None)
        broker.start()
    last = Subscriber(broker.port)
    last.connect()
    last.drain(confirmed - set(received))
    received += last.received
    last.leave()
    assert broker.stop() == 0
    return confirmed, received


def _one_round(broker: BrokerProcess, number: int, publishers: int, after_s: float, received: list[str] | None) -> set[str]:
    senders = [Publisher(broker.port, f"p{index}") for index in range(publishers)]
    reader = Subscriber(broker.port)
    for client in [*senders, *([reader] if received is not None else [])]:
        client.connect()
    stop = threading.Event()
    threads = [threading.Thread(target=sender.publish_until, args=(stop, number)) for sender in senders]
    for thread in threads:
        thread.start()
    time.sleep(after_s)
    deadline = time.monotonic() + 60
    while sum(len(sender.confirmed) for sender in senders) < ENOUGH:  # however slow the machine is
        assert time.monotonic() < deadline
        time.sleep(0.001)
    broker.kill()
    stop.set()
    for thread in threads:
        thread.join()
    for sender in senders:
        sender.lost()
    if received is not None:
        reader.lost()
        received += reader.received
    return set().union(*(sender.confirmed for sender in senders))
