"""Routes that are remembered: how many, and what each of them costs."""

from __future__ import annotations

import gc

from gateway.engine import vhost as vhosts
from gateway.engine.engine import UNROUTABLE
from gateway.engine.vhost import VirtualHost
from gateway.model.caching import make_room
from gateway.model.message import Message
from tests.engine.support import Bench

MANY = 1_000


def test_a_full_cache_forgets_some_of_the_oldest_and_no_more():
    cache = {n: n for n in range(MANY)}
    make_room(cache, MANY + 1)
    assert len(cache) == MANY
    make_room(cache, MANY)
    assert MANY * 0.95 < len(cache) < MANY
    assert list(cache) == list(range(MANY - len(cache), MANY))
    make_room(cache, 10)
    assert list(cache) == list(range(MANY - 9, MANY))


def test_no_new_address_has_more_than_a_few_routes_forgotten(monkeypatch):
    monkeypatch.setattr(vhosts, "MAX_ROUTES", MANY)
    vhost = VirtualHost("/")
    forgotten = []
    for n in range(5 * MANY):
        before = len(vhost.routes)
        vhost.route("amq.topic", f"t.{n}")
        forgotten.append(before + 1 - len(vhost.routes))
        assert len(vhost.routes) <= MANY
    assert max(forgotten) < MANY / 50


def test_a_route_that_leads_nowhere_is_not_more_than_an_address_for_the_collector():
    engine = Bench().engine
    routes = engine.vhost("/")
    gc.collect()
    before = len(gc.get_objects())
    for n in range(MANY):
        route = routes.route("amq.topic", f"nowhere.{n}")
        engine.publish(route, Message(route.address, b""))
    gc.collect()
    assert len(gc.get_objects()) - before < 2.5 * MANY


# -- further keys -----------------------------------------------------------


def test_a_message_with_several_keys_comes_once_to_each_queue():
    bench = Bench()
    for name, pattern in (("a", "a"), ("both", "#"), ("b", "b.*")):
        bench.queue(name)
        bench.bind("amq.topic", name, pattern)
    route = bench.engine.vhost("/").route("amq.topic", "a", also=("b.1", "b.2"))
    assert bench.engine.publish(route, Message(route.address, b"1", True)) is None
    assert [bench.bodies(name) for name in ("a", "both", "b")] == [[b"1"]] * 3
    assert bench["b"].ready[0].message.routing_key == "a"


def test_routes_with_and_without_further_keys_are_told_apart_and_remembered():
    vhost = VirtualHost("/")
    route = vhost.route("amq.topic", "a", also=("b",))
    assert route is vhost.route("amq.topic", "a", also=("b",))
    others = [vhost.route("amq.topic", "a"), vhost.route("amq.topic", "a", "b"), vhost.route("amq.topic", "a", also=("b", "c"))]
    assert len({*others, route}) == 4


def test_routes_with_very_many_further_keys_are_not_remembered():
    vhost = VirtualHost("/")
    vhost.route("amq.topic", "a", also=tuple(map(str, range(100))))
    vhost.route("amq.topic", "a", also=("x" * vhosts.MAX_ROUTE_KEY,))
    assert not vhost.routes


def test_a_queue_that_comes_later_is_found_by_a_further_key():
    bench = Bench()
    route = bench.engine.vhost("/").route("", "a", also=("b",))
    assert bench.engine.publish(route, Message(route.address, b"1")) is UNROUTABLE
    bench.queue("b")
    assert bench.engine.publish(route, Message(route.address, b"2")) is None
    assert bench.bodies("b") == [b"2"]
