"""Is this file a journal that this broker understands, and if it is an older one, what must be done to it?"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from importlib.resources import files

from gateway.errors import JournalError

APPLICATION_ID = 0x54474A4C
VERSION = 2

VIEWS = "-- == Views and triggers"
"""Where schema.sql has no more tables."""

MIGRATIONS: Mapping[int, str] = {
    1: """
CREATE TABLE scheduled (
  id INTEGER PRIMARY KEY, due_ms INTEGER NOT NULL, vhost TEXT NOT NULL, exchange TEXT NOT NULL, key TEXT NOT NULL,
  priority INTEGER NOT NULL, expires_at_ms INTEGER NOT NULL, wire_tag TEXT NOT NULL,
  crc INTEGER NOT NULL, address BLOB NOT NULL, wire BLOB NOT NULL, body BLOB NOT NULL
);
ALTER TABLE redelivered ADD COLUMN due_ms INTEGER NOT NULL DEFAULT 0;
INSERT OR REPLACE INTO meta
  SELECT 'next_queue', 1 + max((SELECT coalesce(max(id), 0) FROM queue), (SELECT coalesce(max(queue), 0) FROM segq));
""",
}
"""Version -> the SQL that makes the tables of the next one of it. Each runs in a transaction of its own, with new views."""


def bring_up_to_date(
    connection: sqlite3.Connection, path: str, *, version: int = VERSION, migrations: Mapping[int, str] = MIGRATIONS
) -> None:
    """Create the schema in an empty file, or bring an older one to `version`.

    Raises:
        JournalError: it is no journal, it is newer, or there is no way from its version.
    """
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if application_id == 0 and found == 0 and not connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
        _in_transaction(connection, _schema())
        return
    if application_id != APPLICATION_ID:
        raise JournalError(f"{path} is an SQLite database, but not a journal of Tidegate")
    if found > version:
        raise JournalError(
            f"{path} has format {found}, written by a newer version of Tidegate; this one understands formats up to {version}: "
            "start the newer version, or use another data directory"
        )
    while found < version:
        step = migrations.get(found)
        if step is None:
            raise JournalError(f"{path} has format {found}, and there is no way from there to format {version}")
        found += 1
        _in_transaction(connection, f"{step}\n;{_new_views(connection)}\n;PRAGMA user_version = {found};")


def _schema() -> str:
    return files("gateway.journal").joinpath("schema.sql").read_text(encoding="utf-8")


def _new_views(connection: sqlite3.Connection) -> str:
    """Return the SQL that makes all views and triggers anew (those of a view go with it)."""
    schema = _schema()
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'view'")]
    return "".join(f'DROP VIEW "{name}";' for name in names) + schema[schema.index(VIEWS) :]


def _in_transaction(connection: sqlite3.Connection, script: str) -> None:
    try:
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nCOMMIT;")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
