"""PUBLISH and what answers it: §3.3 to §3.7 of both standards, the properties of MQTT 5.0 excepted."""

from __future__ import annotations

import pytest

from gateway_mqtt.codec.packets import PUBACK, PUBCOMP, PUBREC, PUBREL, Ack, Publish
from tests.mqtt.conformance.support import name, own_broker


@pytest.mark.parametrize("qos", [1, 2])
async def test_mqtt_3_3_1_1_mqtt5_3_3_1_1_dup_is_set_when_a_message_is_sent_again(any_level, qos):
    """[MQTT-4.4.0-1] [MQTT5-4.4.0-1] [MQTT-4.6.0-1]"""
    topic, who = name("t"), name("c")
    client = await any_level.lasting(who)
    await client.subscribe(topic, qos)
    publisher = await any_level.client()
    for body in (b"1", b"2", b"3"):
        await publisher.publish(topic, body, qos)
    first = [await client.message(settle=False) for _ in range(3)]
    assert not any(message.dup for message in first)
    await client.quiet()
    await client.vanish()
    again = await any_level.lasting(who)
    second = [await again.message(settle=False) for _ in range(3)]
    assert [(m.payload, m.packet_id, m.dup) for m in second] == [(m.payload, m.packet_id, True) for m in first]
    await again.quiet()
    await any_level.forget(who)


@pytest.mark.parametrize("qos", [1, 2])
async def test_mqtt_3_3_1_3_mqtt5_3_3_1_3_the_publishers_dup_is_not_passed_on(any_level, qos):
    topic = name("t")
    watcher = await any_level.subscriber(topic, qos)
    publisher = await any_level.client()
    await publisher.send(Publish(topic, b"x", qos, dup=True, packet_id=1))
    await publisher.acknowledgement(PUBACK if qos == 1 else PUBREC, 1)
    if qos == 2:
        await publisher.send(Ack(PUBREL, 1))
        await publisher.acknowledgement(PUBCOMP, 1)
    assert not (await watcher.message()).dup


async def test_mqtt_3_3_1_2_mqtt5_3_3_1_2_a_delivery_at_qos_0_has_no_dup(any_level):
    """[MQTT-4.3.1-1] [MQTT5-4.3.1-1]"""
    topic = name("t")
    watcher = await any_level.subscriber(topic, 0)
    publisher = await any_level.client()
    for qos in (0, 1, 2):
        await publisher.publish(topic, b"x", qos)
        got = await watcher.message()
        assert (got.qos, got.dup, got.packet_id) == (0, False, 0)


async def test_mqtt_3_3_1_5_mqtt5_3_3_1_5_a_retained_message_is_kept_with_its_qos_and_replaced_by_the_next(any_level):
    """[MQTT-3.3.1-6] [MQTT-3.3.1-8] [MQTT5-3.3.1-9]"""
    topic = name("t")
    publisher = await any_level.client()
    for qos, body in ((2, b"two"), (0, b"none"), (1, b"one")):
        await publisher.publish(topic, body, qos, retain=True)
        late = await any_level.subscriber(topic, 2)
        got = await late.message()
        assert (got.payload, got.qos, got.retain, got.dup) == (body, qos, True, False)
        await late.quiet()


async def test_mqtt_3_3_1_6_every_matching_topic_has_its_retained_message(any_level):
    """[MQTT5-3.3.1-9]"""
    topic = name("t")
    publisher = await any_level.client()
    for end in ("a", "b", "b/c", "d/c"):
        await publisher.publish(f"{topic}/{end}", end.encode(), retain=True)
    await publisher.quiet()
    for pattern, ends in (("#", {"a", "b", "b/c", "d/c"}), ("+", {"a", "b"}), ("+/c", {"b/c", "d/c"}), ("b/#", {"b", "b/c"})):
        late = await any_level.subscriber(f"{topic}/{pattern}")
        got = [await late.message() for _ in ends]
        assert {message.payload.decode() for message in got} == ends
        assert all(message.retain for message in got)
        await late.quiet()


async def test_mqtt_3_3_1_7_a_retained_message_at_qos_0_displaces_the_one_before(any_level):
    """[MQTT5-3.3.1-5]"""
    topic = name("t")
    publisher = await any_level.client()
    await publisher.publish(topic, b"old", 1, retain=True)
    await publisher.publish(topic, b"new", 0, retain=True)
    await publisher.quiet()
    late = await any_level.subscriber(topic, 1)
    assert await late.messages(1) == [b"new"]
    await late.quiet()


async def test_mqtt_3_3_1_9_mqtt5_3_3_1_12_an_established_subscription_sees_no_retain_flag(any_level):
    topic = name("t")
    watcher = await any_level.subscriber(topic, 1)
    publisher = await any_level.client()
    for qos in (0, 1):
        await publisher.publish(topic, b"x", qos, retain=True)
        assert not (await watcher.message()).retain


async def test_mqtt_3_3_1_10_mqtt5_3_3_1_6_an_empty_retained_message_is_delivered_and_clears_its_topic(any_level):
    """[MQTT-3.3.1-11] [MQTT5-3.3.1-7]"""
    topic = name("t")
    publisher = await any_level.client()
    await publisher.publish(topic, b"x", 1, retain=True)
    watcher = await any_level.subscriber(topic, 1)
    assert await watcher.messages(1) == [b"x"]
    await publisher.publish(topic, b"", 1, retain=True)
    got = await watcher.message()
    assert (got.payload, got.retain) == (b"", False)
    late = await any_level.subscriber(topic, 1)
    await late.quiet()


async def test_mqtt_3_3_1_12_mqtt5_3_3_1_8_a_passing_message_leaves_the_retained_one_alone(any_level):
    topic = name("t")
    publisher = await any_level.client()
    await publisher.publish(topic, b"kept", 1, retain=True)
    await publisher.publish(topic, b"passing", 1)
    await publisher.publish(topic, b"", 1)
    late = await any_level.subscriber(topic, 1)
    assert await late.messages(1) == [b"kept"]
    await late.quiet()


async def test_mqtt_3_3_2_3_mqtt5_3_3_2_3_a_delivery_has_a_topic_that_matches(any_level):
    topic = name("t")
    watcher = await any_level.subscriber(f"{topic}/+/c")
    publisher = await any_level.client()
    for end in ("a/c", "a/b", "c", "a/b/c", "/c", "x/c"):
        await publisher.publish(f"{topic}/{end}", end.encode())
    got = [(message := await watcher.message()).topic == f"{topic}/{message.payload.decode()}" for _ in range(3)]
    assert all(got)
    await watcher.quiet()


async def test_mqtt_3_3_4_1_mqtt5_3_3_4_1_a_publish_is_answered_as_its_qos_says(any_level):
    """[MQTT5-3.4.2-1] [MQTT5-3.5.2-1] [MQTT5-3.7.2-1]"""
    topic = name("t")
    await any_level.subscriber(topic)
    publisher = await any_level.client()
    await publisher.send(Publish(topic, b"0"), Publish(topic, b"1", 1, packet_id=1), Publish(topic, b"2", 2, packet_id=2))
    assert (await publisher.acknowledgement(PUBACK, 1)).code == 0
    assert (await publisher.acknowledgement(PUBREC, 2)).code == 0
    await publisher.send(Ack(PUBREL, 2))
    assert (await publisher.acknowledgement(PUBCOMP, 2)).code == 0
    await publisher.quiet()


async def test_mqtt5_3_4_2_1_mqtt5_3_5_2_1_nobody_matched_is_no_error(v5):
    publisher = await v5.client()
    assert await publisher.publish(name("t"), b"x", 1) in {0x00, 0x10}
    assert await publisher.publish(name("t"), b"x", 2) in {0x00, 0x10}


async def test_mqtt5_3_7_2_1_a_pubrel_of_nothing_is_answered_with_not_found(v5):
    """[MQTT5-3.6.2-1]"""
    client = await v5.client()
    await client.send(Ack(PUBREL, 77))
    assert (await client.acknowledgement(PUBCOMP, 77)).code == 0x92
    await client.quiet()


async def test_mqtt5_3_6_2_1_a_pubrec_of_nothing_is_answered_with_not_found(v5):
    client = await v5.client()
    await client.send(Ack(PUBREC, 77))
    assert (await client.acknowledgement(PUBREL, 77)).code == 0x92
    await client.quiet()


async def test_mqtt_4_3_3_2_mqtt5_4_3_3_11_a_pubrel_is_always_answered(any_level):
    """The exchange may have ended where its PUBCOMP was lost."""
    topic = name("t")
    client = await any_level.client()
    await client.publish(topic, b"x", 2)
    await client.send(Ack(PUBREL, 1))
    await client.acknowledgement(PUBCOMP, 1)
    await client.quiet()


@pytest.mark.parametrize("granted", [0, 1, 2])
@pytest.mark.parametrize("sent", [0, 1, 2])
async def test_mqtt_3_8_4_6_mqtt5_3_8_4_8_the_lower_quality_of_service_holds(any_level, sent, granted):
    topic = name("t")
    watcher = await any_level.subscriber(topic, granted)
    publisher = await any_level.client()
    await publisher.publish(topic, b"x", sent)
    assert (await watcher.message()).qos == min(sent, granted)


async def test_mqtt_3_3_5_1_mqtt5_3_3_4_2_the_highest_of_overlapping_subscriptions_holds(any_level):
    topic = name("t")
    watcher = await any_level.subscriber(f"{topic}/#", 0)
    await watcher.subscribe(f"{topic}/+", 2)
    await watcher.subscribe(f"{topic}/a", 1)
    publisher = await any_level.client()
    await publisher.publish(f"{topic}/a", b"x", 2)
    assert (await watcher.message()).qos == 2
    await watcher.quiet()


async def test_mqtt_3_3_5_2_a_publish_that_is_not_allowed_closes_the_connection(v3):
    """Topics that begin with $ are the broker's own: clients may not write $SYS."""
    watcher = await v3.subscriber("$SYS/broker/forged", 1)
    client = await v3.client()
    await client.send(Publish("$SYS/broker/forged", b"x", 1, packet_id=1))
    answer = await client.next()
    assert answer is None or answer == Ack(PUBACK, 1)
    await watcher.quiet()


async def test_mqtt5_3_4_2_1_a_publish_that_is_not_allowed_is_answered_with_a_reason(v5):
    client = await v5.client()
    watcher = await v5.subscriber("$SYS/broker/forged", 1)
    for topic in ("$SYS", "$SYS/broker/forged", "$share/group/topic"):
        for qos in (1, 2):
            assert await client.publish(topic, b"x", qos) == 0x87
    await client.quiet()
    await watcher.quiet()


async def test_mqtt_4_5_0_1_mqtt5_4_5_0_1_an_accepted_message_reaches_every_matching_session(any_level):
    topic = name("t")
    watchers = [await any_level.subscriber(pattern, qos) for pattern in (topic, f"{topic}/#", "+") for qos in (0, 1, 2)]
    publisher = await any_level.client()
    await publisher.publish(topic, b"x", 2)
    for watcher in watchers:
        while (await watcher.message()).payload != b"x":
            pass  # '+' sees other tests' messages, too


async def test_mqtt_4_8_0_2_a_message_that_finds_no_room_ends_the_connection_and_is_not_acknowledged(v3):
    """[MQTT-3.3.5-2]"""
    async with own_broker(4, session_max_messages=1) as place:
        client = await place.lasting("p")
        await client.subscribe("a", 1)
        await client.leave()
        publisher = await place.client()
        await publisher.publish("a", b"fits", 1)
        await publisher.send(Publish("a", b"does not", 1, packet_id=9))
        assert await publisher.raw() is None


async def test_mqtt5_3_4_2_1_a_message_that_finds_no_room_is_answered_with_quota_exceeded(v5):
    async with own_broker(5, session_max_messages=1) as place:
        client = await place.lasting("p")
        await client.subscribe("a", 1)
        await client.leave()
        publisher = await place.client()
        assert await publisher.publish("a", b"fits", 1) == 0
        assert await publisher.publish("a", b"does not", 1) == 0x97
        assert await publisher.publish("a", b"does not", 2) == 0x97
        assert await publisher.publish("b", b"elsewhere", 1) in {0, 0x10}
