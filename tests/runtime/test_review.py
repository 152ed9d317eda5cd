"""What happens when a peer, a front-end or the clock does the unlucky thing at the unlucky moment?"""

from __future__ import annotations

import pytest
import trio

from gateway.api.consumer import ConsumeOptions
from gateway.api.frontend import Principal
from gateway.errors import GatewayError, JournalError, Overloaded
from gateway.model.declare import QueueSpec
from gateway.model.message import Message
from tests.runtime.support import HandJournal, Log, Outcomes, running, turns


def open_channel(broker, sink=None):
    return broker.gateway("test", lambda _: None, Log()).open_channel(Principal("u"), sink)


def publish(channel, key, body=b"m", *, persistent=True):
    route = channel.route("", key)
    return channel.publish(route, Message(route.address, body, persistent))


class Taker:
    """A consumer that keeps what it is handed."""

    def __init__(self):
        self.deliveries = []

    def deliver(self, delivery):
        self.deliveries.append(delivery)

    def deliver_transient(self, message, options):
        raise AssertionError("these queues keep everything")

    def cancelled(self, reason):
        raise AssertionError(reason)


# -- waking -----------------------------------------------------------------


async def test_who_waits_for_an_outcome_is_woken_though_nothing_else_happens(autojump_clock):
    async with running(HandJournal(automatic=True)) as broker:
        channel = open_channel(broker)
        await channel.outcome(channel.declare_queue(QueueSpec("q", durable=False)))
        with trio.fail_after(0.4):
            await channel.send("", "q", b"1", persistent=False)


class Ringing(Outcomes):
    """Outcomes that ring when they come, so that the test needs no turns of its own."""

    def __init__(self):
        super().__init__()
        self.rung = trio.Event()

    def on_outcomes(self, through, exceptions):
        super().on_outcomes(through, exceptions)
        self.rung.set()


async def test_short_wait_is_not_lost_behind_a_longer_one(autojump_clock):
    async with running(HandJournal(automatic=True), linger_us=200) as broker:
        outcomes, taker = Ringing(), Taker()
        channel = open_channel(broker, outcomes)
        channel.declare_queue(QueueSpec("q"))
        channel.consume("q", taker, ConsumeOptions())
        await turns()
        for _ in range(3):
            publish(channel, "q")
            await turns()
            channel.ack(taker.deliveries[-1])  # to be written within 20 ms
            await turns(1)
            outcomes.rung = trio.Event()
            publish(channel, "q")  # waits 0.2 ms for its acknowledgement
            with trio.move_on_after(0.5) as patience:
                await outcomes.rung.wait()
            assert not patience.cancelled_caught
            await trio.sleep(0.03)


# -- an end that is no confirm ------------------------------------------------


async def test_channel_that_closes_promises_nothing_about_what_was_not_written():
    async with running(HandJournal()) as broker, trio.open_nursery() as nursery:
        channel = open_channel(broker)
        raised = []

        async def send():
            try:
                await channel.send("", "q", b"1")
            except GatewayError as error:
                raised.append(error)

        channel.declare_queue(QueueSpec("q"))
        nursery.start_soon(send)
        await turns()
        channel.close()
        await turns()
        assert len(raised) == 1


async def test_outcome_asked_of_a_closed_channel_is_an_error_and_no_endless_wait():
    async with running(HandJournal()) as broker:
        channel = open_channel(broker)
        number = channel.declare_queue(QueueSpec("q"))
        channel.close()
        with trio.fail_after(30), pytest.raises(GatewayError):
            await channel.outcome(number)


# -- a front-end's fault ------------------------------------------------------


class Broken:
    def on_outcomes(self, through, exceptions):
        raise RuntimeError("broken front-end")


@pytest.mark.parametrize("durable", [True, False])
async def test_sink_that_fails_with_outcomes_spares_the_others(durable):
    async with running(HandJournal(automatic=True)) as broker:
        outcomes = Outcomes()
        open_channel(broker, Broken()).declare_queue(QueueSpec("one", durable=durable))
        number = open_channel(broker, outcomes).declare_queue(QueueSpec("two", durable=durable))
        await turns()
        assert outcomes.through == number


async def test_flush_that_fails_spares_the_others():
    class Flushable:
        flushed = False

        def flush(self):
            self.flushed = True
            raise RuntimeError("broken front-end")

    async with running(HandJournal(automatic=True)) as broker:
        one, two = Flushable(), Flushable()
        for flushable in (one, two):
            broker.turns.touch(flushable)
        await turns()
        assert one.flushed
        assert two.flushed
        assert await open_channel(broker).send("", "nowhere", b"1")


# -- connections ----------------------------------------------------------------


async def serving(broker, nursery, handler, log=None):
    gateway = broker.gateway("test", lambda _: None, log or Log())

    async def serve(task_status):
        await gateway.serve_streams(["tcp://127.0.0.1:0"], handler, setting="s", task_status=task_status)

    (address,) = await nursery.start(serve)
    return int(address.rpartition(":")[2])


def nothing(_):
    pass


async def test_goodbye_behind_a_backlog_reaches_the_peer(autojump_clock):
    autojump_clock.autojump_threshold = 0.002
    async with running(HandJournal(), outgoing_bytes=65_536) as broker, trio.open_nursery() as nursery:
        log = Log()

        async def handler(connection):
            connection.out.append(b"x" * 8_000_000)
            connection.touch()
            await turns()
            connection.out.append(b"goodbye")
            connection.close()

        port = await serving(broker, nursery, handler, log)
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await turns(10)
        received = bytearray()
        with trio.fail_after(30):
            async for data in stream:
                received += data
        assert len(received) == 8_000_007
        assert received.endswith(b"goodbye")
        await stream.aclose()
        again = await trio.open_tcp_stream("127.0.0.1", port)
        await again.aclose()
        assert not [line for line in log.lines if line[0] == "error"]
        nursery.cancel_scope.cancel()


async def test_peer_that_does_not_read_its_answers_is_served_again_when_it_does():
    async with running(HandJournal(), outgoing_bytes=65_536) as broker, trio.open_nursery() as nursery:
        log = Log()
        reasons = []

        async def handler(connection):
            def feed(data):
                connection.out.append(b"x" * 8_000_000)
                connection.touch()

            reasons.append(await connection.pump(feed))

        port = await serving(broker, nursery, handler, log)
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        with trio.fail_after(30):
            for _ in range(2):
                await stream.send_all(b"ask")
                await turns(2)
            left = 2 * 8_000_000
            while left > 0:
                left -= len(await stream.receive_some())
        assert not reasons
        await stream.aclose()
        assert not [line for line in log.lines if line[0] == "error"]
        nursery.cancel_scope.cancel()


async def test_front_end_that_is_cut_off_with_much_to_send_leaves_the_broker_alone():
    async with running(HandJournal(automatic=True)) as broker:
        for _ in range(6):  # it depends on which task comes first
            await cut_off(broker)
        assert await open_channel(broker).send("", "nowhere", b"1")


async def cut_off(broker):
    async with trio.open_nursery() as nursery:

        async def handler(connection):
            try:
                await trio.sleep_forever()
            finally:
                connection.out.append(b"x" * 8_000_000)

        port = await serving(broker, nursery, handler)
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await turns()
        nursery.cancel_scope.cancel()
    await stream.aclose()
    await turns()


async def test_peer_that_is_held_back_is_not_called_silent(autojump_clock):
    autojump_clock.autojump_threshold = 0.002
    async with running(HandJournal(), open_batch_bytes=65_536) as broker, trio.open_nursery() as nursery:
        reasons = []

        async def handler(connection):
            channel = open_channel(broker, Outcomes())
            channel.declare_queue(QueueSpec("q"))
            await turns()

            def feed(data):
                publish(channel, "q", data)

            with trio.CancelScope() as scope:
                scopes.append(scope)
                reasons.append(await connection.pump(feed, idle_timeout_s=0.2))

        scopes = []
        stream = await trio.open_tcp_stream("127.0.0.1", await serving(broker, nursery, handler))
        await turns(10)  # the declaration's commit is never finished
        await stream.send_all(b"1" * 100_000)
        await turns(5)
        await stream.send_all(b"2")
        await trio.sleep(1.2)
        assert not reasons
        await stream.aclose()
        nursery.cancel_scope.cancel()


# -- memory ---------------------------------------------------------------------


async def test_messages_without_bodies_fill_the_open_batch_too():
    async with running(HandJournal(), open_batch_bytes=100_000) as broker:
        channel = open_channel(broker, Outcomes())
        channel.declare_queue(QueueSpec("q"))
        await turns()  # its commit is never finished
        for _ in range(1_000):
            publish(channel, "q", b"")
        assert broker.flow.holding


async def test_publishers_that_were_held_back_do_not_all_rush_in_at_once():
    journal = HandJournal()
    async with running(journal, open_batch_bytes=65_536) as broker, trio.open_nursery() as nursery:

        async def handler(connection):
            channel = open_channel(broker, Outcomes())
            await connection.pump(lambda data: publish(channel, "q", data))

        open_channel(broker, Outcomes()).declare_queue(QueueSpec("q"))
        port = await serving(broker, nursery, handler)
        streams = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(8)]
        for stream in streams:
            nursery.start_soon(stream.send_all, b"x" * 200_000)
        await turns(10)
        peaks = []
        for _ in range(5):
            peaks.append(broker.engine.batch.body_bytes)
            journal.finish()
            await turns(10)
        assert max(peaks) <= 3 * 65_536
        nursery.cancel_scope.cancel()
    for stream in streams:
        await stream.aclose()


class FailingJournal(HandJournal):
    def write(self, commit, done):
        done(JournalError("disk full"))


async def test_stop_does_not_wait_for_ever_for_a_journal_that_fails():
    journal = FailingJournal()
    with trio.fail_after(30), pytest.RaisesGroup(JournalError, flatten_subgroups=True):
        async with running(journal, drain_timeout_s=0.1) as broker:
            open_channel(broker, Outcomes()).declare_queue(QueueSpec("q"))
            await broker.stop()
    assert journal.closed is False


async def test_stop_waits_for_a_journal_that_is_only_slow():
    journal = HandJournal()
    async with running(journal, drain_timeout_s=0.05) as broker, trio.open_nursery() as nursery:
        open_channel(broker, Outcomes()).declare_queue(QueueSpec("q"))
        nursery.start_soon(broker.stop)
        await trio.sleep(0.3)
        assert journal.closed is None
        journal.finish()
    assert journal.closed is True


async def test_channel_forgets_consumers_whose_queues_are_gone():
    class Leaver(Taker):
        def cancelled(self, reason):
            pass

    async with running(HandJournal(automatic=True)) as broker:
        channel = open_channel(broker, Outcomes())
        for _ in range(1_000):
            channel.declare_queue(QueueSpec("brief", exclusive=True))
            channel.consume("brief", Leaver(), ConsumeOptions())
            channel.delete_queue("brief")
        assert len(channel._consumers) < 200


async def test_publisher_who_comes_while_the_journal_fails_is_told_no_at_once():
    async with running(FailingJournal(), refuse_after_ms=0) as broker:
        open_channel(broker, Outcomes()).declare_queue(QueueSpec("q"))
        await turns()
        assert broker.engine.refusal is not None
        outcomes = Outcomes()
        number = publish(open_channel(broker, outcomes), "q")
        await turns()
        assert isinstance(outcomes.exceptions[number].error, Overloaded)
