"""AMQP 0-9-1 brokers on the same core under the same load, in turn: which costs how much, and which goal is met?

    python bench/amqp.py [--rounds 3] [--seconds 1.5] [--only NAME] [--peers classic,quorum] [--write]
                         [--tidegate compiled=PYTHON --tidegate pure=PYTHON]

RabbitMQ is left out where it is not installed (Debian: rabbitmq-server). Each measurement has a broker of its own, on one core;
the load (bench/load/amqpflood.c) has the other. `--tidegate` names an interpreter in whose environment Tidegate is installed;
without it this one is measured. `--write` puts the tables into docs/performance.md.
"""

from __future__ import annotations

import sys

sys.path[0] = sys.path[0].removesuffix("/bench")  # there `queue` would not be the standard library's

import argparse
import os
import statistics
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import amqp_report, brokers
from bench.amqp_report import CONFIRMED, CONSUMED, TRANSIENT
from bench.load import amqp as load

WARM_S = 0.5


@dataclass(frozen=True)
class Case:
    """One load. `phase`: of which the figures are told."""

    name: str
    options: dict[str, Any]
    phase: str = "through"

    @property
    def durable(self) -> bool:
        """Whether quorum queues can take part."""
        return "persistent" in self.options


AWAY = {"persistent": True, "away": True, "window": 1_000, "prefetch": 1_000}
FLOW = {"lag": 1_000, "prefetch": 1_000}
BACKLOG = 100_000
"""Messages that wait for who consumes: as many for each broker."""

CASES = [
    Case(CONFIRMED, AWAY, "publish"),
    Case("durable, confirmed, window 1", {**AWAY, "window": 1}, "publish"),
    Case("durable, confirmed, 10 publishers, window 100 each", {**AWAY, "window": 100, "publishers": 10}, "publish"),
    Case(CONSUMED, {**AWAY, "fill": BACKLOG}, "drain"),
    Case("durable: publish, confirm, deliver, ack", {**FLOW, "persistent": True, "window": 1_000}),
    Case(
        "durable: publish, confirm, deliver, ack; 10 consumers, prefetch 1",
        {**FLOW, "persistent": True, "window": 1_000, "prefetch": 1, "consumers": 10},
    ),
    Case(TRANSIENT, FLOW),
    Case(f"{TRANSIENT}, 10 publishers", {**FLOW, "publishers": 10}),
    Case("transient, bodies of 100 kB: publish, deliver, ack", {"lag": 10, "prefetch": 10, "size": 100_000}),
    Case("transient: publish, deliver without acks", {"lag": 1_000, "no-ack": True}),
    Case("transient, 1 to 50 queues: deliver, ack", {**FLOW, "fanout": True, "queues": 50, "consumers": 50}),
]


@dataclass(frozen=True)
class Contestant:
    """`start`: gives the broker and its AMQP port."""

    name: str
    start: Callable[[set[int] | None], AbstractContextManager[tuple[brokers.Broker, int]]]
    queue_type: str = "classic"


def tidegate(python: str) -> Callable[[set[int] | None], AbstractContextManager[tuple[brokers.Broker, int]]]:
    """Return what starts the Tidegate of an environment."""

    @contextmanager
    def start(core: set[int] | None) -> Iterator[tuple[brokers.Broker, int]]:
        port = brokers.free_port()
        listen = ("frontend.amqp.enabled=true", f'frontend.amqp.listen=["tcp://127.0.0.1:{port}"]')
        with brokers.tidegate(core, *listen, python=python) as broker:
            brokers.wait_for(port, broker.process)
            yield broker, port

    return start


@contextmanager
def rabbitmq(core: set[int] | None) -> Iterator[tuple[brokers.Broker, int]]:
    with brokers.rabbitmq(core) as broker:
        yield broker, broker.port


def contestants(given: Sequence[str], peers: Sequence[str]) -> list[Contestant]:
    found = []
    for pair in given or [f"tidegate={sys.executable}"]:
        name, _, python = pair.partition("=")
        found.append(
            Contestant(name if name.startswith("tidegate") else f"tidegate {name}", tidegate(str(Path(python).absolute())))
        )
    if brokers.rabbitmq_script() is not None:
        found += [Contestant(f"rabbitmq {peer}", rabbitmq, peer) for peer in peers if peer]
    return found


Results = dict[str, dict[str, list[dict[str, float]]]]
"""By row and contestant: a measurement per round."""


def run_case(contestant: Contestant, case: Case, seconds: float, core: set[int] | None) -> dict[str, float]:
    """Return what was measured."""
    options = {**case.options, "seconds": seconds, "warm": min(WARM_S, seconds), "type": contestant.queue_type}
    with contestant.start(core) as (broker, port):
        told = load.flood(port, options, broker.pids())
    return _figures(told[case.phase], sum(told["whole"][key] for key in load.WRONG))


def _figures(phase: dict[str, float], wrong: float) -> dict[str, float]:
    if not phase["count"]:
        raise RuntimeError("nothing came through while it was measured")
    return {
        "rate": phase["count"] / phase["seconds"],
        "cpu_us": phase["cpu_s"] / phase["count"] * 1e6,
        "busy": phase["busy"],
        "p50_ms": phase["p50_us"] / 1e3,
        "p99_ms": phase["p99_us"] / 1e3,
        "wrong": wrong,
    }


def measure(chosen: Sequence[Case], found: Sequence[Contestant], options: argparse.Namespace, core: set[int] | None) -> Results:
    results: Results = {}
    for case in chosen:
        for _ in range(options.rounds):
            for contestant in found:
                if case.durable or contestant.queue_type == "classic":
                    _note(results, case, contestant, options.seconds, core)
    return results


def _note(results: Results, case: Case, contestant: Contestant, seconds: float, core: set[int] | None) -> None:
    try:
        figures = run_case(contestant, case, seconds, core)
    except (RuntimeError, OSError, SystemExit, subprocess.TimeoutExpired) as error:
        print(f"{case.name:52} {contestant.name:18} failed: {error}", flush=True)
        return
    results.setdefault(case.name, {}).setdefault(contestant.name, []).append(figures)
    told = "  ".join(f"{key} {value:,.2f}" for key, value in figures.items() if value)
    print(f"{case.name:52} {contestant.name:18} {told}", flush=True)


def medians(results: Results) -> amqp_report.Medians:
    return {
        row: {name: {key: statistics.median(r[key] for r in rounds) for key in rounds[0]} for name, rounds in by.items()}
        for row, by in results.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="AMQP 0-9-1: brokers in turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="that publishing is measured")
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    parser.add_argument("--peers", default="classic,quorum", help="RabbitMQ's sorts of queues")
    parser.add_argument("--tidegate", action="append", help="NAME=PYTHON: an environment that has Tidegate")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    options = parser.parse_args()
    load.build(load.SOURCE)
    cores = sorted(os.sched_getaffinity(0))
    core = {cores[-1]} if len(cores) > 1 else None
    if core:
        os.sched_setaffinity(0, {cores[0]})
    found = contestants(options.tidegate or [], options.peers.split(","))
    chosen = [case for case in CASES if options.only in case.name]
    results = measure(chosen, found, options, core)
    report = amqp_report.text(medians(results), [contestant.name for contestant in found], options.rounds)
    print(report)
    if options.write:
        amqp_report.write(Path(__file__).parents[1] / "docs" / "performance.md", report)


if __name__ == "__main__":
    main()
