"""How does an engine write to a journal by hand, and begin again on what that has?"""

from __future__ import annotations

import threading

from gateway.engine.engine import Engine
from gateway.model.message import Decoders
from tests.engine.support import Events

T = 1_000_000


class Restarts:
    """Start engines one after the other on what the last one wrote; what is in its open batch is lost."""

    def __init__(self, make) -> None:
        self._make = make
        self._journal = None

    def __call__(self):
        """Return an engine and its journal."""
        self.close()
        self._journal = self._make()
        self._journal.open()
        engine = Engine(Events(), Decoders().properties)
        engine.advance(T)
        for record in self._journal.load():
            engine.replay(record)
        return engine, self._journal

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()


def commit(engine, journal):
    """Write the open batch, and tell the engine."""
    prepared = journal.prepare(engine.take_batch())
    engine.batch_prepared()
    if prepared is not None:
        assert _answer(lambda tell: journal.write(prepared, tell)) is None
    engine.committed()


def page(journal, queue_id):
    """Return all that a journal has of a queue."""
    return _answer(lambda tell: journal.read_page(queue_id, 0, 1 << 30, tell))()


def _answer(ask):
    told, answers = threading.Event(), []
    ask(lambda answer: (answers.append(answer), told.set()))
    assert told.wait(60)
    (answer,) = answers
    return answer
