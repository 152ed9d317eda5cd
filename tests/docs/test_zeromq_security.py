"""Does docs/zeromq-security.md show configurations that hold, and a walk that works?"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from gateway.config import Config
from gateway_zeromq.security.clients import ClientKeys
from gateway_zeromq.security.passwords import matches
from gateway_zeromq.settings import ZeroMqSettings
from tests.docs.pages import read
from tests.live_broker import TIDEGATE, LiveBroker

PAGE, block = read("docs/zeromq-security.md")


def settings_of(name):
    config = Config.model_validate(tomllib.loads(block(name)))
    return config.validated_front_end("zeromq", ZeroMqSettings, own_sockets=True)


@pytest.mark.parametrize("name", ["curve", "plain", "connect"])
def test_its_configurations_are_valid(name):
    assert settings_of(name).endpoint


def test_its_hash_is_that_of_the_password_beside_it():
    users = settings_of("plain").endpoint[0].users
    assert matches(users, "alice", b"wonderland")
    assert not matches(users, "alice", b"Wonderland")


def test_its_file_with_a_line_for_each_client_can_be_read(tmp_path):
    (tmp_path / "keys").write_text(block("lines"))
    view = ClientKeys(tmp_path / "keys").look()
    assert sorted(view.users.values()) == ["alice", "bob"]
    assert not view.complaints


@pytest.mark.slow
def test_its_walk_works_from_the_first_key_to_the_last_message(tmp_path):
    path = f"{Path(TIDEGATE).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(block("keygen"), shell=True, cwd=tmp_path, check=True, capture_output=True, env={**os.environ, "PATH": path})
    with LiveBroker(tmp_path, block("curve")) as broker:

        def run(name, *ports):
            text = block(name)
            for shown, kind in ports:
                assert shown in text
                text = text.replace(shown, broker.addresses[kind])
            done = subprocess.run(
                [sys.executable, "-c", text], cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60
            )
            return done.stdout

        assert run("client", ("tcp://127.0.0.1:5570", "ROUTER")) == "b'work'\n"
        run("pyzmq", ("tcp://127.0.0.1:5551", "PULL"))
        assert broker.stop() == 0
    log = (tmp_path / "broker.log").read_text()
    assert "peer refused" not in log
    assert "handshake failed" not in log
