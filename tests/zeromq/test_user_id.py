"""Can a TGP client say that a message is somebody else's?"""

import pytest

from gateway.api import Principal
from tests.zeromq.support import ANY, Client, connected, serving

ROUTER = {"name": "services", "socket": "ROUTER", "bind": ANY}


async def let_in(_credentials):
    return Principal("alice")


async def prepared(context, running, **options):
    client = await connected(context, running, **options)
    assert (await client.ask(13, 1, "queue", "jobs"))[0] == 20
    return client


async def test_a_message_says_who_sent_it_and_that_is_true(context):
    async with serving(ROUTER, authenticate=let_in) as running:
        client = await prepared(context, running)
        assert await client.ask(3, 1, "", "jobs", {"user_id": "alice"}, body=b"x") == [4, 1, True, 0]
        (got, body) = await client.ask(12, 2, "jobs")
        assert (got[6]["user_id"], body) == ("alice", b"x")


@pytest.mark.parametrize("user_id", ["bob", "", "Alice"])
async def test_a_message_that_names_another_user_is_refused_and_the_next_one_is_not(context, user_id):
    async with serving(ROUTER, authenticate=let_in) as running:
        client = await prepared(context, running)
        assert await client.ask(3, 1, "", "jobs", {"user_id": user_id}, body=b"x") == [4, 1, False, 406]
        assert await client.ask(3, 2, "", "jobs", {"app_id": "bob"}, body=b"y") == [4, 2, True, 0]
        assert running.queue("jobs").count == 1


async def test_in_a_batch_the_one_that_lies_is_refused_alone(context):
    async with serving(ROUTER, authenticate=let_in) as running:
        client = await prepared(context, running)
        parts = [[1, "", "jobs"], [1, "", "jobs", {"user_id": "bob"}], [1, "", "jobs"]]
        assert await client.ask(25, 1, parts, body=b"abc") == [4, 2, False, 406]
        assert (await client.hear())[3] == 0
        assert running.queue("jobs").count == 2


async def test_in_json_and_as_a_scheduled_message_it_is_refused_too(context):
    async with serving(ROUTER, authenticate=let_in) as running:
        client = Client(context, running.address("ROUTER"))
        await client.say_json("HELLO", r=1, version_max=1)
        await client.hear()
        lie = {"exchange": "", "routing_key": "jobs", "props": {"user_id": "bob"}}
        for seq, more in ((1, {}), (2, {"due_ms": 1 << 50})):
            await client.say_json("PUBLISH", b"x", seq=seq, **lie, **more)
            assert (await client.hear())["status"] == 406


async def test_what_was_refused_without_a_word_is_known_after_a_break(context):
    async with serving(ROUTER, authenticate=let_in) as running:
        client = await prepared(context, running, client="billing")
        await client.say(3, 1, "", "jobs", {"user_id": "bob"}, 2, body=b"x")
        assert await client.ask(3, 2, "", "jobs", body=b"y") == [4, 2, True, 0]
        ready = await client.hello(client="billing")
        assert (ready["last_seq"], ready["refused"]) == (2, [[1, 1, 406]])
