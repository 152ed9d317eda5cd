"""QoS 2 on its way out: every message once, whatever breaks between any two steps."""

from __future__ import annotations

from collections import deque

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from gateway.errors import JournalError
from gateway.journal.memory import MemoryStore
from gateway_mqtt.codec.packets import PUBACK, PUBCOMP, PUBREC, PUBREL, Ack, MalformedPacket, Publish
from gateway_mqtt.runs import UNKNOWN
from gateway_mqtt.store import OUTGOING, _encode
from tests.mqtt.receiver import Client, HandMemory, Receiver, receiving, settle

LEVELS = pytest.mark.parametrize("level", [4, 5])


def kinds(packets):
    return [(p.qos, p.dup, p.packet_id) if isinstance(p, Publish) else (p.type, p.packet_id, p.code) for p in packets]


NOBODY_KNOWS = _encode((UNKNOWN,))


def identifiers(bench):
    """Return what is kept of identifiers; that there may be more of QoS 1 is none."""
    return {key: value for key, value in bench.channel.scan_state(OUTGOING) if value != NOBODY_KNOWS}


async def commit(journal):
    await settle()
    assert journal.writes
    journal.finish()
    await settle()


@LEVELS
@pytest.mark.parametrize("lasts", [True, False])
async def test_a_message_takes_four_steps_mqtt_4_3_3_1(level, lasts):
    async with receiving() as bench:
        receiver = Receiver(bench, lasts=lasts, level=level)
        receiver.bind("t")
        bench.publish("t", b"x")
        await settle()
        assert receiver.take() == [Publish("t", b"x", 2, packet_id=1)]
        receiver.answer(Ack(PUBREC, 1))
        await settle()
        assert receiver.take() == [Ack(PUBREL, 1)]
        assert bench.queue(receiver.name).count == 0
        receiver.answer(Ack(PUBCOMP, 1))
        await settle()
        assert receiver.take() == []
        assert not receiver.session.inflight
        assert not identifiers(bench)


@pytest.mark.parametrize(("published", "granted", "sent"), [(2, 2, 2), (2, 1, 1), (1, 2, 1), (2, 0, 0), (0, 2, 0), (1, 1, 1)])
async def test_the_lower_of_both_qualities_is_sent_mqtt_3_8_4_6(published, granted, sent):
    async with receiving() as bench:
        receiver = Receiver(bench)
        receiver.bind("t", granted)
        await settle()
        bench.publish("t", b"x", qos=published)
        await settle()
        assert [packet.qos for packet in receiver.take()] == [sent]


async def test_nothing_of_qos_2_is_sent_to_a_lasting_session_before_its_identifier_is_on_disk():
    journal = HandMemory()
    async with receiving(journal) as bench:
        receiver = Receiver(bench)
        receiver.bind("t")
        await settle()
        journal.automatic = False
        for n in range(3):
            bench.publish("t", b"%d" % n)
        await settle()
        assert receiver.take() == []
        commits = journal.commits
        while journal.writes:
            await commit(journal)
        assert [packet.payload for packet in receiver.take()] == [b"0", b"1", b"2"]
        assert journal.commits - commits <= 2, "one for all of them"
        assert len([key for key in journal.store.definitions if key[:2] == ("state", OUTGOING)]) == 3


async def test_a_release_waits_for_the_acknowledgement_to_be_on_disk():
    journal = HandMemory()
    async with receiving(journal) as bench:
        receiver = Receiver(bench)
        receiver.bind("t")
        for n in range(3):
            bench.publish("t", b"%d" % n)
        await settle()
        journal.automatic = False
        for packet in receiver.take():
            receiver.answer(Ack(PUBREC, packet.packet_id))
        await settle()
        assert receiver.take() == []
        await commit(journal)
        assert kinds(receiver.take()) == [(PUBREL, 1, 0), (PUBREL, 2, 0), (PUBREL, 3, 0)]


async def test_a_session_that_does_not_last_writes_nothing():
    async with receiving() as bench:
        receiver = Receiver(bench, lasts=False)
        receiver.bind("t")
        await settle()
        commits = bench.journal.commits
        bench.publish("t", b"x")
        await settle()
        receiver.answer(Ack(PUBREC, 1))
        receiver.answer(Ack(PUBCOMP, 1))
        await settle()
        assert bench.journal.commits == commits


@LEVELS
async def test_a_rejected_message_is_dead_lettered_and_its_identifier_is_free_mqtt5_4_3_3_4(level):
    async with receiving() as bench:
        receiver = Receiver(bench, level=level)
        receiver.bind("t")
        bench.publish("t", b"x")
        await settle()
        receiver.answer(Ack(PUBREC, 1, 0x97))
        await settle()
        assert len(receiver.take()) == 1, "no PUBREL"
        assert bench.queue(receiver.name).count == 0
        assert bench.counted("mqtt.rejected") == 1
        assert not receiver.session.inflight
        assert not identifiers(bench)


@LEVELS
async def test_an_unknown_pubrec_is_answered(level):
    async with receiving() as bench:
        receiver = Receiver(bench, level=level)
        await settle()
        receiver.answer(Ack(PUBREC, 77))
        receiver.answer(Ack(PUBREC, 78, 0x80))
        receiver.answer(Ack(PUBCOMP, 79))
        await settle()
        assert receiver.take() == [Ack(PUBREL, 77, 0x92 if level == 5 else 0)]


async def test_a_second_pubrec_is_answered_as_the_first_and_settles_nothing_else():
    async with receiving() as bench:
        receiver = Receiver(bench)
        receiver.bind("t")
        bench.publish("t", b"x")
        await settle()
        for _ in range(2):
            receiver.answer(Ack(PUBREC, 1))
            await settle()
        assert kinds(receiver.take()) == [(2, False, 1), (PUBREL, 1, 0), (PUBREL, 1, 0)]
        assert receiver.out._extra == 1


@pytest.mark.parametrize(("qos", "answer"), [(1, PUBREC), (2, PUBACK)])
async def test_an_answer_of_the_other_quality_is_a_violation(qos, answer):
    async with receiving() as bench:
        receiver = Receiver(bench)
        receiver.bind("t")
        bench.publish("t", b"x", qos=qos)
        await settle()
        with pytest.raises(MalformedPacket):
            receiver.answer(Ack(answer, 1))


async def test_a_pubcomp_before_the_pubrel_was_sent_says_nothing():
    async with receiving() as bench:
        receiver = Receiver(bench)
        receiver.bind("t")
        bench.publish("t", b"x")
        await settle()
        receiver.answer(Ack(PUBREC, 1))
        receiver.answer(Ack(PUBCOMP, 1))
        await settle()
        assert kinds(receiver.take()) == [(2, False, 1), (PUBREL, 1, 0)]
        assert receiver.session.inflight


async def test_what_never_was_sent_has_no_identifier_on_the_next_connection_and_no_dup():
    journal = HandMemory()
    async with receiving(journal) as bench:
        first = Receiver(bench)
        first.bind("t")
        await settle()
        journal.automatic = False
        bench.publish("t", b"x")
        await settle()
        first.end()
        assert first.take() == []
        journal.automatic = True
        journal.finish()
        await settle()
        second = Receiver(bench)
        await settle()
        assert kinds(second.take()) == [(2, False, 1)]


async def test_a_client_that_is_back_gets_releases_and_then_messages_again_in_order_mqtt_4_4_0_1():
    async with receiving() as bench:
        first = Receiver(bench)
        first.bind("t")
        for n in range(5):
            bench.publish("t", b"%d" % n)
        await settle()
        first.take()
        first.answer(Ack(PUBREC, 4))
        first.answer(Ack(PUBREC, 2))
        await settle()
        first.end()
        second = Receiver(bench)
        await settle()
        again = [(2, True, 1), (2, True, 3), (2, True, 5)]
        assert sorted(kinds(second.take())) == sorted([*again, (PUBREL, 4, 0), (PUBREL, 2, 0)])
        second.end()
        third = Receiver(bench)
        await settle()
        got = kinds(third.take())
        assert [kind for kind in got if kind[0] == 2] == again
        assert [kind for kind in got if kind[0] == PUBREL] == [(PUBREL, 4, 0), (PUBREL, 2, 0)], "as the PUBRECs came"


async def test_an_identifier_of_what_has_gone_meanwhile_is_released_before_it_is_used_again():
    async with receiving() as bench:
        first = Receiver(bench)
        first.bind("t")
        bench.publish("t", b"gone")
        await settle()
        client = Client()
        client.take(*first.take())
        first.end()
        bench.channel.purge_queue(first.name)
        second = Receiver(bench)
        bench.publish("t", b"new")
        await settle()
        packets = second.take()
        assert sorted(kinds(packets)) == [(2, False, 2), (PUBREL, 1, 0)]
        for packet in packets:
            second.answer(client.take(packet))
        await settle()
        assert client.got == [b"gone", b"new"]


async def test_a_journal_that_fails_holds_messages_and_releases_back_until_it_works_again():
    journal = HandMemory()
    async with receiving(journal, refuse_after_ms=0) as bench:
        receiver = Receiver(bench)
        receiver.bind("t")
        for n in range(2):
            bench.publish("t", b"%d" % n)
        await settle()
        assert len(receiver.take()) == 2
        journal.automatic = False
        receiver.answer(Ack(PUBREC, 2))
        await settle()
        journal.finish(JournalError("disk full"))
        await settle(20)
        assert receiver.take() == []
        assert bench.woken
        bench.pulse.beat()
        await settle()
        assert receiver.take() == []
        journal.automatic = True
        if journal.writes:
            journal.finish()
        await settle(40)
        bench.pulse.beat()
        await settle(40)
        assert kinds(receiver.take()) == [(PUBREL, 2, 0)]


# -- whatever breaks, between any two steps ----------------------------------


class World:
    """A client that lasts, connections that break, and brokers that die; only the disk and the client last."""

    def __init__(self, messages: int, level: int = 4, inflight: int = 100) -> None:
        self.store = MemoryStore()
        self.client = Client()
        self.messages = messages
        self.level = level
        self.inflight = inflight
        self.steps = 0

    def connect(self, bench):
        self.receiver = Receiver(bench, level=self.level, max_inflight=self.inflight)
        self.answers = deque()

    async def begin(self):
        async with receiving(HandMemory(self.store)) as bench:
            self.connect(bench)
            self.receiver.bind("t")
            await settle()
            self.receiver.end()
            for n in range(self.messages):
                bench.publish("t", b"%d" % n)
            await settle()

    def possible(self, journal):
        """What can happen next."""
        return [
            *(["commit"] if journal.writes else []),
            *(["receive"] if self.receiver.connection.sent else []),
            *(["answer"] if self.answers else []),
        ]

    async def step(self, what, journal):
        self.steps += 1
        if what == "commit":
            journal.finish()
        elif what == "receive":
            answer = self.client.take(self.receiver.connection.sent.popleft())
            if answer is not None:
                self.answers.append(answer)
        else:
            self.receiver.answer(self.answers.popleft())
        await settle(2)

    async def run(self, choose, stop=None, *, breaks=None):
        """Live with one broker until nothing is left to do, or for `stop` steps. `breaks`: after so many the connection does."""
        journal = HandMemory(self.store, automatic=False)
        made = 0
        async with receiving(journal) as bench:
            self.connect(bench)
            await settle()
            while (stop is None or made < stop) and (possible := self.possible(journal)):
                await self.step(choose(possible), journal)
                made += 1
                if made == breaks:
                    self.receiver.end()
                    self.connect(bench)
                    await settle()
            if stop is None:
                await settle(60)  # settlements that nobody waits for
                while journal.writes:
                    journal.finish()
                    await settle(60)
                assert not self.possible(journal)
                assert not identifiers(bench), "nothing is left"
                assert bench.queue(self.receiver.name).count == 0
                assert not self.receiver.session.inflight

    def judge(self):
        assert self.client.got == [b"%d" % n for n in range(self.messages)], "each once, in order"
        assert not self.client.holding


def first(possible):
    return possible[0]


def last(possible):
    return possible[-1]


async def steps_of(choose, **world):
    whole = World(3, **world)
    await whole.begin()
    await whole.run(choose)
    whole.judge()
    return whole.steps


@pytest.mark.parametrize(("choose", "inflight"), [(first, 100), (last, 100), (first, 1)])
async def test_each_message_arrives_once_if_the_broker_dies_between_any_two_steps(choose, inflight, autojump_clock):
    for at in range(await steps_of(choose, inflight=inflight) + 1):
        world = World(3, inflight=inflight)
        await world.begin()
        await world.run(choose, stop=at)
        await world.run(choose)
        world.judge()


@pytest.mark.parametrize(("choose", "level"), [(first, 4), (last, 5)])
async def test_each_message_arrives_once_if_the_connection_breaks_between_any_two_steps(choose, level, autojump_clock):
    for at in range(1, await steps_of(choose, level=level) + 1):
        world = World(3, level)
        await world.begin()
        await world.run(choose, breaks=at)
        world.judge()


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(1, 5), st.sampled_from([1, 2, 100]))
def test_each_message_arrives_once_whatever_breaks_whenever(data, messages, inflight):
    async def main():
        world = World(messages, inflight=inflight)
        await world.begin()

        def choose(possible):
            return data.draw(st.sampled_from(possible))

        for _ in range(data.draw(st.integers(0, 4))):
            stop = data.draw(st.integers(0, 12))
            await world.run(choose, stop=stop, breaks=data.draw(st.integers(0, 12)))
        await world.run(choose, breaks=data.draw(st.integers(0, 12)))
        world.judge()

    trio.run(main, clock=MockClock(autojump_threshold=0))
