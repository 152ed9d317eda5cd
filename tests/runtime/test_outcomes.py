"""An outcome is told when it is true, and in order."""

from __future__ import annotations

import pytest
import trio

from gateway.api.consumer import ConsumeOptions
from gateway.api.frontend import Principal
from gateway.errors import AccessRefused, JournalError, MessageRefused, NotFound, Overloaded
from gateway.model.declare import Binding, Overflow, QueueSpec
from gateway.model.exchange_arguments import exchange_spec
from gateway.model.message import Message, with_properties
from gateway.model.properties import Properties
from tests.engine.support import Sink
from tests.runtime.support import HandJournal, Log, Outcomes, running, turns


def gateway_of(broker):
    return broker.gateway("test", lambda line: None, Log())


def open_channel(broker, sink=None, principal=None):
    return gateway_of(broker).open_channel(principal or Principal("anonymous"), sink)


async def declared(broker, channel, journal, *specs):
    for spec in specs:
        channel.declare_queue(spec)
    await turns()
    while journal.writes:
        journal.finish()
        await turns()


async def test_a_confirm_comes_after_the_disk_has_the_message_and_never_before(autojump_clock):
    journal = HandJournal()
    async with running(journal) as broker:
        outcomes = Outcomes()
        channel = open_channel(broker, outcomes)
        await declared(broker, channel, journal, QueueSpec("q"))
        route = channel.route("", "q")
        number = channel.publish(route, Message(route.address, b"1", True))
        await turns(20)
        assert outcomes.through < number
        assert journal.stored == []
        journal.finish()
        await turns()
        assert journal.stored == [b"1"]
        assert outcomes.through == number
        assert number not in outcomes.exceptions


async def test_what_comes_during_a_commit_is_the_next_batch(autojump_clock):
    journal = HandJournal()
    async with running(journal) as broker:
        outcomes = Outcomes()
        channel = open_channel(broker, outcomes)
        await declared(broker, channel, journal, QueueSpec("q"))
        route = channel.route("", "q")
        numbers = []
        for body in (b"1", b"2", b"3"):
            numbers.append(channel.publish(route, Message(route.address, body, True)))
            await turns()
        assert len(journal.writes) == 1
        journal.finish()
        await turns()
        assert outcomes.through == numbers[0]
        journal.finish()
        await turns()
        assert journal.stored == [b"1", b"2", b"3"]
        assert outcomes.through == numbers[2]


async def test_a_failed_commit_confirms_nothing_and_is_written_again(autojump_clock):
    journal = HandJournal()
    async with running(journal, refuse_after_ms=60_000) as broker:
        outcomes = Outcomes()
        channel = open_channel(broker, outcomes)
        await declared(broker, channel, journal, QueueSpec("q"))
        route = channel.route("", "q")
        number = channel.publish(route, Message(route.address, b"1", True))
        await turns()
        for _ in range(5):
            journal.finish(JournalError("disk full"))
            await turns()
            assert outcomes.through < number
            await trio.sleep(2)
        journal.finish()
        await turns()
        assert outcomes.through == number
        assert journal.stored == [b"1"]


async def test_a_journal_that_fails_for_long_refuses_durable_messages_until_it_works():
    journal = HandJournal()
    async with running(journal, refuse_after_ms=0) as broker:
        outcomes = Outcomes()
        channel = open_channel(broker, outcomes)
        await declared(broker, channel, journal, QueueSpec("q"), QueueSpec("brief", durable=False))
        route, brief = channel.route("", "q"), channel.route("", "brief")
        first = channel.publish(route, Message(route.address, b"1", True))
        await turns()
        waiting = channel.publish(route, Message(route.address, b"2", True))
        journal.finish(JournalError("disk full"))
        await turns()
        assert outcomes.through == waiting
        refused = channel.publish(route, Message(route.address, b"3", True))
        definition = channel.declare_queue(QueueSpec("another"))
        transient = channel.publish(brief, Message(brief.address, b"4", True))
        await turns()
        assert outcomes.through == transient
        assert transient not in outcomes.exceptions
        for number in (first, waiting, refused, definition):
            assert isinstance(outcomes.exceptions[number].error, Overloaded)
        with trio.fail_after(30):
            while not journal.writes:
                await turns()
        journal.finish()
        await turns()
        accepted = channel.publish(route, Message(route.address, b"5", True))
        await turns()
        assert outcomes.through < accepted
        journal.automatic = True
        with trio.fail_after(30):
            while outcomes.through < accepted:
                if journal.writes:
                    journal.finish()
                await turns()
        assert accepted not in outcomes.exceptions
        assert journal.stored == [b"1", b"5"]


async def test_what_needs_no_disk_is_answered_at_once(autojump_clock):
    journal = HandJournal()
    async with running(journal) as broker:
        outcomes = Outcomes()
        channel = open_channel(broker, outcomes)
        number = channel.declare_queue(QueueSpec("brief", durable=False))
        await turns()
        assert outcomes.exceptions[number].result.name == "brief"
        route = channel.route("", "brief")
        number = channel.publish(route, Message(route.address, b"1", True))
        nowhere = channel.publish(channel.route("", "nowhere"), Message(route.address, b"1", True))
        await turns()
        assert outcomes.through == nowhere
        assert outcomes.exceptions[nowhere].unroutable
        assert journal.writes == []
        assert number not in outcomes.exceptions


async def test_a_message_acked_in_time_is_confirmed_without_the_disk(autojump_clock):
    journal = HandJournal()
    async with running(journal) as broker:
        outcomes = Outcomes()
        channel = open_channel(broker, outcomes)
        await declared(broker, channel, journal, QueueSpec("q"))
        sink = Sink()
        channel.consume("q", sink, ConsumeOptions(prefetch=10))
        route = channel.route("", "q")
        number = channel.publish(route, Message(route.address, b"1", True))
        channel.ack(sink.deliveries[0])
        await turns()
        assert outcomes.through == number
        assert journal.writes == []


async def test_the_journal_is_not_asked_about_what_never_needs_the_disk_and_all_else_is_seen_to(autojump_clock):
    journal = HandJournal()
    async with running(journal, refuse_after_ms=0, linger_us=0) as broker:
        outcomes, sink = Outcomes(), Sink()
        channel = open_channel(broker, outcomes)
        await declared(broker, channel, journal, QueueSpec("q"))
        channel.declare_exchange(exchange_spec("once", "fanout", durable=False, arguments={"x-deduplication-window-ms": 1 << 30}))
        channel.bind(Binding("once", "q"))
        channel.consume("q", sink, ConsumeOptions(prefetch=10))
        await turns()
        route = channel.route("once", "")
        message = with_properties(route.address, b"1", Properties(message_id="1"), persistent=True)
        prepared = journal.prepared
        numbers = []
        for known in range(3):
            numbers.append(channel.publish(route, message))
            assert len(sink.deliveries) == 1, "the others are repetitions"
            if not known:
                channel.ack(sink.deliveries[0])
            await turns()
        assert outcomes.through == numbers[-1]
        assert not outcomes.exceptions.keys() & set(numbers)
        assert (journal.prepared, journal.writes) == (prepared, [])
        direct = channel.route("", "q")
        channel.publish(direct, Message(direct.address, b"2", True))
        await turns()
        journal.finish(JournalError("disk full"))
        await turns()
        assert broker.engine.refusal is not None
        journal.automatic = True
        with trio.fail_after(30):
            while broker.engine.refusal is not None:
                await trio.sleep(0.1)
                if journal.writes:
                    journal.finish()
        channel.publish(route, message)
        assert [delivery.message.body for delivery in sink.deliveries] == [b"1", b"2"], "what was told good is not forgotten"


async def test_handing_over_does_not_confirm_before_the_disk_has_it(autojump_clock):
    journal = HandJournal()
    async with running(journal) as broker:
        outcomes = Outcomes()
        channel = open_channel(broker, outcomes)
        await declared(broker, channel, journal, QueueSpec("q"))
        sink = Sink()
        channel.consume("q", sink, ConsumeOptions(prefetch=10))
        route = channel.route("", "q")
        number = channel.publish(route, Message(route.address, b"1", True))
        channel.settle_handed_over(sink.deliveries[0])
        await turns(20)
        assert outcomes.through < number
        journal.finish()
        await turns()
        assert journal.stored == [b"1"]
        assert outcomes.through == number


async def test_errors_and_results_come_in_order_of_their_numbers(autojump_clock):
    journal = HandJournal(automatic=True)
    async with running(journal) as broker:
        outcomes = Outcomes()
        channel = open_channel(broker, outcomes)
        first = channel.declare_queue(QueueSpec("q"))
        second = channel.bind(Binding("missing", "q"))
        third = channel.get("q")
        await turns()
        assert [numbers for _, numbers in outcomes.calls] == [[first, second, third]]
        assert isinstance(outcomes.exceptions[second].error, NotFound)
        assert outcomes.exceptions[third].result is None


async def test_state_is_kept_with_the_same_commit_as_the_publish_that_follows(autojump_clock):
    journal = HandJournal()
    async with running(journal) as broker:
        outcomes = Outcomes()
        channel = open_channel(broker, outcomes)
        await declared(broker, channel, journal, QueueSpec("q"))
        route = channel.route("", "q")
        channel.put_state("marks", "client", b"7")
        number = channel.publish(route, Message(route.address, b"1", True))
        await turns()
        (bodies, records, _), _ = journal.writes[0]
        assert bodies == [b"1"]
        assert [record.value for record in records] == [b"7"]
        assert outcomes.through < number
        journal.finish()


async def test_a_last_value_is_kept_only_if_its_publish_is_not_refused(autojump_clock):
    journal = HandJournal(automatic=True)
    async with running(journal) as broker:
        outcomes = Outcomes()
        channel = open_channel(broker, outcomes)
        channel.declare_queue(QueueSpec("q", max_length=1, overflow=Overflow.REJECT_PUBLISH))
        channel.bind(Binding("amq.topic", "q", "#"))
        route = channel.route("amq.topic", "k")
        numbers = []
        for body in (b"1", b"2"):
            message = Message(route.address, body, True)
            channel.retain(route, message)
            numbers.append(channel.publish(route, message))
        await turns()
        assert numbers[0] not in outcomes.exceptions
        assert isinstance(outcomes.exceptions[numbers[1]].error, MessageRefused)
        assert [m.body for m in channel.retained("amq.topic", "#")] == [b"1"]


async def test_send_waits_for_the_commit_and_raises_a_refusal(autojump_clock):
    journal = HandJournal(automatic=True)
    async with running(journal) as broker:
        channel = open_channel(broker)
        await channel.outcome(channel.declare_queue(QueueSpec("q")))
        outcome = await channel.send("", "q", b"1")
        assert journal.stored == [b"1"]
        assert not outcome.unroutable
        assert (await channel.send("", "nowhere", b"1")).unroutable
        with pytest.raises(NotFound):
            await channel.send("missing", "q", b"1")


async def test_a_principal_without_permission_is_refused(autojump_clock):
    journal = HandJournal(automatic=True)
    principal = Principal("reader", authorize=lambda action, resource, key: action == "read")
    async with running(journal) as broker:
        channel = open_channel(broker, principal=principal)
        with pytest.raises(AccessRefused):
            channel.route("amq.topic", "k")
        with pytest.raises(AccessRefused):
            await channel.outcome(channel.declare_queue(QueueSpec("q")))


async def test_stop_commits_what_was_submitted_and_closes_clean(autojump_clock):
    journal = HandJournal(automatic=True)
    async with running(journal) as broker:
        outcomes = Outcomes()
        channel = open_channel(broker, outcomes)
        channel.declare_queue(QueueSpec("q"))
        route = channel.route("", "q")
        number = channel.publish(route, Message(route.address, b"1", True))
        await broker.stop()
        assert outcomes.through == number
        assert journal.stored == [b"1"]
        assert journal.closed is True


async def test_a_failure_of_the_engine_ends_the_broker_uncleanly(autojump_clock):
    journal = HandJournal()
    with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012
        async with running(journal) as broker:
            broker.engine.returning[None] = None
            channel = open_channel(broker)
            channel.declare_queue(QueueSpec("q"))
            await trio.sleep(10)
    assert caught.group_contains((AttributeError, TypeError))
    assert journal.closed is False


async def test_the_journal_tidies_up_when_nothing_else_is_to_be_written(autojump_clock):
    journal = HandJournal(automatic=True)
    async with running(journal) as broker:
        channel = open_channel(broker, Outcomes())
        channel.declare_queue(QueueSpec("q"))
        await turns()
        before = journal.prepared
        journal.upkeep = True
        await trio.sleep(2.1)
        assert journal.prepared > before
        journal.upkeep = False
        before = journal.prepared
        await trio.sleep(5)
        assert journal.prepared == before


async def test_a_stop_does_not_wait_until_the_journal_is_tidy(autojump_clock):
    journal = HandJournal(automatic=True)
    journal.upkeep = True
    with trio.fail_after(60):
        async with running(journal) as broker:
            open_channel(broker, Outcomes()).declare_queue(QueueSpec("q"))
            await broker.stop()
    assert journal.closed is True


async def test_the_journal_looks_around_about_once_a_second(autojump_clock):
    journal = HandJournal()
    async with running(journal):
        await trio.sleep(10.5)
    assert 9 <= journal.looks <= 11


async def test_commits_are_spaced_out_by_the_interval_and_what_needs_no_disk_is_not(autojump_clock):
    journal = HandJournal(automatic=True)
    async with running(journal, commit_interval_ms=100) as broker:
        channel = open_channel(broker)
        await channel.outcome(channel.declare_queue(QueueSpec("q")))
        route = channel.route("", "q")
        commits = journal.prepared
        began = trio.current_time()
        for _ in range(10):
            await channel.outcome(channel.publish(route, Message(route.address, b"x", True)))
        assert journal.prepared - commits == 10
        assert 0.9 <= trio.current_time() - began <= 1.1
        began = trio.current_time()
        await channel.outcome(channel.publish(route, Message(route.address, b"x", False)))
        assert trio.current_time() == began
        numbers = [channel.publish(route, Message(route.address, bytes(10_000), True)) for _ in range(10)]
        await channel.outcome(numbers[-1])
        assert trio.current_time() == began, "a large batch has nothing to wait for"
