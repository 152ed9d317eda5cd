"""What is to happen later happens then, and the loop sleeps until then."""

from __future__ import annotations

import trio
import trio.lowlevel

from gateway.runtime.clock import VirtualClock
from tests.runtime.support import HandJournal, running

MONTH_MS = 30 * 86_400_000


class Kept(list):
    """When which appointment was kept."""

    def at(self, broker, due_ms, name):
        broker.engine.timers.at(due_ms, lambda now_ms: self.append((name, now_ms)))


async def test_an_appointment_is_kept_when_it_is_due_though_nothing_else_happens(autojump_clock):
    clock = VirtualClock(1_000)
    async with running(HandJournal(), clock=clock) as broker:
        kept = Kept()
        kept.at(broker, 6_000, "a")
        await trio.sleep(4.999)
        assert not kept
        await trio.sleep(0.002)
        assert kept == [("a", 6_000)]


async def test_an_earlier_appointment_that_is_made_later_is_kept_first(autojump_clock):
    clock = VirtualClock(0)
    async with running(HandJournal(), clock=clock) as broker:
        kept = Kept()
        kept.at(broker, 60_000, "late")
        await trio.sleep(1)
        kept.at(broker, 2_000, "early")
        await trio.sleep(1.001)
        assert kept == [("early", 2_000)]
        await trio.sleep(58)
        assert [name for name, _ in kept] == ["early", "late"]


async def test_an_appointment_made_by_another_is_kept(autojump_clock):
    async with running(HandJournal(), clock=VirtualClock(0)) as broker:
        kept = Kept()
        broker.engine.timers.at(1_000, lambda now_ms: kept.at(broker, now_ms, "at once"))
        broker.engine.timers.at(1_000, lambda now_ms: kept.at(broker, now_ms + 500, "soon"))
        await trio.sleep(1.6)
        assert kept == [("at once", 1_000), ("soon", 1_500)]


async def test_an_appointment_that_is_past_when_it_is_made_is_kept_in_the_next_turn(autojump_clock):
    async with running(HandJournal(), clock=VirtualClock(10_000)) as broker:
        kept = Kept()
        kept.at(broker, 1, "past")
        await trio.sleep(0.001)
        assert [name for name, _ in kept] == ["past"]


async def test_a_cancelled_appointment_is_not_kept_and_the_next_one_is(autojump_clock):
    async with running(HandJournal(), clock=VirtualClock(0)) as broker:
        kept = Kept()
        timer = broker.engine.timers.at(1_000, lambda now_ms: kept.append("cancelled"))
        kept.at(broker, 2_000, "next")
        await trio.sleep(0.5)
        broker.engine.timers.cancel(timer)
        await trio.sleep(1.6)
        assert kept == [("next", 2_000)]


async def test_a_clock_set_forward_makes_due_within_about_a_second_what_is_due_by_it(autojump_clock):
    clock = VirtualClock(0)
    async with running(HandJournal(), clock=clock) as broker:
        kept = Kept()
        kept.at(broker, MONTH_MS, "a month")
        await trio.sleep(5)
        clock.set_by(MONTH_MS)
        await trio.sleep(1.1)
        assert [name for name, _ in kept] == ["a month"]
        assert ("warning", "the system's clock was set", {"by_ms": MONTH_MS}) in broker.log.lines
        assert broker.counters["clock steps"] == 1


async def test_a_clock_set_back_delays_nothing(autojump_clock):
    clock = VirtualClock(MONTH_MS)
    async with running(HandJournal(), clock=clock) as broker:
        kept = Kept()
        kept.at(broker, MONTH_MS + 10_000, "in ten seconds")
        await trio.sleep(5)
        clock.set_by(-MONTH_MS)
        await trio.sleep(5.01)
        assert [name for name, _ in kept] == ["in ten seconds"]
        assert ("warning", "the system's clock was set", {"by_ms": -MONTH_MS}) in broker.log.lines


async def test_the_engine_is_told_the_time_once_a_turn(autojump_clock):
    clock = VirtualClock(1_000)
    async with running(HandJournal(), clock=clock) as broker:
        await trio.sleep(2)
        assert broker.engine.now_ms == 3_000
        await trio.sleep(0.25)
        assert broker.engine.now_ms == 3_250
