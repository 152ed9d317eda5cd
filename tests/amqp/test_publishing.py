"""Basic.Publish: what reaches which queue, in which form, and what is said no to?"""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, frame

from gateway.runtime.clock import VirtualClock
from gateway_amqp.codec.names import HardError, SoftError
from gateway_amqp.expiration import milliseconds
from gateway_amqp.publishing import read_arguments
from tests.amqp.rooms import bound, declared, exchange, taken
from tests.amqp.wire import Content, amqp_broker, publishing

INVALID = "PRECONDITION_FAILED - invalid expiration "


def wire_of(bench, queue="q"):
    """Return the properties of all messages of a queue, as they are kept."""
    return [entry.message.wire for entry in bench.queue(queue).lanes[0].ready]


def raw(channel, exchange, key, properties, data):
    """Return a publish whose properties, flags included, are these very bytes."""
    method = frame.marshal(commands.Basic.Publish(exchange=exchange, routing_key=key), channel)
    number = channel.to_bytes(2, "big")
    head = b"\0\x3c\0\0" + len(data).to_bytes(8, "big") + properties
    parts = [method, b"\2" + number + len(head).to_bytes(4, "big") + head + b"\xce"]
    if data:
        parts.append(b"\3" + number + len(data).to_bytes(4, "big") + data + b"\xce")
    return b"".join(parts)


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
    assert read_arguments(good) == ("e", "k", 1)
    if junk:
        with pytest.raises(HardError):
            read_arguments(good + junk)
    for end in range(len(good)):
        with pytest.raises(HardError):
            read_arguments(good[:end])


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
            client.raw(raw(1, "", "q", form, b"x") * 2)
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
        client.raw(raw(1, "", "k", b"\0\0", b"").replace(b"\x01k", b"\x01\xff"))
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


# -- no ---------------------------------------------------------------------


async def test_an_exchange_that_is_not_there_closes_the_channel_and_what_follows_is_not_carried_out():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        client.publish(1, "nope", "q", b"x")
        client.publish(1, "", "q", b"never")
        close = await client.hear(1)
        assert (close.reply_code, close.reply_text) == (404, "NOT_FOUND - no exchange 'nope' in vhost '/'")
        assert (close.class_id, close.method_id) == (60, 40)
        client.publish(1, "", "q", b"never")
        client.say(1, commands.Channel.CloseOk())
        await client.open(1)
        assert await taken(client) is None


async def test_an_exchange_that_goes_is_missed_by_publishes_that_follow():
    async with amqp_broker() as bench:
        client = await bench.client()
        await client.call(1, commands.Exchange.Declare(exchange="e", exchange_type="fanout"))
        client.publish(1, "e", "", b"x")
        await client.call(1, commands.Exchange.Delete(exchange="e"))
        client.publish(1, "e", "", b"x")
        assert (await client.refused(1))[0] == 404


async def test_nobody_publishes_to_an_internal_exchange():
    async with amqp_broker() as bench:
        client = await bench.client()
        client.say(1, commands.Exchange.Declare(exchange="in", exchange_type="fanout", internal=True))
        assert isinstance(await client.hear(1), commands.Exchange.DeclareOk)
        client.publish(1, "in", "", b"x")
        assert await client.refused(1) == (403, "ACCESS_REFUSED - cannot publish to internal exchange 'in' in vhost '/'")


async def test_a_message_that_is_too_large_closes_the_channel():
    async with amqp_broker(max_message_bytes=2_000) as bench:
        client = await bench.client()
        await declared(client)
        client.publish(1, "", "q", b"x" * 2_000)
        client.publish(1, "", "q", b"x" * 2_001)
        text = "PRECONDITION_FAILED - message size 2001 is larger than configured max size 2000"
        assert await client.refused(1) == (406, text)
        assert bench.queue("q").ready_count == 1


@pytest.mark.parametrize("confirms", [False, True])
async def test_a_message_that_is_too_large_for_the_broker_closes_the_channel(confirms):
    async with amqp_broker(limits={"max_message_bytes": 2_000}) as bench:
        client = await bench.client()
        if confirms:
            client.say(1, commands.Confirm.Select(nowait=True))
        client.publish(1, "", "q", b"x" * 2_001)
        text = "PRECONDITION_FAILED - the message is too large: 2003 bytes; limits.max_message_bytes = 2000"
        assert await client.refused(1) == (406, text)


async def test_a_user_id_is_the_users_own():
    async with amqp_broker() as bench:
        client = await bench.client()
        await declared(client)
        client.publish(1, "", "q", b"x", user_id="guest")
        client.publish(1, "", "q", b"x", user_id="bob")
        text = "PRECONDITION_FAILED - user_id property set to 'bob' but authenticated user was 'guest'"
        assert await client.refused(1) == (406, text)
        await client.open(1)
        client.publish(1, "", "q", b"x", user_id="bob")  # again: what was read of the properties is not kept
        assert await client.refused(1) == (406, text)
        assert bench.queue("q").ready_count == 1


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("abc", "'abc': no_integer"),
        ("", "'': no_integer"),
        (" 5", "' 5': no_integer"),
        ("+", "'+': no_integer"),
        ("5x", "'5x': {leftover_string,\"x\"}"),
        ("5.5", "'5.5': {leftover_string,\".5\"}"),
        ("-1", "'-1': {value_negative,-1}"),
        ("315360000001", "'315360000001': {value_too_large,315360000001}"),
        ("٣", "'٣': no_integer"),
    ],
)
async def test_an_expiration_that_can_not_be_closes_the_channel(written, why):
    async with amqp_broker() as bench:
        client = await bench.client()
        said = written.encode()
        client.raw(raw(1, "", "q", b"\x01\x00" + bytes((len(said),)) + said, b"x"))
        assert await client.refused(1) == (406, INVALID + why)


@given(st.integers(0, 315_360_000_000))
def test_any_number_of_milliseconds_up_to_ten_years_is_an_expiration(number):
    assert milliseconds(b"%d" % number) == milliseconds(b"+%d" % number) == milliseconds(b"00%d" % number) == number


@given(st.binary(max_size=12))
def test_whatever_an_expiration_says_it_is_a_number_or_an_error(written):
    try:
        number = milliseconds(written)
    except SoftError as error:
        number, code = 0, error.code
        assert code == 406
    assert 0 <= number <= 315_360_000_000


async def test_what_expires_is_gone_after_its_time(autojump_clock):
    async with amqp_broker(clock=VirtualClock()) as bench:
        client = await bench.client()
        await declared(client)
        client.publish(1, "", "q", b"now or never", expiration="0")
        client.publish(1, "", "q", b"soon", expiration="1000")
        client.publish(1, "", "q", b"never")
        await trio.sleep(0.001)
        assert (await taken(client)).body == b"soon"
        client.publish(1, "", "q", b"soon", expiration="1000")
        await trio.sleep(0.999)
        await declared(client, passive=True)
        await trio.sleep(0.001)
        assert (await taken(client)).body == b"never"
        assert await taken(client) is None


# -- CC and BCC -------------------------------------------------------------


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
    async with amqp_broker() as bench:
        client = await bench.client()
        await exchange(client, "later", "x-delayed-message", arguments={"x-delayed-type": "direct"})
        await declared(client)
        await bound(client, "q", "later", "k")
        client.publish(1, "later", "k", b"now")
        client.publish(1, "later", "k", b"later", headers={"x-delay": 50})
        assert (await taken(client)).body == b"now"
        assert await taken(client) is None


async def test_a_delay_that_is_none_closes_the_channel():
    async with amqp_broker() as bench:
        client = await bench.client()
        await exchange(client, "later", "x-delayed-message", arguments={"x-delayed-type": "direct"})
        client.publish(1, "later", "k", b"x", headers={"x-delay": "soon"})
        assert (await client.refused(1))[0] == 406
