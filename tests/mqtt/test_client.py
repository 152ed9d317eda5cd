"""The small client behind `tidegate pub` and `tidegate sub`."""

from __future__ import annotations

import pytest
import trio

from gateway_mqtt.client import WINDOW, Lost, Place, Refused, open_client
from gateway_mqtt.codec.packets import Connect, Publish, Subscription
from tests.mqtt.support import mqtt_broker, until


async def test_messages_that_are_not_acknowledged_come_again():
    async with mqtt_broker() as bench:
        persistent = Connect("p", clean=False)
        async with open_client(Place(port=bench.port), persistent) as client:
            assert not client.session_present
            assert await client.subscribe([Subscription("a/#", 1)]) == b"\1"
            for n in range(3):
                await client.publish(f"a/{n}", b"%d" % n, qos=1)
            await client.confirmed()
            message = await client.messages.receive()
            await client.acknowledge(message)
        await bench.gone("p")
        async with open_client(Place(port=bench.port), persistent) as client:
            assert client.session_present
            again = [await client.messages.receive() for _ in range(2)]
            assert [(m.payload, m.dup) for m in again] == [(b"1", True), (b"2", True)]


async def test_more_than_a_window_of_publishes_is_confirmed():
    async with mqtt_broker() as bench, open_client(Place(port=bench.port), Connect("c")) as client:
        for _ in range(3 * WINDOW):
            await client.publish("a", b"x", qos=1)
        await client.confirmed()


async def test_publishing_waits_while_a_window_is_unconfirmed():
    async with mqtt_broker() as bench, open_client(Place(port=bench.port), Connect("c")) as client:
        away = await bench.client("away", clean=False)
        await away.subscribe("a", qos=1)
        await away.leave()
        bench.journal.automatic = False
        sent = []

        async def publish_all():
            for n in range(WINDOW + 1):
                await client.publish("a", b"%d" % n, qos=1)
                sent.append(n)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish_all)
            await until(lambda: bench.journal.writes)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert len(sent) == WINDOW
            bench.journal.automatic = True
            bench.journal.finish()
        await client.confirmed()


async def test_a_broker_that_closes_before_the_puback_is_told_as_lost_with_what_is_not_confirmed():
    async with mqtt_broker(session_max_messages=1) as bench:
        away = await bench.client("away", clean=False)
        await away.subscribe("a", qos=1)
        await away.leave()
        with pytest.raises(Lost, match="1 messages are not confirmed"):  # noqa: PT012 - leaving the client is part of it
            async with open_client(Place(port=bench.port), Connect("c")) as client:
                await client.publish("a", b"1", qos=1)
                await client.publish("a", b"2", qos=1)
                await client.confirmed()


async def test_a_refusal_says_why():
    async with mqtt_broker() as bench:
        with pytest.raises(Refused, match="identifier not acceptable") as refusal:
            async with open_client(Place(port=bench.port), Connect("", clean=False)):
                pass
        assert refusal.value.code == 2


async def test_a_taken_over_client_hears_of_its_end():
    async with mqtt_broker() as bench, open_client(Place(port=bench.port), Connect("same")) as client:
        await bench.client("same")
        with pytest.raises(trio.EndOfChannel):
            await client.messages.receive()
        assert client.lost == "closed by the broker"
        with pytest.raises(Lost):
            await client.subscribe([Subscription("a", 0)])


async def test_it_keeps_itself_alive(autojump_clock):
    autojump_clock.autojump_threshold = 0.002
    async with mqtt_broker() as bench, open_client(Place(port=bench.port), Connect("c", keep_alive_s=4)) as client:
        await client.subscribe([Subscription("a", 0)])
        await trio.sleep(60)
        publisher = await bench.client(keep_alive_s=0)
        await publisher.publish("a", b"x")
        assert await client.messages.receive() == Publish("a", b"x")


async def test_what_speaks_no_mqtt_is_told_so():
    from gateway_mqtt.codec.packets import MalformedPacket

    async def greet(stream):
        await stream.send_all(b"220 mail.example\r\n")

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, greet, [listener])
        port = listener.socket.getsockname()[1]
        with pytest.raises((MalformedPacket, Lost)):
            async with open_client(Place(port=port), Connect("c")):
                pass
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("level", [3, 4, 5])
async def test_every_version_and_quality_of_service_goes_both_ways(level):
    async with mqtt_broker() as bench, open_client(Place(port=bench.port), Connect("c", level=level)) as client:
        assert await client.subscribe([Subscription("a", 2)]) == b"\2"
        for qos in (0, 1, 2):
            await client.publish("a", b"%d" % qos, qos=qos)
            message = await client.messages.receive()
            assert (message.payload, message.qos) == (b"%d" % qos, qos)
            await client.acknowledge(message)
        await client.confirmed()
        await client.unsubscribe(["a"])
        await client.publish("a", b"nobody", qos=1)
        await client.confirmed()
        assert client.refused == []
