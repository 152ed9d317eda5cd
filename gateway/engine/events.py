"""What does the engine tell the runtime, beside what it returns?"""

from __future__ import annotations

from typing import Protocol

from gateway.engine.queues.delivery import Entry
from gateway.model.message import Address


class EngineEvents(Protocol):
    """Implemented by the runtime. Called in the middle of a change: must not call the engine back."""

    def page_wanted(self, queue_id: int, after_position: int, max_bytes: int) -> None:
        """Read a page of a queue and call `Engine.page_loaded` with it, later."""

    def scheduled_wanted(self, ids: list[int]) -> None:
        """Read scheduled messages and call `Engine.scheduled_loaded` with them, later."""

    def got(self, channel: object, number: int, entry: Entry | None) -> None:
        """A `get` that had to wait for a page is answered."""

    def returned(self, entry: Entry) -> None:
        """A delivery that nobody settled is about to come back."""

    def died(self, entry: Entry, reason: str) -> None:
        """A queue is about to give up an entry, to drop it or to dead-letter it."""

    def dropped(self, queue: str, reason: str, amount: int) -> None:
        """A queue dropped messages as its settings allow."""

    def unroutable(self, address: Address, messages: int = 1) -> None:
        """So many messages reached no queue."""

    def consumer_failed(self, queue: str, error: Exception) -> None:
        """A front-end's sink raised; its consumer was cancelled."""
