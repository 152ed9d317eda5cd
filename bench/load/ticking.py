"""A broker with a ticker in its own loop: how long do others wait for their turn?

    python bench/load/ticking.py FILE serve ...        as `tidegate serve`

A task of the broker's own loop sleeps for a millisecond, again and again. At the end FILE has, for each time, when that was
(`time.monotonic`) and how much longer than a millisecond it took, in seconds.
"""

from __future__ import annotations

import sys

sys.path.pop(0)  # bench/load

import array
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import trio

from gateway.cli import main

TICK_S = 0.001
run_loop = trio.run


async def tick(ticks: array.array[float]) -> None:
    while True:
        before = time.monotonic()
        await trio.sleep(TICK_S)
        now = time.monotonic()
        ticks.append(now)
        ticks.append(now - before - TICK_S)


async def beside(file: Path, job: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
    ticks = array.array("d")
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick, ticks)
            done = await job(*arguments)
            nursery.cancel_scope.cancel()
        return done
    finally:
        file.write_bytes(ticks.tobytes())  # noqa: ASYNC240 - it is the end


if __name__ == "__main__":
    path = Path(sys.argv.pop(1))
    trio.run = lambda job, *arguments, **options: run_loop(partial(beside, path, job), *arguments, **options)
    main()
