"""Clients that others wrote, over every transport: TLS with and without their certificates, WebSocket, Unix sockets."""

from __future__ import annotations

import os
import queue
import shutil
import socket
import ssl
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as paho
import pytest

from gateway.api import stream_address
from tests import certificates
from tests.live_broker import LiveBroker
from tests.programs import missing

CONFIGURATION = """\
[frontend.zeromq]
enabled = false
[tls]
certificate = "{directory}/server.pem"
key = "{directory}/server.key"
client_ca = "{directory}/ca.pem"
client_certificate = "{clients}"
[frontend.mqtt]
listen = ["tcp://127.0.0.1:0", "tls://127.0.0.1:0", "ws://127.0.0.1:0/mqtt", "wss://127.0.0.1:0", "unix:{directory}/sock"]
"""
KINDS = ["tcp", "tls", "ws", "wss", "unix"]
PATIENCE_S = 60
BODY = b"tide" * 25_000
MQTT_JS = "5.16.0"
CACHE = Path(__file__).parents[2] / "build/npm"


def program(name):
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    if found is None:
        missing(f"the program {name} is not installed")
    return found


def run(name, *arguments, stdin=b""):
    done = subprocess.run([program(name), *arguments], input=stdin, capture_output=True, timeout=PATIENCE_S, check=False)
    return done.returncode, done.stdout + done.stderr


def serving(directory, clients):
    files = certificates.make(directory)
    files.issue_client("device 1")
    return files, LiveBroker(directory, CONFIGURATION.format(directory=directory, clients=clients))


def addresses(broker):
    listening = [line.split()[2] for line in broker.lines if line.startswith("listening mqtt ")]
    return {stream_address(address).scheme: stream_address(address) for address in listening}


@pytest.fixture(scope="module")
def open_to_all(tmp_path_factory):
    files, broker = serving(tmp_path_factory.mktemp("transports"), "none")
    with broker:
        yield files, addresses(broker)


@pytest.fixture(scope="module")
def mutual(tmp_path_factory):
    files, broker = serving(tmp_path_factory.mktemp("mutual"), "required")
    with broker:
        yield files, addresses(broker)


class Paho:
    """One of paho's clients over any transport; what arrives is in `received`."""

    def __init__(self, address, files, *, protocol=paho.MQTTv311, certificate=None, path=None):
        transport = {"ws": "websockets", "wss": "websockets", "unix": "unix"}.get(address.scheme, "tcp")
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, transport=transport, protocol=protocol)
        self.received = queue.SimpleQueue()
        self.events = queue.SimpleQueue()
        self.client.on_connect = lambda client, data, flags, code, properties: self.events.put(code.value)
        self.client.on_subscribe = lambda client, data, mid, codes, properties: self.events.put(codes[0].value)
        self.client.on_message = lambda client, data, message: self.received.put((message.topic, message.payload))
        if address.is_encrypted:
            self.client.tls_set(str(files.ca), *([str(certificate), str(certificate)] if certificate is not None else []))
        if address.is_websocket:
            self.client.ws_set_options(path or address.path or "/mqtt")
        if address.scheme == "unix":
            self.client.connect(address.path)
        else:
            self.client.connect("localhost", address.port)

    def __enter__(self):
        self.client.loop_start()
        assert self.events.get(timeout=PATIENCE_S) == 0
        return self

    def __exit__(self, *_):
        self.client.disconnect()
        self.client.loop_stop()

    def subscribe(self, pattern):
        self.client.subscribe(pattern, 1)
        assert self.events.get(timeout=PATIENCE_S) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_paho_publishes_and_subscribes_over(kind, open_to_all):
    files, listening = open_to_all
    with Paho(listening[kind], files) as client:
        client.subscribe(f"{kind}/#")
        for n in range(20):
            client.client.publish(f"{kind}/{n}", BODY, 1)
        for n in range(20):
            assert client.received.get(timeout=PATIENCE_S) == (f"{kind}/{n}", BODY)


@pytest.mark.parametrize(("kind", "over"), [("tcp", "ws"), ("tls", "wss")])
def test_websocket_is_understood_where_plain_mqtt_is(kind, over, open_to_all):
    files, listening = open_to_all
    address = stream_address(str(listening[kind]).replace(kind, over))
    with Paho(address, files, path="/anything") as client:
        client.subscribe("sniffed")
        client.client.publish("sniffed", b"yes", 1)
        assert client.received.get(timeout=PATIENCE_S) == ("sniffed", b"yes")


def test_clients_of_different_transports_reach_each_other(open_to_all):
    files, listening = open_to_all
    with Paho(listening["unix"], files) as first, Paho(listening["wss"], files) as second:
        second.subscribe("between")
        first.client.publish("between", BODY, 1)
        assert second.received.get(timeout=PATIENCE_S) == ("between", BODY)


def mosquitto(address, files, *arguments):
    return ["-h", "localhost", "-p", str(address.port), "--cafile", str(files.ca), "-t", "m", *arguments]


@contextmanager
def background(name, *arguments):
    with subprocess.Popen([program(name), *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("version", ["tlsv1.2", "tlsv1.3"])
def test_mosquittos_clients_speak_tls(version, open_to_all):
    files, listening = open_to_all
    kept = ["-r", "-q", "1", "-m", version, "--tls-version", version]
    assert run("mosquitto_pub", *mosquitto(listening["tls"], files, *kept))[0] == 0
    with background("mosquitto_sub", *mosquitto(listening["tls"], files, "-q", "1", "-C", "1", "-W", "10")) as sub:
        assert sub.stdout.readline() == version.encode() + b"\n"


@pytest.mark.slow
def test_mosquittos_client_without_a_certificate_is_refused_where_one_is_needed(mutual):
    files, listening = mutual
    address = listening["tls"]
    assert run("mosquitto_pub", *mosquitto(address, files, "-m", "x", "-q", "1"))[0] != 0
    mine = ["--cert", str(files.client), "--key", str(files.client)]
    assert run("mosquitto_pub", *mosquitto(address, files, "-m", "x", "-q", "1", *mine))[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tls", "wss"])
def test_paho_shows_its_certificate(kind, mutual):
    files, listening = mutual
    with Paho(listening[kind], files, certificate=files.client) as client:
        client.subscribe("mine")
        client.client.publish("mine", b"x", 1)
        assert client.received.get(timeout=PATIENCE_S) == ("mine", b"x")


def test_openssls_client_verifies_the_chain_and_no_old_version_is_spoken(open_to_all):
    files, listening = open_to_all
    to = ["s_client", "-connect", f"localhost:{listening['tls'].port}", "-CAfile", str(files.ca), "-verify_return_error", "-brief"]
    code, said = run("openssl", *to)
    assert code == 0
    assert b"Verification: OK" in said
    assert b"TLSv1.3" in said
    assert run("openssl", *to, "-tls1_1")[0] != 0


@pytest.mark.slow
def test_openssls_client_can_not_renegotiate(open_to_all):
    files, listening = open_to_all
    to = ["s_client", "-connect", f"localhost:{listening['tls'].port}", "-CAfile", str(files.ca), "-tls1_2"]
    with subprocess.Popen(
        [program("openssl"), *to], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as client:
        while b"Verify return code: 0" not in (line := client.stdout.readline()):
            assert line
        client.stdin.write(b"R\n")
        client.stdin.flush()
        said = client.stdout.read()
    assert b"no renegotiation" in said


def mqtt_js():
    """Return where mqtt.js is; it is installed by npm only where programs are required."""
    module = CACHE / "node_modules/mqtt"
    if not module.exists() or f'"{MQTT_JS}"' not in (module / "package.json").read_text():
        if os.environ.get("TIDEGATE_REQUIRE_PROGRAMS") != "1":
            missing(f"mqtt.js is not installed: npm install --prefix {CACHE} mqtt@{MQTT_JS}")
        CACHE.mkdir(parents=True, exist_ok=True)
        install = ["install", "--no-audit", "--no-fund", "--prefix", str(CACHE), f"mqtt@{MQTT_JS}"]
        done = subprocess.run([program("npm"), *install], check=False, capture_output=True, text=True, timeout=100)
        if done.returncode:
            missing(f"npm can't install mqtt.js: {done.stderr}")
    return module


@pytest.mark.slow
@pytest.mark.parametrize("version", ["4", "5"])
@pytest.mark.parametrize(("kind", "path"), [("ws", "/mqtt"), ("wss", "/mqtt"), ("tcp", "/")])
def test_mqtt_js_publishes_and_subscribes_over(kind, path, version, open_to_all):
    node, module = program("node"), mqtt_js()
    files, listening = open_to_all
    url = f"{'ws' if kind == 'tcp' else kind}://localhost:{listening[kind].port}{path}"
    script = str(Path(__file__).with_name("mqtt_js.js"))
    arguments = [str(module), url, str(files.ca) if kind == "wss" else "", version]
    assert run(node, script, *arguments) == (0, b"got 50\n")


def served_serial(address, files):
    context = ssl.create_default_context(cafile=str(files.ca))
    with (
        socket.create_connection(("127.0.0.1", address.port), PATIENCE_S) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as encrypted,
    ):
        return encrypted.getpeercert()["serialNumber"]


@pytest.mark.slow
def test_a_renewed_certificate_is_served_without_a_restart(tmp_path):
    files, broker = serving(tmp_path, "none")
    with broker:
        address = addresses(broker)["tls"]
        first = served_serial(address, files)
        with Paho(address, files) as client:
            files.issue()
            deadline = time.monotonic() + PATIENCE_S
            while served_serial(address, files) == first:
                assert time.monotonic() < deadline
                time.sleep(0.2)
            client.subscribe("still/here")
    assert not Path(f"{tmp_path}/sock").exists()
