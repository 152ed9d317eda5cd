"""CONNECT and CONNACK: §3.1 and §3.2 of both standards, wills excepted."""

from __future__ import annotations

import string

import pytest
import trio

from gateway_mqtt.codec.encoding import encode
from gateway_mqtt.codec.packets import ConnAck, Connect, Publish, SubAck, Subscribe, Subscription, Will
from gateway_mqtt.codec.properties import Properties
from tests.mqtt.conformance.support import PING, frame, lobby, name, own_broker, own_time, text


async def test_mqtt_3_1_4_4_mqtt5_3_1_4_5_a_good_connect_is_answered_with_success_and_first(any_level):
    """[MQTT-3.2.0-1] [MQTT5-3.2.0-1] [MQTT5-3.2.0-2] [MQTT5-3.2.2-1]"""
    client = await any_level.open()
    await client.send(Connect(name("c"), level=client.level), PING)
    head, payload = await client.raw()
    assert (head, payload[:2]) == (0x20, b"\0\0")
    assert await client.raw() == (0xD0, b"")


async def test_mqtt_3_1_2_1_mqtt5_3_1_2_1_another_protocol_is_not_answered_as_if_it_were_mqtt(any_level):
    client = await any_level.open()
    await client.send(frame(0x10, text(b"MQTT "), bytes((client.level, 2)), b"\0\0\0", text(b"c")))
    answer = await client.raw()
    assert answer is None or answer[1][1] == 0x84
    if answer is not None:
        assert await client.raw() is None


async def test_mqtt_3_1_2_2_an_unknown_level_is_refused_with_code_1(v3):
    """[MQTT-3.2.2-4] [MQTT-3.2.2-5]"""
    client = await v3.open()
    await client.send(frame(0x10, text(b"MQTT"), b"\x07\2\0\0", text(b"c")), PING)
    assert await client.raw() == (0x20, b"\0\1")
    assert await client.raw() is None


@pytest.mark.parametrize("bits", [1, 3, 0x83])
async def test_mqtt_3_1_2_3_mqtt5_3_1_2_3_the_reserved_flag_is_looked_at(any_level, bits):
    client = await any_level.open()
    properties = b"\0" if client.level == 5 else b""
    await client.send(frame(0x10, text(b"MQTT"), bytes((client.level, bits)), b"\0\0", properties, text(b"c") * 2))
    answer = await client.raw()
    assert answer is None or (client.level == 5 and answer[1][1] in {0x81, 0x82})


async def test_mqtt_3_1_2_4_mqtt5_3_1_2_5_a_session_goes_on_where_it_was(any_level):
    """[MQTT5-3.1.2-6] [MQTT-3.2.2-2] [MQTT-3.2.2-3] [MQTT5-3.2.2-3] [MQTT5-3.1.2-23]"""
    topic, who = name("t"), name("c")
    client = await any_level.open()
    lasting = {"session_expiry_s": 100} if client.level == 5 else {}
    assert not (await client.connect(who, clean=False, **lasting)).session_present
    await client.subscribe(topic, 1)
    await client.leave()
    publisher = await any_level.client()
    await publisher.publish(topic, b"away", 1)
    again = await any_level.open()
    assert (await again.connect(who, clean=False, **lasting)).session_present
    assert await again.messages(1) == [b"away"]
    await publisher.publish(topic, b"back", 1)
    assert await again.messages(1) == [b"back"]
    await again.leave()
    await any_level.forget(who)


async def test_a_client_of_mqtt_3_1_is_told_nothing_of_its_session(port):
    """There that byte of the CONNACK is reserved."""
    who = name("c")
    async with lobby(port, 3) as place:
        for _ in range(2):
            client = await place.open()
            await client.send(Connect(who, clean=False, level=3))
            assert await client.raw() == (0x20, b"\0\0")
            await client.quiet()
            await client.vanish()
        await place.forget(who)


async def test_mqtt_3_1_2_5_a_session_gathers_messages_of_qos_1_and_2_while_its_client_is_away(any_level):
    """[MQTT-4.5.0-1] [MQTT5-4.5.0-1]"""
    topic, who = name("t"), name("c")
    client = await any_level.lasting(who)
    await client.subscribe(topic, 2)
    await client.leave()
    publisher = await any_level.client()
    await publisher.publish(topic, b"none", 0)  # nothing says when it was taken, but what comes behind it
    await publisher.publish(topic, b"one", 1)
    await publisher.publish(topic, b"two", 2)
    again = await any_level.lasting(who)
    got = [await again.message() for _ in range(2)]
    assert [(message.payload, message.qos) for message in got] == [(b"one", 1), (b"two", 2)]
    await again.quiet()
    await any_level.forget(who)


async def test_mqtt_3_1_2_6_mqtt5_3_1_2_4_a_clean_connect_discards_the_session(any_level):
    """[MQTT-3.2.2-1] [MQTT5-3.2.2-2] [MQTT-3.1.4-3] [MQTT5-3.1.4-4]"""
    topic, who = name("t"), name("c")
    client = await any_level.lasting(who)
    await client.subscribe(topic, 1)
    await client.leave()
    publisher = await any_level.client()
    await publisher.publish(topic, b"old", 1)
    again = await any_level.open()
    assert not (await again.connect(who, clean=True)).session_present
    await publisher.publish(topic, b"new", 1)
    await again.quiet()
    await again.leave()
    third = await any_level.open()
    assert not (await third.connect(who, clean=False)).session_present
    await third.leave()
    await any_level.forget(who)


async def test_mqtt_3_1_2_7_mqtt5_3_3_1_5_retained_messages_outlive_the_session_of_their_publisher(any_level):
    topic = name("t")
    publisher = await any_level.client()
    await publisher.publish(topic, b"kept", 1, retain=True)
    await publisher.leave()
    await any_level.forget(publisher.client_id)
    watcher = await any_level.subscriber(topic)
    assert (await watcher.message()).payload == b"kept"


@pytest.mark.parametrize("level", [4, 5], ids=["3.1.1", "5.0"])
async def test_mqtt_3_1_2_24_mqtt5_3_1_2_22_silence_for_one_and_a_half_keep_alives_ends_the_connection(autojump_clock, level):
    """[MQTT5-3.2.2-22]"""
    async with own_time(autojump_clock, level) as place:
        client = await place.client(keep=1)
        start = trio.current_time()
        code = await client.ended()
        assert 1.5 <= trio.current_time() - start <= 2
        assert code == (0x8D if level == 5 else None)


async def test_mqtt5_3_2_2_22_without_a_keep_alive_of_the_servers_the_clients_holds(v5):
    client = await v5.open()
    assert (await client.connect(keep=100)).properties.server_keep_alive_s is None
    async with own_broker(5, max_keep_alive_s=60) as place:
        client = await place.open()
        assert (await client.connect(keep=100)).properties.server_keep_alive_s == 60
        client = await place.open()
        assert (await client.connect(keep=0)).properties.server_keep_alive_s == 60
        client = await place.open()
        assert (await client.connect(keep=30)).properties.server_keep_alive_s is None


async def test_mqtt_3_1_3_2_mqtt5_3_1_3_2_sessions_are_known_by_their_identifiers(any_level):
    topic = name("t")
    names = [name("c"), name("C"), name("c") + "\u00e9", name("c") + "e\u0301"]
    for who in names:
        client = await any_level.lasting(who)
        await client.subscribe(f"{topic}/{who}", 1)
        await client.leave()
    publisher = await any_level.client()
    for who in names:
        await publisher.publish(f"{topic}/{who}", who.encode(), 1)
    for who in names:
        client = await any_level.lasting(who)
        assert await client.messages(1) == [who.encode()]
        await client.quiet()
        await client.leave()
        await any_level.forget(who)


async def test_mqtt_3_1_3_5_mqtt5_3_1_3_5_letters_and_digits_are_an_identifier(any_level):
    letters = string.digits + string.ascii_letters
    for who in ("a", letters[:23], letters[23:46], letters[-23:]):
        client = await any_level.open()
        assert (await client.connect(who)).code == 0


async def test_mqtt_3_1_3_6_mqtt5_3_1_3_6_an_empty_identifier_becomes_one_that_nobody_has(any_level):
    """[MQTT5-3.1.3-7] [MQTT5-3.2.2-16]"""
    first, second = await any_level.open(), await any_level.open()
    answers = [await first.connect(""), await second.connect("")]
    assert [answer.code for answer in answers] == [0, 0]
    await first.quiet()
    await second.quiet()
    assigned = {answer.properties.assigned_client_id for answer in answers}
    assert assigned == {None} if first.level == 4 else len(assigned) == 2
    if first.level == 5:
        third = await any_level.open()
        await third.connect(answers[0].properties.assigned_client_id)
        assert await first.ended() == 0x8E


async def test_mqtt5_3_2_2_16_an_assigned_identifier_may_have_a_session_that_lasts(v5):
    client = await v5.open()
    answer = await client.connect("", clean=False, session_expiry_s=60)
    assert answer.code == 0
    who = answer.properties.assigned_client_id
    await client.leave()
    again = await v5.open()
    answer = await again.connect(who, clean=False)
    assert answer.session_present
    assert answer.properties.assigned_client_id is None
    await again.leave()


async def test_mqtt_3_1_3_8_an_empty_identifier_without_a_clean_session_is_refused(v3):
    """[MQTT-3.1.3-7] [MQTT-3.1.3-9] [MQTT-3.2.2-4] [MQTT-3.2.2-5] [MQTT-3.1.4-5]"""
    topic = name("t")
    watcher = await v3.subscriber(topic)
    client = await v3.open()
    await client.send(Connect("", clean=False), Publish(topic, b"lost"))
    assert await client.raw() == (0x20, b"\0\2")
    assert await client.raw() is None
    await watcher.quiet()


async def test_mqtt5_3_1_3_8_an_identifier_that_is_too_long_is_refused(v5):
    """[MQTT-3.1.3-9] [MQTT5-3.2.2-6] [MQTT5-3.2.2-7]"""
    async with own_broker(5, max_client_id_bytes=23) as place:
        client = await place.open()
        answer = await client.connect("x" * 24)
        assert (answer.code, answer.session_present) == (0x85, False)
        assert await client.raw() is None
    async with own_broker(4, max_client_id_bytes=23) as place:
        client = await place.open()
        assert (await client.connect("x" * 24)).code == 2
        assert await client.raw() is None


async def test_mqtt_3_1_4_2_mqtt5_3_1_4_3_a_second_connection_ends_the_first(any_level):
    who = name("c")
    first = await any_level.client(who)
    second = await any_level.client(who)
    assert await first.ended() == (0x8E if first.level == 5 else None)
    await second.quiet()


async def test_mqtt5_3_1_4_6_nothing_behind_a_refused_connect_is_processed(v5):
    """[MQTT5-3.14.0-1]"""
    topic = name("t")
    watcher = await v5.subscriber(topic)
    client = await v5.open()
    await client.send(encode(Connect("c", level=5), 5).replace(b"\x04MQTT\x05", b"\x04MQTT\x06"), Publish(topic, b"lost"), PING)
    answer = await client.raw()
    assert answer is None or answer[0] == 0x20
    assert answer is None or await client.raw() is None
    await watcher.quiet()


async def test_mqtt_3_1_0_1_mqtt5_3_1_0_1_packets_may_follow_the_connect_at_once(any_level):
    topic = name("t")
    client = await any_level.open()
    subscribe = Subscribe(1, (Subscription(topic, 0),))
    await client.send(Connect(name("c"), level=client.level), subscribe, Publish(topic, b"early"))
    assert isinstance(await client.next(), ConnAck)
    got = await client.take(2)  # in any order: a message may come before the SUBACK
    assert {type(packet) for packet in got} == {SubAck, Publish}


async def test_mqtt5_3_2_2_9_a_broker_with_a_lower_quality_of_service_says_so(v5):
    """[MQTT5-3.2.2-10] [MQTT5-3.2.2-11] [MQTT5-3.2.2-12]"""
    client = await v5.open()
    assert (await client.connect()).properties.maximum_qos is None
    for highest in (0, 1):
        async with own_broker(5, maximum_qos=highest) as place:
            client = await place.open()
            assert (await client.connect()).properties.maximum_qos == highest
            assert await client.subscribe(name("t"), 2) in {0, 1}
            await client.send(Publish(name("t"), b"x", highest + 1, packet_id=9))
            assert await client.ended() == 0x9B
            refused = await place.open()
            assert (await refused.connect(will=Will("t", b"x", highest + 1))).code == 0x9B
            assert await refused.raw() is None


async def test_mqtt5_3_2_2_13_a_broker_that_retains_nothing_says_so(v5):
    """[MQTT5-3.2.2-14]"""
    client = await v5.open()
    assert (await client.connect()).properties.retain_available is not False
    async with own_broker(5, retained=False) as place:
        client = await place.open()
        assert (await client.connect()).properties.retain_available is False
        await client.send(Publish(name("t"), b"x", retain=True))
        assert await client.ended() == 0x9A
        refused = await place.open()
        assert (await refused.connect(will=Will("t", b"x", retain=True))).code == 0x9A
        assert await refused.raw() is None


async def test_mqtt5_3_1_2_28_response_information_is_given_to_those_who_ask(v5):
    client = await v5.open()
    assert (await client.connect()).properties.response_information is None
    client = await v5.open()
    assert (await client.connect(request_response_information=False)).properties.response_information is None
    client = await v5.open()
    assert (await client.connect(request_response_information=True)).properties.response_information


async def test_mqtt5_3_2_2_8_the_codes_of_a_connack_are_those_of_the_table(v5):
    client = await v5.open()
    answer = await client.connect(authentication_method="no such method")
    assert answer.code in {0x8C, 0x87}
    assert answer.properties.authentication_method is None


async def test_mqtt5_4_12_0_1_an_unknown_authentication_method_is_refused(v5):
    """[MQTT5-4.12.0-4] [MQTT5-3.1.4-2] [MQTT5-3.1.4-6]"""
    topic = name("t")
    watcher = await v5.subscriber(topic)
    client = await v5.open()
    answer = await client.connect(authentication_method="no such method", authentication_data=b"x")
    assert answer.code in {0x8C, 0x87}
    assert not answer.session_present
    assert await client.raw() is None
    await watcher.quiet()


async def test_mqtt5_4_12_0_6_without_a_method_there_is_no_auth_and_no_method_in_the_connack(v5):
    client = await v5.open()
    answer = await client.connect()
    assert answer.properties.authentication_method is None
    assert answer.properties.authentication_data is None
    await client.quiet()


async def test_mqtt5_3_1_2_23_a_session_without_an_expiry_ends_with_its_connection(v5):
    """[MQTT5-4.1.0-2]"""
    topic, who = name("t"), name("c")
    client = await v5.client(who, clean=False)
    await client.subscribe(topic, 1)
    await client.leave()
    again = await v5.open()
    assert not (await again.connect(who, clean=False)).session_present
    publisher = await v5.client()
    await publisher.publish(topic, b"x", 1)
    await again.quiet()


async def test_mqtt_4_1_0_1_mqtt5_4_1_0_1_the_state_is_kept_while_the_connection_is_open(any_level):
    """[MQTT-4.1.0-2]"""
    topic = name("t")
    client = await any_level.subscriber(topic, 1)
    publisher = await any_level.client()
    await publisher.publish(topic, b"x", 1)
    held = await client.message(settle=False)
    await client.quiet()
    await publisher.publish(topic, b"y", 1)
    assert (await client.message()).packet_id != held.packet_id


async def test_mqtt5_4_1_0_2_mqtt5_3_14_2_1_a_session_goes_when_it_has_expired_unless_the_disconnect_says_otherwise(autojump_clock):
    async with own_time(autojump_clock, 5) as v5:
        who, longer, shorter = name("c"), name("c"), name("c")
        client = await v5.lasting(who, expiry_s=1)
        await client.leave()
        again = await v5.open()
        assert (await again.connect(who, clean=False, session_expiry_s=1)).session_present
        await again.leave()
        client = await v5.lasting(longer, expiry_s=1)
        await client.leave(session_expiry_s=60)
        client = await v5.lasting(shorter)
        await client.leave(session_expiry_s=0)
        again = await v5.open()
        assert not (await again.connect(shorter, clean=False)).session_present
        await trio.sleep(1.2)
        for client_id, present in ((who, False), (longer, True)):
            again = await v5.open()
            assert (await again.connect(client_id, clean=False)).session_present == present


async def test_mqtt5_3_2_2_19_mqtt5_3_2_2_20_nothing_makes_a_connack_larger_than_the_client_takes(v5):
    for most in (5, 40, 100):
        client = await v5.open()
        refused = Properties(maximum_packet_size=most, authentication_method="no such method")
        await client.send(Connect(name("c"), level=5, properties=refused))
        answer = await client.raw()
        assert answer is None or (answer[0] == 0x20 and len(answer[1]) + 2 <= most)
