"""Which settings of security make sense together, and what is said of those that don't?"""

import pytest
from pydantic import ValidationError

from gateway.security import is_local
from gateway_zeromq.plugin import ZeroMqFrontEnd
from gateway_zeromq.settings import ZeroMqSettings
from gateway_zeromq.settings.security import is_loopback
from tests.zeromq.hashes import hash_of

HERE = "tcp://127.0.0.1:5551"
SERVER = {"security": "curve", "secret_key_file": "a.key_secret", "client_keys": "clients"}
CLIENT = {"security": "curve", "secret_key_file": "a.key_secret", "server_key_file": "b.key"}
HASH = hash_of("x")


def endpoint(**settings):
    return ZeroMqSettings(endpoint=[{"socket": "PULL", "exchange": "amq.topic", **settings}])


@pytest.mark.parametrize(
    "settings",
    [
        {"bind": HERE, "security": "null"},
        {"bind": "tcp://0.0.0.0:5551", **SERVER, "domain": "x"},
        {"connect": HERE, **CLIENT},
        {"bind": [HERE, "tcp://[::1]:5551", "ipc:///run/x", "tcp://localhost:1"], "security": "plain", "users": {"alice": HASH}},
        {"bind": HERE, "security": "plain"},
        {"connect": HERE, "security": "plain", "user": "alice", "password_file": "p"},
    ],
)
def test_what_makes_sense_is_taken(settings):
    endpoint(**settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"bind": HERE, "security": "gssapi"}, "'null', 'plain' or 'curve'"),
        ({"bind": HERE, "security": "curve"}, "without secret_key_file"),
        ({"bind": HERE, **CLIENT}, "without client_keys"),
        ({"connect": HERE, **SERVER}, "without server_key_file"),
        ({"bind": HERE, **SERVER, "server_key_file": "b.key"}, "has server_key_file, which says nothing"),
        ({"bind": HERE, **SERVER, "users": {"alice": HASH}}, "has users, which says nothing"),
        ({"bind": HERE, "connect": "tcp://127.0.0.1:5552", **SERVER}, "both bind and connect"),
        ({"bind": HERE, "domain": "x"}, 'has domain, which says nothing for security = "null"'),
        ({"bind": HERE, "secret_key_file": "a"}, "has secret_key_file, which says nothing"),
        ({"bind": "tcp://0.0.0.0:5551", "security": "plain", "users": {"alice": HASH}}, "use curve"),
        ({"bind": "tcp://eth0:5551", "security": "plain"}, "use curve"),
        ({"connect": "tcp://192.0.2.1:1", "security": "plain", "user": "a", "password_file": "p"}, "use curve"),
        ({"bind": HERE, "security": "plain", "users": {"alice": "secret"}}, "no argon2 hash"),
        ({"bind": HERE, "security": "plain", "users": {"a/b": HASH}}, "no name of a user"),
        ({"connect": HERE, "security": "plain", "user": "alice"}, "without password_file"),
        ({"bind": "inproc://x", **SERVER}, "ZeroMQ asks for nothing there"),
        ({"bind": HERE, **SERVER, "domain": ""}, "at least 1"),
        ({"bind": "ipc:///run/x", "ipc_mode": "0888"}, "ipc_mode"),
    ],
)
def test_what_makes_none_is_refused_in_words(settings, words):
    with pytest.raises(ValidationError, match=words):
        endpoint(**settings)


@pytest.mark.parametrize("address", ["tcp://127.1.2.3:1", "tcp://[::ffff:127.0.0.1]:1", "tcp://localhost:*", "ipc://x"])
def test_what_stays_on_this_machine(address):
    assert is_loopback(address)


@pytest.mark.parametrize(
    "address", ["tcp://*:1", "tcp://[::]:1", "tcp://10.0.0.1:1", "tcp://localhost.evil.example:1", "tcp://lo:1"]
)
def test_what_may_not_stay_on_this_machine(address):
    assert not is_loopback(address)


def test_the_host_is_asked_for_those_endpoints_alone_that_can_not_ask_their_peers():
    named = [
        {"name": "open", "socket": "PULL", "bind": HERE},
        {"name": "keys", "socket": "PULL", "bind": "tcp://0.0.0.0:5552", **SERVER},
        {"name": "passwords", "socket": "PULL", "bind": "ipc:///run/x", "security": "plain", "users": {"alice": HASH}},
        {"name": "the host's", "socket": "PULL", "bind": "ipc:///run/y", "security": "plain"},
    ]
    settings = ZeroMqSettings(endpoint=named)
    front_end = ZeroMqFrontEnd()
    assert [credentials.peer for credentials in front_end.credentials(settings)] == ["open", "the host's"]
    guarded = front_end.guarded(settings)
    assert HERE not in guarded
    assert [address for address in front_end.addresses(settings) if not is_local(address) and address not in guarded] == []
