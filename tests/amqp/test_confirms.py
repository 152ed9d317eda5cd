"""Publisher confirms: who is told what of which message, when, and in how many frames?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, frame

from gateway.errors import JournalError
from gateway_amqp.confirms import Confirms
from tests.amqp.rooms import declared, unwritten, written
from tests.amqp.wire import amqp_broker, publishing
from tests.runtime.support import HandJournal

Ack, Nack = commands.Basic.Ack, commands.Basic.Nack


def frames_of(data):
    found = []
    while data:
        used, _, command = frame.unmarshal(data)
        found.append(command)
        data = data[used:]
    return found


def said(command):
    return type(command).__name__, command.delivery_tag, command.multiple


@given(st.lists(st.lists(st.booleans(), max_size=8), max_size=8), st.integers(0, 3))
def test_each_tag_is_told_once_in_order_with_its_fate_and_in_as_few_frames_as_can_be(batches, offset):
    confirms = Confirms(7, offset)
    fates = {}
    through = offset
    for batch in batches:
        refused = [through + index for index, stored in enumerate(batch, 1) if not stored]
        runs = sum(1 for index, stored in enumerate(batch) if index == 0 or batch[index - 1] != stored)
        through += len(batch)
        told = frames_of(confirms.told(through, refused) if refused else confirms.all_stored(through))
        assert len(told) == runs
        for command in told:
            first = len(fates) + 1
            assert command.multiple == (command.delivery_tag > first)
            for tag in range(first, command.delivery_tag + 1):
                fates[tag] = isinstance(command, Ack)
    assert list(fates.values()) == [stored for batch in batches for stored in batch]


def test_what_was_published_before_confirm_select_has_no_tag():
    confirms = Confirms(1, 5)
    assert confirms.all_stored(3) == b""
    assert confirms.told(5, [4, 5]) == b""
    assert [said(command) for command in frames_of(confirms.told(8, [2, 7]))] == [
        ("Ack", 1, False),
        ("Nack", 2, False),
        ("Ack", 3, False),
    ]


async def confirming(client):
    assert isinstance(await client.call(1, commands.Confirm.Select()), commands.Confirm.SelectOk)


async def test_what_comes_in_one_read_is_confirmed_by_one_frame_when_it_is_on_disk():
    async with unwritten(first=commands.Confirm.Select()) as (_, journal, client):
        for index in range(5):
            client.publish(1, "", "q", b"%d" % index, delivery_mode=2)
        assert await client.silent()
        await written(journal)
        assert said(await client.hear(1)) == ("Ack", 5, True)
        assert journal.stored == [b"0", b"1", b"2", b"3", b"4"]
        client.publish(1, "", "q", b"5", delivery_mode=2)
        await written(journal)
        assert said(await client.hear(1)) == ("Ack", 6, False)
        assert await client.silent()


async def test_transient_messages_and_those_that_reach_no_queue_are_confirmed_too():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        await confirming(client)
        client.publish(1, "", "q", b"transient")
        assert said(await client.hear(1)) == ("Ack", 1, False)
        client.publish(1, "", "nowhere", b"lost")
        assert said(await client.hear(1)) == ("Ack", 2, False)
        client.publish(1, "amq.fanout", "", b"lost", delivery_mode=2)
        assert said(await client.hear(1)) == ("Ack", 3, False)


async def test_tags_begin_with_confirm_select_and_again_on_each_channel():
    async with amqp_broker() as bench:
        client = await bench.client()
        await client.open(2)
        await declared(client)
        client.publish(1, "", "q", b"a")
        client.publish(1, "", "q", b"b")
        client.say(1, commands.Confirm.Select(), commands.Confirm.Select(nowait=True))
        client.publish(1, "", "q", b"c")
        assert isinstance(await client.hear(1), commands.Confirm.SelectOk)
        assert said(await client.hear(1)) == ("Ack", 1, False)
        client.say(2, commands.Confirm.Select(nowait=True))
        client.publish(2, "", "q", b"d")
        assert said(await client.hear(2)) == ("Ack", 1, False)
        assert await client.silent()


async def test_confirm_select_is_answered_behind_what_was_asked_before():
    journal = HandJournal(automatic=True)
    async with amqp_broker(journal) as bench:
        client = await bench.client()
        journal.automatic = False
        client.say(1, commands.Queue.Declare(queue="q", durable=True), commands.Confirm.Select())
        assert await client.silent()
        await written(journal)
        assert isinstance(await client.hear(1), commands.Queue.DeclareOk)
        assert isinstance(await client.hear(1), commands.Confirm.SelectOk)


async def test_what_a_full_queue_refuses_is_nacked_among_others_that_are_acked():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client, "full", arguments={"x-max-length": 2, "x-overflow": "reject-publish"})
        await declared(client, "q")
        await confirming(client)
        for _ in range(4):
            client.publish(1, "", "full", b"x")
        client.publish(1, "", "q", b"x")
        client.publish(1, "", "q", b"x")
        assert [said(await client.hear(1)) for _ in range(3)] == [("Ack", 2, True), ("Nack", 4, True), ("Ack", 6, True)]
        assert await client.silent()


async def test_what_the_journal_loses_is_nacked_and_the_channel_goes_on():
    async with unwritten(first=commands.Confirm.Select(), limits={"refuse_after_ms": 0}) as (_, journal, client):
        client.publish(1, "", "q", b"a", delivery_mode=2)
        client.publish(1, "", "q", b"b", delivery_mode=2)
        await written(journal, JournalError("the disk is gone"))
        assert said(await client.hear(1)) == ("Nack", 2, True)
        client.publish(1, "", "q", b"c", delivery_mode=2)  # nothing can be written now
        client.publish(1, "", "nowhere", b"d")
        assert said(await client.hear(1)) == ("Nack", 3, False)
        assert said(await client.hear(1)) == ("Ack", 4, False)


async def test_what_is_refused_for_good_closes_the_channel_behind_the_confirms_before_it():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        await confirming(client)
        client.publish(1, "", "q", b"a")
        client.publish(1, "", "q", b"b")
        client.publish(1, "nope", "q", b"c")
        client.publish(1, "", "q", b"never")
        client.say(1, commands.Queue.Declare(queue="never"))
        assert said(await client.hear(1)) == ("Ack", 2, True)
        assert await client.refused(1) == (404, "NOT_FOUND - no exchange 'nope' in vhost '/'")
        assert bench.queue("q").ready_count == 2
        assert bench.queue("never") is None
        await client.open(1)
        await declared(client)


async def test_confirms_come_before_a_close_whatever_was_asked_before_them():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        for asked in ([], [commands.Queue.Declare(queue="other")]):
            await confirming(client)
            client.raw(
                b"".join(
                    [
                        *(frame.marshal(method, 1) for method in asked),
                        *(publishing(1, exchange, "q", b"x") for exchange in ("", "", "nope")),
                    ]
                )
            )
            heard = [await client.hear(1) for _ in range(len(asked) + 1)]
            assert ("Ack", 2, True) in [said(answer) for answer in heard if isinstance(answer, Ack)]
            assert (await client.refused(1))[0] == 404
            await client.open(1)


async def test_a_channel_is_closed_when_what_it_published_before_is_confirmed():
    async with unwritten(first=commands.Confirm.Select()) as (_, journal, client):
        client.publish(1, "", "q", b"a", delivery_mode=2)
        client.say(1, commands.Channel.Close(200, "", 0, 0))
        assert await client.silent()
        await written(journal)
        assert said(await client.hear(1)) == ("Ack", 1, False)
        assert isinstance(await client.hear(1), commands.Channel.CloseOk)


async def test_a_channel_is_transactional_or_confirming_but_not_both():
    async with amqp_broker() as bench:
        client = await bench.client()
        await confirming(client)
        client.say(1, commands.Tx.Select())
        assert await client.refused(1) == (406, "PRECONDITION_FAILED - cannot switch from confirm to tx mode")
        await client.open(1)
        assert isinstance(await client.call(1, commands.Tx.Select()), commands.Tx.SelectOk)
        client.say(1, commands.Confirm.Select())
        assert await client.refused(1) == (406, "PRECONDITION_FAILED - cannot switch from tx to confirm mode")


async def test_who_does_not_ask_for_confirms_is_told_when_the_journal_has_not_got_its_message():
    async with unwritten(limits={"refuse_after_ms": 0}) as (bench, journal, client):
        client.publish(1, "", "q", b"a", delivery_mode=2)
        await written(journal, JournalError("the disk is gone"))
        code, text = await client.refused(1)
        assert code == 506
        assert text.startswith("RESOURCE_ERROR - ")
        await client.open(1)
        client.publish(1, "", "q", b"b", delivery_mode=2)  # known to be refused at once
        assert (await client.refused(1))[0] == 506
        await client.open(1)
        client.publish(1, "", "q", b"c")
        assert await client.silent()
        assert bench.queue("q").ready_count == 1


async def test_who_does_not_ask_for_confirms_hears_nothing_of_a_full_queue():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client, "full", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
        for _ in range(3):
            client.publish(1, "", "full", b"x")
        await declared(client, "full", passive=True)
        assert bench.queue("full").ready_count == 1
