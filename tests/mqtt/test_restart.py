"""What survives the broker: persistent sessions, their messages and subscriptions, retained messages."""

from __future__ import annotations

import pytest

from gateway.journal.sqlite import SqliteJournal
from gateway_mqtt.codec.packets import PUBACK, Ack, Publish, Will
from tests.mqtt.support import mqtt_broker


@pytest.fixture
def restartable(tmp_path):
    """A broker over the same data each time; leaving it is as a kill: nothing is drained."""
    return lambda **settings: mqtt_broker(SqliteJournal(tmp_path), **settings)


async def test_a_persistent_session_survives_with_its_subscriptions_and_messages_in_order(restartable):
    async with restartable() as bench:
        client = await bench.client("p", clean=False)
        await client.subscribe("a/#", qos=1)
        await client.subscribe("b", qos=0)
        await client.leave()
        publisher = await bench.client()
        for n in range(20):
            await publisher.publish(f"a/{n}", b"%d" % n, qos=1)
    async with restartable() as bench:
        publisher = await bench.client()
        await publisher.publish("a/late", b"20", qos=1)
        client = await bench.open()
        assert await client.connect("p", clean=False)
        got = await client.take(21)
        assert [packet.payload for packet in got] == [b"%d" % n for n in range(21)]
        await publisher.publish("b", b"low")
        assert await client.next() == Publish("b", b"low")


async def test_what_was_acknowledged_does_not_come_back_and_what_was_not_comes_with_dup(restartable):
    async with restartable() as bench:
        client = await bench.client("p", clean=False)
        await client.subscribe("a", qos=1)
        publisher = await bench.client()
        for n in range(4):
            await publisher.publish("a", b"%d" % n, qos=1)
        first = await client.take(4)
        await client.send(Ack(PUBACK, first[0].packet_id), Ack(PUBACK, first[2].packet_id))
        await client.ping()
        await publisher.publish("other", b"", qos=1, retain=False)
        await bench.broker.stop()  # acknowledgements alone wait for nobody: they are written at the stop
    async with restartable() as bench:
        client = await bench.open()
        assert await client.connect("p", clean=False)
        again = await client.take(2)
        assert [(packet.payload, packet.dup) for packet in again] == [(b"1", True), (b"3", True)]
        await client.ping()


async def test_retained_messages_of_both_qualities_survive_and_cleared_ones_do_not(restartable):
    async with restartable() as bench:
        client = await bench.client()
        await client.publish("r/0", b"low", retain=True)
        await client.publish("r/1", b"high", qos=1, retain=True)
        await client.publish("r/2", b"cleared", qos=1, retain=True)
        await client.publish("r/2", b"", qos=1, retain=True)
    async with restartable() as bench:
        client = await bench.client()
        await client.subscribe("r/#", qos=1)
        got = sorted(await client.take(2), key=lambda packet: packet.topic)
        assert [(p.topic, p.payload, p.qos, p.retain) for p in got] == [("r/0", b"low", 0, True), ("r/1", b"high", 1, True)]
        await client.ping()


async def test_a_clean_session_does_not_survive_and_a_clean_connect_ends_one_that_did(restartable):
    async with restartable() as bench:
        await (await bench.client("c")).subscribe("a", qos=1)
        await (await bench.client("p", clean=False)).subscribe("a", qos=1)
    async with restartable() as bench:
        assert bench.queue("c") is None
        assert not await (await bench.open()).connect("p", clean=True)
    async with restartable() as bench:
        assert bench.queue("p") is None


async def test_unsubscribing_survives(restartable):
    async with restartable() as bench:
        client = await bench.client("p", clean=False)
        await client.subscribe("a", "b", qos=1)
        await client.send(b"\xa2\x05\x00\x09\x00\x01a")
        await client.next()
    async with restartable() as bench:
        client = await bench.client("p", clean=False)
        await client.publish("a", b"x", qos=1)
        await client.publish("b", b"y")
        assert await client.next() == Publish("b", b"y")


async def test_subscriptions_of_a_session_count_against_its_limit_after_a_restart(restartable):
    async with restartable(max_subscriptions=2) as bench:
        assert await (await bench.client("p", clean=False)).subscribe("a/+", "b/#") == b"\0\0"
    async with restartable(max_subscriptions=2) as bench:
        client = await bench.client("p", clean=False)
        assert await client.subscribe("c", "a/+") == b"\x80\x80"  # refused from the first that is too many
        assert await client.subscribe("a/+") == b"\0"


async def test_a_will_for_an_absent_session_is_kept(restartable):
    async with restartable() as bench:
        client = await bench.client("p", clean=False)
        await client.subscribe("lost", qos=1)
        await client.leave()
        doomed = await bench.client("doomed", will=Will("lost", b"gone", 1))
        await doomed.vanish()
        await bench.gone("doomed")
        await (await bench.client()).publish("x", b"", qos=1)  # a commit later
    async with restartable() as bench:
        client = await bench.client("p", clean=False)
        assert (await client.next()).payload == b"gone"
