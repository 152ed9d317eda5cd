"""What do the tests of the command line share? The program as its users have it, in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

TIDEGATE = str(Path(sys.executable).with_name("tidegate"))
LONGEST_S = 100


class Program:
    """One run of ``tidegate``; standard output line by line, standard error in a file."""

    def __init__(self, directory: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self._gives_up = threading.Timer(LONGEST_S, self._give_up)
        self._errors = directory / f"errors-{len(list(directory.glob('errors-*')))}"
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [TIDEGATE, *arguments],
                cwd=directory,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | (environment or {}),
            )

        self._gives_up.start()

    def _give_up(self) -> None:
        """A test that waits for a line that never comes goes on when the program ends."""
        self.process.kill()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def errors(self) -> str:
        return self._errors.read_text(encoding="utf-8")

    def lines_until(self, last: str) -> list[str]:
        """Return what it says on standard output, up to this line; fails if it ends before."""
        lines = []
        for line in self.process.stdout:
            lines.append(line.rstrip("\n"))
            if lines[-1] == last:
                return lines
        raise AssertionError(f"it ended with {self.process.wait()} before it said {last!r}: {lines}\n{self.errors}")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ends(self) -> int:
        """Wait for its end; return its exit code."""
        return self.process.wait(LONGEST_S)

    def close(self) -> None:
        self._gives_up.cancel()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def without_amqp(arguments: Sequence[object]) -> list[str]:
    """Return arguments with which a broker leaves AMQP's port alone, unless they say something of it: many run at once."""
    told = list(map(str, arguments))
    if told[:1] == ["serve"] and not any("frontend.amqp" in argument for argument in told):
        told += ["--set", "frontend.amqp.enabled=false"]
    return told


@pytest.fixture
def tidegate(tmp_path):
    """Start the program in an empty directory."""
    programs: list[Program] = []

    def _tidegate(*arguments: object, environment: dict[str, str] | None = None) -> Program:
        programs.append(Program(tmp_path, *without_amqp(arguments), environment=environment))
        return programs[-1]

    yield _tidegate
    for program in programs:
        program.close()


@pytest.fixture
def said(tidegate):
    """Run the program to its end; return exit code, standard output, standard error."""

    def _said(*arguments: object, environment: dict[str, str] | None = None) -> tuple[int, str, str]:
        program = tidegate(*arguments, environment=environment)
        output = program.process.stdout.read()
        return program.ends(), output, program.errors

    return _said


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """Run a command that is refused, in this process, in an empty directory; return exit code, standard output, standard error.

    Where the process is not the point: starting one takes most of a second.
    """
    from gateway.cli.commands import app

    def _refused(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        result = CliRunner().invoke(app, without_amqp(arguments), prog_name="tidegate")
        return result.exit_code, result.stdout, result.stderr

    return _refused
