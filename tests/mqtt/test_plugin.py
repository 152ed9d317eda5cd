"""The plugin as the host sees it: hooks, settings, addresses, hints."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from gateway.errors import ListenError
from gateway_mqtt import plugin
from gateway_mqtt.settings import MqttSettings
from tests.mqtt.support import mqtt_broker


def test_it_offers_one_front_end_and_the_verbs_pub_and_sub():
    [front_end] = plugin.tidegate_frontends()
    assert front_end.name == "mqtt"
    [application] = plugin.tidegate_commands()
    assert [command.callback.__name__ for command in application.registered_commands] == ["pub", "sub"]


def test_it_listens_on_loopback_unless_it_is_told_otherwise():
    [front_end] = plugin.tidegate_frontends()
    assert list(front_end.addresses(front_end.settings_model())) == ["tcp://127.0.0.1:1883"]


@pytest.mark.parametrize(
    ("listener", "hint"),
    [
        ("tcp://127.0.0.1:1883", "tidegate sub 'demo/#' -v"),
        ("tcp://127.0.0.1:4711", "tidegate sub -h 127.0.0.1 -p 4711 'demo/#' -v"),
        ("tcp://[::1]:1883", "tidegate sub -h ::1 -p 1883 'demo/#' -v"),
    ],
)
def test_its_hints_lead_to_where_it_listens(listener, hint):
    [front_end] = plugin.tidegate_frontends()
    assert front_end.hints([listener])[0] == hint
    assert not front_end.hints([])


@pytest.mark.parametrize(
    "wrong",
    [
        {"unknown": 1},
        {"listen": []},
        {"max_inflight": 0},
        {"max_packet_bytes": 10},
        {"session_overflow": "drop"},
        {"max_inflight": "9"},
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        MqttSettings(**wrong)


def test_every_setting_says_what_it_is():
    assert all(field.description for field in MqttSettings.model_fields.values())


async def test_a_taken_port_is_told_before_it_is_ready():
    async with mqtt_broker() as bench:
        with pytest.raises(ExceptionGroup) as failure:
            async with mqtt_broker(listen=[f"tcp://127.0.0.1:{bench.port}"]):
                pass
        assert failure.group_contains(ListenError, match="frontend.mqtt.listen")


async def test_draining_ends_every_connection_and_publishes_their_wills():
    from gateway_mqtt.codec.packets import PUBACK, Ack, Publish, Will

    async with mqtt_broker() as bench:
        keeper = await bench.client("keeper", clean=False)
        await keeper.subscribe("lost", qos=1)
        await keeper.leave()
        peer = await bench.client(will=Will("lost", b"x", 1))
        await peer.send(Publish("t", b"x", 1, packet_id=1))
        assert await peer.next() == Ack(PUBACK, 1)
        bench.broker.start_draining()
        assert await peer.next() is None
        await peer.stream.aclose()
        await bench.stopped.wait()
        await bench.broker.stop()
        assert b"x" in bench.journal.stored
