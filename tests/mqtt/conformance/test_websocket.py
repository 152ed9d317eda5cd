"""MQTT over WebSocket: chapter 6 of both standards."""

from __future__ import annotations

import base64
import hashlib

import pytest

from gateway_mqtt.codec.decoding import decode
from gateway_mqtt.codec.encoding import encode
from gateway_mqtt.codec.packets import ConnAck, Connect, Publish, Subscribe, Subscription
from gateway_mqtt.codec.splitter import Splitter
from tests.mqtt.conformance.support import PING, name

KEY = base64.b64encode(bytes(range(16))).decode()
ACCEPT = base64.b64encode(hashlib.sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()).decode()
TEXT, BINARY, CLOSE = 1, 2, 8


async def upgraded(place, *protocols):
    """Open a connection and ask for a WebSocket; return the client, the answer's first line and its headers."""
    client = await place.open()
    offered = f"Sec-WebSocket-Protocol: {', '.join(protocols)}\r\n" if protocols else ""
    request = (
        f"GET /mqtt HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{offered}\r\n"
    )
    await client.stream.send_all(request.encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        data = await client.stream.receive_some(1)
        if not data:
            break
        answer += data
    first, *lines = answer.decode().split("\r\n")
    headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return client, first, headers


def frame(payload, opcode=BINARY, *, last=True):
    head = bytes(((0x80 if last else 0) | opcode,))
    size = len(payload)
    sized = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    mask = b"\1\2\3\4"
    return head + sized + mask + bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))


async def exactly(client, count):
    data = b""
    while len(data) < count:
        more = await client.stream.receive_some(count - len(data))
        if not more:
            return None
        data += more
    return data


async def packets(client, splitter, count):
    """Return so many packets of the frames that come; each frame must be binary."""
    found = []
    while len(found) < count:
        head = await exactly(client, 2)
        assert head is not None
        assert head[0] == 0x80 | BINARY  # [MQTT-6.0.0-1] [MQTT5-6.0.0-1]
        size = head[1]
        if size == 126:
            size = int.from_bytes(await exactly(client, 2), "big")
        splitter.feed(await exactly(client, size))
        while (got := splitter.next()) is not None:
            found.append(decode(*got, client.level))
    return found


async def test_mqtt_6_0_0_4_mqtt5_6_0_0_4_the_sub_protocol_is_mqtt(any_level):
    """[MQTT-6.0.0-3] [MQTT5-6.0.0-3]"""
    _, first, headers = await upgraded(any_level, "other", "mqtt")
    assert first.startswith("HTTP/1.1 101")
    assert headers["sec-websocket-protocol"] == "mqtt"
    assert headers["sec-websocket-accept"] == ACCEPT


async def test_mqtt_6_0_0_4_mqtt5_6_0_0_4_without_the_sub_protocol_mqtt_there_is_no_connection_under_another_name(any_level):
    client, first, headers = await upgraded(any_level, "other")
    assert headers.get("sec-websocket-protocol") is None
    assert first.split()[1] in {"101", "400"}
    del client


@pytest.mark.parametrize("size", [1, 3, 1_000])
async def test_mqtt_6_0_0_2_mqtt5_6_0_0_2_packets_may_begin_anywhere_in_a_frame(any_level, size):
    topic = name("t")
    client, first, _ = await upgraded(any_level, "mqtt")
    assert first.startswith("HTTP/1.1 101")
    sent = b"".join(
        encode(packet, client.level)
        for packet in (Connect(name("c"), level=client.level), Subscribe(1, (Subscription(topic, 0),)), Publish(topic, b"x" * 300))
    )
    pieces = [sent[start : start + size] for start in range(0, len(sent), size)]
    await client.stream.send_all(b"".join(frame(piece) for piece in pieces))
    got = await packets(client, Splitter(), 3)
    assert isinstance(got[0], ConnAck)
    assert {type(packet).__name__ for packet in got[1:]} == {"SubAck", "Publish"}


async def test_mqtt_6_0_0_2_mqtt5_6_0_0_2_a_message_may_have_several_frames(any_level):
    client, _, _ = await upgraded(any_level, "mqtt")
    sent = encode(Connect(name("c"), level=client.level), client.level)
    await client.stream.send_all(frame(sent[:3], last=False) + frame(sent[3:9], 0, last=False) + frame(sent[9:], 0))
    assert (await packets(client, Splitter(), 1))[0].code == 0


async def test_mqtt_6_0_0_1_mqtt5_6_0_0_1_a_text_frame_closes_the_connection(any_level):
    client, _, _ = await upgraded(any_level, "mqtt")
    splitter = Splitter()
    await client.stream.send_all(frame(encode(Connect(name("c"), level=client.level), client.level)))
    assert (await packets(client, splitter, 1))[0].code == 0
    await client.stream.send_all(frame(PING, TEXT) + frame(PING))
    rest = b""
    while data := await client.stream.receive_some(1_000):
        rest += data
    assert bytes((0xD0, 0)) not in rest  # the PINGREQ in it was not answered
    assert rest == b"" or rest[0] & 15 in {BINARY, CLOSE}
