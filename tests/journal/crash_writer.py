"""What is written to a journal that will be killed, or lose its power? The same in every process, step by step.

    python crash_writer.py DIRECTORY SYNCHRONOUS SEED STEPS [TRACE]

goes on where the directory ends, and says `STEP` on a line of its own when a step is confirmed - or, with TRACE, appends it to
that file as a record of the shim (operation C).
"""

from __future__ import annotations

import os
import queue
import random
import struct
import sys
from pathlib import Path

from gateway.errors import JournalError
from gateway.journal import compaction, leftovers
from gateway.journal.space import Space
from gateway.journal.sqlite import SqliteJournal
from gateway.model.declare import QueueSpec
from gateway.model.message import Address, Message
from gateway.model.records import Batch, QueueDeclared, QueuePurged, Reference, StatePut

QUEUES = (1, 2)


class History:
    """What is live after each step: per queue, position -> body."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.step = 0
        self.live: dict[int, dict[int, bytes]] = {number: {} for number in QUEUES}
        self.position = 0

    def advance(self) -> tuple[list[tuple[bytes, tuple[int, ...], int]], list[tuple[int, int]], bool]:
        """Take a step: messages (body, queues, position), what is settled, whether queue 2 is purged."""
        self.step += 1
        chance = random.Random(f"{self.seed} {self.step}")
        purge = self.step % 23 == 0
        if purge:
            self.live[2].clear()
        settled = []
        for number in QUEUES:
            live = list(self.live[number])
            chosen = live[: max(len(live) - 150, 0)] + chance.sample(live, min(len(live) // 10, 15))
            settled += [(number, position) for position in dict.fromkeys(chosen)]
        for number, position in settled:
            del self.live[number][position]
        messages = []
        for _ in range(chance.choice((1, 3, 40))):
            self.position += 1
            body = b"%d:" % self.position + b"x" * chance.choice((0, 50, 300, 300, 9000 if chance.random() < 0.1 else 10))
            where = chance.choice(((1,), (2,), (1, 2)))
            messages.append((body, where, self.position))
            for number in where:
                self.live[number][self.position] = body
        return messages, settled, purge

    def state(self) -> dict[int, list[tuple[int, bytes]]]:
        return {number: sorted(self.live[number].items()) for number in QUEUES}


def read_state(journal: SqliteJournal) -> tuple[int, dict[int, list]]:
    """Return the step that a journal has come to, and what is in it."""
    step = 0
    for record in journal.load():
        if isinstance(record, StatePut):
            step = int(record.value)
    found: dict[int, list] = {number: [] for number in QUEUES}
    if not step:
        return step, found  # without opening the reader: then an error closes the last connection
    for number in QUEUES:
        after = 0
        while page := read_page(journal, number, after):
            found[number] += page
            after = page[-1].position
    return step, found


def read_page(journal: SqliteJournal, number: int, after: int) -> list:
    answers: queue.SimpleQueue = queue.SimpleQueue()
    journal.read_page(number, after, 1 << 20, answers.put)
    page = answers.get(timeout=60)()
    if page.lost:
        raise JournalError("a damaged segment")
    return page.references


def states(seed: int, last: int) -> list[dict]:
    """Return what must be live after each step from 0 to `last`."""
    history = History(seed)
    found = [history.state()]
    for _ in range(last):
        history.advance()
        found.append(history.state())
    return found


def verdict(directory: Path, confirmed: int, expected: list[dict]) -> str:
    """Compare a journal with the only two states that are right: the last confirmed one, and the one that was under way."""
    journal = SqliteJournal(directory, synchronous="OFF")
    try:
        journal.open()
        step, found = read_state(journal)
    except JournalError:
        return "damaged"
    finally:
        journal.close(clean=False)
    if step < confirmed:
        return "lost"
    state = {number: [(one.position, one.message.body) for one in paged] for number, paged in found.items()}
    return "right" if step <= confirmed + 1 and state == expected[step] else "wrong"


def write(journal: SqliteJournal, commit, attempts: int = 1) -> None:
    answers: queue.SimpleQueue = queue.SimpleQueue()
    for _ in range(attempts):
        journal.write(commit, answers.put)
        error = answers.get(timeout=60)
        if error is None:
            return
        sys.stderr.write(f"{error}\n")
    raise error


def find_leftovers(journal: SqliteJournal) -> None:
    """Have what is worth it read, so that the next commit moves it."""
    for _ in range(3):
        journal.look()
        read_page(journal, 99, 0)


def batch_of(history: History, references: dict[tuple[int, int], Reference]) -> Batch:
    messages, settled, purge = history.advance()
    batch = Batch()
    if history.step == 1:
        batch.records += [QueueDeclared("/", number, QueueSpec(f"q{number}")) for number in QUEUES]
    if purge:
        batch.records.append(QueuePurged(2))
        for key in [key for key in references if key[0] == 2]:
            del references[key]
    batch.records.append(StatePut("test", "step", b"%d" % history.step))
    for body, where, position in messages:
        message = Message(Address("/", "amq.topic", f"key.{position % 7}"), body, True, "mqtt", b"\1")
        batch.messages.append(message)
        for number in where:
            reference = Reference(message, number, position, None)
            references[number, position] = reference
            message.live += 1
            if message.first is None:
                message.first = reference
            else:
                message.more = [reference]
    for key in settled:
        reference = references.pop(key)
        reference.settled = True
        batch.settled.append(reference)
    return batch


def main(directory: str, synchronous: str, seed: str, steps: str, trace: str = "") -> None:
    ballast = 1 << 20 if os.environ.get("BALLAST") else 0
    space = Space(Path(directory), min_free_bytes=0, ballast_bytes=ballast)
    journal = SqliteJournal(Path(directory), synchronous=synchronous, wal_autocheckpoint=60, space=space)
    journal.open()
    step, found = read_state(journal)
    history = History(int(seed))
    while history.step < step:
        history.advance()
    references = {}
    for number, paged in found.items():
        for one in paged:
            reference = references[number, one.position] = Reference(one.message, number, one.position, one.options)
            reference.segment, reference.slot = one.segment, one.slot
    out = os.open(trace, os.O_WRONLY | os.O_APPEND) if trace else 1
    attempts = int(os.environ.get("ATTEMPTS", "1"))
    compacting = bool(os.environ.get("COMPACT"))
    if compacting:
        compaction.UNCHANGED_COMMITS, leftovers.SPARSE_PART, leftovers.TINY = 0, 2, 0
    for _ in range(int(steps)):
        if compacting:
            find_leftovers(journal)
        write(journal, journal.prepare(batch_of(history, references)), attempts)
        line = b"%d\n" % history.step
        os.write(out, struct.pack("<cBQI", b"C", 0, 0, len(line)) + line if trace else line)
    if os.environ.get("CLOSE"):
        journal.close()
    if compacting:
        sys.stderr.write(f"moved {journal.counters.references_moved}\n")
        sys.stderr.flush()
    if os.environ.get("SYNCS"):
        sys.stderr.write(f"syncs {journal.counters.syncs_at_least}\n")
        sys.stderr.flush()
    os._exit(0)  # no tidying up: that would be a checkpoint


if __name__ == "__main__":
    main(*sys.argv[1:])
