"""Which segments keep much for little, and how do the messages that are left in them move together?

A segment of which a quarter or less is left (sparse), and many segments of a few messages (tiny), are read on the reader's
thread; what is still unsettled then joins the next commit as a segment of its own, with positions, options, delivery counts, due
times and the times of the first commits, and the same commit settles it where it was: a segment of which nothing is left goes.

It comes to rest: a sparse segment is written anew at a quarter of its size or less, and a tiny one only together with many.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice

from gateway.errors import JournalError
from gateway.journal import leftovers
from gateway.journal.counters import Counters
from gateway.journal.ledger import Ledger, SegmentHandle, Ticket
from gateway.journal.leftovers import Leftovers, Survey, is_tiny, read_leftovers, read_survey
from gateway.journal.reader import Reader, StoredSegment
from gateway.journal.segment import Segment, encode
from gateway.model.message import Message
from gateway.model.records import Reference

TINY_TOGETHER = 64
"""So many tiny segments are worth a commit."""
LOOKED_AT = 512
"""How many candidates are looked at for one commit."""
UNCHANGED_COMMITS = 4
UNCHANGED_S = 1.0
"""A segment must have been left alone for so many commits, or for so long: one that is being worked off will soon be gone."""
SURVEY_AGAIN_S = 60.0
MOST_CANDIDATES = 1 << 16
_LONG_AGO = (0, 0.0)


class Compaction:
    """Looks for segments that are worth it, has one portion at a time read, and moves it. The main thread's.

    Args:
        report: is told if segments can't be read.
    """

    def __init__(self, ledger: Ledger, counters: Counters, report: Callable[[str], None]) -> None:
        self._ledger = ledger
        self._counters = counters
        self._report = report
        self._failed = False
        self._commits = 0
        self._sparse: dict[int, tuple[int, float]] = {}
        self._tiny: dict[int, tuple[int, float]] = {}
        self._kept: dict[int, int] = {}
        self._from_slot: dict[int, int] = {}
        self._survey_after: int | None = 0
        self._survey_again_at = 0.0
        self._survey_wanted = False
        self._look_again_at = (0, 0.0)
        self._ticket: Ticket | None = None
        self._answer: Leftovers | Survey | JournalError | None = None

    @property
    def ready(self) -> bool:
        """Something was read that may move."""
        return isinstance(self._answer, Leftovers) and bool(self._answer.segments)

    # -- which --------------------------------------------------------------

    def note(self, fresh: Iterable[Segment], changed: Iterable[SegmentHandle], *, purged: bool) -> None:
        """Take note of what a commit does. Cost: the number of segments that it touches."""
        self._commits += 1
        now = (self._commits, time.monotonic())
        for segment in fresh:
            if segment.references <= leftovers.TINY and segment.body_bytes <= leftovers.TINY_BYTES:
                self._tiny[segment.handle.id] = now
        for handle in changed:
            live = sum([numbers[0] for numbers in handle.queues.values()])
            number = handle.id
            if not live and handle.complete:
                self._tiny.pop(number, None)
                if self._sparse or self._kept or self._from_slot:
                    self._forget(number)
            elif number in self._tiny:
                continue
            elif live * leftovers.SPARSE_PART <= handle.references and live * 2 <= self._kept.get(number, 2 * handle.references):
                self._sparse.pop(number, None)
                self._sparse[number] = now
        self._survey_wanted = self._survey_wanted or purged
        if len(self._tiny) > MOST_CANDIDATES:
            self._tiny = dict(islice(self._tiny.items(), MOST_CANDIDATES // 2))
            self._survey_wanted = True

    def _forget(self, number: int) -> None:
        for known in (self._sparse, self._kept, self._from_slot):
            known.pop(number, None)

    def begin(self, reader: Reader) -> None:
        """Have the next portion read, if there is one and none is under way."""
        if self._ticket is not None:
            if self.ready or self._answer is None:
                return
            self.take()
        elif not self._sparse and len(self._tiny) < TINY_TOGETHER and self._survey_after is None and not self._survey_wanted:
            return
        sparse, tiny = self._wanted()
        if sparse or tiny:
            self._ticket = self._ledger.ticket(0)
            reader.put(partial(read_leftovers, sparse=sparse, tiny=tiny, from_slot=dict(self._from_slot)), self._put)
        elif self._survey_due():
            self._ticket = self._ledger.ticket(0)
            reader.put(partial(read_survey, after=self._survey_after or 0), self._put)

    def _put(self, answer: Leftovers | Survey | JournalError) -> None:
        self._answer = answer

    def _wanted(self) -> tuple[list[int], list[int]]:
        """Return candidates that were left alone for a while, and forget them."""
        sparse = list(islice(self._old(self._sparse), LOOKED_AT))
        tiny: list[int] = []
        commits, at = self._look_again_at
        if len(self._tiny) >= TINY_TOGETHER and (self._commits >= commits or time.monotonic() >= at):
            get = self._ledger.get
            tiny = [number for number in islice(self._old(self._tiny), LOOKED_AT) if get(number) is None]
            if len(tiny) < TINY_TOGETHER:
                tiny = []
                self._look_again_at = self._commits + TINY_TOGETHER, time.monotonic() + UNCHANGED_S
                for number in list(islice(self._tiny, LOOKED_AT)):  # those in memory wait at the end
                    self._tiny[number] = self._tiny.pop(number)
        for number in sparse:
            del self._sparse[number]
        for number in tiny:
            del self._tiny[number]
        return sparse, tiny

    def _old(self, candidates: dict[int, tuple[int, float]]) -> Iterator[int]:
        commits, now = self._commits - UNCHANGED_COMMITS, time.monotonic() - UNCHANGED_S
        for number, (commit, noted) in candidates.items():
            if commit > commits and noted > now:
                break  # those that follow were noted later
            yield number

    def _survey_due(self) -> bool:
        if self._survey_after is None and self._survey_wanted and time.monotonic() >= self._survey_again_at:
            self._survey_after = 0
            self._survey_wanted = False
        return self._survey_after is not None

    # -- how ----------------------------------------------------------------

    def take(self) -> list[tuple[StoredSegment, list[int], bool]]:
        """Return what was read, if anything was."""
        answer = self._answer
        if answer is None:
            return []
        self._answer = None
        self._ticket = None
        if isinstance(answer, Survey):
            self._surveyed(answer)
        elif isinstance(answer, Leftovers):
            self._failed = False
            for number, live in answer.kept:
                self._keep(number, live)
            for number, tiny in answer.rest:
                self._put_back(number, tiny=tiny)
            return answer.segments
        else:
            self._survey_wanted = True  # which candidates were lost with it is found again
            if not self._failed:
                self._failed = True
                self._report(f"segments with little in them can't be read, so they stay as they are: {answer}")
        return []

    def _surveyed(self, survey: Survey) -> None:
        for number, tiny in survey.found:
            if number not in self._kept:
                self._put_back(number, tiny=bool(tiny))
        self._survey_after = survey.last or None
        if not survey.last:
            self._survey_again_at = time.monotonic() + SURVEY_AGAIN_S

    def _keep(self, number: int, live: int) -> None:
        """Leave a segment alone until half of what it has now is gone."""
        self._kept.pop(number, None)
        self._kept[number] = live
        if len(self._kept) > MOST_CANDIDATES:
            self._kept.pop(next(iter(self._kept)))

    def give_up(self) -> None:
        """Nothing may move now: let go of what was read."""
        for stored, _, _ in self.take():
            self._put_back(stored.id, tiny=is_tiny(stored))

    def join(self, next_segment: int) -> tuple[list[Segment], list[list[int]]]:
        """Return segments with what moves, and rows of `redelivered` for them.

        Cost: about 2.5 us per reference.
        """
        ticket = self._ticket
        segments = self.take()
        if not segments or ticket is None:
            return [], []
        room = _Room()
        moves: list[tuple[SegmentHandle, int, Reference]] = []
        messages: list[Message] = []
        stored_ms: list[int] = []
        for stored, slots, more in segments:
            handle = self._handle(stored, ticket)
            left = _left(stored, slots, handle)
            chosen = room.choose(stored, left)
            if more or len(chosen) < len(left):
                self._from_slot[stored.id] = left[len(chosen)] if len(chosen) < len(left) else slots[-1] + 1
                self._put_back(stored.id, tiny=is_tiny(stored))
            else:
                self._from_slot.pop(stored.id, None)
            _make(stored, chosen, handle, moves, messages, stored_ms)
            self._counters.segments_compacted += 1
        made = list(encode(messages, next_segment, stored_ms))
        for segment in made:
            segment.handle.written = True  # what is in it is on disk, here or where it was
        redelivered = [row for handle, slot, reference in moves if (row := self._ledger.move(handle, slot, reference)) is not None]
        self._counters.references_moved += len(moves)
        return made, redelivered

    def _put_back(self, number: int, *, tiny: bool) -> None:
        candidates = self._tiny if tiny else self._sparse
        candidates.setdefault(number, _LONG_AGO)

    def _handle(self, stored: StoredSegment, ticket: Ticket) -> SegmentHandle:
        """Return what memory knows of a segment, completed by what was on disk."""
        handle = self._ledger.get(stored.id)
        if handle is None:
            handle = stored.handle()
            self._ledger.add(handle)
        for queue_id, numbers in stored.places.items():
            if not ticket.is_purged(queue_id, stored.id):
                handle.queues.setdefault(queue_id, numbers)
        handle.complete = True
        return handle


class _Room:
    """What one commit has room for."""

    def __init__(self) -> None:
        self._references = leftovers.MOST_REFERENCES
        self._bytes = leftovers.MOST_BYTES

    def choose(self, stored: StoredSegment, slots: list[int]) -> list[int]:
        """Return the first of the references, those of a message together; at least one message's in the first segment."""
        index = stored.index
        assert index is not None
        first = self._references == leftovers.MOST_REFERENCES
        owner = -1
        for number, slot in enumerate(slots):
            if index.owner(slot) == owner:
                continue
            owner = index.owner(slot)
            size = index.body_bytes(slot)
            if (self._references <= number or self._bytes < size) and not (first and not number):
                self._references = self._bytes = 0
                return slots[:number]
            self._bytes -= size
        self._references -= len(slots)
        return slots


def _left(stored: StoredSegment, slots: list[int], handle: SegmentHandle) -> list[int]:
    """Return which references are unsettled by now."""
    queues, known, bits = stored.queues, handle.queues, handle.bits
    return [slot for slot in slots if not bits[slot >> 3] & 1 << (slot & 7) and queues[slot] in known and known[queues[slot]][0]]


def _make(
    stored: StoredSegment,
    slots: list[int],
    handle: SegmentHandle,
    moves: list[tuple[SegmentHandle, int, Reference]],
    messages: list[Message],
    stored_ms: list[int],
) -> None:
    """Make messages and references anew."""
    index = stored.index
    assert index is not None
    owner = -1
    for slot, paged in zip(slots, index.references(slots, stored.body, handle, stored.committed_ms), strict=True):
        if index.owner(slot) != owner:
            owner = index.owner(slot)
            message = paged.message
            messages.append(message)
            stored_ms.append(paged.stored_ms)
        reference = Reference(message, stored.queues[slot], paged.position, paged.options)
        message.live += 1
        if message.first is None:
            message.first = reference
        elif message.more is None:
            message.more = [reference]
        else:
            message.more.append(reference)
        moves.append((handle, slot, reference))
