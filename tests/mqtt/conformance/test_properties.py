"""What MQTT 5.0 sends along with packets: properties, subscription options, aliases, sizes, reasons."""

from __future__ import annotations

import pytest
import trio

from gateway_mqtt.codec.packets import PUBREC, PUBREL, Ack, Connect, Publish, Subscribe, Subscription, Unsubscribe
from gateway_mqtt.codec.properties import Properties
from tests.mqtt.conformance.support import frame, name, own_time, text

USER = (("b", "1"), ("a", "2"), ("b", "1"), ("", ""), ("\u00e9", "\U0001f600"))


@pytest.mark.parametrize("granted", [0, 1, 2])
@pytest.mark.parametrize("sent", [0, 1, 2])
async def test_mqtt5_3_3_2_4_mqtt5_3_3_2_15_mqtt5_3_3_2_20_properties_are_passed_on(v5, sent, granted):
    """[MQTT5-3.3.2-16] [MQTT5-3.3.2-17] [MQTT5-3.3.2-18]"""
    topic = name("t")
    watcher = await v5.subscriber(topic, granted)
    publisher = await v5.client()
    given = {
        "payload_format": 1, "content_type": "text/plain", "response_topic": "answers/1",
        "correlation_data": b"\0\xff", "user": USER,
    }  # fmt: skip
    await publisher.publish(topic, "\u00e9".encode(), sent, **given)
    assert (await watcher.message()).properties == Properties(**given)


async def test_mqtt5_3_3_2_4_a_payload_format_of_0_is_passed_on_and_means_nothing(v5):
    topic = name("t")
    watcher = await v5.subscriber(topic)
    publisher = await v5.client()
    await publisher.publish(topic, b"\xff", 1, payload_format=0)
    got = await watcher.message()
    assert (got.payload, got.properties) == (b"\xff", Properties(payload_format=0))


async def test_mqtt5_3_3_2_17_retained_and_waiting_messages_keep_their_properties(v5):
    """[MQTT5-3.3.2-4] [MQTT5-3.3.2-16] [MQTT5-3.3.2-20]"""
    topic, who = name("t"), name("c")
    client = await v5.lasting(who)
    await client.subscribe(topic, 1)
    await client.leave()
    publisher = await v5.client()
    given = {"content_type": "x", "correlation_data": b"y", "user": USER, "response_topic": "z", "payload_format": 1}
    await publisher.publish(topic, b"x", 1, retain=True, **given)
    late = await v5.subscriber(topic)
    assert (await late.message()).properties == Properties(**given)
    again = await v5.lasting(who)
    assert (await again.message()).properties == Properties(**given)
    await v5.forget(who)


async def test_mqtt5_3_3_2_5_mqtt5_4_3_3_7_what_has_expired_is_not_delivered_unless_it_is_under_way(autojump_clock):
    """[MQTT5-3.3.2-6]"""
    async with own_time(autojump_clock, 5) as v5:
        topic, who = name("t"), name("c")
        client = await v5.lasting(who)
        await client.subscribe(topic, 2)
        publisher = await v5.client()
        await publisher.publish(topic, b"under way", 2, message_expiry_s=1)
        sent = await client.message(settle=False)
        await client.vanish()
        await trio.sleep(0.1)  # until the broker has seen it
        await publisher.publish(topic, b"short", 1, message_expiry_s=1)
        await publisher.publish(topic, b"short", 2, message_expiry_s=1)
        await publisher.publish(f"{topic}/r", b"short", 1, retain=True, message_expiry_s=1)
        await publisher.publish(topic, b"long", 1, message_expiry_s=100)
        await publisher.publish(f"{topic}/r2", b"long", 1, retain=True, message_expiry_s=100)
        await trio.sleep(1.2)
        again = await v5.lasting(who)
        got = [await again.message(settle=False) for _ in range(2)]
        assert [(m.payload, m.dup) for m in got] == [(b"under way", True), (b"long", False)]
        assert got[0].packet_id == sent.packet_id
        assert got[1].properties.message_expiry_s in {98, 99}
        await again.quiet()
        late = await v5.subscriber(f"{topic}/+")
        kept = await late.message()
        assert (kept.payload, kept.properties.message_expiry_s) in {(b"long", 98), (b"long", 99)}
        await late.quiet()
        await v5.forget(who)


async def test_mqtt5_3_3_2_6_a_message_that_does_not_wait_has_all_its_time(autojump_clock):
    async with own_time(autojump_clock, 5) as v5:
        topic = name("t")
        watcher = await v5.subscriber(topic)
        publisher = await v5.client()
        await publisher.publish(topic, b"x", message_expiry_s=7)
        assert (await watcher.message()).properties.message_expiry_s in {6, 7}


async def test_mqtt5_3_3_2_12_every_alias_up_to_the_maximum_is_taken(v5):
    topic = name("t")
    watcher = await v5.subscriber(f"{topic}/+", 1)
    client = await v5.open()
    most = (await client.connect()).properties.topic_alias_maximum
    assert most > 1
    for alias in range(1, most + 1):
        await client.send(Publish(f"{topic}/{alias}", b"named", properties=Properties(topic_alias=alias)))
    for alias in range(1, most + 1):
        await client.send(Publish("", b"alias", properties=Properties(topic_alias=alias)))
    await client.send(Publish(f"{topic}/other", b"named", properties=Properties(topic_alias=1)))
    await client.send(Publish("", b"alias", 1, packet_id=1, properties=Properties(topic_alias=1)))
    expected = [*(f"{topic}/{alias}" for alias in range(1, most + 1))] * 2 + [f"{topic}/other"] * 2
    got = [await watcher.message() for _ in expected]
    assert [message.topic for message in got] == expected
    assert all(message.properties.topic_alias is None for message in got)


async def test_mqtt5_3_3_2_7_aliases_end_with_their_connection(v5):
    topic, who = name("t"), name("c")
    client = await v5.lasting(who)
    await client.send(Publish(topic, b"x", properties=Properties(topic_alias=1)))
    await client.quiet()
    await client.vanish()
    again = await v5.lasting(who)
    await again.send(Publish("", b"x", properties=Properties(topic_alias=1)))
    assert await again.ended() == 0x82
    await v5.forget(who)


@pytest.mark.parametrize("most", [None, 0, 1, 3])
async def test_mqtt5_3_1_2_26_mqtt5_3_1_2_27_no_alias_above_the_clients_maximum(v5, most):
    """[MQTT5-3.3.2-11]"""
    topic = name("t")
    client = await v5.client(**({} if most is None else {"topic_alias_maximum": most}))
    await client.subscribe(f"{topic}/+")
    publisher = await v5.client()
    known = {}
    for n in [0, 1, 2, 3, 4, 5] * 3:
        await publisher.publish(f"{topic}/{n}", b"%d" % n, 1)
        got = await client.message()
        alias = got.properties.topic_alias
        assert alias is None or 1 <= alias <= (most or 0)
        if got.topic and alias:
            known[alias] = got.topic
        assert (got.topic or known[alias]) == f"{topic}/{n}"


async def test_mqtt5_3_3_4_3_a_delivery_says_the_subscription_identifiers(v5):
    """[MQTT5-3.3.4-4] [MQTT5-3.3.4-5]"""
    topic = name("t")
    client = await v5.client()
    await client.subscribe(f"{topic}/#", 0, subscription_id=7)
    await client.subscribe(f"{topic}/+", 1, subscription_id=268_435_455)
    await client.subscribe(f"{topic}/a", 0)
    publisher = await v5.client()
    await publisher.publish(f"{topic}/a", b"x", 1)
    got = await client.message()
    assert sorted(got.properties.subscription_ids) == [7, 268_435_455]
    await client.quiet()
    await client.subscribe(f"{topic}/+", 1)  # replaced, now without
    await publisher.publish(f"{topic}/a", b"x", 1)
    assert (await client.message()).properties.subscription_ids == (7,)


async def test_mqtt5_3_3_4_3_also_with_retained_messages_and_after_a_reconnect(v5):
    topic, who = name("t"), name("c")
    publisher = await v5.client()
    await publisher.publish(topic, b"kept", 1, retain=True)
    client = await v5.lasting(who)
    await client.subscribe(topic, 1, subscription_id=3)
    assert (await client.message()).properties.subscription_ids == (3,)
    await client.leave()
    await publisher.publish(topic, b"away", 1)
    again = await v5.lasting(who)
    assert (await again.message()).properties.subscription_ids == (3,)
    await v5.forget(who)


async def test_mqtt5_3_8_3_3_no_local_keeps_ones_own_messages_away(v5):
    topic, who = name("t"), name("c")
    client = await v5.lasting(who)
    await client.subscribe(topic, 1, no_local=True)
    await client.publish(topic, b"own", 1)
    await client.publish(topic, b"own", 0)
    other = await v5.client()
    await other.publish(topic, b"other", 1)
    assert await client.messages(1) == [b"other"]
    await client.quiet()
    await client.leave()
    again = await v5.lasting(who)
    await again.publish(topic, b"own", 1)
    await again.quiet()
    await v5.forget(who)


async def test_mqtt5_3_3_1_9_mqtt5_3_3_1_10_mqtt5_3_3_1_11_retain_handling(v5):
    topic = name("t")
    publisher = await v5.client()
    await publisher.publish(topic, b"kept", 1, retain=True)
    client = await v5.client()
    await client.subscribe(topic, 1, retain_handling=2)
    await client.quiet()
    await client.subscribe(topic, 1, retain_handling=1)  # not new
    await client.quiet()
    await client.subscribe(topic, 1, retain_handling=0)
    assert await client.messages(1) == [b"kept"]
    await client.unsubscribe(topic)
    await client.subscribe(topic, 1, retain_handling=1)
    assert await client.messages(1) == [b"kept"]
    await client.quiet()


@pytest.mark.parametrize("wanted", [False, True])
async def test_mqtt5_3_3_1_12_mqtt5_3_3_1_13_retain_as_published(v5, wanted):
    topic = name("t")
    client = await v5.client()
    await client.subscribe(topic, 1, retain_as_published=wanted)
    publisher = await v5.client()
    for qos in (0, 1):
        await publisher.publish(topic, b"x", qos, retain=True)
        assert (await client.message()).retain == wanted
        await publisher.publish(topic, b"x", qos)
        assert not (await client.message()).retain
    late = await v5.client()
    await late.subscribe(topic, 1, retain_as_published=wanted)
    assert (await late.message()).retain


async def test_mqtt5_3_1_2_24_mqtt5_3_1_2_25_a_message_too_large_for_the_client_is_passed_over(v5):
    topic = name("t")
    client = await v5.client(maximum_packet_size=100)
    await client.subscribe(topic, 2)
    publisher = await v5.client()
    for qos in (0, 1, 2):
        await publisher.publish(topic, b"x" * 200, qos)
        await publisher.publish(topic, b"x", qos, user=(("name", "v" * 200),))
    await publisher.publish(topic, b"fits", 1)
    assert await client.messages(1) == [b"fits"]
    await client.quiet()


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_mqtt5_3_1_2_24_a_packet_of_exactly_the_maximum_is_sent(v5, qos):
    topic = name("t")
    most = 60
    client = await v5.client(maximum_packet_size=most)
    await client.subscribe(topic, qos)
    publisher = await v5.client()
    room = most - 2 - 2 - len(topic) - (2 if qos else 0) - 1  # head and length, topic, identifier, property length
    for size in (room + 1, room, room - 1):
        await publisher.publish(topic, b"x" * size, qos)
    got = [await client.message(settle=False) for _ in range(2)]
    assert [message.payload for message in got] == [b"x" * room, b"x" * (room - 1)]
    await client.quiet()


@pytest.mark.parametrize("most", [1, 2, 4, 5, 10, 15, 20])
async def test_mqtt5_3_1_2_24_no_connack_is_larger_than_the_client_takes(v5, most):
    client = await v5.open()
    await client.send(Connect(name("c"), level=5, properties=Properties(maximum_packet_size=most)))
    answer = await client.raw()
    assert answer is None or len(answer[1]) + 2 <= most


async def test_mqtt5_3_1_2_24_also_if_it_waited_or_was_retained(v5):
    topic, who = name("t"), name("c")
    client = await v5.lasting(who)
    await client.subscribe(f"{topic}/+", 1)
    await client.leave()
    publisher = await v5.client()
    await publisher.publish(f"{topic}/a", b"x" * 200, 1, retain=True)
    await publisher.publish(f"{topic}/b", b"fits", 1, retain=True)
    again = await v5.lasting(who, maximum_packet_size=100)
    assert await again.messages(1) == [b"fits"]
    await again.quiet()
    late = await v5.client(maximum_packet_size=100)
    await late.subscribe(f"{topic}/+", 1)
    assert await late.messages(1) == [b"fits"]
    await late.quiet()
    await v5.forget(who)


@pytest.mark.parametrize("size", [7, 12, 30])
async def test_mqtt5_3_9_2_1_mqtt5_3_11_2_1_mqtt5_3_4_2_2_no_reason_makes_an_answer_too_large(v5, size):
    """[MQTT5-3.9.2-2] [MQTT5-3.11.2-2] [MQTT5-3.4.2-3] [MQTT5-3.5.2-2] [MQTT5-3.5.2-3] [MQTT5-3.7.2-2] [MQTT5-3.7.2-3]
    [MQTT5-3.6.2-2] [MQTT5-3.6.2-3]"""
    client = await v5.client(maximum_packet_size=size)
    await client.send(Subscribe(1, (Subscription(name("t"), 0),)))
    await client.send(Unsubscribe(2, ("nothing",)), Ack(PUBREL, 3))
    await client.send(Publish("$SYS/broker/x", b"", 1, packet_id=4), Publish("$SYS/broker/x", b"", 2, packet_id=5))
    await client.send(Ack(PUBREC, 6))
    for _ in range(6):
        _, payload = await client.raw()
        assert len(payload) + 2 <= size
    await client.quiet()


@pytest.mark.parametrize("size", [5, 20, 60])
async def test_mqtt5_3_14_2_3_no_reason_makes_the_disconnect_too_large(v5, size):
    """[MQTT5-3.14.2-4] [MQTT5-3.14.2-1] [MQTT5-3.14.2-2]"""
    client = await v5.client(maximum_packet_size=size)
    await client.send(b"\xc1\0")
    head, payload = await client.raw()
    assert head == 0xE0
    assert len(payload) + 2 <= size
    assert payload[0] == 0x81
    assert await client.raw() is None


@pytest.mark.parametrize("wanted", [False, True])
async def test_mqtt5_3_1_2_29_reasons_are_told_to_those_who_want_them(v5, wanted):
    client = await v5.client(request_problem_information=wanted)
    await client.send(Ack(PUBREL, 3), Unsubscribe(2, ("nothing",)), Publish("$SYS/broker/x", b"", 1, packet_id=4))
    answers = await client.take(3)
    for answer in answers:
        assert wanted or (answer.properties.reason_string is None and answer.properties.user == ())


async def test_mqtt5_3_1_2_29_messages_keep_their_user_properties_all_the_same(v5):
    topic = name("t")
    client = await v5.client(request_problem_information=False)
    await client.subscribe(topic)
    await client.publish(topic, b"x", user=USER)
    assert (await client.message()).properties.user == USER


async def test_mqtt5_3_3_2_1_the_order_of_properties_does_not_matter(v5):
    topic = name("t")
    watcher = await v5.subscriber(topic)
    client = await v5.client()
    one = b"\x03" + text(b"type") + b"\x26" + text(b"k") + text(b"v") + b"\x01\0"
    two = b"\x26" + text(b"k") + text(b"v") + b"\x01\0" + b"\x03" + text(b"type")
    for properties in (one, two):
        await client.send(frame(0x30, text(topic.encode()), bytes((len(properties),)), properties, b"x"))
        assert (await watcher.message()).properties == Properties(content_type="type", user=(("k", "v"),), payload_format=0)


async def test_mqtt5_3_3_4_6_users_properties_of_other_packets_are_taken_and_lead_nowhere(v5):
    """User properties of CONNECT, SUBSCRIBE, UNSUBSCRIBE, acknowledgements and DISCONNECT are for whoever wants them."""
    topic = name("t")
    client = await v5.client(user=USER)
    mine = Properties(user=USER)
    await client.send(Subscribe(1, (Subscription(topic, 1),), mine))
    assert (await client.next()).codes == b"\1"
    await (await v5.client()).publish(topic, b"x", 1)
    got = await client.message(settle=False)
    assert got.properties == Properties()
    await client.send(Ack(4, got.packet_id, 0, mine), Unsubscribe(2, (topic,), mine))
    assert (await client.next()).codes == b"\0"
    await client.leave(user=USER, reason_string="enough")
