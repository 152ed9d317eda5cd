"""ZeroMQ through real sockets: PULL to PUSH against libzmq's own proxy in C, and TGP/1; broker on one core, load on the other.

    python bench/zeromq.py [--seconds 2] [--rounds 3] [--only NAME]

The firm figure is CPU per message of the process in the middle. The rate is what one core of Python producers and consumers gets
through it: they are slower than the proxy in C, which is flattered by no figure here and idle for a part of the time.
"""

from __future__ import annotations

import sys

sys.path[0] = sys.path[0].removesuffix("/bench")  # there `queue` would not be the standard library's

import argparse
import multiprocessing
import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import msgspec
import zmq

from bench import brokers

BODY = b"x" * 100
BURST = 200
BINDINGS = '[{exchange="bench", key="#"}]'
PROXY = """
import sys, zmq
context = zmq.Context()
near, far = context.socket(zmq.PULL), context.socket(zmq.PUSH)
near.bind(sys.argv[1]), far.bind(sys.argv[2])
zmq.proxy(near, far)
"""


@dataclass(frozen=True)
class Case:
    name: str
    peers: int = 1
    frames: tuple[bytes, ...] = (BODY,)
    persistent: bool = False
    tgp: bool = False
    batch: int = 0
    ack: str = "handover"


CASES = [
    Case("body, 1 peer"),
    Case("body, 50 peers", peers=50),
    Case("key,body, 1 peer", frames=(b"a.b", BODY)),
    Case("body, journaled", persistent=True),
    Case("pong, 1 peer", ack="pong"),
    Case("pong, 50 peers", peers=50, ack="pong"),
    Case("pong, journaled", persistent=True, ack="pong"),
    Case("tgp publish, confirm, deliver, ack", tgp=True),
    Case("tgp the same, journaled", tgp=True, persistent=True),
    Case("tgp the same, published in batches", tgp=True, batch=100),
    Case("tgp the same, in batches, journaled", tgp=True, persistent=True, batch=100),
]


@dataclass
class Result:
    rate: float
    cpu_us: float


@contextmanager
def proxy(into: str, out_of: str, cores: set[int] | None) -> Iterator[brokers.Broker]:
    command = [sys.executable, "-c", PROXY, into, out_of]
    process = subprocess.Popen(command, preexec_fn=brokers.pinned(cores))  # noqa: PLW1509
    try:
        brokers.wait_for(int(out_of.rpartition(":")[2]), process)
        yield brokers.Broker("zmq.proxy", process, 0)
    finally:
        process.kill()
        process.wait()


def endpoints(case: Case, into: str, out_of: str) -> str:
    if case.tgp:
        return f'frontend.zeromq.endpoint=[{{socket="ROUTER", bind="{into}"}}]'
    frames = "body" if len(case.frames) == 1 else "key,body"
    pull = f'{{socket="PULL", bind="{into}", exchange="bench", frames="{frames}", persistent={str(case.persistent).lower()}}}'
    push = f'{{socket="PUSH", bind="{out_of}", queue="bench", frames="{frames}", ack="{case.ack}", bindings={BINDINGS}}}'
    return f"frontend.zeromq.endpoint=[{pull}, {push}]"


def addresses() -> tuple[str, str]:
    return f"tcp://127.0.0.1:{brokers.free_port()}", f"tcp://127.0.0.1:{brokers.free_port()}"


# -- plain peers


def produce(into: str, case: Case, cores: set[int], go_on) -> None:
    os.sched_setaffinity(0, cores)
    context = zmq.Context()
    sockets = []
    for _ in range(case.peers):
        sockets.append(context.socket(zmq.PUSH))
        sockets[-1].connect(into)
    last = len(case.frames) - 1
    while go_on.is_set():
        for socket in sockets:
            send = super(zmq.Socket, socket).send
            for _ in range(BURST // case.peers or 1):
                for number, frame in enumerate(case.frames):
                    send(frame, int(zmq.SNDMORE) if number < last else 0)
    context.destroy(linger=0)


class Consumers:
    def __init__(self, out_of: str, case: Case) -> None:
        self.context = zmq.Context()
        self.poller = zmq.Poller()
        self.frames = len(case.frames)
        for _ in range(case.peers):
            socket = self.context.socket(zmq.PULL)
            socket.connect(out_of)
            self.poller.register(socket, zmq.POLLIN)

    def count(self, seconds: float) -> int:
        """Return how many messages came within so long."""
        frames, until = 0, time.monotonic() + seconds
        while (rest := until - time.monotonic()) > 0:
            for socket, _ in self.poller.poll(rest * 1000):
                recv = socket.recv
                try:
                    for _ in range(1000):
                        recv(1)
                        frames += 1
                except zmq.Again:
                    pass
        return frames // self.frames

    def close(self) -> None:
        self.context.destroy(linger=0)


def plain(broker: brokers.Broker, case: Case, seconds: float, into: str, out_of: str) -> Result:
    spawn = multiprocessing.get_context("spawn")
    go_on = spawn.Event()
    go_on.set()
    producer = spawn.Process(target=produce, args=(into, case, {0}, go_on))
    consumers = Consumers(out_of, case)
    producer.start()
    try:
        if not any(consumers.count(1.5) for _ in range(10)):
            raise SystemExit("nothing comes through")
        before, started = broker.cpu_s(), time.monotonic()
        count = consumers.count(seconds)
        elapsed, cpu_s = time.monotonic() - started, broker.cpu_s() - before
    finally:
        go_on.clear()
        consumers.count(0.2)
        consumers.close()
        producer.join(5)
        producer.kill()
    return Result(count / elapsed, cpu_s / count * 1e6)


# -- TGP/1


class Tgp:
    """One DEALER that publishes with a window and takes what it published."""

    def __init__(self, address: str, case: Case, window: int = 500) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.connect(address)
        self.window = window
        self.props = None if case.persistent else {"delivery_mode": 1}
        self.batch = case.batch
        self.seq = self.confirmed = self.acked = 0
        self.say(1, 1, 1)
        self.hear()
        self.say(13, 2, "queue", "bench")
        self.hear()
        self.say(6, 3, "bench", "c", 1000)
        self.hear()

    def say(self, *fields: object, body: bytes | None = None) -> None:
        header = msgspec.msgpack.encode(fields)
        self.socket.send_multipart([header] if body is None else [header, body])

    def hear(self) -> list[object]:
        return msgspec.msgpack.decode(self.socket.recv_multipart()[0])

    def run(self, seconds: float) -> int:
        first, until = self.confirmed, time.monotonic() + seconds
        while time.monotonic() < until:
            while self.seq - min(self.confirmed, self.acked) < self.window:
                self.publish()
            self.take()
        return self.confirmed - first

    def publish(self) -> None:
        if self.batch:
            parts = [(len(BODY), "", "bench", self.props)] * self.batch
            self.say(25, self.seq + 1, parts, body=BODY * self.batch)
            self.seq += self.batch
        else:
            self.seq += 1
            self.say(3, self.seq, "", "bench", self.props, body=BODY)

    def take(self) -> None:
        delivered = 0
        self.socket.poll(100)
        while self.socket.poll(0):
            said = self.hear()
            if said[0] == 4:
                self.confirmed = said[1]
            elif said[0] == 8:
                delivered += 1
                self.acked += 1
                last = said[2]
        if delivered:
            self.say(9, "c", last, True)


def tgp(broker: brokers.Broker, case: Case, seconds: float, address: str) -> Result:
    client = Tgp(address, case)
    client.run(0.5)
    before, started = broker.cpu_s(), time.monotonic()
    count = client.run(seconds)
    elapsed, cpu_s = time.monotonic() - started, broker.cpu_s() - before
    client.context.destroy(linger=0)
    return Result(count / elapsed, cpu_s / count * 1e6)


def measure(case: Case, seconds: float, rounds: int) -> dict[str, list[Result]]:
    results: dict[str, list[Result]] = {"tidegate": [], "handover": [], "zmq.proxy": []}
    variants = {"tidegate": case} if case.ack == "handover" else {"tidegate": case, "handover": replace(case, ack="handover")}
    for _ in range(rounds):
        for who, variant in variants.items():
            into, out_of = addresses()
            with brokers.tidegate({1}, "frontend.zeromq.enabled=true", endpoints(variant, into, out_of)) as broker:
                run = tgp(broker, case, seconds, into) if case.tgp else plain(broker, case, seconds, into, out_of)
                results[who].append(run)
        if not case.tgp:
            into, out_of = addresses()
            with proxy(into, out_of, {1}) as middle:
                results["zmq.proxy"].append(plain(middle, case, seconds, into, out_of))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {0})
    print(f"{'case':38} {'who':10} {'messages/s':>11} {'CPU us/message':>15} {'rate / proxy':>13}")
    for case in CASES:
        if arguments.only not in case.name:
            continue
        rates: dict[str, float] = {}
        for who, results in measure(case, arguments.seconds, arguments.rounds).items():
            if results:
                rates[who] = statistics.median(result.rate for result in results)
                cpu_us = statistics.median(result.cpu_us for result in results)
                ratio = f"{rates['tidegate'] / rates[who]:13.2f}" if who != "tidegate" else ""
                print(f"{case.name:38} {who:10} {rates[who]:11,.0f} {cpu_us:15.2f} {ratio}", flush=True)


if __name__ == "__main__":
    main()
