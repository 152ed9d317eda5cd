"""The header x-retain: a message becomes the last value of its key, or does not, or clears it."""

from __future__ import annotations

import pytest
from pamqp import commands

from tests.amqp.rooms import bound, declared, delivered, exchange, taken
from tests.amqp.wire import amqp_broker
from tests.runtime.support import HandJournal

TOPIC = "amq.topic"


def kept(bench, source=TOPIC):
    return {message.routing_key: message for message in bench.broker.engine.kept.retained("/", source, "#")}


async def stored(client, *texts, key="k", source=TOPIC, **fields):
    """Publish in confirm mode, and hear that all is stored."""
    for text in texts:
        client.publish(1, source, key, text, **fields)
        answer = await client.hear(1)
        assert isinstance(answer, commands.Basic.Ack), answer


@pytest.fixture
def confirms():
    return commands.Confirm.Select()


async def test_true_makes_it_the_last_value_which_nobody_is_told_by_a_header(confirms):
    async with amqp_broker(HandJournal(automatic=True)) as bench:
        client = await bench.client()
        await client.call(1, confirms)
        await declared(client)
        await bound(client, "q", TOPIC, "#")
        await stored(client, b"1", headers={"x-retain": True}, delivery_mode=2)
        await stored(client, b"2", headers={"a": 1, "x-retain": True}, content_type="text/plain", delivery_mode=2)
        assert {key: message.body for key, message in kept(bench).items()} == {"k": b"2"}
        first, second = await taken(client), await taken(client)
        assert (first.body, first.properties.headers) == (b"1", None)
        assert (second.body, second.properties.headers, second.properties.content_type) == (b"2", {"a": 1}, "text/plain")


async def test_false_and_nothing_do_not_and_an_empty_body_clears_it(confirms):
    async with amqp_broker() as bench:
        client = await bench.client()
        await client.call(1, confirms)
        await stored(client, b"1", headers={"x-retain": True})
        await stored(client, b"2", b"", headers={"x-retain": False})
        await stored(client, b"3", b"", headers={"a": 1})
        assert kept(bench)["k"].body == b"1"
        await stored(client, b"", headers={"x-retain": True})
        assert kept(bench) == {}


async def test_it_is_confirmed_when_it_is_on_disk_though_no_queue_gets_it(confirms):
    journal = HandJournal(automatic=True)
    async with amqp_broker(journal) as bench:
        client = await bench.client()
        await client.call(1, confirms)
        journal.automatic = False
        client.publish(1, TOPIC, "k", b"1", headers={"x-retain": True}, delivery_mode=2)
        assert await client.silent()
        journal.finish()
        assert isinstance(await client.hear(1), commands.Basic.Ack)


async def test_what_comes_back_unrouted_is_kept_all_the_same(confirms):
    async with amqp_broker() as bench:
        client = await bench.client()
        await client.call(1, confirms)
        client.publish(1, TOPIC, "k", b"1", headers={"x-retain": True}, mandatory=True)
        assert (await delivered(client))[0].body == b"1"
        assert isinstance(await client.hear(1), commands.Basic.Ack)
        assert kept(bench)["k"].body == b"1"


async def test_with_further_keys_it_is_the_last_value_of_its_own_alone(confirms):
    async with amqp_broker() as bench:
        client = await bench.client()
        await client.call(1, confirms)
        await declared(client)
        await bound(client, "q", TOPIC, "other")
        await stored(client, b"1", headers={"x-retain": True, "CC": ["other"]})
        assert list(kept(bench)) == ["k"]
        assert (await taken(client)).body == b"1"


async def test_an_exchange_of_ones_own_keeps_values_too(confirms):
    async with amqp_broker() as bench:
        client = await bench.client()
        await exchange(client, "mine", "topic")
        await client.call(1, confirms)
        await stored(client, b"1", source="mine", headers={"x-retain": True})
        assert kept(bench, "mine")["k"].body == b"1"


@pytest.mark.parametrize(
    ("source", "key", "value", "text"),
    [
        ("", "q", True, "last values are a topic exchange's, and exchange '' in vhost '/' is none"),
        ("amq.fanout", "k", True, "last values are a topic exchange's, and exchange 'amq.fanout' in vhost '/' is none"),
        (TOPIC, "$SYS.x", True, "last values of keys that begin with $SYS. are the broker's own"),
        (TOPIC, "k", "yes", "invalid message: the header x-retain must be true or false, not 'yes'"),
    ],
)
async def test_what_can_not_be_a_last_value_closes_the_channel_and_is_published_nowhere(source, key, value, text):
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        await bound(client, "q", "amq.fanout", "")
        client.publish(1, source, key, b"1", headers={"x-retain": value})
        assert await client.refused(1) == (406, f"PRECONDITION_FAILED - {text}")
        assert (kept(bench), bench.queue("q").count) == ({}, 0)


async def test_a_transaction_can_not_have_it():
    async with amqp_broker() as bench:
        client = await bench.client()
        assert isinstance(await client.call(1, commands.Tx.Select()), commands.Tx.SelectOk)
        client.publish(1, TOPIC, "k", b"1", headers={"x-retain": True})
        code, text = await client.refused(1)
        assert (code, text) == (406, "PRECONDITION_FAILED - what is published in a transaction can't be a last value")
        assert kept(bench) == {}
