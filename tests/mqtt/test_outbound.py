"""What a client is sent, as its level and its wishes want it."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from gateway.journal.memory import MemoryStore
from gateway.runtime.clock import VirtualClock
from gateway_mqtt.codec.packets import PUBACK, PUBCOMP, PUBREC, Ack, Publish, Subscription
from gateway_mqtt.outbound import PULSE_S, Pulse
from gateway_mqtt.outbound.pulse import MOST_EFFORT
from gateway_mqtt.store import OUTGOING
from tests.mqtt.receiver import HandMemory, Receiver, elsewhere, receiving, settle

USER = b"\x26\x00\x01a\x00\x01b"
LEVELS = pytest.mark.parametrize("level", [4, 5])
QUALITIES = pytest.mark.parametrize("qos", [0, 1, 2])


def bodies(packets):
    return [packet.payload for packet in packets if isinstance(packet, Publish)]


async def one(bench, receiver, topic="t", body=b"x", **fields):
    """Publish, and return what came of it."""
    await settle()
    bench.publish(topic, body, **fields)
    await settle()
    [packet] = receiver.take()
    return packet


# -- options of subscriptions ------------------------------------------------


@LEVELS
@QUALITIES
async def test_properties_come_whole_and_in_order_where_the_level_has_them_mqtt5_3_3_2_17(level, qos):
    async with receiving() as bench:
        receiver = Receiver(bench, level=level)
        receiver.bind("t")
        packet = await one(bench, receiver, qos=qos, raw=USER + b"\x26\x00\x01a\x00\x01c")
        assert packet.properties.user == ((("a", "b"), ("a", "c")) if level == 5 else ())
        assert (packet.payload, packet.qos, packet.retain) == (b"x", qos, False)


@QUALITIES
async def test_subscription_identifiers_of_all_that_match_come_along_mqtt5_3_3_4_3(qos):
    async with receiving() as bench:
        receiver = Receiver(bench, level=5)
        receiver.bind("t", subscription_ids=(5,))
        receiver.bind("+", subscription_ids=(70_000,))
        assert set((await one(bench, receiver, qos=qos)).properties.subscription_ids) == {5, 70_000}


@QUALITIES
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("published", [True, False])
async def test_the_retain_flag_is_as_published_if_that_was_asked_for_mqtt5_3_3_1_12(qos, kept, published):
    async with receiving() as bench:
        receiver = Receiver(bench, level=5)
        receiver.bind("t", retain_as_published=kept)
        packet = await one(bench, receiver, qos=qos, retain=published)
        assert packet.retain is (kept and published)


async def test_options_are_looked_at_again_when_a_subscription_has_changed():
    async with receiving() as bench:
        receiver = Receiver(bench, level=5)
        receiver.bind("t", 1)
        assert not (await one(bench, receiver, qos=1)).properties.subscription_ids
        receiver.bind("t", 1, subscription_ids=(3,))
        assert (await one(bench, receiver, qos=1)).properties.subscription_ids == (3,)
        receiver.bind("t", 1)
        assert not (await one(bench, receiver, qos=1)).properties.subscription_ids


@QUALITIES
async def test_what_is_left_of_the_expiry_comes_along_mqtt5_3_3_2_6(qos, autojump_clock):
    async with receiving(clock=VirtualClock()) as bench:
        receiver = Receiver(bench, level=5)
        receiver.bind("t")
        await settle()
        expires_at_ms = bench.gateway.now_ms() + 60_000
        await trio.sleep(20)
        assert (await one(bench, receiver, qos=qos, expires_at_ms=expires_at_ms)).properties.message_expiry_s in {39, 40}


# -- limits of the client -----------------------------------------------------


@QUALITIES
async def test_topics_get_aliases_first_come_first_served_and_no_more_than_allowed_mqtt5_3_1_2_26(qos):
    async with receiving() as bench:
        receiver = Receiver(bench, level=5, topic_alias_maximum=2)
        receiver.bind("#")
        seen = []
        for topic in ("one", "two", "three", "one", "two", "three"):
            packet = await one(bench, receiver, topic, qos=qos)
            seen.append((packet.topic, packet.properties.topic_alias))
        assert seen == [("one", 1), ("two", 2), ("three", None), ("", 1), ("", 2), ("three", None)]


async def test_an_alias_is_never_used_before_it_was_sent():
    journal = HandMemory()
    async with receiving(journal) as bench:
        receiver = Receiver(bench, level=5, topic_alias_maximum=5)
        receiver.bind("topic")
        await settle()
        journal.automatic = False
        bench.publish("topic", b"waits for the disk", qos=2)
        bench.publish("topic", b"does not", qos=1)
        await settle()
        while journal.writes:
            journal.finish()
            await settle()
        assert [(packet.topic, packet.qos) for packet in receiver.take()] == [("topic", 1), ("", 2)]


@QUALITIES
@pytest.mark.parametrize("aliases", [0, 5])
async def test_what_is_too_large_for_the_client_is_settled_counted_and_not_sent_mqtt5_3_1_2_24(qos, aliases):
    async with receiving() as bench:
        receiver = Receiver(bench, level=5, maximum_packet_bytes=50, topic_alias_maximum=aliases)
        receiver.bind("topic")
        await settle()
        for size in range(30, 60):
            bench.publish("topic", bytes(size), qos=qos)
        await settle()
        packets = receiver.take()
        assert max(receiver.connection.sizes) <= 50
        assert len(packets) >= 8
        assert bench.counted("mqtt.dropped") >= 30 - len(packets)
        if qos:
            assert bench.queue(receiver.name).count == len(packets) == receiver.session.outstanding


async def play(bench, receiver, choose, count):
    """Answer now and then, in any order; return what came."""
    got, unanswered = [], []
    for _ in range(20 * count + 20):
        await settle(1)
        for packet in receiver.take():
            if isinstance(packet, Publish):
                got.append(packet)
            if not isinstance(packet, Publish) or packet.qos:
                unanswered.append(packet)
        assert receiver.session.outstanding <= receiver.out.window, "never too many"
        if not unanswered:
            if len(got) >= count:
                break
            continue
        packet = unanswered.pop(choose(len(unanswered)))
        kind = (PUBACK if packet.qos == 1 else PUBREC) if isinstance(packet, Publish) else PUBCOMP
        receiver.answer(Ack(kind, packet.packet_id))
    return got


@settings(max_examples=40, deadline=None)
@given(
    st.data(),
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(1, 2), st.booleans()), min_size=1, max_size=12),
    st.booleans(),
)
def test_no_more_is_in_flight_than_the_client_allows_live_and_retained_together_mqtt5_3_3_4_7(data, window, messages, lasts):
    async def main():
        async with receiving() as bench:
            kept = [f"r/{n}" for n, (_, retained) in enumerate(messages) if retained]
            for n, (qos, retained) in enumerate(messages):
                if retained:
                    bench.publish(f"r/{n}", b"r%d" % n, qos=qos, retain=True, keep=True)
            receiver = Receiver(bench, level=5, receive_maximum=window, lasts=lasts)
            receiver.bind("live")
            await settle()
            receiver.out.want_retained(Subscription("r/#", 2), 2, bench.channel.retained_mark())
            for n, (qos, retained) in enumerate(messages):
                if not retained:
                    bench.publish("live", b"l%d" % n, qos=qos)
            got = await play(bench, receiver, lambda n: data.draw(st.integers(0, n - 1)), len(messages))
            live = [packet.payload for packet in got if not packet.retain]
            for qos in (1, 2):  # of one quality: in order
                mine = [b"l%d" % n for n, (q, retained) in enumerate(messages) if not retained and q == qos]
                assert [body for body in live if body in mine] == mine
            assert sorted(packet.topic for packet in got if packet.retain) == sorted(kept)
            assert len(got) == len(messages)
            await settle()
            assert receiver.session.outstanding == 0
            assert receiver.out._extra == 0

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_a_puback_makes_room_for_what_is_held_though_releases_take_a_part_of_the_window():
    async with receiving() as bench:
        receiver = Receiver(bench, level=5, receive_maximum=2)
        receiver.bind("t")
        await settle()
        bench.publish("t", b"exactly", qos=2)
        await settle()
        receiver.answer(Ack(PUBREC, 1))  # no PUBCOMP follows
        for n in range(3):
            bench.publish("t", b"%d" % n, qos=1)
        await settle()
        assert bodies(receiver.take()) == [b"exactly", b"0"]
        for n in (2, 3):
            receiver.answer(Ack(PUBACK, n))
            await settle()
        assert bodies(receiver.take()) == [b"1", b"2"]


@LEVELS
async def test_messages_of_one_topic_come_in_order_mqtt_4_6_0_6(level):
    async with receiving() as bench:
        receiver = Receiver(bench, level=level, lasts=False)
        receiver.bind("t", 1)
        await settle()
        for n in range(50):
            bench.publish("t", b"%d" % n, qos=1 + n % 2, raw=USER * (n % 3))
        got = await play(bench, receiver, lambda _: 0, 50)
        assert bodies(got) == [b"%d" % n for n in range(50)]


# -- offline QoS 0, rejections -------------------------------------------------


async def test_what_is_of_qos_0_waits_for_a_session_that_keeps_it():
    async with receiving() as bench:
        first = Receiver(bench, keeps_transient=True)
        first.bind("t", 1)
        first.bind("low", 0)
        await settle()
        first.end()
        for n in range(10):
            bench.publish("t", b"%d" % n, qos=n % 2)
        bench.publish("low", b"10", qos=1)
        await settle()
        second = Receiver(bench, keeps_transient=True, max_inflight=3)
        got = []
        for _ in range(10):
            await settle()
            for packet in second.take():
                got.append((packet.payload, packet.qos))
                if packet.qos:
                    second.answer(Ack(PUBACK, packet.packet_id))
        assert got == [*((b"%d" % n, n % 2) for n in range(10)), (b"10", 0)]
        assert bench.queue(second.name).count == 0


@pytest.mark.parametrize("code", [0x80, 0x99])
async def test_a_puback_that_says_no_rejects_the_message(code):
    async with receiving() as bench:
        receiver = Receiver(bench, level=5)
        receiver.bind("t", 1)
        packet = await one(bench, receiver, qos=1)
        receiver.answer(Ack(PUBACK, packet.packet_id, code))
        await settle()
        assert bench.queue(receiver.name).count == 0
        assert bench.counted("mqtt.rejected") == 1
        assert not receiver.session.inflight


async def test_a_puback_with_another_code_accepts_it():
    async with receiving() as bench:
        receiver = Receiver(bench, level=5)
        receiver.bind("t", 1)
        packet = await one(bench, receiver, qos=1)
        receiver.answer(Ack(PUBACK, packet.packet_id, 0x10))
        assert bench.queue(receiver.name).count == 0
        assert not bench.counted("mqtt.rejected")


# -- retained messages ----------------------------------------------------------


@LEVELS
@QUALITIES
async def test_what_is_retained_comes_with_the_flag_its_properties_and_the_lower_quality(level, qos):
    async with receiving() as bench:
        bench.publish("r", b"kept", qos=2, retain=True, raw=USER, keep=True)
        receiver = Receiver(bench, level=level)
        await settle()
        receiver.out.want_retained(Subscription("r", qos), qos, bench.channel.retained_mark(), (9,))
        await settle()
        [packet] = receiver.take()
        assert (packet.payload, packet.qos, packet.retain, packet.dup) == (b"kept", qos, True, False)
        if level == 5:
            assert packet.properties.user == (("a", "b"),)
            assert packet.properties.subscription_ids == (9,)


@pytest.mark.parametrize(("handling", "new", "comes"), [(0, False, 1), (0, True, 1), (1, True, 1), (1, False, 0), (2, True, 0)])
async def test_retain_handling_says_when_it_comes_mqtt5_3_3_1_9(handling, new, comes):
    async with receiving() as bench:
        bench.publish("r", b"kept", qos=1, retain=True, keep=True)
        receiver = Receiver(bench, level=5)
        await settle()
        receiver.out.want_retained(Subscription("r", 1, retain_handling=handling), 1, bench.channel.retained_mark(), new=new)
        await settle()
        assert len(receiver.take()) == comes


async def test_shared_subscriptions_get_nothing_that_is_retained():
    async with receiving() as bench:
        bench.publish("r", b"kept", qos=1, retain=True, keep=True)
        receiver = Receiver(bench, level=5)
        await settle()
        receiver.out.want_retained(Subscription("$share/g/r", 1), 1, bench.channel.retained_mark())
        await settle()
        assert not receiver.take()


async def test_last_values_that_are_not_in_the_broker_come_beside_those_that_are():
    asked = []

    def source(pattern):
        asked.append(pattern)
        return [elsewhere("$SYS/broker/uptime", b"7")] if pattern.startswith("$SYS") else []

    async with receiving() as bench:
        bench.publish("a", b"kept", qos=1, retain=True, keep=True)
        receiver = Receiver(bench, source=source)
        await settle()
        for pattern in ("$SYS/#", "#"):
            receiver.out.want_retained(pattern, 1, bench.channel.retained_mark())
        await settle()
        got = [(packet.topic, packet.payload, packet.qos, packet.retain) for packet in receiver.take()]
        assert got == [("$SYS/broker/uptime", b"7", 0, True), ("a", b"kept", 1, True)]
        assert asked == ["$SYS/#", "#"]


async def test_a_retained_message_of_qos_2_leaves_no_identifier_behind_that_the_client_still_holds():
    async with receiving() as bench:
        bench.publish("r", b"kept", qos=2, retain=True, keep=True)
        first = Receiver(bench)
        first.channel._authorize = lambda action, *_: action != "write"  # it goes past the session's queue
        await settle()
        first.out.want_retained("r", 2, bench.channel.retained_mark())
        await settle()
        [packet] = first.take()
        first.end()
        second = Receiver(bench)
        await settle()
        [release] = second.take()
        assert release.packet_id == packet.packet_id
        second.answer(Ack(PUBCOMP, packet.packet_id))
        await settle()
        assert not second.session.inflight
        assert not list(bench.channel.scan_state(OUTGOING))


# -- identifiers over connections and restarts ------------------------------------


async def sent(receiver, *answered):
    await settle()
    packets = receiver.take()
    for n in answered:
        receiver.answer(Ack(PUBACK, packets[n].packet_id))
    return {packet.payload: (packet.packet_id, packet.dup) for packet in packets}


async def test_who_is_back_gets_the_same_identifiers_with_dup_in_order_mqtt_4_4_0_1_mqtt_4_6_0_1():
    async with receiving() as bench:
        first = Receiver(bench)
        first.bind("t", 1)
        await settle()
        for n in range(5):
            bench.publish("t", b"%d" % n, qos=1)
        before = await sent(first, 1, 3)
        first.end()
        bench.publish("t", b"5", qos=1)
        second = Receiver(bench)
        again = await sent(second)
        assert list(again) == [b"0", b"2", b"4", b"5"]
        assert again == {**{body: (before[body][0], True) for body in (b"0", b"2", b"4")}, b"5": (6, False)}


async def test_identifiers_of_what_was_in_flight_for_a_while_survive_the_broker():
    store = MemoryStore()
    async with receiving(HandMemory(store)) as bench:
        first = Receiver(bench)
        first.bind("t", 1)
        await settle()
        first.session.next_id = 65_534
        for n in range(5):
            bench.publish("t", b"%d" % n, qos=1)
        before = await sent(first, 1)
        assert bench.woken == 1
        assert bench.pulse.beat(), "they are young"
        assert not list(bench.channel.scan_state(OUTGOING))
        assert bench.pulse.beat()
        await settle(60)
        assert len(list(bench.channel.scan_state(OUTGOING))) == 1
    async with receiving(HandMemory(store)) as bench:
        second = Receiver(bench)
        again = await sent(second)
        assert list(again) == [b"0", b"2", b"3", b"4"]
        assert again == {body: (before[body][0], True) for body in again}
        assert [packet_id for packet_id, _ in again.values()] == [65_534, 1, 2, 3]


async def test_a_subscriber_that_keeps_up_costs_no_writing():
    async with receiving() as bench:
        receiver = Receiver(bench)
        receiver.bind("t", 1)
        await settle()
        for n in range(5):
            bench.publish("t", b"%d" % n, qos=1)
            await settle()
            for packet in receiver.take():
                receiver.answer(Ack(PUBACK, packet.packet_id))
            bench.publish("t", b"next", qos=1)
            await settle()
            bench.pulse.beat()
            [packet] = receiver.take()
            receiver.answer(Ack(PUBACK, packet.packet_id))
        assert receiver.store.kept.runs == ()
        assert not bench.pulse.beat(), "nothing is in flight"
        assert not list(bench.channel.scan_state(OUTGOING))


async def test_what_has_gone_meanwhile_leaves_its_identifiers_to_others():
    async with receiving() as bench:
        first = Receiver(bench)
        first.bind("t", 1)
        await settle()
        for n in range(3):
            bench.publish("t", b"%d" % n, qos=1)
        await sent(first)
        first.end()
        bench.channel.purge_queue(first.name)
        second = Receiver(bench)
        bench.publish("t", b"new", qos=1)
        assert await sent(second) == {b"new": (4, False)}
        assert second.session.reserved == 3
        bench.pulse.beat()
        bench.pulse.beat()
        assert second.session.reserved == 0
        assert list(second.session.inflight) == [4]


async def test_a_puback_for_an_earlier_connections_packet_frees_no_identifier_that_comes_again():
    async with receiving() as bench:
        first = Receiver(bench, max_inflight=2)
        first.bind("t", 1)
        await settle()
        for n in range(2):
            bench.publish("t", b"%d" % n, qos=1)
        await sent(first)
        first.end()
        second = Receiver(bench, max_inflight=1)
        second.answer(Ack(PUBACK, 2))
        assert await sent(second, 0) == {b"0": (1, True)}
        assert await sent(second, 0) == {b"1": (2, True)}
        assert not second.session.inflight
        assert second.session.reserved == 0


async def test_a_session_of_which_nothing_is_left_takes_no_memory_while_its_client_is_away():
    async with receiving() as bench:
        for client_id in "ab":
            receiver = Receiver(bench, client_id)
            receiver.bind("t", 2)
            await settle()
            if client_id == "b":
                bench.publish("t", b"x")
                await settle()
            receiver.end()
        assert list(bench.stores._kept) == [("/", "b")]


# -- the pulse ------------------------------------------------------------------


class Looked:
    def __init__(self, effort=0, stays=0, pulse=None):
        self.effort, self.stays, self.pulse, self.beats = effort, stays, pulse, 0

    def beat(self):
        self.beats += 1
        if self.beats <= self.stays:
            self.pulse.join(self)
        return self.effort


def test_the_pulse_wakes_once_and_looks_at_each_once_a_beat():
    woken = []
    pulse = Pulse(lambda: woken.append(PULSE_S))
    one, two = Looked(stays=1, pulse=pulse), Looked()
    for member in (one, two, one):
        pulse.join(member)
    assert woken == [PULSE_S]
    assert pulse.beat()
    assert (one.beats, two.beats) == (1, 1)
    assert not pulse.beat()
    assert (one.beats, two.beats) == (2, 1)
    assert len(woken) == 1


def test_a_beat_does_so_much_and_the_rest_comes_in_the_next():
    pulse = Pulse(lambda: None)
    members = [Looked(MOST_EFFORT) for _ in range(3)]
    for member in members:
        pulse.join(member)
    pulse.beat()
    assert [member.beats for member in members] == [1, 0, 0]
    pulse.leave(members[1])
    assert not pulse.beat()
    assert [member.beats for member in members] == [1, 0, 1]
