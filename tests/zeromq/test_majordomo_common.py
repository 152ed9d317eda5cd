"""Is a Majordomo service a queue like any other, for those who speak something else?"""

import msgspec
import pytest
import trio
import zmq

from gateway.api import Binding, Message, Properties, QueueSpec, encode_properties, parse_reply_address
from gateway_zeromq.endpoints import frames as layouts
from gateway_zeromq.mdp import bridge, translate
from gateway_zeromq.mdp.translate import Origin
from tests.runtime.support import HandJournal
from tests.zeromq.majordomo import Asker, Worker, majordomo, serving_mdp
from tests.zeromq.support import Client, FullJournal, connected, full, serving, until

TOPIC = "amq.topic"


async def queue_of(running, service):
    name = f"mdp.{service}"
    await until(lambda: name in running.broker.engine.vhosts["/"].queues)
    return running.queue(name)


async def tgp_worker(context, running, queue):
    """Return a client that consumes a queue in which a message is ready, and that message."""
    client = await connected(context, running)
    delivered = await client.ask(6, 1, queue, "c", 10)
    assert (await client.hear())[0] == 20
    return client, *delivered


# -- others answer Majordomo's clients


@pytest.mark.parametrize("version", [1, 2])
async def test_a_tgp_consumer_answers_a_majordomo_client(context, version):
    async with serving_mdp() as running:
        client = Asker(context, running.address("ROUTER"), version)
        await client.ask(b"echo", b"question")
        await queue_of(running, "echo")
        worker, delivered, body = await tgp_worker(context, running, "mdp.echo")
        props = delivered[-1]
        assert body == b"question"
        reply = {"correlation_id": props["correlation_id"]}
        assert await worker.ask(3, 1, "", props["reply_to"], reply, body=b"answer") == [4, 1, True, 0]
        await worker.say(9, "c", delivered[2])
        assert await client.answer() == [*([b"\3"] if version == 2 else []), b"echo", b"answer"]


async def test_what_a_tgp_consumer_calls_partial_is_so_for_a_client_of_02(context):
    async with serving_mdp() as running:
        client = Asker(context, running.address("ROUTER"), 2)
        await client.ask(b"echo", b"question")
        await queue_of(running, "echo")
        worker, delivered, _ = await tgp_worker(context, running, "mdp.echo")
        key = delivered[-1]["reply_to"]
        await worker.ask(3, 1, "", key, {"type": "partial"}, body=b"1")
        frames = msgspec.msgpack.encode([b"2", b"3"])
        await worker.ask(3, 2, "", key, {"content_type": translate.MULTIPART}, body=frames)
        assert [await client.answer(), await client.answer()] == [[b"\2", b"echo", b"1"], [b"\3", b"echo", b"2", b"3"]]


async def test_whoever_subscribes_to_topics_can_be_a_service(context):
    """As an MQTT 5 client with a response topic would."""
    services = {"temp": {"exchange": TOPIC, "routing_key": "plant.3.get"}}
    async with serving_mdp(mdp_services=services) as running:
        channel, client = running.channel, Asker(context, running.address("ROUTER"))
        assert await client.call(b"mmi.service", b"temp") == [b"mmi.service", b"404"]
        name = (await running.call(channel.declare_queue(QueueSpec("", exclusive=True, durable=False)))).name
        await running.call(channel.bind(Binding(TOPIC, name, "plant.*.get")))
        assert await client.call(b"mmi.service", b"temp") == [b"mmi.service", b"200"]
        await client.ask(b"temp", b"now")
        await until(lambda: running.queue(name).count == 1)
        delivery = await running.call(channel.get(name))
        asked = running.broker.decoders.properties(delivery.message)
        exchange, key = parse_reply_address(asked.reply_to)
        assert (exchange, delivery.message.body) == (TOPIC, b"now")
        await channel.send(exchange, key, b"21.5")
        assert await client.answer() == [b"temp", b"21.5"]


WRONG_KEYS = ["mdp.reply.%s", "mdp.reply.%s.x", "mdp.reply.%s.x.x.1.x", "mdp.reply.%s.x.!.3.x", "mdp.reply.%s.x.AAAA.1._w"]


@pytest.mark.parametrize("key", WRONG_KEYS)
async def test_a_reply_to_nobody_is_dropped_and_counted(context, key):
    async with serving_mdp() as running:
        client, worker = Asker(context, running.address("ROUTER")), Worker(context, running.address("ROUTER"))
        await running.channel.send(TOPIC, key % translate.word("services"), b"x")
        await until(lambda: running.count("dropped.a reply to no client") + running.count("mdp_unclaimed") == 1)
        await worker.ready()
        await client.ask(b"echo", b"hello")
        address, _ = await worker.request()
        await worker.reply(address, b"world")
        assert await client.answer() == [b"echo", b"world"]


# -- Majordomo's workers answer others


async def test_a_majordomo_worker_answers_a_tgp_client(context):
    async with serving_mdp() as running:
        worker = Worker(context, running.address("ROUTER"))
        await worker.ready()
        await queue_of(running, "echo")
        client = await connected(context, running)
        assert (await client.ask(13, 1, "queue", "answers"))[0] == 20
        props = {"reply_to": "answers", "correlation_id": "7"}
        assert await client.ask(3, 1, "", "mdp.echo", props, body=b"question") == [4, 1, True, 0]
        address, body = await worker.request()
        assert body == [b"question"]
        await worker.reply(address, b"an", b"swer")
        await until(lambda: running.queue("answers").count == 1)
        got, body = await client.ask(12, 2, "answers")
        assert got[-1] == {"content_type": translate.MULTIPART, "correlation_id": "7"}
        assert msgspec.msgpack.decode(body) == [b"an", b"swer"]
        assert running.queue("mdp.echo").count == 0


async def test_parts_of_a_reply_to_a_tgp_client_say_that_they_are_parts(context):
    async with serving_mdp() as running:
        worker = Worker(context, running.address("ROUTER"), 2)
        await worker.ready()
        await queue_of(running, "echo")
        client = await connected(context, running)
        await client.ask(13, 1, "queue", "answers")
        await client.ask(3, 1, "", "mdp.echo", {"reply_to": "answers"}, body=b"question")
        address, _ = await worker.request()
        await worker.partial(address, b"1")
        await worker.reply(address, b"2")
        await until(lambda: running.queue("answers").count == 2)
        got = [await client.ask(12, r, "answers") for r in (2, 3)]
        assert [(header[-1], body) for header, body in got] == [({"type": "partial"}, b"1"), (None, b"2")]


@pytest.mark.parametrize("props", [None, {"reply_to": "nowhere"}, {"reply_to": "/exchanges/none/x"}])
async def test_a_reply_that_nobody_wants_settles_its_request(context, props):
    async with serving_mdp() as running:
        worker = Worker(context, running.address("ROUTER"))
        await worker.ready()
        queue = await queue_of(running, "echo")
        client = await connected(context, running)
        await client.ask(3, 1, "", "mdp.echo", props, body=b"1")
        await client.ask(3, 2, "", "mdp.echo", props, body=b"2")
        for expected in (b"1", b"2"):
            address, body = await worker.request()
            assert body == [expected]
            await worker.reply(address, b"x")
        await until(lambda: queue.count == 0)
        assert running.count("mdp_unclaimed") == (2 if props else 0)


async def test_a_majordomo_client_calls_any_queue(context):
    async with serving_mdp(mdp_services={"work": {"queue": "jobs"}}) as running:
        worker = await connected(context, running)
        await worker.ask(13, 1, "queue", "jobs")
        await worker.ask(6, 2, "jobs", "c", 1)
        client = Asker(context, running.address("ROUTER"))
        assert await client.call(b"mmi.service", b"work") == [b"mmi.service", b"200"]
        await client.ask(b"work", b"x")
        delivered, body = await worker.hear()
        assert body == b"x"
        await worker.say(3, 1, "", delivered[-1]["reply_to"], body=b"y")
        assert await client.answer() == [b"work", b"y"]


async def test_a_service_on_another_endpoint_answers(context):
    other = majordomo(name="others", protocols=["mdp/0.2"])
    async with serving(majordomo(), other) as running:
        client = Asker(context, running.address("ROUTER", 0))
        worker = Worker(context, running.address("ROUTER", 1), 2)
        await worker.ready()
        await client.ask(b"echo", b"x", b"y")
        address, body = await worker.request()
        await worker.reply(address, *body)
        assert await client.answer() == [b"echo", b"x", b"y"]


# -- what lasts, and what goes


async def test_requests_are_on_disk_if_that_is_asked_for(context):
    for durable in (False, True):
        journal = HandJournal(automatic=True)
        async with serving(majordomo(mdp_durable=durable), journal=journal) as running:
            client = Asker(context, running.address("ROUTER"))
            await client.ask(b"echo", b"hello")
            await until(lambda running=running: "mdp.echo" in running.broker.engine.vhosts["/"].queues)
            await until(lambda running=running: running.queue("mdp.echo").count == 1)
            await running.call(running.channel.barrier())
            assert journal.stored == ([b"hello"] if durable else [])
            assert running.queue("mdp.echo").spec.durable is durable


async def test_a_reply_to_a_client_that_has_gone_is_counted_and_settles_the_request(context):
    async with serving_mdp() as running:
        worker = Worker(context, running.address("ROUTER"))
        await worker.ready()
        with trio.fail_after(30):
            while not running.count("mdp_unclaimed"):  # what libzmq took before it saw that the client went is not
                client = Asker(context, running.address("ROUTER"))
                await client.ask(b"echo", b"x")
                address, _ = await worker.request()
                client.close()
                await worker.reply(address, b"y")
        await until(lambda: running.queue("mdp.echo").count == 0)


async def back(context, running, name):
    """Return a client that has the name of one who has gone; libzmq gives it to nobody before it has seen that."""
    while True:
        client = Asker(context, running.address("ROUTER"), ROUTING_ID=name)
        if await client.call(b"mmi.service", b"x", seconds=0.5) is not None:
            return client
        client.close()


async def test_a_client_that_comes_back_under_its_own_name_gets_its_reply(context):
    async with serving_mdp() as running:
        client, worker = Asker(context, running.address("ROUTER"), ROUTING_ID=b"me"), Worker(context, running.address("ROUTER"))
        await worker.ready()
        await client.ask(b"echo", b"x")
        address, _ = await worker.request()
        client.close()
        again = await back(context, running, b"me")
        await worker.reply(address, b"y")
        assert await again.answer() == [b"echo", b"y"]


async def test_a_reply_that_the_disk_has_no_room_for_leaves_its_request_to_be_done_again(context, monkeypatch):
    monkeypatch.setattr(bridge, "AGAIN_MS", 50)
    journal = FullJournal()
    async with serving(majordomo(mdp_durable=True), journal=journal) as running:
        await running.call(running.channel.declare_queue(QueueSpec("replies")))
        worker = Worker(context, running.address("ROUTER"))
        await worker.ready()
        await queue_of(running, "echo")
        route = running.channel.route("", "mdp.echo")
        wire = encode_properties(Properties(reply_to="replies", correlation_id="c"))
        await running.call(running.channel.publish(route, Message(route.address, b"x", True, "common", wire)))
        address, body = await worker.request()
        await full(running, journal)
        await worker.reply(address, b"y")
        address, again = await worker.request()
        assert again == body == [b"x"]
        journal.reason = None
        await until(lambda: running.broker.engine.refusal is None)
        await worker.reply(address, b"y")
        await until(lambda: [entry.message.body for entry in running.queue("replies").ready] == [b"y"])
        assert running.queue("mdp.echo").count == 0


async def test_requests_expire_when_nobody_comes(context):
    async with serving_mdp(mdp_request_ttl_s=1) as running:
        client = Asker(context, running.address("ROUTER"))
        await client.ask(b"echo", b"x")
        queue = await queue_of(running, "echo")
        await until(lambda: queue.count == 0)


async def test_a_full_service_refuses_and_that_is_counted(context):
    async with serving_mdp(mdp_max_requests=2) as running:
        client = Asker(context, running.address("ROUTER"))
        for body in (b"1", b"2", b"3"):
            await client.ask(b"echo", body)
        await until(lambda: running.count("mdp_refused") == 1)
        assert running.queue("mdp.echo").count == 2


async def test_too_many_services_are_refused(context):
    async with serving_mdp(mdp_max_services=2) as running:
        client = Asker(context, running.address("ROUTER"))
        for service in (b"a", b"b", b"c", b"a"):
            await client.ask(service, b"x")
        await until(lambda: running.count("mdp_refused") == 1)
        worker = Worker(context, running.address("ROUTER"))
        await worker.ready(b"d")
        assert await worker.disconnected()
        await until(lambda: running.queue("mdp.a").count == 2)
        assert sorted(name for name in running.broker.engine.vhosts["/"].queues if name.startswith("mdp.")) == ["mdp.a", "mdp.b"]


async def test_services_that_nobody_uses_go_and_make_room(context):
    async with serving_mdp(mdp_max_services=2, mdp_service_ttl_s=1) as running:
        client = Asker(context, running.address("ROUTER"))
        await client.ask(b"full", b"x")
        worker = Worker(context, running.address("ROUTER"))
        await worker.ready(b"empty")
        await queue_of(running, "empty")
        worker.close()
        await until(lambda: not running.queue("mdp.empty").consumers)

        async def asked():
            await client.ask(b"new", b"x")
            return "mdp.new" in running.broker.engine.vhosts["/"].queues

        while not await asked():
            assert await client.call(b"mmi.service", b"new") == [b"mmi.service", b"404"]
        assert "mdp.empty" not in running.broker.engine.vhosts["/"].queues
        assert running.queue("mdp.full").count == 1


async def test_as_many_peers_as_are_allowed(context):
    async with serving_mdp(max_peers=1) as running:
        worker, client = Worker(context, running.address("ROUTER")), Asker(context, running.address("ROUTER"))
        await worker.ready()
        await queue_of(running, "echo")
        await client.ask(b"echo", b"x")
        await until(lambda: running.count("mdp_refused") == 1)
        other = Worker(context, running.address("ROUTER"))
        await other.ready()
        assert await other.disconnected()


# -- protocols of an endpoint


async def test_an_endpoint_speaks_what_it_is_told_to(context):
    endpoints = majordomo(protocols=["tgp/1"]), majordomo(name="b", protocols=["mdp/0.1"])
    async with serving(*endpoints) as running:
        worker = Worker(context, running.address("ROUTER", 0))
        await worker.ready()
        await until(lambda: [said["protocols"] for said in running.log.of("no protocol begins so")] == ["tgp/1"])
        second = Worker(context, running.address("ROUTER", 1), 2)
        await second.ready()
        stranger = Client(context, running.address("ROUTER", 1))
        await stranger.say(1, 1, 1)
        await until(lambda: running.count("violations") == 3)
        first = Worker(context, running.address("ROUTER", 1))
        await first.ready()
        await queue_of(running, "echo")


async def test_all_protocols_live_on_one_socket(context):
    async with serving_mdp() as running:
        tgp = await connected(context, running)
        client, worker = Asker(context, running.address("ROUTER"), kind=zmq.REQ), Worker(context, running.address("ROUTER"), 2)
        await worker.ready()
        for body in (b"1", b"2"):
            await client.ask(b"echo", body)
            address, asked = await worker.request()
            assert await tgp.ask(22, "t") == [23, "t"]
            await worker.reply(address, *asked)
            assert await client.answer() == [b"echo", body]
        await tgp.send(msgspec.msgpack.encode([22, "t"]), b"", b"")
        assert (await tgp.hear())[:3] == [21, None, 501]
        assert (await tgp.hear())[:2] == [24, 501]


# -- translation


def test_a_key_of_replies_says_all_that_is_needed():
    for client in (b"\0\1\2\3\4", b"a", bytes(range(256))[1:]):
        for version, enveloped in ((1, True), (2, False), (2, True)):
            origin = Origin("e", "b", client, version, enveloped, "sörvice .*#/")
            assert translate.origin_of_key(translate.reply_key(origin)) == origin


def test_several_frames_are_one_content_type_everywhere():
    assert translate.MULTIPART == layouts.MULTIPART


@pytest.mark.parametrize("body", [b"", b"\xff", b"\x93\1\2", msgspec.msgpack.encode([])])
def test_a_body_that_is_not_several_frames_stays_one(body):
    assert translate.frames_of(body, multipart=True) == [body]
