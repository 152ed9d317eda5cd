"""Whole connections of structured garbage: valid packets in any order, odd properties, broken bytes, over TCP and WebSocket.

Nothing inside fails, who behaves is served all the time, and nothing stays behind.
"""

from __future__ import annotations

import base64
import os
import random
import struct

import pytest
import trio
import trio.lowlevel

from gateway.api import Principal
from gateway_mqtt.codec.coding import encode
from gateway_mqtt.codec.packets import (
    PINGREQ,
    PUBACK,
    PUBCOMP,
    PUBREC,
    PUBREL,
    Ack,
    Auth,
    Connect,
    Disconnect,
    Publish,
    Signal,
    Subscribe,
    Subscription,
    Unsubscribe,
    Will,
)
from gateway_mqtt.codec.properties import NO_PROPERTIES, Properties
from tests.mqtt.support import mqtt_broker, until

NAMES = ["a", "é/\U0001f600", "mqtt.session.a", "a/b/1", "a//", "x" * 242, "../..", "\ufeff", "a\nb", "%2F", "$share/g/a", "a.b"]
TOPICS = ["a", "a/b", "/", "//", "$SYS/x", "$share/g/a", "a.b/*", "mqtt/session/a", "mqtt.session.a", "r/" * 30, "\ufeff", "$x"]
FILTERS = [*TOPICS, "#", "+", "+/+", "a/#", "$share/g/#", "$share/g/a/+", "$share/é/#", "$SYS/#", "/+", "*/#"]


class Speaker:
    """Says what a client of a protocol level may say, and what it may not."""

    def __init__(self, rng: random.Random, level: int) -> None:
        self.rng = rng
        self.level = level

    def properties(self, *names: str) -> Properties:
        rng = self.rng
        if self.level < 5 or rng.random() < 0.4:
            return NO_PROPERTIES
        values = {
            "payload_format": rng.randrange(2),
            "message_expiry_s": rng.choice([0, 1, 0xFFFFFFFF]),
            "content_type": "t" * rng.randrange(3),
            "response_topic": rng.choice(["r", "/exchanges/x/y", "amq.direct/a", "%2F", "$SYS/a"]),
            "correlation_data": rng.randbytes(3),
            "session_expiry_s": rng.choice([0, 1, 100, 0xFFFFFFFF]),
            "will_delay_s": rng.choice([0, 1, 0xFFFFFFFF]),
            "request_problem_information": rng.random() < 0.5,
            "request_response_information": rng.random() < 0.5,
            "reason_string": "because",
            "receive_maximum": rng.choice([1, 2, 65_535]),
            "topic_alias_maximum": rng.choice([0, 1, 65_535]),
            "topic_alias": rng.choice([1, 2, 3, 100, 101, 65_535]),
            "maximum_packet_size": rng.choice([1, 10, 40, 1_000, 0xFFFFFFFF]),
            "subscription_ids": (rng.choice([1, 127, 128, 268_435_455]),),
            "user": (("reply-to", "x"), ("", ""))[: rng.randrange(3)],
        }
        return Properties(**{name: values[name] for name in (*names, "user") if rng.random() < 0.5})

    def connect(self, name: str) -> Connect:
        rng = self.rng
        will = None
        if rng.random() < 0.5:
            said = self.properties("will_delay_s", "payload_format", "message_expiry_s", "content_type", "response_topic")
            will = Will(rng.choice(TOPICS), rng.randbytes(5), rng.randrange(3), rng.random() < 0.3, said)
        said = self.properties(
            "session_expiry_s", "receive_maximum", "maximum_packet_size", "topic_alias_maximum", "request_problem_information",
            "request_response_information",
        )  # fmt: skip
        return Connect(name, rng.random() < 0.5, rng.choice([0, 1, 65_535]), will, None, None, self.level, said)

    def packet(self) -> object:  # noqa: PLR0911
        rng = self.rng
        number = rng.choice([1, 2, 3, 10, 65_535])
        match rng.randrange(9):
            case 0 | 1 | 2:
                qos = rng.randrange(3)
                said = self.properties("payload_format", "message_expiry_s", "topic_alias", "response_topic", "correlation_data")
                topic = "" if said.topic_alias and rng.random() < 0.3 else rng.choice(TOPICS)
                body = rng.randbytes(rng.choice([0, 1, 300]))
                return Publish(topic, body, qos, rng.random() < 0.3, bool(qos) and rng.random() < 0.3, number if qos else 0, said)
            case 3:
                wanted = tuple(
                    Subscription(
                        rng.choice(FILTERS),
                        rng.randrange(3),
                        *((rng.random() < 0.2, rng.random() < 0.5, rng.randrange(3)) if self.level == 5 else ()),
                    )
                    for _ in range(rng.randrange(1, 5))
                )
                return Subscribe(number, wanted, self.properties("subscription_ids"))
            case 4:
                return Unsubscribe(number, tuple(rng.choice(FILTERS) for _ in range(rng.randrange(1, 5))), self.properties())
            case 5 | 6:
                kind = rng.choice([PUBACK, PUBREC, PUBREL, PUBCOMP])
                code = rng.choice([0, 0, 0x92 if kind in (PUBREL, PUBCOMP) else 0x97]) if self.level == 5 else 0
                return Ack(kind, number, code, self.properties("reason_string") if code else NO_PROPERTIES)
            case 7:
                return Signal(PINGREQ)
            case _:
                if rng.random() < 0.7:
                    return Signal(PINGREQ)
                if self.level == 5 and rng.random() < 0.3:
                    return Auth(0x18, Properties(authentication_method="m"))
                return Disconnect(rng.choice([0, 4]) if self.level == 5 else 0, self.properties("session_expiry_s"))

    def conversation(self, name: str) -> bytes:
        rng = self.rng
        packets = [self.connect(name), *(self.packet() for _ in range(rng.randrange(25)))]
        if rng.random() < 0.1:
            rng.shuffle(packets)
        data = bytearray(b"".join(encode(packet, self.level) for packet in packets))
        for _ in range(rng.choice([0, 0, 1, 3])):
            at = rng.randrange(len(data))
            match rng.randrange(3):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    data[at : at + rng.randrange(4)] = rng.randbytes(rng.randrange(4))
                case _:
                    del data[at + rng.randrange(20) :]
            data = data or bytearray(b"\0")
        return bytes(data)


def framed(rng: random.Random, data: bytes) -> bytes:
    """Return it in WebSocket frames, cut anywhere, with pings, empty ones, and now and then a bad one."""
    frames = [
        b"GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: " + base64.b64encode(rng.randbytes(16)) + b"\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
    ]
    begun = False
    while data:
        piece, data = data[: (cut := rng.randrange(200))], data[cut:]
        last = rng.random() < 0.5
        head = (0x80 if last else 0) | (0 if begun else 2)
        begun = not last
        mask = rng.randbytes(4)
        body = bytes(byte ^ mask[at % 4] for at, byte in enumerate(piece))
        size = bytes([0x80 | len(body)]) if len(body) < 126 else b"\xfe" + struct.pack("!H", len(body))
        frames.append(bytes([head]) + size + mask + body)
        if rng.random() < 0.1:
            frames.append(rng.choice([b"\x89\x80" + mask, b"\x8a\x81" + mask + b"x", b"\x88\x80" + mask, rng.randbytes(6)]))
    return b"".join(frames)


async def say(bench, rng: random.Random, data: bytes) -> None:
    stream = await trio.open_tcp_stream("127.0.0.1", bench.port)
    async with stream:
        try:
            for _ in range(rng.randrange(1, 4)):
                cut = rng.randrange(len(data) + 1)
                await stream.send_all(data[:cut])
                data = data[cut:]
                await trio.lowlevel.checkpoint()
            await stream.send_all(data)
            with trio.move_on_after(0.02):
                while await stream.receive_some(65_536):
                    pass
            if rng.random() < 0.5:
                await stream.send_eof()
        except trio.BrokenResourceError:
            pass


@pytest.mark.parametrize("level", [3, 4, 5])
@pytest.mark.parametrize("seed", range(int(os.environ.get("HOSTILE_SEEDS", "1"))))
async def test_garbage_of_good_packets_hurts_nobody(level, seed):
    rng = random.Random(1_000 * seed + level)
    async with mqtt_broker(max_packet_bytes=65_536, max_inflight=3, receive_maximum=5, sys_interval_s=0.05) as bench:
        steady = await bench.client("steady")
        await steady.subscribe("steady")
        for turn in range(12):
            async with trio.open_nursery() as nursery:
                for _ in range(6):
                    speaker = Speaker(rng, level if rng.random() < 0.8 else rng.choice([3, 4, 5]))
                    data = speaker.conversation(rng.choice(NAMES))
                    nursery.start_soon(say, bench, rng, framed(rng, data) if rng.random() < 0.3 else data)
            await steady.publish("steady", b"%d" % turn)
            assert await steady.next() == Publish("steady", b"%d" % turn)
        await until(lambda: len(bench.broker.listeners[0].connections) == 1)
        for event in ("a connection failed", "a front-end failed to take a message", "could not be flushed"):
            assert bench.logged(event) == 0, [line for line in (*bench.log.lines, *bench.broker.log.lines) if line[1] == event]
        assert not bench.counted("flushes_failed")
        assert not bench.counted("consumers_failed")
        engine = bench.broker.engine
        left = {name.removeprefix("mqtt.session.") for name in engine.vhost("/").queues if not name.startswith("mqtt.share.")}
        for name in left - {"steady"}:  # broken bytes may have made other names
            await (await bench.client(name)).leave()
        await until(lambda: set(engine.vhost("/").queues) <= {"mqtt.session.steady"})
        channel = bench.broker.gateway("look", print, bench.log).open_channel(Principal("look", "/"))
        for namespace in ("mqtt.session", "mqtt.in", "mqtt.out", "mqtt.share"):
            assert not [key for key, _ in channel.scan_state(namespace)]
