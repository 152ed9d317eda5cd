"""Shared subscriptions: §4.8.2 of MQTT 5.0."""

from __future__ import annotations

import pytest

from gateway_mqtt.codec.packets import PUBACK, PUBREC, Ack, Publish
from tests.mqtt.conformance.support import name


async def drained(clients):
    """Return what each client has been sent so far."""
    seen = []
    for client in clients:
        got = []
        await client.send(b"\xc0\0")
        while isinstance(packet := await client.next(), Publish):
            got.append(packet.payload)
            if packet.qos == 1:
                await client.send(Ack(PUBACK, packet.packet_id))
        seen.append(got)
    return seen


@pytest.mark.parametrize("qos", [0, 1])
async def test_mqtt5_4_8_2_1_each_message_goes_to_one_of_the_group(any_level, qos):
    topic = name("t")
    share = f"$share/{name('g')}/{topic}"
    group = [await any_level.subscriber(share, qos) for _ in range(3)]
    plain = await any_level.subscriber(topic, qos)
    publisher = await any_level.client()
    sent = [b"%d" % n for n in range(12)]
    for body in sent:
        await publisher.publish(topic, body, 1)
    assert await plain.messages(12) == sent
    got = await drained(group)
    assert sorted(body for bodies in got for body in bodies) == sorted(sent)
    assert all(got)


async def test_mqtt5_4_8_2_2_groups_are_apart_and_filters_have_wildcards(v5):
    topic = name("t")
    one = await v5.subscriber(f"$share/{name('g')}/{topic}/+", 1)
    two = await v5.subscriber(f"$share/{name('g')}/{topic}/#", 1)
    publisher = await v5.client()
    await publisher.publish(f"{topic}/a", b"x", 1)
    assert await one.messages(1) == await two.messages(1) == [b"x"]


async def test_mqtt5_4_8_2_3_each_has_the_quality_of_service_that_it_was_granted(v5):
    topic = name("t")
    share = f"$share/{name('g')}/{topic}"
    group = [await v5.subscriber(share, qos) for qos in (0, 1, 2)]
    publisher = await v5.client()
    for _ in range(9):
        await publisher.publish(topic, b"x", 2)
    seen = 0
    for granted, client in enumerate(group):
        await client.send(b"\xc0\0")
        while isinstance(packet := await client.next(), Publish):
            assert packet.qos == granted
            seen += 1
    assert seen == 9


async def test_mqtt5_4_8_2_4_a_delivery_of_qos_2_that_began_is_completed_when_the_client_is_back(v5):
    topic, who = name("t"), name("c")
    share = f"$share/{name('g')}/{topic}"
    client = await v5.lasting(who)
    await client.subscribe(share, 2)
    publisher = await v5.client()
    await publisher.publish(topic, b"x", 2)
    got = await client.message(settle=False)
    other = await v5.subscriber(share, 2)
    await client.vanish()
    await other.quiet()
    again = await v5.lasting(who)
    second = await again.message()
    assert (second.payload, second.packet_id, second.dup) == (b"x", got.packet_id, True)
    await other.quiet()
    await v5.forget(who)


async def test_mqtt5_4_8_2_5_if_that_session_ends_nobody_else_gets_it(v5):
    topic, who = name("t"), name("c")
    share = f"$share/{name('g')}/{topic}"
    client = await v5.lasting(who)
    await client.subscribe(share, 2)
    publisher = await v5.client()
    await publisher.publish(topic, b"x", 2)
    await client.message(settle=False)
    other = await v5.subscriber(share, 2)
    await client.vanish()
    await v5.forget(who)
    await publisher.publish(topic, b"y", 2)
    assert await other.messages(1) == [b"y"]
    await other.quiet()


async def test_mqtt5_4_8_2_5_nor_if_it_ends_with_the_connection(v5):
    topic = name("t")
    share = f"$share/{name('g')}/{topic}"
    client = await v5.subscriber(share, 2)
    publisher = await v5.client()
    await publisher.publish(topic, b"x", 2)
    await client.message(settle=False)
    other = await v5.subscriber(share, 2)
    await client.vanish()
    await v5.forget(client.client_id)
    await publisher.publish(topic, b"y", 2)
    assert await other.messages(1) == [b"y"]
    await other.quiet()


@pytest.mark.parametrize("qos", [1, 2])
async def test_mqtt5_4_8_2_6_what_one_refuses_goes_to_nobody_else(v5, qos):
    topic = name("t")
    share = f"$share/{name('g')}/{topic}"
    client = await v5.subscriber(share, qos)
    publisher = await v5.client()
    await publisher.publish(topic, b"refused", qos)
    got = await client.message(settle=False)
    other = await v5.subscriber(share, qos)
    await client.send(Ack(PUBACK if qos == 1 else PUBREC, got.packet_id, 0x80))
    await client.quiet()
    await other.quiet()
    await client.vanish()
    await v5.forget(client.client_id)
    await publisher.publish(topic, b"next", qos)
    assert await other.messages(1) == [b"next"]
    await other.quiet()


async def test_mqtt5_4_8_2_1_a_group_keeps_messages_of_its_lasting_members(v5):
    topic, who = name("t"), name("c")
    share = f"$share/{name('g')}/{topic}"
    client = await v5.lasting(who)
    await client.subscribe(share, 1)
    await client.leave()
    publisher = await v5.client()
    await publisher.publish(topic, b"away", 1)
    again = await v5.lasting(who)
    assert await again.messages(1) == [b"away"]
    assert await again.unsubscribe(share) == b"\0"
    await publisher.publish(topic, b"gone", 1)
    await again.quiet()
    await v5.forget(who)


async def test_mqtt5_4_8_2_1_retained_messages_are_not_sent_to_shared_subscriptions(v5):
    topic = name("t")
    publisher = await v5.client()
    await publisher.publish(topic, b"kept", 1, retain=True)
    client = await v5.subscriber(f"$share/{name('g')}/{topic}", 1)
    await client.quiet()
