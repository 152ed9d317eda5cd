"""Does every endpoint that consumes a queue deal in one way with what needs no settlement, and with a queue that goes?"""

import pytest
import trio
import zmq

from gateway.api import Message, QueueSpec
from tests.zeromq.support import ANY, Plain, serving, until

KINDS = {
    "handover": ({"socket": "PUSH"}, zmq.PULL),
    "pong": ({"socket": "PUSH", "ack": "pong"}, zmq.PULL),
    "dealer": ({"socket": "DEALER"}, zmq.DEALER),
    "xpub": ({"socket": "XPUB"}, zmq.SUB),
}
OF_EACH_KIND = pytest.mark.parametrize(("settings", "kind"), KINDS.values(), ids=KINDS)


def endpoint(settings):
    return {"name": "out", "bind": ANY, "queue": "jobs", **settings}


def peer_of(context, running, settings, kind):
    peer = Plain(context, kind, running.address(settings["socket"]))
    if kind == zmq.SUB:
        peer.socket.setsockopt(zmq.SUBSCRIBE, b"")
    return peer


def sink(running):
    (consumer,) = running.queue("jobs").consumers
    return consumer.sink


def loose(running, body):
    return Message(running.channel.route("", "jobs").address, body)


@OF_EACH_KIND
async def test_what_needs_no_settlement_is_sent_while_there_is_room_and_else_dropped_and_counted(context, settings, kind):
    async with serving(endpoint(settings)) as running:
        for _ in range(100):
            sink(running).deliver_transient(loose(running, b"nobody is there"), None)
        assert running.count("dropped.no room") == 100
        peer = peer_of(context, running, settings, kind)
        await until(lambda: sink(running).has_room)
        sink(running).deliver_transient(loose(running, b"x"), None)
        assert b"x" in await peer.receive()
        assert running.count("dropped.no room") == 100


@OF_EACH_KIND
async def test_a_queue_that_is_deleted_again_and_again_is_asked_for_until_it_stays(context, monkeypatch, settings, kind):
    monkeypatch.setattr("gateway_zeromq.endpoints.feed.RETRY_S", 0.01)
    async with serving(endpoint(settings)) as running:
        peer = peer_of(context, running, settings, kind)
        await until(lambda: sink(running).has_room)
        for body in (b"1", b"2", b"3"):
            route = running.channel.route("", "jobs")
            running.channel.publish(route, Message(route.address, body))
            assert body in await peer.receive()
            await running.call(running.channel.delete_queue("jobs"))
            await trio.sleep(0.02)
            await running.call(running.channel.declare_queue(QueueSpec("jobs")))
            await until(lambda: running.queue("jobs").consumers)
        assert len(running.log.of("consumer ended")) == 1, "it is said once"
