"""A channel's transactions: one outcome, which comes when all of it is on disk."""

from __future__ import annotations

import pytest
import trio

from gateway.api.consumer import ConsumeOptions
from gateway.errors import GatewayError, MessageRefused, MessageTooLarge, NotHeld, Overloaded
from gateway.model.declare import Binding, Overflow, QueueSpec
from gateway.model.exchange_arguments import exchange_spec
from gateway.model.message import Message, with_properties
from gateway.model.properties import Properties
from tests.engine.support import Sink
from tests.runtime.support import HandJournal, Outcomes, running, turns
from tests.runtime.test_refused import contents, declared, fail, open_channel, recover


def sending(channel, *sent):
    publishes = []
    for key, body in sent:
        route = channel.route("", key)
        publishes.append((route, Message(route.address, body, True)))
    return publishes


async def held(channel, journal, body=b"1"):
    """Let the channel hold a delivery that is on disk."""
    channel.publish(*sending(channel, ("from", body))[0])
    sink = Sink()
    channel.consume("from", sink, ConsumeOptions(prefetch=1))
    await turns()
    while journal.writes:
        journal.finish()
        await turns()
    return sink.deliveries[0]


async def test_the_outcome_comes_with_the_one_commit_that_holds_all_of_it(autojump_clock):
    journal = HandJournal()
    async with running(journal) as broker:
        outcomes = Outcomes()
        channel = open_channel(broker, outcomes)
        await declared(channel, journal, "from", "to")
        delivery = await held(channel, journal)
        number = channel.transact(sending(channel, ("to", b"x"), ("none", b"y")), [(delivery, "ack")])
        assert channel.refused(number) is None
        await turns()
        assert outcomes.through < number
        bodies, _, settled = journal.last
        assert (bodies, settled) == ([b"x"], [delivery])
        journal.finish()
        await turns()
        assert outcomes.through == number
        assert outcomes.exceptions[number].result == [1]


async def test_acknowledgements_alone_are_on_disk_before_their_outcome(autojump_clock):
    journal = HandJournal()
    async with running(journal) as broker:
        outcomes = Outcomes()
        channel = open_channel(broker, outcomes)
        await declared(channel, journal, "from")
        delivery = await held(channel, journal)
        number = channel.transact([], [(delivery, "ack")])
        await turns()
        assert journal.last[2] == [delivery]
        assert outcomes.through < number
        journal.finish()
        await turns()
        assert outcomes.exceptions[number].result == []


async def test_a_refusal_is_the_outcome_and_is_known_at_once(autojump_clock):
    async with running(HandJournal(automatic=True), max_message_bytes=1_024) as broker:
        channel, other, sink = open_channel(broker), open_channel(broker), Sink()
        await channel.outcome(channel.declare_queue(QueueSpec("q", max_length=1, overflow=Overflow.REJECT_PUBLISH)))
        await channel.outcome(channel.consume("q", sink, ConsumeOptions(prefetch=1)))
        await channel.outcome(channel.publish(*sending(channel, ("q", b"1"))[0]))
        (delivery,) = sink.deliveries

        async def refusal(asked, publishes, settle=()):
            number = asked.transact(publishes, settle)
            known = asked.refused(number)
            with pytest.raises(GatewayError) as error:
                await asked.outcome(number)
            assert error.value is known
            return type(known)

        assert await refusal(channel, sending(channel, ("q", b"2")), [(delivery, "ack")]) is MessageRefused
        assert await refusal(channel, sending(channel, ("none", b"x" * 1_025))) is MessageTooLarge
        assert await refusal(other, [], [(delivery, "ack")]) is NotHeld
        assert broker.counters["refused.full"] == broker.counters["refused.too large"] == 1
        assert (await channel.outcome(channel.transact([], [(delivery, "reject")]))).result == []
        assert channel.queue_info("q").messages == 0


async def test_short_memory_refuses_a_transaction_with_messages_but_not_one_that_only_settles(autojump_clock):
    taken = 0
    limits = {"memory_high_bytes": 1_000, "memory_max_bytes": 1_200}
    async with running(HandJournal(automatic=True), resident=lambda: taken, **limits) as broker:
        channel, sink = open_channel(broker), Sink()
        await channel.outcome(channel.declare_queue(QueueSpec("q")))
        await channel.outcome(channel.consume("q", sink, ConsumeOptions(prefetch=1)))
        await channel.outcome(channel.publish(*sending(channel, ("q", b"1"))[0]))
        taken = 5_000
        await trio.sleep(2)
        with pytest.raises(Overloaded, match="memory"):
            await channel.outcome(channel.transact(sending(channel, ("q", b"2")), []))
        assert (await channel.outcome(channel.transact([], [(sink.deliveries[0], "ack")]))).result == []


async def test_while_the_journal_fails_nothing_of_a_transaction_happens_that_must_last(autojump_clock):
    journal = HandJournal()
    async with running(journal, refuse_after_ms=0) as broker:
        outcomes = Outcomes()
        channel = open_channel(broker, outcomes)
        await declared(channel, journal, "from", "to")
        delivery = await held(channel, journal)
        channel.publish(*sending(channel, ("to", b"lost"))[0])
        await turns()
        await fail(journal)
        for publishes, settle in ((sending(channel, ("to", b"x")), []), ([], [(delivery, "ack")])):
            number = channel.transact(publishes, settle)
            assert isinstance(channel.refused(number), Overloaded)
        await turns()
        assert isinstance(outcomes.exceptions[number].error, Overloaded)
        assert channel.queue_info("to").messages == 0
        channel.ack(delivery)  # it is held as before


@pytest.mark.parametrize("joined", ["the failing commit", "the open batch"])
async def test_a_transaction_that_was_taken_holds_though_the_journal_fails(joined, autojump_clock):
    journal = HandJournal()
    async with running(journal, refuse_after_ms=0) as broker:
        outcomes = Outcomes()
        channel = open_channel(broker, outcomes)
        await declared(channel, journal, "from", "to")
        delivery = await held(channel, journal)
        if joined == "the open batch":
            channel.publish(*sending(channel, ("to", b"failing"))[0])
            await turns()
        number = channel.transact(sending(channel, ("to", b"x"), ("to", b"y")), [(delivery, "ack")])
        channel.publish(*sending(channel, ("to", b"plain"))[0])
        await turns()
        await fail(journal)
        assert isinstance(outcomes.exceptions[number].error, Overloaded)
        await recover(broker)
        assert await contents(broker, "to") == [b"x", b"y"]
        assert await contents(broker, "from") == []
        assert journal.stored.count(b"x") == 1


@pytest.mark.parametrize("joined", ["the failing commit", "the open batch"])
async def test_a_repetition_of_what_a_failing_journal_has_not_taken_is_not_confirmed(joined, autojump_clock):
    journal = HandJournal()
    async with running(journal, refuse_after_ms=0) as broker:
        outcomes = Outcomes()
        channel = open_channel(broker, outcomes)
        await declared(channel, journal, "to")
        channel.declare_exchange(exchange_spec("once", "fanout", arguments={"x-deduplication-window-ms": 600_000}))
        channel.bind(Binding("once", "to"))
        await turns()
        while journal.writes:
            journal.finish()
            await turns()
        if joined == "the open batch":
            channel.publish(*sending(channel, ("to", b"failing"))[0])
            await turns()
        route = channel.route("once", "k")
        message = with_properties(route.address, b"x", Properties(message_id="1"))
        channel.transact([(route, message)], [])
        await turns()
        await fail(journal)
        again = [channel.transact([(route, message)], []), channel.publish(route, message)]
        await turns()
        assert {type(outcomes.exceptions[number].error) for number in again} == {Overloaded}
        await recover(broker)
        number = channel.publish(route, message)
        await turns()
        assert outcomes.through == number
        assert number not in outcomes.exceptions
        assert await contents(broker, "to") == [b"x"]
