"""QoS 2 on its way in: published once, whatever is sent again, and whatever happens to connection, journal and broker."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from gateway.errors import JournalError
from gateway.journal.sqlite import SqliteJournal
from gateway.model.declare import Overflow
from gateway_mqtt.codec.packets import PUBACK, PUBCOMP, PUBREC, PUBREL, Ack, Publish
from gateway_mqtt.store import INCOMING
from tests.mqtt.sender import senders
from tests.mqtt.support import until
from tests.runtime.support import HandJournal, turns

LEVELS = pytest.mark.parametrize("level", [4, 5])


def exactly(packet_id, body=b"x", *, topic="t", **fields):
    return Publish(topic, body, 2, packet_id=packet_id, **fields)


def rec(packet_id, code=0):
    return Ack(PUBREC, packet_id, code)


def comp(packet_id, code=0):
    return Ack(PUBCOMP, packet_id, code)


def rel(packet_id):
    return Ack(PUBREL, packet_id)


def coded(packets):
    return [(packet.type, packet.packet_id, packet.code) for packet in packets]


def identifiers(bench):
    """What is in the journal of identifiers that came in."""
    kept = {}
    for record in bench.journal.records:
        if getattr(record, "namespace", "") == INCOMING:
            kept[record.key] = record.value
    return [key for key, value in kept.items() if value is not None]


@LEVELS
@pytest.mark.parametrize("lasts", [True, False])
async def test_a_publish_is_answered_published_once_and_completed_mqtt_4_3_3_2(level, lasts):
    async with senders() as bench:
        queue = await bench.consume()
        sender = bench.sender(level=level, lasts=lasts)
        sender.send(exactly(7))
        assert await sender.answers(1) == [rec(7)]
        sender.send(exactly(7, dup=True), exactly(7, b"another body changes nothing"))
        assert await sender.answers(2) == [rec(7), rec(7)]
        sender.send(rel(7))
        assert await sender.answers(1) == [comp(7)]
        sender.send(exactly(7, b"new"))
        assert await sender.answers(1) == [rec(7)]
        assert queue.bodies == [b"x", b"new"]


@LEVELS
async def test_pubrecs_come_after_the_commit_in_the_order_of_the_publishes_mqtt_4_6_0_3(level):
    async with senders(HandJournal()) as bench:
        bench.journal.automatic = True
        await bench.consume()
        bench.journal.automatic = False
        sender = bench.sender(level=level, lasts=True)
        sender.send(exactly(9), Publish("t", b"x", 1, packet_id=4), exactly(3), Publish("t", b"x", 1, packet_id=2), exactly(9))
        await until(lambda: bench.journal.writes)
        await sender.silence()
        bench.journal.finish()
        answers = await sender.answers(5)
        assert [a for a in answers if a.type == PUBREC] == [rec(9), rec(3), rec(9)]
        assert [a for a in answers if a.type == PUBACK] == [Ack(PUBACK, 4), Ack(PUBACK, 2)]
        assert len(bench.journal.stored) == 4


@LEVELS
async def test_a_pubcomp_waits_until_the_removal_is_on_disk_one_commit_for_all_of_a_read(level):
    async with senders() as bench:
        sender = bench.sender(level=level, lasts=True)
        sender.send(*(exactly(n) for n in range(1, 6)))
        await sender.answers(5)
        assert len(identifiers(bench)) == 5
        bench.journal.automatic = False
        sender.send(*(rel(n) for n in range(1, 6)))
        await until(lambda: bench.journal.writes)
        await sender.silence()
        bench.journal.finish()
        assert await sender.answers(5) == [comp(n) for n in range(1, 6)]
        assert identifiers(bench) == []
        await turns()
        assert not bench.journal.writes


async def test_a_session_that_does_not_last_writes_nothing_and_waits_for_nothing():
    async with senders() as bench:
        await bench.consume(durable=False)
        bench.journal.automatic = False
        sender = bench.sender()
        sender.send(exactly(1), exactly(2))
        assert await sender.answers(2) == [rec(1), rec(2)]
        sender.send(rel(1), rel(2))
        assert await sender.answers(2) == [comp(1), comp(2)]
        assert not bench.journal.writes


@LEVELS
async def test_after_a_reconnect_a_repeated_publish_is_not_published_again(level):
    async with senders() as bench:
        queue = await bench.consume()
        first = bench.sender(level=level, lasts=True)
        first.send(exactly(1), exactly(2))
        await first.answers(2)
        first.lose()
        second = bench.sender(level=level, lasts=True)
        second.send(exactly(1, dup=True), exactly(2), exactly(3, b"new"), rel(1))
        answers = await second.answers(4)
        assert [a for a in answers if a.type == PUBREC] == [rec(1), rec(2), rec(3)]
        assert comp(1) in answers
        assert queue.bodies == [b"x", b"x", b"new"]


@LEVELS
async def test_after_a_restart_a_repeated_publish_is_not_published_again(level, tmp_path):
    async with senders(SqliteJournal(tmp_path)) as bench:
        await bench.consume(consumed=False)
        sender = bench.sender(level=level, lasts=True)
        sender.send(exactly(1), exactly(2))
        await sender.answers(2)
        sender.send(rel(2))
        await sender.answers(1)
    async with senders(SqliteJournal(tmp_path)) as bench:
        sender = bench.sender(level=level, lasts=True)
        sender.send(exactly(1, dup=True), exactly(2, b"new"))
        assert await sender.answers(2) == [rec(1), rec(2)]
        [queue] = [q for q in bench.broker.engine.vhost("/").queues.values() if q.name.startswith("q")]
        assert queue.count == 3


@LEVELS
async def test_a_publish_repeated_after_a_reconnect_waits_for_the_commit_of_the_first(level):
    async with senders() as bench:
        queue = await bench.consume()
        bench.journal.automatic = False
        first = bench.sender(level=level, lasts=True)
        first.send(exactly(1))
        await until(lambda: bench.journal.writes)
        first.lose()
        second = bench.sender(level=level, lasts=True)
        second.send(exactly(1, dup=True))
        await second.silence()
        bench.journal.finish()
        assert await second.answers(1) == [rec(1)]
        assert queue.bodies == [b"x"]
        assert first.told == []


@LEVELS
async def test_a_full_queue_refuses_and_leaves_no_identifier(level):
    async with senders() as bench:
        await bench.consume(consumed=False, max_length=1, overflow=Overflow.REJECT_PUBLISH)
        sender = bench.sender(level=level, lasts=True, problem_information=False)
        sender.send(exactly(1), exactly(2), exactly(3))
        if level == 5:
            assert await sender.answers(3) == [rec(1), rec(2, 0x97), rec(3, 0x97)]
            assert not sender.connection.closed
        else:
            await until(lambda: sender.connection.closed)
            assert await sender.answers(1) == [rec(1)]
        await turns()
        assert [key.rpartition("/")[2] for key in identifiers(bench)] == ["1"]
        assert bench.counted("mqtt.publishes_refused") == (2 if level == 5 else 1)


@LEVELS
@pytest.mark.parametrize("lost", [False, True])
async def test_what_a_failing_journal_withdraws_leaves_no_identifier_even_if_the_connection_is_lost(level, lost):
    async with senders(refuse_after_ms=0) as bench:
        queue = await bench.consume(consumed=False)
        bench.journal.automatic = False
        sender = bench.sender(level=level, lasts=True, problem_information=False)
        sender.send(exactly(1, b"withdrawn"))
        await until(lambda: bench.journal.writes)
        if lost:
            sender.lose()
        again = bench.sender(level=level, lasts=True, problem_information=False)
        again.send(exactly(1, b"withdrawn", dup=True))
        bench.journal.finish(JournalError("disk full"))
        if level == 5:
            assert await again.answers(1) == [rec(1, 0x97)]
        else:
            await until(lambda: again.connection.closed)
            assert again.told == []
        again.lose()
        await until(lambda: bench.journal.writes)
        bench.journal.automatic = True
        bench.journal.finish()
        assert identifiers(bench) == []  # with this very commit: the broker may die behind it
        await until(lambda: bench.broker.engine.refusal is None and not bench.journal.writes)
        last = bench.sender(level=level, lasts=True)
        last.send(exactly(1, b"stored", dup=True))
        assert await last.answers(1) == [rec(1)]
        assert bench.journal.stored[-1] == b"stored"
        [kept] = [q for q in bench.broker.engine.vhost("/").queues.values() if q.name == queue.name]
        assert kept.count == 1


@LEVELS
async def test_the_release_of_an_unknown_identifier_is_answered_mqtt5_4_3_3(level):
    async with senders() as bench:
        for lasts in (True, False):
            sender = bench.sender(level=level, lasts=lasts)
            sender.send(rel(5))
            assert await sender.answers(1) == [comp(5, 0x92 if level == 5 else 0)]


@LEVELS
async def test_a_retained_message_of_qos_2_is_the_last_value(level):
    async with senders() as bench:
        sender = bench.sender(level=level, lasts=True)
        sender.send(exactly(1, b"state", retain=True))
        assert coded(await sender.answers(1)) == [(PUBREC, 1, 0x10 if level == 5 else 0)]
        [message] = sender.channel.retained("amq.topic", "#")
        assert (message.body, message.wire[0]) == (b"state", 6)


async def test_a_channel_of_a_lost_connection_goes_when_all_is_decided():
    async with senders() as bench:
        await bench.consume(consumed=False)
        before = bench.channels
        bench.journal.automatic = False
        sender = bench.sender(lasts=True)
        sender.send(exactly(1))
        assert bench.channels == before + 2
        await until(lambda: bench.journal.writes)
        sender.lose()
        sender.lose()
        assert bench.channels == before + 1
        bench.journal.finish()
        await turns()
        assert bench.channels == before
        assert sender.told == []


@LEVELS
async def test_releases_need_not_wait_for_the_answers_to_what_is_sent_again(level):
    async with senders() as bench:
        queue = await bench.consume()
        sender = bench.sender(level=level, lasts=True)
        sender.send(exactly(1), rel(1), exactly(1, b"second"), exactly(1, b"second"), exactly(1, b"second"), rel(1), rel(1))
        answers = await sender.answers(7)
        assert [a for a in answers if a.type == PUBREC] == [rec(1)] * 4
        unknown = comp(1, 0x92 if level == 5 else 0)
        assert [a for a in answers if a.type == PUBCOMP] == [comp(1), comp(1), unknown]
        assert queue.bodies == [b"x", b"second"]
        assert identifiers(bench) == []


class Client:
    """A client that keeps to the standard, with three identifiers; ``stored`` and ``refused``: what it was told of its messages."""

    def __init__(self, bench, level):
        self.bench, self.level = bench, level
        self.sending: dict[int, bytes] = {}
        self.releasing: set[int] = set()
        self.stored: list[bytes] = []
        self.refused: list[bytes] = []
        self.made = 0
        self.connect()

    def connect(self):
        self.sender = self.bench.sender(level=self.level, lasts=True)
        again = [exactly(packet_id, body, dup=True) for packet_id, body in self.sending.items()]
        self.sender.send(*again, *(rel(packet_id) for packet_id in sorted(self.releasing)))

    def reconnect(self):
        self.sender.lose()
        self.connect()

    def publish(self, packet_id):
        if packet_id not in self.sending and packet_id not in self.releasing:
            self.made += 1
            self.sending[packet_id] = b"%d" % self.made
            self.sender.send(exactly(packet_id, self.sending[packet_id]))

    def listen(self):
        """Take what was answered, and go on."""
        told, self.sender.told = self.sender.told, []
        for packet in told:
            if packet.type == PUBCOMP:
                self.releasing.remove(packet.packet_id)
                continue
            body = self.sending.pop(packet.packet_id)
            if packet.code >= 0x80:
                self.refused.append(body)
                continue
            self.stored.append(body)
            self.releasing.add(packet.packet_id)
            self.sender.send(rel(packet.packet_id))
        if self.sender.connection.closed:
            self.reconnect()


steps = st.lists(
    st.sampled_from([1, 2, 3, 1, 2, 3, "lose", "listen", "listen", "turn", "turn", "hold", "write", "fail", "works"]), max_size=40
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([4, 5]), steps)
def test_what_a_client_is_told_is_stored_is_there_once_and_what_it_is_told_is_not_is_not(level, steps):
    async def play():
        async with senders(refuse_after_ms=0) as bench:
            queue = await bench.consume(consumed=False)
            client = Client(bench, level)
            for step in steps:
                await act(step, bench, client)
            bench.journal.automatic = True
            if bench.journal.writes:
                bench.journal.finish()
            while client.sending or client.releasing:
                await turns()
                client.listen()
            entries = bench.broker.engine.vhost("/").queues[queue.name]
            return client, entries.count, bench

    client, count, bench = trio.run(play, clock=MockClock(autojump_threshold=0))
    assert len(client.stored) == len(set(client.stored)) == count
    assert len(client.stored) + len(client.refused) == client.made
    assert identifiers(bench) == []


async def act(step, bench, client):
    journal = bench.journal
    match step:
        case int():
            client.publish(step)
        case "lose":
            client.reconnect()
        case "listen":
            client.listen()
        case "turn":
            await turns(1)
        case "hold":
            journal.automatic = False
        case "works":
            journal.automatic = True
            if journal.writes:
                journal.finish()
        case "write" if journal.writes:
            journal.finish()
        case "fail" if journal.writes:
            journal.finish(JournalError("disk full"))
