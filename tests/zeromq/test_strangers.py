"""What are those told who were not let in, and how much can they make a ROUTER endpoint say?"""

import pytest
import trio
import zmq

from gateway_zeromq.endpoints import router, strangers
from tests.zeromq.support import ANY, Client, connected, serving, until

ROUND_S = 0.2
ROUTER = {"name": "services", "socket": "ROUTER", "bind": ANY}


@pytest.fixture(autouse=True)
def short_rounds(monkeypatch):
    """What goes by once a second goes by more often."""
    monkeypatch.setattr(strangers, "ROUND_S", ROUND_S)
    monkeypatch.setattr(router, "_TICK_S", ROUND_S / 4)


async def all_heard(client, seconds):
    """Return all that is said within so long a time."""
    said = []
    deadline = trio.current_time() + seconds
    while (left := deadline - trio.current_time()) > 0:
        one = await client.hear(left)
        if one is not None:
            said.append(one)
    return said


@pytest.mark.parametrize("header", [[23], [24]])
async def test_what_has_no_answer_does_not_use_up_the_answer_to_what_has_one(context, header):
    async with serving(ROUTER) as running:
        client = Client(context, running.address("ROUTER"))
        await client.say(*header)
        assert (await client.ask(3, 1, "", "jobs"))[:3] == [21, None, 401]


async def test_a_hello_that_is_refused_again_within_a_second_is_answered_a_little_later(context):
    async with serving({**ROUTER, "max_peers": 1}) as running:
        await connected(context, running)
        second = Client(context, running.address("ROUTER"))
        for r in range(1, 4):
            assert (await second.ask(1, r, 1))[:3] == [21, r, 506]


async def test_a_req_client_that_was_not_let_in_is_always_answered(context):
    async with serving({**ROUTER, "max_peers": 1}) as running:
        await connected(context, running)
        client = Client(context, running.address("ROUTER"), kind=zmq.REQ)
        assert (await client.ask(12, 1, "jobs"))[2] == 401
        assert (await client.ask(1, 2, 1))[:3] == [21, 2, 506]
        assert (await client.ask(12, 3, "jobs"))[2] == 401


@pytest.mark.parametrize("header", [[1, 1, 0], [3, 1, "", "jobs"], [99]])
async def test_a_flood_of_a_stranger_is_answered_once_a_second_and_last_to_what_it_said_last(context, header):
    async with serving(ROUTER) as running:
        good = await connected(context, running)
        stranger = Client(context, running.address("ROUTER"))
        began = trio.current_time()
        for _ in range(500):
            await stranger.say(*header)
        await stranger.say(1, 77, 0)
        said = await all_heard(stranger, 2.5 * ROUND_S)
        assert 1 < len(said) <= (trio.current_time() - began) / ROUND_S + 2
        assert said[-1][:3] == [21, 77, 530]
        assert await good.ask(22) == [23, None]


async def test_who_is_let_in_meanwhile_hears_no_more_of_its_refusals(context):
    async with serving(ROUTER) as running:
        client = Client(context, running.address("ROUTER"))
        for r in range(3):
            await client.say(1, r, 0)
        assert (await client.hear())[:3] == [21, 0, 530]
        await client.hello()
        assert await all_heard(client, 1.6 * ROUND_S) == []


async def test_a_crowd_of_strangers_is_answered_in_turn_and_no_more_of_them_are_kept_than_allowed(context, monkeypatch):
    monkeypatch.setattr(strangers, "PER_S", 3)
    monkeypatch.setattr(strangers, "MOST_LATE", 5)
    async with serving(ROUTER) as running:
        crowd = [Client(context, running.address("ROUTER"), IDENTITY=b"%d" % n) for n in range(24)]
        good = await connected(context, running)
        answered = set()

        async def listen(number):
            if await crowd[number].hear() is not None:
                answered.add(number)

        async with trio.open_nursery() as nursery:
            for number, one in enumerate(crowd):
                await one.say(99)
                nursery.start_soon(listen, number)
            await until(lambda: running.count("violations") == 24)
            assert await good.ask(22) == [23, None]
            await until(lambda: len(answered) >= 8)
            await trio.sleep(2 * ROUND_S)  # and nobody else after that
            nursery.cancel_scope.cancel()
        assert 8 <= len(answered) < 24
