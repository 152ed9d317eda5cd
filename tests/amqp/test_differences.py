"""What would programs for RabbitMQ notice?"""

from __future__ import annotations

import pytest
from pamqp import commands

from gateway.security.authentication import Authentication
from tests.amqp.rooms import LOCKED, answered, bound, declared, publish, refused, unwritten, written
from tests.amqp.wire import Content, amqp_broker

Connection, Queue = commands.Connection, commands.Queue


@pytest.mark.parametrize("name", ["amq.headers", "amq.match"])
async def test_the_exchange_of_headers_has_two_names(name):
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        await bound(client, "q", name, arguments={"a": 1})
        client.publish(1, name, "", b"wanted", headers={"a": 1})
        client.publish(1, name, "", b"not", headers={"a": 2})
        assert (await declared(client, passive=True)).message_count == 1


@pytest.mark.parametrize("fields", [{}, {"durable": True}, {"auto_delete": True}, {"arguments": {"x-max-length": 1}}])
async def test_who_declares_an_exclusive_queue_again_is_told_first_that_it_is_exclusive(fields):
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client, exclusive=True)
        assert await refused(client, Queue.Declare(queue="q", **fields)) == (405, LOCKED.format("q"))


async def test_a_new_secret_is_taken_where_nothing_can_check_it():
    async with amqp_broker() as bench:
        bench.broker.authenticate_now = Authentication(anonymous=True).authenticate_now
        client = await bench.client()
        await answered(client, Connection.UpdateSecret("new_secret", "it was time"), Connection.UpdateSecretOk, 0)
        await answered(client, Connection.UpdateSecret("newer", "it was time"), Connection.UpdateSecretOk, 0)
        await declared(client)


@pytest.mark.parametrize(
    ("select", "answer"), [(commands.Confirm.Select(), commands.Confirm.SelectOk), (commands.Tx.Select(), commands.Tx.SelectOk)]
)
async def test_what_comes_back_of_what_was_published_before_is_told_before_the_channel_confirms(select, answer):
    async with unwritten() as (_, journal, client):
        publish(client, b"on its way", delivery_mode=2)
        await client.silent()
        client.publish(1, "", "nowhere", b"back", mandatory=True)
        client.say(1, select)
        assert await client.silent()
        journal.automatic = True
        await written(journal)
        back = await client.hear(1)
        assert isinstance(back, Content)
        assert isinstance(back.method, commands.Basic.Return)
        assert isinstance(await client.hear(1), answer)
        assert await client.silent()


async def test_confirms_count_from_their_beginning_though_something_came_back_before():
    async with unwritten() as (_, journal, client):
        publish(client, b"on its way", delivery_mode=2)
        await client.silent()
        client.publish(1, "", "nowhere", b"back", mandatory=True)
        client.say(1, commands.Confirm.Select())
        client.publish(1, "", "nowhere", b"back, too", mandatory=True)
        publish(client, b"on its way, too", delivery_mode=2)
        assert await client.silent()
        journal.automatic = True
        await written(journal)
        heard = [await client.hear(1) for _ in range(4)]
        assert [one.body for one in (heard[0], heard[2])] == [b"back", b"back, too"]
        assert isinstance(heard[1], commands.Confirm.SelectOk)
        assert (heard[3].name, heard[3].delivery_tag, heard[3].multiple) == ("Basic.Ack", 2, True)


@pytest.mark.parametrize("end", [commands.Channel.Close(200, "", 0, 0), Queue.Declare(queue="nosuch", passive=True)])
async def test_who_ends_a_channel_while_it_waits_for_its_confirms_to_begin_is_told_all(end):
    async with unwritten() as (_, journal, client):
        publish(client, b"on its way", delivery_mode=2)
        await client.silent()
        client.publish(1, "", "nowhere", b"back", mandatory=True)
        client.say(1, commands.Confirm.Select(), end)
        assert await client.silent()
        journal.automatic = True
        await written(journal)
        heard = [await client.hear(1) for _ in range(3)]
        assert heard[0].body == b"back"
        assert isinstance(heard[1], commands.Confirm.SelectOk)
        assert isinstance(heard[2], commands.Channel.CloseOk | commands.Channel.Close)
