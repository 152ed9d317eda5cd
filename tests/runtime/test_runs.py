"""A run of messages that is posted at once, or refused as one: either way it comes to what single messages come to."""

from __future__ import annotations

import pytest
import trio

from gateway.api.consumer import ConsumeOptions
from gateway.api.frontend import Principal
from gateway.model.declare import Binding, BindingOptions, ExchangeSpec, Overflow, QueueSpec
from gateway.model.message import Message
from tests.engine.support import Sink
from tests.runtime.support import HandJournal, Log, Outcomes, running, turns

HIGH = 1_000_000
MOST_BYTES = 1_024
BODIES = [b"1", b"2" * 30, b"3", b"4", b"5"]


class Run:
    def __init__(self, address, bodies):
        self.count = len(bodies)
        self.largest = max(map(len, bodies))
        self.split = 0
        self._messages = [Message(address, body) for body in bodies]

    def messages(self):
        self.split += 1
        return self._messages


class RunSink(Sink):
    def __init__(self):
        super().__init__()
        self.runs = []

    def deliver_run(self, run, options):
        self.runs.append((run, options))
        self.transient += run.messages()


class Bench:
    def __init__(self, broker):
        self.broker = broker
        self.outcomes = Outcomes()
        self.channel = broker.gateway("test", lambda _: None, Log()).open_channel(Principal("u"), self.outcomes)
        self.sinks = {}
        self.taken = []

    def queue(self, name, key="k", exchange="amq.topic", sink=None, arguments=None, options=None, **spec):
        self.channel.declare_queue(QueueSpec(name, durable=False, **spec))
        binding = Binding(exchange, name, key, arguments=arguments or {}, options=options or BindingOptions())
        self.channel.bind(binding)
        if sink is not None:
            self.sinks[name] = sink
            self.channel.consume(name, sink, ConsumeOptions())

    def tap(self, name, sink=None, **given):
        self.queue(name, sink=sink or RunSink(), keep_transient=False, **given)

    def post(self, bodies, *, whole, key="k", exchange="amq.topic"):
        """Post a run, as a front-end does it, or every message by itself."""
        route = self.channel.route(exchange, key)
        run = Run(route.address, bodies)
        if whole:
            self.taken.append(self.channel.post_run(route, run))
            if self.taken[-1]:
                return run
        for message in run.messages():
            self.channel.post(route, message)
        return run

    def seen(self):
        queues = self.broker.engine.vhost("/").queues
        return (
            {name: [entry.message.body for entry in queue.ready] for name, queue in queues.items()},
            {name: [message.body for message in sink.transient] for name, sink in self.sinks.items()},
            {name: [delivery.message.body for delivery in sink.deliveries] for name, sink in self.sinks.items()},
            dict(self.broker.counters),
            [list(map(body_of, self.channel.retained("amq.topic", "#")))],
            [(item.routing_key, item.body_bytes) for item in self.channel.scheduled()],
        )


def body_of(message):
    return message.body


def nobody(bench):
    pass


def one(bench):
    bench.tap("a")


def many(bench):
    for name in "abc":
        bench.tap(name)


def some_that_take_none(bench):
    bench.tap("a")
    bench.tap("b", Sink())
    bench.tap("c", options=BindingOptions(qos=0, subscription_ids=(3,)))


def idle(bench):
    bench.tap("a")
    for name in "bc":
        bench.queue(name, keep_transient=False)


def kept(bench):
    bench.tap("a")
    bench.queue("q")


def consumed(bench):
    bench.tap("a")
    bench.queue("q", sink=RunSink())


def short(bench):
    bench.queue("letters", key="dead")
    bench.queue("q", max_length=2, dead_letter_exchange="amq.topic", dead_letter_routing_key="dead")
    bench.tap("a")


def refusing(bench):
    bench.tap("a")
    bench.queue("q", max_length=2, overflow=Overflow.REJECT_PUBLISH)


def ending(bench):
    bench.tap("a")
    bench.queue("q", max_length=2, overflow=Overflow.END_QUEUE)


def internal(bench):
    bench.channel.declare_exchange(ExchangeSpec("x", "fanout", internal=True))
    bench.tap("a", exchange="x")


def by_headers(bench):
    bench.channel.declare_exchange(ExchangeSpec("x", "headers"))
    bench.tap("a", exchange="x", arguments={"x-match": "all"})


def delayed(bench):
    bench.channel.declare_exchange(ExchangeSpec("x", "x-delayed-message", arguments={"x-delayed-type": "topic"}))
    bench.tap("a", exchange="x")


def deduplicating(bench):
    bench.channel.declare_exchange(ExchangeSpec("x", "topic", arguments={"x-deduplication-window-ms": 1_000}))
    bench.tap("a", exchange="x")


def retaining(bench):
    """The first of what is posted is the last value."""
    bench.tap("a")


ELSEWHERE = (internal, by_headers, delayed, deduplicating)
WHOLE = (nobody, one, many, some_that_take_none, idle)
SINGLE = (kept, consumed, short, refusing, ending, *ELSEWHERE, retaining)


async def seen(setting, bodies, *, whole, taken=True, memory=0, warm=True, exchange=""):
    exchange = exchange or ("x" if setting in ELSEWHERE else "amq.topic")
    resident = [0]
    limits = {"max_message_bytes": MOST_BYTES, "memory_high_bytes": HIGH, "resident": lambda: resident[0]}
    async with running(HandJournal(automatic=True), **limits) as broker:
        bench = Bench(broker)
        setting(bench)
        await turns()
        assert not [outcome.error for outcome in bench.outcomes.exceptions.values() if outcome.error]
        if warm:
            bench.post([b"0"], whole=False, exchange=exchange)
        if setting is retaining:
            route = bench.channel.route(exchange, "k")
            bench.channel.retain(route, Message(route.address, b"last"))
        if memory:
            resident[0] = memory
            await trio.sleep(1.1)
        bench.post(bodies, whole=whole, exchange=exchange)
        assert bench.taken == ([taken] if whole else [])
        if memory:
            resident[0] = 0
            await trio.sleep(1.1)
        bench.post([b"after"], whole=False, exchange=exchange)
        await turns()
        return bench.seen()


@pytest.mark.parametrize("setting", [*WHOLE, *SINGLE])
async def test_a_run_comes_to_what_its_messages_come_to(autojump_clock, setting):
    alone = await seen(setting, BODIES, whole=False)
    assert await seen(setting, BODIES, whole=True, taken=setting in WHOLE) == alone


@pytest.mark.parametrize("setting", WHOLE)
async def test_of_a_route_that_has_changed_messages_are_posted_one_by_one(autojump_clock, setting):
    alone = await seen(setting, BODIES, whole=False, warm=False)
    assert await seen(setting, BODIES, whole=True, taken=False, warm=False) == alone


@pytest.mark.parametrize("setting", WHOLE)
@pytest.mark.parametrize("memory", [int(HIGH * 1.05), 2 * HIGH])
async def test_while_memory_is_short_every_message_is_held_against_its_publisher(autojump_clock, setting, memory):
    alone = await seen(setting, BODIES, whole=False, memory=memory)
    assert alone[3].get("dropped.memory", 0) == (5 if memory == 2 * HIGH else 0)
    assert await seen(setting, BODIES, whole=True, taken=False, memory=memory) == alone


@pytest.mark.parametrize("setting", WHOLE)
async def test_what_is_too_large_is_refused_and_the_others_are_not(autojump_clock, setting):
    bodies = [b"1", b"x" * MOST_BYTES, b"x" * (MOST_BYTES + 1), b"4"]
    alone = await seen(setting, bodies, whole=False)
    assert alone[3]["dropped.too large"] == 1
    assert await seen(setting, bodies, whole=True, taken=False) == alone
    assert await seen(setting, bodies[:2], whole=True) == await seen(setting, bodies[:2], whole=False)


async def test_a_run_to_an_exchange_that_is_none_is_refused_message_by_message(autojump_clock):
    alone = await seen(nobody, BODIES, whole=False, exchange="none")
    assert alone[3]["dropped.no exchange"] == len(BODIES) + 2
    assert await seen(nobody, BODIES, whole=True, taken=False, exchange="none") == alone


async def test_whoever_takes_runs_is_handed_the_very_run_with_what_the_binding_says(autojump_clock):
    async with running(HandJournal(automatic=True)) as broker:
        bench = Bench(broker)
        options = BindingOptions(qos=0, subscription_ids=(3,))
        bench.tap("a")
        bench.tap("b", options=options)
        await turns()
        bench.post([b"0"], whole=False)
        run = bench.post(BODIES, whole=True)
        assert bench.sinks["a"].runs == [(run, None)]
        assert bench.sinks["b"].runs == [(run, options)]


async def test_a_run_that_nobody_looks_into_is_never_split(autojump_clock):
    async with running(HandJournal(automatic=True)) as broker:
        bench = Bench(broker)
        idle(bench)
        bench.sinks["a"].deliver_run = lambda run, options: None
        await turns()
        bench.post([b"0"], whole=False)
        assert bench.post(BODIES, whole=True).split == 0


class Failing(RunSink):
    def deliver_run(self, run, options):
        super().deliver_run(run, options)
        raise RuntimeError("broken front-end")


async def test_a_sink_that_fails_to_take_a_run_has_it_all_and_the_next_gets_what_comes_later(autojump_clock):
    async with running(HandJournal(automatic=True)) as broker:
        bench = Bench(broker)
        bench.tap("a", Failing())
        bench.tap("b")
        next_in_line = RunSink()
        bench.channel.consume("a", next_in_line, ConsumeOptions())
        await turns()
        bench.post([b"0"], whole=False)
        bench.post(BODIES, whole=True)
        assert bench.taken == [True]
        assert [len(bench.sinks["a"].cancellations), len(bench.sinks["b"].cancellations)] == [1, 0]
        assert next_in_line.transient == []
        assert len(bench.sinks["b"].transient) == 1 + len(BODIES)
        assert broker.counters["consumers_failed"] == 1
        bench.post([b"after"], whole=False)
        assert [message.body for message in next_in_line.transient] == [b"after"]
