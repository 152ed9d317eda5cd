"""What the simulation has found about MQTT, each reduced to what it takes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from gateway.api import CloseReason
from gateway.journal.memory import MemoryStore
from gateway_mqtt.codec.packets import (
    PUBCOMP,
    PUBREC,
    PUBREL,
    Ack,
    Disconnect,
    Publish,
    Signal,
    SubAck,
    Subscribe,
    Subscription,
    Unsubscribe,
)
from tests.mqtt.level5 import FOR_EVER, connected
from tests.mqtt.receiver import HandMemory, Receiver, receiving, settle
from tests.mqtt.support import mqtt_broker
from tests.mqtt.test_shared import bodies, sharer
from tests.simulation.ledger import Ledger, Sent, Wrong
from tests.simulation.mqtt_books import Books
from tests.simulation.seeds import play
from tests.simulation.wires import SimConnection

PINGRESP = Signal(13)


async def test_no_local_holds_from_the_subscribe_on_not_from_the_suback_mqtt5_3_8_3_3():
    async with mqtt_broker() as bench:
        client = await connected(bench, session_expiry_s=FOR_EVER)
        bench.journal.automatic = False
        await client.send(Subscribe(1, (Subscription("t", 1, no_local=True),)), Publish("t", b"own", 0), Signal(12))
        assert await client.next() == PINGRESP
        bench.journal.automatic = True
        bench.journal.finish()
        assert isinstance(await client.next(), SubAck)
        await client.send(Signal(12))
        assert await client.next() == PINGRESP


async def test_what_a_broker_sent_before_it_died_is_a_duplicate_though_a_connection_came_between_mqtt_3_3_1_1():
    store = MemoryStore()
    async with receiving(HandMemory(store)) as bench:
        first = Receiver(bench)
        first.bind("t")
        await settle()
        for body in (b"1", b"2"):
            bench.publish("t", body, qos=1)
        await settle()
        assert [packet.dup for packet in first.take()] == [False, False]
    async with receiving(HandMemory(store)) as bench:
        narrow = Receiver(bench, max_inflight=1)
        await settle()
        assert [packet.payload for packet in narrow.take()] == [b"1"]
        narrow.end()
        wide = Receiver(bench)
        await settle()
        assert [(packet.payload, packet.dup) for packet in wide.take()] == [(b"1", True), (b"2", True)]


async def test_a_shared_message_is_not_moved_to_a_session_whose_connection_has_just_ended_mqtt5_4_8_2_5():
    async with receiving() as bench:
        one = sharer(bench, "a", lasts=True).join()
        await settle()
        bench.publish("t", b"x")
        one.end()  # in the turn in which it was handed the message
        two = sharer(bench, "b", lasts=True).join()
        await settle()
        assert bodies(two.take()) == [b"x"]
        assert not bench.queue(one.name).count


async def test_a_publish_behind_the_end_of_a_shared_subscription_gets_its_own_answer():
    async with mqtt_broker() as bench:
        keeper = await connected(bench, "keeper", session_expiry_s=FOR_EVER)
        await keeper.send(Subscribe(1, (Subscription("t", 1),)))
        assert isinstance(await keeper.next(), SubAck)
        client = await connected(bench)
        await client.send(Subscribe(1, (Subscription("$share/g/s", 1),)))
        assert isinstance(await client.next(), SubAck)
        bench.journal.alarm = "the disk is full"
        await client.send(Unsubscribe(2, ("$share/g/s",)), Publish("t", b"x", 1, packet_id=3))
        answers = [await client.next(), await client.next()]
        assert [(answer.packet_id, getattr(answer, "code", 0)) for answer in answers] == [(2, 0), (3, 0x97)]


async def test_nothing_comes_behind_the_goodbye_of_a_session_that_was_full_mqtt5_3_14_4_1():
    async with mqtt_broker(session_max_messages=2, session_overflow="end-session") as bench:
        reader = await connected(bench, "reader", session_expiry_s=FOR_EVER)
        await reader.send(Subscribe(1, (Subscription("t", 1),)))
        assert isinstance(await reader.next(), SubAck)
        writer = await connected(bench, "writer")
        publishes = [Publish("t", b"1", 1, packet_id=number) for number in (1, 2, 3)]
        await writer.send(*publishes, Publish("t", b"0"))
        came = []
        while (packet := await reader.next()) is not None:
            came.append(packet)
        assert isinstance(came[-1], Disconnect)


async def test_an_identifier_that_a_pubcomp_frees_may_go_to_what_waited_for_it():
    async with receiving() as bench:
        first = Receiver(bench, max_inflight=1)
        first.bind("t")
        await settle()
        bench.publish("t", b"1", qos=2)
        bench.publish("t", b"2", qos=1)
        await settle()
        assert [(packet.payload, packet.packet_id) for packet in first.take()] == [(b"1", 1)]
        first.end()
        second = Receiver(bench, max_inflight=1)
        await settle()
        second.take()
        second.answer(Ack(PUBREC, 1))
        await settle()
        assert second.take() == [Ack(PUBREL, 1)]
        second.answer(Ack(PUBCOMP, 1))
        await settle()
        assert [(packet.payload, packet.packet_id) for packet in second.take()] == [(b"2", 1)]


class Sharing:
    """Members of a shared subscription, as the simulation's books know them, and a message that was published once."""

    def __init__(self) -> None:
        self.books = Books(Ledger())
        self.books.ledger.sent["x"] = Sent("p", 1, "pool.a")
        self.books.times["x"] = 1
        gateway = SimpleNamespace(chance=None, touch=lambda connection: None, wake=lambda: None)
        self.mqtt_clients = [
            SimpleNamespace(name=name, world=self, lasting=True, connection=SimConnection(gateway, name)) for name in ("m0", "m1")
        ]

    def read(self, number, *, exactly=False):
        self.books.shared(self.mqtt_clients[number], "x", exactly=exactly)

    def end(self, number):
        self.mqtt_clients[number].connection.close(CloseReason.IDLE)


@pytest.mark.parametrize("exactly", [False, True])
def test_who_reads_a_shared_message_late_from_a_connection_that_was_ended_had_it_before_the_next_one(exactly):
    sharing = Sharing()
    sharing.end(1)
    sharing.read(0, exactly=exactly)
    sharing.read(1)
    sharing.end(0)
    sharing.mqtt_clients[1].connection = Sharing().mqtt_clients[1].connection
    if exactly:
        with pytest.raises(Wrong, match="m1 was sent x of a shared subscription, which m0 got with QoS 2"):
            sharing.read(1)
    else:
        sharing.read(1)


def test_a_shared_message_of_qos_2_that_is_read_late_must_not_have_gone_to_another_mqtt5_4_8_2_5():
    sharing = Sharing()
    sharing.end(1)
    sharing.read(0)
    with pytest.raises(Wrong, match="m0 was sent x of a shared subscription, which m1 got with QoS 2"):
        sharing.read(1, exactly=True)


def test_a_connection_that_was_there_when_another_member_had_the_message_must_not_have_it_too():
    sharing = Sharing()
    sharing.read(0)
    sharing.end(1)
    with pytest.raises(Wrong, match="m1 was sent x of a shared subscription, which m0 has"):
        sharing.read(1)


@pytest.mark.interpreted
@pytest.mark.parametrize("seed", [10418, 10556, 10570])
def test_a_will_may_be_refused_while_memory_is_short(seed):
    play(seed)


@pytest.mark.interpreted
def test_the_delay_of_a_will_begins_anew_by_the_clock_of_a_broker_that_has_started():
    play(10540)


@pytest.mark.interpreted
def test_the_will_of_a_session_that_was_not_written_in_whole_comes_at_once_after_a_kill():
    play(2058)
