"""Do RabbitMQ's clients, MQTT's, plain ZeroMQ sockets and TGP programs understand each other?"""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import amqp
import pika
import pytest

from gateway.client import connect
from tests.interop.amqp_programs import PATIENCE_S, until
from tests.interop.bridge_programs import Colleague, Device, Puller, answering, bound, received, working
from tests.live_broker import LiveBroker

CONFIGURATION = """\
[frontend.amqp]
listen = ["tcp://127.0.0.1:5672"]

[frontend.mqtt]
listen = ["tcp://127.0.0.1:1883"]

[[frontend.zeromq.endpoint]]
name = "work"
socket = "PUSH"
bind = "tcp://127.0.0.1:5581"
queue = "work"
bindings = [{ exchange = "amq.topic", key = "work.#" }]
frames = "body"
ack = "pong"
window = 10
ping_every = 1

[[frontend.zeromq.endpoint]]
name = "services"
socket = "ROUTER"
bind = "tcp://127.0.0.1:5570"
"""
BINARY = b"\xff\x00\xfe"


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with LiveBroker(tmp_path_factory.mktemp("amqp-bridge"), CONFIGURATION) as running:
        yield running


@pytest.fixture
def channel(broker):
    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", broker.where("amqp")[1]))
    made = connection.channel()
    made.confirm_delivery()
    yield made
    if connection.is_open:
        connection.close()


@pytest.fixture
def device(broker):
    """Make MQTT 5 clients that have subscribed."""
    devices = []

    def make(*filters):
        devices.append(Device(broker.where("mqtt")[1], filters))
        return devices[-1]

    yield make
    for one in devices:
        one.end()


# -- properties


def test_an_mqtt_client_hears_all_that_a_pika_program_says(channel, device):
    listener = device("plant/+/temp")
    said = pika.BasicProperties(
        "text/plain",
        "utf-8",
        {"unit": "°C", "n": 3, "where": ["a", "b"]},
        2,
        4,
        "c-7",
        "answers",
        "600000",
        "m-1",
        1_700_000_000,
        "reading",
    )
    channel.basic_publish("amq.topic", "plant.3.temp", b"21,5", said)
    heard = listener.next()
    told = heard.properties
    assert (heard.topic, heard.payload, heard.qos) == ("plant/3/temp", b"21,5", 1)
    assert (told.ContentType, told.PayloadFormatIndicator, told.CorrelationData) == ("text/plain", 1, b"c-7")
    assert told.ResponseTopic == "$reply/answers"
    assert 540 <= told.MessageExpiryInterval <= 600
    assert told.UserProperty == [
        ("unit", "°C"), ("n", "3"), ("where", "a"), ("where", "b"),
        ("message-id", "m-1"), ("timestamp", "1700000000"), ("type", "reading"), ("priority", "4"),
    ]  # fmt: skip


def test_a_pika_program_hears_all_that_an_mqtt_client_says(channel, device):
    mine = bound(channel, "plant.*.temp")
    device().publish(
        "plant/4/temp", "21,5", ContentType="text/plain", PayloadFormatIndicator=1, CorrelationData=b"c-7",
        ResponseTopic="answers/here",
        MessageExpiryInterval=600, UserProperty=[("unit", "°C"), ("where", "a"), ("where", "b")],
    )  # fmt: skip
    method, told, body = received(channel, mine)
    assert (method.exchange, method.routing_key, body) == ("amq.topic", "plant.4.temp", b"21,5")
    assert (told.content_type, told.content_encoding, told.correlation_id) == ("text/plain", "utf-8", "c-7")
    assert (told.reply_to, told.delivery_mode) == ("/exchanges/amq.topic/answers.here", 2)
    assert told.headers == {"unit": "°C", "where": ["a", "b"]}
    assert 540_000 <= int(told.expiration) <= 600_000


def test_a_message_of_qos_0_is_transient_and_a_transient_message_has_qos_0(channel, device):
    mine = bound(channel, "plant.*.load")
    listener = device("plant/+/load")
    device().publish("plant/1/load", b"1", qos=0)
    assert received(channel, mine)[1].delivery_mode == 1
    assert listener.next().qos == 0
    channel.basic_publish("amq.topic", "plant.2.load", b"2")
    assert listener.next().qos == 0


def test_py_amqp_reads_what_is_bytes_to_mqtt(broker, device):
    """It ends its connection at a correlation id that is no text."""
    with amqp.Connection(f"127.0.0.1:{broker.where('amqp')[1]}", "guest", "guest") as connection:
        mine = connection.channel()
        name = mine.queue_declare("", exclusive=True).queue
        mine.queue_bind(name, "amq.topic", "binary.#")
        device().publish("binary/1", BINARY, CorrelationData=BINARY, UserProperty=[("name", "\U0001f321")])
        (found,) = until(lambda: [one for one in [mine.basic_get(name, no_ack=True)] if one is not None])
        assert bytes(found.body) == BINARY
        assert found.properties["correlation_id"] == "base64:/wD+"
        assert found.properties["application_headers"] == {"name": "\U0001f321"}


def test_a_devices_dead_letter_tells_its_history_in_rabbitmqs_types(channel, device):
    graves = channel.queue_declare("", exclusive=True).method.queue
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": graves}
    mortal = channel.queue_declare("", exclusive=True, arguments=arguments).method.queue
    channel.queue_bind(mortal, "amq.topic", "mortal.#")
    device().publish("mortal/1", b"x", CorrelationData=BINARY, UserProperty=[("a", "b")])
    until(lambda: channel.queue_declare(mortal, passive=True).method.message_count)
    method, _, _ = channel.basic_get(mortal)
    channel.basic_reject(method.delivery_tag, requeue=False)
    _, told, _ = received(channel, graves)
    (death,) = told.headers["x-death"]
    assert isinstance(death["time"], datetime)
    assert abs((datetime.now(UTC) - death["time"]).total_seconds()) < 600
    assert (death["queue"], death["reason"], death["count"], death["routing-keys"]) == (mortal, "rejected", 1, ["mortal.1"])
    assert (told.headers["a"], told.correlation_id, told.delivery_mode) == ("b", "base64:/wD+", 2)


def test_a_headers_exchange_finds_what_tgp_programs_and_pika_programs_say_alike(broker, channel):
    noon = datetime(2026, 11, 21, 12, tzinfo=UTC)
    mine = channel.queue_declare("", exclusive=True).method.queue
    wanted = {"x-match": "all", "when": noon, "n": 7, "binary": BINARY, "none": None}
    channel.queue_bind(mine, "amq.headers", "", wanted)
    said = {"when": noon, "n": 7, "binary": BINARY, "none": 1}
    channel.basic_publish("amq.headers", "", b"pika", pika.BasicProperties(headers=said))
    assert received(channel, mine)[2] == b"pika"
    with connect(broker.addresses["ROUTER"]) as client:
        client.publish("amq.headers", "", b"tgp", {"headers": said}, wait=True)
    _, told, body = received(channel, mine)
    assert (body, told.headers) == (b"tgp", said)


# -- one queue


def test_pull_sockets_tgp_programs_and_pika_programs_share_one_queue_fairly(broker, channel, device):
    count, burst = 150, 6  # as many at once as there is room for with each: who is slow is waited for, and has its turn
    puller, colleague = Puller(broker.addresses["PUSH"]), Colleague(broker.where("amqp")[1])
    publisher, sent = device(), [b"%d" % number for number in range(count)]
    shares: dict[str, list[bytes]] = {"pull": puller.got, "pika": colleague.got, "tgp": []}
    with working(puller, colleague), connect(broker.addresses["ROUTER"]) as client:
        assert colleague.ready.wait(PATIENCE_S)
        consumer = client.consume("work", credit=10)
        publisher.publish("work/probe", b"probe")  # until the socket takes part
        until(lambda: (take(consumer, shares["tgp"]), publisher.publish("work/probe", b"probe")) and puller.got)
        for number, body in enumerate(sent, 1):
            publisher.publish("work/x", body)
            wanted = number - number % burst
            until(lambda: take(consumer, shares["tgp"]) or sum(len(real(share)) for share in shares.values()) >= wanted)  # noqa: B023 - now
        consumer.cancel()
        work = {name: real(share) for name, share in shares.items()}
    assert sorted(body for share in work.values() for body in share) == sorted(sent)
    assert all(count // 5 <= len(share) <= count // 2 for share in work.values()), work
    channel.queue_purge("work")  # what the socket had not ponged when it went


def real(share):
    return [body for body in share if body != b"probe"]


def take(consumer, share):
    """Take what has come for TGP."""
    while (delivery := consumer.receive(0)) is not None:
        share.append(delivery.body)
        delivery.ack()


def test_what_a_program_had_when_it_died_is_a_pull_sockets(broker):
    connection = amqp.Connection(f"127.0.0.1:{broker.where('amqp')[1]}", "guest", "guest")
    connection.connect()
    mine = connection.channel()
    mine.basic_publish(amqp.Message(b"unfinished"), routing_key="work")
    until(lambda: mine.basic_get("work"))
    connection.collect()  # it closes the socket, and says nothing
    puller = Puller(broker.addresses["PUSH"])
    with working(puller):
        until(lambda: b"unfinished" in puller.got)


# -- requests


@pytest.mark.parametrize("correlation", [b"seven", BINARY])
def test_an_mqtt_5_client_asks_a_pika_program(broker, device, correlation):
    ready = threading.Event()
    responder = threading.Thread(target=answering, args=(broker.where("amqp")[1], "reversers", "service.reverse", ready))
    responder.start()
    assert ready.wait(PATIENCE_S)
    asker = device("answers/9")
    asker.publish("service/reverse", b"abc", ResponseTopic="answers/9", CorrelationData=correlation)
    answer = asker.next()
    assert (answer.topic, answer.payload, answer.properties.CorrelationData) == ("answers/9", b"cba", correlation)
    responder.join()


@pytest.mark.parametrize("way", ["amq.rabbitmq.reply-to", ""])
def test_a_pika_program_asks_a_device_that_speaks_mqtt_5(channel, device, way):
    responder = device("plant/5/valve")
    answers = way or channel.queue_declare("", exclusive=True).method.queue
    got = []
    channel.basic_consume(answers, lambda *answer: got.append(answer), auto_ack=True)
    channel.basic_publish("amq.topic", "plant.5.valve", b"?", pika.BasicProperties(reply_to=answers, correlation_id="base64:/w=="))
    asked = responder.next()
    assert asked.properties.CorrelationData == b"\xff"
    responder.publish(asked.properties.ResponseTopic, b"open", CorrelationData=asked.properties.CorrelationData)
    until(lambda: channel.connection.process_data_events(0.1) or got)
    ((_, _, properties, body),) = got
    assert (properties.correlation_id, body) == ("base64:/w==", b"open")


@pytest.mark.parametrize("way", ["amq.rabbitmq.reply-to", ""])
def test_a_pika_program_asks_a_tgp_program(broker, channel, way):
    with connect(broker.addresses["ROUTER"]) as client:
        client.declare_queue("tgp.answers")
        answers = way or channel.queue_declare("", exclusive=True).method.queue
        got = []
        channel.basic_consume(answers, lambda *answer: got.append(answer), auto_ack=True)
        channel.basic_publish("", "tgp.answers", b"?", pika.BasicProperties(reply_to=answers, correlation_id="7"))
        asked = client.consume("tgp.answers").receive(PATIENCE_S)
        assert asked is not None
        said = asked.properties
        client.publish("", said["reply_to"], b"yes", {"correlation_id": said["correlation_id"]}, wait=True)
        asked.ack()
        until(lambda: channel.connection.process_data_events(0.1) or got)
        ((_, _, told, body),) = got
        assert (told.correlation_id, body) == ("7", b"yes")


# -- last values


def test_a_queue_gets_the_last_values_that_match_once_and_then_what_is_published(channel, device):
    sensors = device()
    for number in (1, 2):
        sensors.publish(f"kept/{number}/temp", b"%d" % number, retain=True, UserProperty=[("unit", "K")])
    sensors.publish("kept/1/load", b"no", retain=True)
    mine = bound(channel, "kept.*.temp", **{"x-last-values": True})
    found = sorted([received(channel, mine) for _ in range(2)], key=lambda one: one[0].routing_key)
    assert [(method.exchange, method.routing_key, body) for method, _, body in found] == [
        ("amq.topic", "kept.1.temp", b"1"),
        ("amq.topic", "kept.2.temp", b"2"),
    ]
    assert [told.headers for _, told, _ in found] == [{"unit": "K"}] * 2
    channel.queue_bind(mine, "amq.topic", "kept.*.temp", {"x-last-values": True})
    sensors.publish("kept/2/temp", b"3", retain=True)
    assert received(channel, mine)[2] == b"3"


def test_a_binding_without_the_argument_brings_none(channel, device):
    sensors = device()
    sensors.publish("kept/9/temp", b"old", retain=True)
    mine = bound(channel, "kept.9.temp")
    sensors.publish("kept/9/temp", b"new", retain=True)
    assert received(channel, mine)[2] == b"new"
