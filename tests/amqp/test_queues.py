"""Queue.*: what is declared, bound, purged and deleted, and which words does a no have?"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from pamqp import commands

from tests.amqp.rooms import (
    LOCKED,
    NOT_DEFAULT,
    answered,
    bodies,
    bound,
    consuming,
    declared,
    delivered,
    publish,
    ready,
    refused,
)
from tests.amqp.wire import amqp_broker

Basic, Exchange, Queue = commands.Basic, commands.Exchange, commands.Queue


async def test_a_queue_answers_with_its_name_and_counts():
    async with amqp_broker() as bench:
        client = await bench.client()
        await client.open(2)
        first = await declared(client)
        assert (first.queue, first.message_count, first.consumer_count) == ("q", 0, 0)
        publish(client, b"1", b"2")
        again = await declared(client)
        assert (again.message_count, again.consumer_count) == (2, 0)
        await answered(client, Queue.Purge(queue="q"), Queue.PurgeOk)
        await consuming(client, channel=2)
        passive = await declared(client, passive=True)
        assert (passive.message_count, passive.consumer_count) == (0, 1)


async def test_a_queue_without_a_name_gets_one_that_is_no_other():
    async with amqp_broker() as bench:
        client = await bench.client()
        names = {(await declared(client, "", exclusive=True)).queue for _ in range(3)}
        assert len(names) == 3
        assert all(name.startswith("amq.gen-") for name in names)
        for name in names:
            await declared(client, name, exclusive=True)


@pytest.mark.parametrize(
    ("first", "second", "argument", "received", "current"),
    [
        ({}, {"durable": True}, "durable", "'true'", "'false'"),
        ({}, {"auto_delete": True}, "auto_delete", "'true'", "'false'"),
        ({}, {"arguments": {"x-max-length": 3}}, "x-max-length", "the value '3' of type 'signedint'", "none"),
        ({"arguments": {"x-max-length": 3}}, {}, "x-max-length", "none", "the value '3' of type 'signedint'"),
        ({"arguments": {"x-max-length": 3}}, {"arguments": {"x-max-length": 4}}, "x-max-length", "'4'", "'3'"),
    ],
)
async def test_a_queue_that_differs_is_not_the_same(first, second, argument, received, current):
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client, **first)
        text = f"inequivalent arg '{argument}' for queue 'q' in vhost '/': received {received} but current is {current}"
        assert await refused(client, Queue.Declare(queue="q", **second)) == (406, f"PRECONDITION_FAILED - {text}")
        await client.open(1)
        await declared(client, **first)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"arguments": {"mine": "a"}}, {"arguments": {"mine": "b", "x-foo": 1}}),
        ({"arguments": {"x-queue-type": "classic"}}, {"arguments": {"x-queue-type": "quorum"}}),
        ({}, {"arguments": {"x-queue-type": "quorum"}}),
        ({"exclusive": True, "durable": True}, {"exclusive": True}),
    ],
)
async def test_what_makes_no_difference(first, second):
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client, **first)
        await declared(client, **second)


async def test_queue_arguments_that_mean_nothing_are_said_in_the_log_once():
    async with amqp_broker() as bench:
        client = await bench.client()
        await client.open(2)
        for channel in (1, 2):
            await declared(client, arguments={"x-mine": 1, "x-yours": 2, "mine": 3}, channel=channel)
        assert bench.logged("an argument has no meaning here") == 2


@pytest.mark.parametrize("fields", [{}, {"exclusive": True}, {"passive": True}])
async def test_an_exclusive_queue_is_there_for_its_connection_alone(fields):
    async with amqp_broker() as bench:
        client, owner = await bench.client(), await bench.client()
        await owner.open(2)
        await declared(owner, exclusive=True)
        await declared(owner, exclusive=True, channel=2)
        assert await refused(client, Queue.Declare(queue="q", **fields)) == (405, LOCKED.format("q"))
        owner.vanish()
        assert await owner.hear() is None
        await client.open(1)
        await declared(client)


@pytest.mark.parametrize(
    "method",
    [
        Queue.Delete(queue="q"), Queue.Purge(queue="q"), Queue.Bind(queue="q", exchange="amq.direct", routing_key="k"),
        Basic.Get(queue="q"), Basic.Consume(queue="q"),
    ],
)  # fmt: skip
async def test_nobody_else_can_use_an_exclusive_queue(method):
    async with amqp_broker() as bench:
        client, owner = await bench.client(), await bench.client()
        await declared(owner, exclusive=True)
        assert await refused(client, method) == (405, LOCKED.format("q"))


async def test_exclusive_is_not_the_same_as_not_exclusive():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        assert await refused(client, Queue.Declare(queue="q", exclusive=True)) == (405, LOCKED.format("q"))


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (Queue.Declare(queue="nope", passive=True), (404, "NOT_FOUND - no queue 'nope' in vhost '/'")),
        (Queue.Declare(queue="", passive=True), (404, "NOT_FOUND - no queue '' in vhost '/'")),
        (Queue.Declare(queue="amq.foo", passive=True), (404, "NOT_FOUND - no queue 'amq.foo' in vhost '/'")),
        (Queue.Declare(queue="amq.foo"), (403, "ACCESS_REFUSED - queue name 'amq.foo' contains reserved prefix 'amq.*'")),
        (Queue.Bind(queue="nope", exchange="amq.direct", routing_key="k"), (404, "NOT_FOUND - no queue 'nope' in vhost '/'")),
        (Queue.Bind(queue="q", exchange="nope", routing_key="k"), (404, "NOT_FOUND - no exchange 'nope' in vhost '/'")),
        (Queue.Bind(queue="nope", exchange="nope", routing_key="k"), (404, "NOT_FOUND - no exchange 'nope' in vhost '/'")),
        (Queue.Bind(queue="q", exchange="", routing_key="k"), (403, NOT_DEFAULT)),
        (Queue.Unbind(queue="q", exchange="", routing_key="k"), (403, NOT_DEFAULT)),
        (Queue.Purge(queue="nope"), (404, "NOT_FOUND - no queue 'nope' in vhost '/'")),
    ],
)
async def test_what_may_not_be_done_to_queues(method, answer):
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        assert await refused(client, method) == answer


@pytest.mark.parametrize(
    "method",
    [
        Queue.Delete(queue=""), Queue.Purge(queue=""), Queue.Bind(queue="", exchange="amq.direct", routing_key="k"),
        Queue.Unbind(queue="", exchange="amq.direct", routing_key="k"), Basic.Get(queue=""), Basic.Consume(queue=""),
    ],
)  # fmt: skip
async def test_no_name_means_nothing_before_anything_was_declared(method):
    async with amqp_broker() as bench:
        client = await bench.client()
        assert await refused(client, method) == (404, "NOT_FOUND - no previously declared queue")


async def test_no_name_means_the_queue_that_was_declared_last_on_the_channel():
    async with amqp_broker() as bench:
        client = await bench.client()
        await client.open(2)
        client.say(1, Queue.Declare(queue="", exclusive=True), Queue.Bind(queue="", exchange="amq.direct", routing_key=""))
        name = (await client.hear(1)).queue
        assert isinstance(await client.hear(1), Queue.BindOk)
        client.publish(1, "amq.direct", name, b"by its name")
        assert (await client.call(1, Basic.Get(queue=""))).body == b"by its name"
        await bound(client, "", "amq.direct", "key")
        publish(client, b"1", b"2", queue=name)
        assert (await answered(client, Queue.Purge(queue=""), Queue.PurgeOk)).message_count == 2
        await declared(client, "other")
        await declared(client, name, passive=True, exclusive=True)
        await answered(client, Queue.Unbind(queue="", exchange="amq.direct", routing_key=name), Queue.UnbindOk)
        await answered(client, Queue.Delete(queue=""), Queue.DeleteOk)
        assert bench.queue(name) is None
        client.say(2, Queue.Purge(queue=""))
        assert (await client.refused(2))[0] == 404


async def test_a_queue_is_bound_once_and_unbound():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        for _ in range(2):
            await bound(client, "q", "amq.direct", "k")
        client.publish(1, "amq.direct", "k", b"1")
        assert await ready(client) == 1
        await answered(client, Queue.Unbind(queue="q", exchange="amq.direct", routing_key="k"), Queue.UnbindOk)
        client.publish(1, "amq.direct", "k", b"2")
        assert await ready(client) == 1


async def test_headers_are_matched_as_the_binding_says():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client, "all")
        await declared(client, "any")
        await bound(client, "all", "amq.headers", arguments={"x-match": "all", "a": 1, "b": "two"})
        await bound(client, "any", "amq.headers", arguments={"x-match": "any", "a": 1, "b": "two"})
        client.publish(1, "amq.headers", "", b"both", headers={"a": 1, "b": "two", "c": 3})
        client.publish(1, "amq.headers", "", b"one", headers={"a": 1})
        assert (await ready(client, "all"), await ready(client, "any")) == (1, 2)


@pytest.mark.parametrize(
    "value", [datetime(2030, 1, 1, tzinfo=UTC), Decimal("1.5"), bytearray(b"\xff\0"), 2**40, True, [1, {"a": "b"}], "text", -1, {}]
)
async def test_a_header_is_matched_whatever_its_type(value):
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        await bound(client, "q", "amq.headers", arguments={"x-match": "any", "h": value})
        client.publish(1, "amq.headers", "", b"1", headers={"h": value})
        client.publish(1, "amq.headers", "", b"2", headers={"h": "another"})
        assert await ready(client) == 1
        answer = Queue.Unbind(queue="q", exchange="amq.headers", arguments={"x-match": "any", "h": value})
        await answered(client, answer, Queue.UnbindOk)
        client.publish(1, "amq.headers", "", b"1", headers={"h": value})
        assert await ready(client) == 1


async def test_deleting_says_how_many_messages_went():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        publish(client, b"1", b"2")
        text = "PRECONDITION_FAILED - queue 'q' in vhost '/' not empty"
        assert await refused(client, Queue.Delete(queue="q", if_empty=True)) == (406, text)
        await client.open(1)
        assert (await answered(client, Queue.Delete(queue="q"), Queue.DeleteOk)).message_count == 2


async def test_a_queue_in_use_is_one_with_consumers():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        await consuming(client)
        text = "PRECONDITION_FAILED - queue 'q' in vhost '/' in use"
        assert await refused(client, Queue.Delete(queue="q", if_unused=True)) == (406, text)
        await client.open(1)
        await answered(client, Queue.Delete(queue="q", if_unused=True, if_empty=True), Queue.DeleteOk)


async def test_a_purge_leaves_what_is_delivered():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        await answered(client, Basic.Qos(prefetch_count=1), Basic.QosOk)
        await consuming(client)
        publish(client, b"1", b"2", b"3")
        await delivered(client)
        assert (await answered(client, Queue.Purge(queue="q"), Queue.PurgeOk)).message_count == 2
        client.say(1, Basic.Nack(1, requeue=True))
        assert await bodies(client, 1) == [b"1"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"x-max-length": "s"}, "invalid arg 'x-max-length' for queue 'q' in vhost '/': \"expected integer, got longstr\""),
        ({"x-max-length": -1}, "invalid arg 'x-max-length' for queue 'q' in vhost '/': {value_negative,-1}"),
        ({"x-message-ttl": -1}, "invalid arg 'x-message-ttl' for queue 'q' in vhost '/': {value_negative,-1}"),
        ({"x-expires": 0}, "invalid arg 'x-expires' for queue 'q' in vhost '/': {value_zero,0}"),
        (
            {"x-expires": 10**12},
            "invalid arg 'x-expires' for queue 'q' in vhost '/': {value_too_large,1000000000000}",
        ),
        (
            {"x-max-length-bytes": True},
            "invalid arg 'x-max-length-bytes' for queue 'q' in vhost '/': \"expected integer, got bool\"",
        ),
        ({"x-overflow": [1]}, "invalid arg 'x-overflow' for queue 'q' in vhost '/': {unacceptable_type,array}"),
        ({"x-overflow": "foo"}, "invalid arg 'x-overflow' for queue 'q' in vhost '/': invalid_overflow"),
        ({"x-max-priority": 256}, "invalid arg 'x-max-priority' for queue 'q' in vhost '/': {max_value_exceeded,256}"),
        ({"x-queue-type": "foo"}, "invalid arg 'x-queue-type' for queue 'q' in vhost '/': \"unsupported queue type 'foo'\""),
        (
            {"x-dead-letter-routing-key": "k"},
            "invalid arg 'x-dead-letter-routing-key' for queue 'q' in vhost '/': routing_key_but_no_dlx_defined",
        ),
        ({"x-dead-letter-exchange": 5}, "invalid type 'signedint' for arg 'x-dead-letter-exchange' in queue 'q' in vhost '/'"),
        (
            {"x-single-active-consumer": 5},
            "invalid arg 'x-single-active-consumer' for queue 'q' in vhost '/': {unacceptable_type,signedint}",
        ),
    ],
)
async def test_arguments_that_cannot_be_are_refused_in_the_words_of_rabbitmq(arguments, text):
    async with amqp_broker() as bench:
        client = await bench.client()
        assert await refused(client, Queue.Declare(queue="q", arguments=arguments)) == (406, f"PRECONDITION_FAILED - {text}")


async def test_a_stream_is_not_implemented():
    async with amqp_broker() as bench:
        client = await bench.client()
        client.say(1, Queue.Declare(queue="q", durable=True, arguments={"x-queue-type": "stream"}))
        assert (await client.thrown_out())[0] == 540
