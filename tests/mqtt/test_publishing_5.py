"""MQTT 5 publishers: what they may say of a message, and with which reason they are told no."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api import Address, MessageRefused, Outcome, Overloaded, Principal, ProtocolViolation
from gateway.errors import JournalError
from gateway.model.declare import Overflow
from gateway.runtime.clock import VirtualClock
from gateway_mqtt.codec.coding import decode, encode
from gateway_mqtt.codec.packets import (
    DISCONNECT,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    Ack,
    Disconnect,
    MalformedPacket,
    Publish,
)
from gateway_mqtt.codec.properties import Properties
from gateway_mqtt.codec.reasons import BY_SERVER
from gateway_mqtt.codec.splitter import Splitter
from gateway_mqtt.inbound import Inbound, Terms
from gateway_mqtt.translate.messages import Encoder
from gateway_mqtt.translate.refusals import CODES, reason_code, reason_text
from gateway_mqtt.translate.topics import Routes, TopicLimits
from tests.mqtt.level5 import connected, goodbye
from tests.mqtt.sender import Connection, senders
from tests.mqtt.support import mqtt_broker, until


def ack(packet_id, code=0, type_=PUBACK):
    return Ack(type_, packet_id, code)


def coded(packets):
    return [(packet.type, packet.packet_id, packet.code) for packet in packets]


# -- topic aliases


async def test_a_topic_alias_stands_for_the_topic_that_it_was_set_for_last_mqtt5_3_3_2_7():
    async with senders() as bench:
        queue = await bench.consume()
        sender = bench.sender(topic_alias_maximum=3)
        alias = Properties(topic_alias=3)
        sender.send(Publish("first", b"1", properties=alias), Publish("", b"2", 1, packet_id=1, properties=alias))
        sender.send(Publish("second", b"3", 2, packet_id=2, properties=alias), Publish("", b"4", properties=alias))
        await sender.answers(2)
        found = [(message.routing_key, message.body) for message in queue.messages]
        assert found == [("first", b"1"), ("first", b"2"), ("second", b"3"), ("second", b"4")]
        assert [message.wire for message in queue.messages] == [b"", b"", b"\2", b""]


@pytest.mark.parametrize(
    ("topic", "alias", "code"),
    [
        ("t", 4, 0x94),
        ("t", 65_535, 0x94),
        ("", 2, 0x82),
        ("", None, 0x82),
    ],
)
async def test_an_alias_beyond_the_maximum_or_never_set_ends_the_connection_mqtt5_3_3_2_9(topic, alias, code):
    async with senders() as bench:
        sender = bench.sender(topic_alias_maximum=3)
        sender.send(Publish("x", b"", properties=Properties(topic_alias=1)))
        with pytest.raises(MalformedPacket) as caught:
            sender.send(Publish(topic, b"", properties=Properties(topic_alias=alias)))
        assert caught.value.code == code


async def test_aliases_are_the_connections_own_mqtt5_3_3_2_7():
    async with senders() as bench:
        bench.sender("a", topic_alias_maximum=3).send(Publish("x", b"", properties=Properties(topic_alias=1)))
        with pytest.raises(MalformedPacket):
            bench.sender("b", topic_alias_maximum=3).send(Publish("", b"", properties=Properties(topic_alias=1)))


async def test_a_topic_alias_of_0_ends_the_connection_mqtt5_3_3_2_8():
    async with senders() as bench:
        with pytest.raises(MalformedPacket) as caught:
            bench.sender(topic_alias_maximum=3).send(b"\x30\x07\0\1t\3\x23\0\0")
        assert caught.value.code == 0x94


# -- what goes with the message


async def test_properties_retain_and_qos_2_go_with_the_message(autojump_clock):
    async with senders(clock=VirtualClock()) as bench:
        queue = await bench.consume()
        sender = bench.sender(topic_alias_maximum=1)
        user = Properties(user=(("a", "1"), ("a", "2")), topic_alias=1, message_expiry_s=60, correlation_data=b"c")
        sender.send(Publish("t", b"x", 1, packet_id=1, properties=user), Publish("t", b"x", retain=True), Publish("t", b"x"))
        sender.send(Publish("t", b"x", 1, True, packet_id=2), Publish("t", b"x", 2, packet_id=3))
        await sender.answers(3)
        first, *others = queue.messages
        assert [(message.wire_tag, message.wire) for message in others] == [
            ("mqtt", b"\4"), ("", b""), ("mqtt", b"\5"), ("mqtt", b"\2"),
        ]  # fmt: skip
        assert 59_000 < first.expires_at_ms - bench.gateway.now_ms() <= 60_000
        common = bench.gateway.properties(first)
        assert (common.headers, common.correlation_id) == ({"a": ["1", "2"]}, "c")
        assert {message.expires_at_ms for message in others} == {0}


async def test_plain_messages_are_forwarded_as_they_came():
    async with senders() as bench:
        five = bench.encoders[5]
        sender = bench.sender()
        plain, confirmed = Publish("t", b"x"), Publish("t", b"y", 1, packet_id=258)
        sender.send(plain, confirmed)
        assert (five.packet, five.plain.body) == (encode(plain, 5), b"x")
        assert five.front + b"\1\2\0y" == encode(confirmed, 5)
        assert five.confirmed.body == b"y"


async def test_properties_that_come_again_are_read_once_and_others_are_not_mistaken_for_them():
    async with senders() as bench:
        queue = await bench.consume()
        sender = bench.sender()
        for n in (1, 1, 2, 1):
            sender.send(Publish("t", b"", properties=Properties(user=(("n", str(n)),))))
        await until(lambda: len(queue.messages) == 4)
        assert [bench.gateway.properties(message).headers["n"] for message in queue.messages] == ["1", "1", "2", "1"]


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_what_expires_at_once_is_delivered_to_who_is_there(qos):
    async with senders() as bench:
        queue = await bench.consume()
        sender = bench.sender()
        sender.send(Publish("t", b"now", qos, packet_id=1 if qos else 0, properties=Properties(message_expiry_s=0)))
        await until(lambda: queue.messages)


# -- refusals


@pytest.mark.parametrize("wanted", [True, False])
async def test_a_full_queue_is_told_in_the_puback_and_the_connection_goes_on_mqtt5_4_6_0_2(wanted):
    async with senders() as bench:
        await bench.consume("full", consumed=False, max_length=1, overflow=Overflow.REJECT_PUBLISH)
        await bench.consume("free")
        sender = bench.sender(problem_information=wanted)
        topics = ["full", "full", "free", "nobody", "full", "free"]
        sender.send(*(Publish(topic, b"x", 1, packet_id=n) for n, topic in enumerate(topics, 1)))
        answers = await sender.answers(6)
        assert coded(answers) == [
            (PUBACK, 1, 0), (PUBACK, 2, 0x97), (PUBACK, 3, 0), (PUBACK, 4, 0x10), (PUBACK, 5, 0x97), (PUBACK, 6, 0),
        ]  # fmt: skip
        assert [packet.properties.reason_string for packet in answers if packet.code < 0x80] == [None] * 4
        told = {packet.properties.reason_string for packet in answers if packet.code == 0x97}
        assert told == ({reason_text(0x97)} if wanted else {None})  # [MQTT5-3.1.2-29]
        assert not sender.connection.closed
        assert bench.counted("mqtt.publishes_refused") == 2
        assert len([line for line in bench.log.lines if line[0] == "warning"]) == 1


async def test_a_reason_string_that_makes_a_packet_too_large_for_the_client_is_left_out_mqtt5_3_4_2_2():
    async with senders() as bench:
        await bench.consume("full", consumed=False, max_length=1, overflow=Overflow.REJECT_PUBLISH)
        sender = bench.sender(most_bytes=20)
        sender.send(Publish("full", b"", 1, packet_id=1), Publish("full", b"", 1, packet_id=2))
        assert await sender.answers(2) == [ack(1), ack(2, 0x97)]


def not_secret(action, resource, key):
    return key != "secret"


async def test_who_may_not_publish_is_told_so_in_its_turn_and_nothing_for_qos_0_mqtt5_3_4_2_1():
    async with senders() as bench:
        queue = await bench.consume()
        sender = bench.sender(authorize=not_secret, problem_information=False)
        for qos in (1, 2):
            topics = ["t", "secret", "t"]
            sender.send(*(Publish(topic, b"x", qos, packet_id=n) for n, topic in enumerate(topics, 1)))
            type_ = PUBACK if qos == 1 else PUBREC
            assert await sender.answers(3) == [ack(1, 0, type_), ack(2, 0x87, type_), ack(3, 0, type_)]
        sender.send(Publish("secret", b"x"), Publish("t", b"last"))
        await until(lambda: b"last" in queue.bodies)
        assert len(queue.messages) == 5
        assert bench.counted("mqtt.publishes_refused") == 3
        assert not sender.connection.closed


@pytest.mark.parametrize("topic", ["$SYS", "$SYS/", "$SYS/broker/uptime"])
async def test_nobody_publishes_what_the_broker_says_of_itself_mqtt5_4_7_2_1(topic):
    async with senders() as bench:
        queue = await bench.consume()
        sender = bench.sender(problem_information=False)
        sender.send(
            Publish(topic, b"x"), Publish(topic, b"x", 1, retain=True, packet_id=1), Publish("$SYSTEM", b"x", 1, packet_id=2)
        )
        assert await sender.answers(2) == [ack(1, 0x87), ack(2)]
        assert [message.routing_key for message in queue.messages] == ["$SYSTEM"]
        with pytest.raises(ProtocolViolation):
            bench.sender(level=4).send(Publish(topic, b"x"))


async def test_below_level_5_who_may_not_publish_is_disconnected_mqtt_3_3_5_2():
    async with senders() as bench:
        sender = bench.sender(level=4, authorize=not_secret)
        with pytest.raises(ProtocolViolation):
            sender.send(Publish("secret", b"x", 2, packet_id=1))


@pytest.mark.parametrize("qos", [1, 2])
async def test_a_payload_that_is_not_the_utf_8_that_it_is_said_to_be_is_refused(qos):
    async with senders() as bench:
        queue = await bench.consume()
        sender = bench.sender(problem_information=False)
        text = Properties(payload_format=1)
        bodies = [b"\xff", "é".encode(), b"\xed\xa0\x80", b"a\0b"]
        sender.send(*(Publish("t", body, qos, packet_id=n, properties=text) for n, body in enumerate(bodies, 1)))
        assert [packet.code for packet in await sender.answers(4)] == [0x99, 0, 0x99, 0]
        assert queue.bodies == ["é".encode(), b"a\0b"]
        with pytest.raises(MalformedPacket) as caught:
            sender.send(Publish("t", b"\xff", properties=text))
        assert caught.value.code == 0x99


@pytest.mark.parametrize("qos", [1, 2])
async def test_more_user_properties_than_allowed_are_refused(qos):
    async with senders() as bench:
        queue = await bench.consume()
        sender = bench.sender(problem_information=False, max_user_properties=2)
        said = [Properties(user=(("&", "&&&"),) * count) for count in (2, 3)]
        sender.send(*(Publish("t", b"x", qos, packet_id=n, properties=p) for n, p in enumerate(said, 1)))
        assert [packet.code for packet in await sender.answers(2)] == [0, 0x97]
        sender.send(*(Publish("t", b"low", properties=p) for p in reversed(said)))
        await until(lambda: len(queue.messages) == 2)
        assert queue.bodies == [b"x", b"low"]


@pytest.mark.parametrize("level", [4, 5])
async def test_what_is_switched_off_ends_the_connection_mqtt5_3_2_2_11_mqtt5_3_2_2_14(level):
    async with senders() as bench:
        for packet, terms, code in [
            (Publish("t", b"", 2, packet_id=1), {"maximum_qos": 1}, 0x9B),
            (Publish("t", b"", 1, dup=True, packet_id=1), {"maximum_qos": 0}, 0x9B),
            (Publish("t", b"", 1, packet_id=1), {"maximum_qos": 0}, 0x9B),
            (Publish("t", b"", retain=True), {"retained": False}, 0x9A),
        ]:
            with pytest.raises(MalformedPacket) as caught:
                bench.sender(level=level, **terms).send(packet)
            assert caught.value.code == code


# -- Receive Maximum


async def test_more_unanswered_messages_than_the_receive_maximum_end_the_connection():
    async with senders() as bench:
        await bench.consume(consumed=False)
        bench.journal.automatic = False
        sender = bench.sender(receive_maximum=3, lasts=True)
        sender.send(Publish("t", b"", 1, packet_id=1), Publish("t", b"", 2, packet_id=2), Publish("t", b""))
        sender.send(Publish("t", b"", 2, packet_id=2, dup=True), Publish("t", b"", 1, packet_id=3))
        with pytest.raises(MalformedPacket) as caught:
            sender.send(Publish("t", b"", 1, packet_id=4))
        assert caught.value.code == 0x93


async def test_what_is_answered_counts_no_more_qos_2_until_its_pubcomp():
    async with senders() as bench:
        await bench.consume()
        sender = bench.sender(receive_maximum=2)
        for n in range(1, 6):
            sender.send(Publish("t", b"", 1, packet_id=2 * n), Publish("t", b"", 2, packet_id=2 * n + 1))
            await sender.answers(2)
            sender.send(Ack(PUBREL, 2 * n + 1))
            assert await sender.answers(1) == [ack(2 * n + 1, 0, PUBCOMP)]
        sender.send(Publish("t", b"", 2, packet_id=1), Publish("t", b"", 2, packet_id=2))
        await sender.answers(2)
        with pytest.raises(MalformedPacket) as caught:
            sender.send(Publish("t", b"", 1, packet_id=3))
        assert caught.value.code == 0x93


@pytest.mark.parametrize("lasts", [True, False])
async def test_a_release_in_the_same_read_makes_no_room_for_one_too_many(lasts):
    async with senders() as bench:
        await bench.consume()
        sender = bench.sender(receive_maximum=1, lasts=lasts)
        sender.send(Publish("t", b"", 2, packet_id=1))
        await sender.answers(1)
        with pytest.raises(MalformedPacket) as caught:
            sender.send(Ack(PUBREL, 1), Publish("t", b"", 2, packet_id=2))
        assert caught.value.code == 0x93


async def test_what_is_refused_counts_no_more():
    async with senders() as bench:
        sender = bench.sender(receive_maximum=1, authorize=not_secret)
        for n in range(1, 5):
            sender.send(Publish("secret", b"", 1 + n % 2, packet_id=n))
            [answer] = await sender.answers(1)
            assert answer.code == 0x87


# -- after a goodbye


@pytest.mark.parametrize("known", [True, False])
async def test_nothing_is_published_or_released_once_a_goodbye_was_said_mqtt5_3_14_4_1(known):
    async with senders() as bench:
        queue = await bench.consume()
        sender = bench.sender(lasts=True)
        if known:
            sender.send(Publish("t", b"", 1, packet_id=1), Publish("t", b"", 2, packet_id=2))
            await sender.answers(2)
        before = len(queue.messages)
        sender.inbound.stop()
        later = [Publish("t", b"no", qos, retain, packet_id=qos and 3 + qos) for qos in (0, 1, 2) for retain in (False, True)]
        sender.send(*later, Ack(PUBREL, 2), Publish("", b"no", properties=Properties(topic_alias=9)))
        await sender.silence()
        assert len(queue.messages) == before
        assert sender.store.was_received(2) == known


async def test_what_comes_in_the_same_read_behind_what_ended_the_session_is_not_published():
    async with mqtt_broker(clean_session_max_messages=1) as bench:
        client, watcher = await connected(bench), await bench.client()
        await watcher.subscribe("u", qos=1)
        await client.subscribe("t", 1)
        ends = [Publish("t", b"fills", 1, packet_id=1), Publish("t", b"ends it", 1, packet_id=2)]
        await client.send(*ends, Publish("u", b"no"), Publish("u", b"no", 1, packet_id=3), Publish("u", b"no", 2, packet_id=4))
        assert (await client.next()).payload == b"fills"
        assert (await goodbye(client)).code == 0x97
        await watcher.ping()


# -- the table


def test_every_refusal_has_a_reason_that_its_packets_may_carry_and_a_text():
    for kind, code in CODES.items():
        assert code in BY_SERVER[PUBACK] & BY_SERVER[PUBREC]
        assert code in BY_SERVER[DISCONNECT]
        assert reason_code(kind("x")) == code
        assert reason_text(code)

    class Special(MessageRefused):
        pass

    assert reason_code(Special("x")) == 0x97


# -- against a model


class Channel:
    def __init__(self):
        self.number = 0

    def route(self, exchange, routing_key):
        class Found:
            address = Address("/", exchange, routing_key)

        return Found()

    def publish(self, route, message):
        self.number += 1
        return self.number

    def barrier(self):
        return self.publish(None, None)

    post = post_run = publish


class Gateway:
    log = property(lambda self: self)

    def count(self, name, amount=1, *, reason=""):
        pass

    def warning(self, event, **values):
        pass


@given(st.lists(st.sampled_from(["stored", "unmatched", "refused", "text", "other", "decide"]), max_size=40))
def test_every_publish_is_answered_once_with_its_reason_in_order_whatever_the_batches_are(steps):
    told, packets, expected, exceptions = [], Splitter(), [], []

    def take(data, packets_in_it=1):
        packets.feed(data)
        while (frame := packets.next()) is not None:
            told.append(decode(*frame, 5))

    channel = Channel()
    inbound = Inbound(Gateway(), Connection(), Encoder(5), "c", take, Terms(level=5, problem_information=False))
    inbound.attach(channel, Routes(channel, Principal("x"), TopicLimits(9, 99)))
    for packet_id, step in enumerate([*steps, "decide"], 1):
        raw = packet_id.to_bytes(2, "big")
        match step:
            case "decide":
                inbound.on_outcomes(channel.number, exceptions)
                exceptions = []
                assert coded(told) == expected
                continue
            case "other":
                inbound.expect(channel.barrier(), lambda outcome: None)
                exceptions.append(Outcome(channel.number))
                continue
            case "text":
                inbound.publish_other(0x32, b"t", b"\xff", raw, b"\1\1")
                exceptions.append(Outcome(channel.number, error=Overloaded("said already")))
            case _:
                inbound.publish_confirmed(b"t", b"", raw, b"")
        if step == "unmatched":
            exceptions.append(Outcome(channel.number, unroutable=True))
        elif step == "refused":
            exceptions.append(Outcome(channel.number, error=MessageRefused("full")))
        codes = {"stored": 0, "unmatched": 0x10, "refused": 0x97, "text": 0x99}
        expected.append((PUBACK, packet_id, codes[step]))


@pytest.mark.parametrize(("most_bytes", "text"), [(0, reason_text(0x97)), (40, None)])
async def test_a_release_that_the_failing_journal_does_not_keep_ends_the_connection_with_a_reason(most_bytes, text):
    async with senders(refuse_after_ms=0) as bench:
        sender = bench.sender(lasts=True, most_bytes=most_bytes)
        sender.send(Publish("t", b"", 2, packet_id=1))
        await sender.answers(1)
        bench.journal.automatic = False
        sender.send(Ack(PUBREL, 1))
        await until(lambda: bench.journal.writes)
        bench.journal.finish(JournalError("disk full"))
        [goodbye] = await sender.answers(1)
        assert goodbye == Disconnect(0x97, Properties(reason_string=text))
        assert sender.connection.closed
