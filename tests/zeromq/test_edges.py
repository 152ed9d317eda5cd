"""Is what libzmq's descriptor says once, and to one of several tasks only, known to the one who waits for it?"""

import select

import trio
import zmq
from trio.testing import wait_all_tasks_blocked

from gateway.api import Message
from gateway_zeromq.endpoints.kinds import KINDS
from gateway_zeromq.endpoints.pub import PubSocket
from gateway_zeromq.settings import XpubEndpoint
from tests.zeromq.support import ANY, Plain, let_libzmq_work, serving, until
from trio_zmq.pump import Pump, whole_messages


def bindings(running, endpoint):
    return {binding.key for binding in running.channel.bindings(f"zeromq.xpub.{endpoint}")}


async def test_a_last_value_sent_past_who_listens_does_not_swallow_a_subscription(context, monkeypatch):
    made = []

    class Known(PubSocket):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setitem(KINDS, XpubEndpoint, lambda spot, settings, principal, _desk: Known(spot, settings, principal))
    async with serving({"name": "events", "socket": "XPUB", "bind": ANY}) as running:
        peer = Plain(context, zmq.SUB, running.address("XPUB"))
        peer.socket.setsockopt(zmq.SUBSCRIBE, b"a.")
        await until(lambda: bindings(running, "events") == {"a.*.#"})
        await wait_all_tasks_blocked(0.05)
        peer.socket.setsockopt(zmq.SUBSCRIBE, b"b.")
        peer.pump.events()  # a socket that nobody looks at subscribes to nothing
        descriptor = made[0]._pump.socket.FD
        assert select.select([descriptor], [], [], 30)[0]
        let_libzmq_work()
        route = running.channel.route("amq.topic", "c.d")  # to nobody: what a peer is sent may be news for the socket again
        assert made[0].put(Message(route.address, b"x", False), b"c.d")
        assert not select.select([descriptor], [], [], 0)[0], "the descriptor will never tell of the subscription"
        with trio.fail_after(5):
            await until(lambda: bindings(running, "events") == {"a.*.#", "b.*.#"})


async def test_a_pump_says_whether_it_took_all(context, address):
    near, far = context.socket(zmq.PULL), context.socket(zmq.PUSH)
    near.bind(address)
    far.connect(near.get_string(zmq.LAST_ENDPOINT))
    pump = Pump(near, whole_messages(near))
    far.send(b"0")
    while not (first := await pump.receive()):
        pass  # that somebody has come is news as well
    assert first == [b"0"]
    for body in (b"1", b"2", b"3"):
        far.send(body)
    assert select.select([near.FD], [], [], 30)[0]
    let_libzmq_work()
    assert await pump.receive(limit=1) == [b"1"]
    assert not pump.drained, "there is more"
    assert await pump.receive(limit=1) == [b"2"]
    assert not pump.drained
    assert await pump.receive(limit=2) == [b"3"]
    assert pump.drained
