"""Does a broker that runs for long grow with what has passed: connections, sessions, subscriptions, messages?"""

from __future__ import annotations

import gc
import math
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from gateway_mqtt.codec.packets import Subscribe, Subscription, Will
from tests.mqtt.conformance.support import Client
from tests.mqtt.level5 import FOR_EVER
from tests.mqtt.support import Bench, mqtt_broker, until
from tests.runtime.support import HandJournal

FIRST, ROUNDS = 40, 100
"""In the first rounds caches are filled, and lists become as long as they have to be."""


class Forgetful(HandJournal):
    """Keeps nothing of what it has written."""

    def finish(self, error=None):
        super().finish(error)
        self.stored.clear()
        self.records.clear()


class Town:
    """A broker, clients that stay, and more of them."""

    def __init__(self, bench: Bench, level: int) -> None:
        self.bench = bench
        self.level = level

    async def opened(self) -> Client:
        """Return a connection without deadlines: of those that are over trio forgets a thousand at once, not each."""
        sock = trio.socket.socket()
        await sock.connect(("127.0.0.1", self.bench.port))
        client = Client(trio.SocketStream(sock), self.level)
        client.patience_s = math.inf
        return client

    async def client(self, client_id: str, **fields: object) -> Client:
        client = await self.opened()
        assert (await client.connect(client_id, **fields)).code == 0
        return client

    async def lasting(self) -> Client:
        """Return a client whose session outlives its connection."""
        return await self.client("lasting", clean=False, **({"session_expiry_s": FOR_EVER} if self.level == 5 else {}))


@asynccontextmanager
async def town(level: int) -> AsyncIterator[Town]:
    async with mqtt_broker(Forgetful(automatic=True), sys_interval_s=0) as bench:  # which would bring its topics sometime
        place = Town(bench, level)
        place.giver, place.taker = await place.client("giver"), await place.client("taker")
        yield place
        for client in (place.giver, place.taker):
            await client.vanish()


async def come_and_leave(place):
    await (await place.client("brief")).leave()


async def come_and_vanish(place):
    await (await place.client("brief", will=Will("will", b"x"))).vanish()


async def break_the_protocol(place):
    client = await place.client("brief")
    await client.send(b"\xf0\x00")
    await client.ended()
    await client.vanish()


async def be_refused(place):
    client = await place.opened()
    await client.send(Subscribe(1, (Subscription("before/connect", 0),)))
    assert await client.raw() is None
    await client.vanish()


async def take_over(place):
    first, second = [await place.client("brief") for _ in range(2)]
    await first.ended()
    await first.vanish()
    await second.leave()


async def be_away_while_messages_come(place):
    client = await place.lasting()
    await client.subscribe("kept", 2)
    await client.leave()
    for qos in (1, 2):
        await place.giver.publish("kept", b"x", qos)
    client = await place.lasting()
    await client.messages(2)
    await client.quiet()
    await client.leave()
    await (await place.client("lasting")).leave()  # the session ends


async def subscribe_and_leave_it(place):
    for pattern in ("here", "+/there/#", "$share/group/here"):
        await place.taker.subscribe(pattern, 1)
        await place.giver.publish("here", b"x", 1)
        if not pattern.startswith("+"):
            await place.taker.message()
        await place.taker.unsubscribe(pattern)


async def publish(place):
    await place.taker.subscribe("mine", 2)
    for qos in (0, 1, 2):
        for _ in range(5):
            await place.giver.publish("mine", b"x", qos)
            await place.taker.message()


async def retain(place):
    for body in (b"value", b""):
        await place.giver.publish("kept/value", body, 1, retain=True)


def census() -> Counter[str]:
    """Count the objects of the broker's own classes, compiled or not."""
    gc.collect()
    kinds = Counter(f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in gc.get_objects())
    return Counter({kind: count for kind, count in kinds.items() if kind.startswith("gateway")})


@pytest.mark.slow
@pytest.mark.parametrize("level", [4, 5])
@pytest.mark.parametrize(
    "what",
    [
        come_and_leave,
        come_and_vanish,
        break_the_protocol,
        be_refused,
        take_over,
        be_away_while_messages_come,
        subscribe_and_leave_it,
        publish,
        retain,
    ],
)
async def test_what_is_over_leaves_nothing_behind(what: Callable[[Town], Awaitable[None]], level: int):
    async with town(level) as place:

        async def rounds(count: int) -> None:
            for _ in range(count):
                await what(place)
                place.bench.log.lines.clear()
                place.bench.broker.log.lines.clear()
            await until(lambda: len(place.bench.broker.listeners[0].connections) == 2)

        with trio.fail_after(100):
            await rounds(FIRST)
            things = census()
            blocks = sys.getallocatedblocks()
            await rounds(ROUNDS)
        assert {kind: count for kind, count in (census() - things).items() if count > ROUNDS // 2} == {}
        grown = sys.getallocatedblocks() - blocks
        assert grown < ROUNDS, "not one block in each round"
