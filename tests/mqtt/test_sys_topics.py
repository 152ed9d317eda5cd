"""What the broker says of itself under $SYS."""

from __future__ import annotations

import subprocess
import sys

import pytest
import trio

from gateway.api import Binding, ConsumeOptions, Principal, QueueSpec
from gateway.runtime.clock import VirtualClock
from gateway_mqtt.codec.coding import encode
from gateway_mqtt.codec.packets import ConnAck, Publish, SubAck
from gateway_mqtt.sys_topics import matcher
from tests.mqtt.level5 import connected
from tests.mqtt.support import mqtt_broker

INTERVAL_S = 1
BETWEEN_S = 2.5  # after two looks, and far from the next: what a test does then takes no time


def telling(clock):
    """A broker whose time goes on only when everybody is done, however busy the machine is."""
    clock.autojump_threshold = 0.002
    return mqtt_broker(clock=VirtualClock(), sys_interval_s=INTERVAL_S)


async def values(client, pattern="$SYS/#"):
    """Subscribe; return what comes at once."""
    await client.subscribe(pattern)
    await client.send(b"\xc0\0")
    found = {}
    while isinstance(packet := await client.next(), Publish):
        assert packet.qos == 0
        if packet.retain:  # else it was published meanwhile
            found[packet.topic.removeprefix("$SYS/broker/")] = packet.payload.decode()
    return found


async def test_new_subscribers_get_the_values_at_once_and_they_are_true():
    async with mqtt_broker() as bench:
        away = await connected(bench, "away", session_expiry_s=100)
        await away.subscribe("a")
        await away.subscribe("$share/g/b")
        await away.vanish()
        await bench.gone("away")
        here = await connected(bench, "here")
        await here.subscribe("c")
        found = await values(await bench.client())
        assert found["version"].startswith("tidegate version ")
        assert found["uptime"].endswith(" seconds")
        assert [found[f"clients/{kind}"] for kind in ("total", "connected", "disconnected", "maximum")] == ["3", "2", "1", "2"]
        assert found["subscriptions/count"] == "4"
        assert found["shared_subscriptions/count"] == "1"
        assert int(found["bytes/received"]) > 50
        assert 0 < int(found["heap/current"]) <= int(found["heap/maximum"]) or sys.platform != "linux"


async def test_what_was_received_sent_and_stored_is_counted_exactly(autojump_clock):
    async with telling(autojump_clock) as bench:
        away = await bench.client("away", clean=False)
        await away.subscribe("q/#", qos=1)
        await away.leave()
        client = await connected(bench, "c")
        await client.publish("q/1", b"12345", 1)
        await client.publish("q/2", b"1", 2)
        await client.publish("r", b"kept", retain=True)
        await client.send(b"\x30\x06\x00\x01a\x00xy" * 3)
        await client.send(b"\x40\x02\x00\x07")  # it has nothing to acknowledge
        await client.send(b"\xc0\0")
        await client.next()
        found = await sys_values(bench)
        # CONNECTs, a SUBSCRIBE, a DISCONNECT; PUBLISHes, a PUBREL, a PUBACK, a PINGREQ
        assert found["messages/received"] == str(2 + 1 + 1 + 6 + 1 + 1 + 1)
        assert found["publish/messages/received"] == "6"
        sizes = [len(encode(Publish("q/1", b"12345", 1, packet_id=1), 5)), len(encode(Publish("q/2", b"1", 2, packet_id=2), 5))]
        assert found["publish/bytes/received"] == str(sum(sizes) + len(encode(Publish("r", b"kept"), 5)) + 3 * 8)
        assert found["store/messages/count"] == found["messages/stored"] == "3"
        assert int(found["store/messages/bytes"]) >= 10
        assert found["retained messages/count"] == "1"
        assert found["publish/messages/dropped"] == "0"


async def sys_values(bench):
    """Return the values after the next look at everything."""
    await trio.sleep(BETWEEN_S)
    return await values(await bench.client())


async def test_bytes_sent_are_what_all_clients_got(autojump_clock):
    async with telling(autojump_clock) as bench:
        client = await bench.client()
        codes = await client.subscribe("t")
        assert codes == b"\0"
        await client.send(encode(Publish("t", b"x" * 1_000)))
        await client.next()
        answer = len(encode(ConnAck(False, 0)))
        got = answer + len(encode(SubAck(1, codes)) + encode(Publish("t", b"x" * 1_000)))
        await trio.sleep(BETWEEN_S)
        asker = await bench.client()
        await asker.subscribe("$SYS/broker/bytes/sent")
        told = await asker.next()
        assert got <= int(told.payload) <= got + answer + 100  # what the one that asks gets may be in it


async def test_what_is_dropped_is_counted(autojump_clock):
    async with telling(autojump_clock) as bench:
        away = await bench.client("away", clean=False)
        await away.subscribe("t", qos=1)
        await away.leave()
        await bench.gone("away")
        publisher = await bench.client()
        for _ in range(3):
            await publisher.publish("t", b"x")
        await publisher.ping()
        await trio.sleep(BETWEEN_S)
        found = await values(await bench.client(), "$SYS/broker/publish/messages/dropped")
        assert found["publish/messages/dropped"] == "3"


async def test_bindings_of_other_protocols_get_them_too_and_who_comes_later_is_told_all(autojump_clock):
    async with telling(autojump_clock) as bench:
        got = []

        class Sink:
            def deliver_transient(self, message, options):
                got.append(message.address.routing_key)

        channel = bench.broker.gateway("other", print, bench.log).open_channel(Principal("somebody"))
        await channel.outcome(channel.declare_queue(QueueSpec("watching", keep_transient=False)))
        await channel.outcome(channel.consume("watching", Sink(), ConsumeOptions()))
        for _ in range(2):
            await channel.outcome(channel.bind(Binding("amq.topic", "watching", "$SYS.broker.version")))
            await trio.sleep(BETWEEN_S)
            assert got == ["$SYS.broker.version"]  # once only, as it does not change
            await channel.outcome(channel.unbind(Binding("amq.topic", "watching", "$SYS.broker.version")))
            await trio.sleep(BETWEEN_S)
            got.clear()


async def test_wildcards_of_others_do_not_match_them_and_filters_choose_among_them_mqtt_4_7_2_1():
    async with mqtt_broker() as bench:
        client = await bench.client()
        assert not await values(client, "#")
        assert not await values(client, "+/broker/uptime")
        assert set(await values(client, "$SYS/broker/clients/+")) == {
            f"clients/{kind}" for kind in ("total", "connected", "active", "disconnected", "inactive", "maximum", "expired")
        }
        assert set(await values(client, "$SYS/broker/uptime")) == {"uptime"}


async def test_what_changes_is_published_every_interval_and_loads_are_averages(autojump_clock):
    autojump_clock.autojump_threshold = 0.002
    async with mqtt_broker(clock=VirtualClock(), sys_interval_s=10) as bench:
        client = await bench.client(keep_alive_s=0)
        client.patience_s = 100
        assert (await values(client, "$SYS/broker/load/connections/1min"))["load/connections/1min"] == "0.00"
        await trio.sleep(11)
        packet = await client.next()
        assert (packet.topic, packet.retain) == ("$SYS/broker/load/connections/1min", False)
        first = float(packet.payload)
        assert 0.5 < first < 1.5  # one in ten seconds: six a minute, of which a sixth counts
        second = float((await client.next()).payload)
        assert second < first


async def test_nothing_is_published_where_nobody_has_subscribed(autojump_clock):
    autojump_clock.autojump_threshold = 0.002
    async with mqtt_broker(clock=VirtualClock(), sys_interval_s=1) as bench:
        client = await bench.client()
        await client.subscribe("$SYS/broker/uptime")
        await client.vanish()
        await trio.sleep(10)
        assert bench.counted("unroutable") == 0
        assert bench.counted("dropped") == 0


async def test_they_can_be_switched_off():
    async with mqtt_broker(sys_interval_s=0) as bench:
        assert not await values(await bench.client())


@pytest.mark.parametrize(
    ("pattern", "topic", "matches"),
    [
        ("$SYS/#", "$SYS/broker/uptime", True),
        ("$SYS/#", "$SYS", True),
        ("$SYS/broker/+", "$SYS/broker/uptime", True),
        ("$SYS/broker/+", "$SYS/broker/clients/total", False),
        ("$SYS/+/clients/#", "$SYS/broker/clients/total", True),
        ("$SYS/broker", "$SYS/broker/uptime", False),
        ("$SYS/broker/uptime/x", "$SYS/broker/uptime", False),
    ],
)
def test_topics_match_as_filters_say(pattern, topic, matches):
    assert matcher(pattern)(topic) == matches


async def test_the_command_line_shows_them():
    async with mqtt_broker() as bench:
        command = [sys.executable, "-m", "gateway", "sub", "-p", str(bench.port), "$SYS/#", "-v", "-C", "3", "-W", "20"]
        done = await trio.run_process(command, capture_stdout=True, stderr=subprocess.STDOUT)
        assert [line.split()[0] for line in done.stdout.decode().splitlines()][:2] == ["$SYS/broker/version", "$SYS/broker/uptime"]
