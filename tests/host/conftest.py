"""What do the tests of the host share? Plugins as they are installed, and a broker that gives out views."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from textwrap import dedent, indent

import pytest
import trio

from gateway.api import ENTRY_POINT_GROUP

PREFIX = """
import trio
from pydantic import BaseModel
from gateway.api import ConfigError, ListenError, hookimpl, hookspec

class Settings(BaseModel):
    listen: list[str] = ["tcp://127.0.0.1:7000"]

class Toy:
    name = "toy"
    settings_model = Settings

    def addresses(self, settings):
        return settings.listen

    def hints(self, listeners):
        return [f"nc {line}" for line in listeners]

    async def serve(self, gateway, settings, *, task_status):
        for address in settings.listen:
            gateway.announce(address)
        task_status.started()
        await gateway.draining()

@hookimpl
def tidegate_frontends():
    return [Toy()]
"""


class RecordingLog:
    def __init__(self, lines=None, values=None):
        self.lines = lines if lines is not None else []
        self.values = values or {}

    def bind(self, **values):
        return RecordingLog(self.lines, self.values | values)

    def _note(self, level, event, values):
        self.lines.append((level, event, self.values | values))

    def info(self, event, **values):
        self._note("info", event, values)

    def warning(self, event, **values):
        self._note("warning", event, values)

    def error(self, event, **values):
        self._note("error", event, values)

    def errors(self):
        return [values for level, _, values in self.lines if level == "error"]


class View:
    def __init__(self, broker, announce, log):
        self._broker = broker
        self.announce = announce
        self.log = log

    async def draining(self):
        await self._broker.draining.wait()


class Broker:
    """Stands for the broker: the host asks it for views only."""

    def __init__(self):
        self.draining = trio.Event()
        self.views = {}

    def gateway(self, front_end: str, announce: Callable[[str], None], log, *, transport) -> View:
        self.views[front_end] = View(self, announce, log)
        return self.views[front_end]


@pytest.fixture
def log():
    return RecordingLog()


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution with one plugin, as pip would; return the entry points of all that were installed."""
    monkeypatch.syspath_prepend(tmp_path)
    modules: list[str] = []

    def _install(name: str, code: str = "", *, version: str = "1.0") -> list[EntryPoint]:
        module = f"tidegate_test_{name}"
        modules.append(module)
        (tmp_path / f"{module}.py").write_text(PREFIX + dedent(code), encoding="utf-8")
        info = tmp_path / f"dist_{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: dist-{name}\nVersion: {version}\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\n{name} = {module}\n", encoding="utf-8")
        return installed(tmp_path)

    yield _install
    for module in modules:
        sys.modules.pop(module, None)


def installed(path: Path) -> list[EntryPoint]:
    points = [point for found in distributions(path=[str(path)]) for point in found.entry_points]
    return sorted(points, key=lambda point: point.name)


def serve(body: str) -> str:
    """Return the code of a front-end whose `serve` does this."""
    return "async def serve(self, gateway, settings, *, task_status):\n" + indent(dedent(body), "    ") + "\nToy.serve = serve\n"
