"""A session that is full: it refuses, or it ends and only its own client notices."""

from __future__ import annotations

import pytest
import trio

from gateway.journal.sqlite import SqliteJournal
from gateway_mqtt.codec.packets import PUBACK, Ack, Connect, Publish, Will
from tests.mqtt.support import mqtt_broker, until
from tests.mqtt.test_slow_readers import KIB, LITTLE, congested, slow_client

ENDED = "a session has ended: connection closed"
ENDING = {"session_max_messages": 3, "session_overflow": "end-session", "clean_session_max_messages": 3}
REJECTING = {"session_max_messages": 3, "session_overflow": "reject"}

kinds = pytest.mark.parametrize("clean", [True, False], ids=["clean", "persistent"])


async def subscriber(bench, client_id, topic="t", **fields):
    """Return a client that subscribes with QoS 1 and, in these tests, acknowledges nothing."""
    client = await bench.client(client_id, **fields)
    await client.subscribe(topic, qos=1)
    return client


async def away(bench, client_id, topic="t"):
    """Leave a persistent session behind."""
    await (await subscriber(bench, client_id, topic, clean=False)).leave()
    await bench.gone(client_id)


async def fill(bench, count, topic="t"):
    """Publish 0, 1, ... from a client of its own; every one is acknowledged."""
    publisher = await bench.client()
    for n in range(count):
        await publisher.publish(topic, b"%d" % n, qos=1)
    await publisher.leave()


def bodies(packets):
    return [packet.payload for packet in packets]


@kinds
async def test_a_session_holds_exactly_its_limit_and_one_more_ends_it_and_its_connection(clean):
    async with mqtt_broker(**ENDING, max_inflight=2) as bench:
        lazy = await subscriber(bench, "lazy", clean=clean)
        await fill(bench, 3)
        assert bodies(await lazy.take(2)) == [b"0", b"1"]  # what waits counts like what is under way
        await lazy.ping()
        await fill(bench, 1)
        assert await lazy.next() is None
        assert bench.queue("lazy") is None


@kinds
async def test_what_is_acknowledged_makes_room(clean):
    async with mqtt_broker(**ENDING) as bench:
        client = await subscriber(bench, "c", clean=clean)
        for _ in range(10):
            await fill(bench, 3)
            await client.send(*(Ack(PUBACK, packet.packet_id) for packet in await client.take(3)))
            await client.ping()
        assert not bench.logged(ENDED)


@kinds
async def test_a_limit_in_bytes_is_exact_too(clean):
    async with mqtt_broker(
        session_max_bytes=3_000, clean_session_max_bytes=3_000, session_overflow="end-session", max_inflight=2
    ) as bench:
        lazy, publisher = await subscriber(bench, "lazy", clean=clean), await bench.client()
        for _ in range(3):
            await publisher.publish("t", b"x" * 1_000, qos=1)
        await lazy.take(2)
        await lazy.ping()
        await publisher.publish("t", b"", qos=1)  # fits
        await publisher.publish("t", b"x", qos=1)
        assert await lazy.next() is None


@kinds
async def test_0_is_no_limit(clean):
    none = {"session_max_messages": 0, "session_max_bytes": 0, "clean_session_max_messages": 0, "clean_session_max_bytes": 0}
    async with mqtt_broker(**none, session_overflow="end-session") as bench:
        client = await subscriber(bench, "c", clean=clean)
        await fill(bench, 200)
        assert len(await client.take(200)) == 200
        await client.ping()


@kinds
async def test_a_session_that_ends_is_counted_and_logged_once_with_the_reason(clean):
    async with mqtt_broker(**ENDING) as bench:
        lazy = await subscriber(bench, "lazy", clean=clean)
        await fill(bench, 20)
        assert (await lazy.take(4))[3] is None
        await until(lambda: bench.logged(ENDED))
        await bench.gone("lazy")
        assert bench.counted("mqtt.sessions_ended") == 1
        [values] = [values for _, event, values in bench.log.lines if event == ENDED]
        assert values["client"] == "lazy"
        assert "full" in values["reason"]
        assert not bench.counted("mqtt.publishes_refused")


@kinds
async def test_its_will_is_published(clean):
    async with mqtt_broker(**ENDING) as bench:
        watcher = await subscriber(bench, "watcher", "lost")
        lazy = await subscriber(bench, "lazy", clean=clean, will=Will("lost", b"lazy is gone", 1))
        await fill(bench, 4)
        assert await watcher.next() == Publish("lost", b"lazy is gone", 1, packet_id=1)
        assert (await lazy.take(4))[3] is None


@kinds
async def test_the_others_get_every_message_and_the_publisher_every_puback(clean):
    async with mqtt_broker(**ENDING) as bench:
        lazy = [await subscriber(bench, f"lazy-{n}", clean=clean) for n in range(3)]
        quick = await subscriber(bench, "quick")
        low = await bench.client("low")
        await low.subscribe("#", qos=0)
        publisher = await bench.client()
        for n in range(1, 21):
            await publisher.send(Publish("t", b"%d" % n, 1, packet_id=n))
            packet = await quick.next()
            assert packet.payload == b"%d" % n
            await quick.send(Ack(PUBACK, packet.packet_id))
            await quick.ping()
        assert await publisher.take(20) == [Ack(PUBACK, n) for n in range(1, 21)]
        assert bodies(await low.take(20)) == [b"%d" % n for n in range(1, 21)]
        for peer in lazy:
            assert (await peer.take(4))[3] is None
        await quick.ping()
        await publisher.ping()
        assert bench.counted("mqtt.sessions_ended") == 3


async def test_a_batch_that_overflows_a_session_in_its_middle_is_confirmed_as_a_whole():
    async with mqtt_broker(**ENDING) as bench:
        await away(bench, "absent")
        publisher = await bench.client()
        await publisher.send(*(Publish("t", b"%d" % n, 1, packet_id=n) for n in range(1, 101)))
        assert await publisher.take(100) == [Ack(PUBACK, n) for n in range(1, 101)]
        assert bench.queue("absent") is None


async def test_a_message_that_another_session_refuses_ends_none():
    async with mqtt_broker(session_max_messages=3, clean_session_max_messages=3) as bench:
        lazy = await subscriber(bench, "lazy")
        await away(bench, "absent")
        await fill(bench, 3)
        publisher = await bench.client()
        await publisher.send(Publish("t", b"one more", 1, packet_id=1))
        assert await publisher.next() is None
        await lazy.take(3)
        await lazy.ping()
        assert bench.queue("absent").count == 3


async def test_qos_0_ends_no_session():
    async with mqtt_broker(**ENDING) as bench:
        lazy, publisher = await subscriber(bench, "lazy"), await bench.client()
        await fill(bench, 3)
        await publisher.publish("t", b"low")
        assert bodies(await lazy.take(4)) == [b"0", b"1", b"2", b"low"]
        await lazy.ping()


@kinds
async def test_a_client_that_overflows_its_own_session_is_disconnected_and_the_others_have_what_it_sent(clean):
    async with mqtt_broker(**ENDING) as bench:
        watcher = await bench.client()
        await watcher.subscribe("#")
        echo = await subscriber(bench, "echo", clean=clean, will=Will("lost", b"echo"))
        await echo.send(*(Publish("t", b"%d" % n, 1, packet_id=n) for n in range(1, 6)))
        while await echo.next() is not None:
            pass
        assert bodies(await watcher.take(6)) == [b"1", b"2", b"3", b"4", b"5", b"echo"]


async def test_a_client_that_reads_nothing_at_all_loses_its_full_session_and_its_connection(autojump_clock):
    autojump_clock.autojump_threshold = 0.002
    async with mqtt_broker(limits=LITTLE, max_inflight=30_000, clean_session_max_bytes=400 * 1024) as bench:
        slow, publisher = await slow_client(bench), await bench.client()
        await slow.subscribe("t", qos=1)
        for part in range(4):
            await publisher.send(*(Publish("t", KIB, 1, packet_id=part * 100 + n) for n in range(1, 101)))
            assert await publisher.take(100) == [Ack(PUBACK, part * 100 + n) for n in range(1, 101)]
        assert congested(bench)
        assert bench.queue("slow").count == 400
        await publisher.publish("t", b"x", qos=1)
        assert bench.queue("slow") is None
        await trio.sleep(10)
        assert len(bench.broker.listeners[0].connections) == 1
        assert bench.counted("mqtt.sessions_ended") == 1
        await publisher.ping()


async def test_after_its_session_ended_a_client_begins_anew():
    async with mqtt_broker(**ENDING) as bench:
        lazy = await subscriber(bench, "lazy", clean=False)
        await fill(bench, 4)
        assert (await lazy.take(4))[3] is None
        again = await bench.open()
        assert not await again.connect("lazy", clean=False)
        await fill(bench, 1)
        await again.ping()  # not even a subscription is left
        await again.subscribe("t", qos=1)
        await fill(bench, 3)
        got = await again.take(3)
        assert [(packet.payload, packet.dup) for packet in got] == [(b"0", False), (b"1", False), (b"2", False)]


async def test_an_absent_clients_session_ends_without_a_will_and_the_client_begins_anew():
    async with mqtt_broker(**ENDING) as bench:
        watcher = await subscriber(bench, "watcher", "lost")
        gone = await subscriber(bench, "p", clean=False, will=Will("lost", b"gone"))
        await gone.leave()
        await bench.gone("p")
        await fill(bench, 4)
        assert bench.queue("p") is None
        assert not await (await bench.open()).connect("p", clean=False)
        await watcher.ping()


async def test_a_session_that_ends_while_its_client_connects_refuses_the_connect_and_publishes_no_will():
    async with mqtt_broker(**ENDING) as bench:
        await away(bench, "p")
        await fill(bench, 3)
        watcher = await bench.client()
        await watcher.subscribe("lost")
        await away(bench, "other", "other")
        publisher = await bench.client()
        bench.journal.automatic = False
        await publisher.send(Publish("other", b"a commit that takes long", 1, packet_id=2))
        await until(lambda: bench.journal.writes)
        client = await bench.open()
        await client.send(Connect("p", False, will=Will("lost", b"p")))
        await until(lambda: bench.queue("p").consumers)
        await publisher.send(Publish("t", b"one more", 1, packet_id=1))
        await until(lambda: bench.queue("p") is None)
        bench.journal.automatic = True
        while bench.journal.writes:
            bench.journal.finish()
        assert await publisher.take(2) == [Ack(PUBACK, 2), Ack(PUBACK, 1)]
        answer = await client.next()
        assert (answer.session_present, answer.code) == (False, 3)
        assert await client.next() is None
        await watcher.ping()
        assert bench.counted("mqtt.sessions_ended") == 1
        assert not await (await bench.open()).connect("p", clean=False)


# -- over a restart -----------------------------------------------------------


@pytest.fixture
def restartable(tmp_path):
    """A broker over the same data each time; leaving it is as a kill: nothing is drained."""
    return lambda **settings: mqtt_broker(SqliteJournal(tmp_path), **settings)


@pytest.mark.parametrize("online", [False, True])
async def test_the_journal_forgets_a_session_that_ended_and_keeps_the_others(restartable, online):
    async with restartable(**ENDING) as bench:
        await away(bench, "lazy")
        if online:
            await bench.client("lazy", clean=False)
        await fill(bench, 3)
        await away(bench, "late")
        await fill(bench, 1)  # confirmed, so it is on disk, and with it that the session is none any more
    async with restartable(**ENDING) as bench:
        assert bench.queue("lazy") is None
        assert not bench.broker.engine.vhost("/").table.bindings_of("mqtt.session.lazy", to_exchange=False)
        lazy = await bench.open()
        assert not await lazy.connect("lazy", clean=False)
        await lazy.ping()
        late = await bench.open()
        assert await late.connect("late", clean=False)
        assert bodies(await late.take(1)) == [b"0"]
        await late.ping()


async def test_a_session_that_begins_anew_in_the_same_moment_survives(restartable):
    async with restartable(**ENDING) as bench:
        await away(bench, "p")
        await fill(bench, 4)
        await away(bench, "p")
        await fill(bench, 2)
    async with restartable(**ENDING) as bench:
        client = await bench.open()
        assert await client.connect("p", clean=False)
        assert bodies(await client.take(2)) == [b"0", b"1"]


@pytest.mark.parametrize(("before", "after"), [(REJECTING, ENDING), (ENDING, REJECTING)], ids=["reject", "end-session"])
async def test_a_session_goes_on_as_it_was_made_when_the_settings_change_until_a_clean_connect(restartable, before, after):
    async with restartable(**before) as bench:
        await away(bench, "p")
        await fill(bench, 2)
    async with restartable(**{**after, "session_max_messages": 5, "session_max_bytes": 1_000}) as bench:
        client = await bench.open()
        assert await client.connect("p", clean=False)
        assert bodies(await client.take(2)) == [b"0", b"1"]
        await client.leave()
        await fill(bench, 1)
        assert bench.queue("p").count == 3
        await one_more(bench, taken=before is ENDING)
        assert (bench.queue("p") is None) == (before is ENDING)
        await (await bench.client("p")).leave()
        await bench.gone("p")
        await away(bench, "p")
        await fill(bench, 5)
        await one_more(bench, taken=after is ENDING)
        assert (bench.queue("p") is None) == (after is ENDING)


async def one_more(bench, *, taken):
    publisher = await bench.client()
    await publisher.send(Publish("t", b"one more", 1, packet_id=1))
    assert await publisher.next() == (Ack(PUBACK, 1) if taken else None)
