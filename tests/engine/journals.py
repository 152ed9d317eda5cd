"""What is on disk, if a real journal writes it? The same questions as to `Disk`."""

from __future__ import annotations

import threading

from gateway.model.declare import QueueSpec
from gateway.model.records import Bound, QueueDeclared, Retained

ALL = 1 << 30


class JournalDisk:
    """A journal behind the calls of `Disk`: one step at a time, each waited for."""

    def __init__(self, make) -> None:
        self._make = make
        self._journal = make()
        self._journal.open()
        self._declared: dict[int, QueueSpec] = {}
        self.written: set[bytes] = set()
        list(self._journal.load())

    @property
    def carried(self) -> bool:
        """Something was settled automatically and goes with the next commit."""
        return bool(self._journal._deferred)

    def prepare(self, batch):
        self.written = {message.body for message in batch.messages if message.live > 0}
        for record in batch.records:
            if isinstance(record, QueueDeclared):
                self._declared.pop(record.queue_id, None)
                self._declared[record.queue_id] = record.spec
        return self._journal.prepare(batch) or ()

    def apply(self, commit) -> None:
        if commit == ():
            return
        told, outcome = threading.Event(), []
        self._journal.write(commit, lambda error: (outcome.append(error), told.set()))
        assert told.wait(10)
        assert outcome == [None]

    def page(self, queue_id, after_position, max_bytes):
        told, answer = threading.Event(), []
        self._journal.read_page(queue_id, after_position, max_bytes, lambda page: (answer.append(page), told.set()))
        assert told.wait(10)
        return answer[0]()

    def load(self):
        """End the journal, start another on what it left, and yield what that says."""
        self.close()
        self._journal = self._make()
        self._journal.open()
        return self._journal.load()

    def close(self) -> None:
        self._journal.close()

    def bodies(self, name):
        """Return what a queue holds, in order, the lowest priority first: each priority is a queue of its own here."""
        (first,) = [queue_id for queue_id, spec in self._declared.items() if spec.name == name][-1:]
        lanes = [self.page(first + priority, 0, ALL) for priority in range(self._declared[first].max_priority + 1)]
        return [reference.message.body for page in lanes for reference in page.references]

    def _records(self, kind):
        return [record for record in self._journal.load() if isinstance(record, kind)]

    def granted(self):
        return {(r.binding.destination, r.binding.key): r.binding.options.qos for r in self._records(Bound)}

    def last_values(self):
        return {record.key: record.message.body for record in self._records(Retained)}
