"""Exchange.*: what is declared, bound and deleted, and which words does a no have?"""

from __future__ import annotations

import pytest
from pamqp import commands

from tests.amqp.rooms import NOT_DEFAULT, answered, bound, declared, exchange, ready, refused
from tests.amqp.wire import amqp_broker

Basic, Exchange, Queue = commands.Basic, commands.Exchange, commands.Queue


def declaring(name="x", kind="direct", **fields):
    return Exchange.Declare(exchange=name, exchange_type=kind, **fields)


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


async def test_an_alternate_exchange_has_a_name():
    async with amqp_broker() as bench:
        client = await bench.client()
        text = "PRECONDITION_FAILED - invalid type 'signedint' for arg 'alternate-exchange' in exchange 'x' in vhost '/'"
        assert await refused(client, declaring(arguments={"alternate-exchange": 4})) == (406, text)
