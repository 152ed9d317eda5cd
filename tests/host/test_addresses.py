"""Which addresses are addresses, and how does a program on this machine reach them?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api import reachable, tcp_address


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("tcp://127.0.0.1:1883", ("127.0.0.1", 1883)),
        ("tcp://[::1]:0", ("::1", 0)),
        ("tcp://[fe80::1%eth0]:1", ("fe80::1%eth0", 1)),
        ("tcp://localhost:65535", ("localhost", 65535)),
    ],
)
def test_host_and_port_are_read(address, parts):
    assert tcp_address(address) == parts


@pytest.mark.parametrize(
    "address",
    [
        "",
        "127.0.0.1:1883",
        "tls://127.0.0.1:1883",
        "tcp:127.0.0.1:1883",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:",
        "tcp://127.0.0.1:65536",
        "tcp://127.0.0.1:-1",
        "tcp://127.0.0.1:1883/",
        "tcp://127.0.0.1:1883\n",
        "tcp://127.0.0.256:1883",
        "tcp://127.1:1883",
        "tcp://:1883",
        "tcp://*:1883",
        "tcp://::1:1883",
        "tcp://[127.0.0.1]:1883",
        "tcp://[::x]:1883",
        "tcp://user@localhost:1883",
        "tcp://local host:1883",
        "tcp://a..b:1883",
        "tcp://" + "a" * 64 + ":1883",
    ],
)
def test_what_is_none_is_refused_with_what_is_allowed(address):
    with pytest.raises(ValueError, match="must be an address tcp://HOST:PORT"):
        tcp_address(address)


@given(st.text() | st.text().map("tcp://{}".format) | st.text().map("tcp://{}:1".format))
def test_any_text_is_an_address_or_refused(text):
    try:
        host, port = tcp_address(text)
    except ValueError:
        return
    assert host
    assert 0 <= port <= 65_535


@pytest.mark.parametrize(
    ("listener", "near"),
    [
        ("tcp://0.0.0.0:1883", "tcp://127.0.0.1:1883"),
        ("tcp://[::]:1883", "tcp://[::1]:1883"),
        ("tcp://192.0.2.1:1883", "tcp://192.0.2.1:1883"),
        ("tcp://[2001:db8::1]:1", "tcp://[2001:db8::1]:1"),
        ("ipc:///run/tidegate", "ipc:///run/tidegate"),
    ],
)
def test_a_listener_on_every_interface_is_reached_on_loopback(listener, near):
    assert reachable(listener) == near
