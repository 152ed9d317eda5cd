"""Whoever asks, by whichever protocol, is answered by whoever answers, by whichever protocol."""

from __future__ import annotations

import msgspec
import pytest
import trio
import zmq
from pamqp import commands

from gateway.api import Binding, QueueSpec
from tests.crossing.peers import QUIET, World
from tests.mqtt.conformance.support import Client as MqttClient
from tests.zeromq import support
from tests.zeromq.majordomo import Asker, Worker
from tests.zeromq.support import ANY, PATIENCE_S, Plain

ANSWERERS = ("amqp", "device", "tgp", "json", "rep worker", "majordomo worker")
ASKERS = ("amqp", "amqp direct", "mqtt 5", "tgp", "json", "req", "majordomo 0.1", "majordomo 0.2")


def service(name):
    return "ask." + name.replace(" ", "-")


SERVICES = {service(name): {"exchange": "amq.topic", "routing_key": service(name)} for name in ANSWERERS}
SERVED = {"served": {"queue": "answers.majordomo"}}
ROUTER = {"socket": "ROUTER", "bind": ANY, "protocols": ["tgp/1", "mdp/0.1", "mdp/0.2"], **QUIET}
ANSWERING = [
    {"name": "asks", "socket": "REP", "bind": ANY, "frames": "key,body"},
    {
        "name": "works",
        "socket": "DEALER",
        "bind": ANY,
        "queue": "answers.dealer",
        "bindings": [{"exchange": "amq.topic", "key": service("rep worker")}],
    },
    {"name": "services", **ROUTER, "mdp_services": {**SERVICES, **SERVED}},
    {"name": "kept", "socket": "PULL", "bind": ANY, "frames": "key,body", "key_syntax": "mqtt", "retain": True},
    {"name": "kept-headers", "socket": "PULL", "bind": ANY, "frames": "key,headers,body"},
    {"name": "events", "socket": "XPUB", "bind": ANY, "frames": "key,body"},
]


@pytest.fixture(scope="module")
def world():
    with World(ANSWERING, {}) as running:
        yield running


# -- who answers: takes one question, and says what it was in the answer


async def bound(world, queue, key):
    await world.channel.outcome(world.channel.declare_queue(QueueSpec(queue)))
    await world.channel.outcome(world.channel.bind(Binding("amq.topic", queue, key)))


async def amqp(world, ready):
    client = await world.amqp_client()
    await client.queue("answers.amqp", service("amqp"))
    await client.consume("answers.amqp")
    ready()
    asked, properties, body = await client.message()
    await client.publish("", properties["reply_to"], b"amqp: " + body, correlation_id=properties["correlation_id"])
    await client.ack(asked)
    await client.leave()


async def device(world, ready):
    client = await world.mqtt_client(5)
    await client.subscribe("ask/device", 1)
    ready()
    question = await client.message()
    said = {"correlation_data": question.properties.correlation_data}
    await client.publish(question.properties.response_topic, b"device: " + question.payload, 1, **said)
    await client.leave()


async def tgp(world, ready):
    await bound(world, "answers.tgp", service("tgp"))
    client = await support.connected(world.context, world)
    await client.ask(6, 1, "answers.tgp", "c", 1)
    ready()
    header, body = await client.hear()
    props = {"correlation_id": header[6]["correlation_id"]}
    assert await client.ask(3, 1, "", header[6]["reply_to"], props, 1, body=b"tgp: " + body) == [4, 1, True, 0]
    await client.say(9, "c", header[2])
    assert await client.ask(22, "heard") == [23, "heard"]
    client.close()


async def json(world, ready):
    await bound(world, "answers.json", service("json"))
    client = support.Client(world.context, world.address("ROUTER"))
    await client.say_json("HELLO", r=1, version_max=1)
    await client.hear()
    await client.say_json("CONSUME", r=2, queue="answers.json", tag="c", credit=1)
    await client.hear()
    ready()
    header, body = await client.hear()
    asked = header["props"]
    answer = {"correlation_id": asked["correlation_id"]}
    await client.say_json("PUBLISH", b"json: " + body, seq=1, exchange="", routing_key=asked["reply_to"], props=answer, flags=1)
    assert (await client.hear())["status"] == 0
    await client.say_json("ACK", tag="c", delivery=header["delivery"])
    await client.say_json("PING", token="heard")
    assert (await client.hear())["cmd"] == "PONG"
    client.close()


async def rep_worker(world, ready):
    worker = Plain(world.context, zmq.REP, world.address("DEALER"))
    ready()
    question = await worker.receive()
    await worker.send(b"rep worker: " + question)
    await trio.sleep(0.05)  # what it sent is with libzmq
    worker.close()


async def majordomo_worker(world, ready):
    await bound(world, "answers.majordomo", service("majordomo worker"))
    worker = Worker(world.context, world.address("ROUTER"), 2)
    await worker.ready(b"served")
    ready()
    address, (question,) = await worker.request()
    await worker.reply(address, b"majordomo worker: " + question)
    await trio.sleep(0.05)
    worker.close()


# -- who asks: returns the answer


async def amqp_asks(world, name):
    client = await world.amqp_client()
    queue = (await client.call(commands.Queue.Declare(exclusive=True))).queue
    return await _asked_by_amqp(client, queue, name)


async def amqp_asks_directly(world, name):
    return await _asked_by_amqp(await world.amqp_client(), "amq.rabbitmq.reply-to", name)


async def _asked_by_amqp(client, queue, name):
    await client.consume(queue, no_ack=True)
    await client.post("amq.topic", service(name), b"?", reply_to=queue, correlation_id="base64:/w==")
    _, properties, body = await client.message()
    assert properties["correlation_id"] == "base64:/w=="  # however it came by way of others
    await client.leave()
    return body


async def mqtt_5(world, name):
    client, listener = [await world.mqtt_client(5) for _ in range(2)]  # as an answer may overtake the PUBACK
    await listener.subscribe("back/here", 1)
    correlation = b"\xff\0 7"
    asked = {"response_topic": "back/here", "correlation_data": correlation}
    assert await client.publish(service(name).replace(".", "/"), b"?", 1, **asked) == 0
    answer = await listener.message()
    assert (answer.topic, answer.properties.correlation_data) == ("back/here", correlation)
    await client.leave()
    await listener.leave()
    return answer.payload


async def tgp_asks(world, name):
    client = await support.connected(world.context, world)
    queue = (await client.ask(13, 1, "queue", "", {"exclusive": True}))[2]["name"]
    await client.ask(6, 2, queue, "c", 1)
    props = {"reply_to": queue, "correlation_id": "seven"}
    assert await client.ask(3, 1, "amq.topic", service(name), props, 1, body=b"?") == [4, 1, True, 0]
    header, body = await client.hear()
    assert header[6]["correlation_id"] == "seven"
    client.close()
    return body


async def json_asks(world, name):
    client = support.Client(world.context, world.address("ROUTER"))
    await client.say_json("HELLO", r=1, version_max=1)
    await client.hear()
    await client.say_json("DECLARE", r=2, kind="queue", name="", args={"exclusive": True})
    queue = (await client.hear())["result"]["name"]
    await client.say_json("CONSUME", r=3, queue=queue, tag="c", credit=1)
    await client.hear()
    props = {"reply_to": queue, "correlation_id": "base64: seven"}
    await client.say_json("PUBLISH", b"?", seq=1, exchange="amq.topic", routing_key=service(name), props=props, flags=1)
    assert (await client.hear())["status"] == 0
    header, body = await client.hear()
    assert header["props"]["correlation_id"] == "base64: seven"  # which is no base64
    client.close()
    return body


async def req_asks(world, name):
    client = Plain(world.context, zmq.REQ, world.address("REP"))
    await client.send(service(name).encode(), b"?")
    answer = await client.receive()
    client.close()
    return answer


async def majordomo_asks(world, name, version):
    client = Asker(world.context, world.address("ROUTER"), version)
    answer = await client.call(service(name).encode(), b"?")
    assert answer[:-1] == [*([b"\3"] if version == 2 else []), service(name).encode()]
    client.close()
    return answer[-1]


ANSWER = dict(zip(ANSWERERS, (amqp, device, tgp, json, rep_worker, majordomo_worker), strict=True))
ASK = dict(
    zip(
        ASKERS,
        (
            amqp_asks,
            amqp_asks_directly,
            mqtt_5,
            tgp_asks,
            json_asks,
            req_asks,
            lambda world, name: majordomo_asks(world, name, 1),
            lambda world, name: majordomo_asks(world, name, 2),
        ),
        strict=True,
    )
)


@pytest.mark.parametrize("answerer", ANSWERERS)
@pytest.mark.parametrize("asker", ASKERS)
def test_who_asks_is_answered(world, asker, answerer):
    async def converse():
        ready = trio.Event()
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ANSWER[answerer], world, ready.set)
                await ready.wait()
                if answerer == "majordomo worker":
                    queues = world.broker.engine.vhosts["/"].queues
                    await support.until(lambda: queues["answers.majordomo"].consumers)
                if answerer == "rep worker":
                    await support.until(lambda: world.broker.engine.vhosts["/"].queues["answers.dealer"].consumers)
                return await ASK[asker](world, answerer)

    assert world.run(converse) == f"{answerer}: ?".encode()


# -- last values


async def until_kept(world, key):
    await support.until(lambda: list(world.channel.retained("amq.topic", key)))


async def push(world, number, *frames):
    producer = Plain(world.context, zmq.PUSH, world.address("PULL", number))
    await producer.send(*frames)
    return producer


async def pushed(world):
    producer = await push(world, 0, b"kept/pushed", b"1")
    await until_kept(world, "kept.pushed")
    producer.close()
    return "kept/pushed"


async def pushed_with_header(world):
    producer = await push(world, 1, b"kept.header", msgspec.msgpack.encode({"x-retain": True}), b"1")
    await until_kept(world, "kept.header")
    producer.close()
    return "kept/header"


async def published(world):
    client = await support.connected(world.context, world)
    assert await client.ask(3, 1, "amq.topic", "kept.tgp", {"headers": {"x-retain": True}}, body=b"1") == [4, 1, True, 0]
    client.close()
    return "kept/tgp"


async def published_by_amqp(world):
    client = await world.amqp_client()
    await client.publish("amq.topic", "kept.amqp", b"1", application_headers={"x-retain": True}, delivery_mode=2)
    await client.leave()
    return "kept/amqp"


async def said_by_a_device(world):
    device = await world.mqtt_client(4)
    assert await device.publish("kept/device", b"1", 1, retain=True) == 0
    await device.leave()
    return "kept/device"


@pytest.mark.parametrize("publish", [pushed, pushed_with_header, published, published_by_amqp, said_by_a_device])
def test_who_subscribes_later_gets_what_was_retained(world, publish):
    async def converse():
        with trio.fail_after(PATIENCE_S):
            topic = await publish(world)
            for level in (4, 5):
                late: MqttClient = await world.mqtt_client(level)
                await late.subscribe(topic, 1)
                message = await late.message()
                assert (message.topic, message.payload, message.qos, message.retain) == (topic, b"1", 1, True)
                await late.leave()
            dashboard = Plain(world.context, zmq.SUB, world.address("XPUB"), SUBSCRIBE=topic.replace("/", ".").encode())
            assert await dashboard.receive() == [topic.replace("/", ".").encode(), b"1"]
            dashboard.close()

    world.run(converse)
