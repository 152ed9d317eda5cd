"""What is seen while the demo runs, on a terminal and elsewhere?"""

from __future__ import annotations

import sys
import time
from collections import deque
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.table import Table

from gateway.cli.demo.tally import Progress, Result

_BARS = " ▁▂▃▄▅▆▇█"
_WIDTH = 40
_SAMPLE_S = 0.25
_EVENTS = 4


class Rates:
    """Samples of three counts, four times a second.

    Attributes: ``confirmed``, ``delivered`` per second and ``depth``, the newest last.
    """

    def __init__(self) -> None:
        self.confirmed: deque[float] = deque([0.0], maxlen=_WIDTH)
        self.delivered: deque[float] = deque([0.0], maxlen=_WIDTH)
        self.depth: deque[float] = deque([0.0], maxlen=_WIDTH)
        self._last = (0.0, 0, 0)

    def sample(self, progress: Progress, now: float) -> bool:
        """Take a sample if it is time; say whether it was."""
        then, confirmed, delivered = self._last
        if now - then < _SAMPLE_S:
            return False
        self._last = (now, len(progress.confirmed), progress.worked.total())
        if then:
            self.confirmed.append((self._last[1] - confirmed) / (now - then))
            self.delivered.append((self._last[2] - delivered) / (now - then))
            self.depth.append(float(progress.depth or 0))
        return True


def sparkline(values: deque[float]) -> str:
    """Draw numbers as a row of bars, the largest as a whole one."""
    top = max(values) or 1.0
    return "".join(_BARS[round(value / top * (len(_BARS) - 1))] for value in values)


class View(Protocol):
    """Who shows the demo. Used with ``with``."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End; the terminal is as it was."""

    def show(self, progress: Progress) -> None:
        """Show how it stands; called ten times a second."""

    def say(self, text: str) -> None:
        """Show one line."""

    def conclude(self, progress: Progress, result: Result) -> None:
        """Show how it ended."""


class LiveView:
    """A picture that changes in place."""

    def __init__(self, seconds: float, console: Console) -> None:
        self._seconds = seconds
        self._console = console
        self._rates = Rates()
        self._begun = time.monotonic()
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.stop()

    def show(self, progress: Progress) -> None:
        """Draw the picture again."""
        if self._rates.sample(progress, time.monotonic()):
            self._live.update(self._picture(progress), refresh=True)

    def _picture(self, progress: Progress) -> Panel:
        rates, table = self._rates, Table.grid(padding=(0, 2))
        table.add_row("broker", "", progress.broker)
        table.add_row("confirmed", f"{len(progress.confirmed):,}", f"{rates.confirmed[-1]:7,.0f}/s  {sparkline(rates.confirmed)}")
        table.add_row("delivered", f"{progress.worked.total():,}", f"{rates.delivered[-1]:7,.0f}/s  {sparkline(rates.delivered)}")
        depth = "?" if progress.depth is None else f"{progress.depth:,}"
        table.add_row("queue depth", depth, f"{'':9}  {sparkline(rates.depth)}")
        table.add_row("redelivered", f"{progress.redelivered:,}", "")
        table.add_row("given back (nack)", f"{progress.nacked:,}", "")
        for event in progress.events[-_EVENTS:]:
            table.add_row("", "", f"[dim]{event}[/dim]")
        passed = time.monotonic() - self._begun
        return Panel(table, title=f"Tidegate demo · {passed:.0f} s (sensors publish for {self._seconds:g} s)", title_align="left")

    def say(self, text: str) -> None:
        """Print a line above the picture."""
        self._live.console.print(text, highlight=False, markup=False)

    def conclude(self, progress: Progress, result: Result) -> None:
        """Print the final table."""
        self._live.stop()
        table = Table(title="After one broker kill (SIGKILL)", title_justify="left", show_header=False)
        table.add_column()
        table.add_column(justify="right")
        for name, count in _rows(progress, result).items():
            colour = "bold red" if result.lost else "bold green"
            table.add_row(name, f"[{colour}]{count:,}[/]" if name == "lost" else f"{count:,}")
        self._console.print(table)
        self._console.print(verdict(result), highlight=False)


class PlainView:
    """A line each second, for logs and pipes."""

    def __init__(self) -> None:
        self._rates = Rates()
        self._begun = self._told = time.monotonic()
        self._events = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def show(self, progress: Progress) -> None:
        """Print new events, and each second how it stands."""
        now = time.monotonic()
        self._rates.sample(progress, now)
        for event in progress.events[self._events :]:
            self.say(event)
        self._events = len(progress.events)
        if now - self._told >= 1.0:
            self._told = now
            depth = "?" if progress.depth is None else progress.depth
            self.say(
                f"{now - self._begun:5.1f} s  confirmed {len(progress.confirmed)} ({self._rates.confirmed[-1]:.0f}/s)  "
                f"delivered {progress.worked.total()} ({self._rates.delivered[-1]:.0f}/s)  depth {depth}  "
                f"redelivered {progress.redelivered}  nacked {progress.nacked}"
            )

    def say(self, text: str) -> None:
        """Print a line."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def conclude(self, progress: Progress, result: Result) -> None:
        """Print the final table."""
        for name, count in _rows(progress, result).items():
            self.say(f"{name:20}{count:>10}")
        self.say(verdict(result))


def _rows(progress: Progress, result: Result) -> dict[str, int]:
    return {
        "confirmed": result.confirmed,
        "delivered": result.delivered,
        "lost": len(result.lost),
        "duplicated": result.duplicated,
        "redelivered": progress.redelivered,
        "waiting at the kill": result.waiting,
        "from disk": result.from_disk,
    }


def verdict(result: Result) -> str:
    """Say in one sentence how it ended."""
    if not result.confirmed:
        return "Nothing was confirmed, so nothing is shown."
    if result.lost:
        return f"{len(result.lost)} confirmed messages were LOST, for instance {', '.join(result.lost[:5])}."
    backlog = (
        f" {result.waiting:,} of them waited in the queue when the broker was killed: all from disk." if result.waiting else ""
    )
    return "Every confirmed message was delivered." + backlog


def make_view(seconds: float) -> LiveView | PlainView:
    """Return the picture for a terminal, lines for anything else."""
    console = Console()
    return LiveView(seconds, console) if console.is_terminal else PlainView()
