"""Does one of many worlds say what goes wrong because of a fault that somebody has planted?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.simulation.ledger import Wrong
from tests.simulation.seeds import play
from tests.simulation.world import World

MOST = 1_000
"""Worlds that are played for a fault: most are found in the first ten, and the rarest in some hundreds."""


def assert_found(
    *said: str, first: int = 0, having: str = "", bodies: bool = False, directory: Path | None = None, **kind: Any
) -> None:
    """Play worlds until one goes wrong and says so in one of the words `said`, or in any if there are none.

    A fault shows in more than one way: a world that says something else of it is not the last one.

    Args:
        first: the seed of the first world.
        having: a queue or an actor without which a world need not be played.
        bodies: only worlds whose messages are large, and windows small.
        kind: as for `World`.
    """
    others = []
    for seed in range(first, first + MOST):
        world = World(seed, **kind)
        if having and having not in {*world.queues, *(getattr(actor, "name", "") for actor in world.actors)}:
            continue
        if bodies and not world.has_much_to_page:
            continue
        try:
            play(seed, directory=directory and directory / str(seed), **kind)
        except Wrong as error:
            if not said or any(words in str(error) for words in said):
                return
            others.append(str(error))
    pytest.fail("\n".join([f"{MOST} worlds, of which {len(others)} went wrong, and none in one of these words: {said}", *others]))
