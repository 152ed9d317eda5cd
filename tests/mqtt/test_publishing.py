"""What publishers may rely on: PUBACK only for what is on disk, in order, and never for what was refused."""

from __future__ import annotations

import pytest

from gateway.api import Principal
from gateway.errors import JournalError
from gateway_mqtt.codec.coding import encode
from gateway_mqtt.codec.packets import PUBACK, Ack, Connect, Publish, Will
from tests.mqtt.support import mqtt_broker, until
from tests.runtime.support import HandJournal


async def test_qos_1_is_acknowledged_after_the_commit_and_not_before_mqtt_4_3_2_2():
    async with mqtt_broker() as bench:
        away = await bench.client("away", clean=False)
        await away.subscribe("plant/#", qos=1)
        await away.leave()
        publisher = await bench.client()
        bench.journal.automatic = False
        await publisher.send(*(Publish("plant/1", b"%d" % n, 1, packet_id=n) for n in range(1, 4)))
        await until(lambda: bench.journal.writes)
        await publisher.ping()  # so nothing was sent before
        bench.journal.finish()
        assert await publisher.take(3) == [Ack(PUBACK, 1), Ack(PUBACK, 2), Ack(PUBACK, 3)]
        assert bench.journal.stored == [b"1", b"2", b"3"]


async def test_pubacks_come_in_the_order_of_the_publishes_mqtt_4_6_0_2():
    async with mqtt_broker() as bench:
        publisher = await bench.client()
        identifiers = [7, 3, 65_535, 1, 200]
        await publisher.send(*(Publish("t", b"x", 1, packet_id=n) for n in identifiers))
        assert await publisher.take(5) == [Ack(PUBACK, n) for n in identifiers]


async def test_what_reaches_nobody_is_acknowledged():
    async with mqtt_broker() as bench:
        publisher = await bench.client()
        await publisher.publish("nobody", b"x", qos=1)
        assert bench.broker.counters["unroutable"] == 1


async def test_subscribes_between_publishes_do_not_disturb_the_pubacks():
    async with mqtt_broker() as bench:
        client = await bench.client()
        subscribe = b"\x82\x06\x00\x09\x00\x01a\x00"
        await client.send(Publish("x", b"1", 1, packet_id=4), subscribe, Publish("x", b"2", 1, packet_id=5))
        answers = [await client.next() for _ in range(3)]
        assert [a for a in answers if isinstance(a, Ack)] == [Ack(PUBACK, 4), Ack(PUBACK, 5)]
        await client.publish("x", b"3", qos=1)


async def test_a_full_session_refuses_earlier_publishes_are_acknowledged_and_the_connection_closes():
    async with mqtt_broker(session_max_messages=2) as bench:
        away = await bench.client("away", clean=False)
        await away.subscribe("t", qos=1)
        await away.leave()
        publisher = await bench.client("busy")
        await publisher.send(*(Publish("t", b"%d" % n, 1, packet_id=n) for n in range(1, 6)))
        assert await publisher.take(3) == [Ack(PUBACK, 1), Ack(PUBACK, 2), None]
        assert bench.counted("mqtt.publishes_refused") == 1
        assert bench.logged("a publish was refused: connection closed") == 1
        assert bench.journal.stored == [b"1", b"2"]
        assert bench.queue("away").count == 2


async def test_a_publish_refused_with_a_will_has_the_will_published_mqtt_3_1_2_8():
    async with mqtt_broker(session_max_messages=1) as bench:
        away = await bench.client("away", clean=False)
        await away.subscribe("t", qos=1)
        await away.leave()
        watcher = await bench.client()
        await watcher.subscribe("lost")
        publisher = await bench.client(will=Will("lost", b"busy"))
        await publisher.send(Publish("t", b"1", 1, packet_id=1), Publish("t", b"2", 1, packet_id=2))
        assert await watcher.next() == Publish("lost", b"busy")


async def test_a_journal_that_fails_for_long_refuses_and_the_connection_closes():
    async with mqtt_broker(limits={"refuse_after_ms": 0}) as bench:
        away = await bench.client("away", clean=False)
        await away.subscribe("t", qos=1)
        await away.leave()
        publisher = await bench.client()
        bench.journal.automatic = False
        await publisher.send(Publish("t", b"1", 1, packet_id=1))
        await until(lambda: bench.journal.writes)
        bench.journal.finish(JournalError("disk full"))
        assert await publisher.next() is None
        another = await bench.client()
        await another.send(Publish("t", b"2", 1, packet_id=2))
        assert await another.next() is None
        bench.journal.automatic = True
        await until(lambda: bench.journal.writes or bench.journal.stored)
        if bench.journal.writes:
            bench.journal.finish()
        await until(lambda: bench.broker.engine.refusal is None)
        await (await bench.client()).publish("t", b"3", qos=1)
        assert bench.journal.stored == [b"1", b"3"]


async def test_a_dup_publish_is_taken_like_any_other_and_dup_is_not_passed_on_mqtt_3_3_1_3():
    async with mqtt_broker() as bench:
        subscriber = await bench.client()
        await subscriber.subscribe("t", qos=1)
        publisher = await bench.client()
        await publisher.send(Publish("t", b"x", 1, dup=True, packet_id=9))
        assert await publisher.next() == Ack(PUBACK, 9)
        assert await subscriber.next() == Publish("t", b"x", 1, packet_id=1)


async def test_what_follows_the_connect_in_the_same_segment_is_taken_after_the_connack():
    async with mqtt_broker() as bench:
        peer = await bench.open()
        await peer.send(Connect("eager"), Publish("t", b"x", 1, packet_id=1), encode(Publish("t", b"y", 1, packet_id=2))[:5])
        connack, puback = await peer.take(2)
        assert (connack.code, puback) == (0, Ack(PUBACK, 1))
        await peer.send(encode(Publish("t", b"y", 1, packet_id=2))[5:])
        assert await peer.next() == Ack(PUBACK, 2)


@pytest.mark.parametrize("qos", [0, 1])
async def test_one_publish_reaches_subscribers_of_both_qualities_with_theirs_mqtt_3_8_4_6(qos):
    async with mqtt_broker() as bench:
        low, high = await bench.client(), await bench.client()
        await low.subscribe("a/+", qos=0)
        await high.subscribe("a/#", qos=1)
        publisher = await bench.client()
        await publisher.publish("a/b", b"body", qos=qos)
        assert await low.next() == Publish("a/b", b"body")
        assert await high.next() == Publish("a/b", b"body", qos, packet_id=qos)


async def test_large_bodies_arrive_whole_in_both_qualities():
    async with mqtt_broker() as bench:
        subscriber = await bench.client()
        await subscriber.subscribe("big", qos=1)
        publisher = await bench.client()
        for size in (126, 127, 128, 16_383, 16_384, 1_000_000):
            for qos in (0, 1):
                body = bytes(range(256)) * (size // 256 + 1)
                await publisher.publish("big", body[:size], qos=qos)
                packet = await subscriber.next()
                assert (packet.payload, packet.qos) == (body[:size], qos)
                if qos:
                    await subscriber.send(Ack(PUBACK, packet.packet_id))


async def test_refusal_leaves_other_connections_alone():
    async with mqtt_broker(HandJournal(automatic=True), session_max_messages=1) as bench:
        away = await bench.client("away", clean=False)
        await away.subscribe("t", qos=1)
        await away.leave()
        other = await bench.client()
        publisher = await bench.client()
        await publisher.send(Publish("t", b"1", 1, packet_id=1), Publish("t", b"2", 1, packet_id=2))
        assert await publisher.take(2) == [Ack(PUBACK, 1), None]
        await other.publish("u", b"x", qos=1)


async def test_clients_of_one_principal_publish_to_topics_that_others_of_them_have_published_to_before():
    """They share the routes: what one has looked up is known to the next from the start."""
    anyone = Principal("anyone")

    async def authenticate(credentials):
        return anyone

    async with mqtt_broker() as bench:
        bench.broker.authenticate = authenticate
        watcher = await bench.client()
        await watcher.subscribe("t/#")
        for body in (b"first", b"second"):
            publisher = await bench.client()
            await publisher.send(Publish("t/known", body), Publish("t/known", body, 1, packet_id=1), Publish(f"t/{body}", body))
            taken = [await watcher.next() for _ in range(3)]
            assert [packet.payload for packet in taken] == [body] * 3
            assert (await publisher.next()).packet_id == 1
