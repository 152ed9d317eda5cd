"""Is docs/zeromq.md true?"""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from gateway_zeromq.settings import ZeroMqSettings
from tests.docs.pages import read
from tests.live_broker import TIDEGATE, LiveBroker

ROOT = Path(__file__).parents[2]
PAGE, block = read("docs/zeromq.md")
CONFIGURATIONS = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
DEFAULTS = {endpoint.socket: endpoint for endpoint in ZeroMqSettings().endpoint}


def endpoints(configuration):
    return ZeroMqSettings.model_validate(tomllib.loads(configuration)["frontend"]["zeromq"]).endpoint


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_its_configurations_are_valid(configuration):
    assert endpoints(configuration)


def test_there_is_an_example_of_every_kind():
    kinds = {endpoint.socket for configuration in CONFIGURATIONS for endpoint in endpoints(configuration)}
    assert kinds == {"PULL", "PUSH", "XPUB", "PUB", "SUB", "XSUB", "DEALER", "REP"}
    assert set(re.findall(r"^\| (\w+) \| `tcp:", PAGE, re.MULTILINE)) == set(DEFAULTS)
    for kind, address in re.findall(r"^\| (\w+) \| `(tcp:[^`]+)` \|", PAGE, re.MULTILINE):
        assert DEFAULTS[kind].bind == [address]


def test_every_counter_that_it_names_is_counted_somewhere():
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "plugins" / "gateway_zeromq").rglob("*.py"))
    named = set(re.findall(r"`(?:zeromq\.)?((?:dropped|requeued)\.[a-z ]+|timeouts)`", PAGE)) - {"dropped.maxlen"}
    assert len(named) > 12
    for name in sorted(named):
        reason = name.partition(".")[2] or name
        assert f'"{reason}"' in source or f'"{reason} ' in source or f'f"{reason}' in source, name


def test_the_limits_that_it_names_are_settings_with_those_defaults():
    models = {type(one) for configuration in CONFIGURATIONS for one in endpoints(configuration)}
    _, _, limits = PAGE.partition("\n## Limits\n")
    rows = re.findall(r"^\| `(\w+)`[^|]* \| ([\d,]+)([^|]*)\|", limits.partition("\n## ")[0], re.MULTILINE)
    assert len(rows) == 8
    for name, default, unit in rows:
        expected = int(default.strip(",").replace(",", "")) * {" MiB ": 1024 * 1024, " s ": 1_000}.get(unit, 1)
        assert expected in [model.model_fields[name].default for model in models if name in model.model_fields], name


def moved(text, broker, **ports):
    """Return a program of the page that looks for the broker where it is."""
    for kind, port in ports.items():
        assert f"tcp://127.0.0.1:{port}" in text
        text = text.replace(f"tcp://127.0.0.1:{port}", broker.addresses[kind])
    return text


def test_a_subscriber_prints_the_retained_value_and_what_comes_then(tmp_path, running):
    (command,) = re.findall(r"`tidegate (pub -r [^`]+)` it prints `([^`]+)`", PAGE)
    arguments, printed = command
    with LiveBroker(tmp_path) as broker:
        host, port = broker.where("mqtt")

        def say():
            subprocess.run([TIDEGATE, *arguments.split(), "-h", host, "-p", str(port)], check=True, timeout=30)

        say()
        subscriber = running(moved(block("subscriber"), broker, XPUB=5559))
        assert subscriber.stdout.readline() == f"{printed}\n"
        say()
        assert subscriber.stdout.readline() == f"{printed}\n"


def test_a_client_gets_its_sum_from_a_worker(tmp_path, running):
    chosen = [text for text in CONFIGURATIONS if '"DEALER"' in text or '"REP"' in text]
    with LiveBroker(tmp_path, "[frontend.mqtt]\nenabled = false\n\n" + "\n".join(chosen)) as broker:
        client = running(moved(block("client"), broker, REP=5572))
        running(moved(block("worker"), broker, DEALER=5571))
        assert client.stdout.readline() == "42\n"
