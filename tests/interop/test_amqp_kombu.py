"""Does kombu work, and does it take the broker for one whose Basic.Qos means what RabbitMQ's does?"""

import socket
from contextlib import suppress

import kombu
import pytest
from kombu.exceptions import OperationalError
from kombu.pools import producers

from tests.interop.amqp_programs import PATIENCE_S, until


@pytest.fixture
def connection(amqp_port):
    with kombu.Connection(f"amqp://guest:guest@127.0.0.1:{amqp_port}//", connect_timeout=PATIENCE_S) as connection:
        yield connection


def drained(connection, fact):
    """Take what comes until something is true."""

    def turn():
        with suppress(socket.timeout):
            connection.drain_events(timeout=0.05)
        return fact()

    until(turn)


@pytest.mark.parametrize("kind", ["direct", "topic", "fanout"])
def test_what_producers_publish_consumers_get(connection, kind):
    exchange = kombu.Exchange(f"kombu-{kind}", type=kind, auto_delete=True)
    queue = kombu.Queue("", exchange, routing_key="key", exclusive=True)
    got = []

    def take(body, message):
        got.append((body, message.content_type, message.headers.get("n")))
        message.ack()

    with kombu.Consumer(connection, [queue], callbacks=[take], accept=["json", "yaml"]):
        with producers[connection].acquire(block=True) as producer:
            for n, serializer in enumerate(["json", "yaml", "json"]):
                producer.publish(
                    {"n": n},
                    exchange=exchange,
                    routing_key="key",
                    serializer=serializer,
                    headers={"n": n},
                    compression="zlib",
                    retry=True,
                )
        drained(connection, lambda: len(got) == 3)
    kinds = ["application/json", "application/x-yaml", "application/json"]
    assert got == [({"n": n}, kind, n) for n, kind in enumerate(kinds)]


def test_a_prefetch_counts_for_each_consumer(connection):
    """As in RabbitMQ: kombu asks for that (Basic.Qos, global) only of brokers of which it knows it."""
    assert not connection.qos_semantics_matches_spec
    queue = kombu.Queue("kombu-prefetch", exclusive=True)
    got = []
    with kombu.Consumer(connection, [queue], callbacks=[lambda body, message: got.append(message)], prefetch_count=2) as consumer:
        producer = kombu.Producer(connection.channel())
        for n in range(5):
            producer.publish(n, routing_key="kombu-prefetch")
        drained(connection, lambda: len(got) == 2)
        with suppress(socket.timeout):
            connection.drain_events(timeout=0.2)
        assert len(got) == 2
        consumer.qos(prefetch_count=2, apply_global=True)
        for message in got[:]:
            message.ack()
        drained(connection, lambda: len(got) == 4)


def test_a_simple_queue_is_put_into_and_got_from(connection):
    queue = connection.SimpleQueue("kombu-simple")
    try:
        queue.put({"hello": "world"})
        message = queue.get(timeout=PATIENCE_S)
        assert message.payload == {"hello": "world"}
        message.requeue()
        message = queue.get(timeout=PATIENCE_S)
        assert message.delivery_info["redelivered"]
        message.ack()
        assert queue.qsize() == 0
    finally:
        queue.close()
        kombu.Queue("kombu-simple")(connection.channel()).delete()


def test_an_unreachable_broker_is_tried_and_the_next_one_is_taken(amqp_port):
    urls = f"amqp://127.0.0.1:1//;amqp://guest:guest@127.0.0.1:{amqp_port}//"
    with kombu.Connection(urls, failover_strategy="round-robin", connect_timeout=PATIENCE_S) as connection:
        connection.ensure_connection(max_retries=3, interval_start=0)
        assert connection.connected
    with pytest.raises(OperationalError), kombu.Connection("amqp://127.0.0.1:1//") as connection:
        connection.ensure_connection(max_retries=1, interval_start=0)


def test_a_queue_with_all_its_arguments_is_declared_twice(connection):
    exchange = kombu.Exchange("kombu-arguments", "topic", auto_delete=True)
    options = {"expires": 600, "message_ttl": 600, "max_length": 10, "max_length_bytes": 10_000, "max_priority": 5}
    queue = kombu.Queue("kombu-arguments", exchange, "a.#", exclusive=True, **options)
    channel = connection.channel()
    for _ in range(2):
        assert queue(channel).declare() == "kombu-arguments"
    queue(channel).delete()
