"""Subscriptions in large numbers: bounded memory, and time in proportion."""

from __future__ import annotations

import time
from itertools import permutations, product

import trio

from gateway.model.declare import Binding, BindingOptions
from gateway.routing.table import Table
from gateway_mqtt.codec.packets import Disconnect, SubAck, Subscribe, Subscription, UnsubAck, Unsubscribe
from gateway_mqtt.codec.publishing import encode_publish_properties
from gateway_mqtt.outbound.sink import RetainedQueue
from tests.mqtt.level5 import connected
from tests.mqtt.support import mqtt_broker, until


async def test_a_client_has_so_many_levels_of_filters_at_most():
    async with mqtt_broker(max_subscription_levels=10) as bench:
        peer = await bench.client("deep", clean=False)
        assert await peer.subscribe("1/2/3/4", "1/2/3/5", "1/2/3", "a/b", "c") == b"\0\0\x80\0\x80"
        assert await peer.subscribe("1/2/3/4") == b"\0"  # it is there
        await peer.send(Unsubscribe(7, ("a/b", "never")))
        await peer.next()
        assert await peer.subscribe("c", "d", "e") == b"\0\0\x80"
        await peer.leave()
        peer = await bench.client("deep", clean=False)
        assert await peer.subscribe("e") == b"\x80"


async def test_an_mqtt_5_client_is_told_that_its_levels_are_used_up_by_shared_filters_too():
    async with mqtt_broker(max_subscription_levels=4) as bench:
        peer = await connected(bench)
        await peer.send(Subscribe(1, (Subscription("$share/g/a", 0), Subscription("b", 0), Subscription("c", 0))))
        answer = await peer.next()
        assert isinstance(answer, SubAck)
        assert answer.codes == b"\0\0\x97"
        await peer.send(Unsubscribe(2, ("$share/g/a",)))
        assert isinstance(await peer.next(), UnsubAck)
        await peer.send(Subscribe(3, (Subscription("c/d/e", 0),)))
        answer = await peer.next()
        assert isinstance(answer, SubAck)
        assert answer.codes == b"\0"
        await peer.send(Disconnect())


class Channel:
    def look_up(self, *_, **__):
        raise AssertionError


def test_what_a_new_subscription_is_owed_is_known_without_looking_at_all_others():
    queue = RetainedQueue(Channel())
    assert not queue.wants_room
    queue.want("a", 0, 0)
    assert not queue.wants_room
    queue.want("b", 1, 0)
    queue.want("b", 2, 0)
    queue.want("c", 1, 0)
    assert queue.wants_room
    queue.unwant("b")
    assert queue.wants_room
    queue.want("c", 0, 0)
    assert not queue.wants_room
    queue.unwant("c")
    queue.unwant("c")
    assert not queue.wants_room


async def test_a_client_with_5000_filters_comes_and_goes_and_leaves_nothing():
    async with mqtt_broker() as bench:
        peer = await bench.client("many")
        for first in range(0, 5_000, 500):
            await peer.subscribe(*(f"s/{n}/+/x" for n in range(first, first + 500)))
        beside = await bench.client("beside")
        await beside.publish("s/4999/y/x", b"x")
        assert (await peer.next()).payload == b"x"
        await peer.vanish()
        with trio.fail_after(30):
            await until(lambda: bench.queue("many") is None)
        await beside.ping()


def test_thousands_of_overlapping_filters_with_identifiers_of_their_own_are_found_in_time_in_proportion():
    table = Table(lambda name: None)
    queue = object()
    for number, words in enumerate(product("a*", repeat=12), 1):
        options = BindingOptions(number % 3, subscription_ids=(number,), mqtt=True)
        table.bind(Binding("amq.topic", "q", ".".join(words) + ".#", options=options), queue)
    began = time.process_time()
    found, _ = table.resolve("amq.topic", "a." * 12 + "x", dict)
    assert time.process_time() - began < 0.5  # it took seconds
    assert set(found[queue].subscription_ids) == set(range(1, 4_097))
    assert found[queue].qos == 2
    began = time.process_time()
    assert encode_publish_properties(b"", None, None, found[queue].subscription_ids)
    assert time.process_time() - began < 0.1


def test_options_that_are_merged_at_once_are_what_they_are_one_by_one():
    several = [
        BindingOptions(qos, no_local=no_local, retain_as_published=retain, subscription_ids=ids, mqtt=mqtt)
        for qos, no_local, retain, ids, mqtt in [
            (0, True, False, (5,), True),
            (2, True, False, (), True),
            (1, False, True, (7, 5), True),
        ]
    ]
    for order in permutations(several):
        assert order[0].merged_with(list(order[1:])) == order[0].merged(order[1]).merged(order[2])
