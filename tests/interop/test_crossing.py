"""MQTT QoS 1 into plain ZeroMQ workers, and the broker is killed: what was PUBACKed, is it done?"""

from __future__ import annotations

import threading
import time

import pytest
import zmq

from tests.interop.killing import Publisher
from tests.live_broker import LiveBroker

pytestmark = pytest.mark.slow
PATIENCE_S = 60
ENDPOINTS = {
    "pong": 'socket = "PUSH"\nqueue = "work"\nack = "pong"\nworker_rcvhwm = 10',
    "handover": 'socket = "PUSH"\nqueue = "work"\nack = "handover"',
    "dealer": 'socket = "DEALER"\nqueue = "work"\nreply_timeout_ms = 2000',
}
CONFIGURATION = """\
[frontend.mqtt]
listen = ["tcp://127.0.0.1:1883"]

[[frontend.zeromq.endpoint]]
name = "work"
{endpoint}
bind = "tcp://127.0.0.1:5581"
bindings = [{{ exchange = "amq.topic", key = "plant.#" }}]
"""


class Workers:
    """Plain workers in a thread each: PULL, or REP. ``done``: what they were given, in order."""

    def __init__(self, address: str, kind: int) -> None:
        self.address = address
        self.kind = kind
        self.done: list[str] = []
        self.stop = threading.Event()
        self.last = time.monotonic()
        self.context = zmq.Context()
        self.threads = [threading.Thread(target=self._work) for _ in range(2)]
        for thread in self.threads:
            thread.start()

    def _work(self) -> None:
        with self.context.socket(self.kind) as socket:
            socket.setsockopt(zmq.RCVHWM, 10)
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RECONNECT_IVL, 20)
            socket.connect(self.address)
            while not self.stop.is_set():
                if socket.poll(20):
                    self.done.append(socket.recv().decode())
                    self.last = time.monotonic()
                    if self.kind == zmq.REP:
                        socket.send(b"done")

    def end(self) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()
        self.context.term()

    def wait_for(self, expected: set[str]) -> None:
        """Wait until all is done, or nothing more comes."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and not (expected <= set(self.done) or time.monotonic() - self.last > 10):
            time.sleep(0.02)


def publish_until_killed(broker: LiveBroker, number: int) -> set[str]:
    """Return what was PUBACKed."""
    publisher = Publisher(broker.where("mqtt")[1], "device")
    publisher.connect()
    stop = threading.Event()
    thread = threading.Thread(target=publisher.publish_until, args=(stop, number))
    thread.start()
    deadline = time.monotonic() + PATIENCE_S
    while len(publisher.confirmed) < 300:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    broker.kill()
    stop.set()
    thread.join()
    publisher.lost()
    return publisher.confirmed


@pytest.mark.parametrize("way", ["pong", "dealer"])
def test_what_a_device_was_promised_is_done_though_the_broker_is_killed(tmp_path, way):
    kind = zmq.REP if way == "dealer" else zmq.PULL
    with LiveBroker(tmp_path, CONFIGURATION.format(endpoint=ENDPOINTS[way])) as broker:
        workers = Workers(broker.addresses["DEALER" if way == "dealer" else "PUSH"], kind)
        try:
            promised: set[str] = set()
            for number in range(3):
                promised |= publish_until_killed(broker, number)
                broker.start()
            workers.wait_for(promised)
        finally:
            workers.end()
    assert len(promised) >= 900
    assert promised - set(workers.done) == set()


@pytest.mark.parametrize("way", ["handover", "pong", "dealer"])
def test_what_a_device_was_promised_waits_for_workers_that_come_after_a_kill(tmp_path, way):
    kind = zmq.REP if way == "dealer" else zmq.PULL
    with LiveBroker(tmp_path, CONFIGURATION.format(endpoint=ENDPOINTS[way])) as broker:
        promised = publish_until_killed(broker, 0)
        broker.start()
        workers = Workers(broker.addresses["DEALER" if way == "dealer" else "PUSH"], kind)
        try:
            workers.wait_for(promised)
        finally:
            workers.end()
    assert promised - set(workers.done) == set()
