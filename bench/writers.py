"""Who should write the journal beside a loop that others keep busy: a thread, with or without the nap, a process, the loop?

    python bench/writers.py [--seconds 4] [--rounds 3] [--window 1000] [--rate 2000]

The whole broker, in turn with each kind of writer. Two other processes flood it with QoS 0, so that its loop is never idle;
meanwhile one connection publishes with QoS 1 into a persistent session: as fast as a window allows, then at a fixed rate. A
further connection sends PINGREQ all the time: the longest answers are the loop's longest stalls. Nothing is pinned: the nap is
for several cores.
"""

from __future__ import annotations

import sys

sys.path[0] = sys.path[0].removesuffix("/bench")  # there `queue` would not be the standard library's

import argparse
import marshal
import multiprocessing
import os
import select
import shutil
import socket
import statistics
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import trio

from bench import brokers
from bench.confirmed import Mqtt
from bench.wire import connected, field, packet
from gateway.errors import JournalError
from gateway.journal.writer import Writer

VARIANTS = ("thread and nap", "thread, no nap", "process", "inline", "no disk")
_LENGTH = struct.Struct("!Q")


# -- the writers that are not built in --------------------------------------


class Inline(Writer):
    """Writes on the loop's own thread."""

    def put(self, commit: Any, done: Any) -> None:
        done(self._write(commit))


class Process(Writer):
    """Sends the statement to a process with a connection of its own; the loop itself waits for its answers."""

    def __init__(self, path: str, *others: Any, **named: Any) -> None:
        super().__init__(path, *others, **named)
        here, there = socket.socketpair()
        here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
        command = [sys.executable, __file__, "--write", path, str(there.fileno())]
        self._child = subprocess.Popen(command, pass_fds=[there.fileno()])
        there.close()
        self._socket = here
        here.setblocking(False)
        self._under_way: list[tuple[Any, Any]] = []
        self._answers_come = False

    def put(self, commit: Any, done: Any) -> None:
        if not self._answers_come:
            self._answers_come = True
            trio.lowlevel.spawn_system_task(self._hear)
        statement, values = commit.statement(time.time_ns() // 1_000_000)
        data = marshal.dumps((statement, [bytes(v) if isinstance(v, bytearray) else v for v in values]))
        self._under_way.append((commit, done))
        self._send(_LENGTH.pack(len(data)) + data)

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                select.select([], [self._socket], [])

    async def _hear(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            for code in self._socket.recv(4096):
                commit, done = self._under_way.pop(0)
                if code == 1:
                    self._landed(commit, 0.0)
                done(None if code == 1 else JournalError("the process could not write"))

    def stop(self) -> Any:
        self._socket.close()
        self._child.wait()
        return super().stop()


def write_for(path: str, descriptor: int) -> None:
    """Be the process that writes."""
    from gateway.journal.recovery import connect

    connection = connect(Path(path), synchronous="FULL", wal_autocheckpoint=4_000)
    stream = socket.socket(fileno=descriptor).makefile("rwb")
    while head := stream.read(_LENGTH.size):
        statement, values = marshal.loads(stream.read(_LENGTH.unpack(head)[0]))
        connection.execute(statement, values)
        stream.write(b"\1")
        stream.flush()


def serve(variant: str, port: int, directory: str) -> None:
    """Be the broker."""
    import gateway.journal.sqlite
    from gateway.app import run
    from gateway.config import load
    from gateway.runtime.dispatcher import Turns

    if variant in ("process", "inline"):
        gateway.journal.sqlite.Writer = {"process": Process, "inline": Inline}[variant]  # type: ignore[misc]
    if variant != "thread and nap":
        made = Turns.__init__

        def without_naps(self: Turns, *arguments: Any, **named: Any) -> None:
            made(self, *arguments, **named)
            self._naps = False

        Turns.__init__ = without_naps  # type: ignore[method-assign]
    settings = [
        f'frontend.mqtt.listen=["tcp://127.0.0.1:{port}"]',
        "frontend.zeromq.enabled=false",
        "frontend.amqp.enabled=false",
        "log.level=error",
    ]
    if variant == "no disk":
        settings.append("journal.kind=memory")
    raise SystemExit(run(load(None, settings, data_dir=directory)))


# -- the load ---------------------------------------------------------------


def flood(port: int) -> None:
    sock = connected(port, b"flood", clean=True)
    run = packet(0x30, field(b"flood/all") + b"x" * 64) * 64
    while True:
        sock.sendall(run)


def drink(port: int) -> None:
    sock = connected(port, b"drink", clean=True)
    sock.sendall(packet(0x82, b"\0\1" + field(b"flood/#") + b"\0"))
    while sock.recv(1 << 18):
        pass


def measure(port: int, seconds: float, window: int, rate: int) -> tuple[float, float, float, float]:
    """Return confirms/s, p50 and p99 of a confirm in ms, and the longest answer to a PINGREQ in ms. `rate` 0: as fast as may be."""
    peer = Mqtt(port, b"x" * 100)
    ping = connected(port, b"ping", clean=True)
    sock = peer.socket
    sock.setblocking(False)
    started = time.perf_counter()
    sent = confirmed = 0
    marks: list[tuple[int, float]] = []
    waits: list[float] = []
    pinged = longest = 0.0
    rest = outgoing = b""
    while (now := time.perf_counter()) - started < seconds:
        if not pinged:
            pinged = now
            ping.sendall(b"\xc0\0")
        due = int((now - started) * rate) - sent if rate else window // 4
        if not outgoing and due > 0 and sent - confirmed + due <= (window if not rate else 60_000):
            outgoing = peer.portion(sent, due)
            sent += due
            marks.append((sent, now))
        readable, writable, _ = select.select([sock, ping], [sock] if outgoing else [], [], 0.0005 if rate else 1)
        if writable:
            outgoing = outgoing[sock.send(outgoing) :]
        if ping in readable:
            ping.recv(16)
            longest = max(longest, time.perf_counter() - pinged)
            pinged = 0.0
        if sock in readable:
            count, rest = peer.confirms(rest + sock.recv(1 << 20))
            confirmed += count
            now = time.perf_counter()
            while marks and confirmed >= marks[0][0]:
                waits.append(now - marks.pop(0)[1])
    elapsed = time.perf_counter() - started
    peer.end()
    ping.close()
    waits.sort()
    if not waits:
        return 0.0, seconds * 1e3, seconds * 1e3, longest * 1e3
    return confirmed / elapsed, waits[len(waits) // 2] * 1e3, waits[int(len(waits) * 0.99)] * 1e3, longest * 1e3


def one(variant: str, seconds: float, window: int, rate: int) -> list[float]:
    port = brokers.free_port()
    directory = tempfile.mkdtemp(prefix="tidegate-bench-")
    broker = subprocess.Popen([sys.executable, __file__, "--serve", variant, str(port), directory], stdout=subprocess.DEVNULL)
    spawn = multiprocessing.get_context("spawn")
    load = [spawn.Process(target=target, args=(port,), daemon=True) for target in (drink, flood)]
    try:
        brokers.wait_for(port, broker)
        for process in load:
            process.start()
            time.sleep(0.3)
        return [*measure(port, seconds, window, 0), *measure(port, seconds, window, rate)]
    finally:
        for process in load:
            process.kill()
            process.join()
        brokers.end(broker)
        shutil.rmtree(directory, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--window", type=int, default=1_000)
    parser.add_argument("--rate", type=int, default=2_000)
    parser.add_argument("--only", default="")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--write", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve[0], int(arguments.serve[1]), arguments.serve[2])
    if arguments.write:
        return write_for(arguments.write[0], int(arguments.write[1]))
    found: dict[str, list[list[float]]] = {}
    for _ in range(arguments.rounds):
        for variant in VARIANTS:
            if arguments.only in variant:
                found.setdefault(variant, []).append(one(variant, arguments.seconds, arguments.window, arguments.rate))
    print(f"{os.cpu_count()} cores; medians of {arguments.rounds}; confirmed/s, confirm p50 / p99 ms, longest PINGRESP ms")
    print(f"{'':20s}{f'window {arguments.window:,}':>42s}{f'{arguments.rate:,} a second':>42s}")
    for variant, runs in found.items():
        cells = [statistics.median(column) for column in zip(*runs, strict=True)]
        halves = [f"{a:12,.0f} {b:8.1f} /{c:8.1f} {d:9.1f}" for a, b, c, d in (cells[:4], cells[4:])]
        print(f"  {variant:18s}{halves[0]:>42s}{halves[1]:>42s}")
    return None


if __name__ == "__main__":
    main()
