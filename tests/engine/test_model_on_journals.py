"""Do engine and journal together do what the naive broker does, restarts included?"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from gateway.journal.memory import MemoryJournal, MemoryStore
from gateway.journal.sqlite import SqliteJournal
from tests.engine.journals import JournalDisk
from tests.engine.test_model import EngineMachine, SmallWindowMachine
from tests.engine.test_model_returns import ReturnsMachine, SmallWindowReturnsMachine

EVERY_CHECK = list(HealthCheck)


class InMemory:
    """Mixed into a machine: `MemoryJournal` takes the commits."""

    def make_disk(self):
        store = MemoryStore()
        return JournalDisk(lambda: MemoryJournal(store))

    def teardown(self):
        if self.naive is not None:
            self.disk.close()


class OnSqlite(InMemory):
    """Mixed into a machine: `SqliteJournal` takes the commits. It does not sync: what is asked is not what a power cut leaves."""

    def make_disk(self):
        self.directory = TemporaryDirectory()
        return JournalDisk(lambda: SqliteJournal(Path(self.directory.name), synchronous="OFF"))

    def teardown(self):
        super().teardown()
        if self.naive is not None:
            self.directory.cleanup()


@pytest.mark.parametrize("machine", [EngineMachine, SmallWindowMachine, ReturnsMachine, SmallWindowReturnsMachine])
def test_engine_on_the_memory_journal_does_what_the_naive_broker_does(machine):
    mixed = type(machine.__name__, (InMemory, machine), {})
    run_state_machine_as_test(
        mixed, settings=settings(max_examples=25, stateful_step_count=60, deadline=None, suppress_health_check=EVERY_CHECK)
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("machine", [EngineMachine, SmallWindowMachine, ReturnsMachine, SmallWindowReturnsMachine])
def test_engine_on_sqlite_does_what_the_naive_broker_does(machine):
    mixed = type(machine.__name__, (OnSqlite, machine), {})
    run_state_machine_as_test(
        mixed, settings=settings(max_examples=100, stateful_step_count=120, deadline=None, suppress_health_check=EVERY_CHECK)
    )
