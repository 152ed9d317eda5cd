"""What do the figures of bench/amqp.py say: the tables, and which goal is met?"""

from __future__ import annotations

import datetime
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from bench import brokers, mqtt_report
from bench.mqtt_report import cpu_name, is_met, row_of

Medians = dict[str, dict[str, dict[str, float]]]
CONFIRMED, CONSUMED, TRANSIENT = "durable, confirmed, window 1,000", "durable: consume, ack", "transient: publish, deliver, ack"
BEGIN, END = "<!-- measured, AMQP: begin -->", "<!-- measured, AMQP: end -->"


@dataclass(frozen=True)
class Goal:
    """`least` of a peer's rate; without a peer `most` us of CPU, of what is compiled."""

    row: str
    peer: str = ""
    least: float = 0.0
    most: float = 0.0


GOALS = [
    Goal(CONFIRMED, "rabbitmq quorum", least=1.5),
    Goal(CONFIRMED, "rabbitmq classic", least=3),
    Goal(CONSUMED, "rabbitmq quorum", least=1),
    Goal(TRANSIENT, most=10),
]


def text(medians: Medians, names: list[str], rounds: int) -> str:
    return "\n".join([heading(names, rounds), "", *speeds(medians, names), "", *waits(medians, names), "", *goals(medians, names)])


def heading(names: list[str], rounds: int) -> str:
    day = datetime.datetime.now(tz=datetime.UTC).date()
    machine = f"{cpu_name()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    peer = f" RabbitMQ {brokers.versions()['rabbitmq']}." if any(name.startswith("rabbitmq") for name in names) else ""
    return f"{day}, {machine}.{peer} Medians of {rounds} rounds, brokers in turn."


def speeds(medians: Medians, names: list[str]) -> list[str]:
    """CPU per message, and rate."""
    lines = [row_of(["us of CPU per message (messages/s)", *names]), row_of(["---"] * (len(names) + 1))]
    lines += [row_of([row, *[_speed(by[name]) if name in by else "-" for name in names]]) for row, by in medians.items()]
    return lines


def _speed(figures: dict[str, float]) -> str:
    wrong = f" **{figures['wrong']:,.0f} wrong**" if figures["wrong"] else ""
    busy = " *" if figures["busy"] > 0.9 else ""
    return f"{figures['cpu_us']:.2f} ({figures['rate']:,.0f}){busy}{wrong}"


def waits(medians: Medians, names: list[str]) -> list[str]:
    """How long confirms took."""
    rows = {row: by for row, by in medians.items() if row != CONSUMED and any(figures["p50_ms"] for figures in by.values())}
    if not rows:
        return []
    lines = [row_of(["confirm: p50, p99 in ms", *names]), row_of(["---"] * (len(names) + 1))]
    for row, by in rows.items():
        cells = [f"{by[name]['p50_ms']:.2f}, {by[name]['p99_ms']:.2f}" if name in by else "-" for name in names]
        lines.append(row_of([row, *cells]))
    return lines


def goals(medians: Medians, names: list[str]) -> list[str]:
    """Say of each goal whether it is met."""
    lines = []
    for ours in [name for name in names if name.startswith("tidegate")]:
        for goal in GOALS:
            by = medians.get(goal.row, {})
            if ours in by and (goal.peer in by if goal.peer else "pure" not in ours):
                lines.append(_sentence(goal, ours, by))
    return lines


def _sentence(goal: Goal, ours: str, by: dict[str, dict[str, float]]) -> str:
    if not goal.peer:
        cpu_us = by[ours]["cpu_us"]
        met = is_met(cpu_us <= goal.most)
        return f"- {ours}, {goal.row}: {cpu_us:.1f} us of CPU per message, wanted at most {goal.most:.0f}: {met}."
    ratio = by[ours]["rate"] / by[goal.peer]["rate"]
    met = is_met(ratio >= goal.least)
    return f"- {ours}, {goal.row}: {ratio:.2f} x the messages/s of {goal.peer}, wanted at least {goal.least}: {met}."


def write(page: Path, report: str) -> None:
    """Put a report between the marks of a page."""
    mqtt_report.write(page, report, BEGIN, END)
