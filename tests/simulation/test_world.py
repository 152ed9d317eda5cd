"""Whatever the disk, the clock and the clients do: what was confirmed is there, in order, and the books are straight."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from gateway.engine.engine import Engine
from tests.simulation.ledger import Ledger, Wrong
from tests.simulation.libzmq import SimMonitor, SimPump
from tests.simulation.seeds import play
from trio_zmq.pump import Pump

ROOT = Path(__file__).parents[2]
FEW, MANY, ON_DISK = 60, 600, 40
FEW_SERVED, MANY_SERVED, SERVED_ON_DISK = 20, 400, 20
FEW_AMQP, MANY_AMQP, AMQP_ON_DISK = 10, 400, 20
PORTION = 20


def play_all(first: int, amount: int, **kind: bool) -> list[Ledger]:
    """Play worlds; say of every one that goes wrong how to see it again."""
    wrong = []
    ledgers = []
    for seed in range(first, first + amount):
        try:
            ledgers.append(play(seed, **kind).ledger)
        except Wrong as error:
            wrong.append(str(error))
    assert not wrong, "\n".join(wrong)
    return ledgers


@pytest.mark.parametrize("first", range(0, FEW, PORTION))
def test_every_promise_is_kept_in_every_world_and_clients_of_all_kinds_are_promised_and_sent_something(first):
    confirmed, delivered = set(), set()
    for ledger in play_all(first, PORTION):
        confirmed |= {sent.publisher[0] for sent in ledger.sent.values() if sent.state.name == "CONFIRMED"}
        for settled in (ledger.acked, ledger.handed):
            delivered |= {queue.partition(".")[0] for queue, texts in settled.items() if texts}
    assert confirmed >= {"p", "q", "m", "t"}
    assert delivered >= {"jobs", "graves", "mqtt", "pushed"}


@pytest.mark.parametrize("first", range(0, FEW_SERVED, PORTION))
def test_every_promise_is_kept_where_others_of_all_kinds_ask_and_answer(first):
    counts = Counter()
    for ledger in play_all(first, PORTION, served=True):
        counts.update(ledger.counts)
    told = ("answered at mdp.sum", "answered at asked", "told by Majordomo", "REQ answered", "REQ refused")
    assert all(counts[what] for what in told), counts


@pytest.mark.slow
@pytest.mark.parametrize("first", [*range(FEW_SERVED, 2 * FEW_SERVED, PORTION), *range(10_000, 10_000 + MANY_SERVED, PORTION)])
def test_every_promise_is_kept_in_many_worlds_where_others_ask_and_answer(first):
    play_all(first, PORTION, served=True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20_000, 20_000 + SERVED_ON_DISK))
def test_every_promise_is_kept_over_the_real_journal_where_others_ask_and_answer(seed, tmp_path):
    play(seed, directory=tmp_path, served=True)


def test_every_promise_is_kept_to_amqp_clients_beside_all_others():
    counts = Counter()
    for ledger in play_all(0, FEW_AMQP, amqp=True):
        counts.update(ledger.counts)
    told = ("confirmed by AMQP", "delivered by AMQP", "got by AMQP", "answered to AMQP", "returned", "transactions")
    told += ("closed after it", "declared", "deleted", "delivered to tenants", "kept by AMQP", "last values to AMQP")
    assert all(counts[what] for what in told), counts


@pytest.mark.slow
@pytest.mark.parametrize("first", [*range(FEW_AMQP, 5 * PORTION, PORTION), *range(10_000, 10_000 + MANY_AMQP, PORTION)])
def test_every_promise_is_kept_to_amqp_clients_in_many_worlds(first):
    play_all(first, PORTION, amqp=True)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20_000, 20_000 + AMQP_ON_DISK))
def test_every_promise_is_kept_to_amqp_clients_over_the_real_journal(seed, tmp_path):
    play(seed, directory=tmp_path, amqp=True)


@pytest.mark.slow
@pytest.mark.parametrize("first", [*range(FEW, 2 * FEW, PORTION), *range(10_000, 10_000 + MANY, PORTION)])
def test_every_promise_is_kept_in_many_worlds(first):
    play_all(first, PORTION)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20_000, 20_000 + ON_DISK))
def test_every_promise_is_kept_over_the_real_journal(seed, tmp_path):
    play(seed, directory=tmp_path)


@pytest.mark.parametrize("seed", [3, 4, 7])
def test_a_seed_gives_the_same_trace_twice(seed):
    first, second = play(seed), play(seed)
    assert first.ledger.steps > 100
    assert first.ledger.trace == second.ledger.trace


def test_a_seed_gives_the_same_trace_twice_where_others_ask_and_answer():
    first, second = play(3, served=True), play(3, served=True)
    assert first.ledger.trace == second.ledger.trace


def test_a_seed_gives_the_same_trace_twice_where_there_are_amqp_clients():
    first, second = play(3, amqp=True), play(3, amqp=True)
    assert first.ledger.trace == second.ledger.trace


def test_a_seed_gives_the_same_trace_beside_another_loop():
    alone = play(3).ledger.trace
    with another_loop():
        assert play(3).ledger.trace == alone


@contextmanager
def another_loop():
    """Have a loop in another thread that turns all the time."""
    ended = threading.Event()

    async def turn():
        while not ended.is_set():  # noqa: ASYNC110  its turns are what it is for
            await trio.sleep(0.0001)

    async def turn_both():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(turn)
            nursery.start_soon(turn)

    thread = threading.Thread(target=trio.run, args=(turn_both,), name="another loop")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_another_seed_gives_another_trace():
    assert len({play(seed).ledger.trace for seed in range(5)}) == 5


def test_a_seed_gives_the_same_trace_in_another_process_whatever_its_hashes_are():
    command = [sys.executable, "-m", "tests.simulation", "5", "--trace"]
    traces = set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        traces.add(next(line for line in done.stdout.splitlines() if line.startswith("5: ")))
    assert traces == {f"5: {play(5).ledger.trace}"}


def engines(but=()):
    """Return those that there are, but for others: of compiled ones there are no weak references."""
    gc.collect()
    known = {id(one) for one in but}
    return [one for one in gc.get_objects() if type(one) is Engine and id(one) not in known]


def test_what_a_world_leaves_behind_is_nothing():
    others = engines()
    brokers = []

    def watch(world):
        start = world._start

        async def watched(nursery):
            await start(nursery)
            brokers.append(weakref.ref(world.broker))

        world._start = watched

    world = play(11, prepare=watch)
    assert len(brokers) > 1
    del world
    gc.collect()
    assert [broker() for broker in brokers] == [None] * len(brokers)
    assert engines(others) == []


def test_what_stands_in_for_a_pump_and_a_monitor_has_all_that_the_front_end_uses():
    used = {name for name in dir(Pump) if not name.startswith("_")} - {"socket", "send", "drained", "closed"}
    assert used <= set(dir(SimPump))
    assert {"run", "look", "close"} <= set(dir(SimMonitor))
