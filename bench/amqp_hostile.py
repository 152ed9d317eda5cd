"""What do others notice of a hostile AMQP client: round trips of a well-behaved one, and memory, without and with each attack?

    python bench/amqp_hostile.py [--seconds 3] [--only NAME,NAME]
    python bench/amqp_hostile.py --sizes

A client (pika) publishes a confirmed message 50 times a second, and gets it. Meanwhile a process of its own attacks. Beside the
round trips stands how long the broker's loop was running meanwhile (CPU time of its main thread): on a machine that has other
things to do, too, only that says what the attack does to others. Memory: before, at most, and two seconds after the attacker
was killed. With `--sizes`: what a connection, a channel and a consumer that do nothing cost.
"""

from __future__ import annotations

import sys

sys.path[0] = sys.path[0].removesuffix("/bench")  # there `queue` would not be the standard library's

import argparse
import multiprocessing
import resource
import threading
import time
from contextlib import suppress
from multiprocessing.synchronize import Event

import pika

from bench import brokers
from bench.amqp_attacks import ATTACKS, Attack, Basic, Queue, drained, opened, said
from bench.hostile import loop_s, percentiles

EVERY_S = 0.02
AFTER_S = 2.0
MANY = 1_000


class RoundTrips(threading.Thread):
    """A client that publishes and gets. ``told``: the time of each round trip, and how long the loop ran."""

    def __init__(self, broker: brokers.Broker, port: int) -> None:
        super().__init__(daemon=True)
        self._broker = broker
        self._connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port, heartbeat=0))
        self._channel = self._connection.channel()
        self._channel.queue_declare("honest", exclusive=True)
        self._channel.confirm_delivery()
        self._ended = False
        self.told: list[tuple[float, float]] = []

    def run(self) -> None:
        number = 0
        while not self._ended:
            ran, sent, number = loop_s(self._broker), time.perf_counter(), number + 1
            self._channel.basic_publish("", "honest", b"%d" % number)
            method, _, body = self._channel.basic_get("honest", auto_ack=True)
            assert method is not None
            assert body == b"%d" % number
            self.told.append((time.perf_counter() - sent, loop_s(self._broker) - ran))
            time.sleep(EVERY_S)

    def end(self) -> None:
        self._ended = True
        self.join(60)
        assert not self.is_alive(), "no answer for a minute"


def measured(broker: brokers.Broker, port: int, seconds: float, attack: Attack) -> str:
    before = broker.resident_kib()
    trips = RoundTrips(broker, port)
    trips.start()
    spawn = multiprocessing.get_context("spawn")
    begins = spawn.Event()
    process = spawn.Process(target=quietly, args=(attack, port, begins), daemon=True)
    process.start()
    begins.wait(30)
    most, until = before, time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.05)
        most = max(most, broker.resident_kib())
    ended = "" if process.is_alive() or attack is nothing else " (the attacker has ended before)"
    process.kill()
    process.join()
    time.sleep(AFTER_S)
    trips.end()
    figures = [*percentiles([took for took, _ in trips.told]), *percentiles([ran for _, ran in trips.told])]
    memory = [before, most, broker.resident_kib()]
    return f"{' | '.join(f'{t * 1e3:.1f}' for t in figures)} | {' / '.join(f'{kib / 1024:.0f}' for kib in memory)}{ended}"


def quietly(attack: Attack, port: int, begins: Event) -> None:
    begins.set()
    with suppress(OSError, AssertionError):
        attack(port)


def nothing(_port: int) -> None:
    """none"""


def sizes(broker: brokers.Broker, port: int) -> None:
    """Say what connections, channels and consumers cost that do nothing."""
    at = broker.resident_kib()
    socks = [opened(port, channels=()) for _ in range(MANY)]
    at = _cost("a connection", broker, at, MANY)
    channels = opened(port, channels=range(1, MANY + 1))
    at = _cost("a channel", broker, at, MANY)
    said(channels, Queue.Declare(queue="q"))
    for number in range(1, MANY + 1):
        said(channels, Basic.Qos(prefetch_count=1), number=number)
        drained(channels)
    time.sleep(1)
    at = _cost("a channel that has said Basic.Qos, more", broker, at, MANY)
    for tag in range(MANY):
        said(channels, Basic.Consume(queue="q", consumer_tag=str(tag)))
    time.sleep(1)
    drained(channels)
    at = _cost("a consumer", broker, at, MANY)
    for number in range(MANY):
        said(channels, Queue.Declare(queue=f"q{number}"))
    time.sleep(1)
    _cost("a queue", broker, at, MANY)
    del socks


def _cost(of: str, broker: brokers.Broker, before: int, count: int) -> int:
    now = broker.resident_kib()
    print(f"{of}: {(now - before) / count:.1f} KiB", flush=True)
    return now


def main() -> None:
    parser = argparse.ArgumentParser(description="round trips beside hostile AMQP clients")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--sizes", action="store_true")
    options = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    attacks = [nothing, *ATTACKS]
    if options.only:
        attacks = [attack for attack in attacks if attack.__name__ in options.only.split(",")]
    if not options.sizes:
        print("| attack | p50 ms | p99 ms | longest ms | of the loop: p50 ms | p99 ms | longest ms | MiB before / most / after |")
        print("|---|---|---|---|---|---|---|---|")
    for attack in attacks:
        port = brokers.free_port()
        with brokers.tidegate(None, "frontend.amqp.enabled=true", f'frontend.amqp.listen=["tcp://127.0.0.1:{port}"]') as broker:
            brokers.wait_for(port, broker.process)
            if options.sizes:
                sizes(broker, port)
                return
            name = "none" if attack is nothing else f"{attack.__name__}: {(attack.__doc__ or '').strip()}"
            print(f"| {name} | {measured(broker, port, options.seconds, attack)} |", flush=True)


if __name__ == "__main__":
    main()
