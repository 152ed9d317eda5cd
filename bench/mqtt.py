"""MQTT through a real socket: Tidegate and mosquitto in turn, broker on one core, load on the other.

    python bench/mqtt.py [--seconds 3] [--rounds 3] [--only NAME]

Packets all have one size, so that the load costs little: publishers send ready-made buffers, subscribers count bytes and cut
packet identifiers out at a fixed stride.
"""

from __future__ import annotations

import argparse
import os
import select
import socket
import statistics
import struct
import time
from dataclasses import dataclass

import brokers

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


def run(broker: brokers.Broker, case: Case, seconds: float) -> tuple[float, float, float]:
    """Return messages delivered per second, CPU us per delivery, share that arrived."""
    subscribers = [Subscriber(broker.port, i, case) for i in range(case.subscribers)]
    publishers = [Publisher(broker.port, i, case) for i in range(case.publishers)]
    epoll = select.epoll()
    by_fd: dict[int, Subscriber | Publisher] = {peer.sock.fileno(): peer for peer in [*subscribers, *publishers]}
    for subscriber in subscribers:
        epoll.register(subscriber.sock, select.EPOLLIN)
    for publisher in publishers:
        epoll.register(publisher.sock, select.EPOLLIN | (0 if case.window else select.EPOLLOUT))
        publisher.push()
    started, cpu = time.perf_counter(), broker.cpu_s()
    publishing = True
    quiet = started
    while True:
        events = epoll.poll(0.05)
        now = time.perf_counter()
        if publishing and now - started > seconds:
            publishing = False
            for publisher in publishers:
                epoll.modify(publisher.sock, select.EPOLLIN)
        for fd, event in events:
            peer = by_fd[fd]
            if isinstance(peer, Subscriber):
                peer.ready()
                quiet = now
                continue
            if event & select.EPOLLIN:
                peer.ready_to_read()
            if publishing:
                while peer.push() and case.window:
                    pass
        if not publishing and (now - quiet > 0.3 or all_there(subscribers, publishers, case)):
            break
    elapsed = quiet - started
    cpu = broker.cpu_s() - cpu
    delivered = sum(subscriber.messages for subscriber in subscribers)
    expected = sum(p.sent for p in publishers) * (1 if case.paired else case.subscribers)
    for peer in by_fd.values():
        peer.sock.sendall(b"\xe0\0") if not getattr(peer, "rest", b"") else None
        peer.sock.close()
    return delivered / elapsed, cpu / max(delivered, 1) * 1e6, delivered / max(expected, 1)


def all_there(subscribers: list[Subscriber], publishers: list[Publisher], case: Case) -> bool:
    expected = sum(p.sent for p in publishers) * (1 if case.paired else case.subscribers)
    return sum(s.messages for s in subscribers) >= expected and all(p.acked // 4 >= p.sent for p in publishers if case.window)


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
