"""Basic.Get: what is answered to who asks for one message?"""

from __future__ import annotations

import pytest
from pamqp import commands

from gateway.errors import JournalError
from tests.amqp.rooms import bodies, consuming, declared, delivered, publish, ready
from tests.amqp.wire import Content, amqp_broker
from tests.runtime.support import HandJournal

Basic, Queue = commands.Basic, commands.Queue


async def get(client, queue="q", **fields):
    answer = await client.call(1, Basic.Get(queue=queue, **fields))
    assert isinstance(answer, Content | Basic.GetEmpty), answer
    return answer


async def test_a_message_comes_with_what_is_left():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        client.publish(1, "", "q", b"1", message_id="m")
        publish(client, b"2", b"3")
        one = await get(client)
        method = one.method
        assert (method.delivery_tag, method.redelivered, method.exchange, method.routing_key) == (1, False, "", "q")
        assert (one.body, one.properties.message_id, method.message_count) == (b"1", "m", 2)
        assert [(await get(client)).method.message_count for _ in range(2)] == [1, 0]
        assert isinstance(await get(client), Basic.GetEmpty)


async def test_bodies_come_in_frames_of_the_readers_size_and_properties_whole_as_with_rabbitmq():
    async with amqp_broker() as bench:
        client, small = await bench.client(), await bench.client(frame_max=4_096)
        await declared(client)
        client.publish(1, "", "q", b"x" * 9_000, headers={"long": "y" * 6_000})
        one = await get(small)
        assert (one.body, one.frames, one.properties.headers) == (b"x" * 9_000, 3, {"long": "y" * 6_000})


async def test_pipelined_gets_are_answered_in_order_with_the_counts_of_their_time():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        publish(client, b"1", b"2")
        client.say(1, *(Basic.Get(queue="q") for _ in range(3)))
        one, two, none = [await client.hear(1) for _ in range(3)]
        assert [(found.body, found.method.message_count) for found in (one, two)] == [(b"1", 1), (b"2", 0)]
        assert isinstance(none, Basic.GetEmpty)


async def test_what_is_got_with_acknowledgement_is_unsettled_until_then():
    async with amqp_broker() as bench:
        client, other = await bench.client(), await bench.client()
        await declared(client)
        publish(client, b"1", b"2")
        await get(client)
        await get(client)
        client.say(1, Basic.Ack(1))
        client.vanish()
        assert await client.hear() is None
        again = await get(other)
        assert (again.body, again.method.redelivered) == (b"2", True)


async def test_what_is_got_without_acknowledgement_is_gone():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        publish(client, b"1")
        assert (await get(client, no_ack=True)).body == b"1"
        assert bench.queue("q").count == 0
        client.say(1, Basic.Ack(1))
        assert await client.refused(1) == (406, "PRECONDITION_FAILED - unknown delivery tag 1")


async def test_tags_of_gets_and_deliveries_are_one_row():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        await declared(client, "r")
        await consuming(client, "r")
        publish(client, b"1")
        publish(client, b"2", queue="r")
        await delivered(client)
        assert (await get(client)).method.delivery_tag == 2
        publish(client, b"3", queue="r")
        (third,) = await delivered(client)
        assert third.method.delivery_tag == 3
        client.say(1, Basic.Ack(3, multiple=True))
        assert bench.queue("q").count == bench.queue("r").count == 0


async def test_an_empty_name_is_the_queue_that_was_declared_last():
    async with amqp_broker() as bench:
        client = await bench.client()
        name = (await declared(client, "", exclusive=True)).queue
        publish(client, b"1", queue=name)
        assert (await get(client, "")).body == b"1"


@pytest.mark.parametrize("queue", ["nope", ""])
async def test_an_unknown_queue_closes_the_channel(queue):
    async with amqp_broker() as bench:
        client = await bench.client()
        client.say(1, Basic.Get(queue=queue))
        code, text = await client.refused(1)
        assert code == 404
        assert text == ("NOT_FOUND - no queue 'nope' in vhost '/'" if queue else "NOT_FOUND - no previously declared queue")


async def test_a_large_message_is_cut_into_frames():
    async with amqp_broker() as bench:
        client = await bench.client(frame_max=4_096)
        await declared(client)
        data = bytes(range(256)) * 64
        client.publish(1, "", "q", data, frame_max=4_096)
        found = await get(client)
        assert (found.body, found.frames) == (data, 5)


async def test_an_answer_waits_for_the_answers_before_it():
    journal = HandJournal()
    async with amqp_broker(journal) as bench:
        client = await bench.client()
        await declared(client)
        publish(client, b"1")
        await ready(client)
        journal.automatic = False
        client.say(1, Queue.Declare(queue="d", durable=True), Basic.Get(queue="q"))
        assert await client.silent()
        journal.automatic = True
        journal.finish()
        assert isinstance(await client.hear(1), Queue.DeclareOk)
        assert (await client.hear(1)).body == b"1"


async def test_a_message_is_got_while_the_journal_fails():
    journal = HandJournal()
    async with amqp_broker(journal, limits={"refuse_after_ms": 0}) as bench:
        client = await bench.client()
        await declared(client)
        publish(client, b"1", b"2")
        await ready(client)
        journal.automatic = False
        client.say(1, Queue.Declare(queue="d", durable=True), Basic.Get(queue="q"))
        await client.silent()
        journal.finish(JournalError("no room"))
        code, _ = await client.refused(1)
        assert code == 506
        await client.open(1)
        await consuming(client)
        assert await bodies(client, 2) == [b"1", b"2"]
