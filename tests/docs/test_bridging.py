"""Is the walk of docs/bridging.md true?"""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from gateway_zeromq.settings import ZeroMqSettings
from tests.docs.pages import read
from tests.live_broker import TIDEGATE, LiveBroker
from tests.programs import missing

PAGE, block = read("docs/bridging.md")
PATIENCE_S = 30
WORKER, DASHBOARD, ANSWER, SUM = "plant/3/temp 21.5", "plant/3/average 21.4", "open", "42"


def command(beginning):
    """Return the arguments of a command of the page."""
    (arguments,) = re.findall(rf"`{beginning} ([^`]+)`", PAGE)
    return re.findall(r'"[^"]*"|\S+', arguments)


def test_what_the_page_says_is_printed_is_what_these_tests_expect():
    assert re.findall(r"prints `([^`]+)`", PAGE) == [WORKER, DASHBOARD, ANSWER, SUM]


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    configuration = '[frontend.mqtt]\nlisten = ["tcp://127.0.0.1:1883"]\n\n' + block("configuration")
    with LiveBroker(tmp_path_factory.mktemp("bridge"), configuration) as live:
        yield live


@pytest.fixture
def run(broker, running):
    """Start Python programs of the page; they end with the test."""

    def start(name):
        host, port = broker.where("mqtt")
        text = block(name).replace('connect("127.0.0.1", 1883)', f'connect("{host}", {port})')
        for kind, number in (("PUSH", 5581), ("PULL", 5582), ("REP", 5583), ("DEALER", 5584)):
            text = text.replace(f"tcp://127.0.0.1:{number}", broker.addresses[kind])
        return running(text)

    return start


def tidegate(broker, *arguments):
    host, port = broker.where("mqtt")
    verb, *rest = arguments
    done = subprocess.run(
        [TIDEGATE, verb, "-h", host, "-p", str(port), *rest], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    return done.stdout


def test_its_configuration_is_valid():
    kinds = [
        one.socket for one in ZeroMqSettings.model_validate(tomllib.loads(block("configuration"))["frontend"]["zeromq"]).endpoint
    ]
    assert kinds == ["PUSH", "PULL", "REP", "DEALER"]


def test_a_device_reaches_a_worker_that_comes_later(broker, run):
    tidegate(broker, "pub", *command("tidegate pub"))
    assert run("worker").stdout.readline() == f"{WORKER}\n"


def test_a_dashboard_that_comes_later_has_what_a_producer_pushed(broker, run):
    assert run("producer").wait(PATIENCE_S) == 0
    assert tidegate(broker, "sub", "-W", str(PATIENCE_S), *command("tidegate sub")) == f"{DASHBOARD}\n"


def test_a_req_socket_asks_a_device_that_speaks_mqtt_5(run):
    assert run("asker").stdout.readline() == "312 no queue takes such requests\n"
    run("device")
    for _ in range(100):  # until it has subscribed
        said = run("asker").stdout.readline()
        if not said.startswith("312 "):
            break
    assert said == f"{ANSWER}\n"


def test_a_device_asks_a_plain_worker(broker, run):
    program = Path("/usr/bin/mosquitto_rr")
    if not program.exists():
        missing("mosquitto_rr is not installed")
    run("sums")
    host, port = broker.where("mqtt")
    arguments = [word.strip('"') for word in command("mosquitto_rr")]
    done = subprocess.run(
        [program, "-h", host, "-p", str(port), "-W", str(PATIENCE_S), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == f"{SUM}\n", done
