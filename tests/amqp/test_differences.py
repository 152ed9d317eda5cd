"""What would programs for RabbitMQ notice?"""

from __future__ import annotations

import pytest
from pamqp import commands

from tests.amqp.rooms import LOCKED, bound, declared, refused
from tests.amqp.wire import amqp_broker

Queue = commands.Queue


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
