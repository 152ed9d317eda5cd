"""The time of messages goes on, whatever is done to the system's clock."""

from __future__ import annotations

import time

import trio

from gateway.runtime.clock import VirtualClock, WallClock

SECOND = 1_000_000_000


class Times:
    """A system's clock, and a steady one, of the test's."""

    def __init__(self):
        self.wall = 1_700_000_000 * SECOND
        self.steady = 5 * SECOND

    def passes(self, seconds):
        self.wall += seconds * SECOND
        self.steady += seconds * SECOND

    def clock(self):
        return WallClock(lambda: self.wall, lambda: self.steady)


def test_wall_clock_tells_the_time_since_1970():
    assert abs(WallClock().now_ms() - time.time() * 1000) < 1_000


def test_time_passes_at_its_pace_while_the_system_s_clock_was_set_back():
    times = Times()
    clock = times.clock()
    before = clock.now_ms()
    times.wall -= 3_600 * SECOND
    assert clock.look() == -3_600_000
    assert clock.now_ms() == before
    times.passes(10)
    assert clock.look() == 0
    assert clock.now_ms() == before + 10_000


def test_a_clock_set_forward_is_followed_with_the_next_look():
    times = Times()
    clock = times.clock()
    before = clock.now_ms()
    times.wall += 60 * SECOND
    assert clock.now_ms() == before
    assert clock.look() == 60_000
    assert clock.now_ms() == before + 60_000


def test_a_clock_that_was_set_back_and_right_again_is_where_it_would_have_been():
    times = Times()
    clock = times.clock()
    before = clock.now_ms()
    times.wall -= 60 * SECOND
    clock.look()
    times.passes(1)
    times.wall += 60 * SECOND
    assert clock.look() == 60_000
    assert clock.now_ms() == before + 1_000


def test_a_clock_that_only_drifts_was_not_set():
    times = Times()
    clock = times.clock()
    for _ in range(100):
        times.passes(1)
        times.wall += SECOND // 100
        assert clock.look() == 0
    assert clock.now_ms() == times.wall // 1_000_000


async def test_virtual_clock_follows_trio_s(autojump_clock):
    clock = VirtualClock(1_000)
    assert clock.now_ms() == 1_000
    await trio.sleep(1.5)
    assert clock.now_ms() == 2_500
    clock.set_by(10_000)
    assert clock.look() == 10_000
    assert clock.now_ms() == 12_500
    clock.set_by(-10_000)
    assert clock.look() == -10_000
    await trio.sleep(1)
    assert clock.now_ms() == 13_500
