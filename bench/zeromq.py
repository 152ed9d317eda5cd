"""ZeroMQ gateways on the same core under the same load, in turn: which costs how much, what is lost, and which goal is met?

    python bench/zeromq.py [--seconds 1.5] [--rounds 3] [--only NAME] [--write]
                           [--tidegate compiled=PYTHON --tidegate pure=PYTHON]

The gateway has one core, the load (bench/load/zmqflood.c; without a compiler zmqflood.py, and it is said so) the other.
`--tidegate` names an interpreter in whose environment Tidegate is installed; without it this one is measured.
`--write` puts the tables into docs/performance.md and docs/zeromq-pong.md.
"""

from __future__ import annotations

import sys

sys.path[0] = sys.path[0].removesuffix("/bench")  # there `queue` would not be the standard library's

import argparse
import array
import functools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import brokers, majordomo, zeromq_deaths, zeromq_report, zeromq_settings
from bench.load import zeromq as load

Figures = dict[str, float]
Results = dict[str, dict[str, list[Figures]]]
"""By row and who: a measurement per round."""

DEATHS = 10
"""Workers that are killed per round."""


@dataclass(frozen=True)
class Pipe:
    """PULL -> queue -> PUSH."""

    name: str
    peers: int = 1
    frames: int = 1
    persistent: bool = False


@dataclass(frozen=True)
class Routed:
    """One DEALER publishes by TGP/1, another one consumes."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    loop: bool = False
    asyncio: bool = False


PIPES = [
    Pipe("body, 1 peer"),
    Pipe("body, 50 peers", peers=50),
    Pipe("key,body, 1 peer", frames=2),
    Pipe("body, 1 peer, journaled", persistent=True),
    Pipe("body, 50 peers, journaled", peers=50, persistent=True),
]
ROUTED = [
    Routed("publish, deliver", {"flood": True}, loop=True, asyncio=True),
    Routed("publish, confirm, deliver, ack", asyncio=True),
    Routed("the same, each acked alone", {"each": True}, asyncio=True),
    Routed("the same, published in batches", {"batch": 100}),
    Routed("publish, confirm, deliver, ack, journaled", {"persistent": True}),
    Routed("the same, published in batches, journaled", {"persistent": True, "batch": 100}),
]
MAJORDOMO = [(1, False), (2, False), (1, True)]
TICKING = [("handover, 1 peer", "handover", 1, False), ("pong, 50 peers", "pong", 50, False), ("pong, journaled", "pong", 1, True)]
TICKING_TGP = "TGP/1, journaled"


class Round:
    """One round of everything that was chosen, each in turn.

    Args:
        tidegates: interpreters by name.
        core: where gateways run.
    """

    def __init__(self, tidegates: dict[str, str], core: set[int] | None, seconds: float, only: str) -> None:
        self.tidegates = tidegates
        self.core = core
        self.seconds = seconds
        self.only = only

    def rows(self) -> Iterator[tuple[str, str, Callable[[], Figures]]]:
        """Yield row, who, and what measures that."""
        for case in PIPES:
            for who, run in self._pipe(case):
                yield f"{zeromq_report.PIPE}: {case.name}", who, run
        for routed in ROUTED:
            for who, run in self._routed(routed):
                yield f"{zeromq_report.ROUTER}: {routed.name}", who, run
        for name, python in self.tidegates.items():
            start = functools.partial(brokers.tidegate, python=python)
            for version, durable in MAJORDOMO:
                row = f"{zeromq_report.MAJORDOMO}: 0.{version}{', durable' if durable else ''}"
                yield row, name, functools.partial(self._majordomo, start, version, durable=durable)
            for row, ack, peers, persistent in TICKING:
                yield (
                    f"{zeromq_report.TICKER}: {row}",
                    name,
                    functools.partial(self._ticker, python, ack, peers, persistent=persistent),
                )
            yield f"{zeromq_report.TICKER}: {TICKING_TGP}", name, functools.partial(self._ticker, python, "", 1, persistent=True)
            for row, measure in (("TGP/1", zeromq_deaths.known_tgp), ("pong", zeromq_deaths.known_pong)):
                yield (
                    f"{zeromq_report.DEATH}: {row}",
                    name,
                    lambda start=start, measure=measure: zeromq_deaths.summary(measure(start, self.core, DEATHS)),
                )

    def chosen(self) -> Iterator[tuple[str, str, Callable[[], Figures]]]:
        return (row for row in self.rows() if self.only in row[0])

    def _pipe(self, case: Pipe) -> Iterator[tuple[str, Callable[[], Figures]]]:
        for name, python in self.tidegates.items():
            for ack in ("handover", "pong"):
                yield f"{name}, {ack}", functools.partial(self._through_tidegate, case, python, ack)
        if not case.persistent:
            yield (
                zeromq_report.ASYNCIO,
                lambda: self._through(case, lambda into, out: zeromq_settings.with_asyncio("pipe", into, out)),
            )
            yield zeromq_report.PROXY, lambda: self._through(case, zeromq_settings.zmq_proxy)

    def _load(self, case: Pipe, broker: brokers.Broker, into: str, out: str) -> Figures:
        options = {"into": into, "out": out, "peers": case.peers, "frames": case.frames, "seconds": self.seconds}
        return load.flood(broker, "pipe", options)

    def _through_tidegate(self, case: Pipe, python: str, ack: str) -> Figures:
        into, out = zeromq_settings.address(), zeromq_settings.address()
        frames = "body" if case.frames == 1 else "key,body"
        settings = zeromq_settings.pipe(into, out, frames=frames, persistent=case.persistent, push=f'ack="{ack}"')
        start = functools.partial(brokers.tidegate, python=python)
        with zeromq_settings.tidegate(start, self.core, settings, into, out) as broker:
            return self._load(case, broker, into, out)

    def _through(self, case: Pipe, command: Callable[[str, str], list[str]]) -> Figures:
        into, out = zeromq_settings.address(), zeromq_settings.address()
        with zeromq_settings.other(command(into, out), out, self.core) as broker:
            return self._load(case, broker, into, out)

    def _routed(self, case: Routed) -> Iterator[tuple[str, Callable[[], Figures]]]:
        for name, python in self.tidegates.items():
            yield name, functools.partial(self._tgp, case, python)
        if case.asyncio:
            yield (
                zeromq_report.ASYNCIO,
                functools.partial(self._other_router, case, lambda into: zeromq_settings.with_asyncio("router", into)),
            )
        if case.loop and load.program() is not None:
            yield (
                zeromq_report.LOOP,
                functools.partial(self._other_router, case, lambda into: load.command("loop", {"into": into}), plain=True),
            )

    def _tgp(self, case: Routed, python: str) -> Figures:
        into = zeromq_settings.address()
        start = functools.partial(brokers.tidegate, python=python)
        with zeromq_settings.tidegate(start, self.core, zeromq_settings.router(into), into) as broker:
            return load.flood(broker, "tgp", {"into": into, "seconds": self.seconds, **case.options})

    def _other_router(self, case: Routed, command: Callable[[str], list[str]], *, plain: bool = False) -> Figures:
        into = zeromq_settings.address()
        more = {"plain": True} if plain else {}
        with zeromq_settings.other(command(into), into, self.core) as broker:
            return load.flood(broker, "tgp", {"into": into, "seconds": self.seconds, **case.options, **more})

    def _majordomo(self, start: zeromq_settings.Start, version: int, *, durable: bool) -> Figures:
        rate, cpu_us = majordomo.measure(version, self.seconds, 20, durable=durable, start=start, core=self.core)
        return {"rate": rate, "cpu_us": cpu_us}

    def _ticker(self, python: str, ack: str, peers: int, *, persistent: bool) -> Figures:
        into, out = zeromq_settings.address(), zeromq_settings.address()
        settings = (
            zeromq_settings.pipe(into, out, persistent=persistent, push=f'ack="{ack}"') if ack else zeromq_settings.router(into)
        )
        with tempfile.TemporaryDirectory(prefix="tidegate-ticks-") as directory:
            file = Path(directory) / "ticks"
            program = (str(Path(__file__).parent / "load" / "ticking.py"), str(file))
            start = functools.partial(brokers.tidegate, python=python, program=program)
            with zeromq_settings.tidegate(start, self.core, settings, into) as broker:
                time.sleep(0.3)
                idle_from = time.monotonic()
                time.sleep(0.7)
                idle_until = time.monotonic()
                options = {"into": into, "seconds": self.seconds, "persistent": persistent}
                if ack:
                    options = {"into": into, "out": out, "seconds": self.seconds, "peers": peers}
                told = load.flood(broker, "pipe" if ack else "tgp", options)
            ticks = array.array("d")
            ticks.frombytes(file.read_bytes())
        idle, flooded = _between(ticks, idle_from, idle_until), _between(ticks, told["began"], told["ended"])
        return {
            "idle_p99_ms": idle[int(len(idle) * 0.99)],
            "p50_ms": flooded[len(flooded) // 2],
            "p99_ms": flooded[int(len(flooded) * 0.99)],
            "worst_ms": flooded[-1],
        }


def _between(ticks: array.array[float], begin: float, end: float) -> list[float]:
    """Return the delays in ms, the smallest first, of ticks in that time."""
    delays = sorted(delay * 1e3 for at, delay in zip(ticks[::2], ticks[1::2], strict=True) if begin <= at <= end)
    if not delays:
        raise RuntimeError("the broker's loop stood still")
    return delays


def _note(results: Results, row: str, who: str, measure: Callable[[], Figures]) -> None:
    try:
        figures = measure()
    except (RuntimeError, OSError, SystemExit) as error:
        print(f"{row:58} {who:20} failed: {error}", flush=True)
        return
    results.setdefault(row, {}).setdefault(who, []).append(figures)
    told = "  ".join(f"{key} {value:,.2f}" for key, value in figures.items() if key in zeromq_report.KEYS)
    print(f"{row:58} {who:20} {told}", flush=True)


def _lose(results: Results, tidegates: dict[str, str], core: set[int] | None, only: str) -> None:
    """Count losses, once: that is no question of speed."""
    for sort in zeromq_deaths.SORTS:
        row = f"{zeromq_report.LOSSES}: {sort.name}"
        if only in row:
            name, python = next(iter(tidegates.items()))
            start = functools.partial(brokers.tidegate, python=python)
            _note(results, row, name, lambda sort=sort, start=start: zeromq_deaths.losses(sort, start, core))


def medians(results: Results) -> zeromq_report.Medians:
    return {
        row: {
            who: {key: statistics.median(r[key] for r in rounds) for key in rounds[0] if key in zeromq_report.KEYS}
            for who, rounds in by.items()
        }
        for row, by in results.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="ZeroMQ: gateways in turn")
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="run the rows whose name contains this")
    parser.add_argument("--tidegate", action="append", help="NAME=PYTHON: an environment that has Tidegate")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md and docs/zeromq-pong.md")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    core = {cores[-1]} if len(cores) > 1 else None
    if core:
        os.sched_setaffinity(0, {cores[0]})
    given = [pair.partition("=") for pair in options.tidegate or []]
    tidegates = {name: str(Path(python).absolute()) for name, _, python in given} or {"tidegate": sys.executable}
    in_c = load.program() is not None
    results: Results = {}
    chosen = list(Round(tidegates, core, options.seconds, options.only).chosen())
    for _ in range(options.rounds):
        for row, who, measure in chosen:
            _note(results, row, who, measure)
    _lose(results, tidegates, core, options.only)
    report = zeromq_report.Report(medians(results), list(tidegates), options.rounds, in_c=in_c)
    print(report.text())
    if options.write:
        docs = Path(__file__).parents[1] / "docs"
        zeromq_report.write(docs / "performance.md", report.text())
        zeromq_report.write(docs / "zeromq-pong.md", report.pong())


if __name__ == "__main__":
    main()
