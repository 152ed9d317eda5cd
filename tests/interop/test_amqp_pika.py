"""Do programs with pika run as they do with RabbitMQ, to the very words of what they are told?"""

import socket
import threading
import time

import pika
import pytest
from pika.exceptions import (
    AMQPConnectionError,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    NackError,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
    UnroutableError,
)

from tests.interop.amqp_programs import PATIENCE_S, until

DURABLE = pika.BasicProperties(delivery_mode=2)


def parameters(port, **options):
    return pika.ConnectionParameters("127.0.0.1", port, **options)


@pytest.fixture
def connect(amqp_port):
    connections = []

    def make(**options):
        connections.append(pika.BlockingConnection(parameters(amqp_port, **options)))
        return connections[-1]

    yield make
    for connection in connections:
        if connection.is_open:
            connection.close()


@pytest.fixture
def connection(connect):
    return connect()


@pytest.fixture
def channel(connection):
    return connection.channel()


@pytest.fixture
def fresh(connect):
    """Delete queues and exchanges, before and after."""
    queues, exchanges = [], []

    def clear():
        cleaner = connect().channel()
        for name in queues:
            cleaner.queue_delete(name)
        for name in exchanges:
            cleaner.exchange_delete(name)
        cleaner.connection.close()

    def make(*names, exchange=()):
        queues.extend(names)
        exchanges.extend([exchange] if isinstance(exchange, str) else exchange)
        clear()
        return names[0] if len(names) == 1 else names

    yield make
    clear()


def refused(call, *arguments, **options):
    """Return code and text of the Channel.Close that a call ends in."""
    with pytest.raises(ChannelClosedByBroker) as closed:
        call(*arguments, **options)
    return closed.value.reply_code, closed.value.reply_text


def ready(channel, queue):
    """Return how many messages wait in a queue."""
    return channel.queue_declare(queue, passive=True).method.message_count


def get(channel, queue, **options):
    """Return body, delivery tag and whether it was redelivered of the next message, which is waited for."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        method, properties, body = channel.basic_get(queue, **options)
        if method is not None:
            method.properties = properties
            method.body = body
            return method
        time.sleep(0.01)
    raise AssertionError(f"nothing came in {queue}")


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


# What refusals say.


def test_what_is_missing_is_not_found(connect):
    missing = {
        "queue_declare": ((), {"queue": "nowhere", "passive": True}, "no queue 'nowhere' in vhost '/'"),
        "exchange_declare": ((), {"exchange": "nowhere", "passive": True}, "no exchange 'nowhere' in vhost '/'"),
        "queue_bind": (("nowhere", "amq.direct"), {}, "no queue 'nowhere' in vhost '/'"),
        "queue_purge": (("nowhere",), {}, "no queue 'nowhere' in vhost '/'"),
        "basic_consume": (("nowhere", print), {}, "no queue 'nowhere' in vhost '/'"),
        "basic_get": (("nowhere",), {}, "no queue 'nowhere' in vhost '/'"),
        "exchange_bind": (("amq.direct", "nowhere"), {}, "no exchange 'nowhere' in vhost '/'"),
    }
    connection = connect()
    for call, (arguments, options, text) in missing.items():
        method = getattr(connection.channel(), call)
        assert refused(method, *arguments, **options) == (404, f"NOT_FOUND - {text}"), call


def test_a_message_for_an_exchange_that_is_not_there_closes_the_channel(connection):
    channel = connection.channel()
    channel.confirm_delivery()
    assert refused(channel.basic_publish, "nowhere", "key", b"lost") == (404, "NOT_FOUND - no exchange 'nowhere' in vhost '/'")
    unconfirmed = connection.channel()
    unconfirmed.basic_publish("nowhere", "key", b"lost")
    assert refused(unconfirmed.queue_declare, "", exclusive=True)[0] == 404


def test_deleting_what_is_not_there_is_fine(channel):
    assert channel.queue_delete("nowhere").method.message_count == 0
    channel.exchange_delete("nowhere")
    channel.queue_unbind("nowhere", "amq.direct", "key")


def test_names_that_begin_like_the_brokers_are_refused(connection):
    assert refused(connection.channel().queue_declare, "amq.mine") == (
        403,
        "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'",
    )
    assert refused(connection.channel().exchange_declare, "amq.mine") == (
        403,
        "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'",
    )


def test_an_exclusive_queue_is_locked_for_other_connections(connect, fresh):
    owner = connect().channel()
    name = fresh("locked")
    owner.queue_declare(name, exclusive=True)
    other = connect()
    text = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'locked' in vhost '/'. "
    text += "It could be originally declared on another connection or the exclusive property value does not match that of the "
    text += "original declaration."
    for call in ("queue_declare", "queue_delete", "queue_purge", "basic_get"):
        assert refused(getattr(other.channel(), call), name) == (405, text), call
    owner.connection.close()
    assert refused(other.channel().queue_declare, name, passive=True) == (404, f"NOT_FOUND - no queue '{name}' in vhost '/'")


def test_a_queue_of_an_exclusive_consumer_is_in_exclusive_use(connect, fresh):
    name = fresh("exclusive-use")
    channel = connect().channel()
    channel.queue_declare(name)
    channel.basic_consume(name, print, exclusive=True)
    assert refused(connect().channel().basic_consume, name, print) == (
        403,
        "ACCESS_REFUSED - queue 'exclusive-use' in vhost '/' in exclusive use",
    )


def test_a_queue_that_is_in_use_or_not_empty_is_not_deleted_if_that_was_asked(connect, fresh):
    name = fresh("kept")
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(name)
    channel.confirm_delivery()
    channel.basic_publish("", name, b"one")
    assert refused(connection.channel().queue_delete, name, if_empty=True) == (
        406,
        "PRECONDITION_FAILED - queue 'kept' in vhost '/' not empty",
    )
    channel.basic_consume(name, lambda *_: None)
    assert refused(connection.channel().queue_delete, name, if_unused=True) == (
        406,
        "PRECONDITION_FAILED - queue 'kept' in vhost '/' in use",
    )


def test_an_exchange_in_use_is_not_deleted_if_that_was_asked(connect, fresh):
    fresh(exchange="used")
    channel = connect().channel()
    channel.exchange_declare("used")
    channel.queue_bind(channel.queue_declare("", exclusive=True).method.queue, "used", "key")
    assert refused(connect().channel().exchange_delete, "used", if_unused=True) == (
        406,
        "PRECONDITION_FAILED - exchange 'used' in vhost '/' in use",
    )


def test_nobody_publishes_to_an_internal_exchange(connect, fresh):
    fresh(exchange="inner")
    channel = connect().channel()
    channel.exchange_declare("inner", internal=True)
    channel.confirm_delivery()
    assert refused(channel.basic_publish, "inner", "key", b"body") == (
        403,
        "ACCESS_REFUSED - cannot publish to internal exchange 'inner' in vhost '/'",
    )


def test_an_unknown_type_of_exchange_is_an_invalid_command(connect):
    channel = connect().channel()
    with pytest.raises((ConnectionClosedByBroker, ChannelClosedByBroker)) as closed:
        channel.exchange_declare("strange", "wondrous")
    assert closed.value.reply_code in {406, 503}
    assert "unknown exchange type 'wondrous'" in closed.value.reply_text


def test_every_way_to_settle_an_unknown_tag_is_refused(connection):
    for call in ("basic_ack", "basic_nack", "basic_reject"):
        channel = connection.channel()
        getattr(channel, call)(7)
        told = refused(channel.queue_declare, "", exclusive=True)
        assert told == (406, "PRECONDITION_FAILED - unknown delivery tag 7"), call


def test_a_wrong_password_and_an_unknown_host_are_told_apart(connect):
    with pytest.raises(ProbableAuthenticationError) as refusal:
        connect(credentials=pika.PlainCredentials("nobody", "wrong"))
    assert "403" in str(refusal.value)
    assert "ACCESS_REFUSED" in str(refusal.value)
    with pytest.raises((ProbableAccessDeniedError, ConnectionClosedByBroker)) as refusal:
        connect(virtual_host="elsewhere")
    assert "530" in repr(refusal.value)
    assert "NOT_ALLOWED - vhost elsewhere not found" in repr(refusal.value)


def test_a_user_id_of_somebody_else_is_refused(channel):
    channel.confirm_delivery()
    name = channel.queue_declare("", exclusive=True).method.queue
    channel.basic_publish("", name, b"mine", pika.BasicProperties(user_id="guest"))
    assert refused(channel.basic_publish, "", name, b"not mine", pika.BasicProperties(user_id="admin")) == (
        406,
        "PRECONDITION_FAILED - user_id property set to 'admin' but authenticated user was 'guest'",
    )


# What is promised for messages.


def test_confirms_come_and_what_reaches_no_queue_comes_back(channel):
    channel.confirm_delivery()
    name = channel.queue_declare("", exclusive=True).method.queue
    for n in range(50):
        channel.basic_publish("", name, f"{n}", DURABLE, mandatory=True)
    assert ready(channel, name) == 50
    with pytest.raises(UnroutableError) as back:
        channel.basic_publish("", "nowhere", b"body", pika.BasicProperties(message_id="7"), mandatory=True)
    (message,) = back.value.messages
    assert (message.body, message.properties.message_id) == (b"body", "7")
    assert (message.method.reply_code, message.method.reply_text, message.method.routing_key) == (312, "NO_ROUTE", "nowhere")
    channel.basic_publish("", "nowhere", b"nobody is told")


def test_a_full_queue_that_rejects_is_told_by_a_nack(channel):
    arguments = {"x-max-length": 2, "x-overflow": "reject-publish"}
    name = channel.queue_declare("", exclusive=True, arguments=arguments).method.queue
    channel.confirm_delivery()
    channel.basic_publish("", name, b"1")
    channel.basic_publish("", name, b"2")
    with pytest.raises(NackError):
        channel.basic_publish("", name, b"3")
    assert ready(channel, name) == 2


def test_a_full_queue_drops_its_oldest(channel):
    name = channel.queue_declare("", exclusive=True, arguments={"x-max-length": 2}).method.queue
    channel.confirm_delivery()
    for n in range(4):
        channel.basic_publish("", name, f"{n}")
    assert [get(channel, name, auto_ack=True).body for _ in range(2)] == [b"2", b"3"]


def test_properties_and_large_bodies_arrive_as_they_were(channel):
    everything = pika.BasicProperties(
        content_type="application/json",
        content_encoding="gzip",
        headers={"text": "ü", "int": 2**40, "true": True, "none": None, "list": [1, "two", {"three": 3}], "bytes": b"\x00\xff"},
        delivery_mode=1,
        priority=9,
        correlation_id="corr",
        reply_to="there",
        expiration="600000",
        message_id="id",
        timestamp=1_700_000_000,
        type="kind",
        user_id="guest",
        app_id="app",
        cluster_id="cluster",
    )
    name = channel.queue_declare("", exclusive=True).method.queue
    for size in (0, 1, 4_088, 131_064, 131_065, 1_000_000):
        body = bytes(n % 251 for n in range(997)) * (size // 997 + 1)
        channel.basic_publish("", name, body[:size], everything)
        method = get(channel, name, auto_ack=True)
        assert method.body == body[:size]
        assert method.properties == everything


def test_small_frames_are_enough(connect):
    channel = connect(frame_max=4_096).channel()
    name = channel.queue_declare("", exclusive=True).method.queue
    channel.basic_publish("", name, b"x" * 50_000)
    assert get(channel, name, auto_ack=True).body == b"x" * 50_000


def test_what_is_rejected_or_expires_goes_to_the_dead_letter_exchange_with_its_history(channel):
    dead = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(dead, "amq.fanout")
    arguments = {"x-dead-letter-exchange": "amq.fanout", "x-dead-letter-routing-key": "died"}
    name = channel.queue_declare("", exclusive=True, arguments=arguments).method.queue
    channel.basic_publish("", name, b"bad")
    channel.basic_reject(get(channel, name).delivery_tag, requeue=False)
    channel.basic_publish("", name, b"old", pika.BasicProperties(expiration="1"))
    for body, reason in ((b"bad", "rejected"), (b"old", "expired")):
        method = get(channel, dead, auto_ack=True)
        assert (method.body, method.exchange, method.routing_key) == (body, "amq.fanout", "died")
        headers = method.properties.headers
        (death,) = headers["x-death"]
        assert (death["queue"], death["reason"], death["count"]) == (name, reason, 1)
        assert (death["exchange"], death["routing-keys"]) == ("", [name])
        assert (headers["x-first-death-queue"], headers["x-first-death-reason"]) == (name, reason)
        assert method.properties.expiration is None
        assert death.get("original-expiration") == ("1" if reason == "expired" else None)


def test_important_messages_come_first(channel):
    name = channel.queue_declare("", exclusive=True, arguments={"x-max-priority": 5}).method.queue
    channel.confirm_delivery()
    for priority in (1, 5, 3, None):
        channel.basic_publish("", name, f"{priority}", pika.BasicProperties(priority=priority))
    assert [get(channel, name, auto_ack=True).body for _ in range(4)] == [b"5", b"3", b"1", b"None"]


def test_many_are_acknowledged_at_once_and_the_rest_is_recovered(channel):
    name = channel.queue_declare("", exclusive=True).method.queue
    channel.confirm_delivery()
    for n in range(5):
        channel.basic_publish("", name, f"{n}")
    tags = [get(channel, name).delivery_tag for _ in range(5)]
    channel.basic_ack(tags[2], multiple=True)
    channel.basic_recover(requeue=True)
    until(lambda: ready(channel, name) == 2)
    again = [get(channel, name) for _ in range(2)]
    assert [(method.body, method.redelivered) for method in again] == [(b"3", True), (b"4", True)]
    channel.basic_nack(0, multiple=True, requeue=False)
    until(lambda: ready(channel, name) == 0)


def test_what_is_requeued_keeps_its_place(channel):
    name = channel.queue_declare("", exclusive=True).method.queue
    channel.confirm_delivery()
    for n in range(3):
        channel.basic_publish("", name, f"{n}")
    channel.basic_nack(get(channel, name).delivery_tag)
    until(lambda: ready(channel, name) == 3)
    got = [get(channel, name, auto_ack=True) for _ in range(3)]
    assert [(method.body, method.redelivered) for method in got] == [(b"0", True), (b"1", False), (b"2", False)]


def test_a_transaction_is_all_or_nothing(connect, channel):
    name = channel.queue_declare("", exclusive=True).method.queue
    channel.tx_select()
    channel.basic_publish("", name, b"never")
    channel.tx_rollback()
    channel.basic_publish("", name, b"one")
    channel.basic_publish("", name, b"two")
    assert ready(channel, name) == 0
    channel.tx_commit()
    assert ready(channel, name) == 2
    channel.basic_ack(get(channel, name).delivery_tag)
    channel.tx_rollback()
    channel.close()
    other = channel.connection.channel()
    until(lambda: ready(other, name) == 2)


def test_confirms_and_transactions_do_not_go_together(connection):
    channel = connection.channel()
    channel.tx_select()
    assert refused(channel.confirm_delivery) == (406, "PRECONDITION_FAILED - cannot switch from tx to confirm mode")
    channel = connection.channel()
    channel.confirm_delivery()
    assert refused(channel.tx_select) == (406, "PRECONDITION_FAILED - cannot switch from confirm to tx mode")


def test_a_consumer_is_told_when_its_queue_goes(connect, fresh):
    name = fresh("doomed")
    channel = connect().channel()
    channel.queue_declare(name)
    told = []
    channel.add_on_cancel_callback(lambda frame: told.append(frame.method.consumer_tag))
    tag = channel.basic_consume(name, print)
    connect().channel().queue_delete(name)
    until(lambda: channel.connection.process_data_events(time_limit=0.05) or told)
    assert told == [tag]


def test_a_cancelled_consumer_gets_no_more_and_may_still_acknowledge(connect):
    channel = connect().channel()
    name = channel.queue_declare("", exclusive=True).method.queue
    got = []
    tag = channel.basic_consume(name, lambda ch, method, properties, body: got.append(method))
    channel.basic_publish("", name, b"1")
    until(lambda: channel.connection.process_data_events(time_limit=0.05) or got)
    channel.basic_cancel(tag)
    channel.basic_publish("", name, b"2")
    until(lambda: ready(channel, name) == 1)
    channel.basic_ack(got[0].delivery_tag)
    assert channel.queue_purge(name).method.message_count == 1
    assert len(got) == 1


def test_headers_and_topics_and_exchanges_behind_exchanges(connect, fresh):
    fresh(exchange=("first", "second"))
    channel = connect().channel()
    channel.exchange_declare("first", "topic")
    channel.exchange_declare("second", "headers")
    channel.exchange_bind("second", "first", "a.*.c")
    name = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(name, "second", arguments={"x-match": "all", "colour": "red", "size": 3})
    for key, headers in (("a.b.c", {"colour": "red", "size": 3, "more": 1}), ("a.b.c", {"colour": "red"}), ("a.b", {"size": 3})):
        channel.basic_publish("first", key, key, pika.BasicProperties(headers=headers))
    method = get(channel, name, auto_ack=True)
    assert (method.routing_key, method.properties.headers["more"]) == ("a.b.c", 1)
    assert channel.basic_get(name) == (None, None, None)


def test_what_an_exchange_can_not_route_goes_to_its_alternate(connect, fresh):
    fresh(exchange=("main", "spare"))
    channel = connect().channel()
    channel.exchange_declare("spare", "fanout")
    channel.exchange_declare("main", "direct", arguments={"alternate-exchange": "spare"})
    name = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(name, "spare")
    channel.confirm_delivery()
    channel.basic_publish("main", "unbound", b"saved", mandatory=True)
    assert get(channel, name, auto_ack=True).exchange == "main"


def test_answers_come_directly(connect):
    server = connect().channel()
    requests = server.queue_declare("", exclusive=True).method.queue
    client = connect().channel()
    answers = []
    client.basic_consume(
        "amq.rabbitmq.reply-to", lambda ch, method, properties, body: answers.append((properties, body)), auto_ack=True
    )
    client.basic_publish("", requests, b"2", pika.BasicProperties(reply_to="amq.rabbitmq.reply-to", correlation_id="c1"))
    request = get(server, requests, auto_ack=True)
    assert request.properties.reply_to.startswith("amq.rabbitmq.reply-to.")
    answer = pika.BasicProperties(correlation_id=request.properties.correlation_id)
    server.basic_publish("", request.properties.reply_to, b"4", answer)
    until(lambda: client.connection.process_data_events(time_limit=0.05) or answers)
    assert [(properties.correlation_id, body) for properties, body in answers] == [("c1", b"4")]


def test_a_direct_answer_needs_a_consumer_without_acknowledgements(connection):
    channel = connection.channel()
    assert refused(channel.basic_consume, "amq.rabbitmq.reply-to", print) == (
        406,
        "PRECONDITION_FAILED - reply consumer cannot acknowledge",
    )
    channel = connection.channel()
    properties = pika.BasicProperties(reply_to="amq.rabbitmq.reply-to")
    channel.confirm_delivery()
    assert refused(channel.basic_publish, "", "nowhere", b"", properties) == (
        406,
        "PRECONDITION_FAILED - fast reply consumer does not exist",
    )


def test_copies_go_to_more_keys_and_blind_ones_are_not_told(channel):
    names = [channel.queue_declare("", exclusive=True).method.queue for _ in range(3)]
    headers = {"CC": [names[1]], "BCC": [names[2]], "other": 1}
    channel.basic_publish("", names[0], b"copied", pika.BasicProperties(headers=headers))
    for name in names:
        assert get(channel, name, auto_ack=True).properties.headers == {"CC": [names[1]], "other": 1}


def test_one_of_several_consumers_is_active(connect, fresh):
    name = fresh("single")
    first, second = connect().channel(), connect().channel()
    first.queue_declare(name, arguments={"x-single-active-consumer": True})
    got = {1: [], 2: []}
    tag = first.basic_consume(name, lambda ch, method, properties, body: got[1].append(body), auto_ack=True)
    second.basic_consume(name, lambda ch, method, properties, body: got[2].append(body), auto_ack=True)
    for n in range(3):
        first.basic_publish("", name, f"{n}")
    until(lambda: first.connection.process_data_events(time_limit=0.05) or len(got[1]) == 3)
    first.basic_cancel(tag)
    first.basic_publish("", name, b"next")
    until(lambda: second.connection.process_data_events(time_limit=0.05) or got[2] == [b"next"])


def test_types_of_queues_are_taken_as_they_come(connect, fresh):
    fresh("quorum-queue", "classic-queue")
    channel = connect().channel()
    channel.queue_declare("quorum-queue", durable=True, arguments={"x-queue-type": "quorum"})
    channel.queue_declare("classic-queue", durable=True, arguments={"x-queue-type": "classic"})
    channel.confirm_delivery()
    for name in ("quorum-queue", "classic-queue"):
        channel.basic_publish("", name, b"body", DURABLE)
        assert get(channel, name, auto_ack=True).body == b"body"


def test_a_secret_can_be_renewed(connection):
    connection.update_secret("guest", "it was time")
    assert connection.channel().is_open


# A program that never waits.


class Echo:
    """pika's SelectConnection: publishes with confirms, consumes its own, and ends when all came and all are confirmed."""

    COUNT = 200

    def __init__(self, port):
        self.confirmed = 0
        self.received = []
        self.name = ""
        self.why = []
        self.connection = pika.SelectConnection(
            parameters(port), on_open_callback=self.opened, on_close_callback=self.closed, on_open_error_callback=self.closed
        )

    def opened(self, connection):
        connection.channel(on_open_callback=self.channel_opened)

    def channel_opened(self, channel):
        self.channel = channel
        channel.basic_qos(prefetch_count=20)
        channel.confirm_delivery(self.confirm)
        channel.queue_declare("", exclusive=True, callback=self.declared)

    def declared(self, frame):
        self.name = frame.method.queue
        self.channel.basic_consume(self.name, self.message, callback=self.consuming)

    def consuming(self, _frame):
        for n in range(self.COUNT):
            self.channel.basic_publish("", self.name, f"{n}", DURABLE)

    def confirm(self, frame):
        assert isinstance(frame.method, pika.spec.Basic.Ack)
        self.confirmed = frame.method.delivery_tag if frame.method.multiple else self.confirmed + 1
        self.end()

    def message(self, channel, method, properties, body):
        self.received.append(int(body))
        channel.basic_ack(method.delivery_tag)
        self.end()

    def end(self):
        if len(self.received) == self.COUNT and self.confirmed == self.COUNT:
            self.connection.close()

    def closed(self, connection, why):
        self.why.append(why)
        connection.ioloop.stop()


def test_a_program_with_callbacks_publishes_and_consumes(amqp_port):
    echo = Echo(amqp_port)
    echo.connection.ioloop.call_later(PATIENCE_S, echo.connection.ioloop.stop)
    echo.connection.ioloop.start()
    echo.connection.ioloop.close()
    assert echo.received == list(range(Echo.COUNT))
    assert echo.confirmed == Echo.COUNT
    assert [why.reply_code for why in echo.why] == [200]


def test_pipelined_methods_are_answered_in_order(amqp_port):
    answers = []

    def opened(connection):
        connection.channel(on_open_callback=channel_opened)

    def channel_opened(channel):
        for n in range(30):
            channel.queue_declare(f"pipelined-{n}", exclusive=True, callback=lambda frame: answers.append(frame.method.queue))
        channel.queue_purge("pipelined-7", callback=lambda _frame: channel.connection.close())

    connection = pika.SelectConnection(
        parameters(amqp_port), on_open_callback=opened, on_close_callback=lambda connection, why: connection.ioloop.stop()
    )
    connection.ioloop.call_later(PATIENCE_S, connection.ioloop.stop)
    connection.ioloop.start()
    connection.ioloop.close()
    assert answers == [f"pipelined-{n}" for n in range(30)]


def test_threads_with_a_connection_each_lose_nothing(amqp_port, connect, fresh):
    name = fresh("threads")
    connect().channel().queue_declare(name, durable=True)

    def publish(number):
        channel = pika.BlockingConnection(parameters(amqp_port)).channel()
        channel.confirm_delivery()
        for n in range(50):
            channel.basic_publish("", name, f"{number} {n}", DURABLE)
        channel.connection.close()

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    channel = connect().channel()
    received = []
    for _method, _properties, body in channel.consume(name, auto_ack=True, inactivity_timeout=PATIENCE_S):
        received.append(body.decode())
        if len(received) == 200:
            break
    for thread in threads:
        thread.join()
    assert sorted(received) == sorted(f"{number} {n}" for number in range(4) for n in range(50))


# What needs time, or a broker that ends.


@pytest.mark.slow
def test_a_quiet_connection_lives_by_heartbeats_and_a_silent_one_does_not(amqp_port, connect):
    quiet = connect(heartbeat=1)
    silent = pika.BlockingConnection(parameters(amqp_port, heartbeat=1))
    deadline = time.monotonic() + 6
    while time.monotonic() < deadline:
        quiet.process_data_events(time_limit=0.2)
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
