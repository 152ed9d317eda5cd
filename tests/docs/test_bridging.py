"""Is the walk of docs/bridging.md true?"""

from __future__ import annotations

import re
import subprocess
import tomllib
from contextlib import suppress
from pathlib import Path

import pytest

from gateway_zeromq.settings import ZeroMqSettings
from tests.docs.pages import read
from tests.live_broker import TIDEGATE, LiveBroker
from tests.programs import missing

PAGE, block = read("docs/bridging.md")
PATIENCE_S = 30
WORKER, DASHBOARD, LATECOMER, ANSWER, SUM = "plant/3/temp 21.5", "plant/3/average 21.4", "plant.3.average 21.4", "open", "42"
TOLD, SAID = "plant/3/load 0.7", "plant.3.alarm smoke"


def command(beginning, number=0):
    """Return the arguments of a command of the page."""
    arguments = re.findall(rf"`{beginning} ([^`]+)`", PAGE)[number]
    return re.findall(r'"[^"]*"|\S+', arguments)


def test_what_the_page_says_is_printed_is_what_these_tests_expect():
    assert re.findall(r"prints `([^`]+)`", PAGE) == [WORKER, DASHBOARD, LATECOMER, ANSWER, SUM]
    assert re.findall(r"is told `([^`]+)`", PAGE) == [TOLD]
    assert re.findall(r"say `([^`]+)`", PAGE) == [SAID]


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    listening = '[frontend.mqtt]\nlisten = ["tcp://127.0.0.1:1883"]\n\n[frontend.amqp]\nlisten = ["tcp://127.0.0.1:5672"]\n\n'
    configuration = listening + block("configuration")
    with LiveBroker(tmp_path_factory.mktemp("bridge"), configuration) as live:
        yield live


@pytest.fixture
def run(broker, running):
    """Start Python programs of the page; they end with the test."""

    def start(name):
        host, port = broker.where("mqtt")
        text = block(name).replace('connect("127.0.0.1", 1883)', f'connect("{host}", {port})')
        text = text.replace('127.0.0.1", 5672', f'127.0.0.1", {broker.where("amqp")[1]}')
        for kind, number in (("PUSH", 5581), ("PULL", 5582), ("REP", 5583), ("DEALER", 5584)):
            text = text.replace(f"tcp://127.0.0.1:{number}", broker.addresses[kind])
        return running(text)

    return start


def mqtt(broker, verb, *arguments):
    """Return the command line of `tidegate pub` or `tidegate sub`."""
    host, port = broker.where("mqtt")
    return [TIDEGATE, verb, "-h", host, "-p", str(port), *arguments]


def tidegate(broker, *arguments):
    return subprocess.run(mqtt(broker, *arguments), capture_output=True, text=True, check=True, timeout=PATIENCE_S).stdout


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
    assert tidegate(broker, "sub", "-W", str(PATIENCE_S), *command("tidegate sub", 1)) == f"{DASHBOARD}\n"


def test_a_req_socket_asks_a_device_that_speaks_mqtt_5(run):
    assert run("asker").stdout.readline() == "312 no queue takes such requests\n"
    run("device")
    for _ in range(100):  # until it has subscribed
        said = run("asker").stdout.readline()
        if not said.startswith("312 "):
            break
    assert said == f"{ANSWER}\n"


def test_a_rabbitmq_program_reaches_an_mqtt_client(broker, run):
    listening = subprocess.Popen(
        mqtt(broker, "sub", "-W", str(PATIENCE_S), *command("tidegate sub")), stdout=subprocess.PIPE, text=True
    )
    with listening:
        while listening.poll() is None:  # until it has subscribed
            assert run("reporter").wait(PATIENCE_S) == 0
            with suppress(subprocess.TimeoutExpired):
                listening.wait(0.1)
        assert listening.stdout.read() == f"{TOLD}\n"


def test_a_device_reaches_a_rabbitmq_program(broker, run):
    listener = run("listener")
    assert listener.stdout.readline() == "ready\n"
    tidegate(broker, "pub", *command("tidegate pub", 1))
    assert listener.stdout.readline() == f"{SAID}\n"


def test_a_rabbitmq_program_is_a_colleague_of_plain_workers(broker, run):
    tidegate(broker, "pub", *command("tidegate pub"))
    assert run("colleague").stdout.readline() == f"{WORKER.replace('/', '.')}\n"


def test_a_rabbitmq_program_that_comes_later_has_last_values(broker, run):
    assert run("producer").wait(PATIENCE_S) == 0
    assert run("latecomer").stdout.readline() == f"{LATECOMER}\n"


def test_a_rabbitmq_program_asks_a_device_that_speaks_mqtt_5(broker, run):
    run("device")
    for _ in range(100):  # until it has subscribed
        if run("asker").stdout.readline() == f"{ANSWER}\n":
            break
    assert run("requester").stdout.readline() == f"{ANSWER}\n"


@pytest.mark.parametrize(("number", "worker", "answer"), [(0, "sums", SUM), (1, "responder", SUM)])
def test_a_device_asks_a_worker(broker, run, number, worker, answer):
    program = Path("/usr/bin/mosquitto_rr")
    if not program.exists():
        missing("mosquitto_rr is not installed")
    started = run(worker)
    if worker == "responder":
        assert started.stdout.readline() == "ready\n"
    host, port = broker.where("mqtt")
    arguments = [word.strip('"') for word in command("mosquitto_rr", number)]
    done = subprocess.run(
        [program, "-h", host, "-p", str(port), "-W", str(PATIENCE_S), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == f"{answer}\n", done
