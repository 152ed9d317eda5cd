"""How are positions in a queue, and the packet identifiers that they were sent under, kept in few bytes?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from gateway_mqtt.codec.names import MAX_IDENTIFIER

Run = tuple[int, int, int]
"""So many positions in a row, and as many packet identifiers: first position, first identifier, how many."""

UNKNOWN: Final[Run] = (0, 0, 0)
"""Among the runs of a session: there may be more."""


def runs_of(positions: Iterable[tuple[int, int]]) -> tuple[Run, ...]:
    """Return pairs of position and packet identifier as runs, in order of position."""
    runs: list[Run] = []
    first = number = count = 0
    for position, packet_id in sorted(positions):
        if count and position == first + count and packet_id == number + count:
            count += 1
            continue
        if count:
            runs.append((first, number, count))
        first, number, count = position, packet_id, 1
    if count:
        runs.append((first, number, count))
    return tuple(runs)


def pairs_of(runs: Iterable[Run]) -> Iterator[tuple[int, int]]:
    """Yield what `runs_of` was given, in order of position. Runs that no session can have are cut."""
    for position, packet_id, count in runs:
        for n in range(min(count, MAX_IDENTIFIER + 1 - packet_id) if packet_id > 0 else 0):
            yield position + n, packet_id + n
