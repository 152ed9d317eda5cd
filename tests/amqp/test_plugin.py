"""The plugin as the host sees it: hooks, settings, addresses, hints."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from gateway_amqp import plugin
from gateway_amqp.settings import AmqpSettings


def test_it_offers_one_front_end_that_writes_its_own_form_of_properties():
    [front_end] = plugin.tidegate_frontends()
    assert front_end.name == "amqp"
    assert set(front_end.wire_decoders) == {"amqp"}


def test_it_listens_on_loopback_unless_it_is_told_otherwise():
    [front_end] = plugin.tidegate_frontends()
    assert list(front_end.addresses(front_end.settings_model())) == ["tcp://127.0.0.1:5672"]
    assert list(front_end.addresses(AmqpSettings(listen="tls://0.0.0.0:5671"))) == ["tls://0.0.0.0:5671"]


@pytest.mark.parametrize(
    ("listener", "hint"),
    [
        ("tcp://127.0.0.1:5672", "amqp-publish -u amqp://guest:guest@127.0.0.1:5672 -e amq.topic -r demo.hello -b world"),
        ("tcp://0.0.0.0:4711", "amqp-publish -u amqp://guest:guest@127.0.0.1:4711 -e amq.topic -r demo.hello -b world"),
        ("tcp://[::1]:5672", "amqp-publish -u amqp://guest:guest@[::1]:5672 -e amq.topic -r demo.hello -b world"),
    ],
)
def test_its_hints_lead_to_where_it_listens(listener, hint):
    [front_end] = plugin.tidegate_frontends()
    assert front_end.hints(["tls://127.0.0.1:5671", listener]) == (hint,)
    assert not front_end.hints(["tls://127.0.0.1:5671"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"unknown": 1},
        {"listen": []},
        {"listen": "127.0.0.1:5672"},
        {"listen": "ws://127.0.0.1:5672"},
        {"frame_max": 4_095},
        {"channel_max": 0},
        {"channel_max": 65_536},
        {"heartbeat_s": -1},
        {"heartbeat_s": "9"},
        {"connect_timeout_s": 0},
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        AmqpSettings(**wrong)


def test_every_setting_says_what_it_is():
    assert all(field.description for field in AmqpSettings.model_fields.values())
