"""Does what clients begin, hold and leave behind stay bounded, and go again?"""

from __future__ import annotations

import gc
import sys

import pytest
import trio
import trio.lowlevel
from pamqp import commands

from gateway.api import Principal
from gateway_amqp.codec.splitter import Splitter
from gateway_amqp.unsettled import Unsettled
from tests.amqp.rooms import declared, publish, ready
from tests.amqp.wire import amqp_broker, publishing

Basic, Connection, Queue, Tx = commands.Basic, commands.Connection, commands.Queue, commands.Tx
MiB = 1 << 20


def test_a_frame_that_comes_byte_by_byte_costs_about_what_it_is():
    splitter = Splitter(None, {}, 1_000, frame_max=100_000)
    splitter.feed(b"\x01\x00\x01" + (90_000).to_bytes(4, "big"))
    for number in range(40_000):
        splitter.feed(number.to_bytes(2, "big"))
    assert splitter.held_bytes == 80_007
    assert len(splitter._parts) < 1_100
    assert sum(sys.getsizeof(part) for part in splitter._parts) < 200_000


async def test_a_transaction_that_is_too_much_for_all_leaves_nothing_behind():
    async with amqp_broker(max_partial_bytes=MiB) as bench:
        for _ in range(3):
            client = await bench.client()
            client.say(1, Tx.Select())
            assert isinstance(await client.hear(1), Tx.SelectOk)
            publish(client, bytes(MiB * 9 // 10))
            publish(client, bytes(MiB * 3 // 10))
            assert (await client.thrown_out())[0] == 506
        assert bench.server.broker.partial.held_bytes == 0
        assert not bench.server.broker.partial._held


async def test_large_answers_that_are_not_read_end_the_connection_before_there_are_many():
    async with amqp_broker() as bench:
        client, other = await bench.client(), await bench.client()
        await declared(client)
        for _ in range(40):
            publish(client, bytes(MiB))
        assert await ready(other) == 40
        pipe, most = client.pipe, 0
        flush = pipe.flush

        def flushed() -> None:
            nonlocal most
            most = max(most, sum(map(len, pipe.out)))
            flush()
            if len(pipe.sent) > 4 * MiB and not pipe.is_congested:
                pipe.congest(True)

        pipe.flush = flushed
        client.say(1, *[Basic.Get(queue="q")] * 40)
        for _ in range(50):
            await trio.lowlevel.checkpoint()
        assert most <= 3 * MiB
        assert pipe.closing
        assert bench.counted("amqp.slow_readers_closed") == 1
        assert await ready(other) == 40


async def test_one_new_secret_at_a_time_is_checked():
    async with amqp_broker() as bench:
        client = await bench.client()
        asked = []

        async def check(credentials):
            asked.append(credentials)
            await trio.sleep_forever()

        bench.broker.authenticate_now = lambda _: None
        bench.broker.authenticate = check
        client.say(0, *[Connection.UpdateSecret("guest", "") for _ in range(1_000)])
        assert (await client.thrown_out())[0] == 506
        assert len(asked) <= 1


async def test_one_new_secret_after_the_other_is_checked():
    async with amqp_broker() as bench:
        client = await bench.client()

        async def check(credentials):
            await trio.lowlevel.checkpoint()
            return Principal("guest")

        bench.broker.authenticate_now = lambda _: None
        bench.broker.authenticate = check
        for _ in range(3):
            assert isinstance(await client.call(0, Connection.UpdateSecret("guest", "")), Connection.UpdateSecretOk)


async def test_nothing_is_left_of_clients_that_open_and_close_channels_and_go():
    async with amqp_broker() as bench:
        await declared(await bench.client(), "kept")
        for _ in range(20):
            client = await bench.client(channel=0)
            for number in range(1, 30):
                client.say(number, commands.Channel.Open(), Queue.Declare(queue="", exclusive=True), Basic.Consume(queue=""))
                client.say(number, commands.Confirm.Select())
                client.publish(number, "", "kept", b"x", mandatory=True)
                client.publish(number, "", "nobody", b"x", mandatory=True)
                if number % 3 == 0:
                    client.say(number, commands.Channel.Close(200, "", 0, 0))
                if number % 5 == 0:
                    client.say(number, Basic.Ack(9))
            for _ in range(3):
                await trio.lowlevel.checkpoint()
            client.vanish()
        for _ in range(20):
            await trio.lowlevel.checkpoint()
        broker = bench.server.broker
        assert (len(broker.connections), len(broker.unopened), broker.partial.held_bytes) == (1, 0, 0)
        assert list(bench.broker.engine.vhost("/").queues) == ["kept"]
        assert not bench.broker.engine.definitions.owned
        assert bench.queue("kept").count == 20 * 29
        assert not bench.queue("kept").consumers


# -- work ---------------------------------------------------------------------


def test_what_is_rolled_back_costs_what_it_is_not_what_there_is():
    unsettled = Unsettled()
    for tag in range(1, 50_001):
        unsettled.deliveries[tag] = None
    unsettled.last_tag = 50_000
    deliveries = unsettled.deliveries
    for _ in range(1_000):
        unsettled.restore([(7, unsettled.take(7))])
        unsettled.restore(unsettled.take_through(2))
    assert unsettled.deliveries is deliveries  # nothing was sorted or copied
    assert [tag for tag, _ in unsettled.take_all()] == list(range(1, 50_001))


@pytest.mark.parametrize(
    "method",
    [
        Queue.Declare(queue="q", arguments={"x": [None] * 40_000}),
        Queue.Bind(queue="q", exchange="amq.topic", arguments={"x": [None] * 40_000}),
        commands.Exchange.Declare(exchange="e", arguments={"x": [None] * 40_000}),
        Basic.Consume(queue="q", arguments={"x": [None] * 40_000}),
    ],
    ids=lambda method: method.name,
)
async def test_arguments_of_a_method_are_bounded(method):
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        client.say(1, method)
        code, text = await client.thrown_out()
        assert (code, text) == (
            506,
            f"RESOURCE_ERROR - a field table of more than 32768 bytes in {method.name[0].lower()}{method.name[1:].lower()}",
        )


async def test_the_arguments_of_five_thousand_names_are_taken():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client, arguments={f"{n:x}": None for n in range(5_000)})


@pytest.fixture
def no_collector():
    """Objects go when nothing refers to them, or not at all."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def test_what_a_client_began_is_gone_with_its_connection_not_when_a_collector_finds_it(no_collector):
    async with amqp_broker() as bench:
        client = await bench.client()
        splitter = client.protocol._splitter
        client.raw(publishing(1, "", "q", bytes(3 * MiB))[: -2 * MiB])
        assert splitter.held_bytes > MiB // 2
        client.vanish()
        assert await client.hear() is None
        assert splitter.held_bytes == 0


async def test_what_a_client_has_not_settled_is_gone_with_its_channel(no_collector):
    async with amqp_broker() as bench:
        client, other = await bench.client(), await bench.client()
        await declared(client)
        publish(client, bytes(MiB))
        client.say(1, Basic.Get(queue="q"))
        assert (await client.hear(1)).body
        deliveries = client.protocol.channels[1].consuming.unsettled
        client.vanish()
        assert await client.hear() is None
        assert await ready(other) == 1
        assert len(deliveries) == 0
