"""What was refused is gone, and what was confirmed is there, on the journals that there are, and after a restart."""

from __future__ import annotations

import pytest
import trio

from gateway.api.consumer import ConsumeOptions
from gateway.api.frontend import Principal
from gateway.errors import JournalError, Overloaded
from gateway.journal.memory import MemoryJournal, MemoryStore
from gateway.journal.space import Space
from gateway.journal.sqlite import SqliteJournal
from gateway.model.declare import QueueSpec
from gateway.model.message import Message
from tests.engine.support import Sink
from tests.runtime.support import Log, Outcomes, running


class Failing:
    """A journal that fails as long as the test wants; ``last``: nobody learns of the next commit that it is written."""

    fails = False
    last = False
    landed = False

    def write(self, commit, done):
        if self.fails:
            done(JournalError("no luck"))
        else:
            super().write(commit, self._land if self.last else done)

    def _land(self, error):
        assert error is None
        self.landed = True


class FailingMemory(Failing, MemoryJournal):
    pass


class FailingSqlite(Failing, SqliteJournal):
    pass


@pytest.fixture(params=["memory", "sqlite"])
def again(request, tmp_path):
    """Return the journal of each start."""
    store = MemoryStore()
    return lambda: FailingMemory(store) if request.param == "memory" else FailingSqlite(tmp_path)


def open_channel(broker, sink=None):
    return broker.gateway("test", lambda _: None, Log()).open_channel(Principal("u"), sink)


async def until(condition):
    with trio.fail_after(60):
        while not condition():  # noqa: ASYNC110 - the journal has a thread of its own
            await trio.sleep(0.002)


async def contents(broker):
    channel = open_channel(broker)
    found = []
    while (outcome := await channel.outcome(channel.get("q"))).result is not None:
        found.append((outcome.result.message.body, outcome.result.redelivered))
    return found


async def test_refused_and_undelivered_is_gone_delivered_stays_and_the_rest_comes_in_order(again):
    journal = again()
    async with running(journal, refuse_after_ms=0, linger_us=0) as broker:
        outcomes, sink = Outcomes(), Sink()
        channel, worker = open_channel(broker, outcomes), open_channel(broker)
        route = channel.route("", "q")

        def publish(body):
            return channel.publish(route, Message(route.address, body, True))

        channel.declare_queue(QueueSpec("q"))
        for body in (b"1", b"2"):
            last = publish(body)
        await until(lambda: outcomes.through == last)
        journal.fails = True
        worker.consume("q", sink, ConsumeOptions(prefetch=3))
        numbers = [publish(body) for body in (b"delivered", b"no", b"nor this")]
        await until(lambda: outcomes.through == numbers[-1])
        assert [type(outcomes.exceptions[number].error) for number in numbers] == [Overloaded] * 3
        assert channel.queue_info("q").messages == 0
        journal.fails = False
        await until(lambda: not broker.committer.failing)
        for body in (b"3", b"4"):
            last = publish(body)
        await until(lambda: outcomes.through == last)
        assert last not in outcomes.exceptions
        assert channel.queue_info("q").messages == 2
        worker.ack(sink.deliveries[0])
        await broker.stop()
    async with running(again()) as broker:
        bodies = [body for body, _ in await contents(broker)]
        assert bodies == [b"2", b"delivered", b"3", b"4"]


async def test_a_disk_with_too_little_room_refuses_durable_messages_and_lets_what_is_there_go(tmp_path):
    async with running(SqliteJournal(tmp_path)) as broker:
        channel = open_channel(broker)
        await channel.outcome(channel.declare_queue(QueueSpec("q")))
        await channel.send("", "q", b"1")
        await broker.stop()
    space = Space(tmp_path, min_free_bytes=1 << 60)
    async with running(SqliteJournal(tmp_path, space=space)) as broker:
        channel = open_channel(broker)
        with pytest.raises(Overloaded, match=r"free|room"):
            await channel.send("", "q", b"2")
        outcome = await channel.outcome(channel.get("q"))
        channel.ack(outcome.result)
        assert (await channel.outcome(channel.delete_queue("q"))).result == 0
        assert broker.counters["alarms.disk"] == 1
        await broker.stop()


class Notes:
    """Keeps in the journal that a message came, until it learns that it was refused (an OutcomeSink)."""

    def __init__(self) -> None:
        self.numbers = {}
        self.refused = []

    def attach(self, channel):
        self.channel = channel
        self.route = channel.route("", "q")

    def publish(self, key, body):
        self.channel.put_state("notes", key, b"here")
        self.numbers[self.channel.publish(self.route, Message(self.route.address, body, True))] = key

    def on_outcomes(self, through, exceptions):
        for outcome in exceptions:
            if outcome.error is not None:
                self.refused.append(self.numbers[outcome.number])
                self.channel.put_state("notes", self.numbers[outcome.number], None)


async def test_what_is_refused_leaves_neither_message_nor_state_if_the_broker_dies_behind_the_commit_that_had_both(again):
    journal = again()
    async with running(journal, refuse_after_ms=0, linger_us=0) as broker:
        notes = Notes()
        notes.attach(open_channel(broker, notes))
        channel = open_channel(broker)
        await channel.outcome(channel.declare_queue(QueueSpec("q")))
        channel.put_state("notes", "before", b"here")
        await channel.send("", "q", b"before")
        journal.fails = True
        notes.publish("1", b"in the failing commit")
        channel.schedule(notes.route, Message(notes.route.address, b"scheduled", True), 1 << 42)
        channel.put_state("other", "1", b"stays")
        await until(lambda: broker.committer.failing)
        notes.publish("2", b"in the open batch")
        await until(lambda: len(notes.refused) >= 1)
        journal.last, journal.fails = True, False
        await until(lambda: journal.landed)
    async with running(again()) as broker:
        channel = open_channel(broker)
        assert [body for body, _ in await contents(broker)] == [b"before"]
        assert channel.scheduled() == []
        assert dict(channel.scan_state("notes")) == {"before": b"here"}
        assert dict(channel.scan_state("other")) == {"1": b"stays"}
