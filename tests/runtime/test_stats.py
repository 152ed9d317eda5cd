"""How much is stored, and whom a route reaches."""

from __future__ import annotations

import trio

from gateway.api import Binding, ExchangeSpec, Message, Principal, QueueSpec
from gateway.runtime.stats import QUEUES_PER_TURN
from tests.runtime.support import HandJournal, Log, running


async def test_what_is_stored_is_counted_once_for_each_queue_in_all_virtual_hosts():
    async with running(HandJournal(automatic=True)) as broker:
        gateway = broker.gateway("test", print, Log())
        for vhost in ("/", "other"):
            channel = gateway.open_channel(Principal("somebody", vhost))
            for name in ("a", "b"):
                await channel.outcome(channel.declare_queue(QueueSpec(name)))
                await channel.outcome(channel.bind(Binding("amq.topic", name, "k")))
            route = channel.route("amq.topic", "k")
            channel.retain(route, Message(route.address, b"12345", persistent=True))
            await channel.outcome(channel.publish(route, Message(route.address, b"12345", persistent=True)))
            await channel.outcome(channel.get("a"))  # unacknowledged
        stats = await gateway.stats()
        assert (stats.messages, stats.body_bytes) == (4, 20)
        assert stats.retained == 2
        assert stats.retained_bytes >= 10
        assert (stats.dropped, stats.sent_bytes) == (0, 0)
        gateway.count("dropped", 2, reason="slow reader")
        gateway.count("dropped_by_others", 7)
        broker.counters["dropped.full"] += 3
        broker.counters["another.dropped"] += 5
        assert (await gateway.stats()).dropped == 5


async def test_many_queues_are_looked_at_in_many_turns():
    async with running(HandJournal(automatic=True)) as broker:
        gateway = broker.gateway("test", print, Log())
        channel = gateway.open_channel(Principal("somebody"))
        for n in range(3 * QUEUES_PER_TURN):
            number = channel.declare_queue(QueueSpec(f"q{n}", durable=False))
        await channel.outcome(number)
        turns = 0

        async def others():
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(others)
            await gateway.stats()
            assert turns >= 2
            nursery.cancel_scope.cancel()


async def test_a_route_reaches_somebody_as_long_as_a_queue_is_bound_to_its_key():
    async with running(HandJournal(automatic=True)) as broker:
        channel = broker.gateway("test", print, Log()).open_channel(Principal("somebody"))
        route, unmade = channel.route("amq.topic", "a.b"), channel.route("later", "a.b")
        assert not channel.reaches(route)
        assert not channel.reaches(unmade)
        await channel.outcome(channel.declare_queue(QueueSpec("q")))
        await channel.outcome(channel.bind(Binding("amq.topic", "q", "a.*")))
        assert channel.reaches(route)
        await channel.outcome(channel.unbind(Binding("amq.topic", "q", "a.*")))
        assert not channel.reaches(route)
        await channel.outcome(channel.declare_exchange(ExchangeSpec("later", "fanout")))
        await channel.outcome(channel.bind(Binding("later", "q", "")))
        assert channel.reaches(unmade)
        await channel.outcome(channel.delete_queue("q"))
        assert not channel.reaches(unmade)
