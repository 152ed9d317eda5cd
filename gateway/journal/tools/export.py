"""How does a journal become a database that anybody can read?"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from gateway.errors import JournalUnwritable
from gateway.journal.tools.files import draft_of, drafted, make_private
from gateway.journal.tools.inspection import StoredQueue, queues_of, reading
from gateway.journal.tools.peek import Peeked, peek
from gateway.model.message import Message
from gateway.model.properties import Properties

_SCHEMA = """
CREATE TABLE message (
  vhost TEXT NOT NULL, queue TEXT NOT NULL, priority INTEGER NOT NULL, position INTEGER NOT NULL,
  stored_ms INTEGER NOT NULL, deliveries INTEGER NOT NULL, due_ms INTEGER NOT NULL, expires_at_ms INTEGER NOT NULL,
  exchange TEXT NOT NULL, routing_key TEXT NOT NULL, message_priority INTEGER NOT NULL,
  content_type TEXT, content_encoding TEXT, headers TEXT, correlation_id, reply_to TEXT, expiration_ms INTEGER, message_id TEXT,
  timestamp_s INTEGER, type TEXT, user_id TEXT, app_id TEXT,
  wire_tag TEXT NOT NULL, wire BLOB NOT NULL, body_bytes INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE TABLE queue (
  vhost TEXT NOT NULL, name TEXT NOT NULL, messages INTEGER NOT NULL, body_bytes INTEGER NOT NULL, spec TEXT NOT NULL
);
CREATE TABLE exchange (vhost TEXT NOT NULL, name TEXT NOT NULL, type TEXT NOT NULL, spec TEXT NOT NULL);
CREATE TABLE binding (
  vhost TEXT NOT NULL, source TEXT NOT NULL, to_exchange INTEGER NOT NULL, destination TEXT NOT NULL, key TEXT NOT NULL,
  arguments TEXT NOT NULL, options TEXT NOT NULL
);
CREATE TABLE retained (
  vhost TEXT NOT NULL, exchange TEXT NOT NULL, key TEXT NOT NULL, expires_at_ms INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE TABLE scheduled (
  id INTEGER PRIMARY KEY, due_ms INTEGER NOT NULL, vhost TEXT NOT NULL, exchange TEXT NOT NULL, key TEXT NOT NULL,
  body BLOB NOT NULL
);
CREATE TABLE state (namespace TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL);
CREATE VIEW readable AS
  SELECT vhost, queue, priority, position, datetime(stored_ms / 1000, 'unixepoch') AS stored, exchange, routing_key, content_type,
    headers, CAST(body AS TEXT) AS body
  FROM message;
"""
_COPIED = {
    "exchange": "vhost, name, type, spec",
    "binding": "vhost, source, to_exchange, destination, key, arguments, options",
    "retained": "vhost, exchange, key, expires_at_ms, body",
    "scheduled": "id, due_ms, vhost, exchange, key, body",
    "state": "namespace, key, value",
}
_FIELDS = 26
_PRIVATE_KINDS = (bytes, bytearray, memoryview)

Decode = Callable[[Message], Properties]


def export(source: Path, target: Path, decode: Decode, *, damaged: list[int] | None = None) -> int:
    """Write one row per message and queue, and definitions, into a new database; return how many messages.

    Each queue is as of one moment; a running broker goes on.

    Args:
        decode: reads properties; what it can't read is left to the columns wire_tag and wire.
        damaged: gets the segments that could not be read; None: the first one is an error, and nothing is written.

    Raises:
        JournalError: the source can't be read. JournalUnwritable: the target can't be written, or is there already.
    """
    if target.exists():
        raise JournalUnwritable(f"{target} is there already: choose another name")
    draft = draft_of(target)
    with drafted(draft, target):
        make_private(draft)
        with reading(source) as connection, closing(sqlite3.connect(draft, isolation_level=None)) as out:
            written = _fill(connection, out, decode, damaged)
    return written


def _fill(connection: sqlite3.Connection, out: sqlite3.Connection, decode: Decode, damaged: list[int] | None) -> int:
    out.execute("PRAGMA journal_mode = OFF").fetchall()
    out.executescript(_SCHEMA)
    out.text_factory = str
    out.execute("BEGIN")
    for table, columns in _COPIED.items():
        rows = connection.execute(f"SELECT {columns} FROM {table}")  # noqa: S608 - constants
        out.executemany(f"INSERT INTO {table} VALUES ({','.join('?' * (columns.count(',') + 1))})", _tidy(rows))  # noqa: S608
    written = 0
    for queue in queues_of(connection):
        written += _queue(connection, out, queue, decode, damaged)
    out.execute("CREATE INDEX message_place ON message (vhost, queue, priority, position)")
    out.execute("COMMIT")
    return written


def _queue(
    connection: sqlite3.Connection, out: sqlite3.Connection, queue: StoredQueue, decode: Decode, damaged: list[int] | None
) -> int:
    connection.execute("BEGIN")
    try:
        insert = f"INSERT INTO message VALUES ({','.join('?' * _FIELDS)})"  # noqa: S608 - a constant
        before = out.total_changes
        out.executemany(insert, (_row(peeked, decode) for peeked in peek(connection, queue, damaged)))
        written = out.total_changes - before
        out.execute(
            "INSERT INTO queue VALUES (?, ?, ?, ?, ?)", _plain((queue.vhost, queue.name, written, queue.body_bytes, queue.spec))
        )
    finally:
        connection.execute("COMMIT")
    return written


def _row(peeked: Peeked, decode: Decode) -> tuple[Any, ...]:
    message = peeked.message
    properties = readable_properties(message, decode)
    said = properties or Properties()
    correlation_id = said.correlation_id
    return _plain(
        (
            peeked.queue.vhost, peeked.queue.name, peeked.priority, peeked.position,
            peeked.stored_ms, peeked.deliveries, peeked.due_ms, message.expires_at_ms,
            message.exchange, message.routing_key, message.priority,
            said.content_type, said.content_encoding, None if said.headers is None else headers_text(said.headers),
            correlation_id, said.reply_to, said.expiration_ms, said.message_id,
            said.timestamp_s, said.type, said.user_id, said.app_id,
            message.wire_tag, message.wire, len(message.body), message.body,
        )
    )  # fmt: skip


def readable_properties(message: Message, decode: Decode) -> Properties | None:
    """Return a message's properties; None: nobody here can read them."""
    try:
        return decode(message)
    except Exception:  # an edge: what a plugin's decoder makes of bytes from a disk
        return None


def headers_text(headers: Any) -> str:
    """Return headers as JSON; bytes that are no text in hexadecimal, what JSON has no word for as its text."""
    return json.dumps(headers, default=_said, ensure_ascii=False)


def _said(value: object) -> str:
    if isinstance(value, _PRIVATE_KINDS):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            return bytes(value).hex()
    return str(value)


_MOST = 2**63 - 1


def _tidy(rows: Iterator[tuple[Any, ...]] | sqlite3.Cursor) -> Iterator[tuple[Any, ...]]:
    for row in rows:
        yield _plain(row)


def _plain(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Let every value be one that SQLite and its readers take.

    A lone surrogate is shown as its escape; a whole number beyond 64 bits (a time of AMQP may be one) is as near as a real one is.
    """
    return tuple(_taken(value) for value in row)


def _taken(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return float(value) if isinstance(value, int) and value > _MOST else value
