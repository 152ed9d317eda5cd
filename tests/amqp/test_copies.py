"""CC and BCC: which further keys has a message, and who sees them?"""

from __future__ import annotations

import pytest

from tests.amqp.rooms import bound, declared, taken
from tests.amqp.wire import amqp_broker


async def test_cc_and_bcc_are_further_keys_and_nobody_sees_bcc():
    async with amqp_broker() as bench:
        client = await bench.client()
        for queue in ("a", "b", "c"):
            await declared(client, queue)
        for _ in range(2):  # the second time by what is remembered
            client.publish(1, "", "a", b"x", headers={"CC": ["b", "a"], "BCC": ["c", "nowhere"], "own": 1}, message_id="m")
            for queue in ("a", "b", "c"):
                message = await taken(client, queue)
                assert message.method.routing_key == "a"
                assert (message.properties.headers, message.properties.message_id) == ({"CC": ["b", "a"], "own": 1}, "m")
                assert await taken(client, queue) is None


async def test_bcc_is_seen_by_nobody_even_if_it_names_nobody():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        client.publish(1, "", "q", b"x", headers={"BCC": [], "own": 1})
        assert (await taken(client)).properties.headers == {"own": 1}


async def test_each_queue_gets_a_message_once_whatever_keys_lead_to_it():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        await bound(client, "q", "amq.topic", "a.#")
        await bound(client, "q", "amq.topic", "#.b")
        client.publish(1, "amq.topic", "a.b", b"x", headers={"CC": ["a.c", "c.b"]})
        assert (await taken(client)).body == b"x"
        assert await taken(client) is None


async def test_a_mandatory_message_comes_back_if_none_of_its_keys_leads_anywhere():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        client.publish(1, "", "nowhere", b"x", mandatory=True, headers={"CC": ["q"]})
        client.publish(1, "", "nowhere", b"y", mandatory=True, headers={"CC": ["zz"], "BCC": ["yy"]})
        came = await client.hear(1)
        assert (came.body, came.method.routing_key, came.properties.headers) == (b"y", "nowhere", {"CC": ["zz"]})
        assert (await taken(client)).body == b"x"


@pytest.mark.parametrize(
    ("headers", "why"),
    [({"CC": "q"}, '"CC",longstr'), ({"BCC": 100_000}, '"BCC",signedint'), ({"CC": None}, '"CC",void'), ({"CC": {}}, '"CC",table')],
)
async def test_cc_and_bcc_are_lists(headers, why):
    async with amqp_broker() as bench:
        client = await bench.client()
        client.publish(1, "", "q", b"x", headers=headers)
        text = "PRECONDITION_FAILED - invalid message: {unacceptable_type_in_header," + why + "}"
        assert await client.refused(1) == (406, text)


async def test_a_header_that_is_only_named_alike_is_a_header():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        client.publish(1, "", "q", b"x", headers={"ACC": "q", "CCC": 5, "cc": "q"})
        assert (await taken(client)).properties.headers == {"ACC": "q", "CCC": 5, "cc": "q"}


async def test_more_keys_than_a_message_may_have_are_refused():
    async with amqp_broker() as bench:
        client = await bench.client()
        client.publish(1, "", "q", b"x", headers={"CC": [f"q{index}" for index in range(5_000)]})
        assert (await client.refused(1))[0] == 403
