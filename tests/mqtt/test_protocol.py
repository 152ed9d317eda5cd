"""The decode loop against the codec: the same packets at both levels, however the stream is cut."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_mqtt.codec.coding import encode
from gateway_mqtt.codec.packets import (
    PINGREQ,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    Ack,
    Auth,
    Connect,
    Disconnect,
    MalformedPacket,
    Publish,
    Signal,
    Subscribe,
    Subscription,
    Unsubscribe,
)
from gateway_mqtt.codec.properties import NO_PROPERTIES, Properties, decode_properties
from gateway_mqtt.codec.publishes import parts_of
from gateway_mqtt.protocol import Connected

LIMIT = 100_000
LEVELS = (3, 4, 5)


class Sinks:
    """All three sinks; they write down what they are told as packets."""

    maximum_qos = 2

    def __init__(self, level=4):
        self.level = level
        self.told = []
        self.forwarded = []
        self.runs = []
        self.welcome = True
        self.reads = 0

    def publish(self, topic, body, packet):
        self.told.append(Publish(topic.decode(), body))
        self.forwarded.append((packet, encode(self.told[-1], self.level)))

    def publish_run(self, topic, packets, count, longest):
        parts = parts_of(packets, len(topic) + (3 if self.level == 5 else 2))
        assert (len(parts), max(len(body) for _, body in parts)) == (count, longest)
        for packet, body in parts:
            self.publish(topic, body, packet)
        self.runs.append(count)
        return self.welcome

    def publish_confirmed(self, topic, body, packet_id, front):
        self.told.append(Publish(topic.decode(), body, 1, packet_id=int.from_bytes(packet_id, "big")))
        behind = packet_id + (b"\0" if self.level == 5 else b"") + body
        self.forwarded.append((front + behind, encode(self.told[-1], self.level)))

    def publish_other(self, head, topic, body, packet_id, properties):
        said = decode_properties(PUBLISH, properties)
        number = int.from_bytes(packet_id, "big")
        self.told.append(Publish(topic.decode(), body, head >> 1 & 3, bool(head & 1), bool(head & 8), number, said))

    def released(self, packet_id, code):
        self.told.append(Ack(PUBREL, packet_id, code))

    def fed(self):
        self.reads += 1

    def acknowledged(self, packet_id):
        self.told.append(Ack(PUBACK, packet_id))

    def acknowledged_with(self, packet_id, code):
        assert code
        self.told.append(Ack(PUBACK, packet_id, code))

    def received(self, packet_id, code):
        self.told.append(Ack(PUBREC, packet_id, code))

    def completed(self, packet_id, code):
        self.told.append(Ack(PUBCOMP, packet_id, code))

    def subscribe(self, packet):
        self.told.append(packet)

    unsubscribe = disconnect = authenticate = subscribe

    def ping(self):
        self.told.append(Signal(PINGREQ))


def connected(level=4):
    sinks = Sinks(level)
    return sinks, Connected(sinks, sinks, sinks, LIMIT, level)


identifiers = st.integers(1, 65_535)
bodies = st.binary(max_size=20) | st.integers(100, 400).map(lambda size: b"x" * size)
said = st.sampled_from(
    [
        NO_PROPERTIES,
        Properties(topic_alias=3),
        Properties(user=(("a", "1"), ("a", "2")), payload_format=0),
        Properties(content_type="x" * 200, message_expiry_s=7),
    ]
)


@st.composite
def publishes(draw, level):
    qos = draw(st.integers(0, 2))
    properties = draw(said) if level == 5 else NO_PROPERTIES
    topic = draw(st.sampled_from(["t", "a/b", "é" * 40] + ([""] if properties.topic_alias else [])))
    dup = bool(qos) and draw(st.booleans())
    return Publish(topic, draw(bodies), qos, draw(st.booleans()), dup, draw(identifiers) if qos else 0, properties)


@st.composite
def acks(draw, level):
    type_ = draw(st.sampled_from([PUBACK, PUBREC, PUBREL, PUBCOMP]))
    codes = [0] if level < 5 else [0, 0x92] if type_ in {PUBREL, PUBCOMP} else [0, 0x80, 0x97]
    said = Properties(reason_string="why") if level == 5 and draw(st.booleans()) else NO_PROPERTIES
    return Ack(type_, draw(identifiers), draw(st.sampled_from(codes)), said)


def packets(level):
    others = [
        st.just(Signal(PINGREQ)),
        st.builds(Subscribe, identifiers, st.just((Subscription("a/#", 1), Subscription("b", 0)))),
        st.builds(Unsubscribe, identifiers, st.just(("a", "b"))),
    ]
    if level == 5:
        others.append(st.builds(Auth, st.just(0x19), st.just(Properties(authentication_method="m", authentication_data=b"d"))))
    return st.one_of(publishes(level), acks(level), *others)


streams = st.sampled_from(LEVELS).flatmap(lambda level: st.tuples(st.just(level), st.lists(packets(level), min_size=1, max_size=8)))


def as_told(packet):
    return replace(packet, properties=NO_PROPERTIES) if isinstance(packet, Ack) else packet


@given(streams, st.integers(1, 9))
def test_the_sinks_are_told_of_every_packet_in_order_however_the_stream_is_cut(case, piece):
    level, sent = case
    encoded = [encode(packet, level) for packet in sent]
    stream = b"".join(encoded)
    for size in (1, piece, len(stream)):
        sinks, protocol = connected(level)
        whole = [protocol.feed(stream[at : at + size]) for at in range(0, len(stream), size)]
        assert sinks.told == [as_told(packet) for packet in sent]
        for forwarded, expected in sinks.forwarded:
            assert forwarded == expected
        ends = {sum(map(len, encoded[: n + 1])) for n in range(len(encoded))}
        for n, told in enumerate(whole):
            assert told == any(n * size < end <= (n + 1) * size for end in ends)


@given(st.sampled_from(LEVELS), st.binary(max_size=200))
def test_any_bytes_are_taken_or_malformed(level, data):
    _, protocol = connected(level)
    # The real sinks check topics and properties, these decode them.
    with contextlib.suppress(MalformedPacket, UnicodeDecodeError):
        protocol.feed(data)


@pytest.mark.parametrize("level", LEVELS)
def test_plain_publishes_go_the_short_way_and_everything_else_does_not(level):
    class Short(Sinks):
        def publish_other(self, head, topic, body, packet_id, properties):
            self.told.append("other")

    sinks = Short(level)
    protocol = Connected(sinks, sinks, sinks, LIMIT, level)
    plain = [Publish("t", b""), Publish("t", b"x" * 300), Publish("t", b"", 1, packet_id=1), Publish("t", b"x", 1, packet_id=2)]
    other = [Publish("t", b"", retain=True), Publish("t", b"", 1, dup=True, packet_id=1), Publish("t", b"", 2, packet_id=1)]
    if level == 5:
        other += [Publish("t", b"", properties=Properties(topic_alias=1)), Publish("", b"", 1, packet_id=1)]
        other += [Publish("", b"abc", properties=Properties(topic_alias=1))]
    for packet in plain + other:
        protocol.feed(encode(packet, level))
    assert sinks.told == plain + ["other"] * len(other)


@pytest.mark.parametrize("level", LEVELS)
def test_where_nothing_above_qos_0_is_taken_such_a_publish_has_no_short_way(level):
    class Low(Sinks):
        maximum_qos = 0

        def publish_other(self, head, topic, body, packet_id, properties):
            self.told.append((head, topic, body, packet_id, properties))

    sinks = Low(level)
    protocol = Connected(sinks, sinks, sinks, LIMIT, level)
    for packet in (Publish("t", b"x"), Publish("t", b"y", 1, packet_id=7)):
        protocol.feed(encode(packet, level))
    assert sinks.told == [Publish("t", b"x"), (0x32, b"t", b"y", b"\0\7", b"")]


@pytest.mark.parametrize("level", LEVELS)
def test_the_end_of_a_read_is_told_where_somebody_waits_for_it(level):
    sinks, protocol = connected(level)
    protocol.feed(encode(Publish("t", b"x"), level))
    assert sinks.reads == (level == 5)
    protocol.feed(encode(Ack(PUBREL, 1), level) + encode(Ack(PUBREL, 2), level))
    assert sinks.reads == (2 if level == 5 else 1)
    protocol.feed(encode(Publish("t", b"x"), level))
    assert sinks.reads == (3 if level == 5 else 1)


@pytest.mark.parametrize("level", LEVELS)
def test_nothing_is_looked_at_after_a_disconnect_mqtt_3_14_4_2(level):
    sinks, protocol = connected(level)
    assert protocol.feed(b"\xe0\x00\xff\xff\xff")
    assert not protocol.feed(b"\xff")
    assert sinks.told == [Disconnect()]


def test_a_disconnect_of_level_5_is_told_with_its_reason():
    sinks, protocol = connected(5)
    goodbye = Disconnect(4, Properties(session_expiry_s=7))
    protocol.feed(encode(goodbye, 5))
    assert sinks.told == [goodbye]


@pytest.mark.parametrize("level", LEVELS)
def test_a_second_connect_is_a_violation_mqtt_3_1_0_2(level):
    _, protocol = connected(level)
    with pytest.raises(MalformedPacket) as caught:
        protocol.feed(encode(Connect("c", level=level)))
    assert caught.value.code == 0x82


HEADS = [0x32, 0x34, 0x3A, 0x33, 0x50, 0x62, 0x70]


@pytest.mark.parametrize(("level", "head"), [(level, head) for level in LEVELS for head in HEADS] + [(5, 0x40)])
def test_packet_identifier_0_is_malformed_mqtt_2_3_1_1(level, head):
    _, protocol = connected(level)
    publish = head >> 4 == PUBLISH
    payload = (b"\0\1t" if publish else b"") + b"\0\0" + (b"\0" if publish and level == 5 else b"")
    if head == 0x40:
        payload += b"\x80\0"  # without it, it is for the sink to judge: that is the short way
    with pytest.raises(MalformedPacket, match="identifier 0"):
        protocol.feed(bytes((head, len(payload))) + payload)


@pytest.mark.parametrize("length", [b"\x80\0", b"\xff\xff\xff\xff", b"\x80\x80\x80\x80\1", b"\x05", b"\x80"])
def test_a_property_length_that_is_none_or_too_long_is_malformed_mqtt5_1_5_5_1(length):
    for qos, packet_id in ((0, b""), (1, b"\0\7"), (2, b"\0\7")):
        _, protocol = connected(5)
        payload = b"\0\1t" + packet_id + length
        with pytest.raises(MalformedPacket):
            protocol.feed(bytes((0x30 | qos << 1, len(payload))) + payload)


def test_a_packet_beyond_the_limit_is_refused_when_its_length_is_known_mqtt5_3_2_2_15():
    for level in LEVELS:
        _, protocol = connected(level)
        for byte in b"\x30\xa1\x8d":
            protocol.feed(bytes((byte,)))
        with pytest.raises(MalformedPacket, match="100001 bytes is beyond the limit") as caught:
            protocol.feed(b"\x06")
        assert caught.value.code == 0x95


def test_a_trickled_packet_costs_time_in_proportion_to_its_size():
    sinks = Sinks()
    protocol = Connected(sinks, sinks, sinks, 2_000_000)
    data = encode(Publish("t", b"x" * 1_000_000))
    for at in range(len(data)):  # half a second; copying what is held each time would take minutes
        protocol.feed(data[at : at + 1])
    assert len(sinks.told[0].payload) == 1_000_000


@pytest.mark.parametrize(("level", "standard"), [(4, "MQTT 3.1.1"), (5, "MQTT 5.0")])
@pytest.mark.parametrize("length", [b"\x80\x00", b"\xff\xff\xff\xff\x01"])
def test_a_remaining_length_that_is_none_is_malformed_by_the_standard_of_the_level(level, standard, length):
    _, protocol = connected(level)
    with pytest.raises(MalformedPacket) as caught:
        protocol.feed(b"\x30" + length + b"x" * 10)
    assert (caught.value.spec[: len(standard)], caught.value.code) == (standard, 0x81)


# -- runs ---------------------------------------------------------------------


rows = st.lists(
    st.tuples(st.sampled_from(["t", "tt", "a/b"]), st.sampled_from([0, 1, 2, 120, 121, 122, 123, 124, 125, 126, 127, 128, 16_380])),
    min_size=1,
    max_size=12,
)
BEHIND = [
    b"",
    b"\x30",
    b"\x30\x08\0\1t\0x",  # not complete
    b"\x30\xff",
    b"\x30\x80",
    b"\x30\x85\0\0\1t\0x",  # an idle digit
    b"\x30\x80\x80\x80\x80\1",
    b"\x30\xff\xff\xff\x7f",  # beyond the limit
    b"\x30\xf0\1\0\1t\0" + bytes(236),  # beyond a low one
    b"\x30\x03\0\x09t",
    b"\x30\x02\0\1t\0x",
    b"\x30\x03\0\1t\0x",
    b"\x30\x01\0\1t\0x",
    b"\x30\0\0\1t\0x",
    b"\x31\x05\0\1t\0x",
    b"\x38\x05\0\1t\0x",
    b"\x30\x08\0\1t\3\x23\0\1x",  # with a property, at level 5
    b"\xe0\0",
]


def outcome(level, pieces, limit=LIMIT):
    """Return what the sinks are told, why that ends, what is kept, and what is counted."""
    sinks = Sinks(level)
    protocol = Connected(sinks, sinks, sinks, limit, level)
    error = None
    for piece in pieces:
        try:
            protocol.feed(piece)
        except MalformedPacket as broken:
            error = (broken.reason, broken.spec, broken.code)
            break
    tally = protocol._tally
    return sinks, (sinks.told, sinks.forwarded, error, error or protocol.held_bytes, protocol.over, tally.others, tally.size)


@given(st.sampled_from(LEVELS), rows, st.sampled_from(BEHIND))
def test_packets_in_a_row_are_told_as_if_each_came_alone_whatever_comes_behind_them(level, row, tail):
    packets = [encode(Publish(topic, b"x" * size), level) for topic, size in row]
    assert outcome(level, [b"".join(packets) + tail])[1] == outcome(level, [*packets, tail])[1]


@pytest.mark.parametrize("tail", BEHIND)
@pytest.mark.parametrize("limit", [200, LIMIT])
@pytest.mark.parametrize("level", LEVELS)
def test_what_comes_behind_a_run_is_judged_as_ever(level, limit, tail):
    packets = [encode(Publish("t", b"x"), level)] * 4
    sinks, together = outcome(level, [b"".join(packets) + tail], limit)
    assert sinks.runs in ([3], [4])  # some of these are in order
    assert together == outcome(level, [*packets, tail], limit)[1]


@pytest.mark.parametrize("level", LEVELS)
def test_packets_on_one_topic_are_one_run_from_the_second_on_whatever_their_lengths_and_later_reads_are_one_at_once(level):
    read = b"".join(encode(Publish("t", b"x" * size), level) for size in (5, 5, 5, 6, 0, 300, 299, 5, 10_000))
    other = encode(Publish("u", b"x"), level)
    sinks, _ = outcome(level, [read, read, read[:-1], read[-1:] + other + read])
    assert sinks.runs == [8, 9, 8, 8]


@pytest.mark.parametrize("level", LEVELS)
def test_where_a_run_is_of_no_use_there_are_no_more_in_that_read(level):
    sinks, protocol = connected(level)
    sinks.welcome = False
    read = encode(Publish("t", b"x"), level) * 4 + encode(Publish("u", b"x"), level) * 4
    for _ in range(2):
        protocol.feed(read)
    assert (sinks.runs, len(sinks.told)) == ([3, 3], 16)


@pytest.mark.parametrize("level", LEVELS)
def test_what_is_not_alike_is_no_run(level):
    plain = encode(Publish("t", b"x"), level)
    others = [
        encode(Publish("T", b"x"), level),
        encode(Publish("tt", b"x"), level),
        encode(Publish("t", b"x", retain=True), level),
        encode(Publish("t", b"x", 1, packet_id=1), level),
        encode(Ack(PUBACK, 1), level),
        encode(Signal(PINGREQ), level),
    ]
    if level == 5:
        others.append(encode(Publish("t", b"x", properties=Properties(topic_alias=1)), 5))
        others.append(encode(Publish("", b"x", properties=Properties(topic_alias=1)), 5))
    for other in others:
        sinks, (told, *_) = outcome(level, [plain + other + plain + other + plain])
        assert (sinks.runs, len(told)) == ([], 5)
