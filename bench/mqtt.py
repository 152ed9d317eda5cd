"""MQTT brokers on the same core under the same load, in turn: which costs how much, and which goal is met?

    python bench/mqtt.py [--rounds 3] [--only NAME] [--peers mosquitto,nats] [--scale 1.0] [--write]
                         [--tidegate compiled=PYTHON --tidegate pure=PYTHON]

Peers that are not installed are left out. The broker has one core, the load generator (bench/load/mqttflood.c) the other.
`--tidegate` names an interpreter in whose environment Tidegate is installed; without it this one is measured.
`--write` puts the tables into docs/performance.md.
"""

from __future__ import annotations

import sys

sys.path[0] = sys.path[0].removesuffix("/bench")  # there `queue` would not be the standard library's

import argparse
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import brokers, load, mqtt_report

Start = Callable[[set[int] | None], AbstractContextManager[brokers.Broker]]


@dataclass(frozen=True)
class Case:
    """One load. `count`: messages per publisher for a broker of mosquitto's speed."""

    name: str
    options: dict[str, Any]
    count: int
    drains: bool = False


def pairs(qos: int, window: int, **more: Any) -> dict[str, Any]:
    return {"publishers": 10, "subscribers": 10, "topics": 10, "qos": qos, "window": window, **more}


CASES = [
    Case("QoS 0, 1 to 1", {}, 250_000),
    Case("QoS 0, 50 to 1", {"publishers": 50, "topics": 50, "wildcard": True}, 5_000),
    Case("QoS 0, 1 to 50", {"subscribers": 50}, 8_000),
    Case("QoS 1, window 100, clean", pairs(1, 100), 12_000),
    Case("QoS 1, window 1, clean", pairs(1, 1), 4_000),
    Case("QoS 1, window 100, persistent", pairs(1, 100, persistent=True), 12_000),
    Case("QoS 1, window 10, persistent", pairs(1, 10, persistent=True), 10_000),
    Case("QoS 1, window 1, persistent", pairs(1, 1, persistent=True), 3_000),
    Case("QoS 1, subscriber away", pairs(1, 100, away=True), 12_000, drains=True),
]
PACED = Case("1,000 messages/s, QoS 1, 1 to 1", {"qos": 1, "rate": 1_000}, 4_000)
IDLE = 5_000

SPEED = {"amqtt": 0.06, "rabbitmq": 0.25, "nats": 2.5, "mosquitto": 1.0}
"""Of mosquitto's: so that every run takes a second or two."""
OURS = 3.0


def starters(options: argparse.Namespace) -> dict[str, Start]:
    """Return who can be started here, by name."""
    found: dict[str, Start] = {}
    for given in options.tidegate or [f"tidegate={sys.executable}"]:
        name, _, python = given.partition("=")
        found[name if name.startswith("tidegate") else f"tidegate {name}"] = brokers.tidegate_of(python)
    peers = brokers.mqtt_peers()
    chosen = options.peers.split(",") if options.peers else peers
    return found | {name: start for name, start in peers.items() if name in chosen}


def speed_of(name: str) -> float:
    return OURS if name.startswith("tidegate") else SPEED[name]


def run_case(broker: brokers.Broker, case: Case, factor: float) -> dict[str, float]:
    """Return rate, CPU per delivery and what was lost."""
    count = max(int(case.count * factor), 50)
    cpu = broker.cpu_s()
    told = load.flood(broker.port, {**case.options, "count": count})
    cpu = broker.cpu_s() - cpu
    delivered = max(told["delivered"], 1)
    return {
        "rate": (told["confirmed"] if case.drains else told["delivered"]) / max(told["seconds"], 1e-9),
        "cpu_us": cpu / delivered * 1e6,
        "lost": told["lost"] + told["doubled"] + told["disordered"],
        "p50_us": told["latency_p50_us"],
        "p99_us": told["latency_p99_us"],
        "confirm_p50_us": told["confirm_p50_us"],
        "confirm_p99_us": told["confirm_p99_us"],
        "drain_rate": delivered / told["drain_seconds"] if told["drain_seconds"] else 0.0,
    }


def run_idle(broker: brokers.Broker, connections: int = IDLE) -> dict[str, float]:
    """Return connections accepted per second, and the memory that each takes."""
    before = broker.resident_kib()
    command = load.command(broker.port, {"idle": connections, "hold": 2})
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    time.sleep(1)
    after = broker.resident_kib()
    process.wait(60)
    return {"connects": json.loads(line)["connects_per_s"], "kib": (after - before) / connections}


Results = dict[str, dict[str, list[dict[str, float]]]]
"""By case and broker: a measurement per round."""


def measure(chosen: Sequence[Case], found: dict[str, Start], options: argparse.Namespace, core: set[int] | None) -> Results:
    results: Results = {}
    for case in chosen:
        for _ in range(options.rounds):
            for name, start in found.items():
                factor = 1.0 if case is PACED else speed_of(name) * options.scale
                _note(
                    results, case.name, name, start, core, lambda broker, case=case, factor=factor: run_case(broker, case, factor)
                )
    if options.only in mqtt_report.IDLE_NAME:
        for _ in range(options.rounds):
            for name, start in found.items():
                _note(results, mqtt_report.IDLE_NAME, name, start, core, run_idle)
    return results


def _note(
    results: Results, case: str, name: str, start: Start, core: set[int] | None, run: Callable[[brokers.Broker], dict[str, float]]
) -> None:
    with start(core) as broker:
        try:
            figures = run(broker)
        except (RuntimeError, OSError) as error:
            print(f"{case:34} {name:18} failed: {error}", flush=True)
            return
    results.setdefault(case, {}).setdefault(name, []).append(figures)
    print(f"{case:34} {name:18} " + "  ".join(f"{key} {value:,.2f}" for key, value in figures.items() if value), flush=True)


def medians(results: Results) -> mqtt_report.Medians:
    return {
        case: {name: {key: statistics.median(r[key] for r in rounds) for key in rounds[0]} for name, rounds in by.items()}
        for case, by in results.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="MQTT brokers in turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the messages per run")
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    parser.add_argument("--peers", default="", help="names between commas; all that are installed, if not given")
    parser.add_argument("--tidegate", action="append", help="NAME=PYTHON: an environment that has Tidegate")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    options = parser.parse_args()
    load.build()
    cores = sorted(os.sched_getaffinity(0))
    core = {cores[-1]} if len(cores) > 1 else None
    if core:
        os.sched_setaffinity(0, {cores[0]})
    found = starters(options)
    chosen = [case for case in [*CASES, PACED] if options.only in case.name]
    report = mqtt_report.text(medians(measure(chosen, found, options, core)), list(found), options.rounds)
    print(report)
    if options.write:
        mqtt_report.write(Path(__file__).parents[1] / "docs" / "performance.md", report)


if __name__ == "__main__":
    main()
