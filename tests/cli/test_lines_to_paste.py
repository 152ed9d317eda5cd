"""Do the lines that are printed at the start do what they say, on this machine?"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gateway.shell import own_command, own_python
from gateway_mqtt.plugin import MqttFrontEnd
from gateway_zeromq.plugin import ZeroMqFrontEnd


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A Python of its own in a directory whose name has to be quoted, that nothing is on the path of."""
    directory = tmp_path / "my bin"
    directory.mkdir()
    for name in ("python", "tidegate"):
        (directory / name).write_text("#!/bin/sh\n")
        (directory / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(directory / "python"))
    monkeypatch.setattr(sys, "argv", ["-m"])
    monkeypatch.setenv("PATH", str(tmp_path))
    return directory


def test_what_is_on_the_path_needs_no_path(installed, monkeypatch):
    monkeypatch.setenv("PATH", str(installed))
    assert (own_command(), own_python()) == ("tidegate", "python")


def test_what_is_not_on_the_path_is_named_with_its_own(installed):
    assert (own_command(), own_python()) == (f"'{installed}/tidegate'", f"'{installed}/python'")


def test_another_program_of_that_name_on_the_path_is_not_taken_for_this_one(installed, tmp_path):
    for name in ("python", "tidegate"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    assert (own_command(), own_python()) == (f"'{installed}/tidegate'", f"'{installed}/python'")


def test_without_the_program_the_module_is_named(installed):
    Path(installed, "tidegate").unlink()
    assert own_command() == f"'{installed}/python' -m gateway"


@pytest.mark.parametrize(("listener", "near"), [("0.0.0.0", "127.0.0.1"), ("[::]", "::1")])
def test_a_listener_on_every_interface_is_reached_on_loopback(listener, near):
    assert all(f"-h {near} -p 5" in line for line in MqttFrontEnd().hints([f"tcp://{listener}:5"]))
    lines = ZeroMqFrontEnd().hints([f"PUSH tcp://{listener}:6", f"ROUTER tcp://{listener}:7"])
    assert len(lines) == 2
    assert all(near in line and listener not in line for line in lines)
