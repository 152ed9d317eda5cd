"""Basic.Qos: how many unsettled deliveries may a consumer have, or a channel?"""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from pamqp import commands

from tests.amqp.rooms import answered, bodies, consuming, declared, delivered, limited, publish, ready
from tests.amqp.wire import amqp_broker

Basic, Tx = commands.Basic, commands.Tx
TEN = tuple(b"%d" % number for number in range(10))


@asynccontextmanager
async def consumer(count, *, together=True):
    """Give a client that consumes the ten messages of a queue under a limit."""
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        publish(client, *TEN)
        await limited(client, count, together=together)
        await consuming(client)
        yield client


async def held(client, *limits, queue="q", tag="c"):
    """Consume under limits, each (count, together); return how many came."""
    for count, together in limits:
        await limited(client, count, together=together)
    await consuming(client, queue, tag)
    came = 0
    while not await client.silent():
        await delivered(client)
        came += 1
    return came


@pytest.mark.parametrize(
    ("limits", "came"),
    [
        ((), 10),
        (((0, False),), 10),
        (((3, False),), 3),
        (((3, True),), 3),
        (((0, True),), 10),
        (((3, False), (0, False)), 10),
        (((2, True), (5, False)), 5),
        (((5, False), (2, True)), 2),
        (((2, False), (5, True)), 2),
        (((5, True), (0, True)), 10),
    ],
)
async def test_so_many_come_before_anything_is_acknowledged(limits, came):
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        publish(client, *TEN)
        assert await held(client, *limits) == came


@pytest.mark.parametrize("together", [False, True])
async def test_each_acknowledgement_makes_room(together):
    async with consumer(2, together=together) as client:
        assert await bodies(client, 2) == [b"0", b"1"]
        client.say(1, Basic.Ack(1))
        assert await bodies(client, 1) == [b"2"]
        client.say(1, Basic.Ack(3, multiple=True))
        assert await bodies(client, 2) == [b"3", b"4"]
        client.say(1, Basic.Reject(4, requeue=False))
        assert await bodies(client, 1) == [b"5"]
        client.say(1, Basic.Nack(0, multiple=True, requeue=False))
        assert await bodies(client, 2) == [b"6", b"7"]
        client.say(1, Basic.Reject(7, requeue=True))
        assert await bodies(client, 1) == [b"6"]
        await answered(client, Basic.Recover(requeue=True), Basic.RecoverOk)
        assert await bodies(client, 2) == [b"6", b"7"]
        assert await client.silent()


async def test_a_limit_for_each_consumer_is_for_those_that_come_later():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        await limited(client, 1)
        await consuming(client, tag="one")
        await limited(client, 3)
        await consuming(client, tag="three")
        publish(client, *TEN)
        tags = [one.method.consumer_tag for one in await delivered(client, 4)]
        assert sorted(tags) == ["one", "three", "three", "three"]
        assert await client.silent()


async def test_a_limit_for_the_channel_is_shared_by_its_consumers_in_turns():
    async with amqp_broker() as bench:
        client = await bench.client()
        await limited(client, 2, together=True)
        for queue in ("a", "b", "c"):
            await declared(client, queue)
            await consuming(client, queue, queue)
        for queue in ("a", "b", "c"):
            publish(client, *TEN, queue=queue)
        came = [one.method.consumer_tag for one in await delivered(client, 2)]
        assert await client.silent()
        for tag in range(1, 26):
            client.say(1, Basic.Ack(tag))
            came += [one.method.consumer_tag for one in await delivered(client)]
        assert await client.silent()
        assert min(came.count(queue) for queue in "abc") >= 7


async def test_a_limit_for_the_channel_counts_no_message_that_was_asked_for_singly():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        publish(client, *TEN)
        await limited(client, 2, together=True)
        await client.call(1, Basic.Get(queue="q"))
        await consuming(client)
        assert await bodies(client, 2) == [b"1", b"2"]
        assert await client.silent()
        client.say(1, Basic.Ack(1))
        assert await client.silent()
        client.say(1, Basic.Ack(2))
        assert await bodies(client, 1) == [b"3"]


async def test_a_limit_that_is_raised_or_lifted_takes_effect_at_once():
    async with consumer(1) as client:
        await delivered(client)
        assert await client.silent()
        await limited(client, 3, together=True)
        await delivered(client, 2)
        assert await client.silent()
        await limited(client, 0, together=True)
        await delivered(client, 7)


async def test_a_limit_below_what_is_unsettled_stops_until_enough_is_settled():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        publish(client, *TEN[:5])
        await consuming(client)
        await delivered(client, 5)
        await limited(client, 2, together=True)
        publish(client, *TEN[5:])
        assert await client.silent()
        client.say(1, Basic.Ack(3, multiple=True))
        assert await client.silent()
        client.say(1, Basic.Ack(4))
        assert await bodies(client, 1) == [b"5"]


async def test_a_consumer_without_acknowledgements_has_no_limit_of_its_own():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        await limited(client, 1)
        await consuming(client, no_ack=True)
        publish(client, *TEN)
        assert await bodies(client, 10) == list(TEN)


async def test_a_limit_in_bytes_is_not_implemented():
    async with amqp_broker() as bench:
        client = await bench.client()
        client.say(1, Basic.Qos(prefetch_size=5))
        assert await client.thrown_out() == (540, "NOT_IMPLEMENTED - prefetch_size!=0 (5)")


@pytest.mark.parametrize("together", [False, True])
async def test_what_a_transaction_settles_makes_room_when_it_is_committed(together):
    async with consumer(2, together=together) as client:
        await delivered(client, 2)
        await answered(client, Tx.Select(), Tx.SelectOk)
        client.say(1, Basic.Ack(1))
        assert await client.silent()
        await answered(client, Tx.Rollback(), Tx.RollbackOk)
        assert await client.silent()
        client.say(1, Basic.Ack(2, multiple=True), Tx.Commit())
        found = [await client.hear(1) for _ in range(3)]
        assert sorted(type(one).__name__ for one in found) == ["CommitOk", "Content", "Content"]
        assert await client.silent()


async def test_the_limit_of_one_channel_is_none_of_another():
    async with amqp_broker() as bench:
        client = await bench.client()
        await client.open(2)
        await declared(client)
        await limited(client, 1, together=True)
        await consuming(client)
        await consuming(client, channel=2)
        publish(client, *TEN)
        heard = [await client.next() for _ in range(10)]
        assert sorted(channel for channel, _ in heard) == [1] + [2] * 9
        assert await ready(client) == 0


async def test_a_congested_client_with_a_full_window_goes_on_when_both_are_over():
    async with consumer(1) as client:
        await delivered(client)
        client.pipe.congest(True)
        client.say(1, Basic.Ack(1))
        assert await client.silent()
        client.pipe.congest(False)
        await delivered(client)
        client.pipe.congest(True)
        client.pipe.congest(False)
        assert await client.silent()
