"""What may a test of the engine ask for by name?"""

from __future__ import annotations

import pytest

from gateway.journal.memory import MemoryJournal, MemoryStore
from gateway.journal.sqlite import SqliteJournal
from tests.engine.restarts import Restarts


@pytest.fixture(params=["memory", "sqlite"])
def start(request, tmp_path):
    """Give a function that starts an engine on what the last one wrote; what is in its open batch is lost."""
    store = MemoryStore()
    make = {"memory": lambda: MemoryJournal(store), "sqlite": lambda: SqliteJournal(tmp_path, synchronous="OFF")}[request.param]
    restarts = Restarts(make)
    yield restarts
    restarts.close()
