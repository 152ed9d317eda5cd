"""What is sent: pamqp reads it as what it was meant to be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import body, commands, frame, header, heartbeat

from gateway_amqp.codec import writing
from gateway_amqp.codec.writing import END, address, content, content_front

PROPERTIES = commands.Basic.Properties(content_type="text/plain", delivery_mode=2).marshal()
shorts = st.text(max_size=60)
tags = st.integers(1, 2**63 - 1)
bodies = st.binary(max_size=300)


def heard(data, channel):
    """Return what pamqp makes of frames of a channel: a method, and its content's properties and body; in no frame too long."""
    frames = []
    while data:
        size, number, read = frame.unmarshal(data)
        assert number == channel
        frames.append((read, size))
        data = data[size:]
    return frames


def received(data, channel, frame_max=10_000):
    """Return the method, the raw properties and the body of a method with content."""
    (method, _), (head, _), *parts = heard(data, channel)
    assert isinstance(head, header.ContentHeader)
    assert all(isinstance(part, body.ContentBody) and 8 < size <= frame_max for part, size in parts)
    whole = b"".join(part.value for part, _ in parts)
    assert head.body_size == len(whole)
    return method, head.properties.marshal(), whole


@given(bodies, st.integers(9, 300), st.integers(1, 65_535))
def test_a_content_is_cut_into_frames_of_the_agreed_size(data, frame_max, channel):
    whole = content(channel, PROPERTIES, data, frame_max)
    _, properties, read = received(writing.get_empty(channel) + whole, channel, frame_max)
    assert (properties, read) == (PROPERTIES, data)
    step = frame_max - 8
    assert len(heard(whole, channel)) == 1 + -(-len(data) // step)


@given(bodies, shorts, shorts, shorts, tags, st.booleans())
def test_a_delivery_is_read_by_pamqp(data, tag, exchange, key, number, redelivered):
    where = address(exchange, key)
    front = writing.deliver_front(5, tag, where)
    sent = writing.deliver(front, number, redelivered, where, content(5, PROPERTIES, data, 100))
    method, properties, read = received(sent, 5, 100)
    assert isinstance(method, commands.Basic.Deliver)
    assert (method.consumer_tag, method.delivery_tag, method.redelivered) == (tag, number, redelivered)
    assert (method.exchange, method.routing_key, properties, read) == (exchange, key, PROPERTIES, data)


@given(bodies, shorts, tags, st.booleans())
def test_a_delivery_by_its_constant_parts_is_the_same(data, key, number, redelivered):
    where = address("e", key)
    front = writing.deliver_front(5, "tag", where)
    back = where + END + content_front(5, PROPERTIES, len(data))
    expected = writing.deliver(front, number, redelivered, where, content(5, PROPERTIES, data, 10_000))
    assert writing.deliver_body(front, number, redelivered, back, data) == expected


@given(bodies, shorts, shorts, tags, st.booleans(), st.integers(0, 2**33))
def test_what_is_got_is_read_by_pamqp(data, exchange, key, number, redelivered, left):
    sent = writing.get_ok(6, number, redelivered, address(exchange, key), left, content(6, PROPERTIES, data, 100))
    method, properties, read = received(sent, 6, 100)
    assert isinstance(method, commands.Basic.GetOk)
    assert (method.delivery_tag, method.redelivered, method.message_count) == (number, redelivered, min(left, 2**32 - 1))
    assert (method.exchange, method.routing_key, properties, read) == (exchange, key, PROPERTIES, data)


@given(bodies, shorts, shorts)
def test_what_is_returned_is_read_by_pamqp(data, exchange, key):
    sent = writing.returned(6, 312, "NO_ROUTE", address(exchange, key), content(6, PROPERTIES, data, 100))
    method, properties, read = received(sent, 6, 100)
    assert isinstance(method, commands.Basic.Return)
    assert (method.reply_code, method.reply_text) == (312, "NO_ROUTE")
    assert (method.exchange, method.routing_key, properties, read) == (exchange, key, PROPERTIES, data)


@given(tags, st.booleans(), st.integers(1, 65_535))
def test_acknowledgements_are_written_as_pamqp_does(tag, multiple, channel):
    assert writing.ack(channel, tag, multiple) == frame.marshal(commands.Basic.Ack(tag, multiple), channel)
    assert writing.nack(channel, tag, multiple) == frame.marshal(commands.Basic.Nack(tag, multiple, requeue=False), channel)


@given(shorts)
def test_a_cancel_is_written_as_pamqp_does(tag):
    assert writing.cancel(9, tag) == frame.marshal(commands.Basic.Cancel(tag, nowait=True), 9)


def test_the_rest_is_written_as_pamqp_does():
    assert writing.get_empty(3) == frame.marshal(commands.Basic.GetEmpty(), 3)
    assert frame.marshal(heartbeat.Heartbeat(), 0) == writing.HEARTBEAT


@pytest.mark.parametrize(("exchange", "key"), [("e" * 300, "k"), ("", "é" * 300)])
def test_an_address_that_amqp_can_t_carry_is_cut(exchange, key):
    where = address(exchange, key)
    sent = writing.deliver(writing.deliver_front(1, "t", where), 1, False, where, content(1, PROPERTIES, b"x", 100))
    method, _, read = received(sent, 1)
    assert (method.exchange, method.routing_key, read) == (exchange[:255], key[:127], b"x")
