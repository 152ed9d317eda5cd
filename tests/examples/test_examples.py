"""Do the examples do what they say?"""

import os
import queue
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.client import connect
from tests.live_broker import LiveBroker

EXAMPLES = Path(__file__).parents[2] / "examples"

pytest.importorskip("paho.mqtt")


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with LiveBroker(tmp_path_factory.mktemp("broker")) as live:
        yield live


def run(script, *arguments, **environment):
    """Run a script to its end and return what it printed."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / script, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        env=os.environ | environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


AHEAD = 2 * 4096 // 20
"""So many lines of a script, of twenty bytes and more, are in its pipe and with who reads that, at most."""


class Running:
    """A script that runs beside the test, no more than some `AHEAD` lines ahead of what the test has read."""

    def __init__(self, script, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-u", EXAMPLES / script, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pipesize=4096,
        )
        self.lines = queue.Queue(maxsize=1)
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def line(self, seconds=60):
        """The next line, or None: it has ended. Raises queue.Empty: it said nothing for so long."""
        return self.lines.get(timeout=seconds)

    def wait_for(self, line):
        while (said := self.line()) != line:
            assert said is not None, f"it ended before it said {line!r}"

    def rest(self):
        said = list(iter(self.line, None))
        assert self.process.wait(60) == 0, said
        return said

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        while self.reader.is_alive():
            with suppress(queue.Empty):
                self.lines.get(timeout=0.01)
        self.process.stdout.close()


def test_a_sensor_s_readings_reach_a_worker(broker):
    with Running("worker.py", "--tgp", broker.addresses["ROUTER"], "--count", "5") as worker:
        worker.wait_for("waiting for readings")
        said = run("sensor.py", "--mqtt", broker.mqtt, "--count", "5", "--pause", "0", "--name", "press3")
        assert said == [f"confirmed press3-{n}" for n in range(1, 6)]
        assert [line.split()[2] for line in worker.rest()] == [f"press3-{n}" for n in range(1, 6)]


@pytest.fixture
def mute():
    """An MQTT server that lets everybody in and answers nothing else."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        yield listener


def let_in(listener):
    peer, _ = listener.accept()
    peer.settimeout(60)
    kind, size = peer.recv(2, socket.MSG_WAITALL)
    assert (kind, size < 128) == (0x10, True)
    peer.recv(size, socket.MSG_WAITALL)  # the CONNECT and no more: the first PUBLISH may be right behind it
    peer.sendall(b"\x20\x02\x00\x00")
    return peer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "puback", "said"),
    [
        ("sensor.py", b"\x40\x02\x00\x01", "confirmed mute-1"),
        ("mqtt_to_pull/device.py", b"\x40\x02\x00\x01", "confirmed reading 1"),
    ],
)
def test_nothing_is_called_confirmed_before_its_puback(mute, script, puback, said):
    name = ["--name", "mute"] if script == "sensor.py" else []
    where = f"127.0.0.1:{mute.getsockname()[1]}"
    with Running(script, "--mqtt", where, "--count", "1", *name) as device:
        with let_in(mute) as peer:
            first = peer.recv(4096)
            assert first[0] == 0x32, "a PUBLISH with QoS 1"
            with pytest.raises(queue.Empty):
                device.line(0.5)
        with let_in(mute) as peer:
            again = peer.recv(4096)
            assert again == bytes([0x3A]) + first[1:], "the same once more, with DUP, when the connection is gone"
            with pytest.raises(queue.Empty):
                device.line(0.5)
            peer.sendall(puback)
            assert device.line() == said


@pytest.mark.slow
@pytest.mark.parametrize("script", ["sensor.py", "mqtt_to_pull/device.py"])
def test_a_broker_that_is_killed_and_comes_back_is_waited_for(tmp_path, script):
    count = 20 + AHEAD + 100  # however fast it is, it has not done when the broker is killed
    extra = ["--pause", "0.001", "--name", "restart"] if script == "sensor.py" else []
    with LiveBroker(tmp_path) as broker:
        with connect(broker.addresses["ROUTER"]) as client:
            client.declare_queue("all", durable=True)
            client.bind("all", "amq.topic", "sensors.#")
        with Running(script, "--mqtt", broker.mqtt, "--count", str(count), *extra) as device:
            said = [device.line() for _ in range(20)]
            broker.kill()
            with suppress(queue.Empty):
                while True:
                    said.append(device.line(0.5))
            assert len(said) < count
            broker.start()
            said += device.rest()
        assert [line.startswith("confirmed ") for line in said] == [True] * count, said
        with connect(broker.addresses["ROUTER"]) as client:
            bodies = set()
            with client.consume("all", idle_timeout=60, no_ack=True) as consumer:
                while len(bodies) < count:
                    bodies.add(next(consumer).body)


def test_readings_wait_for_a_worker_that_comes_later(broker):
    with Running("worker.py", "--tgp", broker.addresses["ROUTER"], "--queue", "later", "--key", "sensors.tank.#") as worker:
        worker.wait_for("waiting for readings")
    run("sensor.py", "--mqtt", broker.mqtt, "--count", "3", "--pause", "0", "--name", "tank")
    lines = run("worker.py", "--tgp", broker.addresses["ROUTER"], "--queue", "later", "--key", "sensors.tank.#", "--count", "3")
    assert [line.split()[2] for line in lines[1:]] == ["tank-1", "tank-2", "tank-3"]


def test_plain_push_reaches_plain_pull(broker):
    with Running("pull_consumer.py", "--pull", broker.addresses["PUSH"], "--count", "10") as consumer:
        sent = run("push_producer.py", TIDEGATE_PULL=broker.addresses["PULL"])
        assert sent == [f"sent job {n}" for n in range(1, 11)]
        assert consumer.rest() == [f"received job {n}" for n in range(1, 11)]


def test_mqtt_devices_reach_plain_pull_workers_by_configuration_alone(tmp_path):
    with LiveBroker(tmp_path, (EXAMPLES / "mqtt_to_pull" / "tidegate.toml").read_text()) as broker:
        run("mqtt_to_pull/device.py", "--mqtt", broker.mqtt, "--count", "5")
        lines = run("mqtt_to_pull/worker.py", "--pull", broker.addresses["PUSH"], "--count", "5")
    assert lines == [f"sensors.pump1.pressure: 0.{n} bar" for n in range(1, 6)]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["mqtt", "push"])
def test_camera_frames_reach_inference_workers_and_results_come_back(tmp_path, way):
    with (
        LiveBroker(tmp_path, (EXAMPLES / "camera" / "tidegate.toml").read_text()) as broker,
        Running("camera/inference.py", "--tgp", broker.addresses["ROUTER"], "--count", "5") as worker,
    ):
        worker.wait_for("waiting for frames")
        push = ["--push", broker.addresses["PULL"]] if way == "push" else []
        lines = run("camera/camera.py", "--mqtt", broker.mqtt, *push)
        assert sorted(line.partition(":")[0] for line in lines) == [f"frame {n}" for n in range(1, 6)]
        assert worker.rest() == ["gate1: 1000000 bytes"] * 5


@pytest.mark.slow
def test_a_camera_gets_all_its_results_although_the_broker_is_killed(tmp_path):
    with (
        LiveBroker(tmp_path, (EXAMPLES / "camera" / "tidegate.toml").read_text()) as broker,
        Running("camera/inference.py", "--tgp", broker.addresses["ROUTER"]) as worker,
    ):
        worker.wait_for("waiting for frames")
        with Running("camera/camera.py", "--mqtt", broker.mqtt, "--frames", "20") as camera:
            worker.wait_for("gate1: 1000000 bytes")
            broker.kill()
            broker.start()
            assert {line.partition(":")[0] for line in camera.rest()} == {f"frame {n}" for n in range(1, 21)}


def test_every_example_is_run_here_or_by_clients_of_its_protocol():
    here = Path(__file__)
    with_pika = (here.parents[1] / "interop" / "test_amqp_tutorials.py").read_text()
    tested = here.read_text()
    for path in EXAMPLES.rglob("*.py"):
        name = path.relative_to(EXAMPLES)
        assert f'"{path.name}"' in with_pika if name.parts[0] == "amqp" else f'"{name}"' in tested
