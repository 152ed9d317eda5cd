"""Journals to look at: what a broker would have left, made without one."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager

from gateway.journal.sqlite import SqliteJournal
from gateway.model.declare import Binding, ExchangeSpec, QueueSpec
from gateway.model.message import Address
from gateway.model.properties import Properties, encode_properties
from gateway.model.records import Bound, DeliveryCounted, ExchangeDeclared, QueueDeclared, Retained, StatePut
from tests.journal.conftest import Rig

ORDERS, URGENT, EMPTY = 1, 2, 6


@contextmanager
def rig(directory):
    """A journal that is written to as an engine would; closed in order at the end."""
    found = Rig(lambda: SqliteJournal(directory))
    found.open()
    yield found
    found.journal.close(clean=True)


def properties(**values):
    return {"wire_tag": "common", "wire": encode_properties(Properties(**values))}


def fill(found, *, messages=20):
    """Definitions, `messages` orders of which every third is settled, four urgent ones by priority, one retained value."""
    found.record(
        ExchangeDeclared("/", ExchangeSpec("shop", "topic")),
        QueueDeclared("/", ORDERS, QueueSpec("orders")),
        QueueDeclared("/", URGENT, QueueSpec("urgent", max_priority=3)),
        QueueDeclared("/", EMPTY, QueueSpec("empty")),
        Bound("/", Binding("shop", "orders", "order.#")),
        StatePut("somebody", "key", b"value"),
    )
    address = Address("/", "shop", "order.new")
    references = []
    for number in range(messages):
        body = b'{"id": %d, "customer": {"name": "%s"}}' % (number, b"ada" if number % 2 else b"bob")
        said = properties(content_type="application/json", headers={"region": "north" if number % 4 else "south"})
        references += found.publish(body, ORDERS, address=address, **said)
        if number % 7 == 6:
            found.commit()
    found.commit()
    for lane, body in ((URGENT, b"low"), (URGENT + 3, b"high"), (URGENT + 1, b"\x00\xff\x01"), (URGENT + 3, b"high too")):
        found.publish(body, lane, address=address)
    found.commit()
    found.settle(*references[::3])
    if references:
        found.record(DeliveryCounted(references[1], 2))
    message = found.publish(b"21.5", ORDERS)[0].message
    found.record(Retained("/", "amq.topic", "plant.3.temperature", message))
    found.commit()
    return [number for number in range(messages) if number % 3]


def fingerprint(directory):
    """Names, sizes, times of change and contents of all files but the log's index, which processes share, and the lock."""
    return {
        path.name: (path.stat().st_size, path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(directory.iterdir())
        if path.is_file() and not path.name.endswith(("-shm", ".lock"))
    }
