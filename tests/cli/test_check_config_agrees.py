"""Does `tidegate check-config` refuse every configuration that `tidegate serve` refuses as wrong?"""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from gateway.cli.commands import app

NO_ZEROMQ = "[frontend.zeromq]\nenabled = false\n"
PUSH = '[[frontend.zeromq.endpoint]]\nsocket = "PUSH"\nbind = "tcp://127.0.0.1:0"\nqueue = "q"\n'
NO_MQTT = "[frontend.mqtt]\nenabled = false\n"

CASES = {
    "a scheme that is not there": '[frontend.mqtt]\nlisten = ["tls://127.0.0.1:0"]\n' + NO_ZEROMQ,
    "no port": '[frontend.mqtt]\nlisten = "tcp://127.0.0.1"\n' + NO_ZEROMQ,
    "a port that can't be": '[frontend.mqtt]\nlisten = "tcp://127.0.0.1:99999"\n' + NO_ZEROMQ,
    "one address twice": '[frontend.mqtt]\nlisten = ["tcp://127.0.0.1:1883", "tcp://127.0.0.1:1883"]\n' + NO_ZEROMQ,
    "one address in two front-ends": '[frontend.mqtt]\nlisten = "tcp://127.0.0.1:5558"\n',
    "a reserved name of a queue": NO_MQTT + PUSH.replace('"q"', '"amq.q"'),
    "a reserved name of an exchange": NO_MQTT + PUSH + 'bindings = [{ exchange = "amq.x" }]\n',
    "a binding to the exchange without a name": NO_MQTT + PUSH + 'bindings = [{ exchange = "" }]\n',
    "a type for the exchange without a name": NO_MQTT
    + '[[frontend.zeromq.endpoint]]\nsocket = "PULL"\nbind = "tcp://127.0.0.1:0"\nexchange = ""\nexchange_type = "direct"\n',
    "a data directory without a name": '[broker]\ndata_dir = ""\n',
    "endpoints that can let nobody in": "[security]\nanonymous = false\n" + NO_MQTT + PUSH,
    "an unknown queue argument": NO_MQTT + PUSH + 'queue_arguments = { "x-max-lenght" = 5 }\n',
}


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in CASES.items()])
def test_a_configuration_that_serve_refuses_is_no_good(tmp_path, monkeypatch, text):
    (tmp_path / "c.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    served = CliRunner().invoke(app, ["serve", "--config", "c.toml"])
    assert (served.exit_code, served.stdout) == (2, ""), "nothing listens before the refusal"
    checked = CliRunner().invoke(app, ["check-config", str(tmp_path / "c.toml")])
    assert (checked.exit_code, checked.stderr.count("\n")) == (2, 1)
