"""Who are the clients of a world?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tests.simulation.administrator import Administrator
from tests.simulation.mqtt_client import MQTT_5, MqttClient
from tests.simulation.program import Asker, Publisher, Worker
from tests.simulation.queues import ALWAYS, WILLS
from tests.simulation.specials import Delayer, Keeper, Lodger, Repeater
from tests.simulation.tgp_client import Puller, Pusher, TgpClient

if TYPE_CHECKING:
    from tests.simulation.world import World

EXPIRIES_S = (None, None, 2, 30, 0)
"""How long sessions outlive their connections: for ever, so many seconds, not at all."""


def make_actors(world: World) -> Iterator[Any]:
    """Yield all clients of a world, as its seed decides."""
    chance = world.chance
    for name in ("p", "q"):
        yield Publisher(name, world)
    for number, queue in enumerate(queue for queue in world.queues if queue != "pushed"):
        for each in range(1 + (chance.random() < 0.5)):
            yield Worker(f"w{number}.{each}", world, queue)
    asked = chance.choice([queue for queue in world.queues if queue not in {*ALWAYS, WILLS}])
    world.ledger.inexact.add(asked)
    yield Asker("asker", world, asked)
    yield Administrator("administrator", world)
    if "unique" in world.queues:
        yield Repeater("r", world)
    if "delayed" in world.queues:
        yield Delayer("l", world)
    for kind, name in ((Keeper, "k"), (Lodger, "lodger")):
        if chance.random() < 0.4:
            yield kind(name, world)
    yield from world.services.make_actors() if world.is_served else _mqtt_clients(world)
    if world.has_amqp:
        yield from world.amqp.make_actors()
    for number in range(chance.randrange(1, 3)):
        yield TgpClient(f"t{number}", world, "jobs")
    yield Pusher(world)
    yield Puller(world)


def _mqtt_clients(world: World) -> Iterator[Any]:
    chance = world.chance
    for number in range(0 if world.is_narrow else chance.randrange(3, 6) if world.is_mqtt else chance.randrange(1, 4)):
        level = chance.choice((4, 5, 5))
        expiry_s = chance.choice(EXPIRIES_S if level == MQTT_5 else (None, None, 0))
        yield MqttClient(f"m{number}", world, level=level, expiry_s=expiry_s)
