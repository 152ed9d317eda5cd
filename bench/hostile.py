"""What do others notice of a hostile peer: round trips of a well-behaved client, and memory, without and with each attack?

    python bench/hostile.py [--seconds 4] [--only NAME,NAME]

A client publishes to itself 50 times a second (QoS 1). Meanwhile a process of its own attacks.

Beside the time of each round trip stands how long the broker's loop was running meanwhile (CPU time of its main thread): on a
machine that has other things to do, too, only that says what the attack does to others.
"""

from __future__ import annotations

import sys

sys.path[0] = sys.path[0].removesuffix("/bench")  # there `queue` would not be the standard library's

import argparse
import multiprocessing
import os
import resource
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bench import brokers
from bench.attacks import ATTACKS, subscribed
from bench.wire import field, packet

RATE = 50


def loop_s(broker: brokers.Broker) -> float:
    """Return the CPU time that the main thread of a broker has used."""
    return int(Path(f"/proc/{broker.pid}/task/{broker.pid}/schedstat").read_text().split()[0]) / 1e9


def round_trips(broker: brokers.Broker, seconds: float) -> list[tuple[float, float]]:
    """Return the time from each publish to its own arrival, and how long the loop ran; the next is sent when that is there."""
    sock = subscribed(broker.port, b"pinger", b"ping/me")
    told: list[tuple[float, float]] = []
    began = time.perf_counter()
    for number in range(int(RATE * seconds)):
        due = began + number / RATE
        time.sleep(max(0.0, due - time.perf_counter()))
        ran, sent = loop_s(broker), time.perf_counter()
        if sent > began + 2 * seconds:
            break
        body = struct.pack("!I", number)
        sock.sendall(packet(0x32, field(b"ping/me") + struct.pack("!H", number % 60_000 + 1) + body))
        data = b""
        while body not in data:
            more = sock.recv(4_096)
            assert more, "the broker has closed the connection"
            data += more
        told.append((time.perf_counter() - sent, loop_s(broker) - ran))
        at = data.index(body)
        sock.sendall(b"\x40\x02" + data[at - 2 : at])
    sock.close()
    return told


def measured(broker: brokers.Broker, seconds: float, attack: Callable[[int], None] | None) -> list[tuple[float, float]]:
    if attack is None:
        return round_trips(broker, seconds)
    process = multiprocessing.get_context("fork").Process(target=_quietly, args=(attack, broker.port), daemon=True)
    process.start()
    time.sleep(1.5)
    try:
        return round_trips(broker, seconds)
    finally:
        process.terminate()
        process.join()


def percentiles(told: list[float]) -> tuple[float, float, float]:
    """Return p50, p99 and the longest."""
    told = sorted(told)
    return told[len(told) // 2], told[int(len(told) * 0.99)], told[-1]


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
    print("| attack | p50 ms | p99 ms | longest ms | of the loop: p50 ms | p99 ms | longest ms | broker MiB |")
    print("|---|---|---|---|---|---|---|---|")
    for attack in [None, *[attack for attack in ATTACKS if not options.only or attack.__name__ in options.only.split(",")]]:
        with brokers.tidegate(core) as broker:
            trips = measured(broker, options.seconds, attack)
            name = "none" if attack is None else f"{attack.__name__}: {(attack.__doc__ or '').splitlines()[0].rstrip('.')}"
            figures = [*percentiles([took for took, _ in trips]), *percentiles([ran for _, ran in trips])]
            print(f"| {name} | {' | '.join(f'{t * 1e3:.2f}' for t in figures)} | {broker.resident_kib() / 1024:.0f} |", flush=True)


if __name__ == "__main__":
    main()
