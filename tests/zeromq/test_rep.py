"""Do plain REQ clients get replies, or are told why not?"""

import pytest
import trio
import zmq

from gateway.api import Binding, Message, Overflow, Properties, QueueSpec, decode_properties, encode_properties
from tests.zeromq.support import ANY, Plain, serving, until

REP = {"name": "ask", "socket": "REP", "bind": ANY, "exchange": "", "routing_key": "work"}


def rep(**settings):
    return {**REP, **settings}


def keyed(frames, **settings):
    return {"name": "ask", "socket": "REP", "bind": ANY, "exchange": "", "frames": frames, **settings}


async def with_queue(running, name="work", **spec):
    await running.call(running.channel.declare_queue(QueueSpec(name, **spec)))
    return running.queue(name)


def client(context, running, kind=zmq.REQ, **options):
    return Plain(context, kind, running.address("REP"), **options)


async def request_in(running, queue="work"):
    """Take a request as a worker does."""
    with trio.fail_after(30):
        while (delivery := await running.call(running.channel.get(queue))) is None:  # noqa: ASYNC110
            await trio.sleep(0.002)
    running.channel.ack(delivery)
    return delivery.message


async def reply(running, request, body, content_type=None):
    asked = decode_properties(request.wire)
    route = running.channel.route("", asked.reply_to)
    wire = encode_properties(Properties(correlation_id=asked.correlation_id, content_type=content_type))
    await running.call(running.channel.publish(route, Message(route.address, body, False, "common", wire)))


async def test_a_req_client_gets_the_reply_to_its_request(context):
    async with serving(rep()) as running:
        await with_queue(running)
        plain = client(context, running)
        for n in range(3):
            await plain.send(b"question %d" % n)
            request = await request_in(running)
            assert (request.body, request.persistent) == (b"question %d" % n, False)
            assert request.expires_at_ms > running.broker.clock.now_ms()
            await reply(running, request, b"answer %d" % n)
            assert await plain.receive() == b"answer %d" % n


async def test_a_slow_reply_holds_up_nobody_else(context):
    async with serving(rep()) as running:
        await with_queue(running)
        first, second = client(context, running), client(context, running)
        await first.send(b"1")
        slow = await request_in(running)
        await second.send(b"2")
        await reply(running, await request_in(running), b"two")
        assert await second.receive() == b"two"
        await reply(running, slow, b"one")
        assert await first.receive() == b"one"


async def test_what_a_rep_endpoint_is_asked_a_worker_of_a_dealer_endpoint_answers(context):
    async with serving(rep(), {"socket": "DEALER", "bind": ANY, "queue": "work"}) as running:
        worker = Plain(context, zmq.REP, running.address("DEALER"))
        plain = client(context, running)
        await plain.send(b"x")
        assert await worker.receive() == b"x"
        await worker.send(b"y")
        assert await plain.receive() == b"y"


async def test_a_worker_that_goes_with_a_question_while_others_are_left_is_made_up_for_in_the_clients_time(context):
    async with serving(rep(), {"socket": "DEALER", "bind": ANY, "queue": "work", "reply_timeout_ms": 300}) as running:
        first = Plain(context, zmq.REP, running.address("DEALER"))
        plain = client(context, running)
        await plain.send(b"x")
        assert await first.receive() == b"x"
        second = Plain(context, zmq.REP, running.address("DEALER"))
        others, got = [], None
        while got is None:  # it is there when it is asked
            others.append(client(context, running))
            await others[-1].send(b"%d" % len(others))
            got = await second.receive(0.1)
        first.close()
        while got != b"x":
            await second.send(b"done")
            got = await second.receive()
        await second.send(b"the reply")
        assert await plain.receive() == b"the reply"


@pytest.mark.parametrize(
    ("settings", "frames", "key", "headers"),
    [
        ({}, [b"x"], "work", None),
        ({"frames": "raw", "routing_key": "work"}, [b"x"], "work", None),
        (keyed("key,body"), [b"work", b"x"], "work", None),
        (keyed("key,body", key_syntax="mqtt", exchange="amq.topic"), [b"work/1", b"x"], "work.1", None),
        (keyed("key,headers,body"), [b"work", b'{"n":1}', b"x"], "work", {"n": 1}),
    ],
)
async def test_frames_of_requests(context, settings, frames, key, headers):
    settings = settings if "socket" in settings else rep(**settings)
    async with serving(settings) as running:
        await with_queue(running)
        await running.call(running.channel.bind(Binding("amq.topic", "work", "work.#")))
        plain = client(context, running)
        await plain.send(*frames)
        request = await request_in(running)
        assert (request.routing_key, request.body, decode_properties(request.wire).headers) == (key, b"x", headers)


async def test_messages_of_many_frames_go_both_ways_through_raw(context):
    async with serving(
        rep(frames="raw", max_frames=1_000), {"socket": "DEALER", "bind": ANY, "queue": "work", "frames": "raw"}
    ) as running:
        worker = context.socket(zmq.REP)
        worker.connect(running.address("DEALER"))
        plain = client(context, running)
        sent = [b"%d" % n if n % 3 else b"" for n in range(1_000)]
        await plain.send(*sent)
        assert await trio.to_thread.run_sync(worker.recv_multipart) == sent
        worker.send_multipart([b"", b"1", b""])
        assert await plain.receive() == [b"", b"1", b""]


async def test_who_is_not_answered_in_time_is_told_so(context):
    async with serving(rep(reply_timeout_ms=50)) as running:
        await with_queue(running)
        plain = client(context, running)
        await plain.send(b"x")
        assert await plain.receive() == [b"", b"504 nobody replied within 50 ms"]
        assert running.count("timeouts") == 1
        assert await running.call(running.channel.get("work")) is None, "nobody works on it any more"


async def test_a_late_reply_is_counted_and_reaches_nobody(context):
    async with serving(rep(reply_timeout_ms=700)) as running:
        await with_queue(running)
        plain = client(context, running)
        await plain.send(b"1")
        request = await request_in(running)
        assert (await plain.receive())[0] == b""
        await plain.send(b"2")
        await reply(running, request, b"late")
        await reply(running, await request_in(running), b"two")
        assert await plain.receive() == b"two"
        await until(lambda: running.count("dropped.late reply") == 1)


async def test_without_errors_nobody_is_told(context):
    async with serving(rep(reply_timeout_ms=50, errors=False)) as running:
        plain = client(context, running)
        await plain.send(b"x")
        assert await plain.receive(0.2) is None


async def test_a_request_that_no_queue_takes_is_refused_at_once(context):
    async with serving(rep()) as running:
        plain = client(context, running)
        await plain.send(b"x")
        assert await plain.receive() == [b"", b"312 no queue takes such requests"]


async def test_a_full_queue_says_no(context):
    async with serving(rep()) as running:
        await with_queue(running, max_length=1, overflow=Overflow.REJECT_PUBLISH)
        await running.channel.send("", "work", b"full")
        plain = client(context, running)
        await plain.send(b"x")
        empty, text = await plain.receive()
        assert (empty, text[:4]) == (b"", b"506 ")


async def test_more_requests_than_may_wait_are_refused(context):
    async with serving(rep(max_waiting=2)) as running:
        await with_queue(running)
        clients = [client(context, running) for _ in range(3)]
        for n, plain in enumerate(clients):
            await plain.send(b"%d" % n)
            if n < 2:
                await until(lambda n=n: running.queue("work").count == n + 1)
        assert await clients[2].receive() == [b"", b"506 2 requests wait for replies already"]
        assert running.count("dropped.too many") == 1


@pytest.mark.parametrize(
    ("settings", "frames", "reason", "text"),
    [
        ({}, [b"a", b"b"], "frames", b"502 2 frames; the endpoint expects 1: body"),
        ({"max_message_bytes": 100}, [b"x" * 5_000], "too large", b"311 1 frames, 5000 bytes; allowed are 100 bytes"),
        ({"max_message_bytes": 100}, [b"x" * 101], "frames", b"502 101 bytes; allowed are 100"),
        (keyed("key,body"), [b"\xff", b"x"], "key", b"502 a routing key that is not UTF-8"),
        (keyed("key,headers,body"), [b"k", b"\x90", b"x"], "frames", b"502 the headers are neither"),
        ({}, [b"x"] * 1_000, "too large", b"311 1000 frames"),
    ],
)
async def test_what_is_no_request_is_refused_in_words(context, settings, frames, reason, text):
    settings = settings if "socket" in settings else rep(**settings)
    async with serving(settings) as running:
        plain = client(context, running)
        await plain.send(*frames)
        empty, said = await plain.receive()
        assert empty == b""
        assert said.startswith(text), said
        assert running.count(f"dropped.{reason}") == 1


async def test_a_dealer_client_asks_with_an_empty_frame_before_the_question(context):
    async with serving(rep()) as running:
        await with_queue(running)
        plain = client(context, running, zmq.DEALER)
        await plain.send(b"no empty frame")
        await until(lambda: running.count("dropped.frames") == 1)
        await plain.send(b"7", b"", b"a")
        await plain.send(b"8", b"", b"b")
        requests = [await request_in(running), await request_in(running)]
        for request in reversed(requests):
            await reply(running, request, request.body.upper())
        assert [await plain.receive(), await plain.receive()] == [[b"8", b"", b"B"], [b"7", b"", b"A"]]


async def test_a_reply_to_a_client_that_has_gone_is_counted(context):
    async with serving(rep()) as running:
        await with_queue(running)
        with trio.fail_after(30):
            while not running.count("dropped.client gone"):  # nobody says when the broker has noticed
                plain = client(context, running)
                await plain.send(b"x")
                request = await request_in(running)
                plain.close()
                await trio.sleep(0.02)
                await reply(running, request, b"y")


async def test_when_the_broker_stops_who_waits_is_told(context):
    async with serving(rep()) as running:
        await with_queue(running)
        plain = client(context, running)
        await plain.send(b"x")
        await until(lambda: running.queue("work").count == 1)
        await running.stop()
        assert await plain.receive() == [b"", b"320 the broker stops"]
