"""Do messages of programs with pika arrive, wait, come back and die as they do with RabbitMQ?"""

import pika
import pytest
from pika.exceptions import NackError, UnroutableError

from tests.interop.amqp_programs import until
from tests.interop.pika_programs import DURABLE, get, ready, refused


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
