"""MQTT clients and a broker that others wrote."""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.live_broker import LiveBroker
from tests.ports import free_port
from tests.programs import missing

CONFIGURATION = """\
[frontend.mqtt]
listen = ["tcp://127.0.0.1:1883"]
[frontend.zeromq]
enabled = false
"""
BESIDE = Path(sys.executable).parent
PATIENCE_S = 60


def program(name):
    """Return a program's path; without it the test is skipped, or fails where programs are required."""
    found = shutil.which(name, path=os.pathsep.join([str(BESIDE), os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    if found is None:
        missing(f"the program {name} is not installed")
    return found


def run(name, *arguments, stdin=b""):
    done = subprocess.run([program(name), *arguments], input=stdin, capture_output=True, timeout=PATIENCE_S, check=False)
    return done.returncode, done.stdout


@contextmanager
def background(name, *arguments):
    """Run a program meanwhile; its output is read by whoever entered."""
    with subprocess.Popen([program(name), *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def lines_after_ready(process, count):
    """Return so many lines. What is retained while a client subscribes may come twice: as published, and as retained."""
    lines = []
    while len(lines) < count:
        line = process.stdout.readline()
        assert line, f"it ended after {lines}"
        if b"ready" not in line and b"yes" not in line:
            lines.append(line)
    return lines


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with LiveBroker(tmp_path_factory.mktemp("mqtt"), CONFIGURATION) as running:
        yield running


@pytest.fixture
def port(broker):
    return broker.mqtt.rpartition(":")[2]


def test_mosquitto_sub_gets_what_mosquitto_pub_sends(port):
    with background("mosquitto_sub", "-p", port, "-t", "m/+/x", "-q", "1", "-v", "-W", "60") as sub:
        run("mosquitto_pub", "-p", port, "-t", "m/ready/x", "-m", "yes", "-r")
        assert sub.stdout.readline() == b"m/ready/x yes\n"
        lines = b"".join(b"%d\n" % n for n in range(100))
        assert run("mosquitto_pub", "-p", port, "-t", "m/1/x", "-q", "1", "-l", stdin=lines)[0] == 0
        assert run("mosquitto_pub", "-p", port, "-t", "m/2/x", "-q", "0", "-m", "last")[0] == 0
        expected = [b"m/1/x %d\n" % n for n in range(100)] + [b"m/2/x last\n"]
        assert lines_after_ready(sub, len(expected)) == expected


def test_mosquitto_sub_gets_retained_messages_and_clears_them(port):
    for qos in ("0", "1"):
        assert run("mosquitto_pub", "-p", port, "-t", f"r/{qos}", "-q", qos, "-m", f"kept {qos}", "-r")[0] == 0
    code, out = run("mosquitto_sub", "-p", port, "-t", "r/#", "-q", "1", "-C", "2", "-F", "%t %p %q %r")
    assert (code, sorted(out.splitlines())) == (0, [b"r/0 kept 0 0 1", b"r/1 kept 1 1 1"])
    for patience in ("1", "10"):  # a slow machine may need longer
        assert run("mosquitto_sub", "-p", port, "-t", "r/#", "--remove-retained", "-W", patience)[0] == 27
        left = run("mosquitto_sub", "-p", port, "-t", "r/#", "-W", "1")
        if left == (27, b""):
            break
    assert left == (27, b"")


def test_a_persistent_mosquitto_sub_gets_what_came_while_it_was_away(port):
    session = ["-p", port, "-i", "keeper", "-c", "-q", "1", "-t", "away"]
    assert run("mosquitto_sub", *session, "-E")[0] == 0
    assert run("mosquitto_pub", "-p", port, "-t", "away", "-q", "1", "-l", stdin=b"1\n2\n3\n")[0] == 0
    assert run("mosquitto_sub", *session, "-C", "3", "-W", "60") == (0, b"1\n2\n3\n")


@pytest.mark.parametrize("version", ["mqttv31", "mqttv311", "mqttv5"])
def test_all_versions_are_spoken_in_all_qualities(port, version):
    for qos in ("0", "1", "2"):
        sent = ["-p", port, "-V", version, "-t", f"v/{version}/{qos}", "-q", qos, "-m", f"body {qos}", "-r"]
        assert run("mosquitto_pub", *sent)[0] == 0
    code, out = run("mosquitto_sub", "-p", port, "-V", version, "-t", f"v/{version}/+", "-q", "2", "-C", "3", "-F", "%p %q")
    assert (code, sorted(out.splitlines())) == (0, [b"body 0 0", b"body 1 1", b"body 2 2"])


def test_a_will_of_a_killed_mosquitto_sub_reaches_another(port):
    with background("mosquitto_sub", "-p", port, "-t", "will/#", "-W", "60") as watcher:
        will = ["--will-topic", "will/lost", "--will-payload", "gone"]
        with background("mosquitto_sub", "-p", port, "-t", "will/ready", *will) as doomed:
            run("mosquitto_pub", "-p", port, "-t", "will/ready", "-m", "ready", "-r")
            assert doomed.stdout.readline() == b"ready\n"
            assert watcher.stdout.readline() == b"ready\n"
        assert lines_after_ready(watcher, 1) == [b"gone\n"]
    run("mosquitto_pub", "-p", port, "-t", "will/ready", "-n", "-r")


class Paho:
    """A paho client; `next` returns what it received, as topic, payload, QoS, retain flag."""

    def __init__(self, port, client_id="", *, clean=True):
        import paho.mqtt.client as paho

        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id, clean_session=clean, reconnect_on_failure=False)
        self._messages = queue.SimpleQueue()
        self._subscribed = queue.SimpleQueue()
        connected = queue.SimpleQueue()
        self.client.on_message = lambda _c, _u, m: self._messages.put((m.topic, m.payload, m.qos, m.retain))
        self.client.on_connect = lambda _c, _u, flags, _r, _p: connected.put(flags.session_present)
        self.client.on_subscribe = lambda _c, _u, _m, codes, _p: self._subscribed.put([code.value for code in codes])
        self.client.connect("127.0.0.1", int(port))
        self.client.loop_start()
        self.session_present = connected.get(timeout=PATIENCE_S)

    def subscribe(self, *filters):
        self.client.subscribe(list(filters))
        return self._subscribed.get(timeout=PATIENCE_S)

    def publish(self, topic, payload, **how):
        self.client.publish(topic, payload, **how).wait_for_publish(PATIENCE_S)

    def next(self, patience_s=PATIENCE_S):
        return self._messages.get(timeout=patience_s)

    def end(self):
        self.client.disconnect()
        self.client.loop_stop()
        self.client.on_message = self.client.on_connect = self.client.on_subscribe = None  # else it keeps its sockets for long


@pytest.fixture
def paho(port):
    clients = []

    def make(*arguments, **how):
        clients.append(Paho(port, *arguments, **how))
        return clients[-1]

    yield make
    for client in clients:
        client.end()


def test_paho_publishes_and_subscribes_with_overlapping_filters(paho):
    subscriber, publisher = paho(), paho()
    assert subscriber.subscribe(("p/#", 0), ("p/1", 2)) == [0, 2]
    publisher.publish("p/0", b"low", qos=0)
    publisher.publish("p/1", b"high", qos=1)
    assert [subscriber.next() for _ in range(2)] == [("p/0", b"low", 0, False), ("p/1", b"high", 1, False)]
    body = bytes(range(256)) * 8_000
    publisher.publish("p/1", body, qos=1)
    assert subscriber.next() == ("p/1", body, 1, False)


def test_pahos_persistent_session_is_present_again(paho):
    first = paho("paho-keeper", clean=False)
    assert not first.session_present
    assert first.subscribe(("k/+", 1)) == [1]
    first.end()
    publisher = paho()
    for n in range(50):
        publisher.publish(f"k/{n}", b"%d" % n, qos=1)
    second = paho("paho-keeper", clean=False)
    assert second.session_present
    assert [second.next()[1] for _ in range(50)] == [b"%d" % n for n in range(50)]


def test_amqtt_publishes_and_subscribes(port):
    url = f"mqtt://127.0.0.1:{port}"
    run("mosquitto_pub", "-p", port, "-t", "q/ready", "-m", "ready", "-q", "1", "-r")
    with background("amqtt_sub", "--url", url, "-t", "q/#", "-q", "1", "-i", "amqtt-sub", "--clean-session") as sub:
        assert sub.stdout.readline() == b"ready\n"
        for qos in ("0", "1"):
            assert run("amqtt_pub", "--url", url, "-t", f"q/{qos}", "-m", f"body {qos}", "--qos", qos)[0] == 0
        assert sorted(lines_after_ready(sub, 2)) == [b"body 0\n", b"body 1\n"]


@pytest.mark.slow
def test_our_commands_work_with_mosquitto(tmp_path):
    port = str(free_port())
    configuration = tmp_path / "mosquitto.conf"
    configuration.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    with background("mosquitto", "-c", str(configuration)):
        deadline = time.monotonic() + 60
        while run("tidegate", "pub", "-p", port, "t/r", "kept", "-r", "-q", "1")[0] and time.monotonic() < deadline:
            time.sleep(0.05)
        assert run("tidegate", "sub", "-p", port, "t/#", "-v", "-C", "1", "-W", "60", "-q", "1") == (0, b"t/r kept\n")
        session = ["-p", port, "t/away", "-q", "1", "-i", "me", "-c"]
        assert run("tidegate", "sub", *session, "-E")[0] == 0
        assert run("tidegate", "pub", "-p", port, "t/away", "-q", "1", "-l", stdin=b"1\n2\n")[0] == 0
        assert run("tidegate", "sub", *session, "-C", "2", "-W", "60") == (0, b"1\n2\n")
