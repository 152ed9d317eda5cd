"""When nothing more goes wrong: does every MQTT client get what it is owed, and is everything answered?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from tests.simulation.ledger import Wrong
from tests.simulation.mqtt_client import MqttClient

if TYPE_CHECKING:
    from tests.simulation.world import World

PATIENCE = 600
STEP_S = 0.05
TRIES = 5
EVERYTHING = 1_000_000
LATER_MS = 4 * 3_600_000


async def settle(world: World) -> None:
    """Let all clients come back, and take and answer what there is; then all of them go, and time passes."""
    clients = [actor for actor in world.actors if isinstance(actor, MqttClient)]
    world.log("all comes to rest")
    if world.is_served and world.chance.random() < 0.5:
        await world.services.settle()
    if world.has_amqp:
        await world.amqp.settle()
    for client in clients:
        client.refusals = 0
    await _until(world, clients, _is_done, "does not come to rest")
    await _look_for_retained(world, clients)
    for client in clients:
        if world.chance.random() < 0.5:
            client.leave()
        else:
            client.vanish()
    await trio.sleep(8)
    world.check(0)
    for client in clients:
        for will in client._wills:
            will.must = will.must or (will.held and will.lost and world.keeps_wills)
    world.set_clock(LATER_MS)
    await trio.sleep(70)
    world.check(0)
    world.testaments.audit()
    for client in clients:
        if client.expiry_s is not None:
            there = client.queue in world.engine.vhost("/").queues
            world.ledger.check(not there, f"the session of {client.name} is there, though its time is up")


async def _until(world: World, clients: list[MqttClient], done: Callable[[World, MqttClient], bool], problem: str) -> None:
    for _ in range(PATIENCE):
        for client in clients:
            _go_on(client)
        await trio.sleep(STEP_S)
        world.check(0)
        if all(done(world, client) for client in clients):
            return
    late = {client.name: (client.sending.unconfirmed, client.reading.todo) for client in clients if not done(world, client)}
    raise Wrong(f"{problem}: {late}")


def _go_on(client: MqttClient) -> None:
    if client.connection is None:
        client.refusals += 1
        if client.refusals > TRIES:  # a queue is full, and will stay so
            client.sending.unconfirmed.clear()
        client.connect(clean=not client.lasting or client.belief.lost)
        return
    client.read(EVERYTHING)
    if client.connection is not None and client.accepted:
        client.reading.answer(2.0)


def _is_done(world: World, client: MqttClient) -> bool:
    if not client.is_alive or client.sending.unconfirmed or client.pending or client.reading.todo or client.reading.incoming:
        return False
    there = world.engine.vhost("/").queues.get(client.queue)
    return there is None or not there.count


async def _look_for_retained(world: World, clients: list[MqttClient]) -> None:
    """Whoever subscribes now has to be sent what was retained last."""
    for client in clients:
        client.reading.retained_now.clear()
        client.subscribe("last/#")
    await _until(world, clients, _has_retained, "is not sent what is retained")


def _has_retained(world: World, client: MqttClient) -> bool:
    there = client.reading.retained_now
    return _is_done(world, client) and all(there.get(topic, -1) >= index for topic, index in world.ledger.retained.items())
