"""Basic.Publish: what is said no to, and how?"""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands

from gateway.runtime.clock import VirtualClock
from gateway_amqp.codec.names import SoftError
from gateway_amqp.expiration import milliseconds
from tests.amqp.rooms import declared, raw_publish, taken
from tests.amqp.wire import amqp_broker

INVALID = "PRECONDITION_FAILED - invalid expiration "


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
        client.raw(raw_publish(1, "", "q", b"\x01\x00" + bytes((len(said),)) + said, b"x"))
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
