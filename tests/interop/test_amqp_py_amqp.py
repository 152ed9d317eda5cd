"""Does py-amqp, which kombu and Celery are built on, work?"""

import socket
from contextlib import suppress

import amqp
import pytest
from amqp.exceptions import AccessRefused, AMQPNotImplementedError, NotFound, PreconditionFailed, ResourceLocked

from tests.interop.amqp_programs import until

DURABLE = {"delivery_mode": 2}


@pytest.fixture
def connect(amqp_port):
    connections = []

    def make(**options):
        connections.append(amqp.Connection(host=f"127.0.0.1:{amqp_port}", **options))
        connections[-1].connect()
        return connections[-1]

    yield make
    for connection in connections:
        with suppress(OSError, amqp.AMQPError):
            connection.close()


def drained(connection, fact):
    """Take what comes until something is true."""

    def turn():
        with suppress(socket.timeout):
            connection.drain_events(timeout=0.05)
        return fact()

    until(turn)


def test_messages_are_published_with_confirms_consumed_and_acknowledged(connect):
    connection = connect(confirm_publish=True)
    channel = connection.channel()
    name, _, _ = channel.queue_declare("", exclusive=True)
    channel.queue_bind(name, "amq.direct", "key")
    channel.basic_qos(0, 10, False)
    for n in range(30):
        channel.basic_publish(amqp.Message(f"{n}", **DURABLE), exchange="amq.direct", routing_key="key", mandatory=True)
    got = []

    def take(message):
        got.append((message.body, message.delivery_info["routing_key"], message.delivery_info["exchange"]))
        message.channel.basic_ack(message.delivery_tag)

    channel.basic_consume(name, callback=take)
    drained(connection, lambda: len(got) == 30)
    assert got == [(f"{n}", "key", "amq.direct") for n in range(30)]


def test_a_message_is_got_rejected_and_got_again(connect):
    channel = connect().channel()
    name, _, _ = channel.queue_declare("", exclusive=True)
    headers = {"a": 1, "b": "two", "c": [1, {"d": None}]}
    channel.basic_publish_confirm(amqp.Message(b"\x00\xff", application_headers=headers, priority=3, correlation_id="c"), "", name)
    message = channel.basic_get(name)
    assert (message.body, message.headers, message.priority, message.correlation_id) == (b"\x00\xff", headers, 3, "c")
    channel.basic_reject(message.delivery_tag, requeue=True)
    until(lambda: channel.queue_declare(name, passive=True).message_count == 1)
    assert channel.basic_get(name, no_ack=True).delivery_info["redelivered"]
    assert channel.basic_get(name) is None


def test_errors_have_their_class(connect):
    connection, other = connect(), connect()
    with pytest.raises(NotFound, match="no queue 'nowhere' in vhost '/'"):
        connection.channel().queue_declare("nowhere", passive=True)
    with pytest.raises(NotFound, match="no exchange 'nowhere' in vhost '/'"):
        connection.channel().basic_publish_confirm(amqp.Message("x"), "nowhere", "key")
    channel = connection.channel()
    name, _, _ = channel.queue_declare("py-amqp-errors", exclusive=True)
    with pytest.raises(PreconditionFailed, match="inequivalent arg 'auto_delete'"):
        connection.channel().queue_declare(name, exclusive=True, auto_delete=False)
    with pytest.raises(ResourceLocked, match="cannot obtain exclusive access to locked queue"):
        other.channel().queue_declare(name, passive=True)
    channel.basic_consume(name, exclusive=True)
    with pytest.raises(AccessRefused, match="in exclusive use"):
        connection.channel().basic_consume(name)
    with pytest.raises(AMQPNotImplementedError):
        connection.channel().basic_publish_confirm(amqp.Message("x"), "", name, immediate=True)


def test_a_large_message_and_one_without_a_body_arrive(connect):
    connection = connect(frame_max=4_096)
    channel = connection.channel()
    name, _, _ = channel.queue_declare("", exclusive=True)
    for body in (b"x" * 1_000_000, b""):
        channel.basic_publish_confirm(amqp.Message(body), "", name)
        assert channel.basic_get(name, no_ack=True).body == (body or "")


def test_a_transaction_is_committed(connect):
    channel = connect().channel()
    name, _, _ = channel.queue_declare("", exclusive=True)
    channel.tx_select()
    channel.basic_publish(amqp.Message("one"), "", name)
    assert channel.queue_declare(name, passive=True).message_count == 0
    channel.tx_commit()
    assert channel.queue_declare(name, passive=True).message_count == 1


def test_a_consumer_is_told_that_its_queue_is_gone(connect):
    connection = connect()
    channel = connection.channel()
    channel.queue_declare("py-amqp-gone", auto_delete=True)
    told = []
    tag = channel.basic_consume("py-amqp-gone", on_cancel=told.append)
    connect().channel().queue_delete("py-amqp-gone")
    drained(connection, lambda: told)
    assert told == [tag]


@pytest.mark.slow
def test_heartbeats_keep_a_quiet_connection(connect):
    connection = connect(heartbeat=2)  # who is not heard for twice as long is gone: a busy machine may be slow

    def quiet():
        connection.heartbeat_tick()
        return connection.bytes_recv >= 7  # a counter of frames

    drained(connection, quiet)
    assert connection.channel().is_open
    assert connection.heartbeat == 2
