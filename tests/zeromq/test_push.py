"""Do a queue's messages reach plain PULL peers, and stay in the queue while nobody can take them?"""

import msgspec
import pytest
import trio
import zmq

from gateway.api import Message, Properties, QueueSpec, encode_properties
from tests.ports import free_port
from tests.runtime.support import HandJournal
from tests.zeromq.support import ANY, Plain, connected, serving, until

PUSH = {"name": "out", "socket": "PUSH", "bind": ANY, "queue": "jobs"}
ROUTER = {"socket": "ROUTER", "bind": ANY}


def push(**settings):
    return {**PUSH, **settings}


async def publish(running, *bodies, key="jobs", exchange="", persistent=True):
    for body in bodies:
        await running.channel.send(exchange, key, body, persistent=persistent)


async def test_a_message_for_the_queue_reaches_a_worker_and_leaves_the_queue(context):
    async with serving(push(bindings=[{"exchange": "amq.topic", "key": "sensors.#"}])) as running:
        worker = Plain(context, zmq.PULL, running.address("PUSH"))
        await publish(running, b"21.5", exchange="amq.topic", key="sensors.3.temp")
        assert await worker.receive() == b"21.5"
        await until(lambda: running.queue("jobs").count == 0)
        assert running.queue("jobs").durable


@pytest.mark.parametrize(
    ("settings", "frames"),
    [
        ({"frames": "body"}, b"b"),
        ({"frames": "key,body"}, [b"a.b", b"b"]),
        ({"frames": "key,body", "key_syntax": "mqtt"}, [b"a/b", b"b"]),
        ({"frames": "key,headers,body"}, [b"a.b", msgspec.msgpack.encode({"n": 1}), b"b"]),
        ({"frames": "raw"}, b"b"),
    ],
)
async def test_a_worker_gets_the_frames_that_the_endpoint_says(context, settings, frames):
    binding = "a/+" if settings.get("key_syntax") else "a.*"
    async with serving(push(**settings, bindings=[{"exchange": "amq.topic", "key": binding}])) as running:
        worker = Plain(context, zmq.PULL, running.address("PUSH"))
        route = running.channel.route("amq.topic", "a.b")
        wire = encode_properties(Properties(headers={"n": 1}))
        await running.call(running.channel.publish(route, Message(route.address, b"b", True, "common", wire)))
        assert await worker.receive() == frames


async def test_frames_go_through_raw_endpoints_as_they_came(context):
    pull = {"socket": "PULL", "bind": ANY, "frames": "raw", "exchange": "", "routing_key": "jobs"}
    async with serving(pull, push(frames="raw")) as running:
        worker = Plain(context, zmq.PULL, running.address("PUSH"))
        producer = Plain(context, zmq.PUSH, running.address("PULL"))
        sent = [[b"1", b"", b"3"], [b"one"], [b"x" * 70_000, b"y"]]
        for frames in sent:
            await producer.send(*frames)
        for frames in sent:
            assert await worker.receive() == (frames if len(frames) > 1 else frames[0])


async def test_without_a_worker_messages_stay_in_the_queue_for_others_too(context):
    async with serving(push(), ROUTER) as running:
        await publish(running, b"1", b"2", b"3")
        queue = running.queue("jobs")
        assert queue.ready_count == 3
        other = await connected(context, running)
        (got, body) = await other.ask(12, 1, "jobs", True)
        assert (body, got[3]) == (b"1", False)
        worker = Plain(context, zmq.PULL, running.address("PUSH"))
        assert [await worker.receive(), await worker.receive()] == [b"2", b"3"]
        await until(lambda: queue.count == 0)


async def test_a_long_backlog_comes_in_order(context):
    async with serving(push(prefetch=10)) as running:
        route = running.channel.route("", "jobs")
        for n in range(2999):
            running.channel.post(route, Message(route.address, b"%d" % n, True))
        await publish(running, b"2999")
        worker = Plain(context, zmq.PULL, running.address("PUSH"))
        assert [int(await worker.receive()) for _ in range(3000)] == list(range(3000))
        await until(lambda: running.queue("jobs").count == 0)


async def all_served(running, workers):
    """Wait until every worker has a connection: libzmq does not say when, so probes are sent until each has got one."""
    served = set()
    with trio.fail_after(60):
        while len(served) < len(workers):
            await publish(running, b"probe")
            for worker in workers:
                if await worker.receive(0.02) is not None:
                    served.add(worker)
        await until(lambda: running.queue("jobs").count == 0)


async def next_job(worker):
    while (body := await worker.receive()) == b"probe":
        pass
    return body


async def test_workers_take_turns(context):
    async with serving(push()) as running:
        workers = [Plain(context, zmq.PULL, running.address("PUSH")) for _ in range(2)]
        await all_served(running, workers)
        await publish(running, *[b"%d" % n for n in range(20)])
        got = [[await next_job(worker) for _ in range(10)] for worker in workers]
        assert sorted(int(body) for bodies in got for body in bodies) == list(range(20))


async def test_what_a_stalled_worker_can_not_take_stays_unsettled_in_the_queue(context):
    async with serving(push(sndhwm=5, prefetch=16)) as running:
        stalled = Plain(context, zmq.PULL, running.address("PUSH"), RCVHWM=5, RCVBUF=4096)
        await trio.sleep(0.02)
        body = b"x" * 20_000
        route = running.channel.route("", "jobs")
        for n in range(1000):
            running.channel.post(route, Message(route.address, b"%4d" % n + body, True))
        queue = running.queue("jobs")
        await until(lambda: 0 < queue.count < 1000)
        seen = [queue.count]
        while len(seen) < 6 or len(set(seen[-6:])) > 1:  # it has come to rest
            await trio.sleep(0.05)
            seen.append(queue.count)
        left = seen[-1]
        assert left > 400, "it holds what libzmq and the kernels hold, and the rest is here"
        assert queue.ready_count >= left - 16
        stalled.close()
        worker = Plain(context, zmq.PULL, running.address("PUSH"))
        rest = [int((await worker.receive())[:4]) for _ in range(left)]
        assert rest == list(range(1000 - left, 1000))
        await until(lambda: queue.count == 0)


async def test_a_hand_over_confirms_nothing_before_the_disk_has_it_and_spares_it_nothing(context):
    journal = HandJournal(automatic=True)
    async with serving(push(), journal=journal) as running:
        worker = Plain(context, zmq.PULL, running.address("PUSH"))
        await publish(running, b"first")
        assert await worker.receive() == b"first"
        await trio.sleep(0.05)
        journal.automatic = False
        route = running.channel.route("", "jobs")
        number = running.channel.publish(route, Message(route.address, b"second", True))
        assert await worker.receive() == b"second"
        with trio.move_on_after(0.05) as waited:
            await running.channel.outcome(number)
        assert waited.cancelled_caught, "libzmq has it, and that is no reason to confirm"
        await until(lambda: journal.writes)
        assert b"second" not in journal.stored
        journal.automatic = True
        journal.finish()
        with trio.fail_after(30):
            await running.channel.outcome(number)
        assert b"second" in journal.stored


async def test_when_its_queue_is_deleted_it_waits_for_a_new_one(context, monkeypatch):
    monkeypatch.setattr("gateway_zeromq.endpoints.feed.RETRY_S", 0.01)
    async with serving(push()) as running:
        worker = Plain(context, zmq.PULL, running.address("PUSH"))
        await publish(running, b"1")
        assert await worker.receive() == b"1"
        await running.call(running.channel.delete_queue("jobs"))
        await running.call(running.channel.declare_queue(QueueSpec("jobs")))
        await publish(running, b"2")
        assert await worker.receive() == b"2"
        assert len(running.log.of("consumer ended")) == 1


async def test_an_endpoint_may_connect_and_holds_back_until_somebody_is_there(context):
    far = context.socket(zmq.PULL)
    address = f"tcp://127.0.0.1:{free_port()}"
    async with serving(push(bind=[], connect=[address])) as running:
        await publish(running, b"1", persistent=False)
        await trio.sleep(0.05)
        assert running.queue("jobs").ready_count == 1, "libzmq takes nothing for a peer that is not there"
        far.bind(address)
        await until(lambda: running.queue("jobs").count == 0)
        assert far.recv() == b"1"


async def test_pull_to_push_through_one_queue(context):
    pull = {"socket": "PULL", "bind": ANY, "exchange": "jobs", "routing_key": "new", "frames": "body"}
    async with serving(
        pull, push(bindings=[{"exchange": "jobs", "key": "new"}], queue_arguments={"x-max-length": 100_000})
    ) as running:
        producer = Plain(context, zmq.PUSH, running.address("PULL"))
        worker = Plain(context, zmq.PULL, running.address("PUSH"))
        got = []

        async def take():
            while len(got) < 2000:
                got.append(int(await worker.receive()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            for n in range(2000):
                await producer.send(b"%d" % n)
        assert got == list(range(2000))
        assert running.queue("jobs").spec.max_length == 100_000


async def test_at_the_end_what_was_not_handed_over_is_back_in_the_queue(context):
    async with serving(push()) as running:
        await publish(running, b"1", b"2")
        await running.stop()
        queue = running.queue("jobs")
        assert (queue.ready_count, queue.consumers) == (2, [])
