"""How is one appointment kept in one integer?"""

from __future__ import annotations

SIZE_BITS = 40
ID_BITS = 55
DUE_SHIFT = SIZE_BITS + ID_BITS
SIZES = (1 << SIZE_BITS) - 1
IDS = (1 << ID_BITS) - 1


def appointment(due_ms: int, number: int, size: int) -> int:
    """Pack a time, an id and a number of bytes: in the order of times, then of ids. Times before 1970 count as 0."""
    return max(due_ms, 0) << DUE_SHIFT | number << SIZE_BITS | size


def due_of(key: int) -> int:
    """Return its time in ms since 1970."""
    return key >> DUE_SHIFT


def id_of(key: int) -> int:
    """Return its id."""
    return (key >> SIZE_BITS) & IDS


def size_of(key: int) -> int:
    """Return its number of bytes."""
    return key & SIZES
