"""Packets that take long to read, or are never finished: they are refused when that is seen, and what is kept is bounded."""

from __future__ import annotations

import time

import pytest
import trio

from gateway_mqtt.codec.coding import encode
from gateway_mqtt.codec.encoding import encode as encode_packet
from gateway_mqtt.codec.fields import encode_length
from gateway_mqtt.codec.packets import (
    PINGREQ,
    PUBACK,
    Ack,
    ConnAck,
    Connect,
    Disconnect,
    Publish,
    Signal,
    Subscribe,
    Subscription,
    Unsubscribe,
)
from gateway_mqtt.codec.properties import Properties
from gateway_mqtt.halves import Halves
from tests.mqtt.level5 import connected, opened
from tests.mqtt.support import mqtt_broker, until

MANY = 50_000


def raw(first: int, body: bytes) -> bytes:
    return bytes([first]) + encode_length(len(body)) + body


@pytest.mark.parametrize(("first", "each"), [(0x82, b"\0\1a\0"), (0xA2, b"\0\1a")])
async def test_a_packet_of_a_million_filters_ends_its_connection_as_soon_as_that_is_seen(first, each):
    async with mqtt_broker() as bench:
        beside = await bench.client("beside")
        peer = await bench.client("filters")
        began = time.process_time()
        await peer.send(raw(first, b"\0\1" + each * 1_000_000))
        assert await peer.next() is None
        await beside.ping()
        assert time.process_time() - began < 2  # it took ten seconds
        assert bench.counted("violations") == 1


async def test_as_many_filters_in_one_packet_as_are_allowed_are_subscribed_to():
    async with mqtt_broker(max_filters_per_packet=3) as bench:
        peer = await bench.client()
        assert await peer.subscribe("a", "b", "c") == b"\0\0\0"
        await peer.send(Subscribe(9, tuple(Subscription(name, 0) for name in "abcd")))
        assert await peer.next() is None


@pytest.mark.parametrize("packet", [Subscribe(1, (Subscription("a", 0),) * 4), Unsubscribe(1, ("a",) * 4)])
async def test_an_mqtt_5_client_is_told_that_its_filters_are_too_many(packet):
    async with mqtt_broker(max_filters_per_packet=3) as bench:
        peer = await connected(bench)
        await peer.send(encode_packet(packet, 5))
        answer = await peer.next()
        assert isinstance(answer, Disconnect)
        assert answer.code == 0x97


@pytest.mark.parametrize(
    "packet",
    [
        Subscribe(1, (Subscription("a", 0),), Properties(user=(("", ""),) * MANY)),
        Unsubscribe(1, ("a",), Properties(user=(("", ""),) * MANY)),
        Ack(PUBACK, 1, 0x10, Properties(user=(("", ""),) * MANY)),
        Disconnect(0, Properties(user=(("", ""),) * MANY)),
    ],
)
async def test_too_many_user_properties_in_any_packet_end_the_connection(packet):
    async with mqtt_broker() as bench:
        peer = await connected(bench)
        await peer.send(encode_packet(packet, 5))
        answer = await peer.next()
        assert isinstance(answer, Disconnect)
        assert answer.code == 0x97


async def test_a_connect_of_too_many_user_properties_is_refused():
    async with mqtt_broker() as bench:
        peer = await opened(bench)
        await peer.send(encode_packet(Connect("many", level=5, properties=Properties(user=(("", ""),) * MANY)), 5))
        answer = await peer.next()
        assert isinstance(answer, ConnAck)
        assert answer.code == 0x97


async def test_a_publish_of_a_hundred_thousand_user_properties_is_not_read_to_its_end():
    async with mqtt_broker() as bench:
        peer = await connected(bench)
        properties = b"\x26\0\0\0\0" * 100_000 + b"\xff"  # what is not read can't be malformed
        packet = raw(0x32, b"\0\1t\0\1" + encode_length(len(properties)) + properties)
        await peer.send(packet)
        answer = await peer.next()
        assert isinstance(answer, Ack)
        assert (answer.type, answer.code) == (PUBACK, 0x97)


# -- packets that are never finished ----


class Somebody:
    def __init__(self) -> None:
        self.end = ""

    def stuck(self) -> None:
        self.end = "stuck"

    def too_much(self) -> None:
        self.end = "too much"


def test_those_with_the_largest_parts_go_when_all_parts_together_are_too_much():
    halves = Halves(lambda: 0.0, 1.0, 1_000)
    many = [Somebody() for _ in range(5)]
    for size, half in zip((100, 500, 200, 150, 40), many, strict=True):
        halves.part(half, size)
    assert halves.held_bytes == 990
    halves.part(many[4], 60)
    assert halves.held_bytes == 510
    assert [half.end for half in many] == ["", "too much", "", "", ""]
    assert len(halves) == 4


def test_what_is_whole_or_gone_is_not_counted():
    halves = Halves(lambda: 0.0, 1.0, 1_000)
    first, second = Somebody(), Somebody()
    for _ in range(10):
        halves.part(first, 900)
        halves.part(second, 50)
        halves.whole(first)
        halves.whole(first)
        halves.whole(second)
    assert not first.end
    assert halves.held_bytes == len(halves) == 0


async def test_packets_that_are_begun_by_many_do_not_take_more_memory_than_allowed():
    async with mqtt_broker(max_partial_bytes=1024 * 1024) as bench:
        steady = await bench.client("steady")
        small = await bench.client("small")
        whole = encode(Publish("t", b"x" * 10_000))
        await small.send(whole[:5_000])
        front = b"\x30" + encode_length(3_000_000)
        large = [await bench.client(f"large{n}") for n in range(4)]
        for peer in large:
            await peer.send(front + b"x" * 400_000)
        await until(lambda: bench.counted("mqtt.partial_packets_closed"))
        await steady.subscribe("t")
        await small.send(whole[5_000:])
        assert (await steady.next()) == Publish("t", b"x" * 10_000)
        assert 1 <= bench.counted("mqtt.partial_packets_closed") <= 3


async def test_a_part_behind_a_whole_packet_has_to_go_on_too(autojump_clock):
    autojump_clock.autojump_threshold = 0.002
    async with mqtt_broker(packet_timeout_s=20) as bench:
        peer = await bench.client("sly", keep_alive_s=0)
        await peer.send(encode(Signal(PINGREQ)) + encode(Publish("t", b"x" * 5_000))[:3_000])
        assert await peer.next() is not None
        peer.patience_s = 100
        assert await peer.next() is None
        assert bench.counted("mqtt.stuck_packets") == 1


async def test_a_client_that_always_has_a_part_under_way_is_not_stuck(autojump_clock):
    autojump_clock.autojump_threshold = 0.002
    async with mqtt_broker(packet_timeout_s=2) as bench:
        peer = await bench.client("cut", keep_alive_s=0)
        ping = encode(Signal(PINGREQ))
        await peer.send(ping[:1])
        for _ in range(30):
            await trio.sleep(0.5)
            await peer.send(ping[1:] + ping[:1])
            assert await peer.next() is not None
        assert not bench.counted("mqtt.stuck_packets")
