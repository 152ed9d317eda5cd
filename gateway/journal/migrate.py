"""Is this file a journal that this broker understands, and if it is an older one, what must be done to it?"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from importlib.resources import files

from gateway.errors import JournalError

APPLICATION_ID = 0x54474A4C
VERSION = 1

MIGRATIONS: Mapping[int, str] = {}
"""Version -> the SQL that makes the next one of it. Each runs in a transaction of its own."""


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
        _in_transaction(connection, files("gateway.journal").joinpath("schema.sql").read_text(encoding="utf-8"))
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
        _in_transaction(connection, f"{step}\n;PRAGMA user_version = {found};")


def _in_transaction(connection: sqlite3.Connection, script: str) -> None:
    try:
        connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nCOMMIT;")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
