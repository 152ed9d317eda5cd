"""Does what plain PUSH peers send get published, and what is no message get dropped, counted and said?"""

import msgspec
import pytest
import trio
import zmq

from gateway.api import Binding, Overflow, QueueSpec, decode_properties
from gateway_zeromq.endpoints import pull
from tests.runtime.support import HandJournal
from tests.zeromq.support import ANY, Plain, serving, until


def pull_endpoint(**settings):
    return {"name": "in", "socket": "PULL", "bind": ANY, **settings}


async def with_queue(running, key="#", exchange="amq.topic", name="q"):
    await running.call(running.channel.declare_queue(QueueSpec(name)))
    await running.call(running.channel.bind(Binding(exchange, name, key)))
    return running.queue(name)


def messages(queue):
    return [entry.message for entry in queue.ready]


@pytest.mark.parametrize(
    ("settings", "sent", "expected"),
    [
        ({"frames": "body", "routing_key": "new"}, [[b"1"], [b"2"]], [("new", b"1"), ("new", b"2")]),
        ({}, [[b"1"]], [("", b"1")]),
        ({"frames": "key,body"}, [[b"a.b", b"1"], [b"a.c", b""], [b"a.b", b"2"]], [("a.b", b"1"), ("a.c", b""), ("a.b", b"2")]),
        ({"frames": "key,body", "key_syntax": "mqtt"}, [[b"plant/3/v1.2", b"1"]], [("plant.3.v1/2", b"1")]),
        ({"frames": "body", "routing_key": "a/b", "key_syntax": "mqtt"}, [[b"1"]], [("a.b", b"1")]),
        ({"frames": "key,headers,body"}, [[b"k", b"", b"1"]], [("k", b"1")]),
        ({"frames": "raw", "routing_key": "r"}, [[b"1"]], [("r", b"1")]),
        ({"frames": "body", "persistent": False}, [[b"1"]], [("", b"1")]),
        ({"frames": "key,body", "persistent": False}, [[b"k", b"1"]], [("k", b"1")]),
    ],
)
async def test_frames_are_published_under_their_key(context, settings, sent, expected):
    async with serving(pull_endpoint(**settings)) as running:
        queue = await with_queue(running)
        peer = Plain(context, zmq.PUSH, running.address("PULL"))
        for frames in sent:
            await peer.send(*frames)
        await until(lambda: queue.count == len(expected))
        assert [(message.routing_key, message.body) for message in messages(queue)] == expected
        assert all(message.persistent is settings.get("persistent", True) for message in messages(queue))
        assert running.log.of("message dropped") == []


async def test_headers_are_kept(context):
    async with serving(pull_endpoint(frames="key,headers,body")) as running:
        queue = await with_queue(running)
        peer = Plain(context, zmq.PUSH, running.address("PULL"))
        await peer.send(b"k", b'{"format":"pdf"}', b"1")
        await peer.send(b"k", msgspec.msgpack.encode({"format": "zip"}), b"2")
        await until(lambda: queue.count == 2)
        assert [decode_properties(message.wire).headers["format"] for message in messages(queue)] == ["pdf", "zip"]


@pytest.mark.parametrize(
    ("settings", "frames", "reason", "words"),
    [
        ({"frames": "body"}, [b"a", b"b"], "frames", "2 frames; the endpoint expects 1: body"),
        ({"frames": "key,body"}, [b"a"], "frames", "1 frames; the endpoint expects 2"),
        ({"frames": "key,body"}, [b"\xff", b"b"], "key", "not UTF-8"),
        ({"frames": "key,body"}, [b"k" * 65_536, b"b"], "key", "at most 65535"),
        ({"frames": "key,headers,body"}, [b"k", b"\x90", b"b"], "frames", "neither a msgpack map"),
        ({"frames": "body", "max_message_bytes": 10}, [b"x" * 11], "too large", "11 bytes"),
        ({"frames": "key,body", "max_message_bytes": 10}, [b"kkkkkk", b"bbbbbb"], "too large", "12 bytes"),
        ({"frames": "raw", "max_frames": 3}, [b"x"] * 4, "too large", "4 frames"),
        ({"frames": "body", "persistent": False}, [b"a", b"b"], "frames", "2 frames"),
    ],
)
async def test_what_is_no_message_is_dropped_counted_and_said_once(context, settings, frames, reason, words):
    async with serving(pull_endpoint(**settings)) as running:
        queue = await with_queue(running)
        bad, good = (Plain(context, zmq.PUSH, running.address("PULL")) for _ in range(2))
        for _ in range(3):
            await bad.send(*frames)
        await until(lambda: running.count(f"dropped.{reason}") == 3)
        (said,) = running.log.of("message dropped")
        assert said["endpoint"] == "in"
        assert words in said["reason"]
        await good.send(*{"body": [b"ok"], "raw": [b"ok"], "key,body": [b"k", b"ok"]}.get(settings["frames"], [b"k", b"", b"ok"]))
        await until(lambda: queue.count == 1)
        assert messages(queue)[0].body == b"ok"


async def test_many_peers_and_many_messages_lose_nothing_and_keep_each_peers_order(context):
    async with serving(pull_endpoint(frames="body")) as running:
        queue = await with_queue(running)
        peers = [Plain(context, zmq.PUSH, running.address("PULL")) for _ in range(5)]
        for n in range(300):
            for number, peer in enumerate(peers):
                await peer.send(b"%d %d" % (number, n))
        await until(lambda: queue.count == 1500)
        bodies = [message.body.split() for message in messages(queue)]
        for number in range(5):
            assert [int(n) for who, n in bodies if int(who) == number] == list(range(300))


async def test_an_endpoint_may_connect_instead_of_bind(context):
    far = context.socket(zmq.PUSH)
    far.bind("tcp://127.0.0.1:0")
    async with serving(pull_endpoint(frames="body", bind=[], connect=far.get_string(zmq.LAST_ENDPOINT))) as running:
        queue = await with_queue(running)
        far.send(b"x")
        await until(lambda: queue.count == 1)
        assert running.announced == []
        assert len(running.log.of("connecting")) == 1


async def test_the_exchange_is_made_if_it_is_missing(context):
    async with serving(pull_endpoint(frames="key,body", exchange="jobs")) as running:
        queue = await with_queue(running, "new.*", "jobs")
        spec = running.broker.engine.vhosts["/"].table.get("jobs").spec
        assert (spec.type, spec.durable) == ("topic", True)
        await Plain(context, zmq.PUSH, running.address("PULL")).send(b"new.1", b"x")
        await until(lambda: queue.count == 1)


async def test_while_too_much_is_undecided_nothing_is_received_and_nothing_is_lost(context, monkeypatch):
    monkeypatch.setattr(pull, "MAX_PENDING", 100)
    journal = HandJournal(automatic=True)
    async with serving(pull_endpoint(frames="body"), journal=journal) as running:
        queue = await with_queue(running)
        journal.automatic = False
        peer = Plain(context, zmq.PUSH, running.address("PULL"))
        for n in range(500):
            await peer.send(b"%d" % n)
        await until(lambda: queue.count >= 100)
        await trio.sleep(0.05)
        assert queue.count < 100 + 64
        journal.automatic = True
        journal.finish()
        await until(lambda: queue.count == 500)
        assert [message.body for message in messages(queue)] == [b"%d" % n for n in range(500)]


async def test_while_the_broker_holds_publishers_back_nothing_is_received(context):
    journal = HandJournal(automatic=True)
    async with serving(pull_endpoint(frames="body"), journal=journal, open_batch_bytes=65_536) as running:
        queue = await with_queue(running)
        journal.automatic = False
        peer = Plain(context, zmq.PUSH, running.address("PULL"))
        for n in range(300):
            await peer.send(b"%4d" % n + b"x" * 10_000)
        await until(lambda: running.broker.flow.holding)
        await trio.sleep(0.05)
        assert queue.count < 150
        journal.automatic = True
        journal.finish()
        await until(lambda: queue.count == 300)


async def test_a_full_queue_refuses_and_that_is_counted_and_said(context):
    async with serving(pull_endpoint(frames="body", exchange="", routing_key="full")) as running:
        await running.call(running.channel.declare_queue(QueueSpec("full", max_length=1, overflow=Overflow.REJECT_PUBLISH)))
        peer = Plain(context, zmq.PUSH, running.address("PULL"))
        for _ in range(3):
            await peer.send(b"x")
        await until(lambda: running.count("dropped.refused 506") == 2)
        assert running.queue("full").count == 1
        assert len(running.log.of("message dropped")) == 1


async def test_what_libzmq_had_taken_when_the_broker_stops_is_published(context):
    async with serving(pull_endpoint(frames="body")) as running:
        queue = await with_queue(running)
        peer = Plain(context, zmq.PUSH, running.address("PULL"))
        await peer.send(b"0")
        await until(lambda: queue.count == 1)
        running.broker.start_draining()
        for n in range(1, 50):
            peer.socket.send(b"%d" % n)
        with trio.fail_after(30):
            await running.stopped.wait()
        bodies = [int(message.body) for message in messages(queue)]
        assert bodies == list(range(len(bodies))), "no gap: what was not read in time was never taken"
