"""Topics, keys, sessions and packets: between MQTT and the common model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api import AccessRefused, Address, BindingOptions, GatewayError, Message, Overflow, Principal, swap_key
from gateway_mqtt.codec.coding import encode
from gateway_mqtt.codec.packets import MalformedPacket, Publish, Subscription
from gateway_mqtt.translate.messages import Encoder
from gateway_mqtt.translate.sessions import (
    MAX_CLIENT_ID_BYTES,
    NEVER_S,
    SessionLimits,
    connect_refusal,
    return_code,
    session_queue,
    session_queue_name,
    shortest,
    split_shared,
    subscription,
)
from gateway_mqtt.translate.topics import Routes, TopicLimits

LIMITS = TopicLimits(200, 65_535)


class FakeRoute:
    def __init__(self, address):
        self.address = address


class FakeChannel:
    """Routes everything but what is secret."""

    def __init__(self):
        self.asked = []

    def route(self, exchange, routing_key, *, local_to=""):
        self.asked.append((exchange, routing_key, local_to) if local_to else (exchange, routing_key))
        if routing_key == "secret":
            raise AccessRefused("not there")
        return FakeRoute(Address("/", exchange, routing_key))


topics = st.text(st.characters(codec="utf-8", exclude_characters="\0+#"), min_size=1, max_size=40)


@given(st.sampled_from([3, 4, 5]), topics, st.binary(max_size=400), st.booleans())
def test_a_message_that_came_by_mqtt_goes_out_with_the_very_topic(level, topic, body, persistent):
    route = Routes(FakeChannel(), Principal("x"), LIMITS).resolve(topic.encode(), level)
    message = Message(route.address, body, persistent)
    encoder = Encoder(level)
    behind = b"\0\7" + (b"\0" if level == 5 else b"")
    assert encoder.encode_packet(message) == encode(Publish(topic, body), level)
    assert encoder.encode_front(message) + behind + body == encode(Publish(topic, body, 1, packet_id=7), level)
    assert (encoder.plain, encoder.confirmed) == (message, message)


@given(st.sampled_from([3, 4, 5]), topics, st.binary(max_size=400), st.integers(0, 2), st.booleans(), st.booleans())
def test_the_parts_of_a_publish_make_that_publish(level, topic, body, qos, retain, dup):
    encoder = Encoder(level)
    message = Message(Address("/", "amq.topic", swap_key(topic)), body)
    dup = dup and qos > 0
    start, properties = encoder.packet_parts(message, qos, retain | dup << 3)
    packet_id = b"\0\7" if qos else b""
    expected = Publish(topic, body, qos, retain, dup, 7 if qos else 0)
    assert start + packet_id + properties + body == encode(expected, level)


@pytest.mark.parametrize("key", ["", "a.#", "a.+.b".replace("+", "*"), "a\0b", "x" * 65_536, "\ud800"])
def test_a_key_that_mqtt_cannot_carry_has_no_packet(key):
    encoder = Encoder()
    message = Message(Address("/", "amq.topic", key), b"x")
    assert encoder.encode_packet(message) == b""
    assert encoder.encode_front(message) == b""
    assert encoder.packet_parts(message, 2) == (b"", b"")
    assert encoder.plain is None
    assert encoder.confirmed is None


def test_routes_are_found_once_per_topic_and_shared_by_the_connections_of_a_principal():
    channel, principal = FakeChannel(), Principal("x")
    first, second = Routes(channel, principal, LIMITS), Routes(channel, principal, LIMITS)
    route = first.resolve(b"a/b")
    assert second.known.get(b"a/b") is route
    assert channel.asked == [("amq.topic", "a.b")]
    assert b"a/b" not in Routes(channel, Principal("y"), LIMITS).known


def test_who_wants_no_local_has_routes_of_its_own_until_it_wants_that_no_more_mqtt5_3_8_3_3():
    channel, principal = FakeChannel(), Principal("x")
    first, second = Routes(channel, principal, LIMITS), Routes(channel, principal, LIMITS)
    first.resolve(b"t")
    first.keep_from("q")
    assert b"t" not in first.known
    first.resolve(b"t")
    assert channel.asked == [("amq.topic", "t"), ("amq.topic", "t", "q")]
    assert second.known[b"t"] is not first.known[b"t"]
    first.keep_from("")
    assert first.known is second.known


def test_the_cache_of_routes_is_bounded_and_long_topics_stay_out_of_it(monkeypatch):
    monkeypatch.setattr("gateway_mqtt.translate.topics.MAX_CACHED_TOPICS", 10)
    routes = Routes(FakeChannel(), Principal("x"), LIMITS)
    for n in range(100):
        routes.resolve(b"t/%d" % n)
        assert len(routes.known) <= 10
    routes.resolve(b"x" * 10_000)
    assert b"x" * 10_000 not in routes.known


def test_a_topic_that_may_not_be_published_to_or_is_too_deep_is_refused_and_not_cached():
    routes = Routes(FakeChannel(), Principal("x"), TopicLimits(3, 100))
    with pytest.raises(AccessRefused, match="not there"):
        routes.resolve(b"secret")
    with pytest.raises(MalformedPacket, match="3 levels") as caught:
        routes.resolve(b"a/b/c/d")
    assert caught.value.code == 0x90
    with pytest.raises(MalformedPacket, match="100 bytes"):
        routes.resolve(b"x" * 101)
    assert not routes.known


def test_a_clean_session_is_its_connections_own_and_a_persistent_one_outlives_it_and_both_have_their_limits():
    limits = SessionLimits(7, 70, Overflow.REJECT_PUBLISH)
    persistent = session_queue("c", limits, lasts=True)
    assert (persistent.name, persistent.durable, persistent.exclusive) == ("mqtt.session.c", True, False)
    assert (persistent.max_length, persistent.max_length_bytes, persistent.overflow) == (7, 70, Overflow.REJECT_PUBLISH)
    clean = session_queue("c", SessionLimits(7, 70, Overflow.END_QUEUE), lasts=False)
    assert (clean.name, clean.durable, clean.exclusive) == ("mqtt.session.c", False, True)
    assert (clean.max_length, clean.max_length_bytes, clean.overflow) == (7, 70, Overflow.END_QUEUE)
    assert not persistent.keep_transient
    assert not clean.keep_transient


def test_the_longest_client_identifier_makes_the_longest_queue_name():
    assert len(session_queue_name("x" * MAX_CLIENT_ID_BYTES)) == 255


def test_a_subscription_is_a_binding_that_spares_dollar_topics():
    binding = subscription("q", Subscription("a/+/#", 1, no_local=True, retain_as_published=True), (7,))
    assert (binding.source, binding.destination, binding.key) == ("amq.topic", "q", "a.*.#")
    assert binding.options == BindingOptions(1, no_local=True, retain_as_published=True, subscription_ids=(7,), mqtt=True)


def test_refusals_have_their_codes_and_below_level_5_the_nearest_return_code():
    assert connect_refusal(AccessRefused(""), named=True).code == 0x86
    assert connect_refusal(AccessRefused(""), named=False).code == 0x87
    assert connect_refusal(GatewayError(""), named=True).code == 0x88
    assert [return_code(code) for code in (0x84, 0x85, 0x86, 0x87, 0x88, 0x9A)] == [1, 2, 4, 5, 3, 0]


def test_a_session_lasts_no_longer_than_the_limit_and_0_is_none():
    assert [shortest(expiry_s, 100) for expiry_s in (0, 99, 101, NEVER_S)] == [0, 99, 100, 100]
    assert shortest(NEVER_S, 0) == NEVER_S


@pytest.mark.parametrize("pattern", ["$share//a", "$share/g", "$share/g/", "$share/g+/a", "$share/#/a", "$share/"])
def test_a_shared_subscription_needs_a_name_and_a_filter_mqtt5_4_8_2_1_mqtt5_4_8_2_2(pattern):
    assert split_shared(pattern) is None
