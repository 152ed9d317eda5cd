"""Clients that come and go, over and over, leave nothing behind."""

from __future__ import annotations

import gc

from gateway.api import Principal
from gateway.engine.vhost import MAX_ROUTE_KEY, VirtualHost
from gateway.model.names import swap_key
from gateway_mqtt.codec.packets import PINGREQ, Disconnect, Publish, Signal, Subscribe, Subscription
from gateway_mqtt.codec.properties import Properties
from gateway_mqtt.link import Link
from gateway_mqtt.translate.topics import MAX_OWN_TOPICS
from tests.mqtt.level5 import connected
from tests.mqtt.support import mqtt_broker, until


def links(but=()):
    """Return all connections' links that are still in memory, but for those that other tests' brokers keep."""
    gc.collect()
    known = {id(link) for link in but}
    return [thing for thing in gc.get_objects() if type(thing) is Link and id(thing) not in known]


async def test_clients_that_have_gone_are_not_kept_by_the_routes_that_led_to_them():
    others = links()
    async with mqtt_broker() as bench:
        for n in range(60):
            peer = await bench.client(f"c{n}")
            await peer.subscribe(f"own/{n}")
            await peer.publish(f"own/{n}", b"x")
            assert await peer.next()
            await peer.leave()
        await until(lambda: not bench.broker.listeners[0].connections)
        assert len(links(others)) < 20


def test_long_keys_have_no_cached_route():
    vhost = VirtualHost("/")
    for n in range(50):
        assert vhost.route("amq.topic", f"{n}." + "x" * MAX_ROUTE_KEY).address.routing_key.startswith(f"{n}.")
    assert not vhost.routes
    assert vhost.route("amq.topic", "x" * MAX_ROUTE_KEY) is vhost.route("amq.topic", "x" * MAX_ROUTE_KEY)


async def test_a_topic_that_is_too_long_for_the_cache_reaches_its_subscribers_all_the_same():
    async with mqtt_broker() as bench:
        peer = await bench.client()
        await peer.subscribe("long/#")
        topic = "long/" + "y" * 4_000
        for body in (b"1", b"2"):
            await peer.publish(topic, body)
            assert (await peer.next()).payload == body
        assert swap_key(topic) not in {key for _, key, _ in bench.broker.engine.vhost("/").routes}


async def test_a_client_that_wants_nothing_back_remembers_few_of_its_topics():
    others = links()
    async with mqtt_broker() as bench:
        peer = await connected(bench)
        await peer.send(Subscribe(1, (Subscription("mine", 0, no_local=True),)))
        await peer.next()
        for first in range(0, 1_000, 100):
            await peer.send(*(Publish(f"t/{n}", b"") for n in range(first, first + 100)), Signal(PINGREQ))
            await peer.next()
        (link,) = links(others)
        assert len(link.inbound._routes.known) <= MAX_OWN_TOPICS


async def test_a_session_that_ends_in_the_turn_in_which_qos_2_comes_leaves_no_identifier():
    async with mqtt_broker() as bench:
        peer = await connected(bench, "brief", session_expiry_s=100)
        await peer.send(Subscribe(1, (Subscription("t", 2),)))
        await peer.next()
        ends = Disconnect(0, Properties(session_expiry_s=0))
        await peer.send(Publish("t", b"x", 2, packet_id=3), ends)
        await until(lambda: not bench.broker.listeners[0].connections)
        await until(lambda: bench.queue("brief") is None)
        channel = bench.broker.gateway("look", print, bench.log).open_channel(Principal("look", "/"))
        for namespace in ("mqtt.session", "mqtt.in", "mqtt.out"):
            assert not [key for key, _ in channel.scan_state(namespace)], namespace
