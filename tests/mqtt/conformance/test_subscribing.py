"""SUBSCRIBE and UNSUBSCRIBE, and which topics a filter matches: §3.8 to §3.11 and §4.7 of both standards."""

from __future__ import annotations

import pytest

from gateway_mqtt.codec.packets import PUBACK, Ack, Publish, SubAck, Subscribe, Subscription, UnsubAck, Unsubscribe
from tests.mqtt.conformance.support import name, own_broker


async def test_mqtt_3_8_4_1_mqtt5_3_8_4_1_a_subscribe_is_answered(any_level):
    """[MQTT-3.8.4-2] [MQTT5-3.8.4-2]"""
    client = await any_level.client()
    await client.send(Subscribe(513, (Subscription(name("t"), 1),)))
    answer = await client.next()
    assert (answer.packet_id, answer.codes) == (513, b"\1")


async def test_mqtt_3_8_4_5_mqtt5_3_8_4_6_every_filter_has_its_code_in_their_order(any_level):
    """[MQTT-3.8.4-4] [MQTT5-3.8.4-5] [MQTT5-3.8.4-7] [MQTT-3.9.3-1] [MQTT5-3.9.3-1] [MQTT-3.9.3-2] [MQTT5-3.9.3-2]"""
    topic = name("t")
    client = await any_level.client()
    wanted = (2, 0, 1, 1, 2, 0)
    await client.send(Subscribe(1, tuple(Subscription(f"{topic}/{n}", qos) for n, qos in enumerate(wanted))))
    answer = await client.next()
    assert isinstance(answer, SubAck)
    assert tuple(answer.codes) == wanted
    publisher = await any_level.client()
    for n, qos in enumerate(wanted):
        await publisher.publish(f"{topic}/{n}", b"x", 2)
        assert (await client.message()).qos == qos


async def test_mqtt_3_9_3_2_mqtt5_3_9_3_2_a_filter_that_is_refused_has_a_code_that_says_so(any_level):
    async with own_broker(any_level.level, max_subscriptions=2) as place:
        client = await place.client()
        await client.send(Subscribe(1, tuple(Subscription(str(n), 1) for n in range(4))))
        failed = 0x97 if client.level == 5 else 0x80
        assert tuple((await client.next()).codes) == (1, 1, failed, failed)


async def test_mqtt_3_8_3_2_wildcards_that_are_switched_off_are_refused(any_level):
    """[MQTT5-3.9.3-2]"""
    async with own_broker(any_level.level, wildcards=False) as place:
        client = await place.open()
        answer = await client.connect()
        assert answer.properties.wildcard_available == (False if client.level == 5 else None)
        for pattern in ("#", "a/+", "a/#"):
            assert await client.subscribe(pattern) == (0xA2 if client.level == 5 else 0x80)
        assert await client.subscribe("a") == 0


async def test_mqtt5_3_9_3_2_features_that_are_switched_off_have_codes_of_their_own(v5):
    async with own_broker(5, shared_subscriptions=False, subscription_identifiers=False) as place:
        client = await place.open()
        answer = await client.connect()
        assert answer.properties.shared_available is False
        assert answer.properties.subscription_ids_available is False
        assert await client.subscribe("$share/g/a") == 0x9E
        assert await client.subscribe("a", subscription_id=1) == 0xA1


async def test_mqtt_3_8_4_3_mqtt5_3_8_4_3_the_same_filter_again_replaces_the_subscription(any_level):
    """[MQTT5-3.8.4-4]"""
    topic = name("t")
    publisher = await any_level.client()
    await publisher.publish(topic, b"kept", 1, retain=True)
    watcher = await any_level.subscriber(topic, 0)
    assert (await watcher.message()).retain
    await watcher.subscribe(topic, 1)
    got = await watcher.message()
    assert (got.payload, got.retain, got.qos) == (b"kept", True, 1)
    await publisher.publish(topic, b"new", 1)
    got = await watcher.message()
    assert (got.payload, got.qos) == (b"new", 1)
    await watcher.quiet()
    await watcher.unsubscribe(topic)
    await publisher.publish(topic, b"gone", 1)
    await watcher.quiet()


async def test_mqtt_3_8_4_3_mqtt5_3_8_4_4_the_flow_has_no_gap_when_a_subscription_is_replaced(any_level):
    topic = name("t")
    watcher = await any_level.subscriber(topic, 1)
    publisher = await any_level.client()
    for n in range(20):
        await publisher.publish(topic, b"%d" % n, 1)
        if n % 5 == 0:
            await watcher.send(Subscribe(100 + n, (Subscription(topic, 1),)))
    seen = []
    while len(seen) < 20:
        got = await watcher.next()
        if isinstance(got, Publish):
            seen.append(got.payload)
            await watcher.send(Ack(PUBACK, got.packet_id))
    assert seen == [b"%d" % n for n in range(20)]


async def test_mqtt_3_10_4_1_mqtt5_3_10_4_1_filters_are_compared_character_by_character(any_level):
    """[MQTT-3.10.4-2] [MQTT5-3.10.4-2]"""
    topic = name("t")
    watcher = await any_level.subscriber(f"{topic}/+", 1)
    publisher = await any_level.client()
    await watcher.unsubscribe(f"{topic}/a", f"{topic}/#", topic, f"{topic}/+/")
    await publisher.publish(f"{topic}/a", b"still", 1)
    assert await watcher.messages(1) == [b"still"]
    await watcher.unsubscribe(f"{topic}/+")
    await publisher.publish(f"{topic}/a", b"gone", 1)
    await watcher.quiet()


async def test_mqtt_3_10_4_3_mqtt5_3_10_4_3_what_has_begun_is_brought_to_its_end(any_level):
    topic, who = name("t"), name("c")
    watcher = await any_level.lasting(who)
    await watcher.subscribe(topic, 2)
    publisher = await any_level.client()
    await publisher.publish(topic, b"one", 1)
    await publisher.publish(topic, b"two", 2)
    first = [await watcher.message(settle=False) for _ in range(2)]
    await watcher.unsubscribe(topic)
    await watcher.quiet()
    await watcher.vanish()
    again = await any_level.lasting(who)
    second = [await again.message() for _ in range(2)]
    assert [(m.payload, m.packet_id) for m in second] == [(m.payload, m.packet_id) for m in first]
    await again.quiet()
    await any_level.forget(who)


async def test_mqtt_3_10_4_5_mqtt5_3_10_4_5_an_unsubscribe_of_nothing_is_answered(any_level):
    """[MQTT-3.10.4-4] [MQTT5-3.10.4-4]"""
    client = await any_level.client()
    await client.send(Unsubscribe(4_321, (name("t"),)))
    answer = await client.next()
    assert isinstance(answer, UnsubAck)
    assert answer.packet_id == 4_321
    assert answer.codes == (b"\x11" if client.level == 5 else b"")


async def test_mqtt_3_10_4_6_mqtt5_3_10_4_6_many_filters_are_left_with_one_answer(any_level):
    """[MQTT5-3.11.3-1] [MQTT5-3.11.3-2]"""
    topics = [name("t") for _ in range(4)]
    client = await any_level.client()
    await client.send(Subscribe(1, tuple(Subscription(topic, 0) for topic in topics)))
    await client.next()
    codes = await client.unsubscribe(topics[0], "nothing", topics[2])
    assert codes == (b"\0\x11\0" if client.level == 5 else b"")
    publisher = await any_level.client()
    for topic in topics:
        await publisher.publish(topic, topic.encode(), 1)
    assert await client.messages(2) == [topics[1].encode(), topics[3].encode()]
    await client.quiet()


MATCHES = {
    "sport/tennis/p1/#": (
        ["sport/tennis/p1", "sport/tennis/p1/ranking", "sport/tennis/p1/a/b"],
        ["sport/tennis"],
    ),
    "sport/#": (["sport", "sport/", "sport/a"], ["sports", "/sport"]),
    "sport/tennis/+": (["sport/tennis/p1", "sport/tennis/"], ["sport/tennis", "sport/tennis/p1/ranking"]),
    "sport/+": (["sport/"], ["sport", "sport/a/b"]),
    "+/+": (["/finance"], ["finance", "/a/b"]),
    "/+": (["/finance"], ["finance"]),
    "+": (["finance"], ["/finance", "a/"]),
    "+/a/#": (["/a", "b/a", "b/a/c"], ["a", "a/b"]),
    "/": (["/"], ["", "//"]),
    "a//b": (["a//b"], ["a/b", "a/x/b"]),
    "a/+/b": (["a//b", "a/x/b"], ["a/b"]),
}


@pytest.mark.parametrize("pattern", list(MATCHES))
async def test_mqtt_4_7_1_2_mqtt5_4_7_1_1_mqtt_4_7_1_3_mqtt5_4_7_1_2_the_standards_examples(v3, pattern):
    async with own_broker(v3.level) as place:
        fit, others = MATCHES[pattern]
        watcher = await place.subscriber(pattern, 1)
        publisher = await place.client()
        for topic in [*others, *fit]:
            if topic:
                await publisher.publish(topic, topic.encode(), 1)
        assert await watcher.messages(len(fit)) == [topic.encode() for topic in fit]
        await watcher.quiet()


async def test_mqtt_4_7_2_1_mqtt5_4_7_2_1_a_leading_wildcard_sees_no_dollar_topics(any_level):
    topic = name("$t")
    async with own_broker(any_level.level) as place:
        watchers = [await place.subscriber(pattern, 1) for pattern in ("#", "+/a", "+/+", "+/#")]
        named = await place.subscriber(f"{topic}/#", 1)
        publisher = await place.client()
        await publisher.publish(f"{topic}/a", b"x", 1)
        assert await named.messages(1) == [b"x"]
        for watcher in watchers:
            await watcher.quiet()


async def test_mqtt_4_7_2_1_mqtt5_4_7_2_1_nor_their_retained_messages(any_level):
    topic = name("$t")
    async with own_broker(any_level.level) as place:
        publisher = await place.client()
        await publisher.publish(f"{topic}/a", b"x", 1, retain=True)
        for pattern in ("#", "+/a"):
            await (await place.subscriber(pattern, 1)).quiet()
        assert await (await place.subscriber(f"{topic}/+", 1)).messages(1) == [b"x"]


@pytest.mark.parametrize("pair", [("\u00e9", "e\u0301"), ("A", "a"), (" a", "a"), ("\ufb01", "fi"), ("a.b", "a/b"), ("%61", "a")])
async def test_mqtt_4_7_3_4_mqtt5_4_7_3_4_topics_are_compared_as_they_are(any_level, pair):
    topic = name("t")
    one, other = (f"{topic}/{end}" for end in pair)
    watcher = await any_level.subscriber(one, 1)
    publisher = await any_level.client()
    await publisher.publish(other, b"other", 1)
    await publisher.publish(one, b"one", 1)
    assert await watcher.messages(1) == [b"one"]
    await watcher.quiet()


async def test_mqtt_4_7_3_1_mqtt5_4_7_3_1_one_character_is_a_topic(any_level):
    async with own_broker(any_level.level) as place:
        for topic in ("/", "a", " ", "\u00e9", "\U0001f600"):
            watcher = await place.subscriber(topic, 1)
            await watcher.publish(topic, b"x", 0)
            assert (await watcher.message()).topic == topic
            await watcher.leave()


async def test_mqtt_3_12_4_1_mqtt5_3_12_4_1_a_ping_is_answered(any_level):
    client = await any_level.client()
    for _ in range(3):
        await client.quiet()


@pytest.mark.parametrize("many", [1, 50])
async def test_mqtt_4_6_0_6_mqtt5_4_6_0_5_a_clients_messages_arrive_in_their_order(any_level, many):
    """[MQTT-4.6.0-5] [MQTT5-4.6.0-6]"""
    topic = name("t")
    watcher = await any_level.subscriber(topic, 2)
    publishers = [await any_level.client() for _ in range(2)]
    for n in range(many):
        for number, publisher in enumerate(publishers):
            await publisher.send(Publish(topic, b"%d %d" % (number, n), 1, packet_id=n + 1))
    got = [(await watcher.message()).payload.split() for _ in range(2 * many)]
    for number in range(2):
        assert [int(n) for who, n in got if int(who) == number] == list(range(many))
