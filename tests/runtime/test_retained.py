"""Do last values keep time, limits and refusals in a running broker?"""

from __future__ import annotations

import pytest
import trio

from gateway.api import Message, MessageRefused, Principal
from gateway.config import RetainedSettings
from gateway.journal.memory import MemoryJournal, MemoryStore
from gateway.runtime.clock import VirtualClock
from tests.runtime.support import Log, running


def retain(channel, key, body=b"x", **how):
    route = channel.route("amq.topic", key)
    message = Message(route.address, body, True, **how)
    channel.retain(route, message)
    return channel.publish(route, message)


def given(channel):
    return sorted(message.routing_key for message in channel.retained("amq.topic", "#"))


def open_channel(broker):
    return broker.gateway("test", lambda _: None, Log()).open_channel(Principal("u"))


async def test_last_values_expire_by_the_brokers_clock_and_for_good(autojump_clock):
    store, clock = MemoryStore(), VirtualClock()
    async with running(MemoryJournal(store), clock=clock) as broker:
        channel = open_channel(broker)
        await channel.outcome(retain(channel, "brief", expires_at_ms=clock.now_ms() + 60_000))
        await channel.outcome(retain(channel, "lasting"))
        await trio.sleep(59)
        assert given(channel) == ["brief", "lasting"]
        await trio.sleep(2)
        assert given(channel) == ["lasting"]
        assert broker.engine.kept.values.held("/")[0] == 1
        await broker.committer.wait_idle()
    async with running(MemoryJournal(store), clock=clock) as broker:
        assert broker.engine.kept.values.held("/")[0] == 1


async def test_settings_limit_what_is_retained_and_the_outcome_says_no(autojump_clock):
    async with running(MemoryJournal(MemoryStore()), retained=RetainedSettings(max_messages=1)) as broker:
        channel = open_channel(broker)
        await channel.outcome(retain(channel, "a"))
        with pytest.raises(MessageRefused, match="retained already"):
            await channel.outcome(retain(channel, "b"))
        assert given(channel) == ["a"]
        await channel.outcome(retain(channel, "a", b""))
        await channel.outcome(retain(channel, "b"))
        assert given(channel) == ["b"]
