"""Which broker do AMQP clients of others talk to in these tests?"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live_broker import LiveBroker

CONFIGURATION = """\
[frontend.amqp]
listen = ["tcp://127.0.0.1:5672"]
[frontend.mqtt]
enabled = false
[frontend.zeromq]
enabled = false
"""
ORACLE = "TIDEGATE_TEST_AMQP"
"""An environment variable: the port, on 127.0.0.1, of a broker that runs already (RabbitMQ, whose word counts)."""

PATIENCE_S = 60.0


class AmqpBroker:
    """A broker that can be restarted, if it is Tidegate."""

    def __init__(self, directory: Path) -> None:
        self._live = LiveBroker(directory, CONFIGURATION)

    @property
    def port(self) -> int:
        return self._live.where("amqp")[1]

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def start(self) -> None:
        self._live.start()

    def stop(self) -> int:
        return self._live.stop()

    def kill(self) -> None:
        self._live.kill()


def oracle_port() -> int | None:
    """Return the port of the broker that was named, if one was."""
    port = os.environ.get(ORACLE)
    return int(port) if port else None


def needs_own_broker() -> None:
    """Skip a test that ends its broker, if that is somebody's."""
    if oracle_port() is not None:
        pytest.skip("the broker that was named is not ended")


def until(fact: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """Wait for something that becomes true, and return it."""
    deadline = time.monotonic() + patience_s
    while not (found := fact()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found
