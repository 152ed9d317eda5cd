"""Do the examples do what they say?"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
        timeout=40,
        env=os.environ | environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


class Running:
    """A script that runs beside the test."""

    def __init__(self, script, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-u", EXAMPLES / script, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def wait_for(self, line):
        for said in self.process.stdout:
            if said.rstrip("\n") == line:
                return
        raise AssertionError(f"it ended before it said {line!r}")

    def rest(self):
        out, _ = self.process.communicate(timeout=40)
        assert self.process.returncode == 0, out
        return out.splitlines()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


def test_a_sensor_s_readings_reach_a_worker(broker):
    with Running("worker.py", "--tgp", broker.addresses["ROUTER"], "--count", "5") as worker:
        worker.wait_for("waiting for readings")
        said = run("sensor.py", "--mqtt", broker.mqtt, "--count", "5", "--pause", "0", "--name", "press3")
        assert said == [f"confirmed press3-{n}" for n in range(1, 6)]
        assert [line.split()[2] for line in worker.rest()] == [f"press3-{n}" for n in range(1, 6)]


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


def test_every_example_is_run_here():
    tested = Path(__file__).read_text()
    for path in EXAMPLES.rglob("*.py"):
        assert f'"{path.relative_to(EXAMPLES)}"' in tested
