"""What does the journal do with a batch, on one SQLite file?"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gateway.errors import JournalError
from gateway.journal.checkpoints import Checkpoints
from gateway.journal.commit import Commit, Value
from gateway.journal.compaction import Compaction
from gateway.journal.counters import Counters
from gateway.journal.definitions import Changes, load_records, next_queue_id
from gateway.journal.ledger import Ledger, Settlement, Ticket
from gateway.journal.page import PageMaker
from gateway.journal.purging import drop, lanes, ranges
from gateway.journal.reader import Reader, StoredPage, read_page, read_scheduled
from gateway.journal.recovery import (
    DATABASE,
    SYNCHRONOUS,
    DirectoryLock,
    check_platform,
    close_database,
    connect,
    connect_to_read,
    make_directory,
    open_database,
)
from gateway.journal.scheduled import ScheduledReads
from gateway.journal.scrub import Scrub
from gateway.journal.segment import Segment, encode
from gateway.journal.space import LOG, Space
from gateway.journal.writer import WRITABLE, Writer
from gateway.model.message import Message
from gateway.model.records import Batch, DeliveryCounted, Page, QueueDeleted, QueuePurged, Record, Reference, ScheduledGone


@dataclass(frozen=True, slots=True)
class Care:
    """What is done about a disk that fails, and about room that is wasted.

    Args:
        refuse_after_s: a journal that can't be written for so long is ``read-only``.
        scrub_mib_per_s: how fast stored segments are read again to find damage; 0: never.
        compacting: what little is left in a segment is written anew (see `compaction`).
    """

    refuse_after_s: float = 5.0
    scrub_mib_per_s: float = 0.0
    compacting: bool = True


class SqliteJournal:
    """Implements `gateway.journal.port.Journal` in ``directory/journal.db``; open it once.

    Args:
        directory: the data directory; made if it isn't there.
        synchronous: SQLite's pragma. FULL (or EXTRA): a confirmed message survives a power cut; NORMAL, OFF: only the end of
            the process.
        wal_autocheckpoint: so many pages of the write-ahead log, then they go to the database.
        report: is told of damage, a line each, on the main thread.
        space: watches the room on the disk; None: nobody does.
        care: what is done about a disk that fails.
    """

    def __init__(
        self,
        directory: Path,
        *,
        synchronous: str = "FULL",
        wal_autocheckpoint: int = 4000,
        report: Callable[[str], None] | None = None,
        space: Space | None = None,
        care: Care | None = None,
    ) -> None:
        if synchronous not in SYNCHRONOUS:
            raise JournalError(f"synchronous must be one of {', '.join(SYNCHRONOUS)}, not {synchronous!r}")
        self._path = directory / DATABASE
        self._synchronous = synchronous
        self._wal_autocheckpoint = wal_autocheckpoint
        self._report = report or _silent
        self._space = space
        self._care = care or Care()
        self._scrub: Scrub | None = None
        self._lock = DirectoryLock(directory)
        self.counters = Counters()
        self._checkpoints = Checkpoints(self._path.with_name(LOG), wal_autocheckpoint, self.counters)
        self._next_queue_id = 1
        self._ledger = Ledger()
        self._compaction = Compaction(self._ledger, self.counters, self._report)
        self._next_segment = 1
        self._deferred: list[Reference] = []
        self._last: Commit | None = None
        self._scheduled = ScheduledReads(self.counters, self._report)
        self._writer: Writer | None = None
        self._reader: Reader | None = None
        self._anchor: sqlite3.Connection | None = None
        self._pages = PageMaker(self._ledger, self.counters, self._report)

    @property
    def durability(self) -> str:
        """See `Journal.durability`."""
        survives = "a kill and a power cut" if self._synchronous in {"FULL", "EXTRA"} else "a kill, but NOT a power cut"
        return f"on disk in {self._path} (synchronous={self._synchronous}): what is confirmed survives {survives}"

    @property
    def alarm(self) -> str | None:
        """See `Journal.alarm`."""
        if self._checkpoints.alarm is not None:
            return self._checkpoints.alarm
        return self._space.alarm if self._space is not None else None

    @property
    def upkeep(self) -> bool:
        """See `Journal.upkeep`."""
        return bool(self._pages.to_quarantine) or (self._compaction.ready and self._may_compact)

    @property
    def _may_compact(self) -> bool:
        """Rewriting needs room first. On a disk that is low it gives none back; at the cap of the journal it does."""
        return self.state == WRITABLE and (self._space is None or not self._space.low)

    @property
    def next_queue_id(self) -> int:
        """See `Journal.next_queue_id`."""
        return self._next_queue_id

    @property
    def state(self) -> str:
        """See `Journal.state`."""
        return self._writer.state if self._writer is not None else WRITABLE

    def look(self) -> None:
        """See `Journal.look`."""
        if self._space is not None:
            self._space.look()
        if self._checkpoints.alarm is not None and self._writer is not None:
            self._writer.look()
        self._ledger.forget_landed()
        if self._ledger.all_landed:
            self._begin_compaction()
        for found in self._scrub.take() if self._scrub is not None else ():
            if isinstance(found, int):
                self._pages.found_damaged(found)
            else:
                self._report(found)

    # -- beginning and end --------------------------------------------------

    def open(self) -> None:
        """See `Journal.open`."""
        check_platform()
        make_directory(self._path.parent)
        self._lock.acquire()
        try:
            if self._space is not None:
                self._space.take()
                self._wal_autocheckpoint = self._space.log_pages(self._wal_autocheckpoint)
            pages, make_room = self._wal_autocheckpoint, self._make_room
            database = open_database(self._path, synchronous=self._synchronous, wal_autocheckpoint=pages, make_room=make_room)
        except BaseException:
            self._lock.release()
            raise
        self._anchor = database.anchor
        self._next_segment = database.last_segment + 1
        self.counters.segments_live = database.segments
        reopen = partial(connect, self._path, synchronous=self._synchronous, wal_autocheckpoint=self._wal_autocheckpoint)
        if self._space is not None:
            self._space.begin(database.connection)
        before = self._checkpoints.restarts()
        self.counters.log_restarts = lambda: self._checkpoints.restarts() - before
        self._writer = Writer(
            str(self._path),
            reopen,
            database.connection,
            self.counters,
            space=self._space,
            checkpoints=self._checkpoints,
            refuse_after_s=self._care.refuse_after_s,
        )
        self._reader = Reader(str(self._path), partial(connect_to_read, self._path))
        if self._care.scrub_mib_per_s:
            self._scrub = Scrub(
                partial(connect_to_read, self._path),
                self.counters,
                mib_per_s=self._care.scrub_mib_per_s,
                at_once=not database.clean,
            )

    def _make_room(self) -> bool:
        return self._space is not None and self._space.give_ballast()

    def load(self) -> Iterator[Record]:
        """See `Journal.load`."""
        try:
            with closing(connect_to_read(self._path)) as connection:
                self._next_queue_id = next_queue_id(connection)
                yield from load_records(connection, self._report)
        except (sqlite3.Error, ValueError, TypeError) as error:
            raise JournalError(f"{self._path} can't be read: {error}") from error

    def close(self, *, clean: bool = True) -> None:
        """See `Journal.close`. References that wait for the next batch to be settled are settled, if it is a clean end."""
        writer, self._writer = self._writer, None
        reader, self._reader = self._reader, None
        if writer is None or reader is None:
            return
        if clean:
            self._write_rest(writer)
        if self._scrub is not None:
            self._scrub.stop()
        reader.stop()
        connection = writer.stop()
        if self._anchor is not None:
            self._anchor.close()
        try:
            if connection is not None:
                log_bytes = close_database(connection, self._path, clean=clean, make_room=self._make_room)
                if self._space is not None:
                    self._space.end(log_bytes)
        except sqlite3.Error as error:
            self._report(f"{self._path} could not be closed in order, the next start will check it: {error}")
        finally:
            self._lock.release()

    def _write_rest(self, writer: Writer) -> None:
        self._ledger.forget_landed()
        rest = self.prepare(Batch()) if self._ledger.all_landed else None  # else it speaks of segments that aren't there
        if rest is None:
            return
        written = threading.Event()
        writer.put(rest, lambda _: written.set())
        written.wait()

    # -- writing ------------------------------------------------------------

    def prepare(self, batch: Batch) -> Commit | None:
        """See `Journal.prepare`. Cost: about 0.5 us per message with one reference, 0.3 us per settled reference."""
        ledger = self._ledger
        ledger.forget_landed()
        floors = self._purge(batch) if batch.records else {}
        segments = list(encode(batch.messages, self._next_segment)) if batch.messages else []
        for segment in segments:
            ledger.add(segment.handle)
            self.counters.messages_elided -= segment.messages
        self.counters.messages_elided += len(batch.messages)
        self._next_segment += len(segments)
        ledger.settle(batch.settled)
        ledger.settle(self._deferred)
        self._deferred = batch.deferred
        redelivered: list[list[int]] = []
        if self._compaction.ready:
            redelivered = self._move(segments)
        self._begin_compaction()
        settlement = ledger.flush()
        settlement.floors = floors
        settlement.fresh = [segment.handle for segment in segments]
        changes = self._changes(batch, settlement, redelivered)
        self._compaction.note(segments, settlement.handles, purged=bool(floors))
        if not segments and changes is None and not settlement.places and not settlement.gone:
            return None
        ledger.track(settlement)
        if self._space is not None:
            self._space.expect(sum([segment.body_bytes for segment in segments]) + _data_bytes(changes))
        self._last = Commit(segments, settlement, changes)
        return self._last

    def amend(self, undone: Batch) -> None:
        """See `Journal.amend`."""
        last = self._last
        assert last is not None
        assert last.amendment is None
        self._ledger.settle(undone.settled)
        settlement = self._ledger.flush()
        changes = self._changes(undone, settlement, [])
        self._compaction.note((), settlement.handles, purged=False)
        self._ledger.track(settlement)
        last.amendment = Commit([], settlement, changes)

    def _purge(self, batch: Batch) -> dict[int, int]:
        """Forget what purged and deleted queues have; return per queue the first segment that it keeps."""
        deleted = {lane for record in batch.records if isinstance(record, QueueDeleted) for lane in lanes(record)}
        purged = {record.queue_id for record in batch.records if isinstance(record, QueuePurged)}
        if deleted:
            drop(batch.messages, deleted)
        floors = dict.fromkeys(deleted | purged, self._next_segment)
        if floors:
            self._ledger.purge(floors)
        return floors

    def _move(self, segments: list[Segment]) -> list[list[int]]:
        """Add to new segments what compaction has to move; return rows of `redelivered`."""
        if not self._may_compact:
            self._compaction.give_up()
            return []
        moved, redelivered = self._compaction.join(self._next_segment)
        for segment in moved:
            self._ledger.add(segment.handle)
        self._next_segment += len(moved)
        segments += moved
        return redelivered

    def _begin_compaction(self) -> None:
        """Have the next portion read; what is noted must be on disk."""
        if self._reader is not None and self._care.compacting and self._may_compact:
            self._compaction.begin(self._reader)

    def _changes(self, batch: Batch, settlement: Settlement, redelivered: list[list[int]]) -> tuple[Value, ...] | None:
        """Return the columns of full_commit, if there is anything in them."""
        damaged, self._pages.to_quarantine = self._pages.to_quarantine, []
        if not batch.records and not damaged and not redelivered:
            return None
        changes = Changes()
        changes.redelivered = redelivered
        changes.quarantined = damaged
        changes.purged = ranges(settlement.floors)
        for record in batch.records:
            if isinstance(record, DeliveryCounted):
                place = self._ledger.counted(record.reference, record.count, record.due_ms)
                if place is not None:
                    handle, slot = place
                    changes.redelivered.append([handle.id, slot, record.count, record.due_ms])
                    settlement.handles.append(handle)
            else:
                changes.add(record)
                if isinstance(record, ScheduledGone):
                    self._scheduled.gone(record.scheduled_id, settlement)
        return changes.columns() if changes else None

    def write(self, commit: Commit, done: Callable[[JournalError | None], None]) -> None:
        """See `Journal.write`."""
        assert self._writer is not None
        self._writer.put(commit, done)

    # -- reading ------------------------------------------------------------

    def read_page(self, queue_id: int, after_position: int, max_bytes: int, done: Callable[[Callable[[], Page]], None]) -> None:
        """See `Journal.read_page`."""
        assert self._reader is not None
        ticket = self._ledger.ticket(queue_id)
        commits = self.counters.commits

        def put(stored: StoredPage | JournalError) -> None:
            done(partial(self._page, ticket, stored, commits, after_position, max_bytes))

        self._reader.put(partial(read_page, queue_id=queue_id, after_position=after_position, max_bytes=max_bytes), put)

    def _page(self, ticket: Ticket, stored: StoredPage | JournalError, commits: int, after_position: int, max_bytes: int) -> Page:
        """Make the page of what was read. If nothing is left of it but there is more, read on: an empty page means the end."""
        lost = lost_bytes = 0
        while not isinstance(stored, JournalError):
            page = self._pages.page(stored, ticket, after_position)
            lost += page.lost
            lost_bytes += page.lost_bytes
            if page.references or (stored.at_end and commits == self.counters.commits):
                return Page(page.queue_id, page.references, lost, lost_bytes)
            commits = self.counters.commits
            after_position = stored.covered
            stored = self._read_on(ticket.queue_id, after_position, max_bytes)
        if lost:
            return Page(ticket.queue_id, [], lost, lost_bytes)
        raise stored

    def _read_on(self, queue_id: int, after_position: int, max_bytes: int) -> StoredPage | JournalError:
        """Read while the main thread waits: rare, and one read."""
        if self._reader is None:
            return JournalError("the journal is closed")
        return self._reader.read(partial(read_page, queue_id=queue_id, after_position=after_position, max_bytes=max_bytes))

    def read_scheduled(self, ids: list[int], done: Callable[[Callable[[], list[tuple[int, Message]]]], None]) -> None:
        """See `Journal.read_scheduled`. What is damaged is left out and reported."""
        assert self._reader is not None
        read = self._scheduled.begin()
        self._reader.put(partial(read_scheduled, ids=ids), lambda stored: done(partial(read.messages, stored)))

    def is_written(self, reference: Reference) -> bool:
        """See `Journal.is_written`."""
        return self._ledger.is_written(reference)


def _data_bytes(changes: tuple[Value, ...] | None) -> int:
    data = changes[0] if changes is not None else None
    return len(data) if isinstance(data, bytes) else 0


def _silent(_: str) -> None:
    pass
