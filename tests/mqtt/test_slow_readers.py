"""A client that does not keep up costs nobody else a message, and the broker a bounded amount of memory."""

from __future__ import annotations

import os
import socket

import trio

from gateway_mqtt.codec.coding import encode
from gateway_mqtt.codec.packets import PINGREQ, PUBACK, Ack, Connect, Publish, Signal, Subscribe, Subscription
from tests.mqtt.support import Peer, mqtt_broker, until

KIB = b"x" * 1024
LITTLE = {"outgoing_bytes": 65_536}


async def slow_client(bench, client_id="slow", **fields):
    """Return a client whose socket takes little that it does not read."""
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    await sock.connect(("127.0.0.1", bench.port))
    peer = Peer(trio.SocketStream(sock))
    bench.peers.append(peer)
    await peer.connect(client_id, **fields)
    own = f"127.0.0.1:{sock.getsockname()[1]}"
    [connection] = [connection for connection in bench.broker.listeners[0].connections if connection.peer == own]
    with socket.socket(fileno=os.dup(connection.number)) as theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    return peer


def congested(bench):
    return any(connection.is_congested for connection in bench.broker.listeners[0].connections)


async def fill(bench, publisher, topic, *, qos=0):
    """Publish until some connection is congested; return how many messages it took."""
    sent = 0
    while not congested(bench):
        await publisher.send(*(Publish(topic, KIB, qos, packet_id=(sent + n + 1) * qos) for n in range(100)))
        sent += 100
        for _ in range(100 * qos):
            await publisher.next()
        await publisher.ping()
    return sent


async def test_qos_0_for_a_client_that_does_not_read_is_dropped_and_counted_and_others_get_everything():
    async with mqtt_broker(limits=LITTLE) as bench:
        slow, quick, publisher = await slow_client(bench), await bench.client(), await bench.client()
        await slow.subscribe("t")
        received = []

        async def read_all():
            while len(received) < 6_000:
                received.append(await quick.next())

        await quick.subscribe("t")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_all)
            for _ in range(60):
                await publisher.send(*[Publish("t", KIB)] * 100)
                await publisher.ping()
        assert congested(bench)
        got = 0
        while not bench.logged("QoS 0 messages were dropped: the client reads too slowly"):
            assert (await slow.next()).payload == KIB
            got += 1
        dropped = bench.counted("mqtt.dropped")
        assert 0 < dropped < 6_000
        for _ in range(6_000 - dropped - got):
            assert (await slow.next()).payload == KIB
        await publisher.publish("t", b"again")
        assert await slow.next() == Publish("t", b"again")


async def test_what_was_dropped_for_a_client_that_leaves_without_reading_is_counted_too():
    async with mqtt_broker(limits=LITTLE) as bench:
        slow, publisher = await slow_client(bench), await bench.client()
        await slow.subscribe("t")
        await fill(bench, publisher, "t")
        for _ in range(10):
            await publisher.publish("t", KIB)
        await publisher.ping()
        await slow.vanish()
        await bench.gone("slow")
        assert bench.counted("mqtt.dropped") >= 10


async def test_qos_1_waits_in_the_queue_and_arrives_whole_and_in_order():
    async with mqtt_broker(limits=LITTLE, max_inflight=30_000) as bench:
        slow, publisher = await slow_client(bench, clean=False), await bench.client()
        await slow.subscribe("t", qos=1)
        sent = await fill(bench, publisher, "t", qos=1)
        for n in range(100):
            await publisher.send(Publish("t", b"%d" % n, 1, packet_id=1))
            assert await publisher.next() == Ack(PUBACK, 1)
        assert bench.queue("slow").ready_count >= 100  # not in the connection's buffer
        for _ in range(sent):
            packet = await slow.next()
            assert packet.payload == KIB
            await slow.send(Ack(PUBACK, packet.packet_id))
        assert [(await slow.next()).payload for _ in range(100)] == [b"%d" % n for n in range(100)]


async def test_a_client_that_asks_and_never_reads_is_cut_off():
    async with mqtt_broker(limits=LITTLE) as bench:
        slow, other = await slow_client(bench, "greedy"), await bench.client()
        pings = encode(Signal(PINGREQ)) * 16_384
        with trio.fail_after(100):
            try:
                while True:
                    await slow.stream.send_all(pings)
            except trio.BrokenResourceError:
                pass
        await until(lambda: bench.logged("a client does not keep up: connection closed"))
        assert bench.counted("mqtt.slow_clients") == 1
        await other.ping()


async def test_a_slow_reader_of_retained_messages_gets_them_all_and_then_what_is_live():
    async with mqtt_broker(limits=LITTLE) as bench:
        publisher = await bench.client()
        for at in range(0, 5_000, 100):
            await publisher.send(*(Publish(f"s/{n}", KIB, retain=True) for n in range(at, at + 100)))
            await publisher.ping()
        slow = await slow_client(bench)
        await slow.subscribe("s/#")
        await until(lambda: congested(bench))
        await publisher.publish("s/live", b"lost, as it is congested")
        topics = set()
        for _ in range(5_000):
            topics.add((await slow.next()).topic)
        assert len(topics) == 5_000
        await slow.ping()


async def test_a_connection_that_connects_and_reads_nothing_at_all_holds_no_other():
    async with mqtt_broker() as bench:
        silent = await bench.open()
        await silent.send(Connect("silent"))
        for _ in range(20):
            await (await bench.client()).leave()


async def test_who_subscribes_while_he_does_not_read_is_sent_no_more_than_before():
    async with mqtt_broker(limits=LITTLE) as bench:
        slow, publisher = await slow_client(bench), await bench.client()
        while not congested(bench):
            await slow.send(*[Signal(PINGREQ)] * 1_000)
            await publisher.ping()
        await slow.send(Subscribe(1, (Subscription("t", 0),)))
        await until(lambda: bench.broker.engine.vhost("/").table.bindings_of("mqtt.session.slow"))
        for _ in range(10):
            await publisher.publish("t", KIB)
        await publisher.ping()
        await slow.vanish()
        await bench.gone("slow")
        assert bench.counted("mqtt.dropped") == 10
