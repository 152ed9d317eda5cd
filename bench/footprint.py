"""What idle connections cost in memory, and what a long backlog costs: memory, restart, drain.

python bench/footprint.py [--connections 2000] [--messages 1000000]
"""

from __future__ import annotations

import sys

sys.path[0] = sys.path[0].removesuffix("/bench")  # there `queue` would not be the standard library's

import argparse
import resource
import shutil
import struct
import subprocess
import tempfile
import time
from pathlib import Path

from bench import brokers
from bench.wire import connected, field, packet

BODY_BYTES = 100
WINDOW = 2_000
TOPIC = b"backlog/all"


def idle_connections(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, count * 2 + 200)), hard))
    with brokers.tidegate() as broker:
        warm = [connected(broker.port, b"warm%d" % i, clean=True) for i in range(50)]
        time.sleep(0.5)
        before = broker.resident_kib()
        started, cpu_s = time.perf_counter(), broker.cpu_s()
        idle = [connected(broker.port, b"idle%d" % i, clean=True) for i in range(count)]
        seconds = time.perf_counter() - started
        cpu_us = (broker.cpu_s() - cpu_s) / count * 1e6
        time.sleep(1)
        grown = broker.resident_kib() - before
        print(f"{count} idle connections: {grown / 1024:.1f} MiB, {grown / count:.1f} KiB each")
        print(f"one after the other: {count / seconds:,.0f} connects/s, {cpu_us:.0f} us of the broker's CPU each")
        for sock in [*warm, *idle]:
            sock.close()


def subscribe(port: int, client: bytes):
    sock = connected(port, client, clean=False)
    sock.sendall(packet(0x82, b"\0\1" + field(TOPIC) + b"\1"))
    assert sock.recv(5)[:1] == b"\x90"
    return sock


def publish(port: int, count: int) -> float:
    """Publish numbered messages with QoS 1; return messages confirmed per second."""
    sock = connected(port, b"filler", clean=True)
    started = time.perf_counter()
    sent = acked = held = 0
    while acked < count:
        room = min(WINDOW - (sent - acked), count - sent)
        if room >= WINDOW // 4 or (room and sent + room == count):
            numbers = range(sent, sent + room)
            head = field(TOPIC)
            sock.sendall(b"".join([packet(0x32, head + struct.pack("!H", n % 60_000 + 1) + b"%0100d" % n) for n in numbers]))
            sent += room
        got = len(sock.recv(1 << 16)) + held
        acked, held = acked + got // 4, got % 4
    sock.close()
    return count / (time.perf_counter() - started)


def drain(port: int, client: bytes, count: int) -> tuple[float, bool]:
    """Take everything; return messages per second and whether they came in order."""
    sock = connected(port, client, clean=False)
    size = len(packet(0x32, field(TOPIC) + b"\0\0" + b"x" * BODY_BYTES))
    at = 2 + len(field(TOPIC))
    started = time.perf_counter()
    expected, in_order, part = 0, True, b""
    while expected < count:
        data = part + sock.recv(1 << 18)
        whole = len(data) - len(data) % size
        part = data[whole:]
        acks = []
        for start in range(0, whole, size):
            acks.append(b"\x40\x02" + data[start + at : start + at + 2])
            in_order = in_order and int(data[start + at + 2 : start + size]) == expected
            expected += 1
        sock.sendall(b"".join(acks))
    seconds = time.perf_counter() - started
    time.sleep(0.2)
    sock.close()
    return count / seconds, in_order


def backlog(count: int) -> None:
    directory = Path(tempfile.mkdtemp(prefix="tidegate-bench-"))
    try:
        unlimited = f"frontend.mqtt.session_max_messages={count * 2}"
        with brokers.tidegate(None, unlimited, data_dir=directory) as broker:
            subscribe(broker.port, b"away").close()
            before = broker.resident_kib()
            rate = publish(broker.port, count)
            grown = (broker.resident_kib() - before) / 1024
            print(f"backlog of {count:,} x {BODY_BYTES} B: {rate:,.0f} confirmed/s, resident memory grew by {grown:.1f} MiB")
        size = sum(path.stat().st_size for path in directory.iterdir())
        print(f"the file has {size / 1e6:,.0f} MB; restart: {ready_after(directory):.2f} s")
        with brokers.tidegate(None, unlimited, data_dir=directory) as broker:
            before = broker.resident_kib()
            rate, in_order = drain(broker.port, b"away", count)
            grown = (broker.resident_kib() - before) / 1024
            print(f"drained at {rate:,.0f} msg/s, {'in order' if in_order else 'OUT OF ORDER'}, memory grew by {grown:.1f} MiB")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def ready_after(directory: Path) -> float:
    """Return how long `tidegate serve` takes to say `ready`, the start of Python included."""
    port = brokers.free_port()
    command = [sys.executable, "-m", "gateway", "serve", "--data-dir", str(directory), "--set", "frontend.zeromq.enabled=false"]
    command += ["--set", "frontend.amqp.enabled=false", "--set", f'frontend.mqtt.listen=["tcp://127.0.0.1:{port}"]']
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line == "ready\n":
            break
    seconds = time.perf_counter() - started
    brokers.end(process)
    process.stdout.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description="memory of connections and backlogs")
    parser.add_argument("--connections", type=int, default=2_000)
    parser.add_argument("--messages", type=int, default=1_000_000)
    options = parser.parse_args()
    idle_connections(options.connections)
    backlog(options.messages)


if __name__ == "__main__":
    main()
