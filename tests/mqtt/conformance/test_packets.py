"""Chapters 1 and 2 of both standards: strings, flags, packet identifiers."""

from __future__ import annotations

from gateway_mqtt.codec.packets import PUBACK, PUBREC, Ack, Publish, SubAck, Subscribe, Subscription, UnsubAck, Unsubscribe
from tests.mqtt.conformance.support import frame, name, no_properties, text


async def test_mqtt_1_5_3_3_mqtt5_1_5_4_3_a_byte_order_mark_is_a_character_like_others(any_level):
    topic = name("t")
    plain = await any_level.subscriber(topic)
    marked = await any_level.subscriber("\ufeff" + topic)
    publisher = await any_level.client()
    await publisher.publish("\ufeff" + topic, b"marked")
    await publisher.publish(topic, b"plain")
    assert (await marked.message()).topic == "\ufeff" + topic
    assert (await plain.message()).payload == b"plain"
    await marked.quiet()


async def test_mqtt_2_2_2_1_mqtt5_2_1_3_1_all_that_the_broker_sends_has_the_flags_of_the_table(any_level):
    topic = name("t")
    client = await any_level.client()
    await client.send(Subscribe(1, (Subscription(topic, 2),)), Publish(topic, b"", 2, packet_id=2))
    heads = {head >> 4: head & 15 for head, _ in [await client.raw() for _ in range(3)]}
    assert heads == {9: 0, 5: 0, 3: 4}
    await client.send(frame(0x50, b"\0\1"), frame(0x62, b"\0\2"), Unsubscribe(3, (topic,)), frame(0xC0))
    heads = {head >> 4: head & 15 for head, _ in [await client.raw() for _ in range(4)]}
    assert heads == {6: 2, 7: 0, 11: 0, 13: 0}


async def test_mqtt_2_3_1_5_mqtt5_2_2_1_2_a_publish_at_qos_0_has_no_identifier(any_level):
    topic = name("t")
    watcher = await any_level.subscriber(topic)
    publisher = await any_level.client()
    await publisher.send(frame(0x30, text(topic.encode()), no_properties(any_level.level), b"\0\1"))
    assert await watcher.raw() == (0x30, text(topic.encode()) + no_properties(any_level.level) + b"\0\1")


async def test_mqtt_2_3_1_4_mqtt5_2_2_1_4_deliveries_have_identifiers_of_their_own_that_are_not_in_use(any_level):
    topic = name("t")
    watcher = await any_level.subscriber(topic, 2)
    publisher = await any_level.client()
    for qos in (1, 2, 1, 2):
        await publisher.publish(topic, qos=qos)
    seen = [(await watcher.message(settle=False)).packet_id for _ in range(4)]
    assert 0 not in seen
    assert len(set(seen)) == 4


async def test_mqtt_2_3_1_6_mqtt5_2_2_1_5_answers_carry_the_identifier_of_their_publish(any_level):
    topic = name("t")
    publisher = await any_level.client()
    for packet_id in (1, 0x1234, 65_535):
        await publisher.send(Publish(topic, b"", 1, packet_id=packet_id))
        await publisher.acknowledgement(PUBACK, packet_id)
        await publisher.send(Publish(topic, b"", 2, packet_id=packet_id))
        await publisher.acknowledgement(PUBREC, packet_id)
        await publisher.send(Ack(6, packet_id))
        await publisher.acknowledgement(7, packet_id)


async def test_mqtt_2_3_1_7_mqtt5_2_2_1_6_suback_and_unsuback_carry_the_identifier_of_their_request(any_level):
    """[MQTT-3.8.4-2] [MQTT5-3.8.4-2] [MQTT-3.10.4-4] [MQTT5-3.10.4-4]"""
    client = await any_level.client()
    for packet_id in (1, 0x1234, 65_535):
        await client.send(Subscribe(packet_id, (Subscription(name("t"), 0),)))
        answer = await client.next()
        assert isinstance(answer, SubAck)
        assert answer.packet_id == packet_id
        await client.send(Unsubscribe(packet_id, (name("t"),)))
        answer = await client.next()
        assert isinstance(answer, UnsubAck)
        assert answer.packet_id == packet_id


async def test_mqtt5_2_2_2_1_no_properties_are_a_length_of_zero(v5):
    topic = name("t")
    client = await v5.client()
    await client.send(frame(0x82, b"\0\1", b"\0", text(topic.encode()), b"\0"))
    assert await client.raw() == (0x90, b"\0\1\0\0")
    await client.send(frame(0x30, text(topic.encode()), b"\0", b"x"))
    assert await client.raw() == (0x30, text(topic.encode()) + b"\0x")


async def test_mqtt5_1_5_7_1_both_halves_of_a_user_property_are_strings(v5):
    topic = name("t").encode()
    for pair in (
        text(b"\xff") + text(b"a"),
        text(b"a") + text(b"\xff"),
        text(b"a\0") + text(b"a"),
        text(b"a") + text(b"\xed\xa0\x80"),
    ):
        client = await v5.client()
        await client.send(frame(0x30, text(topic), frame(len(pair) + 1, b"")[:1], b"\x26", pair))
        assert await client.ended() == 0x81


async def test_mqtt_7_0_0_2_a_client_needs_nothing_that_the_standard_does_not_have(v3):
    """The broker is reached by the standard alone, over TCP: [MQTT-7.1.1-1]."""
    topic = name("t")
    client = await v3.subscriber(topic)
    await client.publish(topic, b"x")
    assert (await client.message()).payload == b"x"


async def test_mqtt5_4_2_0_1_bytes_over_tcp_arrive_in_order_and_whole(v5):
    topic = name("t")
    watcher = await v5.subscriber(topic)
    publisher = await v5.client()
    body = bytes(range(256)) * 4_000
    await publisher.publish(topic, body)
    assert (await watcher.message()).payload == body
