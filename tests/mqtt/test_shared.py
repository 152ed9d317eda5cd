"""Shared subscriptions: each message to one member, whoever comes, goes, or does not keep up."""

from __future__ import annotations

import itertools

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from gateway.api import ConsumeOptions, Overflow
from gateway.errors import JournalError
from gateway.journal.memory import MemoryStore
from gateway_mqtt.codec.packets import PUBACK, PUBCOMP, PUBREC, PUBREL, Ack, Publish
from gateway_mqtt.shared import MEMBERS, MOST_AT_ONCE, Member, Shares, Wish, parse_share, share_queue_name
from gateway_mqtt.translate.sessions import SessionLimits
from tests.mqtt.receiver import ANYONE, Answers, Client, HandMemory, Receiver, receiving, settle

PATTERN = "$share/g/t/#"
QUEUE = "mqtt.share.g.t/#"


def shares_of(bench):
    if not hasattr(bench, "shares"):
        bench.shares = Shares(bench.gateway)
    return bench.shares


class Sharer(Receiver):
    """A receiver that subscribes to groups."""

    def __init__(self, bench, client_id, **fields):
        super().__init__(bench, client_id, **fields)
        self.told = []
        self.member = Member(
            shares_of(bench), bench.gateway, self.channel, self.answers.expect, self.out, self.key, self.name, lasts=self.lasts
        )

    def join(self, pattern=PATTERN, qos=2, **fields):
        self.member.join(Wish(pattern, qos, **fields), self.told.append)
        return self

    def end(self):
        self.member.away()
        super().end()


def sharer(bench, client_id, *, lasts=False, **fields):
    return Sharer(bench, client_id, lasts=lasts, **fields)


def bodies(packets):
    return [packet.payload for packet in packets if isinstance(packet, Publish)]


async def test_the_queue_has_the_name_of_group_and_filter():
    assert parse_share("$share/g/a/+/b") == ("g", "a/+/b")
    assert share_queue_name("$share/g/a/b.c") == "mqtt.share.g.a/b.c"


@given(st.lists(st.tuples(st.text("ab.%~", min_size=1, max_size=4), st.text("ab./+#%", min_size=1, max_size=4)), min_size=2))
def test_no_two_groups_have_one_queue(groups):
    patterns = {f"$share/{group}/{shared}" for group, shared in groups}
    assert len({share_queue_name(pattern) for pattern in patterns}) == len(patterns)


@given(st.text("aé/", min_size=1, max_size=600))
def test_long_filters_have_queues_too(shared):
    name = share_queue_name(f"$share/group/{shared}")
    assert len(name.encode()) <= 255
    assert name != share_queue_name(f"$share/group/{shared}x")


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("lasts", [False, True])
async def test_each_message_goes_to_one_member_and_all_have_their_part_mqtt5_4_8_2(qos, lasts):
    async with receiving() as bench:
        members = [sharer(bench, f"c{n}", lasts=lasts).join() for n in range(3)]
        await settle()
        assert [member.told for member in members] == [[None]] * 3
        for n in range(30):
            bench.publish("t/x", b"%d" % n, qos=qos)
        await settle()
        got = [bodies(member.take()) for member in members]
        assert sorted(itertools.chain(*got), key=int) == [b"%d" % n for n in range(30)]
        assert min(map(len, got)) >= 9


async def test_what_a_member_did_not_acknowledge_goes_to_another_when_it_is_lost_and_is_no_duplicate_there():
    async with receiving() as bench:
        one, two = (sharer(bench, name).join(qos=1) for name in "ab")
        await settle()
        for n in range(4):
            bench.publish("t", b"%d" % n, qos=1)
        await settle()
        first, second = one.take(), two.take()
        one.answer(Ack(PUBACK, first[0].packet_id))
        one.end()
        await settle()
        again = two.take()
        assert bodies(again) == bodies(first[1:])
        assert not again[0].dup
        for packet in (*second, *again):
            two.answer(Ack(PUBACK, packet.packet_id))
        assert bench.queue(QUEUE).count == 0
        assert two.out._extra == 0
        assert not two.session.inflight


async def test_a_member_that_rejects_a_message_has_it_dead_lettered_not_given_to_others():
    async with receiving() as bench:
        one = sharer(bench, "a", level=5).join(qos=1)
        await settle()
        bench.publish("t", b"x", qos=1)
        await settle()
        one.answer(Ack(PUBACK, 1, 0x99))
        await settle()
        assert bench.queue(QUEUE).count == 0
        assert len(one.take()) == 1


async def test_a_congested_member_keeps_what_it_has_and_starves_nobody():
    async with receiving() as bench:
        slow, quick = (sharer(bench, name, max_inflight=1_000).join(qos=1) for name in "ab")
        await settle()
        slow.connection.congest(True)
        for n in range(100):
            bench.publish("t", b"%d" % n, qos=1)
        await settle()
        assert not slow.take()
        for packet in quick.take():
            quick.answer(Ack(PUBACK, packet.packet_id))
        await settle()
        assert len(quick.take()) == 100 - MOST_AT_ONCE
        slow.connection.congest(False)
        await settle()
        bench.publish("t", b"again", qos=1)
        bench.publish("t", b"again", qos=1)
        await settle()
        assert bodies(slow.take()) == [b"again"] * len(slow.session.inflight)
        assert slow.session.inflight


async def test_a_member_that_never_acknowledges_holds_no_more_than_its_window():
    async with receiving() as bench:
        silent, other = sharer(bench, "a", max_inflight=5).join(qos=1), sharer(bench, "b").join(qos=1)
        await settle()
        got = 0
        for n in range(200):
            bench.publish("t", b"%d" % n, qos=1)
            await settle(1)
            for packet in other.take():
                got += 1
                other.answer(Ack(PUBACK, packet.packet_id))
        assert len(silent.take()) == 5
        assert got == 195


async def test_its_window_is_one_for_its_own_queue_and_for_what_is_shared():
    async with receiving() as bench:
        member = sharer(bench, "a", level=5, receive_maximum=3).join(qos=2)
        member.bind("own", 1)
        await settle()
        for n in range(4):
            bench.publish("t", b"s%d" % n, qos=n % 2 + 1)
            bench.publish("own", b"o%d" % n, qos=1)
        got = []
        for _ in range(20):
            await settle(2)
            packets = member.take()
            got += bodies(packets)
            assert member.session.outstanding <= 3
            for packet in packets:
                if isinstance(packet, Publish):
                    member.answer(Ack(PUBACK if packet.qos == 1 else PUBREC, packet.packet_id))
                else:
                    member.answer(Ack(PUBCOMP, packet.packet_id))
        assert sorted(got) == sorted([b"s%d" % n for n in range(4)] + [b"o%d" % n for n in range(4)])


async def test_the_queue_goes_with_the_last_member_and_then_nobody_is_there():
    async with receiving() as bench:
        one, two = (sharer(bench, name).join() for name in "ab")
        await settle()
        assert one.member.leave(PATTERN)
        assert not one.member.leave(PATTERN)
        await settle()
        assert bench.queue(QUEUE) is not None
        two.end()
        await settle()
        assert bench.queue(QUEUE) is None
        bench.publish("t", b"x", qos=1)
        await settle()
        assert not one.take()
        three = sharer(bench, "c").join()
        await settle()
        bench.publish("t", b"y", qos=1)
        await settle()
        assert bodies(three.take()) == [b"y"]


async def test_other_protocols_consume_from_it_too():
    class Worker:
        def __init__(self):
            self.got = []

        def deliver(self, delivery):
            self.got.append(delivery)

        def deliver_transient(self, message, options): ...
        def cancelled(self, reason): ...

    async with receiving() as bench:
        member, worker = sharer(bench, "a").join(qos=1), Worker()
        channel = bench.gateway.open_channel(ANYONE, Answers())
        await settle()
        channel.consume(QUEUE, worker, ConsumeOptions(prefetch=10))
        for n in range(10):
            bench.publish("t", b"%d" % n, qos=1)
        await settle()
        assert sorted(bodies(member.take()) + [delivery.message.body for delivery in worker.got]) == [b"%d" % n for n in range(10)]
        assert len(worker.got) == 5
        channel.ack_many(worker.got)


@pytest.mark.parametrize("qos", [1, 2])
async def test_each_member_has_its_own_options(qos):
    async with receiving() as bench:
        low, high = sharer(bench, "a", level=5), sharer(bench, "b", level=5, lasts=True)
        low.join(qos=0, subscription_ids=(7,), retain_as_published=True)
        high.join(qos=2, subscription_ids=(300, 8))
        await settle()
        bench.publish("t", b"1", qos=qos, retain=True)
        bench.publish("t", b"2", qos=qos, retain=True)
        await settle()
        [one], [two] = low.take(), high.take()
        assert (one.qos, one.retain, one.properties.subscription_ids) == (0, True, (7,))
        assert (two.qos, two.retain, two.properties.subscription_ids) == (qos, False, (300, 8))


async def test_subscribing_again_changes_what_is_wanted():
    async with receiving() as bench:
        member = sharer(bench, "a", lasts=True).join(qos=2)
        await settle()
        member.join(qos=0)
        await settle()
        bench.publish("t", b"x")
        await settle()
        assert [packet.qos for packet in member.take()] == [0]
        assert member.told == [None, None]
        assert [wish.qos for wish in shares_of(bench).wishes(bench.channel, member.key)] == [0]


class FullMemory(HandMemory):
    """It has no room."""

    alarm = "the disk is full"


async def test_who_subscribes_again_before_the_first_time_is_refused_is_refused_too():
    async with receiving(FullMemory()) as bench:
        await settle()
        member = sharer(bench, "a", lasts=True).join(qos=1).join()
        await settle()
        assert PATTERN not in member.member
        assert len(member.told) == 2
        assert None not in member.told


async def test_who_unsubscribes_and_subscribes_again_at_once_has_one_place():
    async with receiving() as bench:
        keeper = sharer(bench, "keeper").join()
        await settle()
        member = sharer(bench, "a").join()
        assert member.member.leave(PATTERN)
        member.join()
        await settle()
        assert member.told == [None, None]
        assert len(bench.queue(QUEUE).consumers) == 2
        assert member.member.leave(PATTERN)
        await settle()
        bench.publish("t", b"1", qos=1)
        bench.publish("t", b"2", qos=1)
        await settle()
        assert not bodies(member.take())
        assert bodies(keeper.take()) == [b"1", b"2"]


async def test_members_that_last_are_members_after_a_restart_and_get_what_came_meanwhile():
    store = MemoryStore()
    async with receiving(HandMemory(store)) as bench:
        member = sharer(bench, "p", lasts=True).join(qos=1, subscription_ids=(9,))
        await settle()
        bench.publish("t", b"held", qos=1)
        await settle()
        assert bodies(member.take()) == [b"held"]
    async with receiving(HandMemory(store)) as bench:
        bench.publish("t", b"meanwhile", qos=1)
        await settle()
        member = sharer(bench, "p", lasts=True, level=5)
        member.member.resume()
        await settle()
        packets = member.take()
        assert bodies(packets) == [b"held", b"meanwhile"]
        assert packets[1].properties.subscription_ids == (9,)
        shares_of(bench).end_session(bench.channel, member.key)
        await settle()
        assert not list(bench.channel.scan_state(MEMBERS))


async def test_a_session_that_ends_while_it_is_away_takes_its_queue_with_it():
    store = MemoryStore()
    async with receiving(HandMemory(store)) as bench:
        for client_id in "pq":
            member = sharer(bench, client_id, lasts=True).join()
            await settle()
            member.end()
    async with receiving(HandMemory(store)) as bench:
        shares = shares_of(bench)
        shares.end_session(bench.channel, ("/", "p"))
        await settle()
        assert bench.queue(QUEUE) is not None
        shares.end_session(bench.channel, ("/", "q"))
        await settle()
        assert bench.queue(QUEUE) is None


async def test_a_group_whose_members_do_not_last_does_not_survive_and_writes_nothing():
    async with receiving() as bench:
        member = sharer(bench, "a").join(qos=1)
        await settle()
        commits = bench.journal.commits
        bench.publish("t", b"x", qos=1)
        await settle()
        member.answer(Ack(PUBACK, 1))
        await settle()
        assert bench.journal.commits == commits
        assert not bench.queue(QUEUE).durable


async def test_the_first_member_that_lasts_makes_the_queue_durable_with_what_waits_in_it():
    store = MemoryStore()
    async with receiving(HandMemory(store)) as bench:
        brief = sharer(bench, "a", max_inflight=1).join(qos=1)
        await settle()
        for n in range(4):
            bench.publish("t", b"%d" % n, qos=1)
        bench.publish("t", b"low", qos=0)
        await settle()
        assert bodies(brief.take()) == [b"0"]
        lasting = sharer(bench, "p", lasts=True).join(qos=1)
        await settle()
        assert lasting.told == [None]
        assert bench.queue(QUEUE).durable
        brief.answer(Ack(PUBACK, 1))
        await settle()
        assert sorted(bodies(brief.take()) + bodies(lasting.take())) == [b"1", b"2", b"3", b"low"]
    async with receiving(HandMemory(store)) as bench:
        lasting = sharer(bench, "p", lasts=True)
        lasting.member.resume()
        await settle()
        assert b"3" in bodies(lasting.take())


async def test_a_message_of_qos_2_goes_by_the_session_that_lasts_and_is_nobody_elses_mqtt5_4_8_2_4():
    async with receiving() as bench:
        one, two = sharer(bench, "p", lasts=True).join(), sharer(bench, "q", lasts=True).join()
        await settle()
        bench.publish("t", b"1")
        bench.publish("t", b"2")
        await settle()
        got = bodies(one.take())
        assert len(got) == 1
        assert bench.queue(QUEUE).count == 0
        one.end()
        await settle()
        assert bodies(two.take()) not in (got, [b"1", b"2"])
        again = sharer(bench, "p", lasts=True)
        await settle()
        [packet] = again.take()
        assert (packet.payload, packet.dup) == (got[0], True)


async def test_a_message_of_qos_2_that_was_sent_to_a_session_that_does_not_last_goes_to_nobody_else_mqtt5_4_8_2_5():
    async with receiving() as bench:
        one, two = sharer(bench, "a").join(), sharer(bench, "b").join()
        await settle()
        bench.publish("t", b"1")
        bench.publish("t", b"2")
        await settle()
        one.end()
        await settle()
        assert len(bodies(two.take())) == 1


@pytest.mark.parametrize("order", ["commit first", "client first"])
async def test_what_is_moved_is_moved_once_if_the_broker_dies_between_any_two_steps(order, autojump_clock):
    at = 0
    while True:
        store, client, finished = MemoryStore(), Client(), False
        async with receiving(HandMemory(store)) as bench:
            member = sharer(bench, "p", lasts=True).join()
            await settle()
            member.end()
            for n in range(3):
                bench.publish("t", b"%d" % n)
            await settle()
        for stop in (at, 10_000):
            journal = HandMemory(store, automatic=False)
            async with receiving(journal) as bench:
                member = sharer(bench, "p", lasts=True)
                member.member.resume()
                await settle()
                for _ in range(stop):
                    packets = member.connection.sent
                    if journal.writes and (order == "commit first" or not packets):
                        journal.finish()
                    elif packets:
                        answer = client.take(packets.popleft())
                        member.answer(answer)
                    else:
                        finished = finished or stop == at
                        break
                    await settle(3)
        assert sorted(client.got) == [b"0", b"1", b"2"]
        assert not client.holding
        if finished:
            break
        at += 1
    assert at > 10


async def test_a_queue_that_somebody_deletes_ends_the_subscriptions():
    async with receiving() as bench:
        member = sharer(bench, "p", lasts=True).join()
        await settle()
        bench.channel.delete_queue(QUEUE)
        await settle()
        assert PATTERN not in member.member
        assert not list(bench.channel.scan_state(MEMBERS))
        assert not member.connection.closed
        member.join()
        await settle()
        bench.publish("t", b"x", qos=1)
        await settle()
        assert bodies(member.take()) == [b"x"]


async def test_each_number_that_leaving_makes_is_awaited_or_it_would_pass_for_a_publish():
    async with receiving() as bench:
        for lasts in (False, True):
            member = sharer(bench, "p", lasts=lasts).join()
            await settle()
            told = []
            channel, expected = member.channel, set(member.answers.awaited)
            assert not expected
            assert member.member.leave(PATTERN)
            [number] = member.answers.awaited
            member.answers.expect(channel.barrier(), told.append)
            await settle()
            assert told
            assert told[0].number == number + 1
            assert not channel.queue_exists(QUEUE)
            member.end()


async def test_what_was_to_be_moved_when_the_connection_ended_goes_to_another_member_only():
    async with receiving() as bench:
        one = sharer(bench, "p", lasts=True).join()
        await settle()
        bench.publish("t", b"x")
        assert one.member._moving
        one.end()
        two = sharer(bench, "q", lasts=True).join()
        await settle()
        assert bodies(two.take()) == [b"x"]
        assert bench.queue(one.name).count == 0


@pytest.mark.parametrize("dies", [False, True])
async def test_what_is_moved_while_the_journal_fails_for_long_is_neither_lost_nor_doubled(dies, autojump_clock):
    store, client = MemoryStore(), Client()

    async def answer_all(bench, member):
        for _ in range(60):
            bench.pulse.beat()
            for packet in member.take():
                member.answer(client.take(packet))
            await settle(1)

    async with receiving(HandMemory(store)) as bench:
        member = sharer(bench, "p", lasts=True).join()
        await settle()
        member.end()
        for n in range(4):
            bench.publish("t", b"%d" % n)
        await settle()
    journal = HandMemory(store)
    async with receiving(journal, refuse_after_ms=100) as bench:
        journal.automatic = False
        member = sharer(bench, "p", lasts=True, max_inflight=1)
        member.member.resume()
        await settle()
        for _ in range(8):
            if journal.writes:
                journal.finish(JournalError("no room"))
            await trio.sleep(0.1)
        assert bench.broker.alarms.is_journal_failing
        assert bench.queue(QUEUE).count == 0
        assert bench.queue(member.name).count == 4
        if not dies:
            journal.automatic = True
            while journal.writes:
                journal.finish()
            await trio.sleep(2)
            await answer_all(bench, member)
    if dies:
        async with receiving(HandMemory(store)) as bench:
            member = sharer(bench, "p", lasts=True)
            member.member.resume()
            await answer_all(bench, member)
    assert sorted(client.got) == [b"0", b"1", b"2", b"3"]


async def test_wishes_that_can_not_be_read_are_dropped_and_counted():
    async with receiving() as bench:
        for key, value in {"p//a": b"\x02", "no key": b"\x01\xc0", "p//b": b"\x01\xc1"}.items():
            bench.channel.put_state(MEMBERS, key, value)
        assert shares_of(bench).wishes(bench.channel, ("/", "p")) == []
        assert not list(bench.channel.scan_state(MEMBERS))
        assert bench.counted("mqtt.session_state_lost") == 3


async def test_who_releases_what_was_shared_with_qos_2_goes_through_all_four_steps():
    async with receiving() as bench:
        member = sharer(bench, "a").join()
        await settle()
        bench.publish("t", b"x")
        await settle()
        member.take()
        member.answer(Ack(PUBREC, 1))
        await settle()
        assert member.take() == [Ack(PUBREL, 1)]
        member.answer(Ack(PUBCOMP, 1))
        assert not member.session.inflight
        assert member.out._extra == 0


async def test_a_group_that_does_not_last_drops_its_oldest_where_one_that_lasts_does_what_sessions_do():
    async with receiving() as bench:
        lasting, brief = SessionLimits(3, 0, Overflow.REJECT_PUBLISH), SessionLimits(2, 0, Overflow.DROP_HEAD)
        bench.shares = Shares(bench.gateway, lasting, brief)
        member = sharer(bench, "a", max_inflight=1).join()
        await settle()
        for n in range(6):
            bench.publish("t", b"%d" % n, qos=1)
        await settle()
        assert bench.queue(QUEUE).count == 2
        [sent] = member.take()
        member.answer(Ack(PUBACK, sent.packet_id))
        await settle()
        assert bodies(member.take()) == [b"5"]
        assert bench.shares.queue_spec(PATTERN, durable=True).max_length == 3
        assert bench.shares.queue_spec(PATTERN, durable=True).overflow is Overflow.REJECT_PUBLISH
