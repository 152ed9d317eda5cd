"""Confirmed durable publishes: Tidegate, RabbitMQ and others in turn, from raw sockets that cost little and alike.

    python bench/confirmed.py [--messages 100000] [--body 100] [--window 1000] [--rounds 3] [--only NAME]

One connection publishes persistent messages into one durable queue that nobody reads, with at most `window` of them unconfirmed.
The broker is on one core, the publisher on another. CPU is the broker's, of all its threads, per message.
"""

from __future__ import annotations

import sys

sys.path[0] = sys.path[0].removesuffix("/bench")  # there `queue` would not be the standard library's

import argparse
import os
import select
import socket
import statistics
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench import brokers
from bench.wire import connected, field, packet

PORTION = 250
"""Messages that are joined into one send."""


class Mqtt:
    """QoS 1 into the persistent session of a client that is away."""

    def __init__(self, port: int, body: bytes) -> None:
        away = connected(port, b"bench-away", clean=False)
        away.sendall(packet(0x82, b"\0\1" + field(b"bench/queue") + b"\1"))
        assert away.recv(5)[:1] == b"\x90"
        away.close()
        self.port = port
        self.socket = connected(port, b"bench-publisher", clean=True)
        head = field(b"bench/queue")
        self.frames = [packet(0x32, head + struct.pack("!H", number) + body) for number in range(1, 60_001)]

    def portion(self, first: int, count: int) -> bytes:
        at = first % len(self.frames)
        return b"".join([*self.frames[at : at + count], *self.frames[: max(at + count - len(self.frames), 0)]])

    def confirms(self, received: bytes) -> tuple[int, bytes]:
        whole = len(received) // 4
        return whole, received[whole * 4 :]

    def end(self) -> None:
        self.socket.close()
        connected(self.port, b"bench-away", clean=True).close()


class Amqp:
    """basic.publish to a durable queue on a channel in confirm mode (AMQP 0-9-1; the frames are written out here)."""

    def __init__(self, port: int, body: bytes, queue_type: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.queue = b"bench-" + queue_type.encode()
        self.socket.sendall(b"AMQP\0\0\x09\x01")
        self._answer()
        self._call(0, 10, 11, struct.pack("!I", 0) + _short(b"PLAIN") + _long(b"\0guest\0guest") + _short(b"en_US"))
        self._send(0, 10, 31, struct.pack("!HIH", 2047, 131_072, 0))
        self._call(0, 10, 40, _short(b"/") + _short(b"") + b"\0")
        self._call(1, 20, 10, _short(b""))
        self._call(1, 50, 40, struct.pack("!H", 0) + _short(self.queue) + b"\0")
        arguments = _short(b"x-queue-type") + b"S" + _long(queue_type.encode())
        self._call(1, 50, 10, struct.pack("!H", 0) + _short(self.queue) + b"\x02" + _long(arguments))
        self._call(1, 85, 10, b"\0")
        publish = _frame(1, 1, struct.pack("!HHH", 60, 40, 0) + _short(b"") + _short(self.queue) + b"\0")
        header = _frame(2, 1, struct.pack("!HHQHB", 60, 0, len(body), 0x1000, 2))
        self.frame = publish + header + _frame(3, 1, body)
        self.confirmed = 0
        self.ahead: set[int] = set()

    def portion(self, first: int, count: int) -> bytes:
        return self.frame * count

    def confirms(self, received: bytes) -> tuple[int, bytes]:
        """Count basic.ack: tags may come out of order, and stand for all before them."""
        count = at = 0
        while len(received) - at >= 21:
            kind, _, size = struct.unpack_from("!BHI", received, at)
            assert kind == 1, received[at : at + 40]
            assert received[at + 7 : at + 11] == b"\0\x3c\0\x50", received[at : at + 40]
            tag, multiple = struct.unpack_from("!QB", received, at + 11)
            at += size + 8
            if multiple:
                count += tag - self.confirmed - sum(one <= tag for one in self.ahead)
                self.ahead = {one for one in self.ahead if one > tag}
                self.confirmed = tag
            else:
                count += 1
                self.ahead.add(tag)
            while self.confirmed + 1 in self.ahead:
                self.confirmed += 1
                self.ahead.remove(self.confirmed)
        return count, received[at:]

    def end(self) -> None:
        self._call(1, 50, 40, struct.pack("!H", 0) + _short(self.queue) + b"\0")
        self.socket.close()

    def _send(self, channel: int, class_id: int, method_id: int, arguments: bytes) -> None:
        self.socket.sendall(_frame(1, channel, struct.pack("!HH", class_id, method_id) + arguments))

    def _call(self, channel: int, class_id: int, method_id: int, arguments: bytes) -> None:
        self._send(channel, class_id, method_id, arguments)
        self._answer()

    def _answer(self) -> None:
        head = self._take(7)
        payload = self._take(struct.unpack("!BHI", head)[2] + 1)
        assert payload[:4] not in (b"\0\x0a\0\x32", b"\0\x14\0\x28"), payload  # connection.close, channel.close

    def _take(self, count: int) -> bytes:
        taken = b""
        while len(taken) < count:
            data = self.socket.recv(count - len(taken))
            assert data, "the broker closed the connection"
            taken += data
        return taken


def _short(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def _long(text: bytes) -> bytes:
    return struct.pack("!I", len(text)) + text


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack("!BHI", kind, channel, len(payload)) + payload + b"\xce"


def publish(peer: Mqtt | Amqp, messages: int, window: int) -> tuple[float, list[float]]:
    """Publish and wait for every confirm; return the seconds, and the latencies of some."""
    sock = peer.socket
    sock.setblocking(False)
    portion = max(min(PORTION, window // 4), 1)
    sent = confirmed = 0
    outgoing = rest = b""
    marks: list[tuple[int, float]] = []
    latencies: list[float] = []
    started = time.perf_counter()
    while confirmed < messages:
        if not outgoing and sent < messages and sent - confirmed + portion <= window:
            count = min(portion, messages - sent)
            outgoing = peer.portion(sent, count)
            sent += count
            marks.append((sent, time.perf_counter()))
        readable, writable, _ = select.select([sock], [sock] if outgoing else [], [], 30)
        assert readable or writable, f"nothing for 30 s at {confirmed} of {messages}"
        if writable:
            outgoing = outgoing[sock.send(outgoing) :]
        if readable:
            data = sock.recv(1 << 20)
            assert data, "the broker closed the connection"
            count, rest = peer.confirms(rest + data)
            confirmed += count
            now = time.perf_counter()
            while marks and confirmed >= marks[0][0]:
                latencies.append(now - marks.pop(0)[1])
    sock.setblocking(True)
    return time.perf_counter() - started, latencies


@contextmanager
def tidegate(core: set[int] | None, *settings: str) -> Iterator[brokers.Broker]:
    limits = ("frontend.mqtt.session_max_messages=0", "frontend.mqtt.session_max_bytes=0", *settings)
    with brokers.tidegate(core, *limits) as broker:
        yield broker


Start = Callable[[set[int] | None], object]

TARGETS: dict[str, tuple[Start, Callable[[int, bytes], Mqtt | Amqp]]] = {
    "tidegate, synced": (tidegate, Mqtt),
    "tidegate, journal in memory": (lambda core: tidegate(core, "journal.kind=memory"), Mqtt),
    "mosquitto, in memory": (brokers.mosquitto, Mqtt),
}
if brokers.rabbitmq_script() is not None:
    TARGETS["rabbitmq classic"] = (brokers.rabbitmq, lambda port, body: Amqp(port, body, "classic"))
    TARGETS["rabbitmq quorum"] = (brokers.rabbitmq, lambda port, body: Amqp(port, body, "quorum"))
if not brokers.has_mosquitto():
    del TARGETS["mosquitto, in memory"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--body", type=int, default=100)
    parser.add_argument("--window", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    broker_core = {cores[-1]} if len(cores) > 1 else None
    if len(cores) > 1:
        os.sched_setaffinity(0, {cores[0]})
    found: dict[str, list[tuple[float, float, float, float]]] = {}
    for _ in range(arguments.rounds):
        for name, (start, make) in TARGETS.items():
            if arguments.only not in name:
                continue
            with start(broker_core) as broker:  # type: ignore[attr-defined]
                peer = make(broker.port, os.urandom(arguments.body))
                publish(peer, min(arguments.window * 2, arguments.messages), arguments.window)  # warm
                before = broker.cpu_s()
                seconds, latencies = publish(peer, arguments.messages, arguments.window)
                cpu = broker.cpu_s() - before
                peer.end()
            latencies.sort()
            found.setdefault(name, []).append(
                (
                    arguments.messages / seconds,
                    cpu / arguments.messages * 1e6,
                    latencies[len(latencies) // 2] * 1e3,
                    latencies[int(len(latencies) * 0.99)] * 1e3,
                )
            )
    print(f"{arguments.messages:,} messages of {arguments.body} B, window {arguments.window:,}, medians of {arguments.rounds}")
    for name, runs in found.items():
        rate, cpu, p50, p99 = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"  {name:30s}{rate:10,.0f}/s {cpu:7.2f} us CPU   confirm p50 {p50:7.2f} ms  p99 {p99:7.2f} ms")


if __name__ == "__main__":
    main()
