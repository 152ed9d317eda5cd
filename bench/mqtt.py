"""MQTT through a real socket: Tidegate and mosquitto in turn, broker on one core, load on the other.

    python bench/mqtt.py [--seconds 3] [--rounds 3] [--only NAME]

Packets all have one size, so that the load costs little: publishers send ready-made buffers, subscribers count bytes and cut
packet identifiers out at a fixed stride.
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
from dataclasses import dataclass

from bench import brokers

PAYLOAD = b"x" * 64
RUN = 64
"""Packets in one ready-made buffer."""


@dataclass(frozen=True)
class Case:
    name: str
    publishers: int
    subscribers: int
    qos: int = 0
    window: int = 0
    persistent: bool = False
    paired: bool = False


CASES = [
    Case("qos0 1->1", 1, 1),
    Case("qos0 50->1", 50, 1),
    Case("qos0 1->50", 1, 50),
    Case("qos1 10->10 w100", 10, 10, qos=1, window=100, paired=True),
    Case("qos1 10->10 w100 persistent", 10, 10, qos=1, window=100, persistent=True, paired=True),
    Case("qos1 10->10 w10 persistent", 10, 10, qos=1, window=10, persistent=True, paired=True),
    Case("qos1 10->10 w1 persistent", 10, 10, qos=1, window=1, persistent=True, paired=True),
]


def field(text: bytes) -> bytes:
    return struct.pack("!H", len(text)) + text


def packet(first: int, body: bytes) -> bytes:
    assert len(body) < 16_384
    length = bytes([len(body)]) if len(body) < 128 else bytes([len(body) & 127 | 128, len(body) >> 7])
    return bytes([first]) + length + body


def connected(port: int, client: bytes, *, clean: bool) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(packet(0x10, field(b"MQTT") + bytes([4, 2 if clean else 0, 0, 0]) + field(client)))
    answer = sock.recv(4)
    assert answer[:1] == b"\x20", answer
    assert answer[3:] == b"\0", answer
    return sock


class Subscriber:
    def __init__(self, port: int, number: int, case: Case) -> None:
        self.sock = connected(port, b"sub%03d" % number, clean=not case.persistent)
        topic = topic_of(number if case.paired else 0)
        self.sock.sendall(packet(0x82, b"\0\1" + field(topic) + bytes([case.qos])))
        answer = self.sock.recv(5)
        assert answer[:1] == b"\x90", answer
        self.sock.setblocking(False)
        self.qos = case.qos
        self.size = len(packet(0x30, field(topic) + (b"\0\0" if case.qos else b"") + PAYLOAD))
        self.at = len(field(topic)) + 2
        self.part = b""
        self.count = 0

    def ready(self) -> None:
        data = self.sock.recv(1 << 18)
        if not self.qos:
            self.count += len(data)
            return
        data = self.part + data
        whole = len(data) - len(data) % self.size
        self.part = data[whole:]
        if not whole:
            return
        at = self.at
        acks = b"".join([b"\x40\x02" + data[i + at : i + at + 2] for i in range(0, whole, self.size)])
        self.count += whole
        while acks:
            try:
                acks = acks[self.sock.send(acks) :]
            except BlockingIOError:
                select.select([], [self.sock], [])

    @property
    def messages(self) -> int:
        return self.count // self.size


class Publisher:
    def __init__(self, port: int, number: int, case: Case) -> None:
        self.sock = connected(port, b"pub%03d" % number, clean=True)
        self.sock.setblocking(False)
        topic = topic_of(number if case.paired else 0)
        self.window = case.window
        self.sent = self.acked = 0
        self.rest = b""
        if case.qos:
            ids = range(1, 60_001)
            self.packets = [packet(0x32, field(topic) + struct.pack("!H", i) + PAYLOAD) for i in ids]
        else:
            self.run = packet(0x30, field(topic) + PAYLOAD) * RUN

    def ready_to_read(self) -> None:
        data = self.sock.recv(1 << 16)
        self.acked += len(data)

    def push(self) -> bool:
        """Send what the window allows; False: nothing more for now."""
        if not self.rest:
            if self.window:
                room = self.window - (self.sent - self.acked // 4)
                if room <= 0:
                    return False
                start = self.sent % len(self.packets)
                chosen = self.packets[start : start + room]
                self.sent += len(chosen)
                self.rest = b"".join(chosen)
            else:
                self.sent += RUN
                self.rest = self.run
        try:
            self.rest = self.rest[self.sock.send(self.rest) :]
        except BlockingIOError:
            return False
        return not self.rest


def topic_of(number: int) -> bytes:
    return b"bench/%03d/temperature" % number


class Load:
    """All clients of a case, in one loop."""

    def __init__(self, port: int, case: Case) -> None:
        self.case = case
        self.subscribers = [Subscriber(port, i, case) for i in range(case.subscribers)]
        self.publishers = [Publisher(port, i, case) for i in range(case.publishers)]
        self.epoll = select.epoll()
        self.by_fd: dict[int, Subscriber | Publisher] = {p.sock.fileno(): p for p in [*self.subscribers, *self.publishers]}
        for subscriber in self.subscribers:
            self.epoll.register(subscriber.sock, select.EPOLLIN)
        for publisher in self.publishers:
            self.epoll.register(publisher.sock, select.EPOLLIN | (0 if case.window else select.EPOLLOUT))
            publisher.push()

    def run(self, seconds: float) -> float:
        """Publish for so long, then take what is left; return the seconds until the last message."""
        started = quiet = time.perf_counter()
        publishing = True
        while publishing or (time.perf_counter() - quiet < 0.3 and not self.all_there()):
            events = self.epoll.poll(0.05)
            if publishing and time.perf_counter() - started > seconds:
                publishing = False
                for publisher in self.publishers:
                    self.epoll.modify(publisher.sock, select.EPOLLIN)
            if self.turn(events, publishing=publishing):
                quiet = time.perf_counter()
        return quiet - started

    def turn(self, events: list[tuple[int, int]], *, publishing: bool) -> bool:
        """Serve what is ready; return whether messages came."""
        came = False
        for fd, event in events:
            peer = self.by_fd[fd]
            if isinstance(peer, Subscriber):
                peer.ready()
                came = True
                continue
            if event & select.EPOLLIN:
                peer.ready_to_read()
            while publishing and peer.push() and self.case.window:
                pass
        return came

    @property
    def expected(self) -> int:
        return sum(p.sent for p in self.publishers) * (1 if self.case.paired else self.case.subscribers)

    @property
    def delivered(self) -> int:
        return sum(subscriber.messages for subscriber in self.subscribers)

    def all_there(self) -> bool:
        acked = not self.case.window or all(p.acked // 4 >= p.sent for p in self.publishers)
        return acked and self.delivered >= self.expected

    def close(self) -> None:
        for peer in self.by_fd.values():
            if not getattr(peer, "rest", b""):
                peer.sock.sendall(b"\xe0\0")
            peer.sock.close()


def run(broker: brokers.Broker, case: Case, seconds: float) -> tuple[float, float, float]:
    """Return messages delivered per second, CPU us per delivery, share that arrived."""
    load = Load(broker.port, case)
    cpu = broker.cpu_s()
    elapsed = load.run(seconds)
    cpu = broker.cpu_s() - cpu
    delivered, expected = load.delivered, load.expected
    load.close()
    return delivered / elapsed, cpu / max(delivered, 1) * 1e6, delivered / max(expected, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Tidegate and mosquitto in turn")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    broker_core = {cores[-1]} if len(cores) > 1 else None
    if len(cores) > 1:
        os.sched_setaffinity(0, {cores[0]})
    starts = [brokers.tidegate] + ([brokers.mosquitto] if brokers.has_mosquitto() else [])
    for case in [case for case in CASES if options.only in case.name]:
        results: dict[str, list[tuple[float, float, float]]] = {}
        for _ in range(options.rounds):
            for start in starts:
                with start(broker_core) as broker:
                    results.setdefault(broker.name, []).append(run(broker, case, options.seconds))
        report(case, results)


def report(case: Case, results: dict[str, list[tuple[float, float, float]]]) -> None:
    medians = {}
    for name, rounds in results.items():
        rate, cpu, share = (statistics.median(column) for column in zip(*rounds, strict=True))
        medians[name] = (rate, cpu)
        print(f"{case.name:30} {name:10} {rate:12,.0f} msg/s  {cpu:7.2f} us CPU  {share:7.2%} arrived", flush=True)
    if len(medians) == 2:
        ours, theirs = medians["tidegate"], medians["mosquitto"]
        print(f"{'':30} {'ratio':10} {ours[0] / theirs[0]:12.2f} x rate   {theirs[1] / ours[1]:7.2f} x CPU", flush=True)


if __name__ == "__main__":
    main()
