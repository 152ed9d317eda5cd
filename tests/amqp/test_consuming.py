"""Basic.Consume, Deliver, Cancel: who is sent what, in which form, and who is told that it ends?"""

from __future__ import annotations

import pytest
from pamqp import commands

from gateway.api import Credentials, Message, Properties, with_properties
from tests.amqp.rooms import LOCKED, answered, bodies, bound, consuming, declared, delivered, exchange, limited, publish, ready
from tests.amqp.wire import CAPABILITIES, Content, amqp_broker
from tests.runtime.support import HandJournal

Basic, Channel, Queue = commands.Basic, commands.Channel, commands.Queue


async def test_a_delivery_says_tag_place_and_all_properties():
    async with amqp_broker() as bench:
        client = await bench.client()
        await exchange(client, "x.1:2_3-4", "topic")
        await declared(client)
        await bound(client, "q", "x.1:2_3-4", "#")
        tag = await consuming(client, tag="my tag ü")
        said = {"content_type": "text/plain", "headers": {"a": 1}, "delivery_mode": 2, "priority": 3, "message_id": "m"}
        client.publish(1, "x.1:2_3-4", "k.ö", b"body", **said)
        (one,) = await delivered(client)
        method = one.method
        assert (method.consumer_tag, method.delivery_tag, method.redelivered) == (tag, 1, False)
        assert (method.exchange, method.routing_key, one.body) == ("x.1:2_3-4", "k.ö", b"body")
        assert {name: getattr(one.properties, name) for name in said} == said


async def test_delivery_tags_rise_by_one_over_all_consumers_of_a_channel_and_begin_anew_on_each():
    async with amqp_broker() as bench:
        client = await bench.client()
        await client.open(2)
        await declared(client, "a")
        await declared(client, "b")
        await consuming(client, "a", "ca")
        await consuming(client, "b", "cb", no_ack=True)
        publish(client, b"1", b"2", queue="a")
        publish(client, b"3", queue="b")
        publish(client, b"4", queue="a")
        told = [(one.method.consumer_tag, one.method.delivery_tag, one.body) for one in await delivered(client, 4)]
        assert told == [("ca", 1, b"1"), ("ca", 2, b"2"), ("cb", 3, b"3"), ("ca", 4, b"4")]
        await answered(client, Basic.Cancel("cb"), Basic.CancelOk)
        await consuming(client, "b", "other", channel=2)
        publish(client, b"5", queue="b")
        (other,) = await delivered(client, 1, channel=2)
        assert other.method.delivery_tag == 1


@pytest.mark.parametrize("size", [0, 1, 4_087, 4_088, 4_089, 8_176, 8_177, 20_000])
async def test_a_body_is_cut_into_frames_that_the_client_takes(size):
    async with amqp_broker() as bench:
        client = await bench.client(frame_max=4_096)
        await declared(client)
        await consuming(client)
        data = bytes(range(256)) * (size // 256 + 1)
        client.publish(1, "", "q", data[:size], frame_max=4_096)
        client.publish(1, "", "q", data[:size], frame_max=4_096)
        for one in await delivered(client, 2):
            assert one.body == data[:size]
            assert one.frames == -(-size // 4_088)


async def test_messages_of_different_sizes_addresses_and_properties_are_not_mixed_up():
    async with amqp_broker() as bench:
        client, other = await bench.client(), await bench.client(frame_max=4_096)
        await other.open(7)
        for name in ("q", "r"):
            await declared(client, name)
            await bound(client, name, "amq.fanout")
        await consuming(client, "q", "first")
        await consuming(other, "r", "second", channel=7)
        sent = []
        for number in range(40):
            data = b"%d" % number * (1 + number % 3) * (3_000 if number % 7 == 0 else 1)
            fields = {"message_id": str(number)} if number % 2 else {}
            key = "k" * (number % 5)
            client.publish(1, "amq.fanout", key, data, **fields)
            sent.append((key, data, str(number) if number % 2 else None))
        for peer, channel in ((client, 1), (other, 7)):
            got = await delivered(peer, 40, channel)
            assert [(one.method.routing_key, one.body, one.properties.message_id) for one in got] == sent


async def test_what_another_protocol_publishes_has_its_properties():
    async with amqp_broker() as bench:
        client, second = await bench.client(), await bench.client()
        await declared(client)
        await declared(client, "r")
        await bound(client, "q", "amq.topic", "k")
        await bound(client, "r", "amq.topic", "k")
        await consuming(client)
        await consuming(second, "r")
        gateway = bench.broker.gateway("other", [].append, bench.log)
        channel = gateway.open_channel(await gateway.authenticate(Credentials(front_end="other", loopback=True)))
        route = channel.route("amq.topic", "k")
        channel.publish(route, with_properties(route.address, b"x", Properties(content_type="a/b", headers={"n": 7}, priority=4)))
        channel.publish(route, Message(route.address, b"plain", persistent=True))
        for peer in (client, second):
            rich, plain = await delivered(peer, 2)
            assert (rich.properties.content_type, rich.properties.headers, rich.properties.priority) == ("a/b", {"n": 7}, 4)
            assert (plain.body, plain.properties.delivery_mode) == (b"plain", 2)


async def test_an_empty_tag_is_chosen_and_is_another_one_each_time():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        tags = {await consuming(client, tag="") for _ in range(3)}
        assert len(tags) == 3
        assert all(tag.startswith("amq.ctag-") for tag in tags)


async def test_a_tag_that_is_in_use_ends_the_connection():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        await consuming(client, tag="t")
        client.say(1, Basic.Consume(queue="q", consumer_tag="t"))
        assert await client.thrown_out() == (530, "NOT_ALLOWED - attempt to reuse consumer tag 't'")


async def test_the_same_tag_may_be_used_on_another_channel_and_after_a_cancel():
    async with amqp_broker() as bench:
        client = await bench.client()
        await client.open(2)
        await declared(client)
        await consuming(client, tag="t")
        await consuming(client, tag="t", channel=2)
        await answered(client, Basic.Cancel("t"), Basic.CancelOk)
        await consuming(client, tag="t")


async def test_consuming_without_a_wait_has_no_answer_and_brings_messages():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        publish(client, b"1")
        client.say(1, Basic.Consume(queue="q", consumer_tag="t", nowait=True))
        assert await bodies(client, 1) == [b"1"]


async def test_what_waits_in_the_queue_comes_behind_consume_ok_even_if_the_disk_is_slow():
    journal = HandJournal()
    async with amqp_broker(journal) as bench:
        client = await bench.client()
        journal.automatic = False
        client.say(1, Queue.Declare(queue="d", durable=True), Basic.Consume(queue="d", consumer_tag="t"))
        client.publish(1, "", "d", b"1", delivery_mode=2)
        assert await client.silent()
        journal.automatic = True
        journal.finish()
        kinds = [type(await client.hear(1)) for _ in range(3)]
        assert kinds == [Queue.DeclareOk, Basic.ConsumeOk, Content]


async def test_a_consumer_that_is_cancelled_before_it_was_told_gets_nothing():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        publish(client, b"1")
        client.say(1, Basic.Consume(queue="q", consumer_tag="t"), Basic.Cancel("t"))
        assert isinstance(await client.hear(1), Basic.ConsumeOk)
        assert isinstance(await client.hear(1), Basic.CancelOk)
        assert await ready(client) == 1
        assert not bench.queue("q").consumers


async def test_after_a_cancel_nothing_comes_and_what_came_can_still_be_acknowledged():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        await consuming(client, tag="t")
        publish(client, b"1")
        await delivered(client)
        ok = await answered(client, Basic.Cancel("t"), Basic.CancelOk)
        assert ok.consumer_tag == "t"
        publish(client, b"2")
        client.say(1, Basic.Ack(1))
        assert await ready(client) == 1
        assert bench.queue("q").count == 1


async def test_cancelling_an_unknown_consumer_is_answered_unless_nobody_wants_to_know():
    async with amqp_broker() as bench:
        client = await bench.client()
        ok = await answered(client, Basic.Cancel("nobody"), Basic.CancelOk)
        assert ok.consumer_tag == "nobody"
        client.say(1, Basic.Cancel("nobody", nowait=True))
        assert await client.silent()


async def test_an_auto_delete_queue_goes_with_its_last_consumer():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client, "a", auto_delete=True)
        await consuming(client, "a", "one")
        await consuming(client, "a", "two")
        await answered(client, Basic.Cancel("one"), Basic.CancelOk)
        assert bench.queue("a") is not None
        await answered(client, Basic.Cancel("two"), Basic.CancelOk)
        assert bench.queue("a") is None


async def test_a_client_is_told_when_its_queue_goes_if_it_understands_that():
    async with amqp_broker() as bench:
        client = await bench.client()
        deaf = await bench.client(capabilities={**CAPABILITIES, "consumer_cancel_notify": False})
        await declared(client)
        await consuming(client, tag="mine")
        await consuming(deaf, tag="theirs")
        publish(client, b"1", b"2")
        await delivered(client)
        client.say(1, Queue.Delete(queue="q"))
        assert isinstance(await client.hear(1), Queue.DeleteOk)  # first, as py-amqp and amqplib count on
        told = await client.hear(1)
        assert isinstance(told, Basic.Cancel)
        assert (told.consumer_tag, told.nowait) == ("mine", True)
        await delivered(deaf)
        assert await deaf.silent()
        client.say(1, Basic.CancelOk("mine"), Basic.Ack(1))  # what it had may be settled: there is nothing to be lost
        await declared(client)
        await consuming(client, tag="mine")


async def test_a_queue_that_goes_before_consume_ok_was_sent_cancels_behind_it():
    async with amqp_broker() as bench:
        client = await bench.client()
        await client.open(2)
        await declared(client)
        client.say(1, Basic.Consume(queue="q", consumer_tag="t"))
        client.say(2, Queue.Delete(queue="q"))
        assert isinstance((await client.next())[1], Basic.ConsumeOk)
        assert isinstance((await client.next())[1], Basic.Cancel)
        assert isinstance((await client.next())[1], Queue.DeleteOk)


@pytest.mark.parametrize("first", [False, True])
async def test_an_exclusive_consumer_is_alone_or_refused(first):
    async with amqp_broker() as bench:
        client, other = await bench.client(), await bench.client()
        await declared(client)
        await consuming(client, exclusive=first)
        other.say(1, Basic.Consume(queue="q", exclusive=not first))
        assert await other.refused(1) == (403, "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use")


@pytest.mark.parametrize(
    ("queue", "answer"),
    [
        ("nope", (404, "NOT_FOUND - no queue 'nope' in vhost '/'")),
        ("", (404, "NOT_FOUND - no previously declared queue")),
        (
            "theirs",
            (
                405,
                LOCKED.format("theirs"),
            ),
        ),
    ],
)
async def test_a_queue_that_cannot_be_consumed_closes_the_channel(queue, answer):
    async with amqp_broker() as bench:
        client, other = await bench.client(), await bench.client()
        await declared(other, "theirs", exclusive=True)
        client.say(1, Basic.Consume(queue=queue))
        assert await client.refused(1) == answer


async def test_nothing_that_was_pipelined_behind_a_refused_consume_is_carried_out():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        client.say(1, Basic.Consume(queue="nope"), Queue.Delete(queue="q"))
        assert (await client.refused(1))[0] == 404
        assert bench.queue("q") is not None


async def test_an_empty_name_is_the_queue_that_was_declared_last_even_if_its_name_is_not_told_yet():
    async with amqp_broker() as bench:
        client = await bench.client()
        client.say(1, Queue.Declare(queue=""), Basic.Consume(queue="", consumer_tag="t"))
        name = (await client.hear(1)).queue
        assert isinstance(await client.hear(1), Basic.ConsumeOk)
        publish(client, b"1", queue=name)
        assert await bodies(client, 1) == [b"1"]


async def test_messages_go_to_the_highest_priority_that_can_take_them():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        await limited(client, 2)
        await consuming(client, tag="low", arguments={"x-priority": -3})
        await consuming(client, tag="high", arguments={"x-priority": 5})
        publish(client, b"1", b"2", b"3")
        assert [one.method.consumer_tag for one in await delivered(client, 3)] == ["high", "high", "low"]


async def test_arguments_that_mean_nothing_are_said_in_the_log_once():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        for tag in ("one", "two"):
            await consuming(client, tag=tag, arguments={"x-mine": 1, "x-priority": 2, "mine": 3})
        assert bench.logged("an argument has no meaning here") == 1


async def test_a_priority_that_is_no_number_closes_the_channel():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        client.say(1, Basic.Consume(queue="q", arguments={"x-priority": "much"}))
        text = "PRECONDITION_FAILED - invalid arg 'x-priority' for queue 'q' in vhost '/': \"expected integer, got longstr\""
        assert await client.refused(1) == (406, text)


async def test_consumers_of_one_queue_take_turns_and_no_local_is_ignored():
    async with amqp_broker() as bench:
        clients = [await bench.client() for _ in range(3)]
        await declared(clients[0])
        for client in clients:
            await consuming(client, no_local=True)
        publish(clients[0], *(b"%d" % number for number in range(9)))
        assert [await bodies(client, 3) for client in clients] == [[b"0", b"3", b"6"], [b"1", b"4", b"7"], [b"2", b"5", b"8"]]
