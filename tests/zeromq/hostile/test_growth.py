"""Does what peers leave behind stay bounded, and go again?"""

import msgspec
import pytest
import trio
import zmq

from gateway.api import Message, Overloaded
from gateway_zeromq.endpoints.prefixes import LONGEST_PREFIX, NO_CHANGE, Change, Prefixes
from gateway_zeromq.mdp.services import SWEEP_MS, Services, Terms
from gateway_zeromq.tgp import bridge, session
from gateway_zeromq.tgp.session import Sessions
from tests.zeromq.support import ANY, Client, Plain, connected, serving, until

ROUTER = {"name": "services", "socket": "ROUTER", "bind": ANY}
pack = msgspec.msgpack.encode


def subscriber(context, running, *prefixes):
    plain = Plain(context, zmq.XSUB, running.address("XPUB"))
    return plain, [b"\1" + prefix for prefix in prefixes]


# -- subscriptions


async def test_the_messages_of_a_queue_wait_after_a_flood_of_subscriptions_has_gone(context):
    endpoint = {"name": "events", "socket": "XPUB", "bind": ANY, "queue": "events", "max_subscriptions": 20}
    async with serving(endpoint) as running:
        plain, subscriptions = subscriber(context, running, *[b"x%d." % n for n in range(50)])
        for subscription in subscriptions:
            await plain.send(subscription)
        await until(lambda: running.log.of("too many subscriptions: everything is taken, and filtered"))
        plain.close()
        await until(lambda: not running.queue("events").consumers[0].credit_left or running.queue("events").consumers[0].paused)
        route = running.channel.route("", "events")
        for n in range(5):
            await running.call(running.channel.publish(route, Message(route.address, b"%d" % n, True)))
        await trio.sleep(0.05)
        assert running.queue("events").count == 5
        late = Plain(context, zmq.SUB, running.address("XPUB"), SUBSCRIBE=b"")
        assert [(await late.receive())[-1] for _ in range(5)] == [b"%d" % n for n in range(5)]


def test_when_the_last_of_too_many_has_gone_they_are_told_apart_again():
    prefixes = Prefixes(2)
    for prefix in (b"a.", b"b.", b"c.", b"d."):
        prefixes.add(prefix)
    assert prefixes.overflowed
    assert [prefixes.remove(prefix) for prefix in (b"a.", b"c.", b"d.")] == [NO_CHANGE] * 3
    assert prefixes
    assert prefixes.remove(b"b.") == Change(unbind=("#",))
    assert (bool(prefixes), prefixes.overflowed, prefixes.patterns()) == (False, False, [])
    assert prefixes.add(b"a.") == Change(bind=("a.*.#",))


async def test_a_subscription_longer_than_any_key_ends_the_peer_and_others_notice_nothing(context):
    async with serving({"name": "events", "socket": "XPUB", "bind": ANY, "exchange": "amq.topic"}) as running:
        good = Plain(context, zmq.SUB, running.address("XPUB"), SUBSCRIBE=b"a.")
        bad, (long, longest) = subscriber(context, running, b"s" * (LONGEST_PREFIX + 1), b"l" * LONGEST_PREFIX)
        await bad.send(longest)
        await until(lambda: running.queue("zeromq.xpub.events").consumers)
        disconnected = bad.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        await bad.send(long)
        with trio.fail_after(10):
            while not disconnected.poll(0):  # noqa: ASYNC110
                await trio.sleep(0.01)
        bad.socket.disable_monitor()
        disconnected.close(0)
        route = running.channel.route("amq.topic", "a.b")
        running.channel.post(route, Message(route.address, b"x"))
        assert await good.receive(10) == [b"a.b", b"x"]


# -- sessions


async def test_sessions_of_ever_new_names_are_forgotten_as_they_come(context, monkeypatch):
    monkeypatch.setattr(session, "NAMED_KEPT", 50)
    monkeypatch.setattr(bridge, "MOST_LEFT", 20)
    monkeypatch.setattr(bridge, "EXPIRE_MS", 1 << 40)
    made = []
    monkeypatch.setattr(bridge, "Sessions", lambda *how: made.append(Sessions(*how)) or made[0])
    async with serving(ROUTER) as running:
        client = Client(context, running.address("ROUTER"))
        for n in range(300):
            assert (await client.ask(1, 1, 1, {"client": f"n{n}"}))[0] == 2
            assert await client.ask(3, 1, "amq.topic", "k", body=b"") == [4, 1, True, 0]
            assert len(made[0]) <= 50 + 20 + 1
        assert (await client.ask(1, 1, 1, {"client": "n298"}))[3]["last_seq"] == 1, "the latest are those that stay"


async def test_all_sessions_are_looked_at_so_often_and_not_more(context, monkeypatch):
    looks = []
    monkeypatch.setattr(Sessions, "expire", lambda self, now_ms: looks.append(now_ms) or [])
    async with serving({**ROUTER, "heartbeat_ms": 100}) as running:
        client = await connected(context, running, heartbeat_ms=1)
        for _ in range(10):
            await client.ask(22)
            await trio.sleep(0.05)
        assert 1 <= len(looks) <= 3


# -- services


@pytest.mark.parametrize("passed_ms", [SWEEP_MS - 1, SWEEP_MS])
def test_at_the_limit_what_was_not_used_for_a_moment_makes_room(passed_ms):
    class Info:
        messages = consumers = 0

    class Channel:
        def __init__(self):
            self.queues, self.looks = set(), 0

        def route(self, exchange, key):
            return type("Route", (), {"address": type("Address", (), {"exchange": exchange, "routing_key": key})})

        def queue_exists(self, name):
            return name in self.queues

        def declare_queue(self, spec):
            self.queues.add(spec.name)

        def queue_info(self, name):
            self.looks += 1
            return Info if name in self.queues else None

        def delete_queue(self, name, **_):
            self.queues.discard(name)

    channel = Channel()
    services = Services(channel, Terms(most=3))
    for n in range(3):
        services.find(f"s{n}", 1_000)
    if passed_ms < SWEEP_MS:
        for _ in range(5):
            with pytest.raises(Overloaded):
                services.find("one more", 1_000 + passed_ms)
        assert channel.looks == 0
    else:
        services.find("s1", 1_000 + passed_ms)
        services.find("one more", 1_000 + passed_ms)
        assert channel.queues == {"mdp.s1", "mdp.one more"}
