"""What the simulation has found in AMQP's front-end, each reduced to what it takes."""

from __future__ import annotations

from pamqp import commands

from tests.amqp.wire import amqp_broker
from tests.runtime.support import HandJournal

Basic = commands.Basic
CLOSE = commands.Connection.Close(200, "", 0, 0)


async def test_what_is_sent_before_recover_is_answered_goes_back_by_it_though_consume_was_answered_late():
    async with amqp_broker() as bench:
        client = await bench.client()
        await client.call(1, commands.Queue.Declare(queue="q", durable=True))
        client.publish(1, "", "q", b"one", delivery_mode=2)
        client.say(1, Basic.Consume(queue="q", consumer_tag="c"), Basic.Recover(requeue=True))
        assert isinstance(await client.hear(1), Basic.ConsumeOk)
        heard = await client.hear(1)
        while not isinstance(heard, Basic.RecoverOk):
            heard = await client.hear(1)
        again = await client.hear(1)
        assert (again.body, again.method.redelivered) == (b"one", True)
        assert list(client.protocol.channels[1].consuming.unsettled.deliveries) == [again.method.delivery_tag]


async def test_who_leaves_is_answered_when_all_is_on_disk_though_something_of_before_fails_meanwhile():
    journal = HandJournal()
    async with amqp_broker(journal) as bench:
        client = await bench.client()
        await client.open(2)
        client.say(1, commands.Queue.Declare(queue="q", durable=True), commands.Exchange.Declare(exchange="e", exchange_type="x"))
        assert await client.silent()
        client.publish(2, "", "q", b"one", delivery_mode=2)
        client.say(0, CLOSE)
        assert await client.silent()
        journal.finish()
        assert isinstance(await client.hear(1), commands.Queue.DeclareOk)
        assert await client.silent()  # what was published is not on disk
        journal.finish()
        assert isinstance(await client.hear(0), commands.Connection.CloseOk)


async def test_who_leaves_holds_nothing_any_more_for_which_it_might_be_closed():
    journal = HandJournal()
    async with amqp_broker(journal) as bench:
        client = await bench.client()
        await client.open(2)
        client.say(2, commands.Tx.Select())
        assert isinstance(await client.hear(2), commands.Tx.SelectOk)
        client.publish(2, "", "q", b"x" * 10_000)
        client.say(1, commands.Queue.Declare(queue="q", durable=True))
        client.say(0, CLOSE)
        assert await client.silent()
        assert bench.server.broker.partial.held_bytes == 0
        journal.finish()
        assert isinstance(await client.hear(1), commands.Queue.DeclareOk)
        assert isinstance(await client.hear(0), commands.Connection.CloseOk)
