"""Is what clients are sent counted exactly, though no copy is counted on its own?"""

from __future__ import annotations

import random

import pytest

from gateway.api import CloseReason
from gateway_mqtt import server
from gateway_mqtt.codec.coding import encode, encode_length
from gateway_mqtt.codec.packets import (
    PINGRESP,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    Ack,
    ConnAck,
    Publish,
    SubAck,
    Subscribe,
    Subscription,
)
from tests.mqtt.level5 import opened
from tests.mqtt.receiver import Receiver, receiving, settle
from tests.mqtt.test_sys_topics import sys_values, telling

PING = b"\xc0\0"
DISCONNECT = b"\xe0\0"


class Ears:
    """All that some clients heard: type and size of every packet."""

    def __init__(self, bench, level):
        self.bench = bench
        self.level = level
        self.heard = []

    async def client(self, client_id, **fields):
        client = await opened(self.bench, self.level)
        raw = client.raw

        async def heard():
            head, payload = await raw()
            self.heard.append((head >> 4, 1 + len(encode_length(len(payload))) + len(payload)))
            return head, payload

        client.raw = heard
        answer = await client.connect(client_id, **fields)
        assert isinstance(answer, ConnAck)
        return client

    def of(self, kind):
        return [size for type_, size in self.heard if type_ == kind]

    def agree(self, found):
        """What the broker says is what was heard."""
        publishes = self.of(PUBLISH)
        told = [found[f"{name}/sent"] for name in ("messages", "publish/messages", "publish/bytes")]
        assert told == [str(len(self.heard)), str(len(publishes)), str(sum(publishes))]
        return True


async def wish(client, *filters, qos=2):
    await client.send(Subscribe(9, tuple(Subscription(pattern, qos) for pattern in filters)))
    assert isinstance(await client.next(), SubAck)


async def listen(client, *, answers=True):
    """Take all there is, until nothing comes any more."""
    quiet = 0
    while quiet < 3:
        await client.send(PING)
        quiet += 1
        while True:
            packet = await client.next()
            kind = getattr(packet, "type", PUBLISH)
            if kind == PINGRESP:
                break
            quiet = 0
            if not answers:
                continue
            if kind == PUBLISH and packet.qos:
                await client.send(Ack(PUBACK if packet.qos == 1 else PUBREC, packet.packet_id))
            elif kind == PUBREL:
                await client.send(Ack(PUBCOMP, packet.packet_id))
            elif kind == PUBREC:
                await client.send(Ack(PUBREL, packet.packet_id))


def many(level):
    """Publishes of all qualities: one behind the other on one topic, and on others in turn; bodies of several lengths."""
    low = [Publish("t/1", b"x" * (n // 9)) for n in range(40)] + [Publish(f"t/{n % 3}", b"y" * n) for n in range(12)]
    once = [Publish(f"t/{n % 2}", b"z" * n, 1, packet_id=n) for n in range(1, 31)]
    twice = [Publish("t/2", b"2", 2, packet_id=n) for n in range(100, 105)]
    return b"".join(encode(packet, level) for packet in low + once + twice + low[:3])


@pytest.mark.parametrize("lasts", [False, True])
@pytest.mark.parametrize("level", [4, 5])
async def test_all_that_is_sent_is_counted_once_whatever_it_is(autojump_clock, level, lasts):
    async with telling(autojump_clock) as bench:
        ears = Ears(bench, level)
        publisher = await ears.client("p")
        await publisher.send(Publish("r/1", b"kept", retain=True), Publish("r/2", b"as well", 1, True, packet_id=1))
        await listen(publisher)
        fields = {"clean": not lasts, **({"session_expiry_s": 100} if level == 5 and lasts else {})}
        subscribers = [await ears.client(f"s{qos}", **fields) for qos in range(3)]
        for qos, client in enumerate(subscribers):
            await wish(client, "t/#", "r/#", qos=qos)
        member = await ears.client("m", **fields)
        await wish(member, "$share/g/t/#", qos=2)
        await publisher.send(many(level))
        for client in [publisher, *subscribers, member, publisher]:
            await listen(client)
        assert len(ears.of(PUBLISH)) == 4 * 90 + 3 * 2
        assert len(ears.of(PUBREL)) == 5 * 2
        assert ears.agree(await sys_values(bench))


async def test_what_is_sent_again_counts_again_and_so_do_packets_that_say_no(autojump_clock):
    async with telling(autojump_clock) as bench:
        ears = Ears(bench, 4)
        subscriber = await ears.client("s", clean=False)
        await wish(subscriber, "t/#")
        publisher = await ears.client("p")
        await publisher.send(*[Publish("t/1", b"x", qos, packet_id=qos) for qos in (1, 2)])
        await listen(publisher)
        await listen(subscriber, answers=False)
        await subscriber.send(DISCONNECT)
        await bench.gone("s")
        refused = await opened(bench, 4)
        await refused.send(b"\x10\x0c\0\4MQTT\4\0\0\0\0\0")  # a lasting session, and no client identifier
        head, payload = await refused.raw()
        ears.heard.append((head >> 4, 2 + len(payload)))
        subscriber = await ears.client("s", clean=False)
        await listen(subscriber)
        assert len(ears.of(PUBLISH)) == 4
        assert ears.agree(await sys_values(bench))


async def test_what_waits_for_an_answer_is_in_flight(autojump_clock, monkeypatch):
    monkeypatch.setattr(server, "PER_GLANCE", 1)
    async with telling(autojump_clock) as bench:
        ears = Ears(bench, 4)
        subscriber = await ears.client("s")
        await wish(subscriber, "t/#")
        publisher = await ears.client("p")
        await publisher.send(*[Publish("t/1", b"x", qos, packet_id=9 + n) for n, qos in enumerate((0, 1, 1, 2))])
        await listen(publisher)
        await listen(subscriber, answers=False)
        assert (await sys_values(bench))["messages/inflight"] == "3"
        await subscriber.send(Ack(PUBACK, 1))
        await listen(subscriber)
        assert (await sys_values(bench))["messages/inflight"] == "2"


async def test_loads_are_of_what_was_sent(autojump_clock):
    async with telling(autojump_clock) as bench:
        ears = Ears(bench, 4)
        client = await ears.client("c")
        await wish(client, "t")
        await client.send(*[Publish("t", b"x")] * 60)
        await listen(client)
        found = await sys_values(bench)
        for window, minutes in (("1min", 1), ("5min", 5), ("15min", 15)):
            assert 45 / minutes < float(found[f"load/publish/sent/{window}"]) < 61 / minutes
            assert float(found[f"load/messages/sent/{window}"]) > float(found[f"load/publish/sent/{window}"])


async def test_identifiers_that_begin_anew_or_are_in_use_are_no_messages():
    async with receiving() as bench:
        receiver = Receiver(bench, lasts=False, max_inflight=1_000)
        receiver.bind("#", 1)
        await settle()
        for packet_id in (3, 4, 65_530):
            receiver.session.inflight[packet_id] = None
        receiver.session.next_id = 65_520
        receiver.out.beside = -2 * 65_520
        chance = random.Random(7)
        expected = others = 0
        for _ in range(20):
            for _ in range(chance.randrange(4)):
                bench.publish("a", b"x", qos=1)
                expected += 1
                if chance.random() < 0.5:
                    bench.publish("a", b"x", qos=0)
                    expected += 1
                if chance.random() < 0.5:
                    receiver.out.reply(b"\xd0\0")
                    others += 1
            await settle(1)
            assert len([packet for packet in receiver.take() if isinstance(packet, Publish)]) <= 8
            receiver.out.count()
            assert receiver.told.publishes == expected
            assert receiver.told.others == others
            assert receiver.told.other_bytes == 2 * others
        assert receiver.session.next_id < 65_520
        receiver.end()


async def test_what_is_said_behind_the_last_word_is_not_counted():
    async with receiving() as bench:
        receiver = Receiver(bench, lasts=False)
        receiver.bind("#", 1)
        await settle()
        bench.publish("a", b"x", qos=0)
        receiver.out.reply_last(b"\xe0\0")
        bench.publish("a", b"x", qos=0)
        receiver.out.reply(b"\xd0\0")
        await settle()
        receiver.end()
        assert (receiver.told.publishes, receiver.told.others) == (1, 1)


async def test_a_connection_that_can_not_be_flushed_is_aborted():
    async with receiving() as bench:
        receiver = Receiver(bench, lasts=False)
        receiver.bind("#", 1)
        await settle()

        def broken():
            raise ValueError

        receiver.connection.flush = broken
        bench.publish("a", b"x", qos=0)
        await settle()
        assert receiver.connection.closed == [CloseReason.ERROR]
        assert bench.counted("flushes_failed") == 1
