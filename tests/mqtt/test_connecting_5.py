"""What MQTT 5 clients are told when they connect, and when the broker closes."""

from __future__ import annotations

import pytest
import trio

from gateway.api import AccessRefused, Principal
from gateway_mqtt.codec.encoding import encode
from gateway_mqtt.codec.packets import Auth, ConnAck, Connect, Publish, Subscribe, Subscription, Will
from gateway_mqtt.codec.properties import NO_PROPERTIES, Properties
from tests.mqtt.level5 import connected, goodbye, opened, refused
from tests.mqtt.support import mqtt_broker, until


def denying(what):
    async def let_in(credentials):
        return Principal("guest", authorize=lambda action, resource, key: what not in key)

    return let_in


# -- the CONNACK --------------------------------------------------------------


async def test_a_client_is_told_what_differs_from_what_it_takes_for_granted():
    everything_off = {
        "receive_maximum": 7, "maximum_qos": 1, "retained": False, "max_packet_bytes": 5_000, "topic_alias_maximum": 3,
        "wildcards": False, "subscription_identifiers": False, "shared_subscriptions": False, "max_keep_alive_s": 20,
    }  # fmt: skip
    async with mqtt_broker(**everything_off) as bench:
        client = await connected(bench, "c", keep=30)
        assert client.answer.properties == Properties(
            receive_maximum=7, maximum_qos=1, retain_available=False, maximum_packet_size=5_003, topic_alias_maximum=3,
            wildcard_available=False, subscription_ids_available=False, shared_available=False, server_keep_alive_s=20,
        )  # fmt: skip


async def test_nothing_is_told_that_goes_without_saying():
    async with mqtt_broker(receive_maximum=65_535, topic_alias_maximum=0, max_packet_bytes=268_435_455) as bench:
        assert (await connected(bench, keep=30)).answer == ConnAck(False, 0, NO_PROPERTIES)


async def test_a_packet_as_large_as_was_told_is_taken_and_one_byte_more_is_not():
    async with mqtt_broker(max_packet_bytes=5_000) as bench:
        client = await connected(bench)
        largest = client.answer.properties.maximum_packet_size
        overhead = len(encode(Publish("t", b"x" * 4_000), 5)) - 4_000
        await client.send(Publish("t", b"x" * (largest - overhead)))
        await client.quiet()
        await client.send(Publish("t", b"x" * (largest - overhead + 1)))
        assert (await goodbye(client)).code == 0x95


async def test_an_identifier_is_assigned_and_told_and_can_be_come_back_with_mqtt5_3_1_3_6_mqtt5_3_2_2_16():
    async with mqtt_broker() as bench:
        first = await connected(bench, "", clean=False, session_expiry_s=100)
        given = first.answer.properties.assigned_client_id
        assert given
        assert (await connected(bench, "")).answer.properties.assigned_client_id not in {None, given}
        again = await connected(bench, given, clean=False, session_expiry_s=100)
        assert again.answer.session_present
        assert again.answer.properties.assigned_client_id is None


async def test_response_information_is_given_to_who_asks_and_no_two_have_the_same():
    async with mqtt_broker() as bench:
        told = [
            (await connected(bench, name, request_response_information=True)).answer.properties.response_information
            for name in ("a", "a/b", "a+b", "a%2Fb")
        ]
        assert told == ["response/a", "response/a%2Fb", "response/a%2Bb", "response/a%252Fb"]
        assert (await connected(bench, "d")).answer.properties.response_information is None
    async with mqtt_broker(response_prefix="") as bench:
        assert (await connected(bench, request_response_information=True)).answer.properties.response_information is None


# -- refusals -----------------------------------------------------------------


async def test_an_authentication_method_is_refused_mqtt5_4_12_0_1():
    async with mqtt_broker() as bench:
        assert (await refused(bench, authentication_method="SCRAM-SHA-256")).code == 0x8C


async def test_an_auth_packet_is_a_protocol_error():
    async with mqtt_broker() as bench:
        client = await connected(bench)
        await client.send(Auth(0x19, Properties(authentication_method="x")))
        assert (await goodbye(client)).code == 0x82


@pytest.mark.parametrize(("user", "code"), [("eve", 0x86), (None, 0x87)])
async def test_who_is_not_let_in_is_told_no_more_than_that(user, code):
    async with mqtt_broker() as bench:

        async def closed(credentials):
            raise AccessRefused("the secret reason")

        bench.broker.authenticate = closed
        client = await opened(bench)
        await client.send(Connect("c", user=user, password=b"pw" if user else None, level=5))
        answer = await client.next()
        assert (answer.code, answer.properties) == (code, NO_PROPERTIES)
        assert await client.next() is None


@pytest.mark.parametrize(
    ("will", "code"),
    [
        (Will("t", b"", 2), 0x9B),
        (Will("t", b"", retain=True), 0x9A),
        (Will("/" * 300, b""), 0x90),
        (Will("$SYS/broker/uptime", b""), 0x87),
        (Will("$share/group/topic", b""), 0x87),
        (Will("t", b"\xff", properties=Properties(payload_format=1)), 0x99),
    ],
    ids=["QoS [MQTT5-3.2.2-12]", "retain [MQTT5-3.2.2-13]", "topic", "$SYS", "$share", "payload format"],
)
async def test_a_will_that_can_not_be_refuses_the_connect(will, code):
    async with mqtt_broker(maximum_qos=1, retained=False) as bench:
        assert (await refused(bench, will=will)).code == code


async def test_a_will_to_where_the_client_may_not_publish_refuses_the_connect_and_ends_nobody():
    async with mqtt_broker() as bench:
        bench.broker.authenticate = denying("secret")
        first = await connected(bench)
        assert (await refused(bench, will=Will("secret", b"x"))).code == 0x87
        await first.quiet()


async def test_a_malformed_connect_is_told_so_if_it_is_of_level_5():
    async with mqtt_broker() as bench:
        client = await opened(bench)
        await client.send(b"\x10\x10\0\4MQTT\5\2\0\0\3\x21\0\0\0\0")  # Receive Maximum 0
        answer = await client.next()
        assert (answer.code, answer.properties.reason_string) == (0x82, "the property receive_maximum is 0")
        assert await client.next() is None
        assert bench.counted("violations") == 1


async def test_a_refusal_is_no_larger_than_the_client_takes_mqtt5_3_2_2_19():
    async with mqtt_broker() as bench:
        assert (await refused(bench, "x" * 300)).properties.reason_string
        assert (await refused(bench, "x" * 300, maximum_packet_size=20)).properties == NO_PROPERTIES


# -- goodbyes -----------------------------------------------------------------


async def test_a_violation_is_said_goodbye_to_with_its_reason_if_the_client_wants_to_know():
    async with mqtt_broker() as bench:
        for wants in (True, False):
            client = await connected(bench, request_problem_information=wants)
            await client.send(Connect("again", level=5))
            packet = await goodbye(client)
            assert packet.code == 0x82
            assert packet.properties.reason_string == ("a second CONNECT" if wants else None)
        assert bench.counted("violations") == 2


async def test_who_is_silent_for_too_long_is_told_so_mqtt5_3_1_2_22(autojump_clock):
    autojump_clock.autojump_threshold = 0.002
    async with mqtt_broker(sys_interval_s=0) as bench:
        client = await connected(bench, keep=10)
        client.patience_s = 60
        assert (await goodbye(client)).code == 0x8D
        assert 15 <= trio.current_time() <= 19


async def test_who_is_connected_when_the_broker_stops_is_told_so():
    async with mqtt_broker() as bench:
        client = await connected(bench)
        bench.broker.start_draining()
        assert (await goodbye(client)).code == 0x8B


async def test_a_session_that_somebody_deletes_is_said_goodbye_to():
    async with mqtt_broker() as bench:
        client = await connected(bench, session_expiry_s=100)
        channel = bench.broker.gateway("other", print, bench.log).open_channel(Principal("admin"))
        await channel.outcome(channel.delete_queue("mqtt.session.c"))
        assert (await goodbye(client)).code in {0x97, 0x98}
        again = await connected(bench, clean=False, session_expiry_s=100)
        assert not again.answer.session_present


# -- connections without a task -----------------------------------------------


async def test_an_idle_client_has_neither_queue_nor_task_nor_record():
    async with mqtt_broker() as bench:
        tasks = trio.lowlevel.current_statistics().tasks_living
        for n in range(20):
            await connected(bench, f"c{n}")
        assert not bench.broker.engine.vhost("/").queues
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        channel = bench.broker.gateway("other", print, bench.log).open_channel(Principal("x"))
        assert not list(channel.scan_state("mqtt.session"))


async def test_what_is_sent_behind_a_connect_is_taken_after_it_was_answered_and_in_order():
    async with mqtt_broker() as bench:
        watcher = await connected(bench, "watcher")
        await watcher.subscribe("t", 1)
        bench.journal.automatic = False
        client = await opened(bench)
        mine = Properties(session_expiry_s=100)
        await client.send(Connect("late", level=5, properties=mine), Publish("t", b"1", 1, packet_id=1))
        await until(lambda: bench.journal.writes)
        await client.send(Publish("t", b"2", 1, packet_id=2))
        bench.journal.automatic = True
        while bench.journal.writes:
            bench.journal.finish()
        assert isinstance(await client.next(), ConnAck)
        assert await watcher.messages(2) == [b"1", b"2"]
        assert [(await client.next()).packet_id for _ in range(2)] == [1, 2]


async def test_what_is_sent_behind_a_connect_that_is_refused_is_not_looked_at_mqtt5_3_1_4_6():
    async with mqtt_broker() as bench:
        watcher = await connected(bench, "watcher")
        await watcher.subscribe("t")
        client = await opened(bench)
        mine = Properties(authentication_method="x")
        await client.send(Connect("c", level=5, properties=mine), Publish("t", b"1"))
        assert (await client.next()).code == 0x8C
        assert await client.next() is None
        await watcher.quiet()


# -- subscribing --------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "pattern", "code", "subscription_id"),
    [
        ("wildcards", "a/#", 0xA2, None),
        ("wildcards", "a/+/b", 0xA2, None),
        ("shared_subscriptions", "$share/g/a", 0x9E, None),
        ("subscription_identifiers", "a", 0xA1, 7),
    ],
)
async def test_what_is_switched_off_is_refused_with_its_own_code(setting, pattern, code, subscription_id):
    async with mqtt_broker(**{setting: False}) as bench:
        client = await connected(bench)
        assert await client.subscribe(pattern, subscription_id=subscription_id) == code
        assert await client.subscribe("plain") == 0
        old = await bench.client("old")
        if subscription_id is None:
            assert await old.subscribe(pattern) == b"\x80"


async def test_refused_filters_have_their_own_codes_and_leave_the_others_alone():
    async with mqtt_broker(max_topic_levels=4, max_subscriptions=4) as bench:
        bench.broker.authenticate = denying("secret")
        client = await connected(bench)
        wanted = ("a", "a/b/c/d/e", "secret", "b", "c", "d")
        await client.send(Subscribe(1, tuple(Subscription(pattern, 1) for pattern in wanted)))
        assert (await client.next()).codes == b"\1\x8f\x87\1\x97\x97"
        assert await client.unsubscribe("a", "a", "never", "secret") == b"\0\x11\x11\x11"


async def test_an_identifier_that_is_in_use_is_refused_mqtt5_2_2_1_4():
    async with mqtt_broker() as bench:
        client = await connected(bench, session_expiry_s=100)
        bench.journal.automatic = False
        await client.send(Subscribe(5, (Subscription("a", 1),)))
        await until(lambda: bench.journal.writes)
        await client.send(Subscribe(5, (Subscription("b", 1), Subscription("c", 1))))
        assert (await client.next()).codes == b"\x91\x91"
        bench.journal.automatic = True
        while bench.journal.writes:
            bench.journal.finish()
        assert (await client.next()).codes == b"\1"
