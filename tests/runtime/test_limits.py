"""What is too large or too much is refused, with the setting that says so, and loses nothing."""

from __future__ import annotations

import pytest

from gateway.admin.definitions import export, import_
from gateway.api.frontend import Principal
from gateway.config import LimitSettings
from gateway.errors import MessageRefused, NotFound, PreconditionFailed
from gateway.model.declare import Binding, ExchangeSpec, QueueSpec
from gateway.model.message import Message
from gateway.model.records import Bound, ExchangeDeclared, QueueDeclared
from gateway.runtime.clock import VirtualClock
from tests.runtime.support import HandJournal, Log, Outcomes, running, turns


def open_channel(broker, sink=None, vhost="/"):
    return broker.gateway("test", lambda _: None, Log()).open_channel(Principal("u", vhost), sink)


async def refused(channel, number):
    with pytest.raises(PreconditionFailed) as caught:
        await channel.outcome(number)
    return caught.value.text


async def test_no_more_queues_are_declared_than_the_limit_in_all_virtual_hosts(autojump_clock):
    async with running(HandJournal(automatic=True), max_queues=2) as broker:
        one, other = open_channel(broker), open_channel(broker, vhost="other")
        await one.outcome(one.declare_queue(QueueSpec("a")))
        await other.outcome(other.declare_queue(QueueSpec("b", durable=False)))
        assert "limits.max_queues = 2" in await refused(one, one.declare_queue(QueueSpec("c")))
        assert (await one.outcome(one.declare_queue(QueueSpec("a")))).result.name == "a"
        with pytest.raises(NotFound):
            await one.outcome(one.declare_queue(QueueSpec("c"), passive=True))
        assert not one.queue_exists("c")


async def test_room_that_is_made_is_seen_within_a_second(autojump_clock):
    clock = VirtualClock(0)
    async with running(HandJournal(automatic=True), clock=clock, max_queues=1) as broker:
        channel = open_channel(broker)
        await channel.outcome(channel.declare_queue(QueueSpec("a")))
        await refused(channel, channel.declare_queue(QueueSpec("b")))
        await channel.outcome(channel.delete_queue("a"))
        await turns(1_100)
        await channel.outcome(channel.declare_queue(QueueSpec("b")))


async def test_no_more_exchanges_are_declared_than_the_limit_beside_the_predeclared_ones(autojump_clock):
    async with running(HandJournal(automatic=True), max_exchanges=1) as broker:
        channel = open_channel(broker)
        await channel.outcome(channel.declare_exchange(ExchangeSpec("a", "direct")))
        assert "limits.max_exchanges = 1" in await refused(channel, channel.declare_exchange(ExchangeSpec("b", "direct")))
        await channel.outcome(channel.declare_exchange(ExchangeSpec("amq.topic", "topic")))


async def test_no_more_bindings_are_made_than_the_limit_and_binding_again_is_none(autojump_clock):
    async with running(HandJournal(automatic=True), max_bindings=2) as broker:
        channel = open_channel(broker)
        await channel.outcome(channel.declare_queue(QueueSpec("q")))
        for _ in range(3):
            await channel.outcome(channel.bind(Binding("amq.topic", "q", "a")))
            await channel.outcome(channel.bind(Binding("amq.direct", "q", "a")))
        assert "limits.max_bindings = 2" in await refused(channel, channel.bind(Binding("amq.topic", "q", "b")))
        assert len(channel.bindings("q")) == 2


FILE = {
    "exchanges": [{"name": name, "vhost": "/", "type": "direct", "arguments": {}} for name in "xy"],
    "queues": [{"name": name, "vhost": "/", "arguments": {}} for name in "ab"],
    "bindings": [
        {"source": "x", "vhost": "/", "destination": name, "destination_type": "queue", "routing_key": "", "arguments": {}}
        for name in "ab"
    ],
}


@pytest.mark.parametrize("limit", ["max_queues", "max_exchanges", "max_bindings"])
async def test_a_definitions_file_that_would_pass_a_limit_is_refused_as_a_whole(autojump_clock, limit):
    async with running(HandJournal(automatic=True), **{limit: 1}) as broker:
        with pytest.raises(PreconditionFailed, match=rf"limits\.{limit} = 1 would be passed: there are 0, and 2 would be new"):
            import_(broker.engine, FILE)
        with pytest.raises(PreconditionFailed, match=limit):
            import_(broker.engine, FILE, dry_run=True)
        found = export(broker.engine)
        assert [found[section] for section in ("exchanges", "queues", "bindings")] == [[], [], []]


async def test_a_definitions_file_that_says_what_is_there_needs_no_room(autojump_clock):
    async with running(HandJournal(automatic=True), max_queues=2, max_exchanges=2, max_bindings=2) as broker:
        for _ in range(2):
            import_(broker.engine, FILE)
        assert "limits.max_queues = 2" in await refused(channel := open_channel(broker), channel.declare_queue(QueueSpec("c")))


async def test_what_the_journal_holds_is_there_though_a_limit_was_lowered(autojump_clock):
    journal = HandJournal(automatic=True)
    journal.records = [
        *(ExchangeDeclared("/", ExchangeSpec(name, "direct")) for name in "xy"),
        *(QueueDeclared("/", number, QueueSpec(f"q{number}")) for number in (1, 2)),
        *(Bound("/", Binding(name, "q1")) for name in "xy"),
    ]
    async with running(journal, max_queues=1, max_exchanges=1, max_bindings=1) as broker:
        channel = open_channel(broker)
        assert channel.queue_exists("q2")
        assert len(channel.bindings("q1")) == 2
        assert "limits.max_queues = 1" in await refused(channel, channel.declare_queue(QueueSpec("q3")))


async def test_without_a_limit_nothing_is_counted(autojump_clock):
    async with running(HandJournal(automatic=True), max_queues=0, max_bindings=0, max_exchanges=0) as broker:
        channel = open_channel(broker)
        for name in ("a", "b"):
            await channel.outcome(channel.declare_queue(QueueSpec(name)))


@pytest.mark.parametrize("persistent", [True, False])
@pytest.mark.parametrize(("body", "wire"), [(1_025, 0), (1_000, 25), (0, 1_025)])
async def test_a_message_that_is_too_large_is_refused_with_all_that_it_has(autojump_clock, body, wire, persistent):
    async with running(HandJournal(automatic=True), max_message_bytes=1_024) as broker:
        outcomes = Outcomes()
        channel = open_channel(broker, outcomes)
        channel.declare_queue(QueueSpec("q"))
        route = channel.route("", "q")
        message = Message(route.address, b"b" * body, persistent, "tag", b"w" * wire)
        number = channel.publish(route, message)
        channel.post(route, message)
        later = channel.schedule(route, message, 1 << 50)
        await turns()
        for refused_number in (number, later):
            error = outcomes.exceptions[refused_number].error
            assert isinstance(error, MessageRefused)
            assert "limits.max_message_bytes = 1024" in error.text
        assert channel.queue_info("q").messages == 0
        assert broker.counters["refused.too large" if persistent else "dropped.too large"] == 3


async def test_a_message_as_large_as_allowed_is_taken(autojump_clock):
    async with running(HandJournal(automatic=True), max_message_bytes=1_024) as broker:
        outcomes = Outcomes()
        channel = open_channel(broker, outcomes)
        channel.declare_queue(QueueSpec("q"))
        route = channel.route("", "q")
        number = channel.publish(route, Message(route.address, b"b" * 1_000, True, "tag", b"w" * 24))
        await turns()
        assert outcomes.through == number
        assert channel.queue_info("q").messages == 1


def test_the_largest_message_that_can_be_allowed_is_one_that_the_journal_can_take():
    sqlite_blob_bytes = 1_000_000_000
    (most,) = [item.le for item in LimitSettings.model_fields["max_message_bytes"].metadata if hasattr(item, "le")]
    assert most < sqlite_blob_bytes - 64 * 1024 * 1024
