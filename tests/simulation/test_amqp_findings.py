"""What the simulation has found in AMQP's front-end, each reduced to what it takes."""

from __future__ import annotations

from pamqp import commands

from tests.amqp.wire import amqp_broker

Basic = commands.Basic


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
