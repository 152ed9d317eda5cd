"""What do others notice of a hostile peer: round trips of a well-behaved client, and memory, without and with each attack?

    python bench/hostile.py [--seconds 4] [--only NAME]

A client publishes to itself 200 times a second (QoS 1). Meanwhile a process of its own attacks.
"""

from __future__ import annotations

import sys

sys.path[0] = sys.path[0].removesuffix("/bench")  # there `queue` would not be the standard library's

import argparse
import multiprocessing
import os
import resource
import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress

from bench import brokers
from bench.wire import connected, field, packet

RATE = 200
MANY = 4_000


def subscribed(port: int, client: bytes, topic: bytes, qos: int = 1) -> socket.socket:
    sock = connected(port, client, clean=True)
    sock.sendall(packet(0x82, b"\0\1" + field(topic) + bytes([qos])))
    assert sock.recv(5)[:1] == b"\x90"
    return sock


def round_trips(port: int, seconds: float) -> list[float]:
    """Return the time from each publish to its own arrival, in seconds, measured from when it was due."""
    sock = subscribed(port, b"pinger", b"ping/me")
    told: list[float] = []
    began = time.perf_counter()
    for number in range(int(RATE * seconds)):
        due = began + number / RATE
        time.sleep(max(0.0, due - time.perf_counter()))
        body = struct.pack("!I", number)
        sock.sendall(packet(0x32, field(b"ping/me") + struct.pack("!H", number % 60_000 + 1) + body))
        data = b""
        while body not in data:
            data += sock.recv(4_096)
        told.append(time.perf_counter() - due)
        at = data.index(body)
        sock.sendall(b"\x40\x02" + data[at - 2 : at])
    sock.close()
    return told


# -- attacks: each runs in a process of its own until it is ended --------------------------------------------------------------


def silent(port: int) -> None:
    """Connections that never say anything, opened again as the broker closes them."""
    held: list[socket.socket] = []
    while True:
        if len(held) >= MANY:
            held.pop(0).close()
        held.append(socket.create_connection(("127.0.0.1", port)))
        if len(held) < MANY:
            continue
        time.sleep(0.002)


def trickled(port: int) -> None:
    """CONNECT packets that come byte by byte."""
    socks = [socket.create_connection(("127.0.0.1", port)) for _ in range(500)]
    data = packet(0x10, field(b"MQTT") + bytes([4, 2, 0, 60]) + field(b"x" * 100))
    for at in range(len(data) - 1):
        for sock in socks:
            with suppress(OSError):
                sock.sendall(data[at : at + 1])
        time.sleep(0.1)
    time.sleep(60)


def storm(port: int) -> None:
    """Connects and leaves as fast as it can."""
    while True:
        connected(port, b"storm", clean=True).close()


def half(port: int) -> None:
    """Large packets that are never finished."""
    socks = [connected(port, b"half%d" % n, clean=True) for n in range(50)]
    front = b"\x30" + bytes([0x80, 0x80, 0x80, 0x01]) + field(b"half")
    for sock in socks:
        sock.sendall(front + b"x" * 1_000_000)
    while True:
        for sock in socks:
            sock.sendall(b"x" * 1_000)
        time.sleep(0.05)


def deaf(port: int) -> None:
    """Subscribers that never read what a fast publisher sends."""
    socks = [subscribed(port, b"deaf%d" % n, b"flood/#") for n in range(20)]
    publisher = connected(port, b"flooder", clean=True)
    body = packet(0x30, field(b"flood/x") + b"y" * 1_000) * 50
    while socks:
        publisher.sendall(body)
        time.sleep(0.002)


def subscriptions(port: int) -> None:
    """100,000 topic filters from one client, and again."""
    sock = connected(port, b"subscriber", clean=True)
    number = 0
    while number < 100_000:
        filters = b"".join(field(b"s/%d/+/x" % n) + b"\1" for n in range(number, number + 100))
        sock.sendall(packet_of(0x82, b"\0\1" + filters))
        number += 100
        while select.select([sock], [], [], 0)[0]:
            if not sock.recv(65_536):
                return
    time.sleep(60)


def levels(port: int) -> None:
    """Topics and filters of thousands of levels."""
    sock = connected(port, b"levels", clean=True)
    topic = b"/".join([b"a"] * 190)
    while True:
        sock.sendall(packet_of(0x82, b"\0\1" + field(b"/".join([b"+"] * 190)) + b"\0"))
        sock.sendall(packet_of(0x30, field(topic) + b"x") * 20)
        while select.select([sock], [], [], 0.002)[0]:
            if not sock.recv(65_536):
                return


def huge(port: int) -> None:
    """Packets of nearly the size that is allowed, one after the other."""
    sock = connected(port, b"huge", clean=True)
    data = packet_of(0x30, field(b"huge") + b"x" * 4_000_000)
    while True:
        sock.sendall(data)
        time.sleep(0.02)


def garbage(port: int) -> None:
    """Random bytes behind a proper CONNECT."""
    while True:
        sock = connected(port, b"garbage", clean=True)
        with suppress(OSError):
            sock.sendall(os.urandom(2_000))
        sock.close()
        time.sleep(0.002)


ATTACKS: list[Callable[[int], None]] = [silent, trickled, storm, half, deaf, subscriptions, levels, huge, garbage]


def packet_of(first: int, body: bytes) -> bytes:
    length, digits = len(body), b""
    while True:
        digits += bytes([length & 127 | (128 if length > 127 else 0)])
        length >>= 7
        if not length:
            return bytes([first]) + digits + body


def measured(port: int, seconds: float, attack: Callable[[int], None] | None) -> list[float]:
    if attack is None:
        return round_trips(port, seconds)
    process = multiprocessing.get_context("fork").Process(target=_quietly, args=(attack, port), daemon=True)
    process.start()
    time.sleep(1.5)
    try:
        return round_trips(port, seconds)
    finally:
        process.terminate()
        process.join()


def _quietly(attack: Callable[[int], None], port: int) -> None:
    with suppress(OSError, AssertionError):
        attack(port)


def main() -> None:
    parser = argparse.ArgumentParser(description="round trips beside hostile peers")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    core = {cores[-1]} if len(cores) > 1 else None
    if core:
        os.sched_setaffinity(0, {cores[0]})
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print("| attack | p50 ms | p99 ms | longest ms | memory of the broker MiB |")
    print("|---|---|---|---|---|")
    for attack in [None, *[attack for attack in ATTACKS if options.only in attack.__name__]]:
        with brokers.tidegate(core) as broker:
            told = sorted(measured(broker.port, options.seconds, attack))
            name = "none" if attack is None else f"{attack.__name__}: {(attack.__doc__ or '').splitlines()[0].rstrip('.')}"
            figures = [told[len(told) // 2], told[int(len(told) * 0.99)], told[-1]]
            print(f"| {name} | {' | '.join(f'{t * 1e3:.2f}' for t in figures)} | {broker.resident_kib() / 1024:.0f} |", flush=True)


if __name__ == "__main__":
    main()
