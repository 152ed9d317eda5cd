"""A mosquitto that is a bridge to this broker: what is published on one side comes to the other, once."""

from __future__ import annotations

import queue
import socket
import subprocess
import time
from contextlib import contextmanager

import pytest

from tests.interop.test_mqtt_clients import CONFIGURATION, PATIENCE_S, Paho, program
from tests.live_broker import LiveBroker
from tests.ports import free_port

pytestmark = pytest.mark.slow
QUIET_S = 0.7
"""A message that goes round in circles does so hundreds of times in this time."""


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    with LiveBroker(tmp_path_factory.mktemp("bridged"), CONFIGURATION) as running:
        yield running.mqtt.rpartition(":")[2]


@contextmanager
def bridge(folder, ours, version, topics):
    """Run a mosquitto that is bridged to this broker; its port."""
    port = str(free_port())
    lines = [
        f"listener {port} 127.0.0.1",
        "allow_anonymous true",
        f"connection {version}",
        f"address 127.0.0.1:{ours}",
        f"bridge_protocol_version {version}",
        f"remote_clientid bridge-{version}",
        "cleansession true",
        "notifications false",
        "restart_timeout 1",
        *(f"topic {topic}" for topic in topics),
    ]
    configuration = folder / "mosquitto.conf"
    configuration.write_text("\n".join(lines) + "\n")
    command = [program("mosquitto"), "-c", str(configuration)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + PATIENCE_S
            while True:
                try:
                    socket.create_connection(("127.0.0.1", int(port)), 1).close()
                    break
                except OSError:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            yield port
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def heard(client, count):
    """Wait until so much has come; return all, once nothing more comes."""
    found = []
    while True:
        try:
            message = client.next(PATIENCE_S if len(found) < count else QUIET_S)
        except queue.Empty:
            return found
        if message[1] != PROBE:  # it may come late
            found.append(message)


PROBE = b"are you there?"


def until_bridged(near, far, topic):
    """Publish on one side until it comes on the other."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        near.publish(topic, PROBE)
        try:
            far.next(0.2)
        except queue.Empty:
            continue
        return
    pytest.fail("the bridge was not made")


@pytest.mark.parametrize("version", ["mqttv311", "mqttv50"])
def test_what_is_published_on_either_side_comes_once_on_both(ours, tmp_path, version):
    topic = f"both/{version}"
    with bridge(tmp_path, ours, version, [f"{topic}/# both 2"]) as port:
        here, there = Paho(ours), Paho(port)
        try:
            for client in (here, there):
                client.subscribe((f"{topic}/#", 2))
            until_bridged(here, there, f"{topic}/x")
            until_bridged(there, here, f"{topic}/x")
            for publisher in (here, there):
                sent = [(f"{topic}/{qos}", b"body %d" % qos, qos, False) for qos in (0, 1, 2)]
                for name, body, qos, _ in sent:
                    publisher.publish(name, body, qos=qos)
                assert sorted(heard(here, len(sent))) == sent
                assert sorted(heard(there, len(sent))) == sent
        finally:
            here.end()
            there.end()


@pytest.mark.parametrize("version", ["mqttv311", "mqttv50"])
def test_a_bridge_is_told_what_is_retained_and_keeps_it_retained(ours, tmp_path, version):
    topic = f"kept/{version}"
    here = Paho(ours)
    here.publish(f"{topic}/old", b"before", qos=1, retain=True)
    with bridge(tmp_path, ours, version, [f"{topic}/# in 1"]) as port:
        there = Paho(port)
        try:
            there.subscribe((f"{topic}/#", 1))
            assert there.next()[:2] == (f"{topic}/old", b"before")
            here.publish(f"{topic}/new", b"live", qos=1, retain=True)
            assert there.next()[:2] == (f"{topic}/new", b"live")
            late = Paho(port)
            late.subscribe((f"{topic}/#", 1))
            assert sorted(heard(late, 2)) == [(f"{topic}/new", b"live", 1, True), (f"{topic}/old", b"before", 1, True)]
            late.end()
        finally:
            here.end()
            there.end()


@pytest.mark.parametrize("version", ["mqttv311", "mqttv50"])
def test_a_bridge_that_is_in_and_out_under_other_names_makes_no_loop(ours, tmp_path, version):
    with bridge(tmp_path, ours, version, [f"# both 1 local/{version}/ remote/{version}/"]) as port:
        here, there = Paho(ours), Paho(port)
        try:
            here.subscribe(("remote/#", 1))
            there.subscribe(("local/#", 1))
            until_bridged(here, there, f"remote/{version}/x")
            here.publish(f"remote/{version}/a", b"1", qos=1)
            there.publish(f"local/{version}/b", b"2", qos=1)
            names = [(b"1", "a"), (b"2", "b")]
            assert sorted((body, topic) for topic, body, _, _ in heard(here, 2)) == [(b, f"remote/{version}/{t}") for b, t in names]
            assert sorted((body, topic) for topic, body, _, _ in heard(there, 2)) == [(b, f"local/{version}/{t}") for b, t in names]
        finally:
            here.end()
            there.end()
