"""Direct reply-to: who asks is answered without a queue of its own, and nobody else can listen in."""

from __future__ import annotations

from contextlib import asynccontextmanager

from pamqp import commands

from tests.amqp.wire import Content, amqp_broker

NAME = "amq.rabbitmq.reply-to"


async def consuming(client, channel=1, tag="answers"):
    answer = await client.call(channel, commands.Basic.Consume(queue=NAME, consumer_tag=tag, no_ack=True))
    assert isinstance(answer, commands.Basic.ConsumeOk), answer
    assert answer.consumer_tag == tag


async def served(client, queue="work"):
    assert isinstance(await client.call(1, commands.Queue.Declare(queue=queue)), commands.Queue.DeclareOk)


async def question(client, queue="work"):
    answer = await client.call(1, commands.Basic.Get(queue=queue, no_ack=True))
    assert isinstance(answer, Content), answer
    return answer


async def asked(asker, server, channel=1):
    """Ask, and return the name under which an answer is wanted, as the server hears it."""
    asker.publish(channel, "", "work", b"?", reply_to=NAME)
    return (await question(server)).properties.reply_to


@asynccontextmanager
async def conversation():
    """Give a broker, who asks, who is asked, and the name under which an answer is wanted."""
    async with amqp_broker() as bench:
        asker, server = await bench.client(), await bench.client()
        await served(server)
        await consuming(asker)
        yield bench, asker, server, await asked(asker, server)


async def test_an_answer_reaches_the_consumer_of_the_channel_that_asked():
    async with amqp_broker() as bench:
        asker, server = await bench.client(), await bench.client()
        await served(server)
        await consuming(asker)
        for number in (b"1", b"2"):
            asker.publish(1, "", "work", number, reply_to=NAME, correlation_id="c" + number.decode(), headers={"h": 1})
            said = (await question(server)).properties
            assert said.reply_to.startswith(NAME + ".")
            assert (said.correlation_id, said.headers) == ("c" + number.decode(), {"h": 1})
            server.publish(1, "", said.reply_to, b"answer " + number, correlation_id=said.correlation_id)
            answer = await asker.hear(1)
            assert isinstance(answer, Content)
            assert (answer.method.consumer_tag, answer.method.exchange, answer.method.routing_key) == ("answers", "", said.reply_to)
            assert (answer.body, answer.properties.correlation_id) == (b"answer " + number, said.correlation_id)


async def test_a_question_may_follow_its_consumer_in_the_same_read():
    async with amqp_broker() as bench:
        asker, server = await bench.client(), await bench.client()
        await served(server)
        asker.say(1, commands.Basic.Consume(queue=NAME, consumer_tag="t", no_ack=True, nowait=True))
        asker.publish(1, "", "work", b"?", reply_to=NAME, mandatory=True)
        name = (await question(server)).properties.reply_to
        server.publish(1, "", name, b"!")
        assert (await asker.hear(1)).body == b"!"


async def test_each_channel_has_its_own_answers_under_names_that_can_not_be_guessed():
    async with amqp_broker() as bench:
        asker, server = await bench.client(), await bench.client()
        await asker.open(2)
        await served(server)
        names = set()
        for channel in (1, 2):
            await consuming(asker, channel)
            name = await asked(asker, server, channel)
            assert len(name) >= len(NAME) + 1 + 32
            names.add(name)
            server.publish(1, "", name, b"%d" % channel)
            assert (await asker.hear(channel)).body == b"%d" % channel
        assert len(names) == 2


async def test_nobody_else_may_consume_answers():
    async with conversation() as (_, _, thief, name):
        thief.say(1, commands.Basic.Consume(queue=name))
        assert (await thief.refused(1))[0] == 405


async def test_a_reply_consumer_acknowledges_nothing_and_is_the_only_one_of_its_channel():
    async with amqp_broker() as bench:
        client = await bench.client()
        client.say(1, commands.Basic.Consume(queue=NAME))
        assert await client.refused(1) == (406, "PRECONDITION_FAILED - reply consumer cannot acknowledge")
        await client.open(1)
        await consuming(client)
        client.say(1, commands.Basic.Consume(queue=NAME, consumer_tag="second", no_ack=True))
        assert await client.refused(1) == (406, "PRECONDITION_FAILED - reply consumer already set")
        await client.open(1)
        await consuming(client)


async def test_who_has_no_reply_consumer_can_not_ask():
    async with amqp_broker() as bench:
        client = await bench.client()
        await client.open(2)
        await served(client)
        await consuming(client, 2)
        client.publish(1, "", "work", b"?", reply_to=NAME)
        assert await client.refused(1) == (406, "PRECONDITION_FAILED - fast reply consumer does not exist")
        assert isinstance(await client.call(2, commands.Basic.Cancel("answers")), commands.Basic.CancelOk)
        client.publish(2, "", "work", b"?", reply_to=NAME)
        assert await client.refused(2) == (406, "PRECONDITION_FAILED - fast reply consumer does not exist")
        assert bench.queue("work").ready_count == 0


async def test_after_a_cancel_another_consumer_takes_over():
    async with amqp_broker() as bench:
        client = await bench.client()
        await served(client)
        await consuming(client, tag="first")
        await client.call(1, commands.Basic.Cancel("first"))
        await consuming(client, tag="second")
        client.publish(1, "", await asked(client, client), b"!")
        assert (await client.hear(1)).method.consumer_tag == "second"


async def test_an_answer_to_who_has_gone_comes_back_if_it_is_mandatory():
    async with conversation() as (bench, asker, server, name):
        assert bench.queue(name) is not None
        asker.vanish()
        assert await asker.hear() is None
        assert bench.queue(name) is None
        server.publish(1, "", name, b"!", mandatory=True)
        came = await server.hear(1)
        assert isinstance(came.method, commands.Basic.Return)
        assert (came.method.reply_code, came.body) == (312, b"!")


async def test_whether_somebody_can_be_answered_is_asked_by_a_declaration():
    async with conversation() as (_, _, server, name):
        for there in (NAME, name):
            answer = await server.call(1, commands.Queue.Declare(queue=there))
            assert (answer.queue, answer.message_count, answer.consumer_count) == (there, 0, 1)
        assert (await server.call(1, commands.Queue.Delete(queue=NAME))).message_count == 0
        server.say(1, commands.Queue.Declare(queue=NAME + ".xyz"))
        assert await server.refused(1) == (404, f"NOT_FOUND - no queue '{NAME}.xyz' in vhost '/'")


async def test_another_reply_to_is_left_as_it_is():
    async with amqp_broker() as bench:
        client = await bench.client()
        await served(client)
        client.publish(1, "", "work", b"?", reply_to=NAME + ".of-somebody")
        assert (await question(client)).properties.reply_to == NAME + ".of-somebody"


async def test_a_consumer_that_is_refused_leaves_no_queue_behind():
    async with amqp_broker() as bench:
        client = await bench.client()
        for _ in range(3):
            client.say(1, commands.Basic.Consume(queue=NAME, no_ack=True, arguments={"x-priority": "high"}))
            assert (await client.refused(1))[0] == 406
            await client.open(1)
        assert bench.broker.engine.vhost("/").queues == {}
