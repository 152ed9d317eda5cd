"""How do definitions get through in parts, so that nobody is held up by how many there are?"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar

import trio

PART_BYTES = 1 << 16
"""A part is about so long, or one item if that is longer."""
SLICE_S = 0.002
"""So long something long is worked on before others have their turn."""
_COLLECT_EVERY_SLICES = 25
"""What was made in so many slices is looked through by the collector in milliseconds; all of it at once would take far longer."""

T = TypeVar("T")


def split(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield an object of lists in parts, of which `joined` makes the same again."""
    part: dict[str, Any] = {}
    size = 0
    for name, value in data.items():
        part[name] = [] if isinstance(value, list) else value
        for item in value if isinstance(value, list) else ():
            size += len(json.dumps(item))
            if size > PART_BYTES and part[name]:
                yield part
                part, size = {name: []}, len(json.dumps(item))
            part[name].append(item)
    yield part


def joined(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return one object of many: lists go on, anything else is set."""
    whole: dict[str, Any] = {}
    for part in parts:
        add(whole, part)
    return whole


def add(whole: dict[str, Any], part: dict[str, Any]) -> None:
    """Add a part to what there is."""
    for name, value in part.items():
        if isinstance(value, list) and isinstance(whole.get(name), list):
            whole[name] += value
        else:
            whole[name] = list(value) if isinstance(value, list) else value


def at_once(work: Generator[None, None, T]) -> T:
    """Do something to its end, and return what comes of it."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result


async def in_slices(work: Generator[None, None, T], between: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint) -> T:
    """Do something to its end while others have their turns, and return what comes of it. Cancellation: it stops where it is.

    Args:
        between: awaited after each slice.
    """
    slices = 0
    while True:
        slices += 1
        if slices % _COLLECT_EVERY_SLICES == 0:
            gc.collect(1)
        until = time.perf_counter() + SLICE_S
        try:
            while time.perf_counter() < until:
                next(work)
        except StopIteration as end:
            result: T = end.value
            return result
        await between()
