"""Majordomo through real sockets: requests and replies by one gateway; broker on one core, a client and its workers on the other.

    python bench/majordomo.py [--seconds 2] [--rounds 3] [--workers 20]

The firm figure is CPU per request of the gateway: a request that is received, queued, handed to a worker, answered and passed back.
"""

from __future__ import annotations

import sys

sys.path[0] = sys.path[0].removesuffix("/bench")  # there `queue` would not be the standard library's

import argparse
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import zmq

from bench import brokers

Start = Callable[..., AbstractContextManager[brokers.Broker]]

BODY = b"x" * 100
WINDOW = 200


class Load:
    """One DEALER that asks, and many that answer at once."""

    def __init__(self, address: str, version: int, workers: int) -> None:
        self.context = zmq.Context()
        self.client_head = [b"", b"MDPC01", b"echo"] if version == 1 else [b"MDPC02", b"\1", b"echo"]
        self.reply_head = [b"", b"MDPW01", b"\3"] if version == 1 else [b"MDPW02", b"\4"]
        self.request_at = 2 if version == 1 else 1
        self.poller = zmq.Poller()
        self.client = self._socket(address)
        self.workers = [self._socket(address) for _ in range(workers)]
        for worker in self.workers:
            worker.send_multipart([*self.reply_head[:-1], b"\1", b"echo"])
        self.asked = self.answered = 0

    def _socket(self, address: str) -> zmq.Socket[bytes]:
        socket = self.context.socket(zmq.DEALER)
        socket.connect(address)
        self.poller.register(socket, zmq.POLLIN)
        return socket

    def run(self, seconds: float) -> int:
        before, until = self.answered, time.monotonic() + seconds
        while time.monotonic() < until:
            while self.asked - self.answered < WINDOW:
                self.asked += 1
                self.client.send_multipart([*self.client_head, BODY])
            for socket, _ in self.poller.poll(100):
                if socket is self.client:
                    self._take()
                else:
                    self._answer(socket)
        return self.answered - before

    def _take(self) -> None:
        while self.client.get(zmq.EVENTS) & zmq.POLLIN:
            self.client.recv_multipart()
            self.answered += 1

    def _answer(self, worker: zmq.Socket[bytes]) -> None:
        frames = worker.recv_multipart()
        if frames[self.request_at] == b"\2":
            worker.send_multipart([*self.reply_head, *frames[self.request_at + 1 :]])


def endpoint(port: int, *, durable: bool) -> str:
    protocols = '["tgp/1", "mdp/0.1", "mdp/0.2"]'
    more = f"protocols={protocols}, mdp_durable={str(durable).lower()}"
    return f'frontend.zeromq.endpoint=[{{socket="ROUTER", bind="tcp://127.0.0.1:{port}", {more}}}]'


def measure(
    version: int, seconds: float, workers: int, *, durable: bool, start: Start = brokers.tidegate, core: set[int] | None
) -> tuple[float, float]:
    """Return requests per second, and CPU microseconds of the gateway per request."""
    port = brokers.free_port()
    with start(core, "frontend.zeromq.enabled=true", endpoint(port, durable=durable)) as broker:
        load = Load(f"tcp://127.0.0.1:{port}", version, workers)
        load.run(0.5)
        before, started = broker.cpu_s(), time.monotonic()
        count = load.run(seconds)
        elapsed, cpu_s = time.monotonic() - started, broker.cpu_s() - before
        load.context.destroy(linger=0)
    return count / elapsed, cpu_s / count * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=20)
    arguments = parser.parse_args()
    core = {1} if (os.cpu_count() or 1) > 1 else None
    if core:
        os.sched_setaffinity(0, {0})
    print(f"{'case':24} {'requests/s':>11} {'CPU us/request':>15}")
    for version, durable in ((1, False), (2, False), (1, True)):
        results = [
            measure(version, arguments.seconds, arguments.workers, durable=durable, core=core) for _ in range(arguments.rounds)
        ]
        rate, cpu_us = sorted(results)[len(results) // 2]
        print(f"mdp/0.{version}{', durable' if durable else '':16} {rate:11,.0f} {cpu_us:15.2f}")


if __name__ == "__main__":
    main()
