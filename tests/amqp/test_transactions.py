"""Tx: what is published and acknowledged happens with the commit, all of it or nothing."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import commands

from gateway.errors import JournalError
from gateway.runtime.clock import VirtualClock
from tests.amqp.rooms import declared, got, ready, until, unwritten, written
from tests.amqp.wire import amqp_broker
from tests.runtime.support import HandJournal

NONE = (406, "PRECONDITION_FAILED - channel is not transactional")


async def selected(client, channel=1):
    assert isinstance(await client.call(channel, commands.Tx.Select()), commands.Tx.SelectOk)


async def committed(client, channel=1):
    assert isinstance(await client.call(channel, commands.Tx.Commit()), commands.Tx.CommitOk)


async def rolled_back(client, channel=1):
    assert isinstance(await client.call(channel, commands.Tx.Rollback()), commands.Tx.RollbackOk)


@asynccontextmanager
async def transactional(**options):
    """Give a broker and a client that has declared a queue; its channel is transactional."""
    async with amqp_broker(**options) as bench:
        client = await bench.client()
        await declared(client)
        await selected(client)
        yield bench, client


async def test_publishes_reach_nobody_before_the_commit_and_are_on_disk_after_it():
    async with unwritten(first=commands.Tx.Select()) as (_, journal, client):
        client.publish(1, "", "q", b"a", delivery_mode=2)
        client.publish(1, "", "q", b"b", delivery_mode=2)
        assert await ready(client) == 0
        client.say(1, commands.Tx.Commit())
        assert await client.silent()
        assert len(journal.writes) == 1
        journal.finish()
        assert isinstance(await client.hear(1), commands.Tx.CommitOk)
        assert journal.stored == [b"a", b"b"]


async def test_each_commit_begins_another_transaction():
    async with transactional() as (_, client):
        await selected(client)
        await committed(client)
        for count in (1, 2, 3):
            client.publish(1, "", "q", b"x")
            assert await ready(client) == count - 1
            await committed(client)
            assert await ready(client) == count


async def test_what_is_rolled_back_was_never_published():
    async with transactional() as (_, client):
        client.publish(1, "", "q", b"never")
        await rolled_back(client)
        client.publish(1, "", "q", b"x")
        await committed(client)
        assert await ready(client) == 1
        assert (await got(client)).body == b"x"


async def test_acknowledgements_count_with_the_commit_and_rolled_back_they_can_be_said_again():
    async with amqp_broker() as bench:
        client = await bench.client()
        await client.open(2)
        await declared(client)
        for body in (b"a", b"b", b"c", b"d"):
            client.publish(2, "", "q", body)
        assert await ready(client) == 4
        await selected(client)
        tags = {(message := await got(client)).body: message.method.delivery_tag for _ in range(4)}
        client.say(1, commands.Basic.Ack(tags[b"b"], multiple=True), commands.Basic.Reject(tags[b"c"], requeue=True))
        assert await ready(client) == 0  # not before the commit
        await rolled_back(client)
        assert await ready(client) == 0
        client.say(1, commands.Basic.Ack(tags[b"a"]), commands.Basic.Nack(tags[b"b"], requeue=True))
        await committed(client)
        assert await ready(client) == 1
        assert (await got(client)).body == b"b"
        client.say(1, commands.Channel.Close(200, "", 0, 0))
        assert isinstance(await client.hear(1), commands.Channel.CloseOk)
        assert bench.queue("q").ready_count == 3
        assert bench.queue("q").count == 3


async def test_an_acknowledgement_of_the_same_transaction_is_known_no_more():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        client.publish(1, "", "q", b"a")
        await selected(client)
        tag = (await got(client)).method.delivery_tag
        client.say(1, commands.Basic.Ack(tag), commands.Basic.Ack(tag))
        assert await client.refused(1) == (406, f"PRECONDITION_FAILED - unknown delivery tag {tag}")
        assert bench.queue("q").ready_count == 1


async def test_rejected_with_the_commit_messages_are_dead_lettered():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client, "dead")
        await declared(client, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
        client.publish(1, "", "q", b"a")
        await selected(client)
        client.say(1, commands.Basic.Reject((await got(client)).method.delivery_tag, requeue=False))
        assert await ready(client, "dead") == 0
        await committed(client)
        assert await ready(client, "dead") == 1


async def test_what_is_taken_and_what_is_published_for_it_are_one_commit():
    journal = HandJournal(automatic=True)
    async with amqp_broker(journal, limits={"refuse_after_ms": 0}) as bench:
        client = await bench.client()
        await declared(client, "in", durable=True)
        await declared(client, "out", durable=True)
        client.publish(1, "", "in", b"a", delivery_mode=2)
        await selected(client)
        tag = (await got(client, "in")).method.delivery_tag
        journal.automatic = False
        client.publish(1, "", "out", b"A", delivery_mode=2)
        client.say(1, commands.Basic.Ack(tag), commands.Tx.Commit())
        await until(lambda: journal.writes)
        (bodies, _, settled), _ = journal.writes[0]
        assert bodies == [b"A"]
        assert len(settled) == 1
        journal.finish()
        assert isinstance(await client.hear(1), commands.Tx.CommitOk)


@pytest.mark.parametrize("overflow", ["reject-publish", "reject-publish-dlx"])
async def test_one_full_queue_refuses_the_whole(overflow):
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        await declared(client, "full", arguments={"x-max-length": 1, "x-overflow": overflow})
        client.publish(1, "", "q", b"taken")
        await selected(client)
        tag = (await got(client)).method.delivery_tag
        client.publish(1, "", "q", b"never")
        for _ in range(2):
            client.publish(1, "", "full", b"never")
        client.say(1, commands.Basic.Ack(tag), commands.Tx.Commit())
        code, text = await client.refused(1)
        assert code == 406
        assert text.startswith("PRECONDITION_FAILED - ")
        assert (bench.queue("q").ready_count, bench.queue("full").ready_count) == (1, 0)
        await client.open(1)
        again = await got(client)
        assert (again.body, again.method.redelivered) == (b"taken", True)


async def test_what_the_journal_loses_closes_the_channel():
    async with unwritten(first=commands.Tx.Select(), limits={"refuse_after_ms": 0}) as (_, journal, client):
        client.publish(1, "", "q", b"a", delivery_mode=2)
        client.say(1, commands.Tx.Commit())
        await written(journal, JournalError("the disk is gone"))
        assert (await client.refused(1))[0] == 506


async def test_mandatory_messages_come_back_before_the_commit_is_confirmed():
    async with transactional() as (_, client):
        client.publish(1, "", "nowhere", b"1", mandatory=True)
        client.publish(1, "", "q", b"2", mandatory=True)
        client.publish(1, "", "nowhere", b"3")
        client.publish(1, "", "nowhere", b"4", mandatory=True)
        assert await client.silent()
        client.say(1, commands.Tx.Commit())
        assert [(await client.hear(1)).body for _ in range(2)] == [b"1", b"4"]
        assert isinstance(await client.hear(1), commands.Tx.CommitOk)


async def test_an_exchange_that_is_not_there_is_missed_at_once():
    async with transactional() as (bench, client):
        client.publish(1, "", "q", b"never")
        client.publish(1, "nope", "q", b"never")
        assert await client.refused(1) == (404, "NOT_FOUND - no exchange 'nope' in vhost '/'")
        assert bench.queue("q").ready_count == 0


async def test_an_exchange_that_goes_before_the_commit_refuses_the_whole():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        await client.call(1, commands.Exchange.Declare(exchange="e", exchange_type="fanout"))
        await selected(client)
        client.publish(1, "", "q", b"never")
        client.publish(1, "e", "q", b"never")
        await client.call(1, commands.Exchange.Delete(exchange="e"))
        client.say(1, commands.Tx.Commit())
        assert await client.refused(1) == (404, "NOT_FOUND - no exchange 'e' in vhost '/'")
        assert bench.queue("q").ready_count == 0


@pytest.mark.parametrize("method", [commands.Basic.Ack(1), commands.Basic.Nack(1, requeue=True), commands.Basic.Reject(1)])
async def test_what_was_taken_away_from_the_client_before_its_commit_refuses_the_whole_as_it_would_without_one(
    method, autojump_clock
):
    async with amqp_broker(clock=VirtualClock()) as bench:
        client, other = await bench.client(), await bench.client()
        await declared(client, arguments={"x-consumer-timeout": 1_000})
        await declared(client, "out")
        client.publish(1, "", "q", b"late")
        await selected(client)
        assert (await got(client)).method.delivery_tag == 1
        client.publish(1, "", "out", b"never")
        client.say(1, method)
        await trio.sleep(1.5)
        assert (await got(other)).body == b"late"
        client.say(1, commands.Tx.Commit())
        assert await client.refused(1) == (406, "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out")
        assert (bench.queue("out").count, bench.queue("q").count) == (0, 1)


async def test_commit_and_rollback_are_for_transactional_channels():
    async with amqp_broker() as bench:
        client = await bench.client()
        client.say(1, commands.Tx.Commit())
        assert await client.refused(1) == NONE
        await client.open(1)
        client.say(1, commands.Tx.Rollback())
        assert await client.refused(1) == NONE


async def test_properties_are_looked_at_when_they_come():
    async with amqp_broker() as bench:
        client = await bench.client()
        client.publish(1, "", "q", b"x", expiration="10")  # these are known by the time
        await selected(client)
        client.publish(1, "", "q", b"x", expiration="10")
        client.publish(1, "", "q", b"x", expiration="soon")
        assert await client.refused(1) == (406, "PRECONDITION_FAILED - invalid expiration 'soon': no_integer")


async def test_the_time_that_a_message_has_to_live_begins_with_the_commit(autojump_clock):
    async with transactional(clock=VirtualClock()) as (_, client):
        client.publish(1, "", "q", b"x", expiration="1000")
        await trio.sleep(5)
        await committed(client)
        await trio.sleep(0.9)
        assert await ready(client) == 1
        await trio.sleep(0.2)
        assert await got(client) is None


async def test_what_a_channel_that_ends_has_not_committed_never_happens():
    async with transactional() as (bench, client):
        client.publish(1, "", "q", b"never")
        client.say(1, commands.Channel.Close(200, "", 0, 0))
        assert isinstance(await client.hear(1), commands.Channel.CloseOk)
        assert bench.queue("q").ready_count == 0
        assert client.protocol.broker.partial.held_bytes == 0


async def test_what_open_transactions_hold_is_bounded_and_given_back():
    async with transactional(max_message_bytes=1_024) as (_, client):
        partial = client.protocol.broker.partial
        for _ in range(100):
            client.publish(1, "", "q", b"x" * 1_000)
        assert partial.held_bytes >= 100_000
        await committed(client)
        assert partial.held_bytes == 0
        await client.open(2)
        await selected(client, 2)
        piece = b"x" * 1_024
        for channel in (1, 2) * 6_000:
            client.publish(channel, "", "q", piece)
        channel, close = await client.next()
        assert channel in (1, 2)
        assert (close.reply_code, close.reply_text) == (
            506,
            "RESOURCE_ERROR - open transactions of a connection hold 16778240 bytes at most",
        )


async def test_when_all_transactions_hold_too_much_the_connection_with_the_most_is_closed():
    async with amqp_broker(max_partial_bytes=1024 * 1024) as bench:
        small, hog = await bench.client(), await bench.client()
        for client in (small, hog):
            await selected(client)
        small.publish(1, "", "q", b"x" * 100_000)
        for _ in range(10):
            hog.publish(1, "", "q", b"x" * 100_000)
        code, _ = await hog.thrown_out()
        assert code == 506
        await committed(small)


class Model:
    """One queue and one transactional channel, as they should be: messages are numbered by their places."""

    def __init__(self):
        self.ready = []
        self.unsettled = {}
        self.published = []
        self.settled = []
        self.places = 0
        self.tags = 0

    def get(self):
        if not self.ready:
            return None
        self.tags += 1
        self.unsettled[self.tags] = self.ready.pop(0)
        return self.tags

    def settle(self, tag, multiple, requeue):
        tags = [known for known in self.unsettled if known == tag or (multiple and known < tag)]
        self.settled += [(known, self.unsettled.pop(known), requeue) for known in tags]

    def commit(self):
        for body in self.published:
            self.places += 1
            self.ready.append((self.places, body))
        self.ready = sorted(self.ready + [message for _, message, requeue in self.settled if requeue])
        self.published, self.settled = [], []

    def rollback(self):
        self.unsettled = dict(sorted([*self.unsettled.items(), *((tag, message) for tag, message, _ in self.settled)]))
        self.published, self.settled = [], []


STEPS = st.lists(
    st.one_of(
        st.just(("publish",)),
        st.just(("get",)),
        st.tuples(st.just("settle"), st.integers(0, 5), st.booleans(), st.booleans()),
        st.just(("commit",)),
        st.just(("rollback",)),
    ),
    max_size=30,
)


@settings(max_examples=60)
@given(STEPS)
def test_whatever_is_done_in_whichever_order_the_queue_holds_what_was_committed(steps):
    trio.run(_follow, steps)


async def _follow(steps):
    model = Model()
    async with transactional() as (_, client):
        for number, step in enumerate(steps):
            if step[0] == "publish":
                model.published.append(b"%d" % number)
                client.publish(1, "", "q", b"%d" % number)
            elif step[0] == "get":
                tag, message = model.get(), await got(client)
                assert (message.method.delivery_tag if message else None) == tag
                assert message is None or message.body == model.unsettled[tag][1]
            elif step[0] == "settle":
                _, index, multiple, requeue = step
                if index < len(model.unsettled):
                    tag = list(model.unsettled)[index]
                    model.settle(tag, multiple, requeue)
                    method = commands.Basic.Nack(tag, multiple, requeue) if requeue else commands.Basic.Ack(tag, multiple)
                    client.say(1, method)
            elif step[0] == "commit":
                model.commit()
                await committed(client)
            else:
                model.rollback()
                await rolled_back(client)
            assert await ready(client) == len(model.ready)
        client.say(1, commands.Channel.Close(200, "", 0, 0))
        assert isinstance(await client.hear(1), commands.Channel.CloseOk)
        model.rollback()
        await client.open(1)
        left = sorted([*model.ready, *model.unsettled.values()])
        assert [(await got(client)).body for _ in left] == [body for _, body in left]
        assert await got(client) is None
