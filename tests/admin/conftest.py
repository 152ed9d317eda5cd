"""What do the tests of the control socket share? A broker over a journal in memory, and a data directory for its socket."""

from contextlib import asynccontextmanager

import pytest
import trio

from gateway.admin import control
from gateway.api.frontend import Principal
from gateway.config import Limits
from gateway.journal.memory import MemoryJournal
from gateway.runtime.broker import Broker


class Log:
    def __init__(self):
        self.lines = []

    def info(self, event, **values):
        self.lines.append(("info", event))

    def warning(self, event, **values):
        self.lines.append(("warning", event))

    def error(self, event, **values):
        self.lines.append(("error", event))


async def let_in(credentials):
    return Principal("somebody")


@asynccontextmanager
async def _served(directory, journal=None):
    broker = Broker(journal or MemoryJournal(), limits=Limits(), authenticate=let_in, log=Log())
    async with trio.open_nursery() as nursery:
        await nursery.start(broker.run)
        async with trio.open_nursery() as life:
            await life.start(control.serve, broker, directory)
            yield broker
            life.cancel_scope.cancel()
        await broker.stop()


@pytest.fixture
def served():
    """``async with served(directory) as broker``: it answers questions there."""
    return _served
