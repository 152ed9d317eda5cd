"""Clients of MQTT 5 at a broker of the test's own."""

from __future__ import annotations

import trio

from gateway_mqtt.codec.packets import ConnAck, Disconnect
from tests.mqtt.conformance.support import Client
from tests.mqtt.support import Bench

FOR_EVER = 0xFFFFFFFF


async def opened(bench: Bench, level: int = 5) -> Client:
    """Return a connection that has sent nothing yet."""
    client = Client(await trio.open_tcp_stream("127.0.0.1", bench.port), level)
    bench.peers.append(client)
    return client


async def connected(bench: Bench, client_id: str = "c", **fields: object) -> Client:
    """Return a client that was let in; `answer` is its CONNACK."""
    client = await opened(bench)
    client.answer = await client.connect(client_id, **fields)
    assert client.answer.code == 0, client.answer
    return client


async def goodbye(client: Client) -> Disconnect:
    """Return the DISCONNECT with which the broker closes."""
    packet = await client.next()
    assert isinstance(packet, Disconnect), packet
    assert await client.next() is None
    return packet


async def refused(bench: Bench, client_id: str = "c", **fields: object) -> ConnAck:
    """Return the CONNACK that is a no, with which the broker closes."""
    client = await opened(bench)
    answer = await client.connect(client_id, **fields)
    assert answer.code >= 0x80, answer
    assert await client.next() is None
    return answer
