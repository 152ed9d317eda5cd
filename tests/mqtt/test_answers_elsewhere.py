"""Can MQTT clients answer those who ask by other protocols?"""

from __future__ import annotations

import pytest

from gateway.api import Binding, Principal, Properties, QueueSpec, reply_address
from gateway.model.message import with_properties
from gateway_mqtt.codec.packets import PUBACK, Ack, Publish, Will
from gateway_mqtt.codec.properties import Properties as Mqtt
from gateway_mqtt.settings import MqttSettings
from gateway_mqtt.translate.properties import read_wire
from gateway_mqtt.translate.sessions import Refused
from gateway_mqtt.translate.topics import TopicLimits
from gateway_mqtt.wills import check_will
from tests.mqtt.level5 import connected
from tests.mqtt.support import mqtt_broker, until


async def asker(bench, *queues):
    """Return a channel of somebody who has queues for answers."""
    channel = bench.broker.gateway("other", print, bench.log).open_channel(Principal("asker"))
    for queue in queues:
        await channel.outcome(channel.declare_queue(QueueSpec(queue)))
    return channel


async def answer_in(channel, queue):
    delivery = (await channel.outcome(channel.get(queue, no_ack=True))).result
    return None if delivery is None else delivery.message


@pytest.mark.parametrize("queue", ["answers", "a queue+with/#.strange é%2B"])
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("retain", [False, True])
async def test_a_device_gets_a_response_topic_for_any_queue_and_its_answer_is_there(queue, qos, retain):
    async with mqtt_broker() as bench:
        channel = await asker(bench, queue)
        device = await connected(bench, "device")
        await device.subscribe("device/ask", qos=1)
        asked = Properties(reply_to=queue, correlation_id="seven")
        route = channel.route("amq.topic", "device.ask")
        channel.publish(route, with_properties(route.address, b"?", asked))
        question = (await device.next()).properties
        assert question.correlation_data == b"seven"
        said = Mqtt(correlation_data=question.correlation_data)
        answer = Publish(question.response_topic, b"42", qos, retain, False, 9 if qos else 0, said)
        await device.send(answer)
        await until(lambda: bench.broker.engine.vhost("/").queues[queue].count)
        message = await answer_in(channel, queue)
        assert (message.exchange, message.routing_key, message.body, message.persistent) == ("", queue, b"42", qos > 0)
        assert read_wire(message.wire) == Properties(correlation_id="seven")
        assert list(channel.retained("", "#")) == list(channel.retained("amq.topic", "#")) == []


async def test_level_4_answers_too_one_by_one_and_many_at_a_time():
    async with mqtt_broker() as bench:
        channel = await asker(bench, "answers")
        device = await bench.client("device")
        for count in (1, 3):
            for qos in (0, 1):
                await device.send(*(Publish("$reply/answers", b"%d" % n, qos, packet_id=n + 1 if qos else 0) for n in range(count)))
                if qos:
                    assert await device.take(count) == [Ack(PUBACK, n + 1) for n in range(count)]
                else:
                    await device.ping()
                found = [await answer_in(channel, "answers") for _ in range(count)]
                assert [(message.routing_key, message.body) for message in found] == [("answers", b"%d" % n) for n in range(count)]


@pytest.mark.parametrize("qos", [0, 1])
async def test_who_subscribes_where_an_answer_leads_sees_its_own_topic_and_not_the_answers(qos):
    async with mqtt_broker() as bench:
        watcher, device = await bench.client("watcher"), await bench.client("device")
        await watcher.subscribe("#", qos=1)
        topic = f"$reply/{reply_address('amq.topic', 'plant.3')}"
        for _ in range(2):
            await device.publish(topic, b"x", qos=qos)
            heard = await watcher.next()
            assert (heard.topic, heard.payload) == ("plant/3", b"x")
            if heard.packet_id:
                await watcher.send(Ack(PUBACK, heard.packet_id))


async def test_a_will_may_be_an_answer_and_is_not_retained():
    async with mqtt_broker() as bench:
        channel = await asker(bench, "answers")
        device = await bench.client("device", will=Will("$reply/answers", b"gone", 1, True))
        await device.vanish()
        await until(lambda: bench.broker.engine.vhost("/").queues["answers"].count)
        assert (await answer_in(channel, "answers")).body == b"gone"
        assert list(channel.retained("", "#")) == []


async def test_a_request_of_an_mqtt_client_that_wants_its_answer_in_a_queue_is_answered_there():
    async with mqtt_broker() as bench:
        channel = await asker(bench, "work", "answers")
        await channel.outcome(channel.bind(Binding("amq.topic", "work", "ask")))
        client = await connected(bench, "client")
        await client.send(Publish("ask", b"?", properties=Mqtt(response_topic="$reply/answers")))
        await until(lambda: bench.broker.engine.vhost("/").queues["work"].count)
        question = await answer_in(channel, "work")
        assert read_wire(question.wire).reply_to == "answers"


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize(
    "target", ["/exchanges/amq.topic/$SYS.broker.version", "/exchanges/amq.topic/$SYS%2Ex", "mqtt.session.device"]
)
async def test_what_is_the_brokers_own_is_not_reached_by_answers(qos, target):
    async with mqtt_broker() as bench:
        channel = await asker(bench)
        before = [message.body for message in channel.retained("amq.topic", "$SYS.#")]
        device = await connected(bench, "device")
        await device.send(Publish(f"$reply/{target}", b"forged", qos, True, False, 9 if qos else 0))
        if qos:
            assert (await device.next()).code == 0x87
        else:
            await device.send(Publish("x", b"", 1, packet_id=3))
            await device.next()
        assert b"forged" not in before + [message.body for message in channel.retained("amq.topic", "$SYS.#")]


async def test_nothing_is_retained_by_an_answer_to_a_topic():
    async with mqtt_broker() as bench:
        channel = await asker(bench)
        device = await connected(bench, "device")
        await device.send(Publish("$reply//exchanges/amq.topic/a", b"x", 1, True, False, 9))
        await device.next()
        assert list(channel.retained("amq.topic", "#")) == []


async def test_a_will_that_can_never_be_published_is_lost_at_once():
    async with mqtt_broker() as bench:
        device = await bench.client("device", will=Will("$reply//exchanges/nope/x", b"gone", 1, False))
        await device.vanish()
        await until(lambda: bench.counted("mqtt.wills_lost") == 1)


async def test_a_will_to_what_is_the_brokers_own_refuses_the_connect():
    async with mqtt_broker() as bench:
        for topic in ("$reply//exchanges/amq.topic/$SYS.x", "$reply//exchanges/amq.topic/" + "a." * 300):
            will = Will(topic, b"forged", 1, True)
            with pytest.raises(Refused):
                check_will(
                    will, bench.broker.gateway("x", print, bench.log), Principal("x"), TopicLimits(200, 65_535), MqttSettings()
                )
