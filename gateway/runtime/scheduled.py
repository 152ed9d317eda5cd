"""Who fetches scheduled messages whose time has come?"""

from __future__ import annotations

from collections.abc import Callable

import trio

from gateway.api.frontend import Log
from gateway.engine.engine import Engine
from gateway.errors import JournalError
from gateway.journal.port import Journal
from gateway.model.message import Message

RETRY_S = 0.5


class ScheduledReader:
    """Reads scheduled messages for the engine, never on the loop's thread; what can't be read is tried again."""

    def __init__(self, journal: Journal, engine: Engine, log: Log, nursery: trio.Nursery) -> None:
        self._journal = journal
        self._engine = engine
        self._log = log
        self._nursery = nursery
        self._token = trio.lowlevel.current_trio_token()
        self.ended = False

    def want(self, ids: list[int]) -> None:
        """Have messages read; the engine gets them in a later turn."""

        def done(messages: Callable[[], list[tuple[int, Message]]]) -> None:
            self._token.run_sync_soon(self._read, ids, messages)

        self._journal.read_scheduled(ids, done)

    def _read(self, ids: list[int], messages: Callable[[], list[tuple[int, Message]]]) -> None:
        if self.ended:
            return
        try:
            found = messages()
        except JournalError as error:
            self._log.error("scheduled messages can't be read", amount=len(ids), error=str(error))
            self._nursery.start_soon(self._again, ids)
            return
        self._engine.scheduled_loaded(found)

    async def _again(self, ids: list[int]) -> None:
        await trio.sleep(RETRY_S)
        self.want(ids)
