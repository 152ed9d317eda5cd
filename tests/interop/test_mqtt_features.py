"""What docs/mqtt.md promises, asked for by paho and amqtt, at both levels."""

from __future__ import annotations

import asyncio  # noqa: TID251 - amqtt runs on it
import contextlib
import queue
import socket
import time

import paho.mqtt.client as paho
import pytest
from amqtt.client import MQTTClient
from amqtt.session import ApplicationMessage
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.live_broker import LiveBroker

PATIENCE_S = 60
QUIET_S = 0.15
CONFIGURATION = """\
[frontend.mqtt]
listen = ["tcp://127.0.0.1:1883"]
max_keep_alive_s = 600
receive_maximum = 50
max_packet_bytes = 100000
max_subscriptions = 10
sys_interval_s = 0.2
[frontend.zeromq]
enabled = false
"""
levels = pytest.mark.parametrize("level", [4, 5])
QUALITIES = [0, 1, 2]


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with LiveBroker(tmp_path_factory.mktemp("features"), CONFIGURATION) as running:
        yield running


def properties(kind, **values):
    """Return paho's properties of a packet."""
    made = Properties(kind)
    for name, value in values.items():
        setattr(made, name, value)
    return made


class Client:
    """A paho client, at either level; what happens to it is told in the order in which it happens."""

    def __init__(self, port, client_id="", level=5, *, clean=True, will=None, connect=None):
        how = {"clean_session": clean} if level == 4 else {}
        version = paho.MQTTv5 if level == 5 else paho.MQTTv311
        mine = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id, protocol=version, reconnect_on_failure=False, **how)
        self.client, self.level = mine, level
        self.messages, self.answers, self.ends = queue.SimpleQueue(), queue.SimpleQueue(), queue.SimpleQueue()
        mine.on_message = lambda _c, _u, message: self.messages.put(message)
        mine.on_connect = lambda _c, _u, flags, code, told: self.answers.put((flags.session_present, code, told))
        mine.on_subscribe = mine.on_unsubscribe = lambda _c, _u, _m, codes, _p: self.answers.put([code.value for code in codes])
        mine.on_publish = lambda _c, _u, _m, code, _p: self.answers.put(code.value)
        mine.on_disconnect = lambda _c, _u, _f, code, _p: self.ends.put(code.value)
        if will is not None:
            mine.will_set(*will[:2], **will[2])
        five = {"clean_start": clean, "properties": connect} if level == 5 else {}
        mine.connect("127.0.0.1", int(port), **five)
        mine.loop_start()
        self.present, self.code, self.told = self.answers.get(timeout=PATIENCE_S)

    def subscribe(self, pattern, qos=1, **options):
        if self.level == 4:
            self.client.subscribe(pattern, qos)
        else:
            identifier = options.pop("identifier", None)
            mine = None if identifier is None else properties(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=identifier)
            self.client.subscribe(pattern, options=SubscribeOptions(qos, **options), properties=mine)
        [code] = self.answers.get(timeout=PATIENCE_S)
        return code

    def publish(self, topic, payload=b"x", qos=1, *, retain=False, **said):
        """Publish; return the reason code of the answer."""
        mine = properties(PacketTypes.PUBLISH, **said) if said else None
        self.client.publish(topic, payload, qos, retain, mine)
        return self.answers.get(timeout=PATIENCE_S)

    def next(self):
        return self.messages.get(timeout=PATIENCE_S)

    def bodies(self, count):
        return [self.next().payload for _ in range(count)]

    def hears_nothing(self):
        with pytest.raises(queue.Empty):
            self.messages.get(timeout=QUIET_S)
        return True

    def end(self, **how):
        self.client.disconnect(**how)
        self._stop()

    def vanish(self):
        """Lose the connection without a goodbye."""
        self.client.socket().shutdown(socket.SHUT_RDWR)
        self._stop()

    def _stop(self):
        mine = self.client
        mine.loop_stop()
        mine.on_message = mine.on_connect = mine.on_subscribe = mine.on_unsubscribe = mine.on_publish = mine.on_disconnect = None


@pytest.fixture
def client(broker):
    port = broker.mqtt.rpartition(":")[2]
    clients = []

    def make(*arguments, **how):
        clients.append(Client(port, *arguments, **how))
        return clients[-1]

    yield make
    for one in clients:
        with contextlib.suppress(OSError):
            one.end()


def for_ever(**more):
    return properties(PacketTypes.CONNECT, SessionExpiryInterval=0xFFFFFFFF, **more)


@levels
def test_all_qualities_reach_both_levels(client, level):
    publisher, subscribers = client(level=level), [client(level=4), client(level=5)]
    for one in subscribers:
        assert one.subscribe("all/+", 2) == 2
    for qos in QUALITIES:
        assert publisher.publish(f"all/{qos}", b"%d" % qos, qos) == 0
    for one in subscribers:
        assert sorted((m.topic, m.payload, m.qos) for m in (one.next(), one.next(), one.next())) == [
            (f"all/{qos}", b"%d" % qos, qos) for qos in QUALITIES
        ]


@levels
def test_a_session_keeps_what_came_meanwhile(client, level):
    how = {"clean": False, "connect": for_ever() if level == 5 else None}
    name = f"keeper-{level}"
    first = client(name, level, **how)
    assert not first.present
    first.subscribe(f"session/{level}", 2)
    first.end()
    publisher = client(level=level)
    for n in range(1, 20):
        publisher.publish(f"session/{level}", b"%d" % n, 1 + n % 2)
    second = client(name, level, **how)
    assert second.present
    came = second.bodies(19)
    for odd in (True, False):  # in order within each quality
        assert [body for body in came if int(body) % 2 == odd] == [b"%d" % n for n in range(1, 20) if n % 2 == odd]
    second.end()
    assert not client(name, level).present


def test_a_session_lasts_until_its_client_wants_it_to_end(client):
    client("shorter", clean=False, connect=for_ever()).end()
    for _ in range(3):  # a broker that stands still may hear the next CONNECT before this DISCONNECT
        at_once = client("shorter", clean=False, connect=for_ever())
        assert at_once.present
        at_once.end(properties=properties(PacketTypes.DISCONNECT, SessionExpiryInterval=0))
        again = client("shorter", clean=False, connect=for_ever())
        if not again.present:
            break
    assert not again.present


@levels
def test_a_will_is_published_and_a_goodbye_takes_it_back(client, level):
    watcher = client(level=level)
    watcher.subscribe(f"will/{level}/#", 1)
    will = (f"will/{level}/lost", b"gone", {"qos": 1})
    client(level=level, will=will).end()
    client(level=level, will=will).vanish()
    assert watcher.next().payload == b"gone"
    assert watcher.hears_nothing()


def test_a_will_with_a_delay_waits_and_is_published_with_its_properties_when_the_session_ends(client):
    watcher = client()
    watcher.subscribe("delayed", 1)
    said = properties(PacketTypes.WILLMESSAGE, WillDelayInterval=60, ContentType="text/plain", UserProperty=("a", "b"))
    doomed = client("doomed", connect=for_ever(), will=("delayed", b"gone", {"qos": 1, "properties": said}))
    doomed.vanish()
    assert watcher.hears_nothing()
    client("doomed")  # a clean start
    message = watcher.next()
    assert (message.properties.ContentType, message.properties.UserProperty) == ("text/plain", [("a", "b")])


def test_a_disconnect_may_ask_for_the_will(client):
    watcher = client()
    watcher.subscribe("asked", 1)
    client(will=("asked", b"gone", {"qos": 1})).end(reasoncode=ReasonCode(PacketTypes.DISCONNECT, "Disconnect with will message"))
    assert watcher.next().payload == b"gone"


@levels
def test_another_connection_takes_over(client, level):
    first = client(f"twice-{level}", level)
    client(f"twice-{level}", level)
    assert first.ends.get(timeout=PATIENCE_S) == (0x8E if level == 5 else 128)


@levels
def test_members_of_a_group_share_what_is_published(client, level):
    members = [client(level=level), client(level=level)]
    for one in members:
        assert one.subscribe("$share/g/shared/+", 1) == 1
    publisher = client(level=level)
    for n in range(20):
        publisher.publish(f"shared/{n}", b"%02d" % n)
    counts = [one.messages.qsize() for one in members]
    deadline = time.monotonic() + PATIENCE_S
    while sum(counts) < 20 and time.monotonic() < deadline:
        time.sleep(0.01)
        counts = [one.messages.qsize() for one in members]
    assert counts == [10, 10]
    for one in members:
        one.client.unsubscribe("$share/g/shared/+")
        one.answers.get(timeout=PATIENCE_S)


@levels
def test_last_values_are_kept_told_and_cleared(client, level):
    publisher = client(level=level)
    for n in range(3):
        publisher.publish(f"kept/{level}/{n}", b"%d" % n, retain=True)
    subscriber = client(level=level)
    subscriber.subscribe(f"kept/{level}/#")
    assert sorted((m.payload, m.retain) for m in (subscriber.next(), subscriber.next(), subscriber.next())) == [
        (b"%d" % n, True) for n in range(3)
    ]
    publisher.publish(f"kept/{level}/1", b"", retain=True)
    assert (subscriber.next().retain, client(level=level).subscribe(f"kept/{level}/1")) == (False, 1)


def test_identifiers_no_local_and_what_is_told_of_retained_messages(client):
    both, other = client(), client()
    other.publish("options/kept", b"before", retain=True)
    assert both.subscribe("options/#", identifier=7, noLocal=True, retainHandling=2) == 1
    assert both.subscribe("options/+", identifier=8, retainAsPublished=True, retainHandling=2) == 1
    assert both.hears_nothing()  # retain handling 2
    both.publish("options/own/x")  # matches the first only
    other.publish("options/kept", b"live", retain=True)
    message = both.next()
    assert (message.payload, message.retain, sorted(message.properties.SubscriptionIdentifier)) == (b"live", True, [7, 8])
    assert both.subscribe("options/+", identifier=8, retainHandling=1) == 1
    assert both.hears_nothing()  # it was there
    assert client().publish("options", b"nobody") == 0  # "options/#" matches its parent


def test_what_is_said_of_a_message_goes_with_it(client):
    subscriber, old = client(), client(level=4)
    for one in (subscriber, old):
        one.subscribe("said")
    said = {
        "PayloadFormatIndicator": 1,
        "ContentType": "text/plain",
        "ResponseTopic": "answers/here",
        "CorrelationData": b"\0\xff",
        "UserProperty": [("b", "1"), ("a", "2"), ("b", "3")],
        "MessageExpiryInterval": 1_000,
    }
    assert client().publish("said", b"words", **said) == 0
    got = subscriber.next().properties
    assert 900 <= got.MessageExpiryInterval <= 1_000
    del said["MessageExpiryInterval"]
    assert {name: getattr(got, name) for name in said} == said
    assert old.next().payload == b"words"


def test_topic_aliases_are_used_both_ways(client):
    subscriber = client(connect=properties(PacketTypes.CONNECT, TopicAliasMaximum=5))
    subscriber.subscribe("a/topic/of/some/length", 1)
    publisher = client()
    assert publisher.told.TopicAliasMaximum >= 1
    publisher.publish("a/topic/of/some/length", b"1", TopicAlias=1)
    publisher.publish("", b"2", TopicAlias=1)
    messages = [subscriber.next(), subscriber.next()]
    assert [m.payload for m in messages] == [b"1", b"2"]
    assert messages[0].properties.TopicAlias == 1
    assert messages[1].topic == ""  # paho leaves it to its user to remember


def test_limits_are_told_and_kept(client):
    one = client(connect=properties(PacketTypes.CONNECT, MaximumPacketSize=200, ReceiveMaximum=2))
    assert (one.told.ReceiveMaximum, one.told.MaximumPacketSize) == (50, 100_004)
    assert one.told.AssignedClientIdentifier.startswith("auto-")
    assert not hasattr(one.told, "ServerKeepAlive")  # it asked for less
    one.subscribe("limits")
    publisher = client()
    publisher.publish("limits", b"x" * 300)
    for n in range(10):
        publisher.publish("limits", b"%d" % n)
    assert one.bodies(10) == [b"%d" % n for n in range(10)]
    publisher.client.publish("limits", b"x" * 200_000, 1)
    assert publisher.ends.get(timeout=PATIENCE_S) in {0x95, 128}  # it may be reset before it reads why


def test_refusals_have_reasons_and_the_connection_goes_on(client):
    one = client()
    assert one.publish("$SYS/mine") == 0x87
    assert one.publish("nobody/is/there") == 0x10
    assert one.publish("text", b"\xff", PayloadFormatIndicator=1) == 0x99
    assert [one.subscribe(f"many/{n}") for n in range(11)] == [1] * 10 + [0x97]
    old = client(level=4)
    assert [old.subscribe(f"many/{n}") for n in range(11)] == [1] * 10 + [0x80]


@levels
def test_the_broker_tells_of_itself(client, level):
    one = client(level=level)
    one.subscribe("$SYS/broker/#")
    received, told = "$SYS/broker/messages/received", {}
    deadline = time.monotonic() + PATIENCE_S
    while int(told.get(received, "0")) == 0 and time.monotonic() < deadline:  # none when it first looked
        message = one.next()
        told[message.topic] = message.payload.decode()
    assert told["$SYS/broker/version"].startswith("tidegate version ")
    assert int(told[received]) > 0


async def test_amqtt_does_what_it_can(broker):
    """Amqtt runs on asyncio, in a thread of its own."""
    import trio

    await trio.to_thread.run_sync(asyncio.run, _amqtt(f"mqtt://{broker.mqtt.removeprefix('tcp://')}"))


async def _amqtt(url):
    config = {"auto_reconnect": False, "keep_alive": 60, "default_qos": 0}
    subscriber, publisher = MQTTClient("amqtt-s", config), MQTTClient("amqtt-p", config)
    doomed = MQTTClient("amqtt-d", {**config, "will": {"topic": "am/will", "message": "gone", "qos": 1, "retain": False}})
    await subscriber.connect(url, cleansession=False)
    assert await subscriber.subscribe([("am/#", 2), ("$share/g/shared-by-am", 1)]) == [2, 1]
    await publisher.connect(url)
    await doomed.connect(url)
    for qos in QUALITIES:
        await publisher.publish(f"am/{qos}", b"%d" % qos, qos)
    assert sorted([await _body(subscriber) for _ in QUALITIES]) == [b"0", b"1", b"2"]
    await publisher.publish("shared-by-am", b"shared", 1)
    assert await _body(subscriber) == b"shared"
    await publisher.publish("am/kept", b"kept", 1, retain=True)
    assert await _body(subscriber) == b"kept"
    await subscriber.disconnect()
    await publisher.publish("am/away", b"away", 2)
    again = MQTTClient("amqtt-s", config)
    await again.connect(url, cleansession=False)
    assert await _body(again) == b"away"
    await publisher.publish("am/kept", b"", 1, retain=True)
    assert await _body(again) == b""
    for one in (doomed, again, publisher):
        await one.disconnect()


async def _body(client):
    message: ApplicationMessage = await client.deliver_message(PATIENCE_S)
    return bytes(message.data)
