"""Who fetches what a queue keeps on disk?"""

from __future__ import annotations

from collections.abc import Callable

import trio

from gateway.api.frontend import Log
from gateway.engine.engine import Engine
from gateway.errors import JournalError
from gateway.journal.port import Journal
from gateway.model.records import Page

RETRY_S = 0.5


class Pager:
    """Reads pages for the engine, one at a time per queue, never on the loop's thread."""

    def __init__(self, journal: Journal, log: Log, nursery: trio.Nursery) -> None:
        self._journal = journal
        self._log = log
        self._nursery = nursery
        self._token = trio.lowlevel.current_trio_token()
        self.engine: Engine | None = None
        self.ended = False

    def want(self, queue_id: int, after_position: int, max_bytes: int) -> None:
        """Have a page read; the engine gets it in a later turn."""

        def done(page: Callable[[], Page]) -> None:
            self._token.run_sync_soon(self._read, queue_id, after_position, max_bytes, page)

        self._journal.read_page(queue_id, after_position, max_bytes, done)

    def _read(self, queue_id: int, after_position: int, max_bytes: int, page: Callable[[], Page]) -> None:
        assert self.engine is not None
        if self.ended:
            return
        try:
            found = page()
        except JournalError as error:
            self._log.error("a page of the journal can't be read", queue_id=queue_id, error=str(error))
            self._nursery.start_soon(self._again, queue_id, after_position, max_bytes)
            return
        self.engine.page_loaded(found, after_position)

    async def _again(self, queue_id: int, after_position: int, max_bytes: int) -> None:
        await trio.sleep(RETRY_S)
        self.want(queue_id, after_position, max_bytes)
