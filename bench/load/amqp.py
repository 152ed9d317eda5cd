"""Runs the load of bench/amqp.py, and says what it counted."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.load import build, words

SOURCE = Path(__file__).with_name("amqpflood.c")
WRONG = ("lost", "doubled", "disordered", "strange", "refused", "left")
"""What of the last line counts as wrong: `left` is what a queue still held when everything had been acknowledged."""

Phases = dict[str, dict[str, Any]]


def command(port: int, options: dict[str, Any], pids: Iterable[int] = ()) -> list[str]:
    processes = [word for pid in pids for word in ("--pid", str(pid))]
    return [str(build(SOURCE)), "--port", str(port), *processes, *words(options)]


def flood(port: int, options: dict[str, Any], pids: Iterable[int] = (), timeout_s: float = 120.0) -> Phases:
    """Run the load; return what it tells of each phase, by its name: `publish` and `drain`, or `through`; and `whole`.

    Args:
        pids: the broker's processes.

    Raises:
        RuntimeError: the broker closed a connection, or refused something.
    """
    done = subprocess.run(command(port, options, pids), check=False, capture_output=True, text=True, timeout=timeout_s)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return {told.pop("phase"): told for told in map(json.loads, done.stdout.splitlines())}
