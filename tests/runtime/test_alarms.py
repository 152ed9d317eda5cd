"""Too little room on the disk, too little memory: who is held back, who is told no, and who goes on."""

from __future__ import annotations

import pytest
import trio

from gateway.api.consumer import ConsumeOptions
from gateway.api.frontend import Principal
from gateway.errors import JournalError, Overloaded
from gateway.model.declare import Binding, ExchangeSpec, QueueSpec
from gateway.model.message import Message
from tests.engine.support import Sink
from tests.runtime.support import HandJournal, Log, Outcomes, running, turns

HIGH = 1_000_000
MUCH = 1_050_000
TOO_MUCH = 1_300_000


class Memory:
    """How much memory the process is said to take."""

    def __init__(self):
        self.taken = 1_000

    def __call__(self):
        return self.taken


def gateway_of(broker):
    return broker.gateway("test", lambda _: None, Log())


def open_channel(broker, sink=None, **options):
    return gateway_of(broker).open_channel(Principal("u"), sink, **options)


def publish(channel, body=b"m", key="q", *, persistent=True):
    route = channel.route("", key)
    return channel.publish(route, Message(route.address, body, persistent))


def post(channel, key="q"):
    route = channel.route("", key)
    channel.post(route, Message(route.address, b"m", False))


async def looked():
    """Let what is looked at once a second be looked at."""
    await trio.sleep(1.1)


# -- the disk -----------------------------------------------------------------


async def test_a_disk_without_room_refuses_durable_messages_at_once_and_names_the_cause(autojump_clock):
    journal = HandJournal(automatic=True)
    async with running(journal) as broker:
        outcomes = Outcomes()
        channel = open_channel(broker, outcomes)
        channel.declare_queue(QueueSpec("q"))
        channel.declare_queue(QueueSpec("brief", durable=False))
        await turns()
        journal.alarm = "3 MiB are free"
        await turns()
        refused, taken = publish(channel), publish(channel, key="brief")
        definition = channel.declare_queue(QueueSpec("another"))
        await turns()
        assert isinstance(outcomes.exceptions[refused].error, Overloaded)
        assert "3 MiB are free" in outcomes.exceptions[refused].error.text
        assert isinstance(outcomes.exceptions[definition].error, Overloaded)
        assert taken not in outcomes.exceptions
        assert broker.counters["refused.disk"] == 1
        journal.alarm = None
        await turns()
        accepted = publish(channel)
        await turns()
        assert outcomes.through == accepted
        assert accepted not in outcomes.exceptions


async def test_what_is_under_way_when_the_disk_fills_up_is_confirmed_when_it_is_stored_and_not_before(autojump_clock):
    journal = HandJournal()
    async with running(journal) as broker:
        outcomes = Outcomes()
        channel = open_channel(broker, outcomes)
        channel.declare_queue(QueueSpec("q"))
        await turns()
        journal.finish()
        await turns()
        first = publish(channel)
        await turns()
        second = publish(channel)
        journal.alarm = "full"
        await turns(10)
        assert outcomes.through < first
        journal.finish()
        await turns()
        assert outcomes.through == first
        journal.finish()
        await turns()
        assert outcomes.through == second
        assert second not in outcomes.exceptions


async def test_deliveries_acks_and_deletes_go_on_without_room(autojump_clock):
    journal = HandJournal(automatic=True)
    async with running(journal) as broker:
        outcomes, sink = Outcomes(), Sink()
        channel = open_channel(broker, outcomes)
        channel.declare_exchange(ExchangeSpec("e", "fanout"))
        for name in ("q", "old", "full"):
            channel.declare_queue(QueueSpec(name))
        channel.bind(Binding("e", "q"))
        for _ in range(2):
            publish(channel)
            publish(channel, key="full")
        await turns()
        journal.alarm = "full"
        await turns()
        numbers = [
            channel.consume("q", sink, ConsumeOptions(prefetch=1)),
            channel.purge_queue("full"),
            channel.delete_queue("old"),
            channel.unbind(Binding("e", "q")),
            channel.delete_exchange("e"),
        ]
        channel.ack(sink.deliveries[0])
        await turns()
        assert {outcomes.exceptions[number].error for number in numbers} == {None}
        assert len(sink.deliveries) == 2
        assert outcomes.exceptions[numbers[1]].result == 2
        assert isinstance(broker.engine.refusal, Overloaded)


async def test_a_journal_that_works_again_does_not_end_the_alarm_of_its_disk(autojump_clock):
    journal = HandJournal()
    async with running(journal, refuse_after_ms=0) as broker:
        channel = open_channel(broker, Outcomes())
        channel.declare_queue(QueueSpec("q"))
        await turns()
        journal.finish(JournalError("disk full"))
        journal.alarm = "no room"
        await turns()
        assert len(gateway_of(broker).alarms) == 2
        journal.automatic = True
        if journal.writes:
            journal.finish()
        with trio.fail_after(60):
            while broker.committer.failing:
                await turns()
        assert gateway_of(broker).alarms == ["no room"]
        assert broker.engine.refusal.text == "no room"
        journal.alarm = None
        await turns()
        assert broker.engine.refusal is None


async def test_front_ends_are_told_when_alarms_change(autojump_clock):
    journal = HandJournal()
    memory = Memory()
    async with running(journal, resident=memory, memory_high_bytes=HIGH) as broker, trio.open_nursery() as nursery:
        gateway = gateway_of(broker)
        told = []

        async def listen():
            while True:
                await gateway.until_alarms_change()
                told.append(list(gateway.alarms))

        nursery.start_soon(listen)
        await turns()
        journal.alarm = "no room"
        await looked()
        memory.taken = MUCH
        await looked()
        journal.alarm = None
        memory.taken = 0
        await looked()
        assert [len(causes) for causes in told] == [1, 2, 1, 0]
        nursery.cancel_scope.cancel()


# -- memory -------------------------------------------------------------------


class Peers:
    """Connections whose every byte is a message; what a peer sends as `a` acks what it has."""

    def __init__(self, broker, nursery):
        self.channels_are = "of one owner"
        self.broker = broker
        self.nursery = nursery
        self.channels = []
        self.sinks = []
        self.outcomes = []
        self.read = []
        self.streams = []

    async def listen(self):
        gateway = gateway_of(self.broker)

        async def serve(task_status):
            await gateway.serve_streams(["tcp://127.0.0.1:0"], self.handle, setting="s", task_status=task_status)

        (address,) = await self.nursery.start(serve)
        self.port = int(address.rpartition(":")[2])

    async def handle(self, connection):
        index = len(self.channels)
        sink, outcomes = Sink(), Outcomes()
        if self.channels_are == "one":
            channel = consuming = open_channel(self.broker, outcomes)
        else:
            owner = object() if self.channels_are == "of one owner" else None
            consuming = open_channel(self.broker, Outcomes(), owner=owner)
            channel = open_channel(self.broker, outcomes, owner=owner or consuming)
        self.channels.append((channel, consuming))
        self.sinks.append(sink)
        self.outcomes.append(outcomes)
        self.read.append(b"")

        def feed(data):
            self.read[index] += data
            for byte in data:
                if byte == ord("a"):
                    consuming.ack(sink.deliveries.pop(0))
                elif byte == ord("m"):
                    publish(channel, key="brief")

        await connection.pump(feed)

    async def connect(self):
        before = len(self.channels)
        self.streams.append(await trio.open_tcp_stream("127.0.0.1", self.port))
        while len(self.channels) == before:
            await real_turn()
        return len(self.channels) - 1

    def consume(self, index):
        self.channels[index][1].consume("brief", self.sinks[index], ConsumeOptions(prefetch=5))

    def errors(self, index):
        return [outcome.error for outcome in self.outcomes[index].exceptions.values() if outcome.error is not None]

    async def send(self, index, data):
        await self.streams[index].send_all(data)
        for _ in range(20):
            await real_turn()


async def real_turn():
    """Sockets need real time, a moment of it; the clock of the test stands still."""
    await trio.lowlevel.checkpoint()
    await trio.to_thread.run_sync(lambda: None)


@pytest.fixture
def slow_clock(mock_clock):
    """Time passes when the test says so."""
    return mock_clock


async def pass_time(clock, seconds):
    clock.jump(seconds)
    for _ in range(20):
        await real_turn()


@pytest.fixture
async def short(slow_clock):
    """A broker with a queue and connections, and its memory."""
    memory = Memory()
    limits = {"memory_high_bytes": HIGH, "hold_ms": 5_000}
    async with running(HandJournal(automatic=True), resident=memory, **limits) as broker, trio.open_nursery() as nursery:
        open_channel(broker, Outcomes()).declare_queue(QueueSpec("brief", durable=False))
        peers = Peers(broker, nursery)
        await peers.listen()
        yield broker, memory, peers
        for stream in peers.streams:
            await stream.aclose()
        nursery.cancel_scope.cancel()


async def test_a_connection_that_publishes_while_memory_is_short_is_not_read_from_until_there_is_memory(short, slow_clock):
    broker, memory, peers = short
    one = await peers.connect()
    memory.taken = MUCH
    await pass_time(slow_clock, 1.1)
    await peers.send(one, b"m")
    await peers.send(one, b"m")
    await pass_time(slow_clock, 60)
    assert peers.read[one] == b"m"
    memory.taken = 0.95 * HIGH  # not less than nine tenths
    await pass_time(slow_clock, 1.1)
    assert peers.read[one] == b"m"
    memory.taken = 0.89 * HIGH
    await pass_time(slow_clock, 1.1)
    assert peers.read[one] == b"mm"
    assert peers.outcomes[one].exceptions == {}
    assert broker.counters["alarms.memory"] == 1


async def test_a_connection_that_only_consumes_is_read_from_while_memory_is_short(short, slow_clock):
    broker, memory, peers = short
    one = await peers.connect()
    peers.consume(one)
    other = open_channel(broker, Outcomes())
    for _ in range(3):
        publish(other, key="brief")
    memory.taken = MUCH
    await pass_time(slow_clock, 1.1)
    for _ in range(3):
        await peers.send(one, b"a")
    assert peers.read[one] == b"aaa"


@pytest.mark.parametrize("channels_are", ["one", "of one owner", "each other's"])
async def test_a_connection_that_does_both_is_read_again_after_a_while_and_its_messages_are_refused(
    short, slow_clock, channels_are
):
    broker, memory, peers = short
    peers.channels_are = channels_are
    one = await peers.connect()
    peers.consume(one)
    memory.taken = MUCH
    await pass_time(slow_clock, 1.1)
    await peers.send(one, b"m")
    await peers.send(one, b"a")
    assert peers.read[one] == b"m"
    await pass_time(slow_clock, 5.1)
    assert peers.read[one] == b"ma"
    assert peers.errors(one) == []
    await peers.send(one, b"m")
    await peers.send(one, b"mm")
    assert peers.read[one] == b"mammm"
    assert [type(error) for error in peers.errors(one)] == [Overloaded] * 3
    assert broker.counters["refused.memory"] == 3
    memory.taken = 0
    await pass_time(slow_clock, 1.1)
    await peers.send(one, b"m")
    assert len(peers.errors(one)) == 3


async def test_above_the_hard_limit_who_publishes_is_held_back_as_well(short, slow_clock):
    _, memory, peers = short
    one = await peers.connect()
    memory.taken = TOO_MUCH
    await pass_time(slow_clock, 1.1)
    await peers.send(one, b"m")
    await peers.send(one, b"m")
    assert peers.read[one] == b"m"
    assert [type(error) for error in peers.errors(one)] == [Overloaded]
    memory.taken = 0
    await pass_time(slow_clock, 1.1)
    assert peers.read[one] == b"mm"
    assert len(peers.errors(one)) == 1


async def test_above_the_hard_limit_every_message_is_refused_and_dropped_ones_are_counted(autojump_clock):
    memory = Memory()
    async with running(HandJournal(automatic=True), resident=memory, memory_high_bytes=HIGH) as broker:
        before, outcomes = open_channel(broker, Outcomes()), Outcomes()
        before.declare_queue(QueueSpec("q"))
        await turns()
        memory.taken = TOO_MUCH
        await looked()
        after = open_channel(broker, outcomes)
        number = publish(after)
        post(before)
        post(after)
        await turns()
        assert isinstance(outcomes.exceptions[number].error, Overloaded)
        assert "memory" in outcomes.exceptions[number].error.text
        assert broker.counters["refused.memory"] == 1
        assert broker.counters["dropped.memory"] == 2
        assert before.queue_info("q").messages == 0
        memory.taken = 0
        await looked()
        for channel in (before, after):
            publish(channel)
        assert before.queue_info("q").messages == 2


async def test_front_ends_that_read_sockets_of_their_own_hold_back_while_memory_is_short(autojump_clock):
    memory = Memory()
    async with running(HandJournal(), resident=memory, memory_high_bytes=HIGH) as broker:
        gateway = gateway_of(broker)
        assert not gateway.holding
        await gateway.until_released()
        memory.taken = MUCH
        await looked()
        assert gateway.holding
        with trio.move_on_after(30) as patience:
            await gateway.until_released()
        assert patience.cancelled_caught
        memory.taken = 0
        with trio.fail_after(2):
            await gateway.until_released()


async def test_a_batch_that_grows_fast_is_not_waited_for_until_the_next_second(autojump_clock):
    memory = Memory()
    async with running(HandJournal(), resident=memory, memory_high_bytes=HIGH) as broker:
        channel = open_channel(broker, Outcomes())
        channel.declare_queue(QueueSpec("q"))
        await turns()  # its commit is never finished
        memory.taken = MUCH
        publish(channel, b"x" * HIGH)
        await turns()
        publish(channel, b"x" * HIGH)
        await turns()
        assert gateway_of(broker).holding


async def test_without_a_limit_there_is_no_alarm(autojump_clock):
    memory = Memory()
    memory.taken = 1 << 60
    async with running(HandJournal(), resident=memory, memory_high_bytes=0) as broker:
        await looked()
        assert not gateway_of(broker).holding
        assert gateway_of(broker).alarms == []


async def test_a_system_that_does_not_tell_raises_no_alarm(autojump_clock):
    async with running(HandJournal(), resident=lambda: 0, memory_high_bytes=1) as broker:
        await looked()
        assert gateway_of(broker).alarms == []


async def test_channels_that_are_closed_are_forgotten(autojump_clock):
    async with running(HandJournal()) as broker:
        for _ in range(10):
            open_channel(broker, Outcomes(), owner="owner").close()
            open_channel(broker, Outcomes()).close()
        assert broker.alarms._channels == {}
        assert broker.alarms._owned == {}
