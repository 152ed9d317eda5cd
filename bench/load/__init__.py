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


def build(source: Path = SOURCE) -> Path:
    """Compile a generator, unless that was done already; return the program.

    Raises:
        SystemExit: there is no C compiler.
    """
    program = Path(tempfile.gettempdir()) / f"{source.stem}-{os.getuid()}-{int(source.stat().st_mtime)}"
    if not program.exists():
        compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise SystemExit(f"bench/load/{source.name} needs a C compiler: there is none")
        subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-o", str(program), str(source)], check=True)
    return program


def command(port: int, options: dict[str, Any]) -> list[str]:
    words = [str(build()), "--port", str(port)]
    for name, value in options.items():
        words += [f"--{name}"] if value is True else [] if value is False else [f"--{name}", str(value)]
    return words


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
