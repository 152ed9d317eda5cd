"""Whatever the disk does and whenever the power goes: what was confirmed is there, once per queue, in order."""

from __future__ import annotations

import pytest

from gateway.runtime.committer import Committer
from tests.simulation.world import QUEUES, World


async def check(world: World) -> None:
    assert len(world.confirmed) > 50
    for queue in QUEUES:
        left = await world.left(queue)
        assert world.confirmed - world.acked[queue] - set(left) == set(), "confirmed and lost"
        assert len(left) == len(set(left)), "twice in one queue"
        for publisher in ("a", "b"):
            mine = [text for text in left if text.startswith(publisher)]
            assert mine == sorted(mine), "out of order"


@pytest.mark.parametrize("seed", range(12))
async def test_confirmed_messages_survive_power_cuts_and_a_failing_disk(seed, autojump_clock):
    world = World(seed)
    for _ in range(3):
        await world.live(world.chance.randrange(20, 150))
    await check(world)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 180))
async def test_confirmed_messages_survive_in_many_worlds(seed, autojump_clock):
    world = World(seed, failures=seed % 4 / 10)
    for _ in range(4):
        await world.live(world.chance.randrange(20, 400))
    await check(world)


async def test_the_simulation_finds_the_loss_of_a_broker_that_confirms_too_early(autojump_clock, monkeypatch):
    honest = Committer._write

    def early(committer, commit):
        committer._release()
        honest(committer, commit)

    monkeypatch.setattr(Committer, "_write", early)
    found = 0
    for seed in range(6):
        world = World(seed, failures=0.5)
        await world.live(100)
        try:
            await check(world)
        except AssertionError as error:
            found += "confirmed and lost" in str(error)
    assert found
