"""Input that the standards forbid ends that connection, with the right answer; at both levels."""

from __future__ import annotations

import pytest

from gateway_mqtt.codec.encoding import encode
from gateway_mqtt.codec.packets import Connect, Publish, Subscribe, Subscription, Will
from tests.mqtt.conformance.support import PING, frame, length, name, no_properties, own_broker, text

BAD = 0x81
WRONG = 0x82
EITHER = frozenset({BAD, WRONG})
"""Where the standard leaves it open whether it is malformed or a protocol error."""
NAME = frozenset({0x90})
FILTER = frozenset({BAD, WRONG, 0x8F})


def publish(level, topic, head=0x30, tail=b"x", properties=b""):
    given = length(len(properties)) + properties if level == 5 else b""
    return frame(head, text(topic), b"" if head & 6 == 0 else tail[:2], given, tail if head & 6 == 0 else tail[2:])


def subscribe(level, pattern, head=0x82, packet_id=b"\0\1", options=b"\0", properties=b""):
    given = length(len(properties)) + properties if level == 5 else b""
    return frame(head, packet_id, given, text(pattern), options)


def unsubscribe(level, pattern, head=0xA2, packet_id=b"\0\1"):
    return frame(head, packet_id, no_properties(level), text(pattern))


def second_connect(level):
    return encode(Connect("again", level=level), level)


# What is sent -> the codes of which one must be in the DISCONNECT of MQTT 5.
BOTH = {
    "a second CONNECT [MQTT-3.1.0-2] [MQTT5-3.1.0-2]": (second_connect, WRONG),
    "flags of PUBACK [MQTT-2.2.2-2] [MQTT5-2.1.3-1]": (lambda _: b"\x42\x02\0\1", BAD),
    "flags of PUBREC [MQTT-2.2.2-2] [MQTT5-2.1.3-1]": (lambda _: b"\x52\x02\0\1", BAD),
    "flags of PUBREL [MQTT-3.6.1-1] [MQTT5-3.6.1-1]": (lambda _: b"\x60\x02\0\1", BAD),
    "flags of PUBCOMP [MQTT-2.2.2-2] [MQTT5-2.1.3-1]": (lambda _: b"\x72\x02\0\1", BAD),
    "flags of SUBSCRIBE [MQTT-3.8.1-1] [MQTT5-3.8.1-1]": (lambda level: subscribe(level, b"a", head=0x80), BAD),
    "flags of UNSUBSCRIBE [MQTT-3.10.1-1] [MQTT5-3.10.1-1]": (lambda level: unsubscribe(level, b"a", head=0xA0), BAD),
    "flags of PINGREQ [MQTT-2.2.2-2] [MQTT5-2.1.3-1]": (lambda _: b"\xc1\0", BAD),
    "flags of DISCONNECT [MQTT-3.14.1-1] [MQTT5-3.14.1-1]": (lambda _: b"\xe1\0", BAD),
    "QoS 3 [MQTT-3.3.1-4] [MQTT5-3.3.1-4]": (lambda level: publish(level, b"a", 0x36, b"\0\1x"), BAD),
    "QoS 3 and RETAIN and DUP [MQTT-3.3.1-4] [MQTT5-3.3.1-4]": (lambda level: publish(level, b"a", 0x3F, b"\0\1x"), BAD),
    "DUP at QoS 0 [MQTT-3.3.1-2] [MQTT5-3.3.1-2]": (lambda level: publish(level, b"a", 0x38), EITHER),
    "identifier 0 at QoS 1 [MQTT-2.3.1-1] [MQTT5-2.2.1-3]": (lambda level: publish(level, b"a", 0x32, b"\0\0x"), WRONG),
    "identifier 0 at QoS 2 [MQTT-2.3.1-1] [MQTT5-2.2.1-3]": (lambda level: publish(level, b"a", 0x34, b"\0\0x"), WRONG),
    "identifier 0 in SUBSCRIBE [MQTT-2.3.1-1] [MQTT5-2.2.1-3]": (lambda level: subscribe(level, b"a", packet_id=b"\0\0"), EITHER),
    "identifier 0 in UNSUBSCRIBE [MQTT-2.3.1-1] [MQTT5-2.2.1-3]": (
        lambda level: unsubscribe(level, b"a", packet_id=b"\0\0"),
        EITHER,
    ),
    "U+0000 in a topic [MQTT-1.5.3-2] [MQTT5-1.5.4-2] [MQTT-4.7.3-2] [MQTT5-4.7.3-2]": (lambda level: publish(level, b"a\0b"), BAD),
    "U+0000 in a filter [MQTT-1.5.3-2] [MQTT5-1.5.4-2] [MQTT-4.7.3-2] [MQTT5-4.7.3-2]": (
        lambda level: subscribe(level, b"a\0b"),
        BAD,
    ),
    "a topic that is not UTF-8 [MQTT-1.5.3-1] [MQTT5-1.5.4-1] [MQTT-3.3.2-1] [MQTT5-3.3.2-1]": (
        lambda level: publish(level, b"a\xff"),
        BAD,
    ),
    "overlong UTF-8 [MQTT-1.5.3-1] [MQTT5-1.5.4-1]": (lambda level: publish(level, b"\xc0\xaf"), BAD),
    "a surrogate [MQTT-1.5.3-1] [MQTT5-1.5.4-1]": (lambda level: publish(level, b"\xed\xa0\x80"), BAD),
    "a filter that is not UTF-8 [MQTT-3.8.3-1] [MQTT5-3.8.3-1]": (lambda level: subscribe(level, b"a\xff"), BAD),
    "a filter to leave that is not UTF-8 [MQTT-3.10.3-1] [MQTT5-3.10.3-1]": (lambda level: unsubscribe(level, b"a\xff"), BAD),
    "'+' in a topic [MQTT-3.3.2-2] [MQTT5-3.3.2-2] [MQTT-4.7.1-1] [MQTT5-4.7.0-1]": (lambda level: publish(level, b"a/+"), WRONG),
    "'#' in a topic [MQTT-3.3.2-2] [MQTT5-3.3.2-2] [MQTT-4.7.1-1] [MQTT5-4.7.0-1]": (
        lambda level: publish(level, b"#", 0x32, b"\0\1x"),
        WRONG,
    ),
    "an empty topic [MQTT-4.7.3-1] [MQTT5-4.7.3-1]": (lambda level: publish(level, b""), WRONG),
    "reserved bits beside a filter [MQTT-3.8.3-4] [MQTT5-3.8.3-5]": (lambda level: subscribe(level, b"a", options=b"\xc0"), BAD),
    "QoS 3 beside a filter [MQTT-3.8.3-4]": (lambda level: subscribe(level, b"a", options=b"\3"), EITHER),
    "a SUBSCRIBE of nothing [MQTT-3.8.3-3] [MQTT5-3.8.3-2]": (lambda level: frame(0x82, b"\0\1", no_properties(level)), WRONG),
    "an UNSUBSCRIBE of nothing [MQTT-3.10.3-2] [MQTT5-3.10.3-2]": (
        lambda level: frame(0xA2, b"\0\1", no_properties(level)),
        WRONG,
    ),
    "a SUBSCRIBE cut before the QoS [MQTT-4.8.0-1] [MQTT5-4.13.1-1]": (lambda level: subscribe(level, b"a", options=b""), BAD),
    "PINGREQ with a body [MQTT-4.8.0-1] [MQTT5-4.13.1-1]": (lambda _: b"\xc0\x01\0", BAD),
    "a topic longer than its packet [MQTT-4.8.0-1] [MQTT5-4.13.1-1]": (lambda _: b"\x30\x05\0\x09abc", BAD),
    "a PUBLISH of nothing [MQTT-4.8.0-1] [MQTT5-4.13.1-1]": (lambda _: b"\x30\0", BAD),
    "a PUBACK without an identifier [MQTT-4.8.0-1] [MQTT5-4.13.1-1]": (lambda _: b"\x40\0", BAD),
    "a remaining length of five bytes [MQTT-4.8.0-1] [MQTT5-1.5.5-1]": (lambda _: b"\x30\xff\xff\xff\xff\1", BAD),
    "a remaining length with idle digits [MQTT-4.8.0-1] [MQTT5-1.5.5-1]": (lambda _: b"\xc0\x80\0", BAD),
    "a packet beyond the limit [MQTT-4.8.0-1] [MQTT5-3.2.2-15]": (lambda _: b"\x30\xff\xff\xff\x7f", 0x95),
    "packet type 0 [MQTT-4.8.0-1] [MQTT5-4.13.1-1]": (lambda _: b"\0\0", BAD),
    "a CONNACK from a client [MQTT-4.8.0-1] [MQTT5-4.13.1-1]": (lambda level: frame(0x20, b"\0\0", no_properties(level)), EITHER),
    "a SUBACK from a client [MQTT-4.8.0-1] [MQTT5-4.13.1-1]": (
        lambda level: frame(0x90, b"\0\1", no_properties(level), b"\0"),
        EITHER,
    ),
    "a PINGRESP from a client [MQTT-4.8.0-1] [MQTT5-4.13.1-1]": (lambda _: b"\xd0\0", EITHER),
    "AUTH of a client that named no method [MQTT-4.8.0-1] [MQTT5-4.12.0-7]": (lambda _: b"\xf0\0", WRONG),
    "too many levels": (lambda level: publish(level, b"/".join([b"a"] * 201)), NAME),
}

SEVERAL = b"\x26" + text(b"a") + text(b"b")
ONLY_5 = {
    "flags of AUTH [MQTT5-3.15.1-1]": (b"\xf1\0", BAD),
    "DISCONNECT with bytes behind it [MQTT5-4.13.1-1]": (b"\xe0\3\0\0\0", BAD),
    "PUBACK with bytes behind it [MQTT5-4.13.1-1]": (b"\x40\5\0\1\0\0\0", BAD),
    "PUBACK with a reason that is none of its own [MQTT5-3.4.2-1]": (b"\x40\3\0\1\1", EITHER),
    "PUBREC with a reason that is none of its own [MQTT5-3.5.2-1]": (b"\x50\3\0\1\1", EITHER),
    "PUBREL with a reason that is none of its own [MQTT5-3.6.2-1]": (b"\x62\3\0\1\x80", EITHER),
    "PUBCOMP with a reason that is none of its own [MQTT5-3.7.2-1]": (b"\x70\3\0\1\x80", EITHER),
    "DISCONNECT with a reason that is none of its own [MQTT5-3.14.2-1]": (b"\xe0\1\1", EITHER),
    "AUTH with a reason that is none of its own [MQTT5-3.15.2-1]": (b"\xf0\1\1", EITHER),
    "an unknown property [MQTT5-4.13.1-1]": (publish(5, b"a", properties=b"\x77\1"), BAD),
    "a property of another packet [MQTT5-4.13.1-1]": (publish(5, b"a", properties=b"\x11\0\0\0\1"), BAD),
    "a property cut off [MQTT5-4.13.1-1]": (publish(5, b"a", properties=b"\2\0\0"), BAD),
    "properties longer than the packet [MQTT5-4.13.1-1]": (frame(0x30, text(b"a"), b"\x09", b"\1\1"), BAD),
    "a property length with idle digits [MQTT5-1.5.5-1]": (frame(0x30, text(b"a"), b"\x80\0"), BAD),
    "a property length of five bytes [MQTT5-1.5.5-1]": (frame(0x30, text(b"a"), b"\xff\xff\xff\xff\1"), BAD),
    "a doubled payload format [MQTT5-4.13.1-1]": (publish(5, b"a", properties=b"\1\1\1\1"), WRONG),
    "a doubled message expiry [MQTT5-4.13.1-1]": (publish(5, b"a", properties=b"\2\0\0\0\1" * 2), WRONG),
    "a doubled topic alias [MQTT5-4.13.1-1]": (publish(5, b"a", properties=b"\x23\0\1" * 2), WRONG),
    "a doubled content type [MQTT5-4.13.1-1]": (publish(5, b"a", properties=(b"\3" + text(b"x")) * 2), WRONG),
    "a doubled response topic [MQTT5-4.13.1-1]": (publish(5, b"a", properties=(b"\x08" + text(b"x")) * 2), WRONG),
    "a doubled correlation [MQTT5-4.13.1-1]": (publish(5, b"a", properties=(b"\x09" + text(b"x")) * 2), WRONG),
    "a payload format of 2 [MQTT5-4.13.1-1]": (publish(5, b"a", properties=b"\1\2"), EITHER),
    "a topic alias of 0 [MQTT5-3.3.2-8]": (publish(5, b"a", properties=b"\x23\0\0"), 0x94),
    "a topic alias above the maximum [MQTT5-3.3.2-9] [MQTT5-3.2.2-17]": (publish(5, b"a", properties=b"\x23\xff\xff"), 0x94),
    "a topic alias that means nothing [MQTT5-3.3.2-12]": (publish(5, b"", properties=b"\x23\0\7"), WRONG),
    "a response topic with a wildcard [MQTT5-3.3.2-14]": (publish(5, b"a", properties=b"\x08" + text(b"a/+")), WRONG),
    "a response topic that is not UTF-8 [MQTT5-3.3.2-13]": (publish(5, b"a", properties=b"\x08" + text(b"\xff")), BAD),
    "a content type that is not UTF-8 [MQTT5-3.3.2-19]": (publish(5, b"a", properties=b"\x03" + text(b"\xff")), BAD),
    "a subscription identifier from a client [MQTT5-3.3.4-6]": (publish(5, b"a", properties=b"\x0b\1"), WRONG),
    "a subscription identifier of 0 [MQTT5-4.13.1-1]": (subscribe(5, b"a", properties=b"\x0b\0"), WRONG),
    "two subscription identifiers [MQTT5-4.13.1-1]": (subscribe(5, b"a", properties=b"\x0b\1\x0b\2"), WRONG),
    "a subscription identifier of five bytes [MQTT5-1.5.5-1]": (subscribe(5, b"a", properties=b"\x0b\xff\xff\xff\xff\1"), BAD),
    "QoS 3 beside a filter [MQTT5-3.8.3-5]": (subscribe(5, b"a", options=b"\3"), EITHER),
    "retain handling 3 [MQTT5-3.8.3-5]": (subscribe(5, b"a", options=b"\x30"), EITHER),
    "no local on a shared subscription [MQTT5-3.8.3-4]": (subscribe(5, b"$share/g/a", options=b"\4"), WRONG),
    "a session expiry where there was none [MQTT5-3.14.2-1]": (b"\xe0\7\0\5\x11\0\0\0\1", WRONG),
    "a reason string in SUBSCRIBE [MQTT5-4.13.1-1]": (subscribe(5, b"a", properties=b"\x1f" + text(b"x")), BAD),
    "a PUBACK property cut off [MQTT5-4.13.1-1]": (b"\x40\5\0\1\0\1\x1f", BAD),
}


async def refused(place, bad, codes):
    """Send it, with a PINGREQ that must not be answered; the will tells that it is no goodbye."""
    topic = name("lost")
    watcher = await place.subscriber(topic)
    client = await place.client(will=Will(topic, b"lost"))
    await client.send(bad, PING)
    code = await client.ended()
    if place.level == 5:
        assert code in (codes if isinstance(codes, frozenset) else {codes}), code
    assert (await watcher.message()).payload == b"lost"


@pytest.mark.parametrize("case", list(BOTH))
async def test_both_levels_end_the_connection_for(any_level, case):
    make, codes = BOTH[case]
    await refused(any_level, make(any_level.level), codes)


@pytest.mark.parametrize("case", list(ONLY_5))
async def test_mqtt5_4_13_2_1_the_connection_ends_with_a_disconnect_for(v5, case):
    """[MQTT5-3.14.4-1] [MQTT5-3.14.4-2]"""
    bad, codes = ONLY_5[case]
    await refused(v5, bad, codes)


FILTERS = {
    "'#' that is not the last [MQTT-4.7.1-2] [MQTT5-4.7.1-1]": b"a/#/b",
    "'#' beside other characters [MQTT-4.7.1-2] [MQTT5-4.7.1-1]": b"a/b#",
    "'##' [MQTT-4.7.1-2] [MQTT5-4.7.1-1]": b"##",
    "'+' beside other characters [MQTT-4.7.1-3] [MQTT5-4.7.1-2]": b"a/b+/c",
    "an empty filter [MQTT-4.7.3-1] [MQTT5-4.7.3-1]": b"",
}
SHARED = {
    "no filter [MQTT5-4.8.2-2]": b"$share/g",
    "an empty filter [MQTT5-4.8.2-2]": b"$share/g/",
    "no name [MQTT5-4.8.2-1]": b"$share//a",
    "nothing [MQTT5-4.8.2-1]": b"$share/",
    "'+' in the name [MQTT5-4.8.2-2]": b"$share/g+/a",
    "'#' in the name [MQTT5-4.8.2-2]": b"$share/#/a",
    "a bad filter [MQTT5-4.8.2-2]": b"$share/g/a/#/b",
}


async def refused_filter(place, pattern):
    client = await place.client()
    await client.send(subscribe(place.level, pattern))
    code = await client.ended()
    if place.level == 5:
        assert code in FILTER, code


@pytest.mark.parametrize("case", list(FILTERS))
async def test_both_levels_take_no_filter_with(any_level, case):
    await refused_filter(any_level, FILTERS[case])


@pytest.mark.parametrize("case", list(SHARED))
async def test_mqtt5_4_8_2_1_mqtt5_4_8_2_2_no_shared_subscription_with(v5, case):
    await refused_filter(v5, SHARED[case])


async def test_mqtt_4_7_3_3_mqtt5_4_7_3_3_a_topic_of_65535_bytes_is_one_if_the_limits_allow(any_level):
    longest = "x" * 65_535
    async with own_broker(any_level.level, max_topic_bytes=65_535) as place:
        watcher = await place.subscriber(longest)
        publisher = await place.client()
        await publisher.publish(longest, b"x", 1)
        assert (await watcher.message()).topic == longest


def connect(level, flags=2, *, protocol=b"MQTT", version=None, payload=b"\0\1c", head=0x10, properties=b""):
    given = length(len(properties)) + properties if level == 5 else b""
    return frame(head, text(protocol), bytes((level if version is None else version, flags)), b"\0\0", given, payload)


def with_will(level, topic, tail=b""):
    return text(b"c") + no_properties(level) + text(topic) + text(b"p") + tail


# What is sent first -> the codes of which one may be in the CONNACK of MQTT 5; there may be none.
FIRST = {
    "PUBLISH [MQTT-3.1.0-1] [MQTT5-3.1.0-1]": (lambda level: publish(level, b"a"), None),
    "PINGREQ [MQTT-3.1.0-1] [MQTT5-3.1.0-1]": (lambda _: PING, None),
    "a CONNECT with flags [MQTT-2.2.2-2] [MQTT5-2.1.3-1]": (lambda level: connect(level, head=0x11), EITHER),
    "another protocol [MQTT-3.1.2-1] [MQTT5-3.1.2-1]": (lambda level: connect(level, protocol=b"MQTX"), {0x84, *EITHER}),
    "the reserved flag [MQTT-3.1.2-3] [MQTT5-3.1.2-3] [MQTT-3.1.4-1] [MQTT5-3.1.4-1]": (lambda level: connect(level, 3), EITHER),
    "a will QoS without a will [MQTT-3.1.2-13] [MQTT5-3.1.2-11] [MQTT-3.1.2-11]": (lambda level: connect(level, 0x0A), EITHER),
    "a will retain without a will [MQTT-3.1.2-15] [MQTT5-3.1.2-13] [MQTT-3.1.2-11]": (lambda level: connect(level, 0x22), EITHER),
    "will QoS 3 [MQTT-3.1.2-14] [MQTT5-3.1.2-12]": (
        lambda level: connect(level, 0x1E, payload=with_will(level, b"t")),
        {*EITHER, 0x9B},
    ),
    "no client identifier [MQTT-3.1.3-3] [MQTT5-3.1.3-3] [MQTT-3.1.3-1] [MQTT5-3.1.3-1]": (
        lambda level: connect(level, payload=b""),
        {BAD},
    ),
    "a client identifier that is not UTF-8 [MQTT-3.1.3-4] [MQTT5-3.1.3-4]": (
        lambda level: connect(level, payload=text(b"\xff")),
        {BAD, 0x85},
    ),
    "no will where the flag says so [MQTT-3.1.2-9] [MQTT5-3.1.2-9]": (lambda level: connect(level, 6), {BAD}),
    "a will topic with a wildcard [MQTT-4.7.1-1] [MQTT5-4.7.0-1]": (
        lambda level: connect(level, 6, payload=with_will(level, b"#")),
        EITHER,
    ),
    "a will topic that is not UTF-8 [MQTT-3.1.3-10] [MQTT5-3.1.3-11]": (
        lambda level: connect(level, 6, payload=with_will(level, b"\xff")),
        {BAD},
    ),
    "a will topic of too many levels [MQTT-3.2.2-6]": (lambda level: connect(level, 6, payload=with_will(level, b"/" * 300)), NAME),
    "a user that is not UTF-8 [MQTT-3.1.3-11] [MQTT5-3.1.3-12]": (
        lambda level: connect(level, 0x82, payload=text(b"c") + text(b"\xff")),
        {BAD},
    ),
    "no user where the flag says so [MQTT-3.1.2-19] [MQTT5-3.1.2-17]": (lambda level: connect(level, 0x82), {BAD}),
    "a user where the flag says none [MQTT-3.1.2-18] [MQTT5-3.1.2-16]": (
        lambda level: connect(level, payload=text(b"c") + text(b"u")),
        {BAD},
    ),
    "no password where the flag says so [MQTT-3.1.2-21] [MQTT5-3.1.2-19]": (
        lambda level: connect(level, 0xC2, payload=text(b"c") + text(b"u")),
        {BAD},
    ),
    "a password where the flag says none [MQTT-3.1.2-20] [MQTT5-3.1.2-18]": (
        lambda level: connect(level, 0x82, payload=text(b"c") + text(b"u") + text(b"p")),
        {BAD},
    ),
}
FIRST_5 = {
    "an unknown property [MQTT5-3.1.4-1]": (connect(5, properties=b"\x77\1"), {BAD}),
    "a doubled session expiry [MQTT5-3.1.4-1]": (connect(5, properties=b"\x11\0\0\0\1" * 2), {WRONG}),
    "a receive maximum of 0 [MQTT5-4.9.0-1]": (connect(5, properties=b"\x21\0\0"), {WRONG}),
    "a maximum packet size of 0 [MQTT5-3.1.4-1]": (connect(5, properties=b"\x27\0\0\0\0"), {WRONG}),
    "request problem information 2 [MQTT5-3.1.4-1]": (connect(5, properties=b"\x17\2"), EITHER),
    "request response information 2 [MQTT5-3.1.4-1]": (connect(5, properties=b"\x19\2"), EITHER),
    "authentication data without a method [MQTT5-3.1.4-1]": (connect(5, properties=b"\x16" + text(b"x")), {WRONG}),
    "a property of the will in the CONNECT [MQTT5-3.1.4-1]": (connect(5, properties=b"\x18\0\0\0\1"), {BAD}),
    "a property cut off [MQTT5-3.1.4-1]": (connect(5, properties=b"\x11\0"), {BAD}),
    "an unknown version [MQTT5-3.1.2-2]": (connect(5, version=6), {0x84, 1}),
}


async def turned_away(place, first, codes):
    """Send it; nothing but a refusing CONNACK may come back, and what follows is not processed."""
    client = await place.open()
    await client.send(first, PING)
    answer = await client.raw()
    if answer is not None:
        head, payload = answer
        assert head == 0x20
        assert place.level == 5, "[MQTT-3.1.4-1]: no CONNACK"
        assert payload[0] == 0  # [MQTT5-3.2.2-1] [MQTT5-3.2.2-6]
        assert codes is not None
        assert payload[1] in codes, payload[1]
        assert await client.raw() is None  # [MQTT5-3.2.2-7] [MQTT5-3.14.0-1]


@pytest.mark.parametrize("case", list(FIRST))
async def test_mqtt_3_1_4_1_mqtt5_3_1_4_1_a_newcomer_is_turned_away_for(any_level, case):
    make, codes = FIRST[case]
    await turned_away(any_level, make(any_level.level), codes)


@pytest.mark.parametrize("case", list(FIRST_5))
async def test_mqtt5_3_2_2_8_a_newcomer_is_turned_away_for(v5, case):
    first, codes = FIRST_5[case]
    await turned_away(v5, first, codes)


async def test_mqtt_3_1_2_22_a_password_needs_a_user_before_mqtt_5(v3, v5):
    client = await v3.open()
    await client.send(connect(4, 0x42, payload=text(b"c") + text(b"p")))
    assert await client.raw() is None
    client = await v5.open()
    await client.send(connect(5, 0x42, payload=text(name("c").encode()) + text(b"p")))
    assert (await client.next()).code in {0, 0x86, 0x87}


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_mqtt5_3_3_2_4_a_payload_that_is_no_text_as_it_says_is_refused(v5, qos):
    client = await v5.client()
    bad = publish(5, name("t").encode(), 0x30 | qos << 1, b"\0\1\xff" if qos else b"\xff", b"\1\1")
    await client.send(bad)
    if qos:
        answer = await client.next()
        assert (answer.packet_id, answer.code) == (1, 0x99)
        await client.quiet()
    else:
        assert await client.ended() == 0x99


async def test_mqtt_4_8_0_1_mqtt5_4_13_1_1_what_went_before_the_bad_packet_is_delivered_and_nothing_after_it(any_level):
    topic = name("t")
    watcher = await any_level.subscriber(topic, 1)
    client = await any_level.client()
    await client.send(Publish(topic, b"before"), b"\xc1\0", Publish(topic, b"after"))
    await client.ended()
    assert await watcher.messages(1) == [b"before"]
    await watcher.quiet()


async def test_mqtt_4_8_0_1_mqtt5_4_13_2_1_other_clients_go_on(any_level):
    topic = name("t")
    other = await any_level.client()
    await other.send(Subscribe(1, (Subscription(topic, 0),)))
    bad = await any_level.client()
    await bad.send(b"\0\0")
    await bad.ended()
    assert (await other.next()).codes == b"\0"
    await other.quiet()
