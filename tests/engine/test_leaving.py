"""Do the last values of a deleted exchange go for good, a part at a time, and never come back, restarts in between too?"""

import pytest

from gateway.engine.engine import Engine
from gateway.engine.leaving import AT_ONCE, LEAVING, SINCE
from gateway.engine.timers import NOTHING_DUE
from gateway.errors import Overloaded
from gateway.journal.memory import MemoryJournal, MemoryStore
from gateway.journal.sqlite import SqliteJournal
from gateway.model.declare import ExchangeSpec
from gateway.model.message import Address, Decoders, Message
from gateway.model.records import Retained, StatePut
from tests.engine.journals import JournalDisk
from tests.engine.support import Events

NOW = 1_000_000
MANY = 3 * AT_ONCE + 7


class House:
    """An engine on a journal, that can be started again on what is on disk."""

    def __init__(self, make):
        self.disk = JournalDisk(make)
        self.engine = None
        self.start(())

    def start(self, records):
        self.engine = Engine(Events(), Decoders().properties)
        for record in records:
            self.engine.replay(record)
        self.engine.now_ms = NOW

    def commit(self):
        self.disk.apply(self.disk.prepare(self.engine.take_batch()))
        self.engine.batch_prepared()
        self.engine.committed()

    def restart(self):
        """As after a crash: what was not committed is gone."""
        self.start(list(self.disk.load()))

    def declare(self, name="e", **how):
        self.engine.definitions.declare_exchange("/", ExchangeSpec(name, "topic", **how))

    def delete(self, name="e"):
        self.engine.definitions.delete_exchange("/", name)

    def fill(self, count, body=b"old", **how):
        for number in range(count):
            self.put(f"k.{number:05}", body, **how)

    def put(self, key, body, **how):
        address = Address("/", "e", key)
        assert self.engine.kept.values.put(address, Message(address, body, True, **how)) is None

    def seen(self):
        return {message.routing_key: message.body for message in self.engine.kept.retained("/", "e", "#")}

    def go_on(self, parts=1):
        for _ in range(parts):
            self.engine.advance(self.engine.now_ms + 1)

    def go_to_the_end(self):
        while self.engine.timers.next_due_ms < NOTHING_DUE:
            self.engine.advance(max(self.engine.timers.next_due_ms, self.engine.now_ms))

    def left(self):
        """What is on disk, and what says that something goes."""
        records = list(self.disk.load())
        values = {record.key: record.message.body for record in records if isinstance(record, Retained)}
        notes = [record for record in records if isinstance(record, StatePut) and record.namespace in (LEAVING, SINCE)]
        return values, notes


@pytest.fixture(params=["memory", "sqlite"])
def house(request, tmp_path):
    store = MemoryStore()
    made = House((lambda: MemoryJournal(store)) if request.param == "memory" else lambda: SqliteJournal(tmp_path / "j"))
    yield made
    made.disk.close()


@pytest.mark.parametrize("count", [1, AT_ONCE, AT_ONCE + 1, MANY])
def test_the_last_values_of_a_deleted_exchange_go_from_memory_and_disk(house, count):
    house.declare()
    house.fill(count)
    house.commit()
    house.delete()
    assert house.seen() == {}
    house.go_to_the_end()
    house.commit()
    assert house.engine.kept.values.held("/") == (0, 0)
    assert house.left() == ({}, [])


def test_no_turn_lets_go_of_more_than_a_part(house):
    house.declare()
    house.fill(MANY)
    house.commit()
    house.delete()
    sizes = [len(house.engine.take_batch().records)]
    while house.engine.timers.next_due_ms < NOTHING_DUE:
        house.go_on()
        sizes.append(len(house.engine.take_batch().records))
    assert max(sizes) <= AT_ONCE + 3
    assert sum(sizes) > MANY


def test_an_exchange_that_is_declared_again_at_once_begins_empty_and_keeps_what_it_gets(house):
    house.declare()
    house.fill(MANY)
    house.commit()
    house.delete()
    house.declare()
    assert house.seen() == {}
    house.put("k.00003", b"new")
    house.put("other", b"new")
    house.put("k.00004", b"new")
    house.put("k.00004", b"")
    house.go_to_the_end()
    house.commit()
    new = {"k.00003": b"new", "other": b"new"}
    assert house.seen() == new
    assert house.left() == (new, [])
    assert house.engine.kept.values.held("/")[0] == 2


@pytest.mark.parametrize("parts", range(6))
def test_a_restart_in_the_middle_brings_nothing_back_and_loses_nothing_new(house, parts):
    house.declare()
    house.fill(MANY)
    house.commit()
    house.delete()
    house.declare()
    house.put("k.00003", b"new")
    house.put(f"k.{MANY - 1:05}", b"new")
    house.go_on(parts)
    house.put("k.00005", b"late")
    house.commit()
    new = {"k.00003": b"new", "k.00005": b"late", f"k.{MANY - 1:05}": b"new"}
    house.restart()
    assert house.seen() == new
    house.go_on(2)
    house.put("k.00006", b"later")
    house.commit()
    house.restart()
    new["k.00006"] = b"later"
    assert house.seen() == new
    house.go_to_the_end()
    house.commit()
    assert house.left() == (new, [])
    house.restart()
    assert house.seen() == new
    assert house.engine.kept.values.held("/")[0] == len(new)


def test_what_was_put_between_two_deletions_does_not_come_back_either(house):
    house.declare()
    house.fill(MANY)
    house.commit()
    for body in (b"first", b"second"):
        house.delete()
        house.declare()
        house.put("k.00001", body)
        house.put(f"only {body}", body)
        house.go_on()
        house.commit()
    new = {"k.00001": b"second", f"only {b'second'}": b"second"}
    house.restart()
    assert house.seen() == new
    house.go_to_the_end()
    house.commit()
    assert house.left() == (new, [])


def test_a_crash_before_the_deletion_is_on_disk_leaves_all_of_it(house):
    house.declare()
    house.fill(MANY)
    house.commit()
    house.delete()
    house.go_on(2)
    house.restart()
    assert len(house.seen()) == MANY


def test_values_of_an_exchange_that_does_not_outlast_a_restart_go_with_it(house):
    house.declare(durable=False)
    house.fill(MANY)
    house.commit()
    house.restart()
    house.declare()
    assert house.seen() == {}
    house.put("k.00001", b"new")
    house.go_on(2)
    house.commit()
    house.restart()
    assert house.seen() == {"k.00001": b"new"}
    house.go_to_the_end()
    house.commit()
    assert house.left() == ({"k.00001": b"new"}, [])


def test_what_expires_while_it_goes_takes_nothing_new_with_it(house):
    house.declare()
    house.fill(MANY, expires_at_ms=NOW + 2)
    house.delete()
    house.declare()
    house.put("k.00001", b"new")
    house.go_to_the_end()
    house.engine.advance(NOW + 10_000)
    house.commit()
    assert house.seen() == {"k.00001": b"new"}
    assert house.left() == ({"k.00001": b"new"}, [])


def test_a_look_up_that_is_under_way_finds_no_more(house):
    house.declare()
    house.fill(MANY)
    found = house.engine.kept.values.look_up("/", "e", "#")
    assert found.next_slice(10, 10)
    house.delete()
    rest = []
    while not found.done:
        rest += found.next_slice(100, 100)
    assert rest == []


def test_while_the_journal_takes_nothing_nothing_is_recorded(house):
    house.declare(durable=False)
    house.fill(MANY)
    house.commit()
    house.engine.refusal = Overloaded("full")
    house.delete()
    house.go_on(20)
    assert not any(isinstance(record, Retained) for record in house.engine.take_batch().records)
    assert house.seen() == {}
    house.engine.refusal = None
    house.go_to_the_end()
    house.commit()
    assert house.left()[0] == {}
