"""What do the figures of bench/mqtt.py say: the table, and which goal is met?"""

from __future__ import annotations

import datetime
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from bench import brokers

Medians = dict[str, dict[str, dict[str, float]]]
IDLE_NAME = "idle connections"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


@dataclass(frozen=True)
class Goal:
    """`key`: what is compared with `peer`. `cpu_us` counts the other way round: less is better; so do `kib` and times."""

    case: str
    key: str
    compiled: float
    pure: float
    peer: str = "mosquitto"
    says: str = ""


GOALS = [
    Goal("QoS 0, 1 to 1", "cpu_us", 15, 4),
    Goal("QoS 0, 50 to 1", "cpu_us", 12, 4),
    Goal("QoS 0, 1 to 50", "cpu_us", 30, 12),
    Goal("QoS 1, window 100, clean", "cpu_us", 8, 4),
    Goal("QoS 1, window 1, clean", "cpu_us", 0.9, 0.6),
    Goal("QoS 1, window 100, persistent", "rate", 5, 2.5),
    Goal("QoS 1, subscriber away", "rate", 3.5, 2),
    Goal("QoS 1, window 10, persistent", "rate", 1.3, 1),
    Goal("QoS 1, window 1, persistent", "rate", 0.4, 0.4),
    Goal("QoS 1, window 100, persistent", "rate", 20, 20, "rabbitmq"),
    Goal("1,000 messages/s, QoS 1, 1 to 1", "p50_us", 1.3, 1.5),
    Goal(IDLE_NAME, "connects", 0.8, 0.8),
]
MOST_KIB = 3.0
WORDS = {"cpu_us": "CPU per delivery", "rate": "messages/s", "connects": "connects/s", "p50_us": "p50 of the delivery"}


def text(medians: Medians, names: list[str], rounds: int) -> str:
    return "\n".join([heading(names, rounds), "", *table(medians, names), "", *special(medians, names), "", *goals(medians, names)])


def heading(names: list[str], rounds: int) -> str:
    versions = ", ".join(f"{name}: {version}" for name, version in brokers.versions().items() if name in names)
    day = datetime.datetime.now(tz=datetime.UTC).date()
    machine = f"{cpu_name()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    return f"{day}, {machine}. {versions}. Medians of {rounds} rounds, brokers in turn."


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def row_of(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def table(medians: Medians, names: list[str]) -> list[str]:
    """CPU per delivery, and rate."""
    lines = [row_of(["us of CPU per delivery (messages/s)", *names]), row_of(["---"] * (len(names) + 1))]
    for case, by in medians.items():
        if case == IDLE_NAME or case.startswith("1,000"):
            continue
        cells = [f"{by[name]['cpu_us']:.2f} ({by[name]['rate']:,.0f})" + _lost(by[name]) if name in by else "-" for name in names]
        lines.append(row_of([case, *cells]))
    return lines


def _lost(figures: dict[str, float]) -> str:
    return f" **{figures['lost']:,.0f} wrong**" if figures["lost"] else ""


def special(medians: Medians, names: list[str]) -> list[str]:
    """Times at a fixed rate, and what connections cost."""
    lines = []
    for case, by in medians.items():
        if case.startswith("1,000"):
            lines += [row_of([case, *names]), row_of(["---"] * (len(names) + 1))]
            for key, label in (("p50_us", "p50 us"), ("p99_us", "p99 us"), ("confirm_p50_us", "PUBACK p50 us")):
                lines.append(row_of([label, *[f"{by[name][key]:,.0f}" if name in by else "-" for name in names]]))
        elif case == IDLE_NAME:
            lines += ["", row_of([case, *names]), row_of(["---"] * (len(names) + 1))]
            lines.append(row_of(["connects/s", *[f"{by[name]['connects']:,.0f}" if name in by else "-" for name in names]]))
            lines.append(row_of(["KiB each", *[f"{by[name]['kib']:.2f}" if name in by else "-" for name in names]]))
    return lines


def goals(medians: Medians, names: list[str]) -> list[str]:
    """Say of each goal whether it is met."""
    lines = []
    for ours in [name for name in names if name.startswith("tidegate")]:
        for goal in GOALS:
            by = medians.get(goal.case, {})
            if ours in by and goal.peer in by:
                lines.append(_sentence(goal, ours, by[ours][goal.key], by[goal.peer][goal.key]))
        idle = medians.get(IDLE_NAME, {}).get(ours)
        if idle:
            met = is_met(idle["kib"] <= MOST_KIB)
            lines.append(f"- {ours}, an idle connection: {idle['kib']:.2f} KiB, wanted at most {MOST_KIB}: {met}.")
        lines += _ahead_of_nats(medians, ours)
    return lines


def _sentence(goal: Goal, ours: str, our_figure: float, theirs: float) -> str:
    wanted = goal.pure if "pure" in ours else goal.compiled
    if goal.key == "p50_us":
        ratio = our_figure / max(theirs, 1e-9)
        met = is_met(ratio <= wanted)
        return f"- {ours}, {goal.case}, {WORDS[goal.key]}: {ratio:.2f} x {goal.peer}'s, wanted at most {wanted}: {met}."
    ratio = theirs / max(our_figure, 1e-9) if goal.key == "cpu_us" else our_figure / max(theirs, 1e-9)
    relation = "less than" if goal.key == "cpu_us" else "of"
    return (
        f"- {ours}, {goal.case}, {WORDS[goal.key]}: {ratio:.2f} times {relation} {goal.peer}'s, "
        f"wanted at least {wanted}: {is_met(ratio >= wanted)}."
    )


def _ahead_of_nats(medians: Medians, ours: str) -> list[str]:
    if "pure" in ours:
        return []
    cases = [case for case, by in medians.items() if ours in by and "nats" in by and "cpu_us" in by[ours] and case[:1] == "Q"]
    if not cases:
        return []
    behind = [case for case in cases if medians[case][ours]["cpu_us"] > medians[case]["nats"]["cpu_us"]]
    where = f"; not in {', '.join(behind)}" if behind else ""
    return [f"- {ours}, CPU per delivery less than nats-server's in every row: {is_met(not behind)}{where}."]


def is_met(met: bool) -> str:
    return "yes" if met else "**no**"


def write(page: Path, report: str, begin: str = BEGIN, end: str = END) -> None:
    """Put a report between the marks of a page."""
    old = page.read_text()
    page.write_text(old[: old.index(begin) + len(begin)] + "\n\n" + report + "\n\n" + old[old.index(end) :])
