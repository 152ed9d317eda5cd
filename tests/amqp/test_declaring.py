"""What holds for whatever is declared, bound and deleted: names, answers, and that they are on disk?"""

from __future__ import annotations

from typing import Any

import pytest
from pamqp import commands

from gateway_amqp.codec.methods import encode
from gateway_amqp.codec.tables import short
from tests.amqp.rooms import answered, declared, delivered
from tests.amqp.wire import amqp_broker
from tests.runtime.support import HandJournal

Basic, Exchange, Queue = commands.Basic, commands.Exchange, commands.Queue


def unchecked(kind: Any, **fields: Any) -> Any:
    """Return a command with names that pamqp lets nobody say."""
    command = kind(**{name: value for name, value in fields.items() if not isinstance(value, str)})
    for name, value in fields.items():
        setattr(command, name, value)
    return encode(1, command)


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


@pytest.mark.parametrize(
    "methods",
    [
        [
            Exchange.Declare(exchange="y", nowait=True), Exchange.Declare(exchange="z", exchange_type="fanout", nowait=True),
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
