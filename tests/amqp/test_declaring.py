"""Exchange.* and Queue.*: what is declared, bound and deleted, and which words does a no have?"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pamqp import commands

from gateway_amqp.codec.methods import encode
from gateway_amqp.codec.tables import short
from tests.amqp.rooms import LOCKED, answered, bodies, bound, consuming, declared, delivered, exchange, publish, ready
from tests.amqp.wire import amqp_broker
from tests.runtime.support import HandJournal

Basic, Exchange, Queue = commands.Basic, commands.Exchange, commands.Queue

NOT_DEFAULT = "ACCESS_REFUSED - operation not permitted on the default exchange"


def unchecked(kind: Any, **fields: Any) -> Any:
    """Return a command with names that pamqp lets nobody say."""
    command = kind(**{name: value for name, value in fields.items() if not isinstance(value, str)})
    for name, value in fields.items():
        setattr(command, name, value)
    return encode(1, command)


async def refused(client, *methods):
    client.say(1, *methods)
    return await client.refused(1)


def declaring(name="x", kind="direct", **fields):
    return Exchange.Declare(exchange=name, exchange_type=kind, **fields)


# -- exchanges --------------------------------------------------------------


@pytest.mark.parametrize("kind", ["direct", "fanout", "topic", "headers"])
async def test_an_exchange_is_declared_again_and_deleted(kind):
    async with amqp_broker() as bench:
        client = await bench.client()
        for _ in range(2):
            await exchange(client, "x", kind, durable=True)
        await answered(client, declaring(passive=True), Exchange.DeclareOk)
        await answered(client, Exchange.Delete(exchange="x"), Exchange.DeleteOk)
        assert await refused(client, declaring(passive=True)) == (404, "NOT_FOUND - no exchange 'x' in vhost '/'")


@pytest.mark.parametrize(
    ("first", "second", "argument", "received", "current"),
    [
        ({}, {"kind": "fanout"}, "type", "'fanout'", "'direct'"),
        ({}, {"durable": True}, "durable", "'true'", "'false'"),
        ({"durable": True}, {}, "durable", "'false'", "'true'"),
        ({}, {"auto_delete": True}, "auto_delete", "'true'", "'false'"),
        ({}, {"internal": True}, "internal", "'true'", "'false'"),
        (
            {},
            {"arguments": {"alternate-exchange": "y"}},
            "alternate-exchange",
            "the value 'y' of type 'longstr'",
            "none",
        ),
    ],
)
async def test_an_exchange_that_differs_is_not_the_same(first, second, argument, received, current):
    async with amqp_broker() as bench:
        client = await bench.client()
        await exchange(client, "x", **first)
        text = f"inequivalent arg '{argument}' for exchange 'x' in vhost '/': received {received} but current is {current}"
        assert await refused(client, declaring(**second)) == (406, f"PRECONDITION_FAILED - {text}")


async def test_exchange_arguments_that_mean_nothing_are_not_compared_and_said_in_the_log_once():
    async with amqp_broker() as bench:
        client = await bench.client()
        await exchange(client, "x", arguments={"x-mine": 1, "yours": 2})
        await exchange(client, "x", arguments={"x-mine": 2})
        assert bench.logged("an argument has no meaning here") == 1


async def test_an_unknown_type_closes_the_connection():
    async with amqp_broker() as bench:
        client = await bench.client()
        client.say(1, declaring(kind="nonsense"))
        close = await client.hear(0)
        assert (close.reply_code, close.reply_text) == (503, "COMMAND_INVALID - unknown exchange type 'nonsense'")
        assert (close.class_id, close.method_id) == (40, 10)


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (declaring("amq.foo"), (403, "ACCESS_REFUSED - exchange name 'amq.foo' contains reserved prefix 'amq.*'")),
        (declaring("", passive=True), (403, NOT_DEFAULT)),
        (declaring("", durable=True), (403, NOT_DEFAULT)),
        (Exchange.Delete(exchange=""), (403, NOT_DEFAULT)),
        (
            Exchange.Delete(exchange="amq.direct"),
            (403, "ACCESS_REFUSED - deletion of system exchange 'amq.direct' in vhost '/' not allowed"),
        ),
        (
            Exchange.Delete(exchange="amq.nope"),
            (403, "ACCESS_REFUSED - deletion of system exchange 'amq.nope' in vhost '/' not allowed"),
        ),
        (Exchange.Bind(destination="", source="amq.direct"), (403, NOT_DEFAULT)),
        (Exchange.Bind(destination="amq.direct", source=""), (403, NOT_DEFAULT)),
        (Exchange.Unbind(destination="amq.direct", source=""), (403, NOT_DEFAULT)),
        (Exchange.Bind(destination="amq.direct", source="nope"), (404, "NOT_FOUND - no exchange 'nope' in vhost '/'")),
        (Exchange.Bind(destination="nope", source="amq.direct"), (404, "NOT_FOUND - no exchange 'nope' in vhost '/'")),
    ],
)
async def test_what_may_not_be_done_to_exchanges(method, answer):
    async with amqp_broker() as bench:
        client = await bench.client()
        assert await refused(client, method) == answer
        await client.open(1)
        await answered(client, declaring("amq.direct", durable=True), Exchange.DeclareOk)


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        (Exchange.Delete(exchange="nope"), Exchange.DeleteOk),
        (Exchange.Delete(exchange="nope", if_unused=True), Exchange.DeleteOk),
        (Exchange.Unbind(destination="nope", source="amq.direct"), Exchange.UnbindOk),
        (Exchange.Unbind(destination="amq.direct", source="nope"), Exchange.UnbindOk),
        (Exchange.Unbind(destination="amq.direct", source="amq.fanout", routing_key="no"), Exchange.UnbindOk),
        (Queue.Delete(queue="nope"), Queue.DeleteOk),
        (Queue.Unbind(queue="nope", exchange="amq.direct", routing_key="k"), Queue.UnbindOk),
        (Queue.Unbind(queue="nope", exchange="nope", routing_key="k"), Queue.UnbindOk),
    ],
)
async def test_what_is_absent_is_deleted_and_unbound(method, kind):
    async with amqp_broker() as bench:
        client = await bench.client()
        answer = await answered(client, method, kind)
        assert getattr(answer, "message_count", 0) == 0
        await declared(client)  # the channel is as it was


async def test_the_answer_to_what_is_absent_waits_for_the_answers_before_it():
    journal = HandJournal()
    async with amqp_broker(journal) as bench:
        client = await bench.client()
        journal.automatic = False
        client.say(1, Queue.Declare(queue="q", durable=True), Queue.Delete(queue="nope"), Exchange.Delete(exchange="nope"))
        assert await client.silent()
        journal.automatic = True
        journal.finish()
        assert [type(await client.hear(1)) for _ in range(3)] == [Queue.DeclareOk, Queue.DeleteOk, Exchange.DeleteOk]


async def test_an_exchange_in_use_is_one_that_leads_somewhere():
    async with amqp_broker() as bench:
        client = await bench.client()
        await exchange(client, "x")
        await answered(client, Exchange.Bind(destination="x", source="amq.fanout"), Exchange.BindOk)
        await answered(client, Exchange.Bind(destination="amq.fanout", source="x"), Exchange.BindOk)
        text = "PRECONDITION_FAILED - exchange 'x' in vhost '/' in use"
        assert await refused(client, Exchange.Delete(exchange="x", if_unused=True)) == (406, text)
        await client.open(1)
        await answered(client, Exchange.Unbind(destination="amq.fanout", source="x"), Exchange.UnbindOk)
        await answered(client, Exchange.Delete(exchange="x", if_unused=True), Exchange.DeleteOk)


async def test_exchanges_lead_to_exchanges():
    async with amqp_broker() as bench:
        client = await bench.client()
        await exchange(client, "from", "topic")
        await exchange(client, "to", "fanout")
        await declared(client)
        await bound(client, "q", "to")
        await answered(client, Exchange.Bind(destination="to", source="from", routing_key="a.#"), Exchange.BindOk)
        client.publish(1, "from", "a.b", b"1")
        client.publish(1, "from", "b", b"2")
        assert await ready(client) == 1
        await answered(client, Exchange.Unbind(destination="to", source="from", routing_key="a.#"), Exchange.UnbindOk)
        client.publish(1, "from", "a.b", b"3")
        assert await ready(client) == 1


async def test_an_internal_exchange_takes_nothing_from_clients():
    async with amqp_broker() as bench:
        client = await bench.client()
        await exchange(client, "x", internal=True)
        client.publish(1, "x", "k", b"1")
        assert await client.refused(1) == (403, "ACCESS_REFUSED - cannot publish to internal exchange 'x' in vhost '/'")


async def test_an_auto_delete_exchange_goes_with_its_last_binding():
    async with amqp_broker() as bench:
        client = await bench.client()
        await exchange(client, "x", auto_delete=True)
        await declared(client)
        await bound(client, "q", "x", "k")
        await answered(client, Queue.Delete(queue="q"), Queue.DeleteOk)
        assert (await refused(client, declaring(passive=True)))[0] == 404


# -- queues -----------------------------------------------------------------


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
    "methods",
    [
        [
            declaring("y", nowait=True), declaring("z", kind="fanout", nowait=True),
            Exchange.Bind(destination="y", source="z", nowait=True), Exchange.Unbind(destination="y", source="z", nowait=True),
            Exchange.Delete(exchange="y", nowait=True), Exchange.Delete(exchange="nope", nowait=True),
        ],
        [
            Queue.Declare(queue="n", nowait=True), Queue.Bind(queue="n", exchange="amq.direct", routing_key="k", nowait=True),
            Queue.Purge(queue="n", nowait=True), Queue.Delete(queue="n", nowait=True), Queue.Delete(queue="nope", nowait=True),
        ],
    ],
)  # fmt: skip
async def test_nobody_is_answered_who_does_not_wait(methods):
    async with amqp_broker() as bench:
        client = await bench.client()
        client.say(1, *methods)
        assert await client.silent()
        await declared(client)


async def test_who_does_not_wait_is_told_what_is_refused():
    async with amqp_broker() as bench:
        client = await bench.client()
        client.say(1, Queue.Declare(queue="nope", passive=True, nowait=True), Queue.Declare(queue="q", nowait=True))
        assert (await client.refused(1))[0] == 404
        assert bench.queue("q") is None


@pytest.mark.parametrize("name", ["a$b c", "ünïcode ☃ 🚀", "a/b#*?&%", "\0\x7f\x01", "x" * 255, "'\"\\"])
async def test_names_are_any_text(name):
    async with amqp_broker() as bench:
        client = await bench.client()
        client.say(1, unchecked(Queue.Declare, queue=name), unchecked(Exchange.Declare, exchange=name, exchange_type="topic"))
        assert (await client.hear(1)).queue == name
        assert isinstance(await client.hear(1), Exchange.DeclareOk)
        client.say(1, unchecked(Queue.Bind, queue=name, exchange=name, routing_key=name))
        assert isinstance(await client.hear(1), Queue.BindOk)
        client.say(1, unchecked(Basic.Consume, queue=name, consumer_tag=name))
        assert (await client.hear(1)).consumer_tag == name
        head = b"\0\x3c\0\0" + (1).to_bytes(8, "big") + b"\0\0"
        method = b"\0\x3c\0\x28\0\0" + short(name) + short(name) + b"\0"
        client.raw(
            b"".join(
                bytes((kind,)) + b"\0\1" + len(data).to_bytes(4, "big") + data + b"\xce"
                for kind, data in ((1, method), (2, head), (3, b"1"))
            )
        )
        (one,) = await delivered(client)
        assert (one.method.exchange, one.method.routing_key, one.method.consumer_tag) == (name, name, name)


async def test_line_ends_in_names_are_left_out():
    async with amqp_broker() as bench:
        client = await bench.client()
        client.say(1, unchecked(Queue.Declare, queue="a\r\nb"))
        assert (await client.hear(1)).queue == "ab"


async def test_a_name_that_is_no_text_is_a_syntax_error():
    async with amqp_broker() as bench:
        client = await bench.client()
        data = b"\0\x32\0\x0a\0\0\2\xff\xfe\0\0\0\0\0"
        client.raw(b"\1\0\1" + len(data).to_bytes(4, "big") + data + b"\xce")
        code, text = await client.thrown_out()
        assert code == 502
        assert text.startswith("SYNTAX_ERROR - ")


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


async def test_an_alternate_exchange_has_a_name():
    async with amqp_broker() as bench:
        client = await bench.client()
        text = "PRECONDITION_FAILED - invalid type 'signedint' for arg 'alternate-exchange' in exchange 'x' in vhost '/'"
        assert await refused(client, declaring(arguments={"alternate-exchange": 4})) == (406, text)


async def test_a_stream_is_not_implemented():
    async with amqp_broker() as bench:
        client = await bench.client()
        client.say(1, Queue.Declare(queue="q", durable=True, arguments={"x-queue-type": "stream"}))
        assert (await client.thrown_out())[0] == 540


async def test_a_durable_declaration_is_answered_when_it_is_on_disk():
    journal = HandJournal()
    async with amqp_broker(journal) as bench:
        client = await bench.client()
        journal.automatic = False
        client.say(1, Queue.Declare(queue="q", durable=True))
        assert await client.silent()
        journal.automatic = True
        journal.finish()
        assert isinstance(await client.hear(1), Queue.DeclareOk)
