"""The decode loop against the codec: the same packets, however the stream is cut."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_mqtt.codec.coding import encode
from gateway_mqtt.codec.packets import PINGREQ, PUBACK, Ack, MalformedPacket, Publish, Signal, Subscribe, Subscription, Unsubscribe
from gateway_mqtt.protocol import Connected

LIMIT = 100_000


class Sinks:
    """All three sinks; they write down what they are told as packets."""

    def __init__(self):
        self.told = []
        self.forwarded = []

    def publish(self, topic, body, packet):
        self.told.append(Publish(topic.decode(), body))
        self.forwarded.append((packet, encode(self.told[-1])))

    def publish_confirmed(self, topic, body, packet_id, front):
        identifier = int.from_bytes(packet_id, "big")
        self.told.append(Publish(topic.decode(), body, 1, dup=not front, packet_id=identifier))
        if front:
            self.forwarded.append((front + packet_id + body, encode(self.told[-1])))

    def publish_retained(self, topic, body, packet_id):
        self.told.append(
            Publish(topic.decode(), body, int(bool(packet_id)), retain=True, packet_id=int.from_bytes(packet_id, "big"))
        )

    def acknowledged(self, packet_id):
        self.told.append(Ack(PUBACK, packet_id))

    def subscribe(self, packet):
        self.told.append(packet)

    unsubscribe = subscribe

    def ping(self):
        self.told.append(Signal(PINGREQ))

    def disconnect(self):
        self.told.append("gone")


def connected():
    sinks = Sinks()
    return sinks, Connected(sinks, sinks, sinks, LIMIT)


identifiers = st.integers(1, 65_535)
bodies = st.binary(max_size=20) | st.integers(100, 400).map(lambda size: b"x" * size)


@st.composite
def publishes(draw):
    qos = draw(st.integers(0, 1))
    retain = draw(st.booleans())
    dup = bool(qos) and not retain and draw(st.booleans())
    return Publish(draw(st.sampled_from(["t", "a/b", "é" * 40])), draw(bodies), qos, retain, dup, draw(identifiers) if qos else 0)


packets = st.one_of(
    publishes(),
    st.builds(Ack, st.just(PUBACK), identifiers),
    st.just(Signal(PINGREQ)),
    st.builds(Subscribe, identifiers, st.just((Subscription("a/#", 1), Subscription("b", 0)))),
    st.builds(Unsubscribe, identifiers, st.just(("a", "b"))),
)


@given(st.lists(packets, min_size=1, max_size=8), st.integers(1, 9))
def test_the_sinks_are_told_of_every_packet_in_order_however_the_stream_is_cut(sent, piece):
    stream = b"".join(map(encode, sent))
    for size in (1, piece, len(stream)):
        sinks, protocol = connected()
        for at in range(0, len(stream), size):
            protocol.feed(stream[at : at + size])
        assert sinks.told == sent
        for forwarded, encoded in sinks.forwarded:
            assert forwarded == encoded


@given(st.binary(max_size=200))
def test_any_bytes_are_taken_or_malformed(data):
    _, protocol = connected()
    # The real sinks check topics, these decode them.
    with contextlib.suppress(MalformedPacket, UnicodeDecodeError):
        protocol.feed(data)


def test_nothing_is_looked_at_after_a_disconnect_mqtt_3_14_4_2():
    sinks, protocol = connected()
    protocol.feed(b"\xe0\x00\xff\xff\xff")
    protocol.feed(b"\xff")
    assert sinks.told == ["gone"]


def test_a_packet_beyond_the_limit_is_refused_when_its_length_is_known():
    _, protocol = connected()
    for byte in b"\x30\xa1\x8d":
        protocol.feed(bytes((byte,)))
    with pytest.raises(MalformedPacket, match="100001 bytes is beyond the limit"):
        protocol.feed(b"\x06")


def test_a_trickled_packet_costs_time_in_proportion_to_its_size():
    sinks = Sinks()
    protocol = Connected(sinks, sinks, sinks, 2_000_000)
    data = encode(Publish("t", b"x" * 1_000_000))
    for at in range(len(data)):  # half a second; copying what is held each time would take minutes
        protocol.feed(data[at : at + 1])
    assert len(sinks.told[0].payload) == 1_000_000
