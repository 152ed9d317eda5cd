"""What subscribers are told and sent: SUBACK, wildcards, overlaps, retained messages, unsubscribing."""

from __future__ import annotations

import pytest

from gateway.api import Message, Principal
from gateway.errors import JournalError
from gateway_mqtt.codec.packets import PUBACK, Ack, Publish, SubAck, Subscribe, Subscription, UnsubAck, Unsubscribe
from gateway_mqtt.codec.reasons import NO_SUBSCRIPTION_EXISTED, UNSPECIFIED_ERROR
from tests.mqtt.level5 import connected
from tests.mqtt.support import mqtt_broker, until


async def test_the_suback_has_one_code_per_filter_in_order_mqtt_3_8_4_5_mqtt_3_9_3_1():
    async with mqtt_broker() as bench:
        client = await bench.client()
        await client.send(Subscribe(77, (Subscription("a", 1), Subscription("b/#", 0), Subscription("+/c", 1))))
        assert await client.next() == SubAck(77, b"\1\0\1")


@pytest.mark.parametrize("maximum", [0, 1, 2])
async def test_no_more_than_the_maximum_qos_is_granted_mqtt_3_8_4_6(maximum):
    async with mqtt_broker(maximum_qos=maximum) as bench:
        client = await bench.client()
        assert await client.subscribe("a", qos=2) == bytes((maximum,))


async def test_a_suback_of_a_persistent_session_comes_after_the_commit():
    async with mqtt_broker() as bench:
        client = await bench.client("p", clean=False)
        bench.journal.automatic = False
        await client.send(Subscribe(5, (Subscription("a", 1),)))
        await until(lambda: bench.journal.writes)
        await client.ping()
        bench.journal.finish()
        assert await client.next() == SubAck(5, b"\1")


@pytest.mark.parametrize(
    ("pattern", "topic", "matches"),
    [
        ("sport/+/player1", "sport/tennis/player1", True),
        ("sport/#", "sport", True),
        ("sport/#", "sport/tennis/player1/ranking", True),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("+", "finance", True),
        ("#", "/", True),
        ("/", "/", True),
        ("a/#", "b/a", False),
        ("v1.2/+", "v1.2/x", True),
        ("v1.2/+", "v1/2/x", False),
        ("*/x", "a/x", False),
        ("*/x", "*/x", True),
        ("ACCOUNTS", "Accounts", False),  # [MQTT-4.7.3-4]
        ("#", "$own/x", False),  # [MQTT-4.7.2-1]
        ("+/x", "$own/x", False),
        ("$own/#", "$own/x", True),
        ("a/+", "a/$x", True),
    ],
)
async def test_filters_match_as_mqtt_4_7_says(pattern, topic, matches):
    async with mqtt_broker(sys_interval_s=0) as bench:
        client = await bench.client()
        await client.subscribe(pattern)
        await client.publish(topic, b"x", retain=True)
        if matches:
            assert await client.next() == Publish(topic, b"x")
        await client.ping()
        again = await bench.client()
        await again.subscribe(pattern)
        if matches:
            assert await again.next() == Publish(topic, b"x", retain=True)
        await again.ping()


async def test_overlapping_filters_bring_one_message_with_the_highest_qos_mqtt_3_3_5_1():
    async with mqtt_broker() as bench:
        client = await bench.client()
        await client.send(Subscribe(1, (Subscription("a/#", 0), Subscription("a/+", 1), Subscription("a/b", 0))))
        await client.next()
        publisher = await bench.client()
        await publisher.publish("a/b", b"x", qos=1)
        assert await client.next() == Publish("a/b", b"x", 1, packet_id=1)
        await client.ping()


async def test_subscribing_again_replaces_the_qos_mqtt_3_8_4_3():
    async with mqtt_broker() as bench:
        client = await bench.client()
        await client.subscribe("a", qos=0)
        await client.subscribe("a", qos=1)
        publisher = await bench.client()
        await publisher.publish("a", b"x", qos=1)
        assert (await client.next()).qos == 1
        await client.subscribe("a", qos=0)
        await publisher.publish("a", b"y", qos=1)
        assert await client.next() == Publish("a", b"y")
        await client.ping()


async def test_unsubscribing_ends_delivery_and_is_acknowledged_even_if_nothing_was_there_mqtt_3_10_4_5():
    async with mqtt_broker() as bench:
        client = await bench.client()
        await client.subscribe("a", "b")
        await client.send(Unsubscribe(9, ("a", "never", "a")))
        assert await client.next() == UnsubAck(9)
        await client.send(Unsubscribe(10, ("never",)))
        assert await client.next() == UnsubAck(10)
        await client.publish("a", b"x")
        await client.publish("b", b"y")
        assert await client.next() == Publish("b", b"y")


async def test_an_unsuback_of_what_the_journal_refuses_says_so_with_a_code_that_it_may_carry_mqtt5_3_11_3_2():
    async with mqtt_broker(limits={"refuse_after_ms": 0}) as bench:
        client = await connected(bench, "p", session_expiry_s=100)
        await client.subscribe("a", 1)
        bench.journal.automatic = False
        await client.send(Unsubscribe(9, ("a", "never")))
        await until(lambda: bench.journal.writes)
        bench.journal.finish(JournalError("disk full"))
        assert await client.next() == UnsubAck(9, bytes((UNSPECIFIED_ERROR, NO_SUBSCRIPTION_EXISTED)))
        bench.journal.automatic = True
        await until(lambda: bench.journal.writes or bench.broker.engine.refusal is None)
        if bench.journal.writes:
            bench.journal.finish()
        await until(lambda: bench.broker.engine.refusal is None)
        assert await client.unsubscribe("a") == b"\0", "what was refused may be asked for again"
        assert await client.unsubscribe("a") == bytes((NO_SUBSCRIPTION_EXISTED,))


async def test_what_was_sent_before_an_unsubscribe_is_completed_mqtt_3_10_4_3():
    async with mqtt_broker() as bench:
        client = await bench.client("c", clean=False)
        await client.subscribe("a", qos=1)
        publisher = await bench.client()
        await publisher.publish("a", b"x", qos=1)
        sent = await client.next()
        await client.send(Unsubscribe(9, ("a",)), Ack(PUBACK, sent.packet_id))
        assert await client.next() == UnsubAck(9)
        await client.ping()
        assert bench.queue("c").count == 0


async def test_subscriptions_beyond_the_limit_are_refused_and_told_once():
    async with mqtt_broker(max_subscriptions=3) as bench:
        client = await bench.client()
        assert await client.subscribe("a", "b", "c", "d", "e") == b"\0\0\0\x80\x80"
        assert await client.subscribe("f") == b"\x80"
        assert await client.subscribe("b") == b"\0"  # it is there already
        await client.send(Unsubscribe(9, ("a",)))
        await client.next()
        assert await client.subscribe("f") == b"\0"
        assert bench.logged("subscriptions were refused") == 2
        assert bench.counted("mqtt.subscriptions_refused") == 3


async def test_deep_and_malformed_filters_are_refused_without_harm_to_others():
    async with mqtt_broker(max_topic_levels=4) as bench:
        client = await bench.client()
        assert await client.subscribe("a/b/c/d/e", "$share/g", "$share//a", "$share/g/a", "a/b/c/d") == b"\x80\x80\x80\0\0"


async def test_a_ten_thousand_filters_in_one_packet_are_answered_and_nobody_else_waits():
    async with mqtt_broker(max_subscriptions=100, max_filters_per_packet=10_000) as bench:
        other = await bench.client()
        client = await bench.client()
        await client.send(Subscribe(1, tuple(Subscription(f"t/{n}", 0) for n in range(10_000))))
        await other.ping()
        answer = await client.next()
        assert answer.codes == b"\0" * 100 + b"\x80" * 9_900


async def test_retained_messages_come_after_the_suback_flagged_and_live_ones_unflagged_mqtt_3_3_1_8_mqtt_3_3_1_9():
    async with mqtt_broker() as bench:
        publisher = await bench.client()
        await publisher.publish("s/1", b"one", retain=True, qos=1)
        await publisher.publish("s/2", b"two", retain=True)
        client = await bench.client()
        assert await client.subscribe("s/#", qos=1) == b"\1"
        got = await client.take(2)
        assert sorted(got, key=lambda packet: packet.topic) == [
            Publish("s/1", b"one", 1, retain=True, packet_id=1),
            Publish("s/2", b"two", retain=True),
        ]
        await publisher.publish("s/1", b"three", retain=True)
        assert await client.next() == Publish("s/1", b"three")


async def test_an_empty_retained_message_clears_and_is_delivered_mqtt_3_3_1_10_mqtt_3_3_1_11():
    async with mqtt_broker() as bench:
        client = await bench.client()
        await client.subscribe("s")
        await client.publish("s", b"x", retain=True)
        await client.publish("s", b"", retain=True)
        assert await client.take(2) == [Publish("s", b"x"), Publish("s", b"")]
        await client.subscribe("s")
        await client.ping()


async def test_a_message_without_retain_leaves_the_retained_one_mqtt_3_3_1_12():
    async with mqtt_broker() as bench:
        client = await bench.client()
        await client.publish("s", b"kept", retain=True)
        await client.publish("s", b"passing")
        await client.subscribe("s")
        assert await client.next() == Publish("s", b"kept", retain=True)


async def test_the_puback_of_a_retained_publish_comes_after_its_commit_mqtt_3_3_1_5():
    async with mqtt_broker() as bench:
        client = await bench.client()
        bench.journal.automatic = False
        await client.send(Publish("s", b"x", 1, retain=True, packet_id=3))
        await until(lambda: bench.journal.writes)
        await client.ping()
        bench.journal.finish()
        assert await client.next() == Ack(PUBACK, 3)


async def test_subscribing_again_sends_retained_messages_again_mqtt_3_8_4_3():
    async with mqtt_broker() as bench:
        client = await bench.client()
        await client.publish("s", b"x", retain=True)
        for _ in range(2):
            await client.subscribe("s")
            assert await client.next() == Publish("s", b"x", retain=True)


async def test_retained_messages_of_qos_1_keep_to_the_window_and_go_on_with_the_pubacks():
    async with mqtt_broker(max_inflight=2) as bench:
        publisher = await bench.client()
        for n in range(5):
            await publisher.publish(f"s/{n}", b"%d" % n, retain=True, qos=1)
        client = await bench.client()
        await client.subscribe("s/#", qos=1)
        got = await client.take(2)
        await client.ping()
        await publisher.publish("s/live", b"live", qos=1)
        await client.ping()  # the window is one for both
        while len(got) < 6:
            await client.send(Ack(PUBACK, got[-2].packet_id))
            got.append(await client.next())
        assert sorted(packet.payload for packet in got if packet.retain) == [b"0", b"1", b"2", b"3", b"4"]
        live = [packet.payload for packet in got if not packet.retain]
        assert live == [b"live"]
        assert got[-1].retain, "it waits for a place, not for all that is retained"


async def test_a_live_message_does_not_wait_for_ten_thousand_retained_ones_and_all_arrive():
    async with mqtt_broker() as bench:
        publisher = await bench.client()
        await publisher.send(*(Publish(f"s/{n}", b"x" * 100, retain=True) for n in range(10_000)))
        await publisher.ping()
        client = await bench.client()
        await client.subscribe("s/#")
        await publisher.publish("s/live", b"now")
        got = await client.take(10_001)
        assert len({packet.topic for packet in got}) == 10_001
        assert Publish("s/live", b"now") in got


async def test_a_key_that_mqtt_cannot_carry_is_given_back_and_counted():
    async with mqtt_broker() as bench:
        client = await bench.client()
        await client.subscribe("#", qos=1)
        channel = bench.broker.gateway("other", print, bench.log).open_channel(Principal("x"))
        for key in ("a.#.b", "a.+.c", "a.\0", ""):
            for persistent in (False, True):
                route = channel.route("amq.topic", key.replace("+", "*"))
                channel.post(route, Message(route.address, b"x", persistent))
        await client.publish("ok", b"y", qos=0)
        assert await client.next() == Publish("ok", b"y")
        await client.ping()
        assert bench.counted("mqtt.undeliverable") == 8
        assert not bench.queue(next(name for name in bench.broker.engine.vhost("/").queues)[13:]).count


async def test_no_local_holds_for_what_is_published_right_behind_the_subscribe_mqtt5_3_8_3_3():
    async with mqtt_broker() as bench:
        client = await connected(bench)
        await client.publish("t", b"before", 1)  # its route is known, and shared with others
        subscribe = Subscribe(1, (Subscription("t", 1, no_local=True),))
        await client.send(subscribe, Publish("t", b"own", 1, packet_id=2), Publish("t", b"own"))
        assert [type(packet) for packet in await client.take(2)] == [SubAck, Ack]
        other = await connected(bench, "other")
        await other.publish("t", b"other's", 1)
        assert (await client.next()).payload == b"other's"
