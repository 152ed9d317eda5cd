"""Wills: §3.1.2.5 of both standards, and the will's delay and properties of MQTT 5.0."""

from __future__ import annotations

import pytest
import trio

from gateway_mqtt.codec.packets import Disconnect, Will
from gateway_mqtt.codec.properties import Properties
from tests.mqtt.conformance.support import name, own_broker, own_time


async def test_mqtt_3_1_2_8_mqtt5_3_1_2_8_a_will_is_published_when_the_connection_is_lost(any_level):
    """[MQTT5-3.1.2-7] [MQTT-3.1.2-9] [MQTT5-3.1.2-9]"""
    topic = name("t")
    watcher = await any_level.subscriber(topic, 2)
    for qos in (0, 1, 2):
        client = await any_level.client(will=Will(topic, b"lost", qos))
        await client.vanish()
        got = await watcher.message()
        assert (got.payload, got.qos, got.retain) == (b"lost", qos, False)
    await watcher.quiet()


async def test_mqtt_3_1_2_10_mqtt5_3_1_2_10_a_will_is_published_once(any_level):
    topic, who = name("t"), name("c")
    watcher = await any_level.subscriber(topic)
    client = await any_level.lasting(who, will=Will(topic, b"lost"))
    await client.vanish()
    assert await watcher.messages(1) == [b"lost"]
    again = await any_level.lasting(who)
    await again.vanish()
    await any_level.forget(who)
    await watcher.quiet()


async def test_mqtt_3_14_4_3_mqtt5_3_14_4_3_a_goodbye_discards_the_will(any_level):
    """[MQTT-3.1.2-10] [MQTT5-3.1.2-10]"""
    topic = name("t")
    watcher = await any_level.subscriber(topic)
    client = await any_level.client(will=Will(topic, b"lost"))
    await client.leave()
    await any_level.forget(client.client_id)
    await watcher.quiet()


async def test_mqtt_3_1_2_12_a_client_without_a_will_leaves_silently(any_level):
    async with own_broker(any_level.level) as place:
        watcher = await place.subscriber("#")
        client = await place.client()
        await client.vanish()
        await place.forget(client.client_id)
        await watcher.quiet()


async def test_mqtt_3_1_2_16_mqtt5_3_1_2_14_a_will_that_is_not_retained_is_not_kept(any_level):
    topic = name("t")
    watcher = await any_level.subscriber(topic)
    client = await any_level.client(will=Will(topic, b"lost", 1))
    await client.vanish()
    assert await watcher.messages(1) == [b"lost"]
    late = await any_level.subscriber(topic)
    await late.quiet()


async def test_mqtt_3_1_2_17_mqtt5_3_1_2_15_a_will_that_is_retained_is_kept(any_level):
    topic = name("t")
    watcher = await any_level.subscriber(topic)
    client = await any_level.client(will=Will(topic, b"lost", 1, retain=True))
    await client.vanish()
    assert not (await watcher.message()).retain
    late = await any_level.subscriber(topic, 1)
    got = await late.message()
    assert (got.payload, got.retain, got.qos) == (b"lost", True, 1)


async def test_mqtt_3_1_4_2_mqtt5_3_1_2_8_a_takeover_publishes_the_will_of_a_session_that_ends(any_level):
    topic, who = name("t"), name("c")
    watcher = await any_level.subscriber(topic)
    await any_level.client(who, will=Will(topic, b"lost"))
    await any_level.client(who)
    assert await watcher.messages(1) == [b"lost"]


@pytest.mark.parametrize("code", [0x04, 0x80, 0x81, 0x93])
async def test_mqtt5_3_14_4_3_a_goodbye_with_another_code_publishes_the_will(v5, code):
    """[MQTT5-3.1.2-10]"""
    topic = name("t")
    watcher = await v5.subscriber(topic)
    client = await v5.client(will=Will(topic, b"lost"))
    await client.send(Disconnect(code))
    assert await client.raw() is None
    assert await watcher.messages(1) == [b"lost"]


async def test_mqtt5_3_1_2_8_mqtt5_3_1_3_9_a_will_waits_for_its_delay_or_its_sessions_end_unless_its_client_is_back(
    autojump_clock,
):
    async with own_time(autojump_clock, 5) as v5:
        topic, delayed, expiring, back = name("t"), name("c"), name("c"), name("c")
        watcher = await v5.subscriber(topic)
        clients = [
            await v5.lasting(delayed, will=Will(topic, b"delayed", properties=Properties(will_delay_s=1))),
            await v5.lasting(expiring, expiry_s=1, will=Will(topic, b"expired", properties=Properties(will_delay_s=100))),
            await v5.lasting(back, will=Will(topic, b"back", properties=Properties(will_delay_s=1))),
        ]
        start = trio.current_time()
        for client in clients:
            await client.vanish()
        await watcher.quiet()
        again = await v5.lasting(back)
        assert set(await watcher.messages(2)) == {b"delayed", b"expired"}
        assert 0.9 <= trio.current_time() - start <= 1.1
        await trio.sleep(0.3)
        await watcher.quiet()
        await again.leave(session_expiry_s=0)
        await watcher.quiet()
        await v5.forget(delayed)


async def test_mqtt5_3_1_2_8_a_will_does_not_wait_where_the_session_ends_with_the_connection(v5):
    topic = name("t")
    watcher = await v5.subscriber(topic)
    client = await v5.client(will=Will(topic, b"at once", properties=Properties(will_delay_s=100)))
    await client.vanish()
    assert await watcher.messages(1) == [b"at once"]


async def test_mqtt5_3_1_2_8_a_clean_start_ends_the_session_and_so_the_delay(v5):
    topic, who = name("t"), name("c")
    watcher = await v5.subscriber(topic)
    client = await v5.lasting(who, will=Will(topic, b"lost", properties=Properties(will_delay_s=100)))
    await client.vanish()
    await v5.client(who)
    assert await watcher.messages(1) == [b"lost"]


async def test_mqtt5_3_1_3_10_a_will_is_published_with_its_properties_in_order(v5):
    topic = name("t")
    user = (("b", "1"), ("a", "2"), ("b", "3"))
    watcher = await v5.subscriber(topic, 1)
    given = Properties(user=user, content_type="text/plain", response_topic="answer", correlation_data=b"\0\1", payload_format=1)
    client = await v5.client(will=Will(topic, b"lost", 1, properties=given))
    await client.vanish()
    assert (await watcher.message()).properties == given
