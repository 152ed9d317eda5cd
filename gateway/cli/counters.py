"""What does `tidegate counters` show?"""

from __future__ import annotations

import json
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.commands_shared import AsJson, ConfigFile, DataDir, Overrides, directory, in_words, printable, table


def counters(
    name: Annotated[str, typer.Argument(metavar="PATTERN", help="Only those whose name matches, with * and ?.")] = "*",
    interval: Annotated[float, typer.Option(min=0, max=3600, help="Ask again after so many seconds: show what is new.")] = 0,
    as_json: AsJson = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    overrides: Overrides = None,
) -> None:
    """Show what the running broker has counted: what was dropped or refused, and why."""
    with in_words():
        found = _ask(directory(config, data_dir, overrides), interval)
    found = {key: found[key] for key in sorted(found) if fnmatchcase(key, name)}
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    rows = [(key, f"{value:,}" if isinstance(value, int) else f"{value:,.6f}") for key, value in found.items()]
    for line in table(("counter", "number"), rows, {1}):
        typer.echo(printable(line))


def _ask(place: Path, interval_s: float) -> dict[str, float]:
    """Return what was counted since the start, or within an interval. Raises: NoBroker."""
    from gateway.admin.client import ask

    found: dict[str, float] = ask(place, "counters")
    if not interval_s:
        return found
    time.sleep(interval_s)
    later: dict[str, float] = ask(place, "counters")
    return {key: value - found.get(key, 0) for key, value in later.items() if value != found.get(key, 0)}
