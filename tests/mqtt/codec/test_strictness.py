"""What breaks MQTT is refused, with the statement that it breaks and the reason code that MQTT 5 has for it."""

from __future__ import annotations

import pytest

from gateway_mqtt.codec.coding import decode, is_utf8, split_share, topic_filter
from gateway_mqtt.codec.names import CLIENT, EITHER, NAMES, SERVER, MalformedPacket
from gateway_mqtt.codec.packets import Connect
from gateway_mqtt.codec.reasons import BY_CLIENT, BY_SERVER, TEXTS, may_carry


def refusal(raw, level=4, sender=EITHER):
    with pytest.raises(MalformedPacket) as caught:
        decode(raw[0], raw[2:], level, sender)
    return caught.value


def said(head, payload):
    return bytes((head, len(payload))) + payload


def connect(flags, rest=b"", level=4, properties=b"\0"):
    return said(0x10, b"\0\4MQTT" + bytes((level, flags)) + b"\0\0" + (properties if level == 5 else b"") + b"\0\1a" + rest)


def publish(properties, head=0x30, rest=b""):
    return said(head, b"\0\1t" + (b"\0\7" if head & 6 else b"") + bytes((len(properties),)) + properties + rest)


def subscribe(pattern, options=0, properties=b""):
    return said(
        0x82, b"\0\1" + bytes((len(properties),)) + properties + len(pattern).to_bytes(2, "big") + pattern + bytes((options,))
    )


BOTH = {
    "a reserved type": (b"\x00\x00", "§2.2.1", "§2.1.2", 0x81),
    "reserved bits of CONNECT": (b"\x11\x00", "2.2.2-2", "2.1.3-1", 0x81),
    "reserved bits of PUBACK": (b"\x42\x02\0\1", "2.2.2-2", "2.1.3-1", 0x81),
    "reserved bits of PUBREL": (b"\x60\x02\0\1", "3.6.1-1", "3.6.1-1", 0x81),
    "reserved bits of SUBSCRIBE": (b"\x80\x00", "3.8.1-1", "3.8.1-1", 0x81),
    "reserved bits of UNSUBSCRIBE": (b"\xa0\x00", "3.10.1-1", "3.10.1-1", 0x81),
    "reserved bits of PINGREQ": (b"\xc1\x00", "2.2.2-2", "2.1.3-1", 0x81),
    "reserved bits of DISCONNECT": (b"\xe1\x00", "3.14.1-1", "3.14.1-1", 0x81),
    "QoS 3": (b"\x36\x06\0\1t\0\1\0", "3.3.1-4", "3.3.1-4", 0x81),
    "DUP with QoS 0": (b"\x38\x04\0\1t\0", "3.3.1-2", "3.3.1-2", 0x81),
    "PUBLISH with packet identifier 0": (b"\x32\x06\0\1t\0\0\0", "2.3.1-1", "2.2.1-3", 0x82),
    "PUBACK with packet identifier 0": (b"\x40\x02\0\0", "2.3.1-1", "2.2.1-3", 0x81),
    "SUBSCRIBE with packet identifier 0": (b"\x82\x06\0\0\0\0\1a", "2.3.1-1", "2.2.1-3", 0x81),
    "UNSUBSCRIBE with packet identifier 0": (b"\xa2\x06\0\0\0\0\1a", "2.3.1-1", "2.2.1-3", 0x81),
    "U+0000 in a topic name": (b"\x30\x05\0\2t\0\0", "1.5.3-2", "1.5.4-2", 0x81),
    "an ill-formed topic name": (b"\x30\x05\0\2t\xff\0", "1.5.3-1", "1.5.4-1", 0x81),
    "an overlong form in a topic name": (b"\x30\x05\0\2\xc0\x80\0", "1.5.3-1", "1.5.4-1", 0x81),
    "a surrogate in a topic name": (b"\x30\x06\0\3\xed\xa0\x80\0", "1.5.3-1", "1.5.4-1", 0x81),
    "a pair of surrogates in a topic name": (b"\x30\x09\0\6\xed\xa0\xbd\xed\xb8\x80\0", "1.5.3-1", "1.5.4-1", 0x81),
    "beyond U+10FFFF in a topic name": (b"\x30\x07\0\4\xf4\x90\x80\x80\0", "1.5.3-1", "1.5.4-1", 0x81),
    "a # in a topic name": (b"\x30\x04\0\1#\0", "3.3.2-2", "3.3.2-2", 0x82),
    "a + in a topic name": (b"\x30\x05\0\2a+\0", "3.3.2-2", "3.3.2-2", 0x82),
    "a PUBLISH without a topic": (b"\x30\x01\0", "4.8.0-1", "4.13.1-1", 0x81),
    "a topic beyond the PUBLISH": (b"\x30\x03\0\5t", "4.8.0-1", "4.13.1-1", 0x81),
    "PINGREQ with a body": (b"\xc0\x01\0", "4.8.0-1", "4.13.1-1", 0x81),
    "PINGRESP with a body": (b"\xd0\x01\0", "4.8.0-1", "4.13.1-1", 0x81),
    "PUBACK of one byte": (b"\x40\x01\0", "4.8.0-1", "4.13.1-1", 0x81),
    "an unknown flag in CONNACK": (b"\x20\x03\2\0\0", "§3.2.2.1", "3.2.2-1", 0x81),
    "CONNECT of another protocol": (said(0x10, b"\0\4MQTX\5\2\0\0\0\0\1a"), "3.1.2-1", "3.1.2-1", 0x84),
}


@pytest.mark.parametrize("case", BOTH)
def test_both_versions_refuse(case):
    raw, tag, tag5, code = BOTH[case]
    error = refusal(raw, 4)
    assert tag in error.spec
    assert error.spec.startswith("MQTT 3.1.1")
    assert error.code == code
    error = refusal(raw, 5)
    assert error.code == code
    if raw[0] != 0x10:
        assert tag5 in error.spec
        assert error.spec.startswith("MQTT 5.0")


CONNECTS = {
    "its reserved flag": (3, b"", "3.1.2-3", "3.1.2-3"),
    "a will QoS and no will": (0x0A, b"", "3.1.2-13", "3.1.2-11"),
    "will retain and no will": (0x22, b"", "3.1.2-15", "3.1.2-13"),
    "will QoS 3": (0x1E, b"\0\0\1w\0\0", "3.1.2-14", "3.1.2-12"),
    "no client identifier that is UTF-8": (2, None, "1.5.3-1", "1.5.4-1"),
    "a user name that is missing": (0x82, b"", "4.8.0-1", "4.13.1-1"),
    "a password that is missing": (0xC2, b"\0\1u", "4.8.0-1", "4.13.1-1"),
    "a user name with U+0000": (0x82, b"\0\1\0", "1.5.3-2", "1.5.4-2"),
    "bytes behind": (2, b"x", "4.8.0-1", "4.13.1-1"),
}


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize("case", CONNECTS)
def test_both_versions_refuse_a_connect_with(case, level):
    flags, rest, *tags = CONNECTS[case]
    raw = connect(flags, rest or b"", level)
    if rest is None:
        raw = raw[:-1] + b"\xff"
    error = refusal(raw, level)
    assert tags[level - 4] in error.spec
    assert error.code == 0x81


@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize(("topic", "spec"), [(b"", "4.7.3-1"), (b"a/#", "3.3.2-2"), (b"\xff", "1.5")])
def test_a_will_topic_is_a_topic_name(topic, spec, level):
    properties = b"\0" if level == 5 else b""
    assert spec in refusal(connect(6, properties + bytes((0, len(topic))) + topic + b"\0\0", level), level).spec


def test_a_password_without_a_user_name_is_of_mqtt_5_only_mqtt_3_1_2_22():
    assert "[MQTT-3.1.2-22]" in refusal(connect(0x42, b"\0\1p"), 4).spec
    raw = connect(0x42, b"\0\1p", 5)
    assert decode(raw[0], raw[2:], 5) == Connect("a", keep_alive_s=0, password=b"p", level=5)


ONLY_3 = {
    "AUTH": (b"\xf0\x00", "§2.2.1"),
    "an empty topic name": (b"\x30\x02\0\0", "4.7.3-1"),
    "PUBACK with a reason code": (b"\x40\x03\0\1\0", "4.8.0-1"),
    "DISCONNECT with a reason code": (b"\xe0\x01\0", "4.8.0-1"),
    "SUBSCRIBE without a filter": (b"\x82\x02\0\1", "3.8.3-3"),
    "SUBSCRIBE with QoS 3": (b"\x82\x06\0\1\0\1a\3", "3.8.3-4"),
    "SUBSCRIBE with options of MQTT 5": (b"\x82\x06\0\1\0\1a\4", "3.8.3-4"),
    "SUBSCRIBE with an empty filter": (b"\x82\x05\0\1\0\0\0", "4.7.3-1"),
    "UNSUBSCRIBE without a filter": (b"\xa2\x02\0\1", "3.10.3-2"),
    "UNSUBSCRIBE with an empty filter": (b"\xa2\x04\0\1\0\0", "4.7.3-1"),
    "a filter with # before its end": (b"\x82\x08\0\1\0\3#/a\0", "4.7.1-2"),
    "a filter with + in a level": (b"\x82\x07\0\1\0\2a+\0", "4.7.1-3"),
    "SUBACK with a reserved code": (b"\x90\x03\0\1\3", "3.9.3-2"),
    "SUBACK without a code": (b"\x90\x02\0\1", "§3.9.3"),
    "CONNACK with a reserved code": (b"\x20\x02\0\6", "§3.2.2.3"),
    "CONNACK with a refusal and a session": (b"\x20\x02\1\5", "3.2.2-4"),
    "UNSUBACK with a code": (b"\xb0\x03\0\1\0", "4.8.0-1"),
}


@pytest.mark.parametrize("case", ONLY_3)
def test_mqtt_3_1_1_refuses(case):
    raw, tag = ONLY_3[case]
    error = refusal(raw)
    assert tag in error.spec
    assert error.spec.startswith("MQTT 3.1.1")


ONLY_5 = {
    "PUBLISH without a property length": (b"\x30\x03\0\1t", "4.13.1-1", 0x81),
    "properties beyond the packet": (b"\x30\x05\0\1t\5\1", "4.13.1-1", 0x81),
    "an overlong property length": (b"\x30\x05\0\1t\x80\0", "1.5.5-1", 0x81),
    "a property length of five bytes": (b"\x30\x08\0\1t\xff\xff\xff\xff\1", "1.5.5-1", 0x81),
    "an overlong property identifier": (publish(b"\x81\0\1"), "1.5.5-1", 0x81),
    "an unknown property": (publish(b"\x04\0"), "§2.2.2.2", 0x81),
    "a property of another packet": (publish(b"\x21\0\1"), "§2.2.2.2", 0x81),
    "half a property": (publish(b"\x02\0\0\0"), "4.13.1-1", 0x81),
    "a doubled property": (publish(b"\1\1\1\1"), "§2.2.2.2", 0x82),
    "a payload format of 2": (publish(b"\1\2"), "§2.2.2.2", 0x82),
    "topic alias 0": (publish(b"\x23\0\0"), "3.3.2-8", 0x94),
    "subscription identifier 0": (subscribe(b"a", 0, b"\x0b\0"), "§3.8.2.1.2", 0x82),
    "two subscription identifiers in SUBSCRIBE": (subscribe(b"a", 0, b"\x0b\1\x0b\2"), "§2.2.2.2", 0x82),
    "an overlong subscription identifier": (subscribe(b"a", 0, b"\x0b\x80\0"), "1.5.5-1", 0x81),
    "a response topic with a wildcard": (publish(b"\x08\0\1#"), "3.3.2-14", 0x82),
    "an ill-formed response topic": (publish(b"\x08\0\1\xff"), "1.5.4-1", 0x81),
    "an empty response topic": (publish(b"\x08\0\0"), "4.7.3-1", 0x81),
    "a content type with U+0000": (publish(b"\x03\0\1\0"), "1.5.4-2", 0x81),
    "an ill-formed user property": (publish(b"\x26\0\1a\0\1\xff"), "1.5.4-1", 0x81),
    "neither topic nor alias": (b"\x30\x03\0\0\0", "§3.3.2.1", 0x82),
    "receive maximum 0": (connect(2, level=5, properties=b"\3\x21\0\0"), "§3.1.2.11.3", 0x82),
    "maximum packet size 0": (connect(2, level=5, properties=b"\5\x27\0\0\0\0"), "§3.1.2.11.4", 0x82),
    "request problem information 2": (connect(2, level=5, properties=b"\2\x17\2"), "§2.2.2.2", 0x82),
    "request response information 2": (connect(2, level=5, properties=b"\2\x19\2"), "§2.2.2.2", 0x82),
    "authentication data without a method": (connect(2, level=5, properties=b"\4\x16\0\1x"), "§3.1.2.11.10", 0x82),
    "a will delay outside of the will": (connect(2, level=5, properties=b"\5\x18\0\0\0\1"), "§2.2.2.2", 0x81),
    "a session expiry within the will": (connect(6, b"\5\x11\0\0\0\1\0\1w\0\0", 5), "§2.2.2.2", 0x81),
    "SUBSCRIBE without a filter": (b"\x82\x03\0\1\0", "3.8.3-2", 0x82),
    "SUBSCRIBE with an empty filter": (subscribe(b""), "4.7.3-1", 0x81),
    "SUBSCRIBE with QoS 3": (subscribe(b"a", 3), "§3.8.3.1", 0x82),
    "SUBSCRIBE with retain handling 3": (subscribe(b"a", 0x30), "§3.8.3.1", 0x82),
    "SUBSCRIBE with reserved options": (subscribe(b"a", 0x40), "3.8.3-5", 0x81),
    "SUBSCRIBE with the other reserved option": (subscribe(b"a", 0x80), "3.8.3-5", 0x81),
    "no local on a shared subscription": (subscribe(b"$share/g/a", 4), "3.8.3-4", 0x82),
    "a filter with # before its end": (subscribe(b"#/a"), "4.7.1-1", 0x81),
    "a filter with + in a level": (subscribe(b"a+"), "4.7.1-2", 0x81),
    "a share without a name": (subscribe(b"$share//a"), "4.8.2-1", 0x81),
    "a share of nothing at all": (subscribe(b"$share/"), "4.8.2-1", 0x81),
    "a share name that is +": (subscribe(b"$share/+/a"), "4.8.2-2", 0x81),
    "a share name that is #": (subscribe(b"$share/#"), "4.8.2-2", 0x81),
    "a share without a filter": (subscribe(b"$share/g"), "4.8.2-2", 0x81),
    "a share with an empty filter": (subscribe(b"$share/g/"), "4.8.2-2", 0x81),
    "UNSUBSCRIBE without a filter": (b"\xa2\x03\0\1\0", "3.10.3-2", 0x82),
    "UNSUBSCRIBE with a share without a name": (b"\xa2\x0e\0\1\0\0\x09$share//a", "4.8.2-1", 0x81),
    "CONNACK with an unknown code": (b"\x20\x03\0\1\0", "3.2.2-8", 0x82),
    "CONNACK with a refusal and a session": (b"\x20\x03\1\x87\0", "3.2.2-6", 0x82),
    "CONNACK with maximum QoS 2": (b"\x20\x05\0\0\2\x24\2", "§2.2.2.2", 0x82),
    "PUBACK with an unknown code": (b"\x40\x03\0\1\1", "3.4.2-1", 0x82),
    "PUBREC with an unknown code": (b"\x50\x03\0\1\1", "3.5.2-1", 0x82),
    "PUBREL with an unknown code": (b"\x62\x03\0\1\x80", "3.6.2-1", 0x82),
    "PUBCOMP with an unknown code": (b"\x70\x03\0\1\x80", "3.7.2-1", 0x82),
    "PUBACK with bytes behind": (b"\x40\x05\0\1\0\0x", "4.13.1-1", 0x81),
    "SUBACK with an unknown code": (b"\x90\x04\0\1\0\3", "3.9.3-2", 0x82),
    "SUBACK without a code": (b"\x90\x03\0\1\0", "§3.9.3", 0x82),
    "UNSUBACK with an unknown code": (b"\xb0\x04\0\1\0\1", "3.11.3-2", 0x82),
    "UNSUBACK without a code": (b"\xb0\x03\0\1\0", "§3.11.3", 0x82),
    "DISCONNECT with an unknown code": (b"\xe0\x01\1", "3.14.2-1", 0x82),
    "DISCONNECT with bytes behind": (b"\xe0\x03\0\0x", "4.13.1-1", 0x81),
    "reserved bits of AUTH": (b"\xf1\x00", "3.15.1-1", 0x81),
    "AUTH with an unknown code": (b"\xf0\x06\1\4\x15\0\1m", "3.15.2-1", 0x82),
    "AUTH without a method": (b"\xf0\x02\x18\0", "§3.15.2.2.2", 0x82),
}


@pytest.mark.parametrize("case", ONLY_5)
def test_mqtt_5_refuses(case):
    raw, tag, code = ONLY_5[case]
    error = refusal(raw, 5)
    assert tag in error.spec
    assert error.spec.startswith("MQTT 5.0")
    assert error.code == code


SIDES = {
    "a subscription identifier in PUBLISH": (publish(b"\x0b\1"), CLIENT, "3.3.4-6"),
    "a session expiry in DISCONNECT": (b"\xe0\x07\0\5\x11\0\0\0\1", SERVER, "3.14.2-2"),
    "a server reference in DISCONNECT": (b"\xe0\x06\0\4\x1c\0\1s", CLIENT, "§3.14.2.2"),
    "DISCONNECT with will": (b"\xe0\x01\x04", SERVER, "3.14.2-1"),
    "DISCONNECT because of a takeover": (b"\xe0\x01\x8e", CLIENT, "3.14.2-1"),
    "PUBACK that nobody has subscribed": (b"\x40\x03\0\1\x10", CLIENT, "3.4.2-1"),
    "PUBREC that nobody has subscribed": (b"\x50\x03\0\1\x10", CLIENT, "3.5.2-1"),
    "AUTH with success": (b"\xf0\x06\0\4\x15\0\1m", CLIENT, "3.15.2-1"),
    "AUTH without anything": (b"\xf0\x00", CLIENT, "3.15.2-1"),
    "AUTH for another time": (b"\xf0\x06\x19\4\x15\0\1m", SERVER, "3.15.2-1"),
}


@pytest.mark.parametrize("case", SIDES)
def test_only_one_side_may_send(case):
    raw, wrong, tag = SIDES[case]
    error = refusal(raw, 5, wrong)
    assert tag in error.spec
    assert error.code == 0x82
    decode(raw[0], raw[2:], 5, EITHER & ~wrong)
    decode(raw[0], raw[2:], 5)


@pytest.mark.parametrize("pattern", ["#", "+", "/", "+/+", "/#", "a/#", "+/a/#", "a//b", "a b", "$SYS/#", "été/+", "$share"])
def test_well_formed_filters_are_taken(pattern):
    assert topic_filter(pattern.encode()) == pattern
    assert topic_filter(pattern.encode(), 5) == pattern


@pytest.mark.parametrize("pattern", ["$share/g/a", "$share/g//", "$share/g/#", "$share/g/+/a", "$share/é/ "])
def test_well_formed_shares_are_taken(pattern):
    assert topic_filter(pattern.encode(), 5) == pattern
    _, group, shared = pattern.split("/", 2)
    assert split_share(pattern) == (group, shared)


def test_below_level_5_a_share_is_a_filter_as_any_other():
    assert topic_filter(b"$share//a") == "$share//a"
    with pytest.raises(MalformedPacket):
        split_share("$share//a")


@pytest.mark.parametrize("pattern", ["a", "$share", "$shared/g/a", "/$share/g/a"])
def test_what_is_no_share_is_an_ordinary_filter(pattern):
    assert split_share(pattern) is None


@pytest.mark.parametrize("level", [3, 4, 5])
@pytest.mark.parametrize("pattern", ["", "a#", "#a", "#/", "a/#/", "##", "+a", "a+", "++", "a/+b", "a/b#"])
def test_ill_formed_filters_are_refused_mqtt_4_7_1(pattern, level):
    with pytest.raises(MalformedPacket):
        topic_filter(pattern.encode(), level)


@pytest.mark.parametrize(("data", "is_text"), [(b"", True), ("é\0".encode(), True), (b"\xff", False), (b"\xed\xa0\x80", False)])
def test_a_payload_is_utf_8_or_not(data, is_text):
    assert is_utf8(data) is is_text


def test_a_zero_width_no_break_space_stays_mqtt_1_5_3_3_mqtt5_1_5_4_3():
    assert decode(0x30, b"\0\4\xef\xbb\xbfa").topic == "\ufeffa"
    assert decode(0x30, b"\0\4\xef\xbb\xbfa\0", 5).topic == "\ufeffa"


def test_every_code_of_a_packet_is_one_of_mqtt_5_and_has_a_text():
    for codes in (*BY_CLIENT.values(), *BY_SERVER.values()):
        assert all(code in {0, 1, 2, 4} or code in TEXTS for code in codes)
    for kind in NAMES:
        both = {code for code in range(256) if may_carry(kind, code)}
        assert both == {code for code in range(256) if may_carry(kind, code, CLIENT) or may_carry(kind, code, SERVER)}


def test_a_switch_is_a_bool_and_a_bit_a_number():
    properties = decode(0x20, b"\0\0\4\x25\1\x24\1", 5).properties
    assert (properties.retain_available, type(properties.retain_available)) == (True, bool)
    assert (properties.maximum_qos, type(properties.maximum_qos)) == (1, int)
