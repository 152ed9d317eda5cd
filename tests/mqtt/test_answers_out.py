"""What ends a connection that is sent to, and what is the very last that it is sent."""

from __future__ import annotations

import dataclasses

import pytest

from gateway.api import Overflow, QueueSpec
from gateway.journal.memory import MemoryStore
from gateway_mqtt.codec.packets import PUBACK, PUBCOMP, PUBREC, PUBREL, Ack, MalformedPacket, Publish
from gateway_mqtt.store import SESSIONS, SessionRecord
from tests.mqtt.receiver import HandMemory, Receiver, receiving, settle
from tests.mqtt.test_shared import sharer

USER = b"\x26\x00\x01a\x00\x01b"
GONE = b"\xe0\x01\x97"


# -- answers that are none ---------------------------------------------------


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize(("qos", "answer"), [(1, PUBREC), (1, PUBCOMP), (2, PUBACK), (2, PUBCOMP)])
@pytest.mark.parametrize("way", ["live", "retained", "shared"])
async def test_an_answer_of_another_kind_than_the_message_waits_for_is_a_violation_mqtt_4_8_0_1(level, qos, answer, way):
    async with receiving() as bench:
        receiver = sharer(bench, "c", lasts=way == "live", level=level)
        if way == "shared":
            receiver.join("$share/g/t")
        elif way == "live":
            receiver.bind("t")
        bench.publish("t", b"x", qos=qos, keep=True)
        await settle()
        if way == "retained":
            receiver.out.want_retained("t", 2, bench.channel.retained_mark())
            await settle()
        [sent] = receiver.take()
        with pytest.raises(MalformedPacket, match="waits for another answer"):
            receiver.answer(Ack(answer, sent.packet_id))


async def test_a_pubcomp_of_an_earlier_connection_is_no_violation():
    store = MemoryStore()
    async with receiving(HandMemory(store)) as bench:
        first = Receiver(bench)
        first.bind("t")
        bench.publish("t", b"x")
        await settle()
        first.answer(Ack(PUBREC, 1))
        await settle()
        first.end()
        journal = bench.journal
        journal.automatic = False
        second = Receiver(bench)
        await settle()
        second.answer(Ack(PUBCOMP, 1))
        journal.automatic = True
        while journal.writes:
            journal.finish()
        await settle()
        assert second.take() == [Ack(PUBREL, 1)]


@pytest.mark.parametrize(("level", "code"), [(4, 0), (5, 0x92)])
async def test_a_pubrec_of_nothing_is_answered_though_nothing_was_ever_subscribed_to(level, code):
    async with receiving() as bench:
        receiver = Receiver(bench, lasts=False, level=level)
        receiver.out.received(77)
        await settle(1)
        assert receiver.take() == [Ack(PUBREL, 77, code)]


# -- how large a packet may be -----------------------------------------------


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_packet_of_exactly_the_maximum_is_sent_and_none_that_is_larger_mqtt5_3_1_2_24(qos):
    async with receiving() as bench:
        receiver = Receiver(bench, level=5, maximum_packet_bytes=40)
        receiver.bind("t")
        await settle()
        for size in range(20, 45):
            bench.publish("t", bytes(size), qos=qos)
        await settle()
        receiver.take()
        assert max(receiver.connection.sizes) == 40


# -- the last packet ---------------------------------------------------------


async def test_nothing_comes_behind_a_goodbye_mqtt5_3_14_4_1():
    async with receiving() as bench:
        receiver = Receiver(bench, level=5)
        receiver.bind("t")
        await settle()
        bench.publish("t", b"before", qos=0)
        receiver.out.reply_last(GONE)
        for qos in range(3):
            bench.publish("t", b"behind", qos=qos)
        receiver.out.received(9)
        receiver.out.reply(b"\xd0\0")
        out = b"".join(receiver.connection.out)
        assert b"before" in out
        assert out.endswith(GONE)


# -- what was sent before nobody knows of ------------------------------------


async def test_who_was_not_sent_everything_again_after_a_kill_still_gets_it_with_dup_mqtt_3_3_1_1():
    store = MemoryStore()
    async with receiving(HandMemory(store)) as bench:
        first = Receiver(bench)
        first.bind("t", 1)
        await settle()
        for n in range(2):
            bench.publish("t", b"%d" % n, qos=1)
        await settle()
        assert len(first.take()) == 2  # and the broker dies: nobody wrote that down
    async with receiving(HandMemory(store)) as bench:
        brief = Receiver(bench, max_inflight=1)
        await settle()
        assert [packet.payload for packet in brief.take()] == [b"0"]
        brief.end()
        last = Receiver(bench)
        await settle()
        assert [(packet.payload, packet.dup) for packet in last.take()] == [(b"0", True), (b"1", True)]


async def test_what_comes_after_all_that_may_have_been_sent_before_has_no_dup():
    store = MemoryStore()
    async with receiving(HandMemory(store)) as bench:
        first = Receiver(bench)
        first.bind("t", 1)
        bench.publish("t", b"0", qos=1)
        await settle()
    async with receiving(HandMemory(store)) as bench:
        brief = Receiver(bench)
        await settle()
        bench.publish("t", b"1", qos=1)
        await settle()
        for packet in brief.take():
            if isinstance(packet, Publish) and packet.payload == b"0":
                brief.answer(Ack(PUBACK, packet.packet_id))
        assert not brief.store.kept.exact
        brief.end()
        assert brief.store.kept.exact


@pytest.mark.parametrize(("full", "code"), [(True, 0x97), (False, 0x98)])
async def test_the_client_is_told_whether_its_session_was_full_or_was_deleted(full, code):
    async with receiving() as bench:
        limits = {"max_length": 1, "overflow": Overflow.END_QUEUE} if full else {}
        bench.channel.declare_queue(QueueSpec("mqtt.session.c", durable=True, keep_transient=False, **limits))
        receiver = Receiver(bench, level=5)
        told = []
        receiver.out.attach(receiver.channel, receiver.answers.expect, lambda *why: told.append(why))
        receiver.bind("t")
        await settle()
        if full:
            for _ in range(2):
                bench.publish("t", b"x")
        else:
            bench.channel.delete_queue(receiver.name)
        await settle()
        assert [found for found, _ in told] == [code]
        assert receiver.connection.closed


# -- what was sent does not expire -------------------------------------------

T = 10_000
"""Milliseconds that a message lasts."""


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("level", [4, 5])
async def test_what_was_sent_is_sent_again_though_its_time_is_up_and_nothing_else_is_mqtt5_4_3_3_7(qos, level):
    async with receiving() as bench:
        first = Receiver(bench, level=level, max_inflight=2)
        first.bind("t")
        await settle()
        for n in range(4):
            bench.publish("t", b"%d" % n, qos=qos, expires_at_ms=bench.gateway.now_ms() + T)
        await settle()
        sent = [(packet.payload, packet.packet_id) for packet in first.take()]
        assert len(sent) == 2
        first.end()
        bench.broker.engine.advance(bench.gateway.now_ms() + 2 * T)
        second = Receiver(bench, level=level, max_inflight=2)
        await settle()
        again = second.take()
        assert [(packet.payload, packet.packet_id) for packet in again] == sent
        assert all(packet.dup for packet in again)
        assert bench.queue(second.name).count == 2


async def test_a_message_of_qos_2_that_was_sent_outlives_its_time_and_the_broker_mqtt5_4_3_3_7():
    store = MemoryStore()
    async with receiving(HandMemory(store)) as bench:
        receiver = Receiver(bench, level=5)
        receiver.bind("t")
        await settle()
        bench.publish("t", b"x", expires_at_ms=bench.gateway.now_ms() + T)
        await settle()
        assert len(receiver.take()) == 1
        due_ms = bench.gateway.now_ms() + T
    async with receiving(HandMemory(store)) as bench:
        bench.broker.engine.advance(due_ms + T)
        receiver = Receiver(bench, level=5)
        await settle()
        assert [(packet.payload, packet.dup, packet.packet_id) for packet in receiver.take()] == [(b"x", True, 1)]


async def test_what_is_held_and_was_sent_before_is_sent_again_though_its_time_is_up():
    async with receiving() as bench:
        first = Receiver(bench)
        first.bind("t")
        bench.publish("t", b"2", qos=2)
        await settle()
        first.answer(Ack(PUBREC, 1))
        bench.publish("t", b"1", qos=1, expires_at_ms=bench.gateway.now_ms() + T)
        await settle()
        assert len(first.take()) == 3
        first.end()
        second = Receiver(bench, max_inflight=1)
        await settle()
        assert second.take() == [Ack(PUBREL, 1)]
        assert len(second.out._held) == 1
        bench.broker.engine.advance(bench.gateway.now_ms() + 2 * T)
        second.answer(Ack(PUBCOMP, 1))
        await settle()
        assert [(packet.payload, packet.packet_id, packet.dup) for packet in second.take()] == [(b"1", 2, True)]


# -- retained messages and sessions that last --------------------------------


async def retained_to(bench, qos, **fields):
    bench.publish("t", b"kept", qos=qos, retain=True, keep=True, raw=USER)
    receiver = Receiver(bench, **fields)
    await settle()
    receiver.out.want_retained("t", qos, bench.channel.retained_mark(), (7,))
    await settle()
    return receiver


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("dies", [False, True])
async def test_a_retained_message_that_was_sent_is_sent_again_mqtt_4_4_0_1_mqtt5_4_4_0_1(level, qos, dies):
    store = MemoryStore()
    async with receiving(HandMemory(store)) as bench:
        first = await retained_to(bench, qos, level=level)
        [sent] = first.take()
        assert (sent.payload, sent.qos, sent.retain, sent.dup) == (b"kept", qos, True, False)
        if level == 5:
            assert sent.properties.user == (("a", "b"),)
            assert sent.properties.subscription_ids == (7,)
        for _ in range(2):
            bench.pulse.beat()
        await settle()
        if not dies:
            first.end()
            second = Receiver(bench, level=level)
            await settle()
            assert second.take() == [dataclasses.replace(sent, dup=True)]
    async with receiving(HandMemory(store)) as bench:
        last = Receiver(bench, level=level)
        await settle()
        assert last.take() == [dataclasses.replace(sent, dup=True)]
        last.answer(Ack(PUBACK if qos == 1 else PUBREC, sent.packet_id))
        await settle()
        assert bench.queue(last.name).count == 0


async def test_retained_messages_fill_no_queue_of_a_session_that_does_not_answer():
    async with receiving() as bench:
        for n in range(50):
            bench.publish(f"r/{n}", b"x", qos=1, retain=True, keep=True)
        receiver = Receiver(bench, max_inflight=4)
        await settle()
        receiver.out.want_retained("r/#", 1, bench.channel.retained_mark())
        got = []
        for _ in range(200):
            await settle(2)
            assert bench.queue(receiver.name).count <= 4
            packets = receiver.take()
            got += packets
            for packet in packets:
                receiver.answer(Ack(PUBACK, packet.packet_id))
            if len(got) == 50 and not packets:
                break
        assert len({packet.topic for packet in got}) == len(got) == 50
        assert all(packet.retain for packet in got)
        assert receiver.out._retained is None


async def test_who_may_not_write_to_its_queue_gets_retained_messages_once():
    async with receiving() as bench:
        bench.publish("t", b"kept", qos=1, retain=True, keep=True)
        receiver = Receiver(bench)
        receiver.channel._authorize = lambda action, *_: action != "write"
        await settle()
        receiver.out.want_retained("t", 1, bench.channel.retained_mark())
        await settle()
        assert [(packet.payload, packet.retain) for packet in receiver.take()] == [(b"kept", True)]
        assert bench.queue(receiver.name).count == 0


# -- what came while nobody was there ----------------------------------------


@pytest.mark.parametrize("restarts", [1, 2])
async def test_what_was_never_sent_has_no_dup_after_a_restart_mqtt_3_3_1_1(restarts):
    store = MemoryStore()
    async with receiving(HandMemory(store)) as bench:
        first = Receiver(bench)
        first.bind("t", 1)
        await settle()
        first.end()
        bench.publish("t", b"x", qos=1)
        await settle()
    for _ in range(restarts - 1):
        async with receiving(HandMemory(store)):
            await settle()
    async with receiving(HandMemory(store)) as bench:
        last = Receiver(bench)
        await settle()
        assert [(packet.payload, packet.dup) for packet in last.take()] == [(b"x", False)]


async def test_what_may_have_been_sent_before_a_kill_has_dup_however_many_restarts_later():
    store = MemoryStore()
    async with receiving(HandMemory(store)) as bench:
        first = Receiver(bench)
        first.bind("t", 1)
        bench.publish("t", b"x", qos=1)
        await settle()
        assert len(first.take()) == 1
    async with receiving(HandMemory(store)) as bench:
        bench.channel.put_state(SESSIONS, "c//", None)
        bench.stores.open(bench.channel, ("/", "c"), lasts=True).put_record(SessionRecord(ended_at_ms=1))
        await settle()
    async with receiving(HandMemory(store)) as bench:
        last = Receiver(bench)
        await settle()
        assert [(packet.payload, packet.dup) for packet in last.take()] == [(b"x", True)]
