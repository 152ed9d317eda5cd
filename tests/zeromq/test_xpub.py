"""Do subscribers get what they ask for, last values first, and is everything counted that can be seen to be dropped?"""

import msgspec
import pytest
import trio
import zmq

from gateway.api import Message, Principal, Properties, QueueSpec, encode_properties
from tests.runtime.support import HandJournal
from tests.zeromq.support import ANY, Plain, serving, until

XPUB = {"name": "events", "socket": "XPUB", "bind": ANY}
OWN = "zeromq.xpub.events"


def xpub(**settings):
    return {**XPUB, **settings}


class Subscriber(Plain):
    def __init__(self, context, address, *prefixes, kind=zmq.SUB, **options):
        super().__init__(context, kind, address, **options)
        for prefix in prefixes:
            self.socket.setsockopt(zmq.SUBSCRIBE, prefix)


async def publish(running, key, body, *, headers=None, retain=False, exchange="amq.topic", persistent=True):
    route = running.channel.route(exchange, key)
    wire = encode_properties(Properties(headers=headers)) if headers else b""
    message = Message(route.address, body, persistent, "common" if wire else "", wire)
    if retain:
        running.channel.retain(route, message)
    await running.call(running.channel.publish(route, message))


def patterns(running, queue=OWN):
    return sorted(binding.key for binding in running.channel.bindings(queue))


async def subscribed(running, *expected):
    await until(lambda: patterns(running) == sorted(expected))


async def served(running, peer, key):
    """Wait until a subscriber has a connection: a second one of the same subscription changes nothing that could be seen."""
    with trio.fail_after(30):
        while await peer.receive(0.02) is None:
            await publish(running, key, b"probe")


async def test_a_subscription_takes_from_the_exchange_what_it_may_want_and_sends_what_it_wants(context):
    async with serving(xpub()) as running:
        peer = Subscriber(context, running.address("XPUB"), b"plant.3.te")
        await subscribed(running, "plant.3.*.#")
        await publish(running, "plant.4.temp", b"0")
        await publish(running, "plant.3.hum", b"1")
        await publish(running, "plant.3.temp", b"2")
        await publish(running, "plant.3.temp.max", b"3")
        await publish(running, "plant.3.te", b"4", persistent=False)
        assert [await peer.receive() for _ in range(3)] == [
            [b"plant.3.temp", b"2"],
            [b"plant.3.temp.max", b"3"],
            [b"plant.3.te", b"4"],
        ]
        assert running.queue(OWN).count == 0


async def test_what_is_not_subscribed_to_any_more_is_not_taken(context):
    async with serving(xpub()) as running:
        first = Subscriber(context, running.address("XPUB"), b"a.", b"b.")
        second = Subscriber(context, running.address("XPUB"), b"a.")
        await subscribed(running, "a.*.#", "b.*.#")
        await served(running, second, "a.x")
        first.socket.setsockopt(zmq.UNSUBSCRIBE, b"b.")
        await subscribed(running, "a.*.#")
        first.close()
        for n in range(20):
            await publish(running, "a.x", b"%d" % n)
            while await second.receive() != [b"a.x", b"%d" % n]:
                pass  # a probe
        assert patterns(running) == ["a.*.#"]
        second.close()
        await subscribed(running)


@pytest.mark.parametrize(
    ("settings", "prefix", "frames"),
    [
        ({"frames": "key,body"}, b"a.b", [b"a.b", b"x"]),
        ({"frames": "key,body", "key_syntax": "mqtt"}, b"a/b", [b"a/b", b"x"]),
        ({"frames": "key,headers,body"}, b"a", [b"a.b", msgspec.msgpack.encode({"n": 1}), b"x"]),
        ({"frames": "body"}, b"x", b"x"),
        ({"frames": "raw", "keys": ["a.*"]}, b"", b"x"),
        ({"frames": "key,body", "keys": ["a/+"], "key_syntax": "mqtt"}, b"a", [b"a/b", b"x"]),
    ],
)
@pytest.mark.parametrize("kind", ["XPUB", "PUB"])
async def test_a_subscriber_gets_the_frames_that_the_endpoint_says(context, kind, settings, prefix, frames):
    async with serving(xpub(socket=kind, **settings)) as running:
        peer = Subscriber(context, running.address(kind), prefix)
        got = None
        with trio.fail_after(30):
            while got is None:  # a PUB does not say when somebody is there
                await publish(running, "c.d", b"y")
                await publish(running, "a.b", b"x", headers={"n": 1})
                got = await peer.receive(0.05)
        while got in (b"y", [b"c.d", b"y"]):
            got = await peer.receive()
        assert got == frames


async def test_a_new_subscriber_gets_the_last_values(context):
    async with serving(xpub()) as running:
        for key in ("plant.1.temp", "plant.2.temp", "plantation", "other"):
            await publish(running, key, key.encode(), retain=True)
        await publish(running, "plant.1.temp", b"newer", retain=True)
        peer = Subscriber(context, running.address("XPUB"), b"plant.")
        got = dict([await peer.receive(), await peer.receive()])
        assert got == {b"plant.1.temp": b"newer", b"plant.2.temp": b"plant.2.temp"}
        exact = Subscriber(context, running.address("XPUB"), b"other")
        assert await exact.receive() == [b"other", b"other"]
        assert await peer.receive(0.1) is None, "it did not ask for that"


async def test_last_values_in_the_other_spelling(context):
    async with serving(xpub(key_syntax="mqtt")) as running:
        await publish(running, "plant.1.v1/2", b"x", retain=True)
        await publish(running, "plant.10", b"y", retain=True)
        peer = Subscriber(context, running.address("XPUB"), b"plant/1/")
        assert await peer.receive() == [b"plant/1/v1.2", b"x"]
        assert await peer.receive(0.1) is None


async def test_who_was_there_before_gets_a_last_value_once_more(context):
    async with serving(xpub()) as running:
        await publish(running, "a", b"x", retain=True)
        first = Subscriber(context, running.address("XPUB"), b"a")
        assert await first.receive() == [b"a", b"x"]
        second = Subscriber(context, running.address("XPUB"), b"a")
        assert await second.receive() == [b"a", b"x"]
        assert await first.receive() == [b"a", b"x"], "libzmq can't send it to one alone"


async def test_without_last_values_there_are_none(context):
    async with serving(xpub(last_values=False)) as running:
        await publish(running, "a", b"old", retain=True)
        peer = Subscriber(context, running.address("XPUB"), b"a")
        await subscribed(running, "*.#")
        await publish(running, "a", b"new")
        assert await peer.receive() == [b"a", b"new"]


async def test_a_subscription_brings_so_many_last_values_and_no_more(context):
    async with serving(xpub(max_last_values=100)) as running:
        for n in range(150):
            await publish(running, f"k.{n}", b"x", retain=True)
        peer = Subscriber(context, running.address("XPUB"), b"k.")
        keys = {(await peer.receive())[0] for _ in range(100)}
        assert len(keys) == 100
        await until(lambda: running.count("dropped.last values") == 1)
        assert await peer.receive(0.1) is None
        assert len(running.log.of("last values withheld")) == 1


async def test_many_last_values_reach_a_subscriber_that_has_less_room_than_there_are(context):
    async with serving(xpub(sndhwm=10)) as running:
        for n in range(500):
            await publish(running, f"k.{n}", b"x" * 5_000, retain=True)
        peer = Subscriber(context, running.address("XPUB"), b"k.", RCVHWM=10)
        assert len({(await peer.receive())[0] for _ in range(500)}) == 500
        assert running.count("dropped.slow subscriber") == 0


async def test_a_live_value_is_not_followed_by_an_older_last_value(context):
    async with serving(xpub()) as running:
        for n in range(200):
            await publish(running, f"k.{n}", b"old", retain=True)
        peer = Subscriber(context, running.address("XPUB"), b"k.")
        await until(lambda: patterns(running))
        for n in range(200):
            await publish(running, f"k.{n}", b"new", retain=True)
        seen = {}
        with trio.fail_after(30):
            while len(seen) < 200 or any(body != b"new" for body in seen.values()):
                key, body = await peer.receive()
                assert not (seen.get(key) == b"new" and body == b"old")
                seen[key] = body


class Stalled(Subscriber):
    """It reads nothing: what libzmq and the kernels hold for it is all that it takes."""

    def __init__(self, context, address):
        super().__init__(context, address, b"", RCVHWM=5, RCVBUF=4096)


BODY = b"x" * 20_000


async def test_a_slow_subscriber_misses_messages_and_others_do_not(context):
    async with serving(xpub(sndhwm=50)) as running:
        Stalled(context, running.address("XPUB"))
        peer = Subscriber(context, running.address("XPUB"), b"")
        await subscribed(running, "#")
        await publish(running, "probe", b"")
        assert await peer.receive() == [b"probe", b""]
        for n in range(600):
            await publish(running, "k", b"%d " % n + BODY)
            assert (await peer.receive())[1].startswith(b"%d " % n)
        assert running.count("dropped.slow subscriber") > 0
        assert len(running.log.of("message dropped")) == 1


async def test_who_holds_for_slow_subscribers_drops_nothing_until_its_queue_is_full(context):
    async with serving(xpub(sndhwm=5, slow_subscriber="hold", max_waiting=100, prefetch=10)) as running:
        slow = Stalled(context, running.address("XPUB"))
        await subscribed(running, "#")
        sent = 0
        while running.queue(OWN).count < 50:
            await publish(running, "k", b"%d " % sent + BODY)
            sent += 1
        assert running.broker.counters["dropped.maxlen"] == 0
        got = []
        with trio.fail_after(60):
            while len(got) < sent:
                got.append(int((await slow.receive())[1].split()[0]))
        assert got == list(range(sent)), "in order, and all of them"
        assert running.count("dropped.slow subscriber") == 0


async def test_what_its_queue_has_no_room_for_is_counted(context):
    async with serving(xpub(sndhwm=5, slow_subscriber="hold", max_waiting=20, prefetch=10)) as running:
        slow = Stalled(context, running.address("XPUB"))
        await subscribed(running, "#")
        for n in range(1_000):
            await publish(running, "k", b"%d " % n + BODY)
        dropped = sum(amount for name, amount in running.broker.counters.items() if name.startswith("dropped."))
        assert dropped > 100
        got = []
        with trio.fail_after(60):
            while not got or got[-1] < 999:
                got.append(int((await slow.receive())[1].split()[0]))
        assert len(got) == 1_000 - dropped, "what is not counted has come"


QUEUED = {"queue": "jobs", "bindings": [{"exchange": "amq.topic", "key": "#"}]}


@pytest.mark.parametrize("kind", ["XPUB", "PUB"])
async def test_a_queues_messages_wait_there_until_somebody_subscribes(context, kind):
    async with serving(xpub(socket=kind, **QUEUED)) as running:
        await publish(running, "a", b"1")
        await publish(running, "a", b"2")
        assert running.queue("jobs").ready_count == 2
        peer = Subscriber(context, running.address(kind), b"a")
        assert [await peer.receive(), await peer.receive()] == [[b"a", b"1"], [b"a", b"2"]]
        await publish(running, "b", b"3")
        await until(lambda: running.count("dropped.no subscriber") == 1)
        await until(lambda: running.queue("jobs").count == 0)
        peer.close()
        await until(lambda: running.queue("jobs").consumers[0].paused)
        await publish(running, "a", b"4")
        assert running.queue("jobs").ready_count == 1, "nobody is there any more"
        again = Subscriber(context, running.address(kind), b"a")
        assert await again.receive() == [b"a", b"4"]


async def test_an_xsub_peer_that_says_something_else_is_counted_and_harms_nobody(context):
    async with serving(xpub()) as running:
        stranger = Plain(context, zmq.XSUB, running.address("XPUB"))
        await stranger.send(b"\x05hello")
        await stranger.send(b"\x01a.", b"b")
        await stranger.send(b"")
        await until(lambda: running.count("dropped.not a subscription") >= 2)
        peer = Subscriber(context, running.address("XPUB"), b"d.")
        other = Subscriber(context, running.address("XPUB"), b"e.")
        await until(lambda: {"d.*.#", "e.*.#"} <= set(patterns(running)))
        await publish(running, "d.1", b"1")
        await publish(running, "e.1", b"2")
        assert await peer.receive() == [b"d.1", b"1"]
        assert await other.receive() == [b"e.1", b"2"]


async def test_too_many_subscriptions_take_everything_and_get_what_they_asked_for(context):
    async with serving(xpub(max_subscriptions=10)) as running:
        peer = Subscriber(context, running.address("XPUB"), *[b"k.%d." % n for n in range(50)])
        await subscribed(running, "#")
        await publish(running, "l.1.x", b"no")
        await publish(running, "k.49.x", b"yes")
        assert await peer.receive() == [b"k.49.x", b"yes"]
        assert len(running.log.of("too many subscriptions: everything is taken, and filtered")) == 1


async def test_when_its_queue_is_deleted_it_makes_another(context, monkeypatch):
    monkeypatch.setattr("gateway_zeromq.endpoints.feed.RETRY_S", 0.01)
    async with serving(xpub()) as running:
        peer = Subscriber(context, running.address("XPUB"), b"a.")
        await subscribed(running, "a.*.#")
        first = running.queue(OWN)
        running.broker.engine.definitions.delete_queue("/", OWN, first.owner)
        await until(lambda: OWN in running.broker.engine.vhosts["/"].queues and running.queue(OWN) is not first)
        await until(lambda: running.queue(OWN).consumers)
        await publish(running, "a.b", b"x")
        assert await peer.receive() == [b"a.b", b"x"]


async def test_when_its_queue_is_deleted_it_waits_for_the_answer_that_belongs_to_the_new_one(context, monkeypatch):
    monkeypatch.setattr("gateway_zeromq.endpoints.feed.RETRY_S", 0.05)
    journal = HandJournal(automatic=True)
    async with serving(xpub(), journal=journal) as running:
        peer = Subscriber(context, running.address("XPUB"), b"a.")
        await subscribed(running, "a.*.#")  # its answer comes late, and must not be taken for another's
        first = running.queue(OWN)
        journal.automatic = False
        running.channel.declare_queue(QueueSpec("other"))
        await until(lambda: journal.writes)
        running.broker.engine.definitions.delete_queue("/", OWN, first.owner)
        await until(lambda: OWN in running.broker.engine.vhosts["/"].queues and running.queue(OWN).consumers)
        journal.automatic = True
        journal.finish()
        await publish(running, "a.b", b"x")
        assert await peer.receive() == [b"a.b", b"x"]


@pytest.mark.parametrize("kind", ["SUB", "XSUB"])
async def test_what_others_publish_is_published(context, kind):
    far = context.socket(zmq.XPUB)
    far.bind("tcp://127.0.0.1:0")
    sub = {
        "name": "in",
        "socket": kind,
        "connect": far.get_string(zmq.LAST_ENDPOINT),
        "subscriptions": ["plant/"],
        "key_syntax": "mqtt",
    }
    async with serving(sub, xpub()) as running:
        peer = Subscriber(context, running.address("XPUB"), b"plant.")
        await until(lambda: patterns(running))
        assert await trio.to_thread.run_sync(far.recv) == b"\x01plant/"
        far.send_multipart([b"other/1", b"no"])
        far.send_multipart([b"plant/1", b"yes"])
        assert await peer.receive() == [b"plant.1", b"yes"]


@pytest.mark.parametrize("kind", ["SUB", "XSUB"])
async def test_publishers_may_connect(context, kind):
    async with serving({"socket": kind, "bind": ANY, "frames": "body", "exchange": "", "routing_key": OWN}, xpub()) as running:
        publisher = Plain(context, zmq.XPUB, running.address(kind))
        assert await publisher.receive() == b"\x01"
        peer = Subscriber(context, running.address("XPUB"), b"")
        await until(lambda: patterns(running))
        await publisher.send(b"hello")
        assert await peer.receive() == [OWN.encode(), b"hello"]
        await publisher.send(b"a", b"b")
        await until(lambda: running.count("dropped.frames") == 1)


async def test_a_message_of_1000_frames_goes_through_raw_endpoints(context):
    raw = {"frames": "raw", "max_frames": 1_000}
    async with serving({"socket": "SUB", "bind": ANY, **raw}, xpub(frames="raw")) as running:
        publisher = Plain(context, zmq.XPUB, running.address("SUB"))
        assert await publisher.receive() == b"\x01"
        peer = context.socket(zmq.SUB)
        peer.subscribe(b"0")
        peer.connect(running.address("XPUB"))
        sent = [b"%d" % n if n % 3 else b"" for n in range(1_000)]
        sent[0] = b"0"
        with trio.fail_after(30):
            while not peer.poll(20):
                await publisher.send(*sent)
                await trio.lowlevel.checkpoint()
        assert peer.recv_multipart() == sent
        await publisher.send(*sent, b"one too many")
        await until(lambda: running.count("dropped.too large") == 1)


@pytest.mark.parametrize("bind", ["tcp://127.0.0.1:*", "tcp://[::1]:0", "ipc"])
async def test_wildcard_ports_ipv6_and_ipc(context, bind, tmp_path):
    bind = f"ipc://{tmp_path}/events" if bind == "ipc" else bind
    async with serving(xpub(bind=[bind])) as running:
        options = {"IPV6": 1} if "::1" in bind else {}
        peer = context.socket(zmq.SUB)
        for option, value in options.items():
            peer.setsockopt(getattr(zmq, option), value)
        peer.subscribe(b"")
        peer.connect(running.address("XPUB"))
        await subscribed(running, "#")
        await publish(running, "a", b"x")
        assert await trio.to_thread.run_sync(peer.recv_multipart) == [b"a", b"x"]


async def test_an_endpoint_may_connect_to_its_subscribers(context):
    far = context.socket(zmq.SUB)
    far.bind("tcp://127.0.0.1:0")
    far.subscribe(b"a")
    async with serving(xpub(bind=[], connect=[far.get_string(zmq.LAST_ENDPOINT)])) as running:
        await until(lambda: far.poll(0) or patterns(running) == ["*.#"])  # a socket that nobody looks at subscribes to nothing
        await publish(running, "a", b"x")
        assert await trio.to_thread.run_sync(far.recv_multipart) == [b"a", b"x"]


async def test_a_queue_of_its_name_that_is_somebodys_is_a_start_error(context):
    with pytest.raises(BaseExceptionGroup) as raised:
        async with serving({"socket": "PUSH", "bind": ANY, "queue": OWN}, xpub()):
            pass
    assert OWN in repr(raised.value.exceptions)


async def test_a_program_that_has_the_broker_inside_uses_inproc(context):
    endpoints = [{"socket": "PULL", "bind": "inproc://in", "frames": "key,body"}, xpub(bind=["inproc://events", ANY])]
    async with serving(*endpoints, context=context.context) as running:
        peer = Subscriber(context, "inproc://events", b"a")
        far = Subscriber(context, running.address("XPUB", 1), b"a")
        await subscribed(running, "*.#")
        producer = Plain(context, zmq.PUSH, "inproc://in")
        with trio.fail_after(30):
            while await far.receive(0.05) is None:
                await producer.send(b"a", b"x")
        assert await peer.receive() == [b"a", b"x"]
        await running.stop()
    assert not context.context.closed, "the context is the program's"


async def test_who_may_not_read_an_exchange_gets_neither_live_messages_nor_last_values(context):
    async def let_in_some(_credentials):
        return Principal("some", authorize=lambda action, resource, _key: (action, resource) != ("read", "amq.topic"))

    async with serving(xpub(), authenticate=let_in_some) as running:
        await publish(running, "a", b"secret", retain=True)
        peer = Subscriber(context, running.address("XPUB"), b"a")
        await until(lambda: running.count("refused.403") == 1)
        await publish(running, "a", b"secret, too")
        assert await peer.receive(0.2) is None
        assert len(running.log.of("queue can't be used")) == 1
