"""Does aio-pika work, and find everything again after a restart of the broker?"""

import asyncio  # noqa: TID251 - aio-pika's
import threading

import aio_pika
import pytest
from aio_pika.exceptions import ChannelPreconditionFailed, DeliveryError
from aio_pika.patterns import RPC

from tests.interop.amqp_programs import PATIENCE_S


def in_a_loop(program):
    """Run a coroutine in a loop of its own, in a thread of its own: this thread's is trio's."""
    ended = []

    def run():
        try:
            ended.append((asyncio.run(asyncio.wait_for(program, PATIENCE_S)), None))
        except BaseException as error:
            ended.append((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    ((result, error),) = ended
    if error is not None:
        raise error
    return result


@pytest.fixture
def url(amqp_port):
    return f"amqp://guest:guest@127.0.0.1:{amqp_port}/"


def test_what_is_published_with_confirms_is_consumed(url):
    async def program():
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=10)
            exchange = await channel.declare_exchange("aio-things", aio_pika.ExchangeType.TOPIC, auto_delete=True)
            queue = await channel.declare_queue(exclusive=True)
            await queue.bind(exchange, "thing.*")
            await asyncio.gather(*(exchange.publish(aio_pika.Message(b"%d" % n), f"thing.{n}") for n in range(100)))
            got = []
            async with queue.iterator() as messages:
                async for message in messages:
                    async with message.process():
                        got.append(int(message.body))
                    if len(got) == 100:
                        break
            return got, (await channel.declare_queue(queue.name, passive=True)).declaration_result.message_count

    assert in_a_loop(program()) == (list(range(100)), 0)


def test_what_reaches_no_queue_and_what_contradicts_is_an_error(url):
    async def program():
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel(on_return_raises=True)
            with pytest.raises(DeliveryError):
                await channel.default_exchange.publish(aio_pika.Message(b"lost"), "nowhere", mandatory=True)
            channel = await connection.channel()
            await channel.declare_queue("aio-contradicts", exclusive=True)
            with pytest.raises(ChannelPreconditionFailed, match="inequivalent arg 'auto_delete'"):
                await channel.declare_queue("aio-contradicts", exclusive=True, auto_delete=True)

    in_a_loop(program())


def test_a_transaction_is_committed_or_rolled_back(url):
    async def program():
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel(publisher_confirms=False)
            queue = await channel.declare_queue(exclusive=True)
            for body, fails in ((b"kept", False), (b"dropped", True)):
                try:
                    async with channel.transaction():
                        await channel.default_exchange.publish(aio_pika.Message(body), queue.name)
                        assert not fails, "roll back"
                except AssertionError:
                    assert fails
            first = await queue.get(no_ack=True, timeout=PATIENCE_S)
            return first.body, await queue.get(no_ack=True, fail=False, timeout=PATIENCE_S)

    assert in_a_loop(program()) == (b"kept", None)


def test_functions_are_called_over_queues(url):
    async def program():
        async with await aio_pika.connect_robust(url) as connection:
            channel = await connection.channel()
            rpc = await RPC.create(channel)

            async def multiply(*, x, y):
                return x * y

            await rpc.register("aio-multiply", multiply, auto_delete=True)
            products = await asyncio.gather(*(rpc.proxy.__getattr__("aio-multiply")(x=n, y=2) for n in range(20)))
            await rpc.close()
            return products

    assert in_a_loop(program()) == [2 * n for n in range(20)]


@pytest.mark.slow
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_robust_connection_finds_its_queues_and_consumers_again(own_amqp_broker, end):
    async def program():
        address = f"{own_amqp_broker.url}?reconnect_interval=0.1"
        connection = await aio_pika.connect_robust(address)
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=1)
        exchange = await channel.declare_exchange("robust", aio_pika.ExchangeType.DIRECT, durable=True)
        queue = await channel.declare_queue("robust", durable=True)
        own = await channel.declare_queue("robust-own", exclusive=True)
        got, before = asyncio.Queue(), asyncio.Event()

        async def take(message):
            before.set()
            if message.redelivered or message.body != b"unacknowledged":
                await message.ack()
                await got.put((message.body, message.redelivered))

        for each, key in ((queue, "shared"), (own, "own")):
            await each.bind(exchange, key)
            await each.consume(take)
        persistent = aio_pika.DeliveryMode.PERSISTENT
        await exchange.publish(aio_pika.Message(b"unacknowledged", delivery_mode=persistent), "shared")
        await before.wait()
        restored = asyncio.Event()
        connection.reconnect_callbacks.add(lambda *_: restored.set())
        await asyncio.to_thread(getattr(own_amqp_broker, end))
        await asyncio.to_thread(own_amqp_broker.start)
        await restored.wait()
        again = [await got.get()]
        for key in ("own", "shared"):
            await exchange.publish(aio_pika.Message(key.encode(), delivery_mode=persistent), key)
            again.append(await got.get())
        await connection.close()
        return again

    assert in_a_loop(program()) == [(b"unacknowledged", True), (b"own", False), (b"shared", False)]
