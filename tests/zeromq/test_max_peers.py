"""Does an endpoint let in as many peers as it may have, and who is one too many as soon as there is room?"""

import pytest
import zmq
from pydantic import ValidationError

from gateway.api import AccessRefused, ConfigError, Principal
from gateway_zeromq.endpoints import guard
from gateway_zeromq.settings import ZeroMqSettings
from tests.zeromq.hashes import hash_of
from tests.zeromq.keyring import Keyring
from tests.zeromq.support import ANY, Plain, serving, until
from trio_zmq.monitor import Monitor

ENDPOINTS = {
    "PULL": (zmq.PUSH, {}),
    "PUSH": (zmq.PULL, {"queue": "jobs"}),
    "PUB": (zmq.SUB, {"keys": ["#"]}),
    "XPUB": (zmq.XSUB, {}),
    "SUB": (zmq.PUB, {"subscriptions": [""]}),
    "XSUB": (zmq.XPUB, {}),
    "REP": (zmq.REQ, {"routing_key": "asked"}),
    "DEALER": (zmq.REP, {"queue": "jobs"}),
}
CROWDED = "zeromq.refused_peers"
SOON_S = 12
"""Less than a handshake may take where there are keys or passwords: nobody gets in because another one's time is up."""


async def by_name(credentials):
    if credentials.user == "bob":
        raise AccessRefused("bob is nobody")
    return Principal(credentials.user or "anonymous")


class _Watching:
    """A context whose sockets are watched before they connect."""

    def __init__(self, peer, context):
        self.peer, self.context = peer, context

    def socket(self, kind):
        made = self.context.socket(kind)
        self.peer.monitor = Monitor(made)
        return made


class Peer(Plain):
    """A socket that knows whether it was let in."""

    def __init__(self, context, kind, address, **options):
        self.events = []
        super().__init__(_Watching(self, context), kind, address, **options)

    async def listen(self):
        async for event in self.monitor.events():
            self.events.append(event.kind)

    @property
    def is_in(self):
        return zmq.Event.HANDSHAKE_SUCCEEDED in self.events

    def close(self):
        self.monitor.close()
        super().close()


@pytest.fixture
def peer(nursery, context):
    made = []

    def make(kind, address, **options):
        made.append(Peer(context, kind, address, **options))
        nursery.start_soon(made[-1].listen)
        return made[-1]

    yield make
    for one in made:
        if not one.socket.closed:
            one.close()


async def crowded(running, make):
    """Fill an endpoint for two, and see a third in when one has gone."""
    first, second = make(), make()
    await until(lambda: first.is_in and second.is_in)
    third = make()
    await until(lambda: running.broker.counters[CROWDED] >= 2)
    assert not third.is_in
    (said,) = running.log.of("no more peers are let in")
    assert (said["endpoint"], said["max_peers"]) == ("crowded", 2)
    first.close()
    await until(lambda: third.is_in)


@pytest.mark.parametrize("kind", ENDPOINTS)
async def test_no_more_are_let_in_than_may_be_and_the_next_when_there_is_room(kind, peer):
    theirs, more = ENDPOINTS[kind]
    async with serving({"name": "crowded", "socket": kind, "bind": ANY, "max_peers": 2, **more}) as running:
        await crowded(running, lambda: peer(theirs, running.address(kind)))


async def test_with_passwords_the_same_holds_and_endpoints_of_one_domain_are_counted_apart(peer):
    common = {"socket": "PULL", "bind": ANY, "security": "plain", "domain": "all"}
    who = {"PLAIN_USERNAME": b"alice", "PLAIN_PASSWORD": b"wonderland"}
    endpoints = {"name": "crowded", **common, "max_peers": 2}, {"name": "other", **common, "max_peers": 1}
    async with serving(*endpoints, authenticate=by_name) as running:
        await crowded(running, lambda: peer(zmq.PUSH, running.address("PULL"), **who))
        other = peer(zmq.PUSH, running.address("PULL", 1), **who)
        await until(lambda: other.is_in)
        stranger = peer(zmq.PUSH, running.address("PULL", 1), PLAIN_USERNAME=b"bob", PLAIN_PASSWORD=b"x")
        other.close()
        await until(lambda: zmq.Event.HANDSHAKE_FAILED_AUTH in stranger.events)


async def get_in_when_two_leave(running, make):
    """Have two in, and eight that come at different moments; see two of the eight in soon after the two have left."""
    first, second = make(), make()
    await until(lambda: first.is_in and second.is_in)
    others = []
    for number in range(1, 9):
        others.append(make())
        await until(lambda enough=number * 2: running.broker.counters[CROWDED] >= enough)
    assert not any(one.is_in for one in others)
    first.close(), second.close()
    await until(lambda: sum(one.is_in for one in others) == 2, SOON_S)
    assert len(running.log.of("no more peers are let in")) == 1
    assert not running.count("refused_handshakes.protocol"), "that is what others do wrong"
    assert running.count("refused_handshakes.put off")
    assert [said["reason"] for said in running.log.of("handshake failed")].count("put off") == 1


CROWDED_PULL = {"name": "crowded", "socket": "PULL", "bind": ANY, "max_peers": 2}


async def test_of_many_that_wait_as_many_get_in_as_leave_and_soon(peer):
    async with serving(CROWDED_PULL) as running:
        await get_in_when_two_leave(running, lambda: peer(zmq.PUSH, running.address("PULL")))


async def test_of_many_that_wait_with_passwords_as_many_get_in_as_leave_and_soon(peer):
    who = {"PLAIN_USERNAME": b"alice", "PLAIN_PASSWORD": b"wonderland"}
    async with serving({**CROWDED_PULL, "security": "plain"}, authenticate=by_name) as running:
        await get_in_when_two_leave(running, lambda: peer(zmq.PUSH, running.address("PULL"), **who))


async def test_of_many_that_wait_with_keys_as_many_get_in_as_leave_and_soon(peer, tmp_path):
    keys = Keyring(tmp_path)
    who = keys.allow("alice")
    async with serving({**CROWDED_PULL, **keys.settings()}, authenticate=by_name) as running:
        await get_in_when_two_leave(running, lambda: peer(zmq.PUSH, running.address("PULL"), **who))


def locked(name):
    return {"name": name, "socket": "PUSH", "bind": ANY, "queue": "secret", "security": "plain"} | {
        "users": {"alice": hash_of("wonderland")}
    }


def counted(name):
    return {"name": name, "socket": "PULL", "bind": ANY, "max_peers": 5}


@pytest.mark.parametrize(
    "endpoints",
    [
        (locked("jobs 1"), counted("jobs")),
        (counted("jobs"), locked("jobs 0")),
        (counted("jobs"), {**locked("jobs 1"), "max_peers": 5}),
    ],
    ids=["the locked one first", "the counted one first", "both counted"],
)
async def test_no_name_of_an_endpoint_opens_the_door_of_another(endpoints, peer):
    async with serving(*endpoints, authenticate=by_name) as running:
        stranger, alice = (
            peer(zmq.PULL, running.address("PUSH"), PLAIN_USERNAME=b"alice", PLAIN_PASSWORD=password)
            for password in (b"wrong", b"wonderland")
        )
        anybody = peer(zmq.PUSH, running.address("PULL"))
        await until(lambda: stranger.is_in or zmq.Event.HANDSHAKE_FAILED_AUTH in stranger.events)
        assert not stranger.is_in
        await until(lambda: alice.is_in and anybody.is_in)


async def refusal(*endpoints, context=None):
    with pytest.RaisesGroup(ConfigError, flatten_subgroups=True) as caught:
        async with serving(*endpoints, context=context):
            pass
    error = caught.value
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error.text


@pytest.mark.parametrize("endpoints", [(locked("jobs 1"), counted("jobs")), (counted("jobs"), locked("jobs 0"))])
async def test_should_two_doors_have_one_domain_the_broker_does_not_start(endpoints, monkeypatch):
    monkeypatch.setattr(guard, "_APART", " ")
    assert "has the ZAP domain of another one" in await refusal(*endpoints)


async def test_where_somebody_else_answers_for_the_context_it_is_refused_in_words(context):
    with context.socket(zmq.ROUTER) as other:
        other.bind("inproc://zeromq.zap.01")
        assert "endpoints with security or max_peers need a context of their own" in await refusal(CROWDED_PULL, context=context)


async def test_over_ipc_too(peer, tmp_path):
    async with serving({"name": "crowded", "socket": "PULL", "bind": f"ipc://{tmp_path}/a/in", "max_peers": 2}) as running:
        await crowded(running, lambda: peer(zmq.PUSH, running.address("PULL")))


async def test_what_the_others_send_is_not_disturbed_by_who_is_kept_out(peer):
    endpoint = {"name": "in", "socket": "PULL", "bind": ANY, "exchange": "", "routing_key": "jobs", "max_peers": 1}
    out = {"name": "out", "socket": "PUSH", "bind": ANY, "queue": "jobs"}
    async with serving(endpoint, out) as running:
        first, worker = peer(zmq.PUSH, running.address("PULL")), peer(zmq.PULL, running.address("PUSH"))
        await until(lambda: first.is_in)
        crowd = [peer(zmq.PUSH, running.address("PULL")) for _ in range(20)]
        for number in range(50):
            await first.send(b"%d" % number)
        assert [await worker.receive() for _ in range(50)] == [b"%d" % number for number in range(50)]
        assert not any(one.is_in for one in crowd)


async def test_a_pong_endpoint_counts_its_peers_by_itself(peer):
    endpoint = {"name": "out", "socket": "PUSH", "bind": ANY, "queue": "jobs", "ack": "pong", "max_peers": 1}
    async with serving(endpoint) as running:
        first = peer(zmq.PULL, running.address("PUSH"))
        await until(lambda: first.is_in)
        second = peer(zmq.PULL, running.address("PUSH"))
        await until(lambda: zmq.Event.DISCONNECTED in second.events or zmq.Event.HANDSHAKE_FAILED_NO_DETAIL in second.events)
        assert not second.is_in
        first.close()
        await until(lambda: second.is_in)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"connect": "tcp://127.0.0.1:5557"}, "whom it connects to is its own choice"),
        ({"bind": ANY, "connect": "tcp://127.0.0.1:5557"}, "make two endpoints"),
        ({"bind": "inproc://here"}, "ZeroMQ asks for nothing there"),
    ],
)
def test_where_nobody_can_be_kept_out_it_is_refused_in_words(where, words):
    with pytest.raises(ValidationError, match=words):
        ZeroMqSettings(endpoint=[{"socket": "PULL", "max_peers": 2, **where}])
