"""Does a journal do what a dictionary would, whatever comes, in whatever order, crashes included?"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from gateway.journal import compaction, leftovers
from gateway.journal.index import Index
from gateway.model.declare import BindingOptions, QueueSpec
from gateway.model.message import Address, Message
from gateway.model.records import (
    DeliveryCounted,
    MessageScheduled,
    QueueDeclared,
    QueueDeleted,
    QueueDepth,
    QueuePurged,
    Reference,
    Scheduled,
    ScheduledGone,
)
from tests.journal.test_scheduled import read as read_scheduled

QUEUES = 4
LANES = 3
"""Of every other queue."""


class JournalMachine(RuleBasedStateMachine):
    """`disk`: per lane, position -> (body, options, count, due_ms), as the last commit left it. `memory`: the engine's entries."""

    new_rig = None
    on_disk = False

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="journal-model-")) if self.on_disk else None
        self.rig = type(self).new_rig(self.directory and self.directory / "data")
        self.disk: dict[int, dict[int, tuple[bytes, BindingOptions | None, int, int]]] = {}
        self.declared: dict[int, int] = {}  # queue -> lanes
        self.queues: list[int] = []  # all lanes
        self.scheduled: dict[int, tuple[bytes, int]] = {}
        self.planned: dict[int, tuple[bytes, int] | None] = {}
        self.next_scheduled = 1
        self.next_kept = (1, 1)
        self.next_queue = 1
        self.memory: list[Reference] = []
        self.deferred: list[Reference] = []
        self.pending_deferred: list[Reference] = []
        self.purged: set[int] = set()
        self.deleted: set[int] = set()
        self.counts: list[tuple[Reference, int, int]] = []
        self.body = 0

    def teardown(self) -> None:
        self.rig.journal.close(clean=False)
        if self.directory is not None:
            shutil.rmtree(self.directory)

    @initialize()
    def declare(self) -> None:
        for _ in range(QUEUES):
            self._new_queue()
        self.commit()

    def _new_queue(self) -> None:
        number, lanes = self.next_queue, LANES if len(self.declared) % 2 else 1
        self.rig.record(QueueDeclared("/", number, QueueSpec(f"q{number}", max_priority=lanes - 1)))
        self.declared[number] = lanes
        self.queues += range(number, number + lanes)
        self.next_queue += lanes

    # -- the engine's side --

    @rule(
        where=st.sets(st.integers(0, 7), min_size=1),
        size=st.sampled_from([0, 1, 20, 5000]),
        granted=st.sampled_from([None, 0, 1]),
        times=st.integers(1, 3),
    )
    def publish(self, where: set[int], size: int, granted: int | None, times: int) -> None:
        options = None if granted is None else BindingOptions(qos=granted)
        for _ in range(times):
            self.body += 1
            body = b"%d" % self.body + b"x" * size
            self.memory += self.rig.publish(body, *(self.queues[number] for number in sorted(where)), options=options)

    def _pick(self, data: st.DataObject) -> Reference | None:
        unsettled = [r for r in self.memory if not r.settled and r not in self.deferred]
        return data.draw(st.sampled_from(unsettled)) if unsettled else None

    @rule(data=st.data(), times=st.integers(1, 6))
    def acknowledge(self, data: st.DataObject, times: int) -> None:
        for _ in range(times):
            reference = self._pick(data)
            if reference is not None:
                self.rig.settle(reference)

    @rule(data=st.data())
    def settle_automatically(self, data: st.DataObject) -> None:
        reference = self._pick(data)
        if reference is not None:
            self.rig.settle_automatically(reference)
            if not reference.settled:
                self.deferred.append(reference)

    @rule(data=st.data(), count=st.integers(1, 5), due_ms=st.sampled_from([0, 1, 1 << 42]))
    def come_back(self, data: st.DataObject, count: int, due_ms: int) -> None:
        reference = self._pick(data)
        if reference is not None and reference.segment is not None:
            self.rig.record(DeliveryCounted(reference, count, due_ms))
            self.counts.append((reference, count, due_ms))

    @rule(due_ms=st.integers(1, 1 << 42), size=st.sampled_from([0, 10, 3000]))
    def schedule(self, due_ms: int, size: int) -> None:
        number, body = self.next_scheduled, b"%d" % self.next_scheduled + b"s" * size
        self.next_scheduled += 1
        self.rig.record(MessageScheduled(number, due_ms, Message(Address("/", "", "k"), body, True)))
        self.planned[number] = (body, due_ms)

    @rule(data=st.data(), published=st.booleans())
    def unschedule(self, data: st.DataObject, published: bool) -> None:
        there = {n: what for n, what in (self.scheduled | self.planned).items() if what is not None}
        if there:
            number = data.draw(st.sampled_from(sorted(there)))
            self.rig.record(ScheduledGone(number))
            self.planned[number] = None
            if published:
                self.memory += self.rig.publish(there[number][0], self.queues[0])

    @rule(number=st.integers(0, 7), data=st.data())
    def purge(self, number: int, data: st.DataObject) -> None:
        queue = self.queues[number]
        for reference in [r for r in self.memory if r.queue_id == queue and not r.settled and r not in self.deferred]:
            if not data.draw(st.booleans(), label="survives"):
                reference.settled = True
                if reference.segment is None:
                    reference.message.live -= 1
            elif reference.segment is not None:
                self._put_again(reference)
        self.rig.record(QueuePurged(queue))
        self.purged.add(queue)

    def _put_again(self, reference: Reference) -> None:
        old = reference.message
        message = Message(old.address, old.body, True)
        message.first, message.live = reference, 1
        reference.message, reference.segment, reference.slot = message, None, -1
        self.rig.batch.messages.append(message)

    @rule(number=st.integers(0, QUEUES - 1))
    def delete(self, number: int) -> None:
        queue = sorted(self.declared)[number]
        lanes = self.declared.pop(queue)
        gone = range(queue, queue + lanes)
        self.queues = [lane for lane in self.queues if lane not in gone]
        for reference in [r for r in self.memory if r.queue_id in gone and not r.settled]:
            reference.settled = True
            if reference.segment is None:
                reference.message.live -= 1
        self.rig.record(QueueDeleted("/", queue, f"q{queue}", lanes))
        self.deleted |= set(gone)
        self._new_queue()
        while len(self.queues) < 2 * QUEUES:  # so many lanes there were
            self._new_queue()

    @rule(number=st.integers(0, 7), max_bytes=st.sampled_from([1, 3000, 1 << 20]))
    @precondition(lambda self: not self.purged and not self.deleted)
    def page_in(self, number: int, max_bytes: int) -> None:
        queue = self.queues[number]
        there = {r.position for r in self.memory if r.queue_id == queue}
        page = self.rig.page(queue, max(there, default=0) if len(there) % 2 else 0, max_bytes)
        self.memory += [self.rig.entry(queue, paged) for paged in page.references if paged.position not in there]

    @rule(keep=st.integers(0, 3))
    def forget(self, keep: int) -> None:
        """Drop what is on disk from memory: handles go with it."""
        self.memory = [r for number, r in enumerate(self.memory) if r.segment is None or number % 4 < keep]

    # -- the runtime's side --

    @rule()
    @precondition(lambda self: self.on_disk)
    def tidy(self) -> None:
        """Have leftovers read, which the next commit moves."""
        self.rig.journal.look()
        self.rig.read(0)

    @rule()
    def commit(self) -> None:
        self.scheduled = {n: what for n, what in (self.scheduled | self.planned).items() if what is not None}
        self.next_kept = self.next_queue
        for queue in self.purged | self.deleted:
            self.disk.pop(queue, None)
        for message in self.rig.batch.messages:
            for reference in (message.first, *(message.more or ())):
                if reference is not None and not reference.settled and message.live > 0 and reference.queue_id not in self.deleted:
                    self.disk.setdefault(reference.queue_id, {})[reference.position] = (message.body, reference.options, 0, 0)
        settled = self.rig.batch.settled + self.pending_deferred
        for reference, count, due_ms in self.counts:
            place = self.disk.get(reference.queue_id, {}).get(reference.position)
            if place is not None and reference.segment is not None:
                self.disk[reference.queue_id][reference.position] = (*place[:2], count, due_ms)
        for reference in settled:
            self.disk.get(reference.queue_id, {}).pop(reference.position, None)
        self.pending_deferred = self.deferred
        self.rig.commit()
        self.rig.read(0)  # what the journal had begun to read is there now: every run does the same
        self._opened()

    def _opened(self) -> None:
        self.memory = [r for r in self.memory if not r.settled and r not in self.deferred]
        self.deferred, self.purged, self.deleted, self.counts, self.planned = [], set(), set(), [], {}

    @rule(prepared=st.booleans())
    def crash(self, prepared: bool) -> None:
        """End without a word; `prepared`: while a commit was under way."""
        if prepared:
            self.rig.prepare()
        self._restart(clean=False)

    @rule()
    def stop(self) -> None:
        for reference in self.pending_deferred:
            self.disk.get(reference.queue_id, {}).pop(reference.position, None)
        self._restart(clean=True)

    def _restart(self, *, clean: bool) -> None:
        loaded = self.rig.restart(clean=clean)
        self.memory, self.pending_deferred = [], []
        self.deferred = []
        self._opened()
        self.declared = {r.queue_id: r.spec.max_priority + 1 for r in loaded if isinstance(r, QueueDeclared)}
        self.queues = sorted(lane for queue, lanes in self.declared.items() for lane in range(queue, queue + lanes))
        self.next_queue = self.rig.journal.next_queue_id
        assert self.next_queue == self.next_kept
        while len(self.queues) < 2 * QUEUES or len(self.declared) < QUEUES:
            self._new_queue()
        planned = {r.scheduled_id: (r.due_ms, r.body_bytes) for r in loaded if isinstance(r, Scheduled)}
        assert planned == {number: (due_ms, len(body)) for number, (body, due_ms) in self.scheduled.items()}
        depths = {r.queue_id: (r.live, r.live_bytes) for r in loaded if isinstance(r, QueueDepth)}
        assert depths == {q: (len(live), sum(len(b) for b, *_ in live.values())) for q, live in self.disk.items() if live}
        for record in loaded:
            if isinstance(record, QueueDepth):
                assert record.next_position > max(self.disk[record.queue_id])
        for queue in self.queues:  # the engine's positions begin after what is there
            self.rig.positions[queue] = max([self.rig.positions.get(queue, 0), *self.disk.get(queue, {})])

    # -- what must hold --

    @rule(max_bytes=st.sampled_from([1, 2000, 1 << 20]))
    @precondition(lambda self: not self.rig.batch)
    def read_all(self, max_bytes: int) -> None:
        for queue in range(1, self.next_queue):
            expected = self.disk.get(queue, {})
            found = self.rig.drain(queue, max_bytes=max_bytes)
            assert [r.position for r in found] == sorted(expected)
            assert {r.position: (r.message.body, r.options, r.count, r.due_ms) for r in found} == expected

    @rule()
    @precondition(lambda self: not self.rig.batch)
    def read_all_scheduled(self) -> None:
        found = read_scheduled(self.rig, *range(self.next_scheduled))()
        assert [(n, m.body) for n, m in found] == [(n, body) for n, (body, _) in sorted(self.scheduled.items())]

    @invariant()
    def rows_agree(self) -> None:
        if self.directory is not None:
            check_rows(self.directory / "data" / "journal.db")


def check_rows(path: Path) -> None:
    """Every segment has a row per queue that has something live in it, with the right numbers, and nothing is left over."""
    connection = sqlite3.connect(path)
    segments = dict(connection.execute("SELECT id, idx FROM seg").fetchall())
    bits = dict(connection.execute("SELECT seg, bits FROM segack").fetchall())
    rows: dict[int, list[tuple[int, ...]]] = {}
    for seg, *row in connection.execute("SELECT seg, queue, first_position, last_position, live, live_bytes FROM segq"):
        rows.setdefault(seg, []).append(tuple(row))
    redelivered = {seg for (seg,) in connection.execute("SELECT seg FROM redelivered")}
    connection.close()
    assert segments.keys() == rows.keys()
    assert bits.keys() <= segments.keys()
    assert redelivered <= segments.keys()
    for seg, idx in segments.items():
        index = Index(idx)
        settled = bits.get(seg, b"").ljust(len(index.queues), b"\0")
        for queue, first, last, live, live_bytes in rows[seg]:
            slots = [slot for slot in index.slots_of(queue, 0) if not settled[slot >> 3] & 1 << (slot & 7)]
            assert (live, live_bytes) == (len(slots), sum(map(index.body_bytes, slots)))
            positions = [index.positions[slot] for slot in index.slots_of(queue, 0)]
            assert (first, last) == (min(positions), max(positions))


def _run(new_rig, *, on_disk: bool, examples: int, steps: int = 30) -> None:
    machine = type("Machine", (JournalMachine,), {"new_rig": staticmethod(new_rig), "on_disk": on_disk})
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[phase for phase in settings.default.phases if phase not in (Phase.explicit, Phase.explain)],
        print_blob=True,
    )
    run_state_machine_as_test(machine, settings=chosen)


def test_memory_does_what_a_dictionary_does(new_rig):
    _run(new_rig, on_disk=False, examples=60)


def test_sqlite_does_what_a_dictionary_does(new_rig):
    _run(new_rig, on_disk=True, examples=12)


@pytest.fixture
def eager(monkeypatch):
    """Compaction takes every segment that anything is settled in, in small parts, at once."""
    monkeypatch.setattr(compaction, "UNCHANGED_COMMITS", 0)
    monkeypatch.setattr(leftovers, "TINY", 0)
    monkeypatch.setattr(leftovers, "SPARSE_PART", 1)
    monkeypatch.setattr(leftovers, "MOST_REFERENCES", 5)


def test_so_it_does_when_segments_are_compacted_at_every_step(new_rig, eager):
    _run(new_rig, on_disk=True, examples=15)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("on_disk", [False, True], ids=["memory", "sqlite"])
def test_many_more_histories(new_rig, on_disk):
    _run(new_rig, on_disk=on_disk, examples=150, steps=60)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_more_histories_with_compaction(new_rig, eager):
    _run(new_rig, on_disk=True, examples=150, steps=60)


def test_the_row_check_sees_what_is_wrong(sqlite_rig, tmp_path):
    sqlite_rig.record(QueueDeclared("/", 1, QueueSpec("q1")))
    sqlite_rig.publish(b"x", 1, address=Address("/", "", "k"))
    sqlite_rig.commit()
    path = tmp_path / "data" / "journal.db"
    check_rows(path)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE segq SET live = 2")
    connection.close()
    with pytest.raises(AssertionError):
        check_rows(path)
