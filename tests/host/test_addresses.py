"""Which addresses are addresses, and how does a program on this machine reach them?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api import StreamAddress, reachable, stream_address, tcp_address


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
        ("wss://0.0.0.0:8884/mqtt", "wss://127.0.0.1:8884/mqtt"),
        ("unix:/run/tidegate", "unix:/run/tidegate"),
    ],
)
def test_a_listener_on_every_interface_is_reached_on_loopback(listener, near):
    assert reachable(listener) == near


@pytest.mark.parametrize(
    ("address", "parsed"),
    [
        ("tcp://127.0.0.1:1883", StreamAddress("tcp", "127.0.0.1", 1883)),
        ("tls://[::1]:8883", StreamAddress("tls", "::1", 8883)),
        ("ws://localhost:8080", StreamAddress("ws", "localhost", 8080)),
        ("ws://localhost:8080/", StreamAddress("ws", "localhost", 8080, "/")),
        ("wss://0.0.0.0:0/mqtt/v5", StreamAddress("wss", "0.0.0.0", 0, "/mqtt/v5")),
        ("unix:/run/tidegate/mqtt", StreamAddress("unix", path="/run/tidegate/mqtt")),
        ("unix:/run/a b ü", StreamAddress("unix", path="/run/a b ü")),
    ],
)
def test_every_kind_is_read_and_written_again(address, parsed):
    assert stream_address(address) == parsed
    assert str(parsed) == address


def test_a_unix_address_may_be_written_as_an_url():
    assert stream_address("unix:///run/x") == stream_address("unix:/run/x")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("", "wss://HOST:PORT/PATH or unix:/PATH"),
        ("mqtt://127.0.0.1:1883", "must be an address tcp://HOST:PORT, tls://HOST:PORT"),
        ("TLS://127.0.0.1:1883", "must be an address tcp://HOST:PORT, tls://HOST:PORT"),
        ("tls://127.0.0.1", "must be an address tcp://HOST:PORT, tls://HOST:PORT"),
        ("tls://127.0.0.1:1883\n", "must be an address tcp://HOST:PORT, tls://HOST:PORT"),
        ("tls://127.0.0.1:8883/mqtt", "tls://HOST:PORT, with nothing behind it"),
        ("tcp://127.0.0.1:1883/", "tcp://HOST:PORT, with nothing behind it"),
        ("ws://127.0.0.1:80/mqtt?x", "ws://HOST:PORT/PATH, with nothing behind it"),
        ("ws://127.0.0.1:80/mqtt#x", "ws://HOST:PORT/PATH, with nothing behind it"),
        ("ws://127.0.0.1:80/a b", "must be an address tcp://HOST:PORT, tls://HOST:PORT"),
        ("wss://127.0.0.1:65536/", "wss://HOST:PORT with a port of at most 65535"),
        ("wss://127.0.0.256:1", "wss://HOST:PORT"),
        ("unix:", "whole path of a file"),
        ("unix:run/x", "whole path of a file"),
        ("unix:/run/", "whole path of a file"),
        ("unix:/a\0b", "whole path of a file"),
        ("unix:/" + "a" * 103, "at most 103 bytes"),
        ("unix:/" + "ü" * 52, "at most 103 bytes"),
    ],
)
def test_no_address_of_any_kind_is_refused_with_what_is_allowed(address, said):
    with pytest.raises(ValueError, match="must be ") as refused:
        stream_address(address)
    assert said in str(refused.value)


@given(
    st.text() | st.sampled_from(["tcp://", "ws://", "unix:/", "wss://[::1]:1"]).flatmap(lambda head: st.text().map(head.__add__))
)
def test_any_text_is_an_address_of_some_kind_or_refused(text):
    try:
        parsed = stream_address(text)
    except ValueError:
        return
    assert stream_address(str(parsed)) == parsed
