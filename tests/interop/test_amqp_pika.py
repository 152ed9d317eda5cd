"""Do programs with pika run as they do with RabbitMQ: first ones, and those that meet the end of a broker?"""

import select
import socket
import time

import pika
import pytest
from pika.exceptions import AMQPConnectionError, ConnectionClosedByBroker

from tests.interop.amqp_programs import PATIENCE_S, until
from tests.interop.pika_programs import DURABLE, get, parameters, ready, refused

# What a first program does: a queue named hello, and somebody who says it.


def test_hello_is_sent_and_received_without_acknowledgements(connect, fresh):
    fresh("hello")
    sender = connect()
    channel = sender.channel()
    channel.queue_declare(queue="hello")
    channel.basic_publish(exchange="", routing_key="hello", body="Hello World!")
    sender.close()

    receiver = connect()
    channel = receiver.channel()
    channel.queue_declare(queue="hello")
    got = []

    def callback(ch, method, properties, body):
        got.append((body, method.redelivered, method.delivery_tag, method.exchange, method.routing_key))
        ch.stop_consuming()

    channel.basic_consume(queue="hello", on_message_callback=callback, auto_ack=True)
    channel.start_consuming()
    assert got == [(b"Hello World!", False, 1, "", "hello")]
    assert ready(channel, "hello") == 0


def test_an_acknowledgement_after_automatic_ones_is_of_an_unknown_delivery_tag(connect, fresh):
    fresh("hello")
    channel = connect().channel()
    channel.queue_declare(queue="hello")
    channel.basic_publish(exchange="", routing_key="hello", body="Hello World!")

    def callback(ch, method, properties, body):
        ch.basic_ack(delivery_tag=method.delivery_tag)

    channel.basic_consume(queue="hello", on_message_callback=callback, auto_ack=True)
    assert refused(channel.start_consuming) == (406, "PRECONDITION_FAILED - unknown delivery tag 1")
    assert channel.is_closed
    assert ready(connect().channel(), "hello") == 0


def test_a_transient_queue_can_not_be_declared_durable(connect, fresh):
    fresh("hello")
    channel = connect().channel()
    channel.queue_declare(queue="hello")
    assert refused(channel.queue_declare, queue="hello", durable=True) == (
        406,
        "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'hello' in vhost '/': received 'true' but current is 'false'",
    )
    assert connect().channel().queue_declare(queue="hello").method.queue == "hello"


def test_what_a_consumer_never_acknowledges_is_back_when_it_goes(connect, fresh):
    fresh("hello")
    forgetful = connect()
    channel = forgetful.channel()
    channel.queue_declare(queue="hello")
    for n in range(3):
        channel.basic_publish(exchange="", routing_key="hello", body=f"message {n}")
    seen = []

    def callback(ch, method, properties, body):
        seen.append(body)
        if len(seen) == 3:
            ch.stop_consuming()

    channel.basic_consume(queue="hello", on_message_callback=callback)
    channel.start_consuming()
    forgetful.close()

    channel = connect().channel()
    until(lambda: ready(channel, "hello") == 3)
    again = [get(channel, "hello", auto_ack=True) for _ in range(3)]
    assert [(method.body, method.redelivered) for method in again] == [(body, True) for body in seen]


def test_what_was_not_acknowledged_is_back_after_a_lost_connection(connect, fresh, amqp_port):
    fresh("hello")
    lost = pika.BlockingConnection(parameters(amqp_port))
    channel = lost.channel()
    channel.queue_declare(queue="hello")
    channel.basic_publish(exchange="", routing_key="hello", body="once more")
    assert get(channel, "hello").body == b"once more"
    lost._impl._transport._sock.shutdown(socket.SHUT_RDWR)
    with pytest.raises(AMQPConnectionError):
        lost.process_data_events()
    method = get(connect().channel(), "hello", auto_ack=True)
    assert (method.body, method.redelivered) == (b"once more", True)


def test_workers_that_want_one_at_a_time_share_fairly(connect, fresh):
    fresh("task_queue")
    channel = connect().channel()
    channel.queue_declare(queue="task_queue", durable=True)
    workers, counts = [], [0, 0]
    for index in range(2):
        worker = connect().channel()
        worker.basic_qos(prefetch_count=1)

        def callback(ch, method, properties, body, index=index):
            counts[index] += 1
            ch.basic_ack(delivery_tag=method.delivery_tag)

        worker.basic_consume(queue="task_queue", on_message_callback=callback)
        workers.append(worker)
    for n in range(20):
        channel.basic_publish(exchange="", routing_key="task_queue", body=f"task {n}", properties=DURABLE)
    deadline = time.monotonic() + PATIENCE_S
    while sum(counts) < 20 and time.monotonic() < deadline:
        for worker in workers:
            worker.connection.process_data_events(time_limit=0.01)
    assert sum(counts) == 20
    assert min(counts) >= 5


def test_a_worker_that_does_not_acknowledge_gets_no_more_than_its_prefetch(connect, fresh):
    fresh("task_queue")
    channel = connect().channel()
    channel.queue_declare(queue="task_queue", durable=True)
    for n in range(5):
        channel.basic_publish(exchange="", routing_key="task_queue", body=f"task {n}", properties=DURABLE)
    worker = connect().channel()
    worker.basic_qos(prefetch_count=1)
    got = []
    worker.basic_consume(queue="task_queue", on_message_callback=lambda ch, method, properties, body: got.append(method))
    until(lambda: worker.connection.process_data_events(time_limit=0.05) or got)
    worker.connection.process_data_events(time_limit=0.3)
    assert len(got) == 1
    worker.basic_ack(got[0].delivery_tag)
    until(lambda: worker.connection.process_data_events(time_limit=0.05) or len(got) == 2)


def test_logs_go_by_severity_through_a_direct_exchange(connect, fresh):
    fresh(exchange="logs")
    receiver = connect()
    channel = receiver.channel()
    channel.exchange_declare(exchange="logs", exchange_type="direct")
    name = channel.queue_declare(queue="", exclusive=True).method.queue
    assert name.startswith("amq.gen-")
    for severity in ("error", "warning"):
        channel.queue_bind(exchange="logs", queue=name, routing_key=severity)
    sender = connect().channel()
    sender.exchange_declare(exchange="logs", exchange_type="direct")
    for severity in ("info", "error", "warning", "debug"):
        sender.basic_publish(exchange="logs", routing_key=severity, body=f"{severity} it is")
    assert [get(channel, name, auto_ack=True).routing_key for _ in range(2)] == ["error", "warning"]
    assert ready(channel, name) == 0


def test_an_exchange_can_not_change_its_type(connect, fresh):
    fresh(exchange="logs")
    channel = connect().channel()
    channel.exchange_declare("logs", "fanout")
    assert refused(channel.exchange_declare, "logs", "direct") == (
        406,
        "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'logs' in vhost '/': received 'direct' but current is 'fanout'",
    )


# What needs time, or a broker that ends.


@pytest.mark.slow
def test_a_quiet_connection_lives_by_heartbeats_and_a_silent_one_does_not(amqp_port, connect):
    quiet = connect(heartbeat=2)
    silent = pika.BlockingConnection(parameters(amqp_port, heartbeat=2))
    ended = select.poll()
    ended.register(silent._impl._transport._sock, select.POLLRDHUP)
    until(lambda: quiet.process_data_events(time_limit=0.2) or ended.poll(0))
    assert quiet.channel().is_open
    with pytest.raises(AMQPConnectionError):
        silent.channel()


def test_durable_messages_outlive_the_broker_and_clients_are_told_why_it_went(own_amqp_broker):
    connection = pika.BlockingConnection(parameters(own_amqp_broker.port))
    channel = connection.channel()
    channel.queue_declare("task_queue", durable=True)
    channel.queue_declare("hello")
    channel.exchange_declare("kept", "direct", durable=True)
    channel.queue_bind("task_queue", "kept", "key")
    channel.confirm_delivery()
    channel.basic_publish("kept", "key", b"durable", DURABLE)
    channel.basic_publish("kept", "key", b"transient")
    assert own_amqp_broker.stop() == 0
    with pytest.raises(ConnectionClosedByBroker) as closed:
        until(lambda: connection.process_data_events(time_limit=0.05))
    assert closed.value.reply_code == 320
    assert closed.value.reply_text.startswith("CONNECTION_FORCED")
    own_amqp_broker.start()
    connection = pika.BlockingConnection(parameters(own_amqp_broker.port))
    channel = connection.channel()
    assert ready(channel, "task_queue") == 1
    assert get(channel, "task_queue", auto_ack=True).body == b"durable"
    channel.basic_publish("kept", "key", b"still bound")
    assert get(channel, "task_queue", auto_ack=True).body == b"still bound"
    assert refused(channel.queue_declare, "hello", passive=True)[0] == 404
    connection.close()
