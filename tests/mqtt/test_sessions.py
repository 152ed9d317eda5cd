"""What outlives a connection, what does not, and who may have which client identifier."""

from __future__ import annotations

import os
import socket

import pytest
import trio

from gateway.api import AccessRefused, Principal, QueueSpec
from gateway.errors import JournalError
from gateway_mqtt.codec.coding import encode
from gateway_mqtt.codec.names import MQTT_311
from gateway_mqtt.codec.packets import PUBACK, Ack, ConnAck, Connect, Disconnect, Publish, Will
from tests.mqtt.support import mqtt_broker, until


async def test_a_clean_session_leaves_nothing_behind_mqtt_3_1_2_6():
    async with mqtt_broker() as bench:
        client = await bench.client("c")
        await client.subscribe("a", qos=1)
        await client.leave()
        await bench.gone("c")
        assert bench.queue("c") is None
        assert not await (await bench.open()).connect("c", clean=False)


async def test_a_persistent_session_keeps_subscriptions_and_messages_of_qos_1_only_mqtt_3_1_2_4_mqtt_3_1_2_5():
    async with mqtt_broker() as bench:
        client = await bench.client("p", clean=False)
        await client.subscribe("a", qos=1)
        await client.subscribe("b", qos=0)
        await client.leave()
        publisher = await bench.client()
        for n in range(3):
            await publisher.publish("a", b"%d" % n, qos=1)
            await publisher.publish("a", b"low", qos=0)
            await publisher.publish("b", b"low", qos=1)
        again = await bench.open()
        assert await again.connect("p", clean=False)  # [MQTT-3.2.2-2]
        got = await again.take(3)
        assert [packet.payload for packet in got] == [b"0", b"1", b"2"]
        await again.ping()


async def test_a_clean_connect_ends_the_persistent_session_of_that_client_mqtt_3_2_2_1():
    async with mqtt_broker() as bench:
        client = await bench.client("p", clean=False)
        await client.subscribe("a", qos=1)
        await client.leave()
        publisher = await bench.client()
        await publisher.publish("a", b"x", qos=1)
        assert not await (await bench.open()).connect("p", clean=True)
        assert bench.queue("p") is None
        again = await bench.open()
        assert not await again.connect("p", clean=False)
        await publisher.publish("a", b"y", qos=1)
        await again.ping()


async def test_unacknowledged_messages_come_again_in_order_with_dup_and_their_identifiers_mqtt_4_4_0_1_mqtt_3_3_1_1():
    async with mqtt_broker() as bench:
        client = await bench.client("p", clean=False)
        await client.subscribe("a", qos=1)
        publisher = await bench.client()
        for n in range(5):
            await publisher.publish("a", b"%d" % n, qos=1)
        first = await client.take(5)
        assert not any(packet.dup for packet in first)
        await client.send(Ack(PUBACK, first[1].packet_id), Ack(PUBACK, first[3].packet_id))
        await client.ping()
        await client.vanish()
        await bench.gone("p")
        await publisher.publish("a", b"5", qos=1)
        again = await bench.client("p", clean=False)
        second = await again.take(4)
        unacked = [first[0], first[2], first[4]]
        assert [(p.payload, p.packet_id, p.dup) for p in second[:3]] == [(p.payload, p.packet_id, True) for p in unacked]
        assert (second[3].payload, second[3].dup) == (b"5", False)
        assert second[3].packet_id not in {p.packet_id for p in unacked}


async def test_what_is_acknowledged_is_gone_and_no_more_than_the_window_is_sent():
    async with mqtt_broker(max_inflight=3) as bench:
        client = await bench.client("p", clean=False)
        await client.subscribe("a", qos=1)
        publisher = await bench.client()
        for n in range(10):
            await publisher.publish("a", b"%d" % n, qos=1)
        seen = []
        for n in range(10):
            seen.append(await client.next())
            if n >= 2:
                await client.ping()  # no more than three are under way
                await client.send(Ack(PUBACK, seen[n - 2].packet_id))
        assert [packet.payload for packet in seen] == [b"%d" % n for n in range(10)]
        await client.send(Ack(PUBACK, seen[8].packet_id), Ack(PUBACK, seen[9].packet_id))
        await client.ping()
        assert bench.queue("p").count == 0


async def test_a_second_connect_with_the_same_identifier_ends_the_first_and_publishes_its_will_mqtt_3_1_4_2():
    async with mqtt_broker() as bench:
        watcher = await bench.client()
        await watcher.subscribe("lost")
        first = await bench.client("same", will=Will("lost", b"first"))
        second = await bench.client("same")
        assert await first.next() is None
        assert await watcher.next() == Publish("lost", b"first")
        await second.subscribe("x")
        await second.ping()
        assert bench.counted("mqtt.takeovers") == 1


async def test_what_a_client_said_before_it_came_again_counts_mqtt_3_14_4_3():
    async with mqtt_broker() as bench:
        watcher = await bench.client()
        await watcher.subscribe("#")
        (listeners,) = bench.broker.listeners
        for n in range(10):
            first = await bench.client("same", will=Will("lost", b"will"))
            # All of it is there before the broker looks; then the newcomer is read from first.
            os.write(first.stream.socket.fileno(), encode(Publish("said", b"%d" % n), MQTT_311) + encode(Disconnect(), MQTT_311))
            with socket.create_connection(first.stream.socket.getpeername()) as again:
                again.send(encode(Connect("same"), MQTT_311))
                for door in list(getattr(listeners.way, "_doors", {}).values()):
                    door.let_in()
                assert await watcher.next() == Publish("said", b"%d" % n)
                await trio.lowlevel.wait_readable(again)
                assert again.recv(4) == encode(ConnAck(False, 0), MQTT_311)
            await first.stream.aclose()


@pytest.mark.parametrize("clean", [(False, False), (False, True), (True, False), (True, True)])
async def test_a_takeover_continues_a_persistent_session_only_mqtt_3_1_4_3(clean):
    async with mqtt_broker() as bench:
        first = await bench.client("same", clean=clean[0])
        await first.subscribe("a", qos=1)
        publisher = await bench.client()
        await publisher.publish("a", b"x", qos=1)
        sent = await first.next()
        second = await bench.open()
        present = await second.connect("same", clean=clean[1])
        assert present == (clean == (False, False))
        if present:
            assert await second.next() == Publish("a", b"x", 1, dup=True, packet_id=sent.packet_id)
        await second.ping()
        assert await first.next() is None


async def test_ten_connects_at_once_with_the_same_identifier_leave_one_connection():
    async with mqtt_broker() as bench:
        peers = [await bench.open() for _ in range(10)]
        for peer in peers:
            await peer.send(Connect("same", clean=False))
        closed = []

        async def follow(peer):
            while await peer.next() is not None:
                pass
            closed.append(peer)

        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(follow, peer)
            await until(lambda: len(closed) == 9)
            nursery.cancel_scope.cancel()
        (left,) = set(peers) - set(closed)
        await left.ping()


async def test_a_takeover_while_the_first_is_being_set_up_leaves_one_connection():
    async with mqtt_broker() as bench:
        bench.journal.automatic = False
        first, second = await bench.open(), await bench.open()
        await first.send(Connect("same", clean=False))
        await until(lambda: bench.journal.writes)
        await second.send(Connect("same", clean=False))
        assert await first.next() is None
        bench.journal.automatic = True
        bench.journal.finish()
        answer = await second.next()
        assert answer.code == 0
        await second.ping()


async def test_clients_without_an_identifier_are_assigned_different_ones_mqtt_3_1_3_6():
    async with mqtt_broker() as bench:
        first, second = await bench.client(""), await bench.client("")
        await first.ping()
        await second.ping()


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("retain", [False, True])
async def test_a_will_is_published_with_its_qos_and_retained_if_it_says_so_mqtt_3_1_2_16_mqtt_3_1_2_17(qos, retain):
    async with mqtt_broker() as bench:
        watcher = await bench.client()
        await watcher.subscribe("lost", qos=1)
        client = await bench.client("c", will=Will("lost", b"gone", qos, retain))
        await client.vanish()
        assert await watcher.next() == Publish("lost", b"gone", min(qos, 1), packet_id=min(qos, 1))
        late = await bench.client()
        await late.subscribe("lost", qos=1)
        if retain:
            assert await late.next() == Publish("lost", b"gone", min(qos, 1), retain=True, packet_id=min(qos, 1))
        await late.ping()


async def test_the_will_of_a_client_that_says_goodbye_is_forgotten_mqtt_3_1_2_10():
    async with mqtt_broker() as bench:
        watcher = await bench.client()
        await watcher.subscribe("lost")
        client = await bench.client("c", will=Will("lost", b"gone"))
        await client.leave()
        await bench.gone("c")
        await watcher.ping()


async def test_a_will_to_where_the_client_may_not_publish_refuses_the_connect():
    async with mqtt_broker() as bench:

        async def guarded(credentials):
            return Principal("guest", authorize=lambda action, resource, key: not (action == "write" and key == "secret"))

        bench.broker.authenticate = guarded
        peer = await bench.open()
        await peer.send(Connect("c", will=Will("secret", b"x")))
        assert (await peer.next()).code == 5
        assert await peer.next() is None
        allowed = await bench.client("c", will=Will("open", b"x"))
        await allowed.send(Publish("secret", b"x"))
        assert await allowed.next() is None  # [MQTT-3.3.5-2]
        assert bench.logged("protocol violation") == 1


async def test_a_subscription_that_is_not_allowed_gets_0x80():
    async with mqtt_broker() as bench:

        async def guarded(credentials):
            return Principal("guest", authorize=lambda action, resource, key: "secret" not in key)

        bench.broker.authenticate = guarded
        client = await bench.client("c")
        assert await client.subscribe("secret/#", "open") == b"\x80\0"
        assert bench.logged("subscriptions were refused") == 1


@pytest.mark.parametrize(("user", "code"), [("eve", 4), (None, 5)])
async def test_who_is_not_let_in_is_told_and_closed(user, code):
    async with mqtt_broker() as bench:

        async def closed(credentials):
            raise AccessRefused("no")

        bench.broker.authenticate = closed
        peer = await bench.open()
        await peer.send(Connect("c", user=user, password=b"pw" if user else None))
        assert (await peer.next()).code == code
        assert await peer.next() is None


async def test_a_session_whose_queue_is_deleted_under_it_closes_the_connection():
    async with mqtt_broker() as bench:
        client = await bench.client("p", clean=False)
        await client.subscribe("a", qos=1)
        publisher = await bench.client()
        await publisher.publish("a", b"x", qos=1)
        sent = await client.next()
        channel = bench.broker.gateway("other", print, bench.log).open_channel(Principal("admin"))
        await channel.outcome(channel.delete_queue("mqtt.session.p"))
        await client.send(Ack(PUBACK, sent.packet_id))
        assert await client.next() is None
        assert not await (await bench.open()).connect("p", clean=False)


async def test_a_name_that_another_protocol_took_refuses_the_session_with_3():
    async with mqtt_broker() as bench:
        channel = bench.broker.gateway("other", print, bench.log).open_channel(Principal("admin"))
        await channel.outcome(channel.declare_queue(QueueSpec("mqtt.session.taken", durable=False, exclusive=True)))
        peer = await bench.open()
        await peer.send(Connect("taken"))
        assert (await peer.next()).code == 3
        assert await peer.next() is None


async def test_hundreds_of_connects_leave_nothing_behind():
    async with mqtt_broker() as bench:
        before = len(bench.broker.engine.holdings)
        for n in range(50):
            peers = [await bench.client(f"c{n}-{k}", clean=k % 2 == 0) for k in range(4)]
            for peer in peers:
                await peer.subscribe("a")
                await peer.leave()
            for k in (1, 3):
                await (await bench.client(f"c{n}-{k}")).leave()
        await until(lambda: not bench.broker.listeners[0].connections)
        assert len(bench.broker.engine.holdings) == before
        assert not bench.broker.engine.vhost("/").queues


async def test_a_session_that_a_failing_journal_does_not_keep_is_not_called_present_mqtt_3_2_2_2():
    async with mqtt_broker(limits={"refuse_after_ms": 0}) as bench:
        on_disk = await bench.client("kept", clean=False)
        await on_disk.leave()
        bench.journal.automatic = False
        first = await bench.open()
        await first.send(Connect("lost", False))
        await until(lambda: bench.journal.writes)
        bench.journal.finish(JournalError("disk full"))
        assert await first.next() == ConnAck(False, 3)
        assert await (await bench.open()).connect("kept", clean=False)
        again = await bench.open()
        await again.send(Connect("lost", False))
        assert await again.next() == ConnAck(False, 3)
        bench.journal.automatic = True
        await until(lambda: bench.journal.writes or bench.broker.engine.refusal is None)
        if bench.journal.writes:
            bench.journal.finish()
        await until(lambda: bench.broker.engine.refusal is None)
        await (await bench.open()).connect("lost", clean=False)
