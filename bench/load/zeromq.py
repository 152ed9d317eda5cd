"""Builds and runs the load of bench/zeromq.py: in C where there is a compiler and libzmq, else in Python, and says which."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import zmq

from bench import brokers
from bench.load import compiler, place, words

SOURCE = Path(__file__).with_name("zmqflood.c")
IN_PYTHON = Path(__file__).with_name("zmqflood.py")


def _libzmq() -> list[str]:
    """Return how to link with the libzmq that pyzmq has brought, as that is what the gateway uses; else with the system's."""
    brought = Path(zmq.__file__).parent.with_name("pyzmq.libs")
    found = sorted(brought.glob("libzmq*.so*"))
    if not found:
        return ["-lzmq"]
    return [f"-L{brought}", f"-Wl,-rpath,{brought}", f"-l:{found[-1].name}", "-Wl,--allow-shlib-undefined"]


@functools.cache
def program() -> Path | None:
    """Return the load in C, compiled unless that was done already; None: there is no compiler, or libzmq's header is missing."""
    target = place(SOURCE)
    if target.exists():
        return target
    found = compiler()
    if found is None:
        return None
    new = target.with_suffix(f".{os.getpid()}")
    for libraries in (_libzmq(), ["-lzmq"]):
        command = [found, "-O2", "-Wall", "-Wextra", "-o", str(new), str(SOURCE), *libraries]
        if subprocess.run(command, check=False, capture_output=True).returncode == 0:
            new.rename(target)
            return target
    return None


def command(mode: str, options: dict[str, Any]) -> list[str]:
    found = program()
    return [*([sys.executable, str(IN_PYTHON)] if found is None else [str(found)]), mode, *words(options)]


def flood(broker: brokers.Broker, mode: str, options: dict[str, Any]) -> dict[str, Any]:
    """Run a load against a gateway; return what it counted, and the gateway's CPU while it counted.

    ``rate``: messages a second. ``cpu_us``: of the gateway per message. ``busy``: share of the time that the load was computing.
    ``began``, ``ended``: by `time.monotonic`.

    Raises:
        RuntimeError: it was refused, or nothing came through.
    """
    with subprocess.Popen(command(mode, options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            if process.stdout.readline().strip() != "begin":
                raise RuntimeError(process.stderr.read().strip())
            cpu_s, began = broker.cpu_s(), time.monotonic()
            line = process.stdout.readline()
            cpu_s, ended = broker.cpu_s() - cpu_s, time.monotonic()
            if not line:
                raise RuntimeError(process.stderr.read().strip())
        finally:
            process.kill()
    told: dict[str, Any] = json.loads(line)
    if not told["count"]:
        raise RuntimeError("nothing came through while it was measured")
    return {**told, "cpu_us": cpu_s / told["count"] * 1e6, "began": began, "ended": ended}
