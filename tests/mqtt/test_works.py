"""What it takes to do something is made when there is something to do."""

from __future__ import annotations

import pytest

from gateway_mqtt import entering, wants
from gateway_mqtt.codec.names import PINGREQ, PINGRESP
from gateway_mqtt.codec.packets import Connect, Disconnect, Publish, Signal, Subscribe, Subscription, Will
from gateway_mqtt.codec.properties import Properties
from gateway_mqtt.outbound import ClientLimits
from gateway_mqtt.settings import MqttSettings
from tests.mqtt.level5 import opened
from tests.mqtt.support import mqtt_broker, until

LEVELS = pytest.mark.parametrize("level", [4, 5])


async def client(bench, client_id, level, **fields):
    peer = await opened(bench, level)
    assert (await peer.connect(client_id, **fields)).code == 0
    return peer


async def ping(peer):
    await peer.send(Signal(PINGREQ))
    assert await peer.next() == Signal(PINGRESP)


def channels(bench):
    return len(bench.broker.alarms._channels)


@LEVELS
async def test_who_only_says_that_he_is_there_has_no_channel(level):
    async with mqtt_broker() as bench:
        first = channels(bench)
        assert first == 1, "the broker's own, for those who are away"
        peer = await client(bench, "quiet", level)
        await ping(peer)
        await ping(peer)
        assert channels(bench) == first
        await peer.send(Publish("a", b"x"))
        await ping(peer)
        assert channels(bench) == first + 1
        await peer.send(Disconnect())
        await until(lambda: channels(bench) == first)


@LEVELS
async def test_who_leaves_in_peace_at_once_has_no_will_published(level):
    async with mqtt_broker() as bench:
        watcher = await bench.client("watcher")
        await watcher.subscribe("will/#")
        first = await client(bench, "first", level, will=Will("will/first", b"x"))
        await first.send(Disconnect())
        assert await first.next() is None
        second = await client(bench, "second", level, will=Will("will/second", b"x"))
        await second.stream.aclose()
        assert await watcher.next() == Publish("will/second", b"x")


async def test_signals_that_come_alone_are_counted_as_others_are():
    async with mqtt_broker() as bench:
        one, other = await bench.client("one"), await bench.client("other")
        await other.send(Subscribe(1, (Subscription("a", 0),)))
        await other.next()
        front_end = other_tally(bench)
        before = front_end.packets, front_end.publishes, front_end.rest_bytes, front_end.size
        await one.ping()
        lone = front_end.packets, front_end.publishes, front_end.rest_bytes, front_end.size
        await other.ping()
        behind = front_end.packets, front_end.publishes, front_end.rest_bytes, front_end.size
        assert [b - a for a, b in zip(before, lone, strict=True)] == [1, 0, 2, 2]
        assert [b - a for a, b in zip(lone, behind, strict=True)] == [1, 0, 2, 2]


def other_tally(bench):
    receivers = [connection._receiver for connection in bench.broker.listeners[0].connections]
    return receivers[0].broker.traffic.packets


def test_clients_that_say_the_same_share_what_they_want():
    known = wants.AllWants(MqttSettings(max_sent_topic_aliases=10))
    plain = known.of(Connect("a"), lasts=False)
    assert known.of(Connect("b", user="u"), lasts=False) is plain
    assert plain.limits == ClientLimits()
    limited = Connect("c", level=5, properties=Properties(receive_maximum=3, topic_alias_maximum=20, maximum_packet_size=100))
    limits = known.of(limited, lasts=True).limits
    assert (limits.receive_maximum, limits.topic_alias_maximum, limits.maximum_packet_bytes) == (3, 10, 100)
    assert known.of(limited, lasts=True).terms.most_bytes == 100
    silent = Connect("d", level=5, properties=Properties(request_problem_information=False))
    assert not known.of(silent, lasts=False).terms.problem_information
    assert known.of(Connect("d", level=5), lasts=False).terms.problem_information


def test_so_many_different_wishes_are_remembered():
    known = wants.AllWants(MqttSettings())
    for size in range(1, wants.MOST_WANTS + 10):
        known.of(Connect("a", level=5, properties=Properties(maximum_packet_size=size)), lasts=False)
    assert len(known._known) <= wants.MOST_WANTS


async def test_clients_of_level_5_are_told_what_is_theirs():
    async with mqtt_broker(max_keep_alive_s=100, max_session_expiry_s=50) as bench:
        told = []
        for number, (keep_alive_s, expiry_s) in enumerate([(60, None), (60, None), (200, None), (60, 90), (200, 90)]):
            peer = await opened(bench)
            asked = {} if expiry_s is None else {"session_expiry_s": expiry_s}
            connack = await peer.connect(f"c{number}", keep=keep_alive_s, **asked)
            told.append((connack.properties.server_keep_alive_s, connack.properties.session_expiry_s))
        assert told == [(None, None), (None, None), (100, None), (None, 50), (100, 50)]


async def test_an_assigned_name_is_told_to_nobody_else():
    async with mqtt_broker() as bench:
        names = set()
        for name in ("", "own", "", "own2"):
            peer = await opened(bench)
            connack = await peer.connect(name)
            assert bool(connack.properties.assigned_client_id) is not bool(name)
            names.add(connack.properties.assigned_client_id)
        assert len(names) == 3


async def test_so_many_different_answers_are_remembered(monkeypatch):
    monkeypatch.setattr(entering, "MOST_CONNACKS", 2)
    async with mqtt_broker(max_session_expiry_s=10) as bench:
        for number in range(5, 15):
            peer = await opened(bench)
            connack = await peer.connect(f"c{number}", keep=20, session_expiry_s=number)
            assert connack.properties.session_expiry_s == (10 if number > 10 else None)
