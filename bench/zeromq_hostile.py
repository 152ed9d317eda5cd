"""What do others notice of a hostile ZeroMQ peer: round trips of a well-behaved client, and memory, without and with each attack?

    python bench/zeromq_hostile.py [--seconds 4] [--only NAME,NAME]

A TGP client publishes every 10 ms, and waits for the CONFIRM. Meanwhile a process of its own attacks. Beside the round trips stands
how long the broker's loop was running meanwhile (CPU time of its main thread): on a machine that has other things to do, too, only
that says what the attack does to others. Memory: before, at most, and two seconds after the attacker was killed.
"""

from __future__ import annotations

import sys

sys.path[0] = sys.path[0].removesuffix("/bench")  # there `queue` would not be the standard library's

import argparse
import multiprocessing
import resource
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

import zmq

from bench import brokers
from bench.hostile import loop_s, percentiles
from bench.zeromq_attacks import ATTACKS, Ports, ask, greeted

EVERY_S = 0.01
AFTER_S = 2.0
ENDPOINTS = {
    "router": 'socket = "ROUTER", protocols = ["tgp/1", "mdp/0.1", "mdp/0.2"]',
    "pull": 'socket = "PULL", exchange = "amq.topic", frames = "key,body"',
    "headers": 'socket = "PULL", exchange = "amq.topic", frames = "key,headers,body"',
    "xpub": 'socket = "XPUB", exchange = "amq.topic"',
    "pong": 'socket = "PUSH", queue = "work", ack = "pong"',
    "rep": 'socket = "REP", exchange = "", routing_key = "work"',
}


class RoundTrips(threading.Thread):
    """A client that publishes and waits. ``told``: the time of each round trip, and how long the loop ran."""

    def __init__(self, broker: brokers.Broker, port: int) -> None:
        super().__init__(daemon=True)
        self._broker = broker
        self._client = greeted(port)
        self._ended = False
        self.told: list[tuple[float, float]] = []

    def run(self) -> None:
        seq = 0
        while not self._ended:
            ran, sent, seq = loop_s(self._broker), time.perf_counter(), seq + 1
            said = ask(self._client, 3, seq, "amq.direct", "nobody", {"delivery_mode": 1}, body=b"x" * 100)
            assert said[:2] == [4, seq], said
            self.told.append((time.perf_counter() - sent, loop_s(self._broker) - ran))
            time.sleep(EVERY_S)

    def end(self) -> None:
        self._ended = True
        self.join(60)
        assert not self.is_alive(), "no answer for a minute"


def measured(broker: brokers.Broker, ports: Ports, seconds: float, attack: Callable[[Ports], None]) -> str:
    before = broker.resident_kib()
    trips = RoundTrips(broker, ports["router"])
    trips.start()
    process = multiprocessing.get_context("spawn").Process(target=quietly, args=(attack, ports), daemon=True)
    process.start()
    most, until = before, time.monotonic() + seconds + 1.0
    while time.monotonic() < until:
        time.sleep(0.05)
        most = max(most, broker.resident_kib())
    process.kill()
    process.join()
    time.sleep(AFTER_S)
    trips.end()
    figures = [*percentiles([took for took, _ in trips.told]), *percentiles([ran for _, ran in trips.told])]
    memory = [before, most, broker.resident_kib()]
    return f"{' | '.join(f'{t * 1e3:.1f}' for t in figures)} | {' / '.join(f'{kib / 1024:.0f}' for kib in memory)}"


def quietly(attack: Callable[[Ports], None], ports: Ports) -> None:
    with suppress(OSError, zmq.ZMQError):
        attack(ports)


def nothing(_ports: Ports) -> None:
    """none"""


def free_ports() -> Ports:
    """Return a port for each endpoint; as all are held at a time, no two are the same."""
    with ExitStack() as held:
        found = {name: held.enter_context(socket.create_server(("127.0.0.1", 0))) for name in ENDPOINTS}
        return {name: server.getsockname()[1] for name, server in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="round trips beside hostile ZeroMQ peers")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print("| attack | p50 ms | p99 ms | longest ms | of the loop: p50 ms | p99 ms | longest ms | MiB before / most / after |")
    print("|---|---|---|---|---|---|---|---|")
    for attack in [nothing, *ATTACKS]:
        if options.only and attack.__name__ not in options.only.split(","):
            continue
        ports = free_ports()
        tables = ", ".join(
            f'{{ name = "{name}", bind = "tcp://127.0.0.1:{ports[name]}", {rest} }}' for name, rest in ENDPOINTS.items()
        )
        with brokers.tidegate(None, "frontend.zeromq.enabled=true", f"frontend.zeromq.endpoint=[{tables}]") as broker:
            for port in ports.values():
                brokers.wait_for(port, broker.process)
            name = f"{attack.__name__}: {(attack.__doc__ or '').strip()}" if attack is not nothing else "none"
            print(f"| {name} | {measured(broker, ports, options.seconds, attack)} |", flush=True)


if __name__ == "__main__":
    main()
