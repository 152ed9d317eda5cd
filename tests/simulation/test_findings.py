"""What the simulation has found, each reduced to what it takes."""

from __future__ import annotations

import pytest
import trio

from gateway.api import ConsumeOptions, Message, Overloaded, Principal, QueueSpec
from gateway.errors import JournalError
from gateway.runtime.clock import VirtualClock
from tests.runtime.support import HandJournal, Log, Outcomes, running, turns


async def fail_until_refused(journal):
    """Let every write fail for longer than `refuse_after_ms`."""
    for _ in range(8):
        await turns()
        if journal.writes:
            journal.finish(JournalError("no luck"))
        await trio.sleep(0.3)


async def test_scheduled_messages_are_withdrawn_from_a_failing_journal_though_its_disk_is_full(autojump_clock):
    journal = HandJournal()
    async with running(journal, clock=VirtualClock(), refuse_after_ms=500) as broker:
        channel = broker.gateway("test", print, Log()).open_channel(Principal("p"))
        route = channel.route("amq.topic", "a")
        number = channel.schedule(route, Message(route.address, b"later", True), broker.clock.now_ms() + 60_000)
        await turns()
        journal.alarm = "the disk is full"
        await fail_until_refused(journal)
        with pytest.raises(Overloaded):
            await channel.outcome(number)
        assert not channel.scheduled()


class Taker:
    def __init__(self):
        self.bodies = []

    def deliver(self, delivery):
        self.bodies.append(delivery.message.body)


async def test_who_was_given_a_message_or_a_consumer_is_told_so_though_the_journal_fails(autojump_clock):
    journal = HandJournal(automatic=True)
    async with running(journal, refuse_after_ms=500) as broker:
        outcomes, taker = Outcomes(), Taker()
        channel = broker.gateway("test", print, Log()).open_channel(Principal("p"), outcomes)
        channel.declare_queue(QueueSpec("q", durable=False))
        route = channel.route("", "q")
        for body in (b"1", b"2"):
            channel.post(route, Message(route.address, body))
        await turns()
        journal.automatic = False
        refused = channel.declare_queue(QueueSpec("lasting"))
        got = channel.get("q", no_ack=True)
        consuming = channel.consume("q", taker, ConsumeOptions(prefetch=1))
        await fail_until_refused(journal)
        assert isinstance(outcomes.exceptions[refused].error, Overloaded)
        assert outcomes.exceptions[got].error is None
        assert outcomes.exceptions[got].result.message.body == b"1"
        assert outcomes.exceptions[consuming].error is None
        assert taker.bodies == [b"2"]


async def test_a_last_value_that_is_not_on_disk_is_refused_though_nobody_has_subscribed(autojump_clock):
    journal = HandJournal()
    async with running(journal, refuse_after_ms=500) as broker:
        channel = broker.gateway("test", print, Log()).open_channel(Principal("p"))
        route = channel.route("amq.topic", "last.a")
        message = Message(route.address, b"value", True)
        unwanted = channel.publish(route, message)
        channel.retain(route, message)
        kept = channel.publish(route, message)
        await fail_until_refused(journal)
        assert (await channel.outcome(unwanted)).unroutable
        with pytest.raises(Overloaded):
            await channel.outcome(kept)
