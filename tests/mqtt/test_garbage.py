"""Garbage, mutated traffic and half-open connections: nothing inside fails, and everybody else is served."""

from __future__ import annotations

import random

import pytest
import trio

from gateway_mqtt.codec.coding import encode
from gateway_mqtt.codec.packets import PINGREQ, PUBACK, Ack, Connect, Publish, Signal, Subscribe, Subscription, Unsubscribe, Will
from tests.mqtt.support import mqtt_broker, until


def traffic(rng, name):
    """Return what a client may say, from its CONNECT on."""
    packets = [Connect(name, rng.random() < 0.5, will=rng.choice([None, Will("w", b"x", rng.randrange(3), True)]))]
    for _ in range(rng.randrange(1, 12)):
        topic = rng.choice(["a", "a/b", "a/b/c", "w", "$x/y"])
        packets.append(
            rng.choice(
                [
                    Publish(topic, rng.randbytes(rng.randrange(300)), 0, rng.random() < 0.3),
                    Publish(topic, rng.randbytes(rng.randrange(300)), 1, rng.random() < 0.3, packet_id=rng.randrange(1, 65_536)),
                    Subscribe(
                        rng.randrange(1, 65_536), (Subscription(rng.choice(["#", "a/+", "+/b/#", topic]), rng.randrange(3)),)
                    ),
                    Unsubscribe(rng.randrange(1, 65_536), (rng.choice(["#", "a/+", topic]),)),
                    Ack(PUBACK, rng.randrange(1, 20)),
                    Signal(PINGREQ),
                ]
            )
        )
    return bytearray(b"".join(map(encode, packets)))


def mutate(rng, data):
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                del data[at : at + rng.randrange(1, 8)]
            case 2:
                data[at:at] = rng.randbytes(rng.randrange(1, 8))
            case _:
                data[at] ^= 1 << rng.randrange(8)
        if not data:
            data += b"\0"
    return bytes(data)


async def say(bench, rng, data):
    """Send it in pieces, read for a moment, go: with a goodbye to the socket or without one."""
    stream = await trio.open_tcp_stream("127.0.0.1", bench.port)
    async with stream:
        try:
            while data:
                cut = rng.randrange(1, len(data) + 1)
                await stream.send_all(data[:cut])
                data = data[cut:]
            await stream.send_eof()
            with trio.move_on_after(5):
                while await stream.receive_some(65_536):
                    pass
        except trio.BrokenResourceError:
            pass


@pytest.mark.parametrize("seed", range(4))
async def test_mutated_traffic_closes_its_own_connection_at_most(seed):
    rng = random.Random(seed)
    async with mqtt_broker(max_packet_bytes=4_096, max_inflight=5) as bench:
        steady = await bench.client("steady")
        await steady.subscribe("steady")
        for n in range(60):
            data = traffic(rng, f"c{n % 7}")
            await say(bench, rng, mutate(rng, data) if rng.random() < 0.8 else bytes(data))
        await steady.publish("steady", b"x")
        assert await steady.next() == Publish("steady", b"x")
        await until(lambda: len(bench.broker.listeners[0].connections) == 1)
        assert bench.logged("a connection failed") == 0
        assert bench.logged("a front-end failed to take a message") == 0
        assert bench.counted("violations") > 0


@pytest.mark.parametrize("seed", range(2))
async def test_noise_is_closed(seed):
    rng = random.Random(seed)
    async with mqtt_broker() as bench:
        for _ in range(50):
            noise = rng.randbytes(rng.randrange(1, 2_000))
            await say(bench, rng, (b"\x10" + noise) if rng.random() < 0.5 else noise)
        await until(lambda: not bench.broker.listeners[0].connections)
        assert bench.logged("a connection failed") == 0
