"""Does an endpoint let in as many peers as it may have, and who is one too many as soon as there is room?"""

import pytest
import zmq
from pydantic import ValidationError

from gateway.api import AccessRefused, Principal
from gateway_zeromq.endpoints import guard, spot
from gateway_zeromq.settings import ZeroMqSettings
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


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Who is refused comes again soon."""
    monkeypatch.setattr(spot, "HANDSHAKE_MS", 300)
    monkeypatch.setattr(guard, "QUICK_HANDSHAKE_MS", 300)


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
        made.append(Peer(context, kind, address, RECONNECT_IVL=20, **options))
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
