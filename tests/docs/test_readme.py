"""Does the README do what it says? Its blocks are run, with free ports in place of the standard ones."""

import contextlib
import re
import shutil
import socket
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

from gateway.client import connect
from tests.docs.pages import read
from tests.live_broker import CONFIGURATION, LiveBroker
from tests.programs import missing

ROOT = Path(__file__).parents[2]
README, block = read("README.md")
PORTS = {1883: "mqtt", 5672: "amqp", 5557: "PULL", 5558: "PUSH", 5559: "XPUB", 5570: "ROUTER"}


def moved(text, broker):
    """Put the broker's real ports in place of the standard ones."""
    for port, kind in PORTS.items():
        text = text.replace(str(port), broker.addresses[kind].rpartition(":")[2])
    return text


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with LiveBroker(tmp_path_factory.mktemp("broker")) as live:
        yield live


def say_with_mosquitto_pub(text, broker):
    if shutil.which("mosquitto_pub") is None:
        missing("mosquitto_pub is not installed")
    host, port = broker.mqtt.split(":")
    command = text.strip().replace("mosquitto_pub ", f"mosquitto_pub -h {host} -p {port} ")
    subprocess.run(command, shell=True, check=True, timeout=60)


def test_four_clients_print_what_the_readme_says(broker, running):
    pytest.importorskip("paho.mqtt")
    worker = running(moved(block("worker"), broker))
    say_with_mosquitto_pub(block("device"), broker)
    for program in ("paho", "pika"):
        subprocess.run([sys.executable, "-c", moved(block(program), broker)], check=True, timeout=60)
    said = block("prints").splitlines()
    assert [worker.stdout.readline().rstrip("\n") for _ in said] == said


@pytest.mark.slow
def test_messages_wait_on_disk_for_a_worker_that_is_started_last(tmp_path, running):
    pytest.importorskip("paho.mqtt")
    with LiveBroker(tmp_path) as broker:
        subprocess.run([sys.executable, "-c", moved(block("paho"), broker)], check=True, timeout=60)
        broker.kill()
        broker.start()
        worker = running(moved(block("worker"), broker))
        assert worker.stdout.readline() == "hello from paho\n"


def test_the_acknowledging_worker_prints_what_a_device_says(broker, running):
    worker = running(moved(block("acknowledging"), broker))
    with connect(broker.addresses["ROUTER"]) as client:
        client.declare_queue("readings", durable=True)
        client.bind("readings", "amq.topic", "sensors.#")
        client.publish("amq.topic", "sensors.press3", b"21.5", wait=True)
    assert worker.stdout.readline() == "sensors.press3 21.5\n"


def test_the_broker_says_at_start_what_the_readme_shows(broker):
    shown = block("serve").splitlines()
    listening = [re.sub(r"\d+$", "PORT", line) for line in broker.lines if line.startswith("listening")]
    assert [re.sub(r"\d+$", "PORT", line) for line in shown if line.startswith("listening")] == listening
    assert shown[-1] == "ready"


def test_the_test_s_endpoints_are_those_that_a_broker_has_without_configuration(tmp_path):
    """The README shows the standard ports; the tests above use free ones. Is it the same otherwise?"""
    from gateway_zeromq.plugin import tidegate_frontends

    (front_end,) = tidegate_frontends()
    written = front_end.settings_model.model_validate({"endpoint": tomllib.loads(CONFIGURATION)["frontend"]["zeromq"]["endpoint"]})
    assert front_end.addresses(front_end.settings_model()) == front_end.addresses(written)
    without_names = [endpoint.model_dump(exclude={"name"}) for endpoint in written.endpoint]
    assert [endpoint.model_dump(exclude={"name"}) for endpoint in front_end.settings_model().endpoint] == without_names


def test_the_two_commands_are_targets_of_the_makefile():
    commands = re.findall(r"^make (\w+)", README, re.MULTILINE)
    assert commands == ["demo", "test"]
    for command in commands:
        assert re.search(rf"^{command}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("page", ["README.md", "examples/README.md"])
def test_what_is_to_be_installed_can_be_installed_from_the_checkout(page):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.findall(r"pip install '([^']+)'", (ROOT / page).read_text())
    assert named
    assert set(named) <= {f".[{extra}]" for extra in extras}


def install(directory):
    """Put the README's front-end into a directory as an installed distribution is."""
    (directory / "lines.py").write_text(block("frontend"))
    info = directory / "lines-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lines\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tidegate.frontends]\nlines = lines\n")
    assert 'lines = "lines"' in README


LINES = textwrap.dedent("""\
    [frontend.mqtt]
    listen = ["tcp://127.0.0.1:0"]

    [frontend.zeromq]
    enabled = false

    [frontend.lines]
    listen = ["tcp://127.0.0.1:0"]
""")


@pytest.fixture
def with_lines(tmp_path, monkeypatch):
    """A broker with the README's front-end."""
    install(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with LiveBroker(tmp_path, LINES) as live:
        yield live


def said_until_the_end(broker, data):
    """What the front-end says to so many bytes, until one of both has closed the connection."""
    with socket.create_connection(broker.where("lines"), timeout=30) as peer:
        with contextlib.suppress(ConnectionError):
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
        said = b""
        with contextlib.suppress(ConnectionError):
            while data := peer.recv(65_536):
                said += data
        return said


def test_a_line_without_an_end_closes_its_connection_only(with_lines):
    assert said_until_the_end(with_lines, b"PUT plant.3 " + b"x" * 1_500_000 + b"\n") == b""
    assert "a line that does not end" in (with_lines.directory / "broker.log").read_text()
    assert said_until_the_end(with_lines, b"PUT plant.3 " + b"x" * 900_000 + b"\n") == b"OK\n"


def test_bytes_that_are_no_text_are_told(with_lines):
    said = said_until_the_end(with_lines, b"PUT plant.3 \xff\nPUT plant.3 x\nBIND\nPUT\n\n").split(b"\n")
    assert said[0].startswith(b"NO 'utf-8' codec")
    assert said[1] == b"OK"
    assert said[4:] == [b"NO what?", b""]
    assert "Traceback" not in (with_lines.directory / "broker.log").read_text()


def test_the_front_end_of_the_readme_joins_mqtt_s_topics(with_lines):
    mqtt = pytest.importorskip("paho.mqtt.publish")
    broker = with_lines
    host, port = broker.mqtt.split(":")
    peer = socket.create_connection(broker.where("lines"), timeout=30)
    with peer, peer.makefile("rw", newline="\n") as stream:

        def ask(line):
            stream.write(line + "\n")
            stream.flush()
            return stream.readline().rstrip("\n")

        assert ask("BIND readings plant.#") == "OK"
        assert ask("TAKE readings") == "EMPTY"
        assert ask("PUT plant.3 from lines") == "OK"
        mqtt.single("plant/3", "from mqtt", qos=1, hostname=host, port=int(port))
        assert ask("TAKE readings") == "MESSAGE from lines"
        assert ask("DONE") == "OK"
        assert ask("TAKE readings") == "MESSAGE from mqtt"
        assert ask("TAKE nothing").startswith("NO ")
        assert ask("DANCE") == "NO what?"
    again = socket.create_connection(broker.where("lines"), timeout=30)
    with again, again.makefile("rw", newline="\n") as stream:
        stream.write("TAKE readings\n")
        stream.flush()
        assert stream.readline() == "MESSAGE from mqtt\n", "it was not DONE, so it is there again"
