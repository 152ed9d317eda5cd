"""What is in memory, but not on disk, when publishers are told no?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from gateway.api.channel import Outcome
from gateway.engine.queues.consumer import Consumer
from gateway.engine.queues.delivery import Entry
from gateway.model.declare import Binding
from gateway.model.records import (
    Bound,
    ExchangeDeclared,
    MessageScheduled,
    QueueDeclared,
    Record,
    Retained,
    ScheduledGone,
    StatePut,
)

Key: TypeAlias = tuple[object, ...]


class Kept(Outcome):
    """Of a message that reached no queue, but is a last value, which has to be on disk."""

    __slots__ = ()


def stays(outcome: Outcome) -> bool:
    """Say whether an outcome holds, whatever becomes of the journal."""
    unroutable = outcome.unroutable and not isinstance(outcome, Kept)
    return outcome.error is not None or unroutable or isinstance(outcome.result, Entry | Consumer)


def exchange_key(vhost: str, name: str) -> Key:
    """Return what tells one exchange from all other definitions."""
    return ("exchange", vhost, name)


def queue_key(vhost: str, name: str) -> Key:
    """Return what tells one queue from all other definitions."""
    return ("queue", vhost, name)


def binding_key(vhost: str, binding: Binding) -> Key:
    """Return what tells one binding from all other definitions."""
    return ("binding", vhost, *binding.identity())


def definitions(records: Iterable[Record]) -> set[Key]:
    """Return the keys of what records declare."""
    keys: set[Key] = set()
    for record in records:
        match record:
            case ExchangeDeclared(vhost=vhost, spec=exchange):
                keys.add(exchange_key(vhost, exchange.name))
            case QueueDeclared(vhost=vhost, spec=queue):
                keys.add(queue_key(vhost, queue.name))
            case Bound(vhost=vhost, binding=binding):
                keys.add(binding_key(vhost, binding))
            case _:
                pass
    return keys


def undoing(former: Iterable[Record], latter: Iterable[Record]) -> list[Record]:
    """Return of the latter records those that take back something of the former ones: state put anew, scheduled messages gone."""
    keys: set[Key] = set()
    for record in former:
        if isinstance(record, StatePut):
            keys.add((record.namespace, record.key))
        elif isinstance(record, MessageScheduled):
            keys.add((record.scheduled_id,))
    return [record for record in latter if _undone_key(record) in keys]


def _undone_key(record: Record) -> Key | None:
    if isinstance(record, StatePut):
        return (record.namespace, record.key)
    return (record.scheduled_id,) if isinstance(record, ScheduledGone) else None


def without_repeats(records: list[Record]) -> list[Record]:
    """Return records, of last values and of state only the last of each key: the others say nothing any more."""
    seen: set[Key] = set()
    kept: list[Record] = []
    for record in reversed(records):
        key: Key | None = None
        if isinstance(record, StatePut):
            key = ("state", record.namespace, record.key)
        elif isinstance(record, Retained):
            key = ("retained", record.vhost, record.exchange, record.key)
        if key is None or key not in seen:
            kept.append(record)
        if key is not None:
            seen.add(key)
    kept.reverse()
    return kept
