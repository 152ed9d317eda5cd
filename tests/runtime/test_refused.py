"""A journal that fails for too long: who is told no finds as a rule that nothing is stored."""

from __future__ import annotations

import pytest
import trio

from gateway.api.consumer import ConsumeOptions
from gateway.api.frontend import Principal
from gateway.errors import JournalError, NotFound, Overloaded
from gateway.model.declare import Binding, ExchangeSpec, QueueSpec
from gateway.model.message import Message
from gateway.model.records import Bound, ExchangeDeclared, QueueDeclared, StatePut
from gateway.runtime.clock import VirtualClock
from tests.engine.support import Sink
from tests.runtime.support import HandJournal, Log, Outcomes, running, turns

FULL = JournalError("disk full")


def open_channel(broker, sink=None):
    return broker.gateway("test", lambda _: None, Log()).open_channel(Principal("u"), sink)


def publish(channel, body, key="q"):
    route = channel.route("", key)
    return channel.publish(route, Message(route.address, body, True))


async def declared(channel, journal, *names):
    for name in names:
        channel.declare_queue(QueueSpec(name))
    await turns()
    while journal.writes:
        journal.finish()
        await turns()


async def fail(journal):
    """Let the commit fail until it is refused."""
    journal.finish(FULL)
    await turns()


async def recover(broker):
    """Let everything be written, from now on."""
    broker.journal.automatic = True
    if broker.journal.writes:
        broker.journal.finish()
    with trio.fail_after(30):
        while broker.committer.failing:
            await turns()
    await trio.sleep(0.1)


async def contents(broker, queue):
    channel = open_channel(broker)
    found = []
    while True:
        outcome = await channel.outcome(channel.get(queue))
        if outcome.result is None:
            return found
        found.append(outcome.result.message.body)
        channel.ack(outcome.result)


async def test_what_was_refused_and_not_delivered_is_gone(autojump_clock):
    journal = HandJournal()
    async with running(journal, refuse_after_ms=0) as broker:
        outcomes = Outcomes()
        channel = open_channel(broker, outcomes)
        await declared(channel, journal, "q")
        failing = publish(channel, b"in the failing commit")
        await turns()
        waiting = publish(channel, b"in the open batch")
        await fail(journal)
        assert {type(outcomes.exceptions[number].error) for number in (failing, waiting)} == {Overloaded}
        assert channel.queue_info("q").messages == 0
        assert channel.queue_info("q").body_bytes == 0
        await recover(broker)
        assert await contents(broker, "q") == []
        assert journal.stored == [b"in the failing commit"]


async def test_what_was_refused_and_stored_all_the_same_is_settled_by_the_same_commit(autojump_clock):
    journal = HandJournal()
    async with running(journal, refuse_after_ms=0) as broker:
        channel = open_channel(broker, Outcomes())
        await declared(channel, journal, "q")
        publish(channel, b"1")
        await turns()
        await fail(journal)
        with trio.fail_after(30):
            while not journal.writes:
                await turns()
        (_, _, settled), _ = journal.writes[0]
        assert [reference.message.body for reference in settled] == [b"1"]
        prepared = journal.prepared
        journal.finish()  # the failing commit lands
        await trio.sleep(1)
        assert not journal.writes
        assert journal.prepared == prepared


async def test_what_was_refused_and_delivered_stays_and_can_be_acked(autojump_clock):
    journal = HandJournal()
    async with running(journal, refuse_after_ms=0, linger_us=0) as broker:
        outcomes, sink = Outcomes(), Sink()
        channel = open_channel(broker, outcomes)
        await declared(channel, journal, "q")
        channel.consume("q", sink, ConsumeOptions(prefetch=2))
        numbers = [publish(channel, body) for body in (b"1", b"2", b"3")]
        await turns()
        await fail(journal)
        assert {type(outcomes.exceptions[number].error) for number in numbers} == {Overloaded}
        assert [delivery.message.body for delivery in sink.deliveries] == [b"1", b"2"]
        assert channel.queue_info("q").messages == 0
        channel.ack(sink.deliveries[0])
        channel.nack(sink.deliveries[1], requeue=True)
        await recover(broker)
        assert [delivery.message.body for delivery in sink.deliveries] == [b"1", b"2", b"2"]
        channel.ack(sink.deliveries[2])
        await turns()
        assert channel.queue_info("q").body_bytes == 0


async def test_what_was_stored_before_is_untouched_and_order_and_counts_are_right_afterwards(autojump_clock):
    journal = HandJournal()
    async with running(journal, refuse_after_ms=0) as broker:
        channel = open_channel(broker, Outcomes())
        await declared(channel, journal, "q", "other")
        for body in (b"1", b"2"):
            publish(channel, body)
        await turns()
        while journal.writes:
            journal.finish()
            await turns()
        publish(channel, b"refused")
        await turns()
        publish(channel, b"refused", "other")
        await fail(journal)
        assert (channel.queue_info("q").messages, channel.queue_info("other").messages) == (2, 0)
        await recover(broker)
        for body in (b"3", b"4"):
            publish(channel, body)
        await turns()
        info = channel.queue_info("q")
        assert (info.messages, info.body_bytes) == (4, 4)
        assert await contents(broker, "q") == [b"1", b"2", b"3", b"4"]


async def test_publishers_who_are_held_back_by_what_was_refused_are_released(autojump_clock):
    journal = HandJournal()
    async with running(journal, refuse_after_ms=0, open_batch_bytes=65_536) as broker, trio.open_nursery() as nursery:
        channel = open_channel(broker, Outcomes())
        await declared(channel, journal, "q")
        publish(channel, b"1")
        await turns()
        publish(channel, b"x" * 100_000)
        assert broker.flow.holding
        nursery.start_soon(broker.flow.until_released)
        await fail(journal)
        assert not broker.flow.holding


async def test_refusals_while_the_journal_fails_do_not_hold_publishers_back(autojump_clock):
    journal = HandJournal()
    async with running(journal, refuse_after_ms=0, open_batch_bytes=65_536) as broker:
        channel = open_channel(broker, Outcomes())
        await declared(channel, journal, "q")
        publish(channel, b"1")
        await turns()
        await fail(journal)
        for _ in range(50):
            for _ in range(20):
                publish(channel, b"refused")
            await turns(1)
        assert not broker.flow.holding


async def test_refusals_are_counted_by_reason(autojump_clock):
    journal = HandJournal()
    async with running(journal, refuse_after_ms=0) as broker:
        channel = open_channel(broker, Outcomes())
        await declared(channel, journal, "q")
        publish(channel, b"1")
        await turns()
        publish(channel, b"2")
        await fail(journal)
        assert broker.counters["refused.journal"] == 2
        publish(channel, b"3")
        assert broker.counters["refused.journal"] == 3


async def test_a_definition_that_joined_the_failing_commit_is_refused_but_stands(autojump_clock):
    journal = HandJournal()
    async with running(journal, refuse_after_ms=0) as broker:
        outcomes = Outcomes()
        channel = open_channel(broker, outcomes)
        await declared(channel, journal, "there")
        numbers = [
            channel.declare_exchange(ExchangeSpec("e", "fanout")),
            channel.declare_queue(QueueSpec("q")),
            channel.bind(Binding("e", "q")),
        ]
        await turns()
        await fail(journal)
        assert {type(outcomes.exceptions[number].error) for number in numbers} == {Overloaded}
        assert channel.queue_exists("q")
        assert channel.bindings("q") == [Binding("e", "q")]
        await recover(broker)
        kinds = [type(record) for record in journal.records]
        assert kinds[-3:] == [ExchangeDeclared, QueueDeclared, Bound]


async def test_a_definition_is_not_called_good_while_its_commit_fails(autojump_clock):
    journal = HandJournal()
    async with running(journal, refuse_after_ms=0) as broker:
        outcomes = Outcomes()
        channel = open_channel(broker, outcomes)
        await declared(channel, journal, "there")
        declare = (
            lambda: channel.declare_exchange(ExchangeSpec("e", "fanout")),
            lambda: channel.declare_queue(QueueSpec("q")),
            lambda: channel.bind(Binding("e", "q")),
        )
        for call in declare:
            call()
        await turns()
        await fail(journal)
        again = [call() for call in declare]
        lasting = channel.declare_queue(QueueSpec("there"))
        passive = channel.declare_queue(QueueSpec("q"), passive=True)
        await turns()
        assert {type(outcomes.exceptions[number].error) for number in again} == {Overloaded}
        assert outcomes.exceptions[lasting].error is None
        assert outcomes.exceptions[passive].error is None
        await recover(broker)
        again = [call() for call in declare]
        await turns()
        assert {outcomes.exceptions[number].error for number in again} == {None}


async def test_a_scheduled_message_that_was_refused_is_not_published_later(autojump_clock):
    journal = HandJournal()
    async with running(journal, clock=VirtualClock(0), refuse_after_ms=0) as broker:
        outcomes = Outcomes()
        channel = open_channel(broker, outcomes)
        await declared(channel, journal, "q")
        route = channel.route("", "q")
        number = channel.schedule(route, Message(route.address, b"later", True), 60_000)
        await turns()
        await fail(journal)
        assert isinstance(outcomes.exceptions[number].error, Overloaded)
        assert channel.scheduled() == []
        await recover(broker)
        await trio.sleep(120)
        assert await contents(broker, "q") == []


async def test_state_that_is_put_again_and_again_while_the_journal_fails_is_kept_once(autojump_clock):
    journal = HandJournal()
    async with running(journal, refuse_after_ms=0) as broker:
        channel = open_channel(broker, Outcomes())
        await declared(channel, journal, "q")
        publish(channel, b"1")
        await turns()
        await fail(journal)
        for turn in range(200):
            for key in range(20):
                channel.put_state("marks", f"client {key}", b"%d" % turn)
            await turns(1)
        assert len(broker.engine.batch.records) < 3_000
        await recover(broker)
        last = {record.key: record.value for record in journal.records if isinstance(record, StatePut)}
        assert last == {f"client {key}": b"199" for key in range(20)}


async def test_what_is_asked_for_that_needs_no_disk_is_answered_while_the_journal_fails(autojump_clock):
    journal = HandJournal()
    async with running(journal, refuse_after_ms=0) as broker:
        channel = open_channel(broker)
        await channel_ready(channel, journal)
        publish(channel, b"1")
        await turns()
        await fail(journal)
        with pytest.raises(NotFound):
            await channel.outcome(channel.declare_queue(QueueSpec("missing"), passive=True))
        assert (await channel.outcome(channel.declare_queue(QueueSpec("brief", durable=False)))).result.name == "brief"


async def test_a_barrier_does_not_say_that_all_is_on_disk_while_the_journal_fails(autojump_clock):
    journal = HandJournal()
    async with running(journal, refuse_after_ms=0) as broker:
        outcomes = Outcomes()
        channel = open_channel(broker, outcomes)
        await declared(channel, journal, "q")
        channel.put_state("marks", "before", b"1")
        before = channel.barrier()
        await turns()
        await fail(journal)
        channel.put_state("marks", "after", b"1")
        after = channel.barrier()
        await turns()
        assert [type(outcomes.exceptions[number].error) for number in (before, after)] == [Overloaded, Overloaded]
        await recover(broker)
        again = channel.barrier()
        await turns()
        assert outcomes.exceptions[again].error is None
        assert {record.key for record in journal.records if isinstance(record, StatePut)} == {"before", "after"}


async def test_nothing_that_lasts_is_called_deleted_while_the_journal_fails(autojump_clock):
    journal = HandJournal()
    async with running(journal, refuse_after_ms=0) as broker:
        outcomes = Outcomes()
        channel = open_channel(broker, outcomes)
        channel.declare_exchange(ExchangeSpec("e", "fanout"))
        channel.declare_exchange(ExchangeSpec("brief", "fanout", durable=False))
        await declared(channel, journal, "q", "bound")
        channel.bind(Binding("e", "bound"))
        await declared(channel, journal)
        publish(channel, b"1")
        await turns()
        await fail(journal)
        numbers = [
            channel.unbind(Binding("e", "bound")),
            channel.delete_exchange("e"),
            channel.purge_queue("q"),
            channel.delete_queue("bound"),
        ]
        brief = channel.delete_exchange("brief")
        await turns()
        assert [type(outcomes.exceptions[number].error) for number in numbers] == [Overloaded] * 4
        assert outcomes.exceptions[brief].error is None
        assert channel.bindings("bound") == [Binding("e", "bound")]


async def channel_ready(channel, journal):
    channel.declare_queue(QueueSpec("q"))
    await turns()
    journal.finish()
    await turns()
