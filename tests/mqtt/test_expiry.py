"""How long sessions outlive their connections, and when the wills of those who are away are published."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from gateway.api import Binding, Overflow, Principal, QueueSpec
from gateway.journal.memory import MemoryJournal, MemoryStore
from gateway.runtime.clock import VirtualClock
from gateway_mqtt import expiry
from gateway_mqtt.codec.packets import Connect, Disconnect, Publish, Will
from gateway_mqtt.codec.properties import Properties
from gateway_mqtt.codec.reasons import SERVER_UNAVAILABLE
from gateway_mqtt.expiry import Absences, Diary, left
from gateway_mqtt.store import SESSIONS, SessionRecord, Stores
from gateway_mqtt.sys_topics import Stock
from tests.mqtt.level5 import FOR_EVER, connected, goodbye, opened, refused
from tests.mqtt.support import mqtt_broker, until
from tests.runtime.support import HandJournal, Log, running


@pytest.fixture
def virtual(autojump_clock):
    """A broker whose time is trio's, over the same data each time; leaving it is as a kill."""
    autojump_clock.autojump_threshold = 0.001
    store = MemoryStore()
    return lambda **settings: mqtt_broker(
        MemoryJournal(store),
        clock=VirtualClock(1_700_000_000_000 + round(trio.current_time() * 1_000)),
        sys_interval_s=0,
        **settings,
    )


async def watching(bench, topic="lost", qos=0):
    watcher = await opened(bench, 4)
    await watcher.connect("watcher")
    await watcher.subscribe(topic, qos)
    watcher.patience_s = 1_000
    return watcher


async def message(client):
    packet = await client.next()
    assert isinstance(packet, Publish), packet
    return packet


async def is_present(bench, client_id="c", expiry_s=0):
    client = await connected(bench, client_id, clean=False, session_expiry_s=expiry_s)
    await client.send(Disconnect())
    return client.answer.session_present


# -- the diary ----------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 5), st.one_of(st.none(), st.integers(0, 100))), max_size=300), st.integers(0, 100))
def test_what_is_due_is_taken_in_order_and_nothing_else(changes, now_ms):
    diary, model = Diary(), {}
    for number, due_ms in changes:
        key = ("/", str(number))
        if due_ms is None:
            diary.cancel(key)
            model.pop(key, None)
        else:
            diary.put(key, due_ms)
            model[key] = due_ms
    assert len(diary) == len(model)
    assert diary.next_due_ms == min(model.values(), default=None)
    taken = list(diary.take(now_ms))
    assert [model[key] for key in taken] == sorted(due_ms for due_ms in model.values() if due_ms <= now_ms)
    assert {key for key in model if key not in taken} == {key for key, due_ms in model.items() if due_ms > now_ms}
    assert len(diary) == len(model) - len(taken)


def test_appointments_that_are_put_off_all_the_time_take_no_room():
    diary = Diary()
    for due_ms in range(10_000):
        diary.put(("/", "c"), due_ms)
    assert len(diary._heap) < 300


# -- sessions -----------------------------------------------------------------


async def test_a_session_ends_when_its_client_stays_away_longer_than_it_said_mqtt5_3_1_2_23(autojump_clock, virtual):
    async with virtual() as bench:
        client = await connected(bench, session_expiry_s=10)
        await client.subscribe("t", 1)
        await client.vanish()
        await trio.sleep(9)
        assert bench.queue("c")
        await trio.sleep(2)
        assert bench.queue("c") is None
        assert bench.counted("mqtt.sessions_expired") == 1
        assert not await is_present(bench)


async def test_a_session_that_can_not_end_while_the_journal_fails_is_kept_whole_and_ends_later(autojump_clock, virtual):
    async with virtual() as bench:
        client = await connected(bench, session_expiry_s=10)
        await client.subscribe("t", 2)
        await client.vanish()
        await trio.sleep(5)
        bench.broker.alarms.journal_fails("it is broken")
        await trio.sleep(10)
        assert bench.queue("c") is not None
        journal = bench.broker.gateway("other", print, bench.log).open_channel(Principal("somebody"))
        assert list(journal.scan_state(SESSIONS))
        bench.broker.alarms.journal_works()
        await trio.sleep(30)
        assert bench.queue("c") is None
        assert not list(journal.scan_state(SESSIONS))
        assert bench.counted("mqtt.sessions_expired") == 1
        assert not await is_present(bench)


async def test_a_session_that_can_not_be_begun_anew_while_the_journal_fails_is_kept_whole(autojump_clock, virtual):
    async with virtual() as bench:
        client = await connected(bench, session_expiry_s=100)
        await client.subscribe("t", 2)
        await client.vanish()
        await trio.sleep(5)
        journal = bench.broker.gateway("other", print, bench.log).open_channel(Principal("somebody"))
        before = list(journal.scan_state(SESSIONS))
        assert before
        bench.broker.alarms.journal_fails("it is broken")
        assert (await refused(bench, clean=True)).code == SERVER_UNAVAILABLE
        assert list(journal.scan_state(SESSIONS)) == before
        assert bench.queue("c") is not None
        bench.broker.alarms.journal_works()
        assert await is_present(bench, expiry_s=100)
        await trio.sleep(110)
        assert bench.queue("c") is None


async def test_a_session_that_is_come_back_to_counts_anew_from_its_next_end(autojump_clock, virtual):
    async with virtual() as bench:
        await (await connected(bench, session_expiry_s=10)).vanish()
        for _ in range(3):
            await trio.sleep(6)
            client = await connected(bench, clean=False, session_expiry_s=10)
            assert client.answer.session_present
            await trio.sleep(20)  # connected, nothing runs out
            await client.vanish()
        await trio.sleep(11)
        assert not await is_present(bench)


async def test_with_0_a_session_ends_with_its_connection_even_if_it_lasted_before_mqtt5_3_1_2_23(autojump_clock, virtual):
    async with virtual() as bench:
        await (await connected(bench, session_expiry_s=FOR_EVER)).vanish()
        await trio.sleep(30)
        assert await is_present(bench, expiry_s=0)
        await trio.sleep(1)
        assert bench.queue("c") is None
        assert not await is_present(bench)


async def test_a_disconnect_may_say_another_expiry_and_0_ends_it_at_once_mqtt5_3_14_2_1(autojump_clock, virtual):
    async with virtual() as bench:
        client = await connected(bench, session_expiry_s=10)
        await client.send(Disconnect(0, Properties(session_expiry_s=100)))
        await trio.sleep(12)
        assert bench.queue("c")
        client = await connected(bench, clean=False, session_expiry_s=10)
        await client.send(Disconnect(0, Properties(session_expiry_s=0)))
        await trio.sleep(1)
        assert bench.queue("c") is None


async def test_a_session_that_was_not_to_last_can_not_be_made_to_mqtt5_3_14_2_2(autojump_clock, virtual):
    async with virtual() as bench:
        client = await connected(bench)
        await client.send(Disconnect(0, Properties(session_expiry_s=10)))
        assert (await goodbye(client)).code == 0x82


async def test_no_session_lasts_longer_than_the_setting_and_its_client_is_told(autojump_clock, virtual):
    async with virtual(max_session_expiry_s=5) as bench:
        client = await connected(bench, session_expiry_s=FOR_EVER)
        assert client.answer.properties.session_expiry_s == 5
        await client.send(Disconnect(0, Properties(session_expiry_s=100)))
        await trio.sleep(6)
        assert bench.queue("c") is None
        assert (await connected(bench, session_expiry_s=5)).answer.properties.session_expiry_s is None


@pytest.mark.parametrize(("expiry_s", "there"), [(0, True), (6, False)])
async def test_persistent_sessions_before_mqtt_5_last_as_long_as_the_setting_says(autojump_clock, virtual, expiry_s, there):
    async with virtual(persistent_session_expiry_s=expiry_s) as bench:
        await (await bench.client("c", clean=False)).vanish()
        await trio.sleep(10)
        assert (bench.queue("c") is not None) == there


async def test_a_session_ends_in_time_though_the_broker_was_away_meanwhile(autojump_clock, virtual):
    async with virtual() as bench:
        away = await connected(bench, "away", session_expiry_s=10)
        await away.subscribe("t", 1)
        await away.vanish()
        await connected(bench, "here", session_expiry_s=10)
        await (await connected(bench, "later", session_expiry_s=100)).vanish()
        await bench.gone("away")
        await trio.sleep(5)
    await trio.sleep(6)
    async with virtual() as bench:
        assert bench.queue("away") is None
        assert bench.queue("here") is not None  # it was connected when the broker ended, so its time begins now
        assert bench.queue("later") is not None
        await trio.sleep(11)
        assert bench.queue("here") is None
        assert await is_present(bench, "later")


async def test_nothing_is_left_of_a_session_that_has_ended(autojump_clock, virtual):
    async with virtual() as bench:
        client = await connected(bench, session_expiry_s=10, will=Will("lost", b"x", 1))
        await client.subscribe("t", 2)
        await client.subscribe("$share/g/t", 1)
        await client.send(Publish("x", b"y", 2, packet_id=7))
        await client.next()
        await client.vanish()
        await trio.sleep(11)
        channel = bench.broker.gateway("other", print, bench.log).open_channel(Principal("x"))
        for namespace in ("mqtt.session", "mqtt.in", "mqtt.out", "mqtt.share"):
            assert not list(channel.scan_state(namespace)), namespace
        assert not bench.broker.engine.vhost("/").queues


async def test_the_record_of_a_session_whose_queue_somebody_deleted_goes_at_the_next_start(autojump_clock, virtual):
    async with virtual() as bench:
        await (await connected(bench, session_expiry_s=FOR_EVER)).vanish()
        await until(lambda: bench.queue("c"))
        await bench.gone("c")
        channel = bench.broker.gateway("other", print, bench.log).open_channel(Principal("x"))
        await channel.outcome(channel.delete_queue("mqtt.session.c"))
    async with virtual() as bench:
        channel = bench.broker.gateway("other", print, bench.log).open_channel(Principal("x"))
        assert not list(channel.scan_state("mqtt.session"))


# -- wills --------------------------------------------------------------------


def late(delay_s, body=b"gone", qos=1, **properties):
    return Will("lost", body, qos, properties=Properties(will_delay_s=delay_s, **properties))


async def test_a_will_waits_for_its_delay_mqtt5_3_1_2_8(autojump_clock, virtual):
    async with virtual() as bench:
        watcher = await watching(bench)
        client = await connected(bench, session_expiry_s=100, will=late(5))
        began = trio.current_time()
        await client.vanish()
        assert (await message(watcher)).payload == b"gone"
        assert 5 <= trio.current_time() - began < 6
        assert await is_present(bench)


async def test_a_client_that_is_back_in_time_is_not_lost_mqtt5_3_1_3_9(autojump_clock, virtual):
    async with virtual() as bench:
        watcher = await watching(bench)
        client = await connected(bench, session_expiry_s=100, will=late(5))
        await client.vanish()
        await trio.sleep(4)
        again = await connected(bench, clean=False, session_expiry_s=100)
        await trio.sleep(10)
        await watcher.quiet()
        await again.vanish()  # it has no will now
        await trio.sleep(10)
        await watcher.quiet()


@pytest.mark.parametrize(("expiry_s", "after_s"), [(5, 5), (0, 0)])
async def test_the_end_of_the_session_cuts_the_delay_mqtt5_3_1_2_8(autojump_clock, virtual, expiry_s, after_s):
    async with virtual() as bench:
        watcher = await watching(bench)
        client = await connected(bench, session_expiry_s=expiry_s, will=late(50))
        began = trio.current_time()
        await client.vanish()
        assert (await message(watcher)).payload == b"gone"
        assert after_s <= trio.current_time() - began < after_s + 1


async def test_a_clean_start_ends_the_session_and_so_publishes_the_will_that_waits(autojump_clock, virtual):
    async with virtual() as bench:
        watcher = await watching(bench)
        await (await connected(bench, session_expiry_s=100, will=late(50))).vanish()
        await bench.gone("c")
        await connected(bench, clean=True)
        assert (await message(watcher)).payload == b"gone"


@pytest.mark.parametrize(("delay_s", "clean", "published"), [(0, False, True), (6, False, False), (6, True, True)])
async def test_who_is_taken_over_is_lost_unless_the_session_goes_on_within_the_delay_mqtt5_3_1_4_3(
    autojump_clock, virtual, delay_s, clean, published
):
    async with virtual() as bench:
        watcher = await watching(bench)
        first = await connected(bench, session_expiry_s=100, will=late(delay_s))
        await connected(bench, clean=clean, session_expiry_s=100)
        assert (await goodbye(first)).code == 0x8E
        if published:
            assert (await message(watcher)).payload == b"gone"
        await trio.sleep(10)
        await watcher.quiet()


@pytest.mark.parametrize(("code", "published"), [(0x00, False), (0x04, True), (0x80, True)])
async def test_a_disconnect_says_whether_the_will_is_published_mqtt5_3_14_4_3(autojump_clock, virtual, code, published):
    async with virtual() as bench:
        watcher = await watching(bench)
        client = await connected(bench, will=late(0))
        await client.send(Disconnect(code))
        assert await client.next() is None
        if published:
            assert (await message(watcher)).payload == b"gone"
        await watcher.quiet()


async def test_a_will_has_its_properties_and_its_expiry_counts_from_its_publication(autojump_clock, virtual):
    async with virtual() as bench:
        watcher = await connected(bench, "watcher")
        watcher.patience_s = 1_000
        await watcher.subscribe("lost", 2)
        told = {"payload_format": 1, "content_type": "text/plain", "response_topic": "back", "correlation_data": b"7"}
        user = (("b", "1"), ("a", "2"), ("b", "3"))
        will = late(5, qos=2, message_expiry_s=20, user=user, **told)
        await (await connected(bench, session_expiry_s=100, will=will)).vanish()
        got = await message(watcher)
        assert (got.qos, got.retain) == (2, False)
        assert got.properties == Properties(message_expiry_s=20, user=user, **told)


async def test_a_retained_will_is_kept_with_its_properties(autojump_clock, virtual):
    async with virtual() as bench:
        will = Will("lost", b"x", 1, retain=True, properties=Properties(content_type="text/plain"))
        await (await connected(bench, will=will)).vanish()
        await until(lambda: not bench.broker.listeners[0].connections)
        client = await connected(bench)
        await client.subscribe("lost", 1)
        got = await message(client)
        assert (got.retain, got.qos, got.properties.content_type) == (True, 1, "text/plain")


async def test_the_will_of_a_lasting_session_is_published_after_a_kill_unless_its_client_is_back(autojump_clock, virtual):
    async with virtual() as bench:
        keeper = await connected(bench, "keeper", session_expiry_s=FOR_EVER)
        await keeper.subscribe("lost", 1)
        for name, delay_s in (("now", 0), ("soon", 6), ("back", 6)):
            await connected(bench, name, session_expiry_s=FOR_EVER, will=late(delay_s, name.encode()))
    async with virtual() as bench:
        keeper = await connected(bench, "keeper", clean=False, session_expiry_s=FOR_EVER)
        keeper.patience_s = 1_000
        assert (await message(keeper)).payload == b"now"
        await connected(bench, "back", clean=False, session_expiry_s=FOR_EVER)
        assert (await message(keeper)).payload == b"soon"
        await trio.sleep(10)
    async with virtual() as bench:  # once, and "back" had no will any more
        keeper = await connected(bench, "keeper", clean=False, session_expiry_s=FOR_EVER)
        await trio.sleep(10)
        assert {packet.payload for packet in await keeper.take(2)} == {b"now", b"soon"}  # not acknowledged
        await keeper.quiet()


async def test_a_delayed_will_survives_the_broker_and_comes_at_its_time(autojump_clock, virtual):
    async with virtual() as bench:
        await (await connected(bench, session_expiry_s=FOR_EVER, will=late(10))).vanish()
        await bench.gone("c")
        await trio.sleep(3)
    async with virtual() as bench:
        watcher = await watching(bench)
        began = trio.current_time()
        assert (await message(watcher)).payload == b"gone"
        assert 5.5 < trio.current_time() - began < 7.5


@pytest.mark.parametrize(
    ("payload", "properties", "fits"),
    [(996, {}, True), (997, {}, False), (900, {"content_type": "t" * 93}, True), (900, {"content_type": "t" * 94}, False)],
)
async def test_a_will_has_a_largest_size_with_all_that_is_in_it(payload, properties, fits):
    async with mqtt_broker(max_will_bytes=1_000) as bench:
        will = Will("lost", b"x" * payload, properties=Properties(**properties))
        if fits:
            await connected(bench, will=will)
        else:
            assert (await refused(bench, will=will)).code == 0x97
        before_5 = await opened(bench, 4)
        await before_5.send(Connect("old", True, 0, Will("lost", b"x" * 997)))
        assert await before_5.next() is None


async def test_each_subscription_of_a_session_that_ends_counts_as_effort(autojump_clock):
    async with running(HandJournal(automatic=True), clock=VirtualClock()) as broker:
        gateway = broker.gateway("mqtt", print, Log())
        ended = []
        stores = Stores(gateway.log, gateway.count)
        absences = Absences(gateway, stores, lambda key, _: ended.append(key[1]), lambda: None, lambda *_: 0)
        for name, filters in [("a", 0), ("b", 3), ("c", 100), ("d", 0), ("e", 0)]:
            record = left(SessionRecord(10, None, 5, None, None, "me"), gateway.now_ms())
            absences.leave(("/", name), record, Stock(filters, 0))
            await trio.sleep(0.01)
        await trio.sleep(11)
        absences.run(5)
        assert ended == ["a", "b"]
        absences.run(5)
        assert ended == ["a", "b", "c"]
        absences.run(5)
        assert ended == ["a", "b", "c", "d", "e"]


# -- wills that are refused when they are due -----------------------------------


class Full:
    """A durable queue that takes one message, has it, and gets what is published to ``lost``."""

    def __init__(self, bench):
        self.channel = bench.broker.gateway("other", print, bench.log).open_channel(Principal("somebody"))
        self.queue = bench.broker.engine.vhost("/").queues.get("full")

    @classmethod
    async def made(cls, bench):
        full = cls(bench)
        spec = QueueSpec("full", max_length=1, overflow=Overflow.REJECT_PUBLISH)
        await full.channel.outcome(full.channel.declare_queue(spec))
        await full.channel.outcome(full.channel.bind(Binding("amq.topic", "full", "lost")))
        await full.channel.send("amq.topic", "lost", b"before")
        return full

    async def take(self):
        """Return the body of the message that is in it; None: there is none."""
        found = (await self.channel.outcome(self.channel.get("full"))).result
        if found is None:
            return None
        self.channel.ack(found)
        await self.channel.outcome(self.channel.barrier())
        return found.message.body


LASTING = {"session_expiry_s": FOR_EVER}
FOR_A_WHILE = {"session_expiry_s": 5}
CLEAN = {}


@pytest.mark.parametrize("how", [LASTING, FOR_A_WHILE, CLEAN], ids=["lasting", "for a while", "clean"])
@pytest.mark.parametrize("retain", [False, True])
async def test_a_will_that_is_refused_is_tried_again_until_it_is_published_once(autojump_clock, virtual, how, retain):
    async with virtual() as bench:
        full = await Full.made(bench)
        client = await connected(bench, will=Will("lost", b"will", 1, retain), **how)
        await client.vanish()
        await trio.sleep(20)
        assert bench.counted("refused") > 3
        assert await full.take() == b"before"
        await trio.sleep(30)
        assert await full.take() == b"will"
        await trio.sleep(70)
        assert await full.take() is None
        watcher = await opened(bench, 4)
        await watcher.connect("watcher")
        await watcher.subscribe("lost")
        if retain:
            assert (await message(watcher)).payload == b"will"
        await watcher.quiet()


@pytest.mark.parametrize("how", [LASTING, FOR_A_WHILE, CLEAN], ids=["lasting", "for a while", "clean"])
@pytest.mark.parametrize("clean", [False, True])
async def test_a_will_that_is_refused_is_not_published_any_more_when_its_client_is_back(autojump_clock, virtual, how, clean):
    async with virtual() as bench:
        full = await Full.made(bench)
        client = await connected(bench, will=Will("lost", b"will", 1), **how)
        await client.vanish()
        await trio.sleep(10)
        await connected(bench, clean=clean, **how)
        assert await full.take() == b"before"
        await trio.sleep(70)
        assert await full.take() is None


async def test_the_refused_will_of_a_session_that_lasts_outlives_the_broker(autojump_clock, virtual):
    async with virtual() as bench:
        await Full.made(bench)
        await (await connected(bench, will=Will("lost", b"will", 1), **LASTING)).vanish()
        await trio.sleep(10)
    async with virtual() as bench:
        await trio.sleep(10)
        assert await Full(bench).take() == b"before"
        await trio.sleep(50)
    async with virtual() as bench:
        await trio.sleep(10)
        full = Full(bench)
        assert await full.take() == b"will"
        await trio.sleep(70)
        assert await full.take() is None


async def test_refused_wills_that_are_in_memory_only_are_not_without_number(autojump_clock, virtual, monkeypatch):
    monkeypatch.setattr(expiry, "MOST_LATE", 2)
    async with virtual() as bench:
        await Full.made(bench)
        for number in range(5):
            await (await connected(bench, f"c{number}", will=Will("lost", b"will", 1))).vanish()
        await trio.sleep(10)
        assert bench.counted("mqtt.wills_lost") == 3
