"""How do publishers without a retain flag say that a message is its key's last value?"""

import msgspec
import pytest
import zmq
from pydantic import ValidationError

from gateway.api import NO_PROPERTIES, Properties, decode_properties, encode_properties
from gateway_zeromq.lasting import HEADER, take_retain
from gateway_zeromq.settings import ZeroMqSettings
from tests.zeromq.support import ANY, Plain, connected, serving, until

ROUTER = {"socket": "ROUTER", "bind": ANY}


def endpoint(kind="PULL", **settings):
    return {"name": "in", "socket": kind, "bind": ANY, **settings}


def retained(running, pattern="#", exchange="amq.topic"):
    return {message.routing_key: message for message in running.channel.retained(exchange, pattern)}


@pytest.mark.parametrize("persistent", [True, False])
@pytest.mark.parametrize(
    ("settings", "frames", "key"),
    [
        ({"frames": "body", "routing_key": "a.b"}, [], "a.b"),
        ({"frames": "key,body"}, [b"a.c"], "a.c"),
        ({"frames": "key,body", "key_syntax": "mqtt"}, [b"a/d"], "a.d"),
        ({"frames": "raw", "routing_key": "a.r"}, [b"more"], "a.r"),
    ],
)
async def test_an_endpoint_that_retains_keeps_the_last_body_of_each_key_and_an_empty_one_clears_it(
    context, settings, frames, key, persistent
):
    async with serving(endpoint(retain=True, persistent=persistent, **settings)) as running:
        peer = Plain(context, zmq.PUSH, running.address("PULL"))
        for body in (b"1", b"2"):
            await peer.send(*frames, body)
        await until(lambda: key in retained(running) and retained(running)[key].body.endswith(b"2"))
        if settings["frames"] != "raw":  # there it is several frames
            await peer.send(*frames, b"")
            await until(lambda: retained(running) == {})


async def test_without_the_setting_nothing_is_retained(context):
    async with serving(endpoint(frames="key,body"), endpoint(name="kept", frames="key,body", retain=True)) as running:
        for number, key in enumerate((b"a", b"b")):
            await Plain(context, zmq.PUSH, running.address("PULL", number)).send(key, b"1")
        await until(lambda: "b" in retained(running))
        assert set(retained(running)) == {"b"}


@pytest.mark.parametrize("default", [True, False])
async def test_a_header_says_it_of_one_message_and_does_not_go_on(context, default):
    async with serving(endpoint(frames="key,headers,body", retain=default)) as running:
        peer = Plain(context, zmq.PUSH, running.address("PULL"))
        await peer.send(b"yes", b'{"x-retain": true}', b"1")
        await peer.send(b"no", msgspec.msgpack.encode({"x-retain": False, "unit": "C"}), b"2")
        await peer.send(b"silent", b'{"unit": "x-retain"}', b"3")
        await peer.send(b"last", msgspec.msgpack.encode({"x-retain": True, "unit": "C"}), b"4")
        await until(lambda: "last" in retained(running))
        kept = retained(running)
        assert set(kept) == {"yes", "last", *(["silent"] if default else [])}
        assert (kept["yes"].wire_tag, kept["yes"].wire) == ("", b"")
        assert decode_properties(kept["last"].wire) == Properties(headers={"unit": "C"})


async def test_a_header_that_says_neither_is_wrong_and_counted(context):
    async with serving(endpoint(frames="key,headers,body")) as running:
        peer = Plain(context, zmq.PUSH, running.address("PULL"))
        await peer.send(b"k", b'{"x-retain": 1}', b"1")
        await until(lambda: running.count("dropped.frames") == 1)
        assert running.log.of("message dropped")[0]["reason"] == "the header x-retain must be true or false, not 1"
        assert retained(running) == {}


@pytest.mark.parametrize(
    "settings",
    [
        {"socket": "PULL", "retain": True, "exchange": "amq.fanout"},
        {"socket": "SUB", "retain": True, "exchange": ""},
        {"socket": "XSUB", "retain": True, "exchange": "x", "exchange_type": "direct"},
        {"socket": "REP", "retain": True, "exchange": "amq.topic"},
    ],
)
def test_only_what_goes_to_topic_exchanges_can_be_retained_and_no_requests(settings):
    with pytest.raises(ValidationError, match="retain"):
        ZeroMqSettings(endpoint=[{"bind": ANY, **settings}])


async def test_a_tgp_client_says_it_by_the_same_header(context):
    async with serving(ROUTER) as running:
        client = await connected(context, running)
        assert await client.ask(3, 1, "amq.topic", "a", {"headers": {"x-retain": True}}, body=b"1") == [4, 1, True, 0]
        assert await client.ask(3, 2, "amq.topic", "b", {"headers": {"x-retain": False, "n": 1}}, body=b"2") == [4, 2, True, 0]
        await client.say(3, 3, "amq.topic", "c", {"headers": {"x-retain": True}, "type": "t"}, 2, body=b"3")
        await until(lambda: "c" in retained(running))
        kept = retained(running)
        assert {key: message.body for key, message in kept.items()} == {"a": b"1", "c": b"3"}
        assert (kept["a"].wire_tag, kept["a"].wire) == ("", b"")
        assert decode_properties(kept["c"].wire) == Properties(type="t")


@pytest.mark.parametrize(
    ("fields", "code"), [([{"headers": {"x-retain": "yes"}}], 406), ([{"headers": {"x-retain": True}}, 0, 1 << 50], 540)]
)
async def test_a_tgp_client_is_told_what_can_not_be_retained(context, fields, code):
    async with serving(ROUTER) as running:
        client = await connected(context, running)
        assert await client.ask(3, 1, "amq.topic", "a", *fields, body=b"1") == [4, 1, False, code]
        assert retained(running) == {}


@pytest.mark.parametrize(
    ("properties", "retain", "left"),
    [
        (NO_PROPERTIES, False, NO_PROPERTIES),
        (Properties(type=HEADER), False, Properties(type=HEADER)),
        (Properties(headers={"a": HEADER}), False, Properties(headers={"a": HEADER})),
        (Properties(headers={HEADER: True}), True, NO_PROPERTIES),
        (Properties(headers={HEADER: True, "a": 1}, type="t"), True, Properties(headers={"a": 1}, type="t")),
    ],
)
def test_all_other_properties_stay_as_they_are(properties, retain, left):
    said, wire = take_retain(encode_properties(properties))
    assert (said, decode_properties(wire)) == (retain, left)


@pytest.mark.parametrize(("exchange", "key"), [("", "a"), ("amq.direct", "a"), ("amq.topic", "$SYS.broker.version")])
async def test_a_tgp_client_retains_nothing_where_there_are_no_last_values_or_only_the_brokers(context, exchange, key):
    async with serving(ROUTER) as running:
        client = await connected(context, running)
        assert await client.ask(3, 1, exchange, key, {"headers": {"x-retain": True}}, body=b"1") == [4, 1, False, 406]
        assert retained(running, exchange=exchange) == {}


async def test_an_endpoint_retains_no_value_in_place_of_the_brokers(context):
    async with serving(endpoint(frames="key,body", retain=True)) as running:
        await Plain(context, zmq.PUSH, running.address("PULL")).send(b"$SYS.broker.version", b"forged")
        await until(lambda: running.count("dropped.frames") == 1)
        assert retained(running, "$SYS.#") == {}
