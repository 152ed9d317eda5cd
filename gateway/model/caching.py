"""How does a cache stay small, without forgetting all at once?"""

from __future__ import annotations

from itertools import islice
from typing import Final, TypeVar

K = TypeVar("K")
V = TypeVar("V")

PARTS: Final = 64


def make_room(cache: dict[K, V], most: int) -> None:
    """Forget the oldest of a cache that has `most` entries or more: a part of it, as to let go of 100,000 takes long.

    Cost: most / `PARTS` of the entries, each time so many more have come.
    """
    if len(cache) >= most:
        for key in list(islice(cache, max(most // PARTS, len(cache) - most + 1))):
            del cache[key]
