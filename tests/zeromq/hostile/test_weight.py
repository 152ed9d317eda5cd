"""Can a peer that sends what is heavy hold up the others, or fill the memory?"""

import gc
from collections import deque
from itertools import pairwise

import msgspec
import pytest
import trio
import zmq

from gateway.api import Address
from gateway_zeromq import keys
from gateway_zeromq.endpoints import turns
from gateway_zeromq.endpoints.turns import Turns
from gateway_zeromq.tgp import commands
from gateway_zeromq.tgp.session import REFUSALS_KEPT, Session
from tests.zeromq.sinks import Conversation
from tests.zeromq.support import ANY, Plain, connected, serving, until
from trio_zmq.pump import BATCH

ROUTER = {"name": "services", "socket": "ROUTER", "bind": ANY}
HIGHEST = (1 << 63) - 1
pack = msgspec.msgpack.encode


def pull(frames):
    return {"name": "in", "socket": "PULL", "bind": ANY, "exchange": "amq.topic", "frames": frames}


class Watch:
    """A clock that goes on when messages are worked through."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def watch(monkeypatch):
    watch = Watch()
    monkeypatch.setattr(turns, "perf_counter", watch)
    return watch


async def test_others_have_their_turn_between_messages_that_take_long(watch):
    done, seen = [], []

    def work(batch):
        done.extend(batch)
        watch.now += 0.004 * len(batch)

    async def other():
        while len(done) < 64:
            await trio.lowlevel.checkpoint()
            seen.append(len(done))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await Turns(work).take(list(range(64)))
    assert done == list(range(64)), "all of them, in order"
    assert max(after - before for before, after in pairwise(seen)) <= 8
    assert len(set(seen)) > 40


async def test_of_what_takes_long_less_and_less_is_received_at_a_time_and_all_again_when_it_ends(watch):
    costs = [0.004]
    shared = Turns(lambda batch: setattr(watch, "now", watch.now + costs[0] * len(batch)))
    limits = []
    for _ in range(6):
        await shared.take([b"x"] * shared.limit)
        limits.append(shared.limit)
    assert limits[-1] == 1
    costs[0] = 0.0
    for _ in range(8):
        await shared.take([b"x"] * shared.limit)
    assert shared.limit == BATCH


async def test_what_is_light_is_worked_through_at_once(watch):
    done = []
    ran = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_set, ran)
        await Turns(done.extend).take(list(range(64)))
        assert not ran.is_set()
    assert len(done) == 64


async def _set(event):
    event.set()
    await trio.lowlevel.checkpoint()


async def test_a_cancellation_loses_nothing_of_a_batch(watch):
    done = []

    def work(batch):
        done.extend(batch)
        watch.now += 1.0

    with trio.CancelScope() as scope:
        scope.cancel()
        await Turns(work).take(list(range(20)))
    assert done == list(range(20))


async def test_headers_of_more_than_a_header_may_have_are_dropped_before_they_are_read(context):
    async with serving(pull("key,headers,body"), ROUTER) as running:
        good = await connected(context, running)
        plain = Plain(context, zmq.PUSH, running.address("PULL"))
        large = pack({f"{number:x}": 1 for number in range(200_000)})
        for _ in range(5):
            await plain.send(b"k", large, b"x")
        await until(lambda: running.count("dropped.frames") == 5)
        assert await good.ask(22, "t") == [23, "t"]
        (said,) = running.log.of("message dropped")
        assert "at most 65536" in said["reason"]


@pytest.mark.parametrize("kind", ["PULL", "TGP", "REP"])
async def test_long_keys_are_not_remembered(context, kind):
    rep = {"name": "rep", "socket": "REP", "bind": ANY, "exchange": "amq.topic", "frames": "key,body"}
    async with serving(pull("key,body"), ROUTER, rep) as running:
        client = await connected(context, running)
        sender = Plain(context, zmq.DEALER if kind == "REP" else zmq.PUSH, running.address("REP" if kind == "REP" else "PULL"))
        for number in range(40):
            key = f"{number}{'k' * 60_000}"
            if kind == "TGP":
                await client.ask(3, number + 1, "amq.topic", key, {"delivery_mode": 1}, body=b"")
            else:
                await sender.send(*([b""] if kind == "REP" else []), key.encode(), b"x")
        if kind == "PULL":
            await sender.send(b"last")
            await until(lambda: running.count("dropped.frames") == 1)
        elif kind == "REP":
            for _ in range(40):
                assert (await sender.receive())[-1].startswith(b"312 ")
        gc.collect()
        kept = [thing for thing in gc.get_objects() if isinstance(thing, Address) and len(thing.routing_key) > 1_000]
        assert len(kept) <= 2, "those of the last message or two"


def test_so_many_routes_are_remembered_and_not_more():
    class Route:
        address = Address("/", "e", "k")

    routes = {}
    for number in range(keys.ROUTES_KEPT + 5):
        keys.remember(routes, number, Route())
    assert len(routes) == 5


WORDS = ".".join(["a"] * 257)


async def test_a_key_of_more_words_than_amqp_can_write_is_refused(context):
    rep = {"name": "rep", "socket": "REP", "bind": ANY, "exchange": "amq.topic", "frames": "key,body"}
    async with serving(pull("key,body"), ROUTER, rep) as running:
        client = await connected(context, running)
        assert await client.ask(3, 1, "amq.topic", WORDS, body=b"x") == [4, 1, False, 503]
        assert await client.ask(3, 2, "amq.topic", WORDS[2:], body=b"x") == [4, 2, True, 0]
        pusher = Plain(context, zmq.PUSH, running.address("PULL"))
        await pusher.send(b"one frame")
        await pusher.send(WORDS.encode(), b"x")
        await pusher.send(b"k" * 65_536, b"x")
        await until(lambda: running.count("dropped.key") == 2)
        assert len(running.log.of("message dropped")) == 2, "the first of each kind"
        asker = Plain(context, zmq.REQ, running.address("REP"))
        await asker.send(WORDS.encode(), b"x")
        assert b"257 words" in (await asker.receive())[-1]


def test_a_batch_of_too_many_messages_is_refused_as_a_whole():
    talk = Conversation()
    talk.peer.receive(pack([25, 1, [[0, "", "k"]] * (commands.MOST_PARTS + 1), 0]), b"", 0.0)
    error, bye = talk.heard()
    assert (error[2], bye[1], talk.sink.endings) == (501, 501, 1)
    assert not [what for what in talk.sink.asked if what[0] == "publish"]


@pytest.mark.parametrize(("seq", "count", "taken"), [(HIGHEST - 2, 3, True), (HIGHEST - 1, 3, False), (HIGHEST, 1, True)])
def test_numbers_of_a_batch_end_where_numbers_end(seq, count, taken):
    talk = Conversation()
    talk.peer.receive(pack([25, seq, [[0, "", "k"]] * count, 0]), b"", 0.0)
    said = talk.heard()
    if taken:
        assert said == []
    else:
        assert (said[0][2], talk.sink.endings) == (503, 0)


class Looked(deque):
    """Runs of refusals that say how often somebody looked at one."""

    looks = 0

    def __reversed__(self):
        for item in super().__reversed__():
            self.looks += 1
            yield item


def test_a_refusal_of_a_new_number_costs_no_look_at_those_before():
    session = Session("k", "t", "", "u", 0)
    for seq in range(1, 2 * REFUSALS_KEPT, 2):
        session.refuse(seq, 404)
    session.refused = watched = Looked(session.refused)
    for seq in range(5_001, 5_201, 2):
        session.refuse(seq, 404)
    assert watched.looks == 0
    session.refuse(5_001, 404)
    assert watched.looks
    assert session.refusal(5_003) == 404


async def test_who_sends_little_is_received_little_at_a_time(watch):
    shared = Turns(lambda batch: None)
    for _ in range(5):
        await shared.take([b"x"] * shared.limit)
    assert shared.limit == BATCH, "as much as there is, while there is much"
    for _ in range(5):
        await shared.take([b"x"])
    assert shared.limit == turns.SLICE
