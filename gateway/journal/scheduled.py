"""Which scheduled messages that were read are gone by now?"""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakSet

from gateway.errors import JournalError
from gateway.journal.counters import Counters
from gateway.journal.ledger import Settlement
from gateway.model.message import Message

Stored = tuple[list[tuple[int, Message]], list[int]]
"""Messages by id, and the ids of those that are damaged."""


class ScheduledReads:
    """Knows what is gone and not on disk so, and what went while somebody read. The main thread's.

    Args:
        report: is told of damaged messages, once each.
    """

    def __init__(self, counters: Counters, report: Callable[[str], None]) -> None:
        self._counters = counters
        self._report = report
        self._reads: WeakSet[ScheduledRead] = WeakSet()
        self._going: dict[int, Settlement] = {}
        self._last: Settlement | None = None
        self._damaged: set[int] = set()

    def begin(self) -> ScheduledRead:
        """Begin to read."""
        self._tidy()
        read = ScheduledRead(self, set(self._going))
        self._reads.add(read)
        return read

    def gone(self, scheduled_id: int, settlement: Settlement) -> None:
        """A message is gone with a commit that is about to be written."""
        if settlement is not self._last:
            self._last = settlement
            self._tidy()
        self._going[scheduled_id] = settlement
        for read in list(self._reads):
            read.gone.add(scheduled_id)

    def _tidy(self) -> None:
        self._going = {number: settlement for number, settlement in self._going.items() if not settlement.landed}

    def damaged(self, ids: list[int]) -> None:
        """Report what can't be read."""
        for number in ids:
            if number not in self._damaged:
                self._damaged.add(number)
                self._counters.references_lost += 1
                self._report(f"scheduled message {number} of the journal is damaged: it will not be published")


class ScheduledRead:
    """One reading. ``gone``: ids that are no longer to be given back."""

    __slots__ = ("__weakref__", "_reads", "gone")

    def __init__(self, reads: ScheduledReads, gone: set[int]) -> None:
        self._reads = reads
        self.gone = gone

    def messages(self, stored: Stored | JournalError) -> list[tuple[int, Message]]:
        """Return what was read and is not gone. Raises JournalError if the reading failed."""
        if isinstance(stored, JournalError):
            raise stored
        found, damaged = stored
        self._reads.damaged([number for number in damaged if number not in self.gone])
        return [(number, message) for number, message in found if number not in self.gone]
