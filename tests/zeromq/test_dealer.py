"""Are a queue's messages requests to plain workers, does the reply go where they say, and is nothing lost?"""

import msgspec
import pytest
import trio
import zmq

from gateway.api import Message, Overflow, Properties, QueueSpec, decode_properties, encode_properties
from gateway_zeromq.endpoints import dealer as dealer_endpoint
from tests.zeromq.support import ANY, FullJournal, Plain, full, serving, until

DEALER = {"name": "work", "socket": "DEALER", "bind": ANY, "queue": "work"}


def dealer(**settings):
    return {**DEALER, **settings}


async def ask(running, *bodies, reply_to="replies", correlation_id="c", headers=None, persistent=True):
    for body in bodies:
        route = running.channel.route("", "work")
        wire = encode_properties(Properties(reply_to=reply_to, correlation_id=correlation_id, headers=headers))
        await running.call(running.channel.publish(route, Message(route.address, body, persistent, "common", wire)))


async def with_replies(running, **spec):
    await running.call(running.channel.declare_queue(QueueSpec("replies", **spec)))
    return running.queue("replies")


def answers(queue):
    return [(entry.message.body, decode_properties(entry.message.wire).correlation_id) for entry in queue.ready]


def worker(context, running, kind=zmq.REP, **options):
    return Plain(context, kind, running.address("DEALER"), **options)


async def test_a_rep_worker_gets_the_request_and_its_reply_goes_where_the_request_says(context):
    async with serving(dealer()) as running:
        replies = await with_replies(running)
        plain = worker(context, running)
        await ask(running, b"2 + 2", correlation_id="sum")
        assert await plain.receive() == b"2 + 2"
        assert running.queue("work").count == 1, "it is out, and not done"
        await plain.send(b"4")
        await until(lambda: answers(replies) == [(b"4", "sum")])
        assert running.queue("work").count == 0
        assert replies.ready[0].message.persistent


@pytest.mark.parametrize(
    ("settings", "request_frames", "reply", "body"),
    [
        ({}, b"x", [b"y"], b"y"),
        ({}, b"x", [b""], b""),
        ({"frames": "key,body"}, [b"work", b"x"], [b"y"], b"y"),
        ({"frames": "key,headers,body"}, [b"work", msgspec.msgpack.encode({"n": 1}), b"x"], [b"y"], b"y"),
        ({"frames": "raw"}, b"x", [b"y", b"", b"z"], msgspec.msgpack.encode([b"y", b"", b"z"])),
    ],
)
async def test_frames_of_requests_and_replies(context, settings, request_frames, reply, body):
    async with serving(dealer(**settings)) as running:
        replies = await with_replies(running)
        plain = worker(context, running)
        await ask(running, b"x", headers={"n": 1}, correlation_id=b"\x00\xff")
        assert await plain.receive() == request_frames
        await plain.send(*reply)
        await until(lambda: answers(replies) == [(body, b"\x00\xff")])


async def test_a_request_that_asks_for_no_reply_is_done_with_it(context):
    async with serving(dealer()) as running:
        plain = worker(context, running)
        await ask(running, b"x", reply_to=None)
        await plain.receive()
        await plain.send(b"done")
        await until(lambda: running.queue("work").count == 0)
        assert running.broker.counters["zeromq.dropped.reply refused"] == 0


@pytest.mark.parametrize("queue", [None, {"max_length": 1, "overflow": Overflow.REJECT_PUBLISH}])
async def test_a_reply_that_nobody_takes_is_counted_and_the_work_is_not_done_twice(context, queue):
    async with serving(dealer()) as running:
        if queue is not None:
            await with_replies(running, **queue)
            await running.channel.send("", "replies", b"full")
        plain = worker(context, running)
        await ask(running, b"x")
        await plain.receive()
        await plain.send(b"y")
        await until(lambda: running.count("dropped.reply refused") == 1)
        assert running.queue("work").count == 0


async def test_a_reply_that_the_disk_has_no_room_for_leaves_its_request_to_be_done_again(context, monkeypatch):
    monkeypatch.setattr(dealer_endpoint, "AGAIN_MS", 50)
    journal = FullJournal()
    async with serving(dealer(), journal=journal) as running:
        replies = await with_replies(running)
        plain = worker(context, running)
        await ask(running, b"x")
        assert await plain.receive() == b"x"
        await full(running, journal)
        await plain.send(b"y")
        assert await plain.receive() == b"x", "the request came back"
        assert running.count("dropped.reply refused") == 1
        journal.reason = None
        await until(lambda: running.broker.engine.refusal is None)
        await plain.send(b"y")
        await until(lambda: answers(replies) == [(b"y", "c")])
        assert running.queue("work").count == 0


async def test_there_are_never_more_requests_out_than_the_window(context):
    async with serving(dealer(window=3)) as running:
        replies = await with_replies(running)
        stalled = worker(context, running, zmq.DEALER)
        await ask(running, *[b"%d" % n for n in range(10)])
        got = [await stalled.receive() for _ in range(3)]
        assert await stalled.receive(0.1) is None
        assert running.queue("work").ready_count == 7
        for number, empty, body in got:
            await stalled.send(number, empty, body)
        for _ in range(7):
            number, empty, body = await stalled.receive()
            await stalled.send(number, empty, body)
        await until(lambda: running.queue("work").count == 0)
        assert [int(body) for body, _ in answers(replies)] == list(range(10))


async def test_what_the_last_worker_had_goes_back_at_once_when_it_dies(context):
    async with serving(dealer(reply_timeout_ms=60_000)) as running:
        replies = await with_replies(running)
        first = worker(context, running)
        await ask(running, b"1", b"2", b"3")
        assert await first.receive() == b"1"
        first.close()
        await until(lambda: running.queue("work").ready_count == 3, 10)
        assert running.count("requeued.no worker") == 3
        second = worker(context, running)
        for n in b"123":
            assert await second.receive() == bytes([n])
            await second.send(b"done")
        await until(lambda: running.queue("work").count == 0)
        assert len(answers(replies)) == 3


async def test_what_nobody_replies_to_in_time_is_asked_again_and_a_late_reply_is_counted(context):
    async with serving(dealer(reply_timeout_ms=100)) as running:
        replies = await with_replies(running)
        plain = worker(context, running, zmq.DEALER)
        await ask(running, b"x")
        number, _, _ = await plain.receive()
        await until(lambda: running.count("timeouts"))
        await plain.send(number, b"", b"late")
        await until(lambda: running.count("dropped.late reply") == 1)
        with trio.fail_after(30):
            while not replies.count:
                again, _, body = await plain.receive()
                assert (again != number, body) == (True, b"x")
                await plain.send(again, b"", b"in time")
                await trio.sleep(0.02)
        assert answers(replies)[0][0] == b"in time"


async def test_what_comes_back_too_often_is_given_up_as_its_queue_says(context):
    async with serving(dealer(reply_timeout_ms=20, queue_arguments={"x-delivery-limit": 2})) as running:
        worker(context, running, zmq.DEALER)
        await ask(running, b"poison")
        await until(lambda: running.queue("work").count == 0)
        assert running.count("timeouts") == 3


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([b"alone"], "frames"),
        ([b"number", b"not empty", b"x"], "frames"),
        ([b"number", b""], "frames"),
        ([b"number", b"", b"x", b"y"], "too large"),
        ([b"number", b"", b"x" * 2_000], "too large"),
        ([b"number", b"", b"x"], "late reply"),
        ([b""] * 1_000, "too large"),
    ],
)
async def test_what_is_no_reply_is_dropped_counted_and_harms_nobody(context, frames, reason):
    async with serving(dealer(max_message_bytes=1_000)) as running:
        replies = await with_replies(running)
        bad = worker(context, running, zmq.DEALER)
        await bad.send(*frames)
        await until(lambda: running.count(f"dropped.{reason}") == 1)
        await ask(running, b"x")
        number, _, body = await bad.receive()
        await bad.send(number, b"", body)
        await until(lambda: len(answers(replies)) == 1)


async def test_without_a_worker_requests_stay_in_the_queue(context):
    async with serving(dealer()) as running:
        await ask(running, b"x")
        await trio.sleep(0.05)
        assert running.queue("work").ready_count == 1


async def test_an_endpoint_may_connect_to_its_worker(context):
    far = context.socket(zmq.REP)
    far.bind("tcp://127.0.0.1:0")
    async with serving(dealer(bind=[], connect=[far.get_string(zmq.LAST_ENDPOINT)])) as running:
        replies = await with_replies(running)
        await ask(running, b"x")
        assert await trio.to_thread.run_sync(far.recv) == b"x"
        far.send(b"y")
        await until(lambda: len(answers(replies)) == 1)


async def test_at_the_end_a_reply_that_comes_soon_is_taken(context, monkeypatch):
    monkeypatch.setattr("gateway_zeromq.endpoints.dealer.DRAIN_S", 30)
    async with serving(dealer()) as running:
        replies = await with_replies(running)
        plain = worker(context, running)
        await ask(running, b"1")
        await plain.receive()
        running.broker.start_draining()
        await plain.send(b"done")
        with trio.fail_after(30):
            await running.stopped.wait()
        assert [body for body, _ in answers(replies)] == [b"done"]
        assert running.queue("work").count == 0


async def test_at_the_end_what_nobody_replied_to_goes_back(context, monkeypatch):
    monkeypatch.setattr("gateway_zeromq.endpoints.dealer.DRAIN_S", 0.05)
    async with serving(dealer()) as running:
        plain = worker(context, running)
        await ask(running, b"1", b"2")
        await plain.receive()
        await running.stop()
        assert running.queue("work").ready_count == 2
