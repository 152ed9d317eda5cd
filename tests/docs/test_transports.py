"""Does docs/transports.md show configurations that hold, and commands that work?"""

from __future__ import annotations

import shutil
import ssl
import subprocess
import tomllib

import pytest

from gateway.config import Config, TlsSettings, Transport
from gateway.runtime.streams.certificates import Certificates
from gateway_mqtt.settings import MqttSettings
from tests.docs.pages import read
from tests.programs import missing
from tests.runtime.support import Log

PAGE, block = read("docs/transports.md")


@pytest.mark.parametrize("name", ["all", "mutual", "proxied"])
def test_its_configurations_are_valid(name):
    config = Config.model_validate(tomllib.loads(block(name)))
    settings = config.validated_front_end("mqtt", MqttSettings)
    transport = config.transport("mqtt")
    encrypted = any(address.startswith(("tls:", "wss:")) for address in settings.listen)
    assert encrypted is (transport.tls.certificate is not None)


@pytest.mark.slow
def test_its_certificates_for_a_trial_are_good(tmp_path):
    if shutil.which("openssl") is None:
        missing("the program openssl is not installed")
    if b"-CA infile" not in subprocess.run(["openssl", "req", "-help"], capture_output=True, check=False).stderr:
        pytest.skip("this openssl can't issue certificates by `req` (before 3.0)")
    for command in block("certificates").splitlines():
        subprocess.run(command, shell=True, cwd=tmp_path, check=True, capture_output=True)
    names = ("certificate", "key", "client_ca", "client_certificate")
    values = (tmp_path / "server.pem", tmp_path / "server.key", tmp_path / "ca.pem", "required")
    log = Log()
    server = Certificates(Transport(TlsSettings(**dict(zip(names, values, strict=True)))), log).context
    client = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    client.load_cert_chain(tmp_path / "device.pem", tmp_path / "device.key")
    assert shake_hands(server, client) == "device 1"
    assert log.lines == []


def shake_hands(server, client):
    """Return the common name of the client's certificate."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up, server_hostname="localhost"), server.wrap_bio(up, down, server_side=True)]
    for _ in range(3):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return dict(pair for part in ends[1].getpeercert()["subject"] for pair in part)["commonName"]
