"""Basic.Publish: what reaches which queue, in which form, and what comes back?"""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands

from gateway.runtime.clock import VirtualClock
from gateway_amqp.codec.methods import publish_arguments
from gateway_amqp.codec.names import HardError
from tests.amqp.rooms import bound, declared, exchange, raw_publish, taken
from tests.amqp.wire import Content, amqp_broker, publishing


def wire_of(bench, queue="q"):
    """Return the properties of all messages of a queue, as they are kept."""
    return [entry.message.wire for entry in bench.queue(queue).lanes[0].ready]


# -- where it goes ----------------------------------------------------------


async def test_a_message_reaches_the_queue_of_its_key_with_all_that_it_says():
    said = {
        "content_type": "text/plain", "content_encoding": "utf-8", "headers": {"a": 1, "b": ["two", None]}, "delivery_mode": 2,
        "priority": 3, "correlation_id": "c", "reply_to": "r", "expiration": "60000", "message_id": "m", "message_type": "t",
        "user_id": "guest", "app_id": "app", "cluster_id": "",
    }  # fmt: skip
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        client.publish(1, "", "q", b"body", **said)
        message = await taken(client)
        assert message.body == b"body"
        assert (message.method.exchange, message.method.routing_key, message.method.redelivered) == ("", "q", False)
        assert {name: getattr(message.properties, name) for name in said} == said


@given(st.binary(max_size=20))
def test_arguments_that_are_cut_off_or_too_long_are_a_syntax_error(junk):
    good = b"\0\0\x01e\x01k\x01"
    assert publish_arguments(good) == ("e", "k", 1)
    if junk:
        with pytest.raises(HardError):
            publish_arguments(good + junk)
    for end in range(len(good)):
        with pytest.raises(HardError):
            publish_arguments(good[:end])


async def test_properties_are_kept_as_the_bytes_that_came():
    forms = [
        b"\x00\x00",
        b"\x10\x00\x01",
        b"\x10\x00\x02",
        b"\x90\x00\x0atext/plain\x02",
        b"\x00\x04\x03cid",  # the property that nobody uses
        b"\x20\x00\x00\x00\x00\x05\x01as\x00\x01",  # a short integer, as few clients write it
        b"\x20\x40\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff",
    ]
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        for form in forms:
            client.raw(raw_publish(1, "", "q", form, b"x") * 2)
        await declared(client, passive=True)
        assert wire_of(bench) == [form for form in forms for _ in range(2)]


async def test_only_persistent_messages_are_journaled():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client, durable=True)
        client.publish(1, "", "q", b"kept", delivery_mode=2)
        client.publish(1, "", "q", b"not kept", delivery_mode=1)
        client.publish(1, "", "q", b"nor this")
        await declared(client, passive=True)
        assert bench.journal.stored == [b"kept"]
        assert bench.queue("q").ready_count == 3


async def test_priorities_come_first_where_a_queue_has_them():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client, arguments={"x-max-priority": 5})
        for priority in (0, 1, 9, 3, None):
            client.publish(1, "", "q", b"%d" % (priority or 0), priority=priority)
        assert [(await taken(client)).body for _ in range(5)] == [b"9", b"3", b"1", b"0", b"0"]


async def test_large_bodies_go_through_whole_and_so_do_empty_ones():
    async with amqp_broker() as bench:
        client = await bench.client(frame_max=4096)
        await declared(client)
        large = bytes(range(256)) * 100
        client.raw(publishing(1, "", "q", large, frame_max=4096))
        client.publish(1, "", "q", b"")
        first, second = await taken(client), await taken(client)
        assert (first.body, first.frames) == (large, 7)
        assert second.body == b""


async def test_exchanges_and_keys_of_any_text_are_routed():
    async with amqp_broker() as bench:
        client = await bench.client()
        name = "größe/$a b\n★"
        await declared(client)
        await exchange(client, "plain")
        await bound(client, "q", "plain", name)
        client.publish(1, "plain", name, b"x")
        assert (await taken(client)).method.routing_key == name


async def test_a_key_that_is_no_utf_8_closes_the_connection():
    async with amqp_broker() as bench:
        client = await bench.client()
        client.raw(raw_publish(1, "", "k", b"\0\0", b"").replace(b"\x01k", b"\x01\xff"))
        code, text = await client.thrown_out()
        assert code == 502
        assert text.startswith("SYNTAX_ERROR - ")


# -- mandatory --------------------------------------------------------------


async def test_a_mandatory_message_that_goes_nowhere_comes_back_before_its_ack():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        await client.call(1, commands.Confirm.Select())
        client.publish(1, "", "q", b"there", mandatory=True)
        client.publish(1, "amq.direct", "nowhere", b"back", mandatory=True, message_id="m", headers={"h": 1})
        client.publish(1, "amq.direct", "nowhere", b"lost")
        came = await client.hear(1)
        assert isinstance(came, Content)
        method = came.method
        assert isinstance(method, commands.Basic.Return)
        assert (method.reply_code, method.reply_text) == (312, "NO_ROUTE")
        assert (method.exchange, method.routing_key) == ("amq.direct", "nowhere")
        assert (came.body, came.properties.message_id, came.properties.headers) == (b"back", "m", {"h": 1})
        ack = await client.hear(1)
        assert (type(ack), ack.delivery_tag, ack.multiple) == (commands.Basic.Ack, 3, True)


async def test_without_confirms_mandatory_messages_come_back_too_in_their_order_and_in_frames_that_fit():
    async with amqp_broker() as bench:
        client = await bench.client(frame_max=4096)
        large = b"x" * 10_000
        client.raw(publishing(1, "", "nowhere", large, frame_max=4096, mandatory=True))
        client.publish(1, "", "nowhere", b"2", mandatory=True)
        first, second = await client.hear(1), await client.hear(1)
        assert (first.body, first.frames) == (large, 3)
        assert second.body == b"2"


async def test_a_mandatory_message_that_reached_a_queue_is_let_go():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        for _ in range(10):
            client.publish(1, "", "q", b"x", mandatory=True)
        await declared(client, passive=True)
        assert not client.protocol.channels[1].publishing._kept


async def test_immediate_closes_the_connection_as_not_implemented():
    async with amqp_broker() as bench:
        client = await bench.client()
        client.publish(1, "", "q", b"x", immediate=True)
        assert await client.thrown_out() == (540, "NOT_IMPLEMENTED - immediate=true")


# -- what exchanges make of it ----------------------------------------------


async def test_a_headers_exchange_reads_the_headers_of_each_message():
    async with amqp_broker() as bench:
        client = await bench.client()
        for queue in ("red", "blue"):
            await declared(client, queue)
            await bound(client, queue, "amq.headers", arguments={"colour": queue})
        for colour in ("red", "blue", "blue"):
            client.publish(1, "amq.headers", "", colour.encode(), headers={"colour": colour})
        assert [(await taken(client, queue)).body for queue in ("red", "blue", "blue")] == [b"red", b"blue", b"blue"]


async def test_a_delayed_exchange_waits_as_long_as_the_header_says(autojump_clock):
    async with amqp_broker(clock=VirtualClock()) as bench:
        client = await bench.client()
        await exchange(client, "later", "x-delayed-message", arguments={"x-delayed-type": "direct"})
        await declared(client)
        await bound(client, "q", "later", "k")
        client.publish(1, "later", "k", b"now")
        client.publish(1, "later", "k", b"later", headers={"x-delay": 50})
        assert (await taken(client)).body == b"now"
        await trio.sleep(0.049)
        assert await taken(client) is None
        await trio.sleep(0.01)
        assert (await taken(client)).body == b"later"


async def test_a_delay_that_is_none_closes_the_channel():
    async with amqp_broker() as bench:
        client = await bench.client()
        await exchange(client, "later", "x-delayed-message", arguments={"x-delayed-type": "direct"})
        client.publish(1, "later", "k", b"x", headers={"x-delay": "soon"})
        assert (await client.refused(1))[0] == 406
