"""How much is read from a peer at once?"""

from __future__ import annotations

from typing import Final

SIZES: Final = tuple(64 << step for step in range(11))
"""In bytes, by pace."""
FIRST_PACE: Final = 6
"""Who is below it asks for so much that others come first."""
FASTEST: Final = len(SIZES) - 1
SLOW_S: Final = 0.02
"""What takes longer to do than this is too much for one turn: others wait. The next time a quarter is read."""
FAST_S: Final = 0.005


def next_pace(pace: int, took_s: float, *, full: bool) -> int:
    """Return the pace for the next read: a few packets may ask for much, and nobody can tell before.

    Args:
        took_s: what was done with the last read took so long.
        full: there was as much as could be read; nobody needs that to be forgiven.
    """
    if took_s > SLOW_S:
        return max(pace - 2, 0)
    if took_s >= FAST_S or pace == FASTEST:
        return pace
    return pace + 1 if full or pace < FIRST_PACE else pace
