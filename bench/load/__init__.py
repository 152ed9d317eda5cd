"""Builds the load generators in C that need no library, and runs the one of bench/mqtt.py."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("mqttflood.c")


def place(source: Path) -> Path:
    """Return where the program of a source is, or will be: another one when the source or a header beside it has changed."""
    changed = max(file.stat().st_mtime_ns for file in (source, *source.parent.glob("*.h")))
    return Path(tempfile.gettempdir()) / f"{source.stem}-{os.getuid()}-{changed}"


def compiler() -> str | None:
    return shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")


def build(source: Path = SOURCE) -> Path:
    """Compile a generator, unless that was done already; return the program.

    Raises:
        SystemExit: there is no C compiler.
    """
    program = place(source)
    if not program.exists():
        found = compiler()
        if found is None:
            raise SystemExit(f"bench/load/{source.name} needs a C compiler: there is none")
        new = program.with_suffix(f".{os.getpid()}")
        subprocess.run([found, "-O2", "-Wall", "-Wextra", "-o", str(new), str(source)], check=True)
        new.rename(program)
    return program


def words(options: dict[str, Any]) -> list[str]:
    """Return options as a command line has them: `True` is a flag, `False` is nothing."""
    found: list[str] = []
    for name, value in options.items():
        found += [f"--{name}"] if value is True else [] if value is False else [f"--{name}", str(value)]
    return found


def command(port: int, options: dict[str, Any]) -> list[str]:
    return [str(build()), "--port", str(port), *words(options)]


def flood(port: int, options: dict[str, Any], timeout_s: float = 300.0) -> dict[str, Any]:
    """Run the load; return what it counted.

    Raises:
        RuntimeError: the broker closed a connection, or refused one.
    """
    done = subprocess.run(command(port, options), check=False, capture_output=True, text=True, timeout=timeout_s)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    result: dict[str, Any] = json.loads(done.stdout)
    return result
