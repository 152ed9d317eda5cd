"""How do definitions, retained values and state become rows, and back?"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields
from datetime import datetime
from enum import Enum
from sqlite3 import Connection
from typing import Any
from zlib import crc32

from gateway.errors import JournalError
from gateway.journal.segment import decode_address, encode_address
from gateway.model.declare import Binding, BindingOptions, ExchangeSpec, Overflow, QueueSpec, Retry
from gateway.model.message import Message
from gateway.model.records import (
    Bound,
    ExchangeDeclared,
    ExchangeDeleted,
    MessageScheduled,
    QueueDeclared,
    QueueDeleted,
    QueueDepth,
    Record,
    Retained,
    Scheduled,
    ScheduledGone,
    StatePut,
    Unbound,
)

Span = list[int]
"""[first byte (from 1), length] in the blob that carries all texts."""


# -- JSON of specifications ---------------------------------------------


def spec_text(spec: ExchangeSpec | QueueSpec, known: frozenset[str]) -> str:
    """Return the JSON of what differs from the default and is not in a column of its own."""
    values = {field.name: getattr(spec, field.name) for field in fields(spec) if field.name not in known}
    default = type(spec)("")
    return value_text({name: value for name, value in values.items() if value != getattr(default, name)})


def value_text(value: Any) -> str:
    """Return canonical JSON; bytes and times are tagged, what JSON has no word for is its text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_tagged)


def _tagged(value: object) -> Any:
    match value:
        case bytes() | bytearray() | memoryview():
            return {"$bytes": b64encode(value).decode()}
        case datetime():
            return {"$datetime": value.isoformat()}
        case Enum():
            return value.value
        case Mapping():
            return dict(value)
        case Retry():
            return asdict(value)
        case _:
            return str(value)


def _untagged(value: dict[str, Any]) -> Any:
    match value:
        case {"$bytes": str(text)} if len(value) == 1:
            return b64decode(text)
        case {"$datetime": str(text)} if len(value) == 1:
            return datetime.fromisoformat(text)
        case _:
            return value


_decoder = json.JSONDecoder(object_hook=_untagged)


def parse_value(text: str) -> Any:
    """Read what `value_text` wrote."""
    return _decoder.decode(text) if text != "{}" else {}


_EXCHANGE_COLUMNS = frozenset(("name", "type", "durable"))
_QUEUE_COLUMNS = frozenset(("name", "durable"))


# -- towards the disk ---------------------------------------------------


class Changes:
    """What a batch says besides messages and acknowledgements; the last word on each thing holds."""

    __slots__ = (
        "_bindings",
        "_exchanges",
        "_queues",
        "_retained",
        "_scheduled",
        "_state",
        "next_queue",
        "purged",
        "quarantined",
        "redelivered",
    )

    def __init__(self) -> None:
        self._exchanges: dict[tuple[str, str], ExchangeSpec | None] = {}
        self._queues: dict[int, QueueDeclared | None] = {}
        self._bindings: dict[tuple[str, tuple[object, ...]], tuple[Binding, bool]] = {}
        self._retained: dict[tuple[str, str, str], Message | None] = {}
        self._state: dict[tuple[str, str], bytes | None] = {}
        self._scheduled: dict[int, MessageScheduled | None] = {}
        self.next_queue: int = 0
        self.purged: list[list[int]] = []
        self.redelivered: list[list[int]] = []
        self.quarantined: list[list[int]] = []

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in self.__slots__)

    def add(self, record: Record) -> None:  # noqa: C901 - a case per record
        """Take a record; purges and delivery counts are the caller's."""
        match record:
            case Retained(vhost=vhost, exchange=exchange, key=key, message=message):
                self._retained[vhost, exchange, key] = message
            case StatePut(namespace=namespace, key=key, value=value):
                self._state[namespace, key] = value
            case ExchangeDeclared(vhost=vhost, spec=spec):
                self._exchanges[vhost, spec.name] = spec
            case ExchangeDeleted(vhost=vhost, name=name):
                self._exchanges[vhost, name] = None
            case QueueDeclared(queue_id=queue_id, spec=queue):
                self._queues[queue_id] = record
                self.next_queue = max(self.next_queue, queue_id + queue.max_priority + 1)
            case QueueDeleted(queue_id=queue_id):
                self._queues[queue_id] = None
            case Bound(vhost=vhost, binding=binding):
                self._bindings[vhost, binding.identity()] = (binding, True)
            case Unbound(vhost=vhost, binding=binding):
                self._bindings[vhost, binding.identity()] = (binding, False)
            case MessageScheduled(scheduled_id=scheduled_id):
                self._scheduled[scheduled_id] = record
            case ScheduledGone(scheduled_id=scheduled_id):
                self._scheduled[scheduled_id] = None
            case _:
                pass

    def columns(self) -> tuple[bytes | str | int | None, ...]:
        """Return the columns of full_commit from `data` on (schema.sql)."""
        pool = _Pool()
        exchanges, queues, bindings = self._exchanges.items(), self._queues.items(), self._bindings.items()
        lists: list[list[Any]] = [
            [pool.texts(*names, spec.type, spec_text(spec, _EXCHANGE_COLUMNS)) for names, spec in exchanges if spec],
            [pool.texts(*names) for names, spec in exchanges if not spec],
            [[number, *pool.texts(q.vhost, q.spec.name, spec_text(q.spec, _QUEUE_COLUMNS))] for number, q in queues if q],
            [number for number, queue in queues if not queue],
            [pool.binding(key[0], binding) + pool.texts(binding.options.text()) for key, (binding, here) in bindings if here],
            [pool.binding(key[0], binding) for key, (binding, here) in bindings if not here],
            [pool.retained(names, message) for names, message in self._retained.items() if message],
            [pool.texts(*names) for names, message in self._retained.items() if not message],
            [pool.texts(*names) + pool.blob(value) for names, value in self._state.items() if value is not None],
            [pool.texts(*names) for names, value in self._state.items() if value is None],
            self.purged,
            self.redelivered,
            self.quarantined,
            [pool.scheduled(record) for record in self._scheduled.values() if record],
            [number for number, record in self._scheduled.items() if not record],
        ]
        return (b"".join(pool.parts), *map(json.dumps, lists), self.next_queue or None)


def message_crc(address: bytes, wire: bytes, body: bytes) -> int:
    """Return the CRC-32 that guards a message in a row of its own."""
    return crc32(body, crc32(wire, crc32(address)))


class _Pool:
    """All texts and blobs of a commit, one after the other."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self._end = 1

    def blob(self, value: bytes) -> Span:
        start = self._end
        self.parts.append(value)
        self._end += len(value)
        return [start, len(value)]

    def texts(self, *texts: str) -> list[int]:
        return [number for text in texts for number in self.blob(text.encode("utf-8", "surrogatepass"))]

    def binding(self, vhost: str, binding: Binding) -> list[int]:
        rest = self.texts(binding.destination, binding.key, value_text(binding.arguments))
        return [*self.texts(vhost, binding.source), int(binding.to_exchange), *rest]

    def retained(self, names: tuple[str, str, str], message: Message) -> list[int]:
        return [*self.texts(*names), int(message.persistent), *self.message(message)]

    def scheduled(self, record: MessageScheduled) -> list[int]:
        message = record.message
        names = self.texts(message.address.vhost, message.address.exchange, message.address.routing_key)
        return [record.scheduled_id, record.due_ms, *names, *self.message(message)]

    def message(self, message: Message) -> list[int]:
        address = encode_address(message.address)
        numbers = [message.priority, message.expires_at_ms, message_crc(address, message.wire, message.body)]
        return [*numbers, *self.texts(message.wire_tag), *self.blob(address), *self.blob(message.wire), *self.blob(message.body)]


# -- from the disk ------------------------------------------------------


def load_records(connection: Connection, lost: Callable[[str], None]) -> Iterator[Record]:
    """Yield what lasts. A retained value that is damaged is left out and reported to `lost`.

    Raises:
        JournalError: a definition that this broker doesn't understand.
    """
    for vhost, name, type_, spec in connection.execute("SELECT vhost, name, type, spec FROM exchange"):
        yield ExchangeDeclared(vhost, _exchange(name, type_, spec))
    for number, vhost, name, spec in connection.execute("SELECT id, vhost, name, spec FROM queue ORDER BY id"):
        yield QueueDeclared(vhost, number, _queue(name, spec))
    rows = connection.execute("SELECT vhost, source, to_exchange, destination, key, arguments, options FROM binding")
    for vhost, source, to_exchange, destination, key, arguments, options in rows:
        given, chosen = parse_value(arguments), BindingOptions.parse(options)
        yield Bound(vhost, Binding(source, destination, key, bool(to_exchange), given, chosen))
    depths = "SELECT queue, sum(live), sum(live_bytes), max(last_position) FROM segq GROUP BY queue"
    for queue_id, live, live_bytes, last_position in connection.execute(depths):
        yield QueueDepth(queue_id, live, live_bytes, last_position + 1)
    yield from _retained(connection, lost)
    rows = connection.execute("SELECT id, due_ms, vhost, exchange, key, length(body) FROM scheduled ORDER BY id")
    for row in rows:
        yield Scheduled(*row)
    for namespace, key, value in connection.execute("SELECT namespace, key, value FROM state"):
        yield StatePut(namespace, key, value)


def _exchange(name: str, type_: str, spec: str) -> ExchangeSpec:
    try:
        return ExchangeSpec(name, type_, **parse_value(spec))
    except (TypeError, ValueError) as error:
        raise JournalError(f"the journal has an exchange {name!r} that this version does not understand: {error}") from error


def _queue(name: str, spec: str) -> QueueSpec:
    try:
        values = parse_value(spec)
        if "overflow" in values:
            values["overflow"] = Overflow(values["overflow"])
        if "retry" in values:
            values["retry"] = Retry(**values["retry"])
        return QueueSpec(name, **values)
    except (TypeError, ValueError) as error:
        raise JournalError(f"the journal has a queue {name!r} that this version does not understand: {error}") from error


def next_queue_id(connection: Connection) -> int:
    """Return what is greater than every id of a queue that was ever given."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'next_queue'").fetchone()
    return row[0] if row is not None else 1


def _retained(connection: Connection, lost: Callable[[str], None]) -> Iterator[Record]:
    columns = "vhost, exchange, key, persistent, priority, expires_at_ms, wire_tag, crc, address, wire, body"
    for row in connection.execute(f"SELECT {columns} FROM retained"):  # noqa: S608 - a constant
        vhost, exchange, key, persistent, priority, expires_at_ms, wire_tag, crc, address, wire, body = row
        if message_crc(address, wire, body) != crc:
            lost(f"the last value of {key!r} of exchange {exchange!r} in virtual host {vhost!r} is damaged and left out")
            continue
        message = Message(decode_address(address), body, bool(persistent), wire_tag, wire, priority, expires_at_ms)
        yield Retained(vhost, exchange, key, message)
