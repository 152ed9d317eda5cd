"""What was confirmed to AMQP publishers survives kill -9."""

from __future__ import annotations

import asyncio  # noqa: TID251 - aio-pika's
import logging
import os
import random
import threading
import time
from collections.abc import Iterator

import aio_pika
import pika
import pytest

from tests.interop.amqp_programs import AmqpBroker, needs_own_broker

QUEUE = "kept"
ENOUGH = 30
"""Confirms before a kill, however slow the machine is."""
PATIENCE_S = 60.0
ROUNDS = int(os.environ.get("TIDEGATE_TEST_KILLS", "5"))
"""How many kills; as many as anybody wants can be had by this environment variable."""


class Publisher(threading.Thread):
    """Publishes numbered persistent messages until its broker is gone; `confirmed` are those that it was told are safe."""

    def __init__(self, port: int, name: str) -> None:
        super().__init__()
        self.port = port
        self.confirmed: set[str] = set()
        self.failure: BaseException | None = None
        self._texts: Iterator[str] = (f"{name} {n}" for n in range(10**9))

    def next_text(self) -> str:
        return next(self._texts)

    def publish(self) -> None:
        raise NotImplementedError

    def run(self) -> None:
        try:
            self.publish()
        except (OSError, pika.exceptions.AMQPError, aio_pika.exceptions.AMQPError):
            return  # the broker was killed
        except BaseException as error:
            self.failure = error


class Blocking(Publisher):
    """pika's BlockingConnection: one message at a time."""

    def publish(self) -> None:
        connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", self.port))
        channel = connection.channel()
        channel.confirm_delivery()
        persistent = pika.BasicProperties(delivery_mode=2)
        while True:
            text = self.next_text()
            channel.basic_publish("", QUEUE, text, persistent, mandatory=True)
            self.confirmed.add(text)


class Callbacks(Publisher):
    """pika's SelectConnection: up to 200 unconfirmed."""

    WINDOW = 200

    def publish(self) -> None:
        self._unconfirmed: dict[int, str] = {}
        self._count = 0
        connection = pika.SelectConnection(
            pika.ConnectionParameters("127.0.0.1", self.port),
            on_open_callback=lambda made: made.channel(on_open_callback=self._opened),
            on_open_error_callback=lambda made, _why: made.ioloop.stop(),
            on_close_callback=lambda made, _why: made.ioloop.stop(),
        )
        connection.ioloop.start()
        connection.ioloop.close()

    def _opened(self, channel: pika.channel.Channel) -> None:
        self._channel = channel
        channel.confirm_delivery(self._confirm)
        self._fill()

    def _fill(self) -> None:
        while len(self._unconfirmed) < self.WINDOW:
            self._count += 1
            text = self._unconfirmed[self._count] = self.next_text()
            self._channel.basic_publish("", QUEUE, text, pika.BasicProperties(delivery_mode=2))

    def _confirm(self, frame: pika.frame.Method) -> None:
        assert isinstance(frame.method, pika.spec.Basic.Ack), frame.method
        tag = frame.method.delivery_tag
        tags = [number for number in self._unconfirmed if number <= tag] if frame.method.multiple else [tag]
        self.confirmed.update(self._unconfirmed.pop(number) for number in tags)
        self._fill()


class Tasks(Publisher):
    """aio-pika: fifty tasks, each with one message unconfirmed."""

    def publish(self) -> None:
        asyncio.run(self._all())

    async def _all(self) -> None:
        connection = await aio_pika.connect(f"amqp://guest:guest@127.0.0.1:{self.port}/")
        channel = await connection.channel()
        tasks = [asyncio.ensure_future(self._one(channel.default_exchange)) for _ in range(50)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await connection.close()

    async def _one(self, exchange: aio_pika.abc.AbstractExchange) -> None:
        while True:
            text = self.next_text()
            message = aio_pika.Message(text.encode(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await exchange.publish(message, QUEUE, mandatory=True)
            self.confirmed.add(text)


def declare(broker: AmqpBroker) -> None:
    with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", broker.port)) as connection:
        connection.channel().queue_declare(QUEUE, durable=True)


def drained(broker: AmqpBroker) -> list[str]:
    """Return what is in the queue, each as often as it is there."""
    found = []
    with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", broker.port)) as connection:
        channel = connection.channel()
        count = channel.queue_declare(QUEUE, passive=True).method.message_count
        channel.basic_qos(prefetch_count=1_000)
        for method, _properties, body in channel.consume(QUEUE, inactivity_timeout=PATIENCE_S):
            assert method is not None, f"{len(found)} of {count} came"
            found.append(body.decode())
            channel.basic_ack(method.delivery_tag)
            if len(found) == count:
                break
    return found


def kills(broker: AmqpBroker, kind: type[Publisher], count: int, seed: int) -> tuple[set[str], list[str]]:
    """Kill the broker under load, so many times; return what was confirmed, and what is there in the end."""
    chance = random.Random(seed)
    declare(broker)
    confirmed: set[str] = set()
    for number in range(count):
        publishers = [kind(broker.port, f"{number} {index}") for index in range(2)]
        for publisher in publishers:
            publisher.start()
        time.sleep(chance.uniform(0.05, 0.4))
        deadline = time.monotonic() + PATIENCE_S
        while sum(len(publisher.confirmed) for publisher in publishers) < ENOUGH:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        broker.kill()
        for publisher in publishers:
            publisher.join(PATIENCE_S)
            assert not publisher.is_alive()
            assert publisher.failure is None
            confirmed |= publisher.confirmed
        broker.start()
    return confirmed, drained(broker)


@pytest.fixture
def broker(tmp_path):
    needs_own_broker()
    broker = AmqpBroker(tmp_path)
    broker.start()
    yield broker
    assert broker.stop() == 0


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # clients whose broker is killed leave sockets
@pytest.mark.parametrize("kind", [Blocking, Callbacks, Tasks], ids=["pika", "pika with callbacks", "aio-pika"])
def test_nothing_confirmed_is_lost_by_kill_9(broker, kind):
    confirmed, there = kills(broker, kind, ROUNDS, seed=7)
    assert len(confirmed) >= ROUNDS * ENOUGH
    assert confirmed - set(there) == set()
    assert len(there) == len(set(there)), "something is there twice"
    logging.getLogger(__name__).info("%d kills: %d confirmed, %d there, none lost", ROUNDS, len(confirmed), len(there))
