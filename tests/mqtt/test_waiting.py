"""Who must go when too many connections wait for the answer to their CONNECT, or do not go on with a packet."""

from __future__ import annotations

import trio
import trio.testing

from gateway_mqtt.codec.encoding import encode
from gateway_mqtt.codec.packets import Connect, Publish
from gateway_mqtt.halves import Halves
from gateway_mqtt.waiting import Waiting
from tests.mqtt.support import mqtt_broker


class Somebody:
    def __init__(self) -> None:
        self.gone = False

    def give_up(self) -> None:
        self.gone = True

    stuck = give_up


def test_beyond_the_limit_the_one_that_has_waited_longest_goes():
    waiting = Waiting(2)
    first, second, third = Somebody(), Somebody(), Somebody()
    for one in (first, second, third):
        waiting.add(one)
    assert [first.gone, second.gone, third.gone] == [True, False, False]
    assert len(waiting) == 2


def test_who_was_answered_does_not_count():
    waiting = Waiting(1)
    first, second = Somebody(), Somebody()
    waiting.add(first)
    waiting.done(first)
    waiting.add(second)
    assert not first.gone
    assert not second.gone


def test_what_they_have_sent_together_is_limited_too():
    waiting = Waiting(10, 100)
    silent, talking, greedy = Somebody(), Somebody(), Somebody()
    for one in (silent, talking, greedy):
        waiting.add(one)
    waiting.grown(talking, 60)
    waiting.grown(greedy, 60)
    assert [silent.gone, talking.gone, greedy.gone] == [True, True, False]
    waiting.grown(greedy, 1_000)
    assert not greedy.gone  # alone it is held to the size of a CONNECT


def test_a_part_that_gets_no_more_is_stuck_and_one_that_grows_is_not():
    now = [0.0]
    halves = Halves(lambda: now[0], 1.0)
    slow, steady, done = Somebody(), Somebody(), Somebody()
    for one in (slow, steady, done):
        halves.part(one, 5)
    for n in range(1, 5):
        now[0] += 0.4
        halves.part(slow, 5)
        halves.part(steady, 5 + 1_024 * n)
        halves.whole(done)
        halves.sweep()
    assert [slow.gone, steady.gone, done.gone] == [True, False, False]
    now[0] += 1
    halves.sweep()
    assert steady.gone
    assert not len(halves)


async def test_silent_connections_make_room_for_those_who_connect():
    async with mqtt_broker(max_unconnected=3) as bench:
        silent = [await bench.open() for _ in range(5)]
        for peer in silent[:2]:
            assert await peer.next() is None
        await silent[4].connect("late")
        for n in range(10):
            await bench.client(f"c{n}")
        await silent[4].ping()
        assert bench.counted("mqtt.unconnected_closed") == 2


async def test_a_trickled_packet_ends_the_connection_though_there_is_no_keep_alive(autojump_clock):
    autojump_clock.autojump_threshold = 0.002
    async with mqtt_broker(packet_timeout_s=20) as bench:
        peer = await bench.client("slow", keep_alive_s=0)
        began = trio.current_time()
        whole = encode(Publish("a/topic", b"x" * 500))
        with trio.move_on_after(200):
            for at in range(len(whole)):
                await peer.stream.send_all(whole[at : at + 1])
                await trio.sleep(1)
                if bench.counted("mqtt.stuck_packets"):
                    break
        assert trio.current_time() - began < 30
        assert await peer.next() is None


async def test_a_connect_in_pieces_and_what_comes_with_it_are_taken():
    async with mqtt_broker() as bench:
        watcher = await bench.client("watcher")
        await watcher.subscribe("t")
        peer = await bench.open()
        both = encode(Connect("pieces")) + encode(Publish("t", b"at once"))
        for at in range(0, len(both), 3):
            await peer.stream.send_all(both[at : at + 3])
            await trio.testing.wait_all_tasks_blocked()
        assert (await watcher.next()).payload == b"at once"
        assert (await peer.next()).code == 0
