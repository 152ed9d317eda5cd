"""What a new subscription is owed, in small pieces, once, and never an older message after a newer one."""

from __future__ import annotations

import pytest

from gateway.api import Address, Message
from gateway.engine.retained import RetainedLimits
from gateway.routing.keytree import KeyTree
from gateway_mqtt.codec.packets import PUBACK, Ack, Publish, SubAck, Subscribe, Subscription, UnsubAck, Unsubscribe
from gateway_mqtt.retained import SLICE, SLICE_BYTES, VISITS, RetainedQueue, Rota
from tests.mqtt.support import mqtt_broker, until

MANY = 3 * SLICE


class FakeChannel:
    """Keeps last values as the broker's channels do; remembers what it was asked."""

    def __init__(self, *keys, body=b"", persistent=False):
        self.tree = KeyTree()
        self.asked = []
        self.puts = 0
        for key in keys:
            self.put(key, body, persistent=persistent)

    def put(self, key, body=b"", *, persistent=False):
        self.puts += 1
        self.tree.put(key, (Message(Address("/", "amq.topic", key), body, persistent), self.puts))

    def look_up(self, exchange, pattern, *, mqtt=False):
        assert exchange == "amq.topic"
        self.asked.append(pattern)
        return self.tree.look_up(pattern, mqtt)

    def retained_mark(self):
        return self.puts


def drain(queue, most=SLICE):
    sent = []
    while not queue.done:
        part = queue.next_slice(most)
        assert len(part) <= most
        sent += [(message.routing_key, qos) for message, qos, _ in part]
    return sent


def wanting(channel, *patterns, granted=0):
    queue = RetainedQueue(channel)
    for pattern in patterns:
        queue.want(pattern, granted, channel.retained_mark())
    return queue


def test_patterns_are_looked_up_one_after_the_other_as_they_are_sent():
    channel = FakeChannel("a.1", "a.2", "b.1")
    channel.put("b.2", persistent=True)
    queue = wanting(channel, "a/#")
    queue.want("b/#", 1, channel.retained_mark())
    assert len(queue.next_slice(1)) == 1
    assert channel.asked == ["a.#"]
    assert drain(queue) == [("a.2", 0), ("b.1", 0), ("b.2", 1)]


def test_what_is_unsubscribed_is_not_sent_whether_it_was_looked_up_or_not():
    channel = FakeChannel("a", "b.1", "b.2", "c", body=bytes(SLICE_BYTES))
    queue = wanting(channel, "b/#", "a", "c")
    assert [message.routing_key for message, *_ in queue.next_slice(SLICE)] == ["b.1"]
    for pattern in ("b/#", "a", "never"):
        queue.unwant(pattern)
    assert drain(queue) == [("c", 0)]


def test_a_pattern_wanted_again_and_again_is_held_once():
    channel = FakeChannel("a")
    assert drain(wanting(channel, *["a"] * 100)) == [("a", 0)]


def test_a_slice_looks_at_so_many_keys_though_none_matches():
    channel = FakeChannel(*(f"k.{n}" for n in range(1000)))
    queue = wanting(channel, "#/+/none")
    slices = 0
    while not queue.done:
        assert queue.next_slice(SLICE) == []
        slices += 1
    assert slices >= 1000 // VISITS


def test_a_slice_has_so_many_bytes():
    channel = FakeChannel(*(f"k.{n}" for n in range(9)), body=bytes(SLICE_BYTES // 2))
    queue = wanting(channel, "#")
    sizes = []
    while not queue.done:
        sizes.append(len(queue.next_slice(SLICE)))
    assert sizes == [2, 2, 2, 2, 1]


@pytest.mark.parametrize(("persistent", "granted"), [(True, 1), (True, 0), (False, 1), (False, 0)])
def test_what_was_retained_since_the_subscription_was_made_comes_live_only(persistent, granted):
    channel = FakeChannel("a", "b", persistent=True)
    queue = wanting(channel, "#", granted=granted)
    channel.put("b", persistent=persistent)
    channel.put("c", persistent=persistent)
    assert drain(queue) == [("a", granted)]


def test_what_was_retained_while_live_messages_were_dropped_is_sent_after_all():
    channel = FakeChannel("a")
    queue = wanting(channel, "#", granted=1)
    channel.put("a")
    channel.put("kept", persistent=True)
    queue.missed(channel.retained_mark())
    channel.put("later")
    assert drain(queue) == [("a", 0)], "what is persistent waits in the session"


def test_what_was_looked_up_and_is_sent_later_is_sent_as_it_is_then():
    channel = FakeChannel("a", "b", "c", "d", body=bytes(SLICE_BYTES))
    queue = wanting(channel, "#")
    assert [message.routing_key for message, *_ in queue.next_slice(SLICE)] == ["a"]
    channel.put("b", b"new: came live")
    channel.tree.remove("c")
    assert drain(queue) == [("d", 0)]


class Client:
    def __init__(self, slices, told):
        self.slices, self.told = slices, told

    def send_retained(self):
        self.told.append(self)
        self.slices -= 1
        return self.slices > 0


def test_clients_are_sent_a_slice_each_in_turn_and_one_per_flush():
    touched, told = [], []
    rota = Rota(touched.append)
    one, two = Client(3, told), Client(1, told)
    for client in (one, two, one):
        rota.join(client)
    while touched:
        touched.pop()
        before = len(told)
        rota.flush()
        assert len(told) == before + 1
    assert told == [one, two, one, one]


def test_a_client_that_fails_holds_up_no_other():
    touched, told = [], []
    rota = Rota(touched.append)
    rota.join(Client(None, told))
    rota.join(Client(1, told))
    with pytest.raises(TypeError):
        rota.flush()
    assert touched.pop() is rota
    rota.flush()
    assert len(told) == 2


# -- with a broker --------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1])
async def test_a_message_retained_while_a_subscribe_is_committed_comes_once(qos):
    async with mqtt_broker() as bench:
        publisher, client = await bench.client(), await bench.client("lasting", clean=False)
        await publisher.publish("s/old", b"1", retain=True, qos=1)
        bench.journal.automatic = False
        await client.send(Subscribe(7, (Subscription("s/#", 1),)))
        await until(lambda: bench.journal.writes)
        await publisher.send(Publish("s/new", b"2", qos, retain=True, packet_id=9 if qos else 0))
        await publisher.ping()
        bench.journal.automatic = True
        bench.journal.finish()
        got = await client.take(3)
        assert SubAck(7, b"\1") in got
        assert sorted((p.topic, p.payload, p.retain) for p in got if isinstance(p, Publish)) == [
            ("s/new", b"2", False),
            ("s/old", b"1", True),
        ]
        await client.ping()


async def many_retained(bench, body=b"x"):
    publisher = await bench.client()
    for at in range(0, MANY, SLICE):
        await publisher.send(*(Publish(f"s/{n}", body, retain=True) for n in range(at, at + SLICE)))
        await publisher.ping()
    return publisher


async def test_unsubscribing_stops_what_is_retained():
    async with mqtt_broker(max_inflight=2) as bench:
        publisher = await bench.client()
        for n in range(9):
            await publisher.publish(f"s/{n}", b"x", retain=True, qos=1)
        client = await bench.client()
        await client.subscribe("s/#", qos=1)
        got = await client.take(2)
        await client.send(Unsubscribe(5, ("s/#",)))
        assert await client.next() == UnsubAck(5)
        await client.send(*(Ack(PUBACK, packet.packet_id) for packet in got))
        await client.ping()
        assert not bench.logged("a front-end failed to send")


async def test_all_that_is_retained_is_sent_to_several_clients_at_once():
    async with mqtt_broker() as bench:
        await many_retained(bench)
        clients = [await bench.client() for _ in range(3)]
        for client in clients:
            await client.send(Subscribe(1, (Subscription("#", 0),)))
        for client in clients:
            first, *rest = await client.take(MANY + 1)
            assert isinstance(first, SubAck), "before what is retained"
            assert len({packet.topic for packet in rest}) == MANY
            await client.ping()


async def test_a_client_that_goes_amid_what_is_retained_is_forgotten():
    async with mqtt_broker() as bench:
        await many_retained(bench, bytes(2_000))
        other = await bench.client()
        client = await bench.client("brief")
        await client.send(Subscribe(1, (Subscription("#", 0),)))
        await client.vanish()
        await bench.gone("brief")
        await other.ping()
        assert not bench.logged("a front-end failed to send")


async def test_a_publish_that_can_not_be_retained_is_refused_and_not_delivered():
    async with mqtt_broker() as bench:
        bench.broker.engine.kept.values.limits = RetainedLimits(max_messages=1)
        client, publisher = await bench.client(), await bench.client()
        await client.subscribe("#", qos=1)
        await publisher.publish("a", b"1", retain=True, qos=1)
        await publisher.send(Publish("b", b"2", 1, retain=True, packet_id=77))
        assert await publisher.next() is None, "MQTT 3.1.1 has no other way to say no"
        assert (await client.next()).topic == "a"
        await client.ping()
