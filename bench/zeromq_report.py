"""What do the figures of bench/zeromq.py say: the tables, and which goal is met?"""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import zmq

from bench.mqtt_report import cpu_name, is_met, row_of

Medians = dict[str, dict[str, dict[str, float]]]
KEYS = frozenset(
    {"rate", "cpu_us", "busy", "idle_p99_ms", "p50_ms", "p99_ms", "worst_ms", "messages", "kills", "lost", "twice", "allowed"}
)
PIPE, ROUTER, MAJORDOMO, TICKER, DEATH, LOSSES = "PULL to PUSH", "ROUTER", "Majordomo", "ticker", "death", "losses"
PROXY, LOOP, ASYNCIO = "zmq_proxy", "ROUTER in C", "zmq.asyncio"
BEGIN, END = "<!-- measured, ZeroMQ: begin -->", "<!-- measured, ZeroMQ: end -->"


@dataclass(frozen=True)
class Goal:
    """`ack`: which of Tidegate's ways. `least` of another's rate, or `most` of another's CPU; without `peer`, `most` us of CPU."""

    row: str
    peer: str = ""
    least: float = 0.0
    most: float = 0.0
    ack: str = ""


CONFIRMED = f"{ROUTER}: publish, confirm, deliver, ack"
GOALS = [
    Goal(f"{PIPE}: body, 1 peer", PROXY, least=0.35, ack="handover"),
    Goal(f"{PIPE}: body, 50 peers", PROXY, least=0.2, ack="handover"),
    Goal(f"{PIPE}: body, 1 peer", PROXY, least=0.5, ack="pong"),
    Goal(f"{PIPE}: body, 1 peer", PROXY, most=2, ack="pong"),
    Goal(f"{PIPE}: body, 50 peers", PROXY, least=0.5, ack="pong"),
    Goal(f"{PIPE}: body, 50 peers", PROXY, most=2, ack="pong"),
    Goal(f"{ROUTER}: publish, deliver", LOOP, least=0.25),
    Goal(f"{ROUTER}: publish, deliver", ASYNCIO, least=10),
    Goal(CONFIRMED, ASYNCIO, least=10),
    Goal(CONFIRMED, most=20),
    Goal(f"{CONFIRMED}, journaled", most=20),
]
MOST_TICK_MS = 5.0
MOST_DEATH_MS = 10.0


@dataclass(frozen=True)
class Report:
    """Medians, for the environments that were measured."""

    medians: Medians
    names: list[str]
    rounds: int
    in_c: bool

    def text(self) -> str:
        """Return the tables for docs/performance.md."""
        lines = [self.heading(), ""]
        for sort in (PIPE, ROUTER, MAJORDOMO):
            lines += self.speeds(sort)
        for sort, keys in _KEYS_OF.items():
            lines += self.figures(sort, keys)
        return "\n".join([*lines, *self.goals()])

    def pong(self) -> str:
        """Return the table for docs/zeromq-pong.md."""
        return "\n".join([self.heading(), "", *self.speeds(PIPE)]).rstrip()

    def heading(self) -> str:
        day = datetime.datetime.now(tz=datetime.UTC).date()
        machine = (
            f"{cpu_name()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
        )
        versions = f"pyzmq {zmq.__version__}, libzmq {zmq.zmq_version()}"
        by = "in C" if self.in_c else "in **Python**, for want of a compiler: it is slower than the proxy, which ratios flatter"
        return f"{day}, {machine}; {versions}. Medians of {self.rounds} rounds, all in turn. The load is {by}."

    def rows(self, sort: str) -> Iterator[tuple[str, dict[str, dict[str, float]]]]:
        """Yield the rows of a table, with their names in it."""
        for row, by in self.medians.items():
            table, _, name = row.partition(": ")
            if table == sort:
                yield name, by

    def speeds(self, sort: str) -> list[str]:
        """Return a table of CPU and rate."""
        rows = list(self.rows(sort))
        whos = list(dict.fromkeys(who for _, by in rows for who in by))
        if not rows:
            return []
        lines = [row_of([f"{sort}: us of CPU per message (messages/s)", *whos]), row_of(["---"] * (len(whos) + 1))]
        for name, by in rows:
            reference = by.get(PROXY) or by.get(LOOP)
            lines.append(row_of([name, *[_speed(by[who], reference) if who in by else "-" for who in whos]]))
        return [*lines, ""]

    def figures(self, sort: str, keys: dict[str, str]) -> list[str]:
        """Return a table with a line for each row and environment."""
        rows = [(name, who, figures) for name, by in self.rows(sort) for who, figures in by.items()]
        if not rows:
            return []
        lines = [row_of([sort, "who", *keys.values()]), row_of(["---"] * (len(keys) + 2))]
        lines += [row_of([name, who, *[_figure(key, figures[key]) for key in keys]]) for name, who, figures in rows]
        return [*lines, ""]

    def goals(self) -> list[str]:
        """Say of each goal whether it is met."""
        lines = []
        for ours in self.names:
            for goal in GOALS:
                by = self.medians.get(goal.row, {})
                who = f"{ours}, {goal.ack}" if goal.ack else ours
                if who in by and (not goal.peer or goal.peer in by):
                    lines.append(_sentence(goal, who, by))
            for sort, key, most, says in _LIMITS:
                for name, by in self.rows(sort):
                    if ours in by:
                        met = is_met(by[ours][key] < most)
                        lines.append(
                            f"- {ours}, {sort}, {name}: {says} {by[ours][key]:.1f} ms, wanted less than {most:.0f}: {met}."
                        )
        return lines + list(self._losses())

    def _losses(self) -> Iterator[str]:
        for name, by in self.rows(LOSSES):
            for who, figures in by.items():
                if figures["allowed"] >= 0:
                    met = is_met(figures["lost"] <= figures["allowed"])
                    lost, allowed = f"{figures['lost']:,.0f}", f"{figures['allowed']:,.0f}"
                    yield f"- {who}, workers killed, {name}: {lost} lost, allowed {allowed}: {met}."


_KEYS_OF = {
    TICKER: {"idle_p99_ms": "idle: p99 ms", "p50_ms": "flooded: p50 ms", "p99_ms": "p99 ms", "worst_ms": "worst ms"},
    DEATH: {"p50_ms": "p50 ms", "worst_ms": "worst ms"},
    LOSSES: {"messages": "messages", "kills": "killed", "lost": "lost", "twice": "done twice", "allowed": "may be lost"},
}
_LIMITS = [(TICKER, "p99_ms", MOST_TICK_MS, "p99"), (DEATH, "worst_ms", MOST_DEATH_MS, "worst")]


def _speed(figures: dict[str, float], reference: dict[str, float] | None) -> str:
    ratio = f"; {figures['rate'] / reference['rate']:.2f}" if reference not in (None, figures) else ""
    busy = " *" if figures.get("busy", 0.0) > 0.9 else ""
    return f"{figures['cpu_us']:.2f} ({figures['rate']:,.0f}{ratio}){busy}"


def _figure(key: str, value: float) -> str:
    if key.endswith("_ms"):
        return f"{value:.1f}"
    return "-" if value < 0 else f"{value:,.0f}"


def _sentence(goal: Goal, who: str, by: dict[str, dict[str, float]]) -> str:
    ours = by[who]
    if not goal.peer:
        met = is_met(ours["cpu_us"] <= goal.most)
        return f"- {who}, {goal.row}: {ours['cpu_us']:.1f} us of CPU per message, wanted at most {goal.most}: {met}."
    theirs = by[goal.peer]
    if goal.least:
        ratio = ours["rate"] / theirs["rate"]
        met = is_met(ratio >= goal.least)
        return f"- {who}, {goal.row}: {ratio:.2f} x the messages/s of {goal.peer}, wanted at least {goal.least}: {met}."
    ratio = ours["cpu_us"] / max(theirs["cpu_us"], 1e-9)
    return f"- {who}, {goal.row}: {ratio:.2f} x the CPU of {goal.peer}, wanted at most {goal.most}: {is_met(ratio <= goal.most)}."


def write(page: Path, report: str) -> None:
    """Put a report between the marks of a page."""
    old = page.read_text()
    page.write_text(old[: old.index(BEGIN) + len(BEGIN)] + "\n\n" + report + "\n\n" + old[old.index(END) :])
