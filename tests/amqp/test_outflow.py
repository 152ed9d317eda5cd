"""What is a consumer sent that does not read, or has much to read?"""

from __future__ import annotations

import pytest
import trio
import trio.testing
from pamqp import commands

from gateway.api import DEFAULT_EXCHANGE, Credentials, Message, QueueSpec
from gateway_amqp.outflow import MOST_UNSENT_BYTES
from tests.amqp.rooms import bodies, consuming, declared, delivered, publish, ready
from tests.amqp.wire import amqp_broker

Basic, Channel, Queue = commands.Basic, commands.Channel, commands.Queue


async def test_a_client_that_does_not_read_is_sent_nothing_more_until_it_does():
    async with amqp_broker() as bench:
        slow, quick = await bench.client(), await bench.client()
        await declared(slow)
        await consuming(slow, tag="slow", no_ack=True)
        publish(slow, b"1")
        await delivered(slow)
        slow.pipe.congest(True)
        publish(quick, b"2", b"3")
        assert await slow.silent()
        assert await ready(quick) == 2
        await consuming(slow, tag="another")  # begins paused, too
        assert await slow.silent()
        slow.pipe.congest(False)
        assert sorted(await bodies(slow, 2)) == [b"2", b"3"]


@pytest.mark.parametrize("no_ack", [False, True])
async def test_a_long_queue_is_sent_a_part_at_a_time(no_ack):
    async with amqp_broker() as bench:
        client, other = await bench.client(), await bench.client()
        await declared(client)
        body = bytes(100_000)
        for _ in range(60):
            other.publish(1, "", "q", body)
        await other.open(2)
        flush = client.pipe.flush
        sizes = []

        def measured():
            sizes.append(sum(map(len, client.pipe.out)))
            flush()

        client.pipe.flush = measured
        await consuming(client, no_ack=no_ack)
        assert len(await delivered(client, 60)) == 60
        most = max(sizes)
        assert MOST_UNSENT_BYTES // 2 < most < MOST_UNSENT_BYTES + 2 * len(body)


async def test_what_is_congested_in_the_middle_of_a_long_queue_waits():
    async with amqp_broker() as bench:
        client, other = await bench.client(), await bench.client()
        await declared(client)
        body = bytes(300_000)
        for _ in range(20):
            other.publish(1, "", "q", body)
        flush = client.pipe.flush

        def full():
            flush()
            if len(client.pipe.sent) > 2_000_000:
                client.pipe.congest(True)

        client.pipe.flush = full
        await consuming(client)
        await trio.testing.wait_all_tasks_blocked()
        assert len(client.pipe.sent) < 4_000_000
        client.pipe.flush = flush
        client.pipe.congest(False)
        await delivered(client, 20)


async def test_a_queue_of_what_never_waits_is_consumed_too():
    """Sessions of MQTT clients are such queues."""
    async with amqp_broker() as bench:
        client = await bench.client()
        gateway = bench.broker.gateway("other", [].append, bench.log)
        channel = gateway.open_channel(await gateway.authenticate(Credentials(front_end="other", loopback=True)))
        channel.declare_queue(QueueSpec("session", keep_transient=False))
        await consuming(client, "session")
        route = channel.route(DEFAULT_EXCHANGE, "session")
        channel.post(route, Message(route.address, b"low"))
        channel.publish(route, Message(route.address, b"high", persistent=True))
        low, high = await delivered(client, 2)
        assert (low.body, low.method.delivery_tag, high.body, high.method.delivery_tag) == (b"low", 1, b"high", 2)
        client.say(1, Basic.Ack(1), Basic.Ack(2))
        assert await client.silent()
        assert bench.queue("session").count == 0
        client.pipe.congest(True)
        channel.post(route, Message(route.address, b"lost"))
        client.pipe.congest(False)
        assert await client.silent()
        assert bench.counted("amqp.dropped")
