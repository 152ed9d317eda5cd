"""What does the runtime ask of a journal? `SqliteJournal` and `MemoryJournal` answer alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeAlias

from gateway.errors import JournalError
from gateway.journal.counters import Counters
from gateway.model.message import Message
from gateway.model.records import Batch, Page, Record, Reference

Commit: TypeAlias = Any
"""What `prepare` made and `write` takes; only the journal looks inside."""


class Journal(Protocol):
    """Stores batches, one at a time, whole or not at all.

    Life: `open`, `load` (once, to its end), then `prepare` / `write` and `read_page`, then `close`.
    All methods are called on the main thread; the callbacks come on any thread.
    """

    @property
    def durability(self) -> str:
        """One line for the start: what a confirmed message survives."""

    @property
    def counters(self) -> Counters:
        """What it has done so far."""

    @property
    def alarm(self) -> str | None:
        """Why no message should be taken now (too little free space, ``journal.max_bytes`` reached); None: there is room.

        Looked at every turn: an attribute, brought up to date by `look` and after every commit.
        """

    @property
    def state(self) -> str:
        """``writable``; ``failing``: the last commit could not be written; ``read-only``: none could for a while."""

    @property
    def upkeep(self) -> bool:
        """There is work (compaction, damage found) for a commit even if no batch comes: `prepare` of an empty one may give it."""

    def open(self) -> None:
        """Take the data directory.

        Raises:
            JournalLocked: another broker has it; the text names its pid.
            JournalUnwritable: it can't be written.
            JournalError: it can't be opened (a broken file, an unknown format).
        """

    def load(self) -> Iterator[Record]:
        """Yield what lasts: exchanges, queues, bindings, each queue's depth, retained values, state. No bodies of queued messages.

        Cost: the number of definitions, retained values and (queue, segment) pairs; not of messages.
        """

    @property
    def next_queue_id(self) -> int:
        """Greater than every id of a queue or lane that was ever given; right once `load` has begun."""

    def prepare(self, batch: Batch) -> Commit | None:
        """Encode a batch and give its references their segment and slot; None if nothing of it needs the disk.

        From here on the batch is the journal's; the engine opens a new one. References are released from
        their messages (``first``, ``more``), so that no cycle is left.
        """

    def write(self, commit: Commit, done: Callable[[JournalError | None], None]) -> None:
        """Write one commit; `done(None)` after it is on disk, `done(error)` if it is not.

        After an error the same commit may be written again. One commit at a time.
        """

    def amend(self, undone: Batch) -> None:
        """Have the commit that was prepared last, and could not be written so far, do this too: both will be on disk, or none.

        Args:
            undone: references of that commit that are settled now, state, scheduled messages that are gone; nothing else.
        """

    def read_page(self, queue_id: int, after_position: int, max_bytes: int, done: Callable[[Callable[[], Page]], None]) -> None:
        """Read the unsettled references of a queue that are on disk, positions greater than `after_position`, in order.

        `done` comes on any thread, with a function that the MAIN thread calls for the page (it raises JournalError if the
        read failed). A page ends some time after `max_bytes` of bodies are reached, and holds at least one reference if there
        is one: an empty page means that nothing more is on disk. What was settled, but not yet on disk so, is left out.
        """

    def read_scheduled(self, ids: list[int], done: Callable[[Callable[[], list[tuple[int, Message]]]], None]) -> None:
        """Read scheduled messages that are on disk, by id. `done` as for `read_page`; those that are gone are left out."""

    def is_written(self, reference: Reference) -> bool:
        """Say whether the commit that holds a reference (one with a segment) is on disk."""

    def look(self) -> None:
        """See how much room there is (`alarm`). Called about once a second; short, on the main thread."""

    def close(self, *, clean: bool = True) -> None:
        """Write the clean flag, close, release the lock. No commit may be under way."""
