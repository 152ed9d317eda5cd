"""QoS 2 towards a real client, over kills of a whole broker on a real journal."""

from __future__ import annotations

import pytest

from gateway.journal.sqlite import SqliteJournal
from gateway_mqtt.codec.packets import PUBACK, PUBCOMP, PUBREC, PUBREL, Ack, Publish
from tests.mqtt.support import mqtt_broker


@pytest.fixture
def restartable(tmp_path):
    """A broker over the same data each time; leaving it is as a kill: nothing is drained."""
    return lambda **settings: mqtt_broker(SqliteJournal(tmp_path), **settings)


async def publish_exactly_once(peer, packet_id, body):
    await peer.send(Publish("a", body, 2, packet_id=packet_id))
    assert await peer.next() == Ack(PUBREC, packet_id)
    await peer.send(Ack(PUBREL, packet_id))
    assert await peer.next() == Ack(PUBCOMP, packet_id)


async def test_each_step_goes_on_where_it_was_under_the_same_identifier_mqtt_4_4_0_1(restartable):
    async with restartable() as bench:
        client, publisher = await bench.client("p", clean=False), await bench.client()
        assert await client.subscribe("a", qos=2) == b"\2"
        for n in range(4):
            await publish_exactly_once(publisher, n + 1, b"%d" % n)
        got = await client.take(4)
        assert [(packet.payload, packet.qos, packet.dup) for packet in got] == [(b"%d" % n, 2, False) for n in range(4)]
        first, second, _, fourth = (packet.packet_id for packet in got)
        await client.send(Ack(PUBREC, second), Ack(PUBREC, first))
        assert await client.take(2) == [Ack(PUBREL, second), Ack(PUBREL, first)]
        await client.send(Ack(PUBCOMP, second), Ack(PUBREC, fourth))
        assert await client.next() == Ack(PUBREL, fourth)
    async with restartable() as bench:
        client = await bench.open()
        assert await client.connect("p", clean=False)
        packets = await client.take(3)
        [again] = [packet for packet in packets if isinstance(packet, Publish)]
        assert (again.payload, again.dup, again.packet_id) == (b"2", True, got[2].packet_id)
        assert [packet for packet in packets if packet is not again] == [Ack(PUBREL, first), Ack(PUBREL, fourth)]
        await client.send(Ack(PUBCOMP, first), Ack(PUBREC, again.packet_id), Ack(PUBCOMP, fourth))
        assert await client.next() == Ack(PUBREL, again.packet_id)
        await client.send(Ack(PUBCOMP, again.packet_id))
        await client.ping()
        await bench.broker.stop()
    async with restartable() as bench:
        client = await bench.open()
        assert await client.connect("p", clean=False)
        await client.ping()


async def test_a_session_that_ends_forgets_its_identifiers(restartable):
    async with restartable() as bench:
        client, publisher = await bench.client("p", clean=False), await bench.client()
        await client.subscribe("a", qos=2)
        await publish_exactly_once(publisher, 1, b"x")
        assert (await client.next()).packet_id == 1
    async with restartable() as bench:
        assert not await (await bench.open()).connect("p", clean=True)
    async with restartable() as bench:
        client = await bench.client("p", clean=False)
        await client.subscribe("a", qos=2)
        await client.ping()
        publisher = await bench.client()
        await publish_exactly_once(publisher, 1, b"y")
        assert await client.next() == Publish("a", b"y", 2, packet_id=1)


async def test_both_qualities_go_on_side_by_side(restartable):
    async with restartable() as bench:
        client, publisher = await bench.client("p", clean=False), await bench.client()
        await client.subscribe("a", qos=2)
        for n in range(3):
            await publisher.publish("a", b"once or more %d" % n, qos=1)
            await publish_exactly_once(publisher, n + 1, b"once %d" % n)
        got = {packet.payload: packet.packet_id for packet in await client.take(6)}
        await client.vanish()
        await bench.gone("p")
        await publish_exactly_once(publisher, 9, b"a commit later")
    async with restartable() as bench:
        client = await bench.open()
        assert await client.connect("p", clean=False)
        again = await client.take(7)
        assert {packet.payload: packet.packet_id for packet in again if packet.dup} == got
        assert [packet.payload for packet in again if packet.qos == 1] == [b"once or more %d" % n for n in range(3)]
        assert [packet.payload for packet in again if packet.qos == 2] == [*(b"once %d" % n for n in range(3)), b"a commit later"]
        for packet in again:
            await client.send(Ack(PUBACK if packet.qos == 1 else PUBREC, packet.packet_id))
        assert all(packet.type == PUBREL for packet in await client.take(4))
