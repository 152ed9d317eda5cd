"""Which addresses can only this machine reach?"""

from __future__ import annotations

import pytest

from gateway.security import is_local


@pytest.mark.parametrize(
    "address",
    [
        "tcp://127.0.0.1:1883",
        "tcp://127.9.9.9:0",
        "tcp://[::1]:1883",
        "tcp://localhost:1883",
        "tls://127.0.0.1:8883",
        "ws://127.0.0.1:8080/mqtt",
        "tcp://[::ffff:127.0.0.1]:1883",
        "unix:/run/tidegate.sock",
        "unix:///run/tidegate.sock",
        "ipc:///tmp/tidegate",
        "inproc://tidegate",
    ],
)
def test_loopback_and_what_has_no_network_is_local(address):
    assert is_local(address)


@pytest.mark.parametrize(
    "address",
    [
        "tcp://0.0.0.0:1883",
        "tcp://[::]:1883",
        "tcp://*:5557",
        "tcp://eth0:5557",
        "tcp://192.0.2.1:1883",
        "tcp://[2001:db8::1]:1883",
        "tcp://example.org:1883",
        "tcp://127.0.0.1.example.org:1883",
        "tcp://localhost.example.org:1883",
        "tcp://:1883",
        "tcp://[::ffff:192.0.2.1]:1883",
        "127.0.0.1:1883",
        "tcp:127.0.0.1:1883",
        "ws://192.0.2.1:80/127.0.0.1:1883",
        "",
    ],
)
def test_everything_else_is_not(address):
    assert not is_local(address)
