"""Bad input closes that one connection; it is counted, logged once, and nobody else notices."""

from __future__ import annotations

import pytest
import trio

from gateway_mqtt.codec.coding import encode, encode_length
from gateway_mqtt.codec.packets import (
    PINGREQ,
    ConnAck,
    Connect,
    Publish,
    Signal,
    SubAck,
    Will,
)
from gateway_mqtt.codec.reasons import MALFORMED_PACKET, QUOTA_EXCEEDED
from tests.mqtt.level5 import connected, goodbye
from tests.mqtt.support import mqtt_broker

PINGREQ_BYTES = encode(Signal(PINGREQ))


def publish(topic: bytes, *, head: int = 0x30, tail: bytes = b"x") -> bytes:
    payload = len(topic).to_bytes(2, "big") + topic + tail
    return bytes((head,)) + encode_length(len(payload)) + payload


def subscribe(pattern: bytes, *, head: int = 0x82, packet_id: int = 1, qos: int = 0) -> bytes:
    payload = packet_id.to_bytes(2, "big") + len(pattern).to_bytes(2, "big") + pattern + bytes((qos,))
    return bytes((head, len(payload))) + payload


CONNECTED = {
    "second CONNECT [MQTT-3.1.0-2]": encode(Connect("again")),
    "reserved bits in SUBSCRIBE [MQTT-3.8.1-1]": subscribe(b"a", head=0x80),
    "reserved bits in UNSUBSCRIBE [MQTT-3.10.1-1]": b"\xa0\x05\x00\x01\x00\x01a",
    "reserved bits in PUBACK [MQTT-2.2.2-2]": b"\x42\x02\x00\x01",
    "reserved bits in PINGREQ [MQTT-2.2.2-2]": b"\xc1\x00",
    "reserved bits in DISCONNECT [MQTT-3.14.1-1]": b"\xe1\x00",
    "QoS 3 [MQTT-3.3.1-4]": publish(b"a", head=0x36, tail=b"\0\1x"),
    "DUP on QoS 0 [MQTT-3.3.1-2]": publish(b"a", head=0x38),
    "packet identifier 0 in PUBLISH [MQTT-2.3.1-1]": publish(b"a", head=0x32, tail=b"\0\0x"),
    "packet identifier 0 in a retained PUBLISH [MQTT-2.3.1-1]": publish(b"a", head=0x33, tail=b"\0\0x"),
    "packet identifier 0 in SUBSCRIBE [MQTT-2.3.1-1]": subscribe(b"a", packet_id=0),
    "packet identifier 0 in UNSUBSCRIBE [MQTT-2.3.1-1]": b"\xa2\x05\x00\x00\x00\x01a",
    "packet identifier 0 in PUBACK [MQTT-2.3.1-1]": b"\x40\x02\x00\x00",
    "U+0000 in a topic [MQTT-1.5.3-2]": publish(b"a\0b"),
    "U+0000 in a filter [MQTT-1.5.3-2]": subscribe(b"a\0b"),
    "ill-formed UTF-8 in a topic [MQTT-1.5.3-1]": publish(b"a\xff"),
    "overlong UTF-8 in a topic [MQTT-1.5.3-1]": publish(b"\xc0\xaf"),
    "a surrogate in a topic [MQTT-1.5.3-1]": publish(b"\xed\xa0\x80"),
    "a surrogate in a filter [MQTT-1.5.3-1]": subscribe(b"\xed\xa0\x80"),
    "'+' in a topic name [MQTT-3.3.2-2]": publish(b"a/+"),
    "'#' in a topic name [MQTT-3.3.2-2]": publish(b"#", head=0x32, tail=b"\0\1x"),
    "an empty topic name [MQTT-4.7.3-1]": publish(b""),
    "an empty topic name and nothing else [MQTT-4.7.3-1]": b"\x30\x02\x00\x00",
    "an empty filter [MQTT-4.7.3-1]": subscribe(b""),
    "'#' before the last level [MQTT-4.7.1-2]": subscribe(b"a/#/b"),
    "'#' beside other characters [MQTT-4.7.1-2]": subscribe(b"a/b#"),
    "'##' [MQTT-4.7.1-2]": subscribe(b"##"),
    "'+' beside other characters [MQTT-4.7.1-3]": subscribe(b"a/b+/c"),
    "a bad filter in UNSUBSCRIBE [MQTT-4.7.1-2]": b"\xa2\x07\x00\x01\x00\x03#/a",
    "QoS 3 in SUBSCRIBE [MQTT-3.8.3-4]": subscribe(b"a", qos=3),
    "reserved bits in SUBSCRIBE's QoS [MQTT-3.8.3-4]": subscribe(b"a", qos=0x81),
    "an empty SUBSCRIBE [MQTT-3.8.3-3]": b"\x82\x02\x00\x01",
    "an empty UNSUBSCRIBE [MQTT-3.10.3-2]": b"\xa2\x02\x00\x01",
    "a SUBSCRIBE without the QoS": b"\x82\x05\x00\x01\x00\x01a",
    "PINGREQ with a body": b"\xc0\x01\x00",
    "DISCONNECT with a body": b"\xe0\x01\x00",
    "PUBACK with bytes behind its identifier": b"\x40\x03\x00\x01\x00",
    "PUBACK without an identifier": b"\x40\x00",
    "a topic longer than its packet": b"\x30\x05\x00\x09abc",
    "a topic longer than its packet, retained": b"\x31\x05\x00\x09abc",
    "PUBLISH of QoS 1 without an identifier": b"\x32\x05\x00\x03abc",
    "PUBLISH of one byte": b"\x30\x01\x00",
    "PUBLISH of nothing": b"\x30\x00",
    "PUBLISH of QoS 1 and four bytes": b"\x32\x04\x00\x02ab",
    "a remaining length of five bytes": b"\x30\xff\xff\xff\xff\x01",
    "a remaining length with idle digits": b"\x30\x80\x00",
    "a packet beyond the limit": b"\x30\xff\xff\xff\x7f",
    "packet type 0": b"\x00\x00",
    "packet type 15": b"\xf0\x00",
    "CONNACK from a client": encode(ConnAck(session_present=False, code=0)),
    "SUBACK from a client": encode(SubAck(1, b"\0")),
    "PINGRESP from a client": b"\xd0\x00",
    "too many levels": publish(b"/".join([b"a"] * 201)),
    "too long a topic": publish(b"x" * 4_097),
}


@pytest.mark.parametrize("bad", list(CONNECTED.values()), ids=list(CONNECTED))
async def test_a_connected_client_is_closed_for(bad):
    async with mqtt_broker() as bench:
        watcher = await bench.client()
        await watcher.subscribe("lost")
        peer = await bench.client("bad", will=Will("lost", b"bad"))
        await peer.send(bad, PINGREQ_BYTES)
        assert await peer.next() is None
        assert await watcher.next() == Publish("lost", b"bad")  # [MQTT-3.1.2-8]: also when the server closes
        await watcher.ping()
        assert bench.counted("violations") == 1
        assert bench.logged("protocol violation") == 1


def connect(flags: int = 2, *, name: bytes = b"MQTT", level: int = 4, payload: bytes = b"\0\1c", head: int = 0x10) -> bytes:
    rest = len(name).to_bytes(2, "big") + name + bytes((level, flags)) + b"\0\x3c" + payload
    return bytes((head, len(rest))) + rest


UNCONNECTED = {
    "PUBLISH first [MQTT-3.1.0-1]": publish(b"a"),
    "PINGREQ first [MQTT-3.1.0-1]": PINGREQ_BYTES,
    "TLS first [MQTT-3.1.0-1]": b"\x16\x03\x01\x02\x00\x01",
    "reserved bits [MQTT-2.2.2-2]": connect(head=0x11),
    "another protocol's name [MQTT-3.1.2-1]": connect(name=b"MQTX"),
    "the reserved flag [MQTT-3.1.2-3]": connect(3),
    "a will QoS without a will [MQTT-3.1.2-13]": connect(0x0A),
    "a will retain without a will [MQTT-3.1.2-15]": connect(0x22),
    "will QoS 3 [MQTT-3.1.2-14]": connect(0x1E, payload=b"\0\1c\0\1t\0\1p"),
    "a password without a user [MQTT-3.1.2-22]": connect(0x42, payload=b"\0\1c\0\1p"),
    "no client identifier [MQTT-3.1.3-3]": connect(payload=b""),
    "an ill-formed client identifier [MQTT-3.1.3-4]": connect(payload=b"\0\1\xff"),
    "a will topic with a wildcard": connect(6, payload=b"\0\1c\0\1#\0\1p"),
    "an ill-formed will topic [MQTT-3.1.3-10]": connect(6, payload=b"\0\1c\0\1\xff\0\1p"),
    "an ill-formed user name [MQTT-3.1.3-11]": connect(0x82, payload=b"\0\1c\0\1\xff"),
    "a missing will": connect(6),
    "trailing bytes": connect(payload=b"\0\1cx"),
    "a CONNECT longer than any": b"\x10\xff\xff\x7f",
}


@pytest.mark.parametrize("bad", list(UNCONNECTED.values()), ids=list(UNCONNECTED))
async def test_a_newcomer_is_closed_without_a_connack_for_mqtt_3_1_4_1(bad):
    async with mqtt_broker() as bench:
        peer = await bench.open()
        await peer.send(bad)
        assert await peer.next() is None
        assert bench.counted("violations") == 1
        assert bench.logged("protocol violation") == 1


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        pytest.param(connect(level=2), 1, id="a level that there is not [MQTT-3.1.2-2]"),
        pytest.param(connect(level=4, name=b"MQIsdp"), 1, id="a name that is not of its level"),
        pytest.param(encode(Connect("", clean=False)), 2, id="no identifier for a persistent session [MQTT-3.1.3-8]"),
        pytest.param(encode(Connect("x" * 243)), 2, id="an identifier that is too long [MQTT-3.1.3-9]"),
        pytest.param(connect(name=b"MQIsdp", level=3, payload=b"\0\0"), 2, id="no identifier in MQTT 3.1"),
    ],
)
async def test_a_newcomer_is_refused_with_a_return_code_and_closed_mqtt_3_2_2_5(packet, code):
    async with mqtt_broker() as bench:
        peer = await bench.open()
        await peer.send(packet, publish(b"a"))  # [MQTT-3.1.4-5]: not looked at
        assert await peer.take(2) == [ConnAck(session_present=False, code=code), None]
        assert bench.logged("a client was refused") == 1
        assert bench.counted("mqtt.connects_refused") == 1


@pytest.mark.parametrize(
    "will", [Will("/" * 200, b""), Will("t", b"", 2), Will("t", b"", retain=True)], ids=["topic", "QoS", "retain"]
)
async def test_a_will_that_can_not_be_is_refused_without_a_connack_mqtt_3_2_2_6(will):
    async with mqtt_broker(maximum_qos=1, retained=False) as bench:
        peer = await bench.open()
        await peer.send(Connect("c", will=will))
        assert await peer.next() is None
        assert bench.logged("a client was refused") == 1
        assert bench.counted("mqtt.connects_refused") == 1


async def test_mqtt_3_1_is_spoken_too():
    async with mqtt_broker() as bench:
        peer = await bench.client("old", level=3)
        await peer.subscribe("a", qos=1)
        await peer.publish("a", b"x")
        assert await peer.next() == Publish("a", b"x")


async def test_a_silent_newcomer_is_closed_after_the_time_out(autojump_clock):
    autojump_clock.autojump_threshold = 0.002
    async with mqtt_broker(connect_timeout_s=7) as bench:
        peer = await bench.open()
        began = trio.current_time()
        with trio.fail_after(60):
            assert await peer.stream.receive_some(10) == b""
        assert 7 <= trio.current_time() - began < 8
        assert bench.logged("a client did not connect in time") == 1


async def test_a_trickled_connect_does_not_stretch_the_time_out(autojump_clock):
    autojump_clock.autojump_threshold = 0.002
    async with mqtt_broker(connect_timeout_s=7) as bench:
        peer = await bench.open()
        began = trio.current_time()
        with pytest.raises(trio.BrokenResourceError):  # noqa: PT012 - whichever of them finds out
            for byte in encode(Connect("a-very-long-client-identifier")):
                await peer.send(bytes((byte,)))
                await trio.sleep(1)
            raise AssertionError("it was never closed")
        assert 7 <= trio.current_time() - began < 12  # the last two seconds are for its goodbye


async def test_a_client_is_closed_after_one_and_a_half_times_its_keep_alive_and_its_will_is_published_mqtt_3_1_2_24(autojump_clock):
    autojump_clock.autojump_threshold = 0.002
    async with mqtt_broker() as bench:
        watcher = await bench.client(keep_alive_s=0)
        await watcher.subscribe("lost")
        began = trio.current_time()
        peer = await bench.client(keep_alive_s=10, will=Will("lost", b"silent"))
        await trio.sleep(9)
        await peer.ping()
        watcher.patience_s = 60
        assert await watcher.next() == Publish("lost", b"silent")
        assert 24 <= trio.current_time() - began <= 25
        await trio.sleep(60)
        await watcher.ping()  # keep alive 0 is for ever


async def test_a_client_is_held_to_the_longest_keep_alive(autojump_clock):
    autojump_clock.autojump_threshold = 0.002
    async with mqtt_broker(max_keep_alive_s=20) as bench:
        peer = await bench.client(keep_alive_s=0)
        began = trio.current_time()
        with trio.fail_after(60):
            assert await peer.stream.receive_some(10) == b""
        assert 30 <= trio.current_time() - began <= 31


async def test_a_large_packet_in_small_pieces_is_taken_and_one_byte_more_is_not():
    async with mqtt_broker(max_packet_bytes=200_000) as bench:
        peer = await bench.client()
        await peer.subscribe("t")
        whole = encode(Publish("t", b"x" * (200_000 - 3)))
        for at in range(0, len(whole), 10_000):
            await peer.send(whole[at : at + 10_000])
        assert len((await peer.next()).payload) == 200_000 - 3
        await peer.send(encode(Publish("t", b"x" * (200_000 - 2)))[:10])
        assert await peer.next() is None


async def test_nothing_after_a_disconnect_counts_mqtt_3_14_4_2():
    async with mqtt_broker() as bench:
        watcher = await bench.client()
        await watcher.subscribe("#")
        peer = await bench.client(will=Will("lost", b"x"))
        await peer.send(b"\xe0\x00", publish(b"a"), b"\xff\xff")
        assert await peer.next() is None
        await watcher.ping()  # neither the publish nor the will [MQTT-3.14.4-3]
        assert bench.counted("violations") == 0


async def test_nothing_follows_a_disconnect_be_it_an_answer_or_a_message_mqtt5_3_14_4_1():
    async with mqtt_broker(clean_session_max_messages=1) as bench:
        client, publisher = await connected(bench), await bench.client()
        await client.subscribe("t", 1)
        await client.subscribe("$share/g/u")
        await client.send(Publish("t", b"fills", 1, packet_id=1), Publish("t", b"ends it", 1, packet_id=2), Publish("u", b"late"))
        assert (await client.next()).payload == b"fills"
        assert (await goodbye(client)).code == QUOTA_EXCEEDED
        await publisher.ping()


async def test_who_breaks_the_standard_gets_what_came_before_and_no_message_behind_the_disconnect_mqtt5_3_14_4_1():
    async with mqtt_broker() as bench:
        client = await connected(bench)
        await client.subscribe("t", 1)
        await client.send(Publish("t", b"own", 1, packet_id=1), b"\x30\x01\x00")
        assert (await client.next()).payload == b"own"
        assert (await goodbye(client)).code == MALFORMED_PACKET
