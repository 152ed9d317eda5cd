"""Is docs/zeromq-pong.md true?"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from gateway_zeromq.endpoints.pong.endpoint import DRAIN_S
from gateway_zeromq.endpoints.pong.links import FIRST_WAIT_S, LONGEST_WAIT_S
from gateway_zeromq.endpoints.pong.vigil import DEAD_AFTER, HANDSHAKE_S
from gateway_zeromq.settings import PushEndpoint, ZeroMqSettings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "zeromq-pong.md").read_text(encoding="utf-8")
CONFIGURATIONS = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_its_configurations_are_valid(configuration):
    (endpoint,) = ZeroMqSettings.model_validate(tomllib.loads(configuration)["frontend"]["zeromq"]).endpoint
    assert endpoint.ack == "pong"


def test_its_settings_and_times_are_those_of_the_code():
    for name in re.findall(r"`(window|ping_every|worker_rcvhwm|heartbeat_ms|pong_timeout_ms|older_peers|ipc_mode)\b", PAGE):
        assert name in PushEndpoint.model_fields
    assert PushEndpoint.model_fields["pong_timeout_ms"].default == 600_000
    assert "(10 minutes)" in PAGE
    assert '`older_peers = "handover"`' in PAGE
    assert PushEndpoint.model_fields["older_peers"].default == "handover"
    assert f"within {HANDSHAKE_S:g} seconds" in PAGE
    assert f"up to {DRAIN_S:g} seconds for PONGs" in PAGE
    assert f"after {FIRST_WAIT_S:g} s, then after twice as long each time, up to {LONGEST_WAIT_S:g} s" in PAGE
    assert DEAD_AFTER == 3
    assert "dead after three times as long" in PAGE


def test_its_counters_are_counted():
    source = (ROOT / "plugins" / "gateway_zeromq" / "endpoints" / "pong" / "endpoint.py").read_text(encoding="utf-8")
    for name in re.findall(r"`zeromq\.(\w+)`", PAGE):
        assert f'count("{name}"' in source
