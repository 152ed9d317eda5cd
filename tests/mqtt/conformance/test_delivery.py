"""Quality of service, order, what is sent again, flow control: chapter 4 of both standards."""

from __future__ import annotations

import pytest

from gateway_mqtt.codec.packets import PUBACK, PUBCOMP, PUBREC, PUBREL, Ack, Publish, Subscribe, Subscription
from gateway_mqtt.codec.properties import Properties
from tests.mqtt.conformance.support import PING, name, own_broker

# --- the broker receives ----------------------------------------------------------------------------------------------------


async def test_mqtt_4_3_2_2_mqtt5_4_3_2_4_qos_1_is_answered_with_its_identifier(any_level):
    """[MQTT5-4.3.2-5]"""
    topic = name("t")
    watcher = await any_level.subscriber(topic, 1)
    publisher = await any_level.client()
    for body, dup in ((b"first", False), (b"second", False), (b"third", True)):
        await publisher.send(Publish(topic, body, 1, dup=dup, packet_id=5))
        await publisher.acknowledgement(PUBACK, 5)
    assert await watcher.messages(3) == [b"first", b"second", b"third"]  # after its PUBACK the identifier is a new message's


async def test_mqtt_4_3_3_2_mqtt5_4_3_3_8_qos_2_is_delivered_once_however_often_it_is_sent(any_level):
    """[MQTT5-4.3.3-10] [MQTT5-4.3.3-11] [MQTT5-4.3.3-12]"""
    topic = name("t")
    watcher = await any_level.subscriber(topic, 1)
    publisher = await any_level.client()
    await publisher.send(Publish(topic, b"once", 2, packet_id=5))
    await publisher.acknowledgement(PUBREC, 5)
    for _ in range(2):
        await publisher.send(Publish(topic, b"once", 2, dup=True, packet_id=5))
        await publisher.acknowledgement(PUBREC, 5)
    await publisher.send(Ack(PUBREL, 5))
    await publisher.acknowledgement(PUBCOMP, 5)
    await publisher.send(Publish(topic, b"new", 2, packet_id=5))
    await publisher.acknowledgement(PUBREC, 5)
    assert await watcher.messages(2) == [b"once", b"new"]
    await watcher.quiet()


async def test_mqtt_4_3_3_2_mqtt5_4_3_3_10_the_identifier_is_remembered_with_the_session(any_level):
    """[MQTT-4.1.0-1] [MQTT5-4.4.0-1]"""
    topic, who = name("t"), name("c")
    watcher = await any_level.subscriber(topic, 2)
    publisher = await any_level.lasting(who)
    await publisher.send(Publish(topic, b"once", 2, packet_id=5))
    await publisher.acknowledgement(PUBREC, 5)
    await publisher.vanish()
    again = await any_level.lasting(who)
    await again.send(Publish(topic, b"once", 2, dup=True, packet_id=5))
    await again.acknowledgement(PUBREC, 5)
    await again.send(Ack(PUBREL, 5))
    await again.acknowledgement(PUBCOMP, 5)
    assert await watcher.messages(1) == [b"once"]
    await watcher.quiet()
    await any_level.forget(who)


async def test_mqtt_4_3_3_2_mqtt5_4_3_3_11_identifiers_of_qos_1_and_2_and_requests_are_apart(any_level):
    topic = name("t")
    client = await any_level.client()
    await client.send(Publish(topic, b"2", 2, packet_id=1))
    await client.acknowledgement(PUBREC, 1)
    await client.send(Subscribe(2, (Subscription(name("t"), 0),)))
    assert (await client.next()).packet_id == 2
    await client.send(Ack(PUBREL, 1))
    await client.acknowledgement(PUBCOMP, 1)


async def test_mqtt5_4_3_3_9_after_a_refusal_the_identifier_is_a_new_messages(v5):
    client = await v5.client()
    watched = name("t")
    watcher = await v5.subscriber(watched, 2)
    await client.send(Publish("$SYS/broker/forged", b"x", 2, packet_id=5))
    assert (await client.acknowledgement(PUBREC, 5)).code >= 0x80
    await client.send(Publish(watched, b"new", 2, packet_id=5))
    assert (await client.acknowledgement(PUBREC, 5)).code == 0
    await client.send(Ack(PUBREL, 5))
    await client.acknowledgement(PUBCOMP, 5)
    assert await watcher.messages(1) == [b"new"]


async def test_mqtt5_4_3_3_13_an_exchange_goes_on_although_its_message_has_expired(v5):
    client = await v5.client()
    await client.send(Publish(name("t"), b"x", 2, packet_id=5, properties=Properties(message_expiry_s=1)))
    await client.acknowledgement(PUBREC, 5)
    await client.send(Ack(PUBREL, 5))
    await client.acknowledgement(PUBCOMP, 5)


async def test_mqtt_4_6_0_2_mqtt_4_6_0_3_answers_come_in_the_order_of_the_messages(any_level):
    """[MQTT5-4.6.0-2] [MQTT5-4.6.0-3]"""
    topic = name("t")
    client = await any_level.client()
    await client.send(*(Publish(topic, b"x", 1 + number % 2, packet_id=number) for number in range(1, 21)))
    got = await client.take(20)
    for type_, first in ((PUBREC, 1), (PUBACK, 2)):
        assert [answer.packet_id for answer in got if answer.type == type_] == list(range(first, 21, 2))


# --- the broker sends -------------------------------------------------------------------------------------------------------


async def test_mqtt_4_3_2_1_mqtt5_4_3_2_1_qos_1_is_unacknowledged_until_its_puback(any_level):
    """[MQTT5-4.3.2-2] [MQTT5-4.3.2-3]"""
    topic, who = name("t"), name("c")
    client = await any_level.lasting(who)
    await client.subscribe(topic, 1)
    publisher = await any_level.client()
    await publisher.publish(topic, b"acked", 1)
    await publisher.publish(topic, b"held", 1)
    acked = await client.message()
    held = await client.message(settle=False)
    assert (held.dup, held.packet_id == acked.packet_id) == (False, False)
    await client.quiet()
    await client.vanish()
    again = await any_level.lasting(who)
    assert await again.messages(1) == [b"held"]
    await again.quiet()
    await any_level.forget(who)


async def test_mqtt_4_3_3_1_mqtt5_4_3_3_4_a_pubrec_is_answered_with_a_pubrel(any_level):
    """[MQTT5-4.3.3-1] [MQTT5-4.3.3-2] [MQTT5-3.6.2-1]"""
    topic = name("t")
    client = await any_level.subscriber(topic, 2)
    publisher = await any_level.client()
    await publisher.publish(topic, b"x", 2)
    got = await client.message(settle=False)
    assert (got.qos, got.dup, got.packet_id > 0) == (2, False, True)
    await client.send(Ack(PUBREC, got.packet_id))
    assert (await client.acknowledgement(PUBREL, got.packet_id)).code == 0
    await client.send(Ack(PUBCOMP, got.packet_id))
    await client.quiet()


async def test_mqtt_4_3_3_1_mqtt5_4_3_3_3_qos_2_is_sent_again_until_its_pubrec(any_level):
    """[MQTT-4.4.0-1] [MQTT5-4.4.0-1]"""
    topic, who = name("t"), name("c")
    client = await any_level.lasting(who)
    await client.subscribe(topic, 2)
    publisher = await any_level.client()
    await publisher.publish(topic, b"x", 2)
    got = await client.message(settle=False)
    await client.vanish()
    again = await any_level.lasting(who)
    second = await again.message()
    assert (second.payload, second.packet_id, second.dup) == (b"x", got.packet_id, True)
    await again.quiet()
    await any_level.forget(who)


async def test_mqtt_4_3_3_1_mqtt5_4_3_3_5_after_its_pubrec_only_the_pubrel_is_sent_again(any_level):
    """[MQTT5-4.3.3-6] [MQTT-4.4.0-1] [MQTT5-4.4.0-1]"""
    topic, who = name("t"), name("c")
    client = await any_level.lasting(who)
    await client.subscribe(topic, 2)
    publisher = await any_level.client()
    await publisher.publish(topic, b"x", 2)
    got = await client.message(settle=False)
    await client.send(Ack(PUBREC, got.packet_id))
    await client.acknowledgement(PUBREL, got.packet_id)
    await client.vanish()
    again = await any_level.lasting(who)
    await again.acknowledgement(PUBREL, got.packet_id)
    await again.quiet()
    await again.send(Ack(PUBCOMP, got.packet_id))
    await again.quiet()
    await again.vanish()
    third = await any_level.lasting(who)
    await third.quiet()
    await any_level.forget(who)


async def test_mqtt_4_6_0_1_mqtt_4_6_0_4_what_is_sent_again_has_its_first_order(any_level):
    """[MQTT5-4.6.0-1] [MQTT5-4.6.0-4]"""
    topic, who = name("t"), name("c")
    client = await any_level.lasting(who)
    await client.subscribe(topic, 2)
    publisher = await any_level.client()
    for n in range(6):
        await publisher.publish(topic, b"%d" % n, 1 + n % 2)
    first = [await client.message(settle=False) for _ in range(6)]
    assert [m.payload for m in first] == [b"%d" % n for n in range(6)]
    pubrecs = [m.packet_id for m in first if m.qos == 2]
    await client.send(*(Ack(PUBREC, number) for number in pubrecs))
    assert [packet.packet_id for packet in await client.take(3)] == pubrecs  # PUBRELs in the order of the PUBRECs
    await client.vanish()
    again = await any_level.lasting(who)
    got = await again.take(6)
    assert [p.packet_id for p in got if isinstance(p, Publish)] == [m.packet_id for m in first if m.qos == 1]
    assert [p.packet_id for p in got if isinstance(p, Ack)] == pubrecs
    await again.quiet()
    await any_level.forget(who)


@pytest.mark.parametrize(("qos", "answers"), [(1, [PUBREC]), (1, [PUBCOMP]), (2, [PUBACK]), (2, [PUBCOMP]), (2, [PUBREC, PUBACK])])
async def test_mqtt_4_8_0_1_mqtt5_4_13_1_1_an_answer_of_the_wrong_kind_ends_the_connection(any_level, qos, answers):
    topic = name("t")
    client = await any_level.subscriber(topic, qos)
    publisher = await any_level.client()
    await publisher.publish(topic, b"x", qos)
    got = await client.message(settle=False)
    for right in answers[:-1]:
        await client.send(Ack(right, got.packet_id))
        await client.acknowledgement(PUBREL, got.packet_id)
    await client.send(Ack(answers[-1], got.packet_id), PING)
    assert await client.ended() == (0x82 if client.level == 5 else None)


async def test_mqtt5_4_4_0_1_nothing_is_sent_again_while_the_connection_lasts(any_level):
    topic = name("t")
    client = await any_level.subscriber(topic, 2)
    publisher = await any_level.client()
    for qos in (1, 2):
        await publisher.publish(topic, b"x", qos)
        await client.message(settle=False)
    await client.subscribe(topic, 2)
    await client.quiet()


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("code", [0x80, 0x83, 0x87, 0x97, 0x99])
async def test_mqtt5_4_4_0_2_a_message_that_is_refused_is_not_sent_again(v5, qos, code):
    topic, who = name("t"), name("c")
    client = await v5.lasting(who)
    await client.subscribe(topic, qos)
    publisher = await v5.client()
    await publisher.publish(topic, b"refused", qos)
    got = await client.message(settle=False)
    await client.send(Ack(PUBACK if qos == 1 else PUBREC, got.packet_id, code))
    await client.quiet()  # no PUBREL either
    await client.vanish()
    again = await v5.lasting(who)
    await again.quiet()
    await publisher.publish(topic, b"next", qos)
    assert await again.messages(1) == [b"next"]
    await v5.forget(who)


# --- flow control -----------------------------------------------------------------------------------------------------------


async def test_mqtt5_3_3_4_9_no_more_than_the_receive_maximum_is_under_way(v5):
    """[MQTT5-4.9.0-1] [MQTT5-4.9.0-2] [MQTT5-4.9.0-3] [MQTT5-3.3.4-10]"""
    topic = name("t")
    client = await v5.client(receive_maximum=2)
    await client.subscribe(topic, 2)
    publisher = await v5.client()
    for n in range(6):
        await publisher.publish(topic, b"%d" % n, 1 + n % 2)
    held = [await client.message(settle=False) for _ in range(2)]
    await client.quiet()
    await publisher.publish(topic, b"at once", 0)  # QoS 0 needs no quota
    assert (await client.message()).payload == b"at once"
    assert await client.subscribe(name("t"), 1) == 1
    await client.send(Ack(PUBACK, held[0].packet_id))
    third = await client.message(settle=False)
    await client.send(Ack(PUBREC, held[1].packet_id))
    await client.acknowledgement(PUBREL, held[1].packet_id)
    await client.quiet()  # QoS 2 holds its place until the PUBCOMP
    await client.send(Ack(PUBCOMP, held[1].packet_id))
    fourth = await client.message(settle=False)
    assert [held[0].payload, held[1].payload, third.payload, fourth.payload] == [b"0", b"1", b"2", b"3"]
    await client.send(Ack(PUBREC, fourth.packet_id, 0x80))  # a refusal ends it at once
    assert (await client.message(settle=False)).payload == b"4"


async def test_mqtt5_3_3_4_7_a_client_that_sends_more_than_the_receive_maximum_is_disconnected():
    """QoS 2 takes its place until the PUBCOMP."""
    async with own_broker(5, receive_maximum=4) as place:
        client = await place.open()
        assert (await client.connect()).properties.receive_maximum == 4
        for number in range(1, 5):
            await client.send(Publish("t", b"", 2, packet_id=number))
            await client.acknowledgement(PUBREC, number)
        await client.send(Publish("t", b"", packet_id=0))
        await client.quiet()
        await client.send(Ack(PUBREL, 2))
        await client.acknowledgement(PUBCOMP, 2)
        await client.send(Publish("t", b"", 1, packet_id=2))
        await client.acknowledgement(PUBACK, 2)
        await client.send(Publish("t", b"", 2, packet_id=2))
        await client.acknowledgement(PUBREC, 2)
        await client.send(Publish("t", b"", 1, packet_id=9))
        assert await client.ended() == 0x93


async def test_mqtt5_3_3_4_7_one_too_many_is_seen_though_a_release_comes_right_behind_it():
    async with own_broker(5, receive_maximum=2) as place:
        client = await place.client()
        for number in (1, 2):
            await client.send(Publish("t", b"", 2, packet_id=number))
            await client.acknowledgement(PUBREC, number)
        await client.send(Publish("t", b"", 2, packet_id=3), Ack(PUBREL, 1))
        assert await client.ended() == 0x93


async def test_mqtt5_4_9_0_1_the_receive_maximum_holds_for_what_is_sent_again(v5):
    topic, who = name("t"), name("c")
    client = await v5.lasting(who)
    await client.subscribe(topic, 1)
    publisher = await v5.client()
    for n in range(3):
        await publisher.publish(topic, b"%d" % n, 1)
    for _ in range(3):
        await client.message(settle=False)
    await client.vanish()
    again = await v5.lasting(who, receive_maximum=1)
    for n in range(3):
        got = await again.message(settle=False)
        assert got.payload == b"%d" % n
        await again.quiet()
        await again.send(Ack(PUBACK, got.packet_id))
    await again.quiet()
    await v5.forget(who)
