"""Publishes of QoS 0 that come in a row on one topic: what becomes of them is what becomes of each alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api import TOPIC_EXCHANGE, Address, Binding, ConsumeOptions, Overflow, ProtocolViolation, QueueSpec
from gateway_mqtt.codec.coding import encode
from gateway_mqtt.codec.names import MalformedPacket
from gateway_mqtt.codec.packets import Publish
from gateway_mqtt.codec.properties import NO_PROPERTIES, Properties
from gateway_mqtt.translate.messages import Encoder, PacketRun
from gateway_mqtt.translate.properties import WIRE_TAG, read_wire
from tests.engine.support import Sink
from tests.mqtt.receiver import ANYONE, Receiver, receiving, settle
from tests.mqtt.sender import Sender
from tests.runtime.support import HandJournal, Outcomes

HIGH = 1_000_000
MOST_BYTES = 1_024
LONG = "long/" + "l" * 300
"""No cache has it."""
TOPICS = ("t", "u/\u00e9", "nobody/is/there", "secret", LONG)
SUBSCRIBERS = {
    "plain": ({"level": 4}, {"qos": 0}),
    "plain too": ({"level": 4}, {"qos": 1}),
    "slow": ({"level": 4}, {"qos": 0}),
    "bridge": ({"level": 4, "bridge": True}, {"qos": 0, "retain_as_published": True}),
    "five": ({"level": 5}, {"qos": 0}),
    "five with a number": ({"level": 5}, {"qos": 2, "subscription_ids": (7,)}),
    "five as published": ({"level": 5}, {"qos": 0, "retain_as_published": True}),
    "five with aliases": ({"level": 5, "topic_alias_maximum": 1}, {"qos": 0}),
    "five in few bytes": ({"level": 5, "maximum_packet_bytes": 60}, {"qos": 0}),
    "five and slow": ({"level": 5}, {"qos": 0}),
}
QUEUES = {
    "keeping": {},
    "short": {"max_length": 3},
    "refusing": {"max_length": 5, "overflow": Overflow.REJECT_PUBLISH},
    "brief": {"message_ttl_ms": 1},
    "of nobody": {"keep_transient": False},
    "of somebody": {"keep_transient": False},
}


@dataclass(frozen=True)
class World:
    """Who is there: subscribers and queues by name. ``alarm``: memory is short. ``limited``: messages may not be large."""

    level: int
    who: frozenset[str]
    alarm: bool = False
    limited: bool = False


@dataclass
class Seen:
    """What became of it."""

    sent: dict[str, bytes]
    queued: dict[str, list[bytes]]
    counters: dict[str, int]
    logged: list
    told: list
    tally: tuple[int, int, int]
    error: str = ""


def wrote(sender: Sender) -> tuple[int, int, int]:
    tally = sender._protocol._tally
    return tally.packets, tally.publishes, tally.size


async def play(world: World, pieces: list[bytes]) -> Seen:
    """Have a client send so much in each read."""
    memory = [0]
    limits = {"max_message_bytes": MOST_BYTES} if world.limited else {}
    async with receiving(HandJournal(automatic=True), resident=lambda: memory[0], memory_high_bytes=HIGH, **limits) as bench:
        bench.gateway.register_wire(WIRE_TAG, read_wire)
        bench.encoders[3] = bench.encoders[4]
        sinks = await queues(bench, world)
        receivers = await subscribers(bench, world)
        sender = Sender(bench, "p", world.level, lasts=False, authorize=lambda verb, exchange, key: key != "secret")
        bench.log.lines.clear()
        if world.alarm:
            memory[0] = 2 * HIGH
            await trio.sleep(1.1)
        sent = dict.fromkeys(receivers, b"")
        error = ""
        for piece in pieces:
            try:
                sender.send(piece)
            except (MalformedPacket, ProtocolViolation) as broken:
                error = str(broken)
            for name, receiver in receivers.items():
                sent[name] += b"".join(receiver.connection.out)
                receiver.connection.out.clear()
            if error:
                break
        taken = {name: list(map(body_of, sink.transient)) for name, sink in sinks.items()}
        seen = Seen(sent, taken, {}, [], sender.told, wrote(sender), error)
        for name in ("slow", "five and slow"):
            if name in receivers:
                receivers[name].connection.congest(False)
        memory[0] = 0
        await trio.sleep(1.1)
        vhost = bench.broker.engine.vhost("/")
        seen.queued |= {name: [entry.message.body for entry in vhost.queues[name].ready] for name in QUEUES if name in vhost.queues}
        seen.counters = dict(bench.broker.counters)
        seen.logged = bench.log.lines
        return seen


def body_of(message) -> bytes:
    return message.body


async def queues(bench, world: World) -> dict[str, Sink]:
    channel = bench.gateway.open_channel(ANYONE, Outcomes())
    sinks = {}
    for name, spec in QUEUES.items():
        if name in world.who:
            channel.declare_queue(QueueSpec(name, durable=False, **spec))
            channel.bind(Binding(TOPIC_EXCHANGE, name, "t"))
    if "of somebody" in world.who:
        sinks["the one"] = Sink()
        channel.consume("of somebody", sinks["the one"], ConsumeOptions())
    await settle()
    return sinks


async def subscribers(bench, world: World) -> dict[str, Receiver]:
    receivers = {}
    for name, (limits, options) in SUBSCRIBERS.items():
        if name in world.who:
            receiver = receivers[name] = Receiver(bench, name, lasts=False, **limits)
            for pattern in ("t", "u/#", "long/#", "secret"):
                receiver.bind(pattern, **options)
    await settle()
    for name in ("slow", "five and slow"):
        if name in receivers:
            receivers[name].connection.congest(True)
    return receivers


def run(world: World, pieces: list[bytes]) -> Seen:
    return trio.run(play, world, pieces, clock=trio.testing.MockClock(autojump_threshold=0))


def cut(stream: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at = [], 0
    while at < len(stream):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(stream[at : at + size])
        at += size
    return pieces


sizes = st.integers(0, 12) | st.sampled_from([48, 52, 120, 122, 123, 124, 125, 126, 127, 128, 300, 1_024, 1_025, 1_026, 17_000])
bodies = sizes.map(bytes)


@st.composite
def sendings(draw, level):
    """Some messages of QoS 0 on a topic, in a row, or one of another kind."""
    topic = draw(st.sampled_from([*TOPICS[:2], *TOPICS[:2], *TOPICS]))
    if draw(st.integers(0, 4)):
        return [Publish(topic, body) for body in draw(st.lists(bodies, min_size=1, max_size=7))]
    kinds = [{"retain": True}, {"qos": 1, "packet_id": 9}]
    if level == 5:
        kinds += [{"properties": Properties(topic_alias=3)}, {"properties": Properties(message_expiry_s=7)}]
    kind = {"qos": 0, "retain": False, "packet_id": 0, "properties": NO_PROPERTIES} | draw(st.sampled_from(kinds))
    return [Publish(topic, draw(bodies), **kind)]


def numbered(publish: Publish, number: int) -> Publish:
    body = b"%d" % number
    return replace(publish, payload=(body + publish.payload)[: max(len(publish.payload), len(body))] if publish.payload else b"")


BROKEN = (
    b"\x30\x81\0xx",  # an idle digit
    b"\x30\x01\0",  # shorter than its fields
    b"\x30\x05\0\x09abc",  # a topic longer than it is
    b"\x30\x04\0\x01#x",  # a topic that is none
    b"\x36\x04\0\x01tx",  # QoS 3
    b"\x30\xff\xff\xff\xff\x01",
    b"\xf1\x00",
)


@st.composite
def scenes(draw):
    level = draw(st.sampled_from([3, 4, 4, 5, 5]))
    who = frozenset(draw(st.sets(st.sampled_from([*SUBSCRIBERS, *SUBSCRIBERS, *QUEUES]), max_size=6)))
    world = World(level, who, draw(st.integers(0, 9)) == 0, draw(st.integers(0, 4)) == 0)
    publishes = [publish for sending in draw(st.lists(sendings(level), min_size=1, max_size=6)) for publish in sending]
    packets = [encode(numbered(publish, number), level) for number, publish in enumerate(publishes)]
    if draw(st.integers(0, 3)) == 0:
        packets.append(draw(st.sampled_from(BROKEN)))
    return world, packets, draw(st.lists(st.integers(1, 400), min_size=1, max_size=4))


@settings(max_examples=60)
@given(scenes())
def test_what_comes_in_a_row_is_treated_as_if_every_packet_came_alone(scene):
    world, packets, sizes = scene
    alone = run(world, packets)
    stream = b"".join(packets)
    assert run(world, [stream]) == alone
    assert run(world, cut(stream, sizes)) == alone


def encoded(topic: str, bodies: list[bytes], level: int) -> bytes:
    return b"".join(encode(Publish(topic, body), level) for body in bodies)


@pytest.mark.parametrize("level", [3, 4, 5])
async def test_a_run_goes_out_as_one_piece_to_subscribers_of_every_level(autojump_clock, level):
    bodies = [b"%d" % number * (1 + number % 5) for number in range(100)]
    world = World(level, frozenset(("plain", "five")))
    async with receiving(HandJournal(automatic=True)) as bench:
        bench.encoders[3] = bench.encoders[4]
        receivers = await subscribers(bench, world)
        sender = Sender(bench, "p", level, lasts=False)
        sender.send(encoded("t", [b"first"], level))  # the topic is known from now on
        for receiver in receivers.values():
            receiver.connection.out.clear()
        sender.send(encoded("t", bodies, level))
        assert receivers["plain"].connection.out == [encoded("t", bodies, 4)]
        assert receivers["five"].connection.out == [encoded("t", bodies, 5)]
        assert wrote(sender)[:2] == (101, 101)


async def test_every_message_of_a_run_that_a_slow_client_misses_is_counted(autojump_clock):
    async with receiving(HandJournal(automatic=True)) as bench:
        receivers = await subscribers(bench, World(4, frozenset(("slow",))))
        sender = Sender(bench, "p", 4, lasts=False)
        for _ in range(2):
            sender.send(encoded("t", [b"x"] * 40, 4))
        receivers["slow"].connection.congest(False)
        assert bench.counted("mqtt.dropped") == 80
        assert receivers["slow"].connection.out == []


def test_what_a_run_is_elsewhere_is_made_once_for_all_who_ask():
    four, five = Encoder(4), Encoder(5)
    packets = encoded("a/b", [b"1", b"22"], 4)
    run = PacketRun(Address("/", TOPIC_EXCHANGE, "a.b"), packets, 2, 2, 5, four)
    assert run.packets_for(four) is packets
    assert run.packets_for(five) == encoded("a/b", [b"1", b"22"], 5)
    assert run.packets_for(five) is run.packets_for(five)
    assert [message.body for message in run.messages()] == [b"1", b"22"]
    assert run.messages() is run.messages()


async def test_of_a_topic_that_the_client_may_not_publish_to_every_message_is_counted(autojump_clock):
    async with receiving(HandJournal(automatic=True)) as bench:
        sender = Sender(bench, "p", 5, lasts=False, authorize=lambda verb, exchange, key: False)
        sender.send(encoded("secret", [b"x"] * 10, 5))
        assert bench.counted("mqtt.publishes_refused") == 10


def test_what_mqtt_can_not_carry_is_nothing_elsewhere():
    packets = encoded("a/b", [b"1", b"22"], 4)
    run = PacketRun(Address("/", TOPIC_EXCHANGE, "a.#"), packets, 2, 2, 5, Encoder(4))
    assert run.packets_for(Encoder(5)) == b""
