"""Does the systemd unit agree with the program?"""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from gateway.app import Exit
from gateway.cli.commands import app
from gateway.config import Limits

UNIT = Path(__file__).parents[2] / "conf/tidegate.service"


@pytest.fixture
def service() -> dict[str, str]:
    unit = ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str
    unit.read(UNIT)
    return dict(unit["Service"])


def test_it_starts_the_program_with_options_that_it_has(service):
    program, verb, *arguments = service["ExecStart"].split()
    assert Path(program).name == "tidegate"
    options = {option for parameter in typer.main.get_group(app).commands[verb].params for option in parameter.opts}
    assert {argument for argument in arguments if argument.startswith("--")} <= options
    assert CliRunner().invoke(app, [verb, "--help"]).exit_code == 0


def test_it_does_not_restart_what_can_not_get_better_by_itself(service):
    lasting = {str(code.value) for code in Exit} - {str(Exit.CLEAN.value), str(Exit.FAILED.value)}
    assert set(service["RestartPreventExitStatus"].split()) == lasting


def test_it_leaves_time_to_drain_and_files_for_all_connections(service):
    assert int(service["TimeoutStopSec"]) > Limits().drain_timeout_s
    assert int(service["LimitNOFILE"]) > Limits().max_connections


def test_only_the_service_reads_its_data(service):
    assert service["StateDirectoryMode"] == "0700"
    assert f"--data-dir /var/lib/{service['StateDirectory']}" in service["ExecStart"]
