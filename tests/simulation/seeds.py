"""How does one seed decide everything, and how is what went wrong seen again?"""

from __future__ import annotations

import random
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio
import trio.testing

from gateway.admin import parts
from gateway.engine.queues.delivery import Entry
from gateway_zeromq.endpoints import turns
from tests.simulation.disk import much_compaction
from tests.simulation.ledger import Wrong
from tests.simulation.world import World


class _Dice(threading.local):
    """What trio's loops throw: each thread has its own, so that a loop beside a world takes none of its throws."""

    def __init__(self, seed: int) -> None:
        dice = random.Random(seed)
        self.random, self.uniform, self.shuffle = dice.random, dice.uniform, dice.shuffle


@contextmanager
def _determined(seed: int) -> Iterator[None]:
    """Take out what would make two runs of a seed differ: trio's dice, secrets, sets in the order of addresses, real time."""
    runner: Any = trio._core._run
    allowed, runner._ALLOW_DETERMINISTIC_SCHEDULING = runner._ALLOW_DETERMINISTIC_SCHEDULING, True
    dice, runner._r = runner._r, _Dice(seed)
    slice_s, parts.SLICE_S = parts.SLICE_S, 3_600.0
    long_s, turns.LONG_S = turns.LONG_S, 3_600.0  # type: ignore[misc]
    Entry.__hash__ = _hash_of_entry  # type: ignore[method-assign,assignment]
    secret = random.Random(seed)
    choosers = {
        "token_urlsafe": lambda amount: secret.randbytes(amount).hex(),
        "token_hex": lambda amount: secret.randbytes(amount).hex(),
        "token_bytes": secret.randbytes,
        "randbits": secret.getrandbits,
    }
    former = {name: getattr(secrets, name) for name in choosers}
    for name, chooser in choosers.items():
        setattr(secrets, name, chooser)
    try:
        yield
    finally:
        for name, chooser in former.items():
            setattr(secrets, name, chooser)
        parts.SLICE_S = slice_s
        turns.LONG_S = long_s  # type: ignore[misc]
        del Entry.__hash__
        runner._r = dice
        runner._ALLOW_DETERMINISTIC_SCHEDULING = allowed


def _hash_of_entry(entry: Any) -> int:
    return int(entry.position) * 1_009 + int(entry.queue_id)


def play(
    seed: int,
    *,
    directory: Path | None = None,
    served: bool = False,
    amqp: bool = False,
    prepare: Callable[[World], None] | None = None,
) -> World:
    """Let one world happen (see `World`). Raises `Wrong`, whose text says how to see it again."""
    world = World(seed, directory=directory, served=served, amqp=amqp)
    if prepare is not None:
        prepare(world)
    try:
        with _determined(seed), much_compaction():
            trio.run(world.run, clock=trio.testing.MockClock(autojump_threshold=0))
    except Exception as error:
        raise Wrong(f"seed {seed}: {_innermost(error)}\n{_how(world)}") from error
    return world


def _innermost(error: BaseException) -> str:
    """Return what went wrong first, in a group or chain of exceptions."""
    while isinstance(error, BaseExceptionGroup) or error.__cause__ is not None:
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__ or error
    return str(error) if isinstance(error, Wrong) else repr(error)


def _how(world: World) -> str:
    tail = "\n".join(f"    {line}" for line in world.ledger.tail[-12:])
    options = (" --sqlite" if world.directory is not None else "") + (" --served" if world.is_served else "")
    options += " --amqp" if world.has_amqp else ""
    again = f"python -m tests.simulation {world.seed}{options}"
    return f"  after {world.ledger.steps} events, the last of them:\n{tail}\n  again: {again}"
