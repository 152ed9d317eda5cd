"""Of which table of a journal is a row, and can it be believed?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from zlib import crc32

from gateway.journal.tools.salvage_pages import Row, Trees

KINDS: Mapping[str, str] = {
    "meta": "t*",
    "exchange": "tttt",
    "queue": "ittt",
    "binding": "ttitttt",
    "retained": "tttiiitibbb",
    "state": "ttb",
    "scheduled": "iitttiitibbb",
    "seg": "iiiiibb",
    "segq": "iiiiiii",
    "segack": "ib",
    "redelivered": "iii?",
    "quarantine": "ii",
}
"""Per table its columns as they are stored: t text, i integer, b blob, * anything, ? an integer that older formats lack."""

KEYS: Mapping[str, int] = {
    "meta": 1, "exchange": 2, "queue": 1, "binding": 6, "retained": 3, "state": 2, "scheduled": 1, "seg": 1, "segq": 4,
    "segack": 1, "redelivered": 2, "quarantine": 1,
}  # fmt: skip
"""So many first columns are the key."""

_WITH_ROWID = frozenset(("queue", "retained", "scheduled", "seg", "segack", "quarantine"))
_ROWID_IS_A_COLUMN = _WITH_ROWID - {"retained"}
_NEVER_GUESSED = frozenset(("redelivered", "quarantine", "meta"))
"""An index of the journal, or a row of another table, could look like one of these."""

_TYPES: Mapping[str, type | tuple[type, ...]] = {"t": str, "i": int, "b": bytes, "*": object}


def find_roots(trees: Trees) -> dict[str, int]:
    """Return the first page of every tree by the name of its table or index; what is readable of them."""
    roots: dict[str, int] = {}
    for _, row in trees.walk(1):
        match row:
            case [str(), str(name), str(), int(root), *_] if root > 1:
                roots[name] = root
    return roots


def named(table: str, rowid: int | None, row: Row) -> Row:
    """Return a row with the rowid in its column."""
    return [rowid, *row[1:]] if table in _ROWID_IS_A_COLUMN and row and rowid is not None else row


def fits(table: str, rowid: int | None, row: Row, *, filled: bool = False) -> bool:
    """Say whether a row has the columns of a table.

    Args:
        filled: it was read from the table's own tree, and has its rowid in its column; else it is guessed by its looks.
    """
    kinds = KINDS[table].replace("?", "i" if len(row) == len(KINDS[table]) else "")
    if len(row) != len(kinds):
        return False
    if not filled:
        if table in _NEVER_GUESSED or (rowid is not None) != (table in _WITH_ROWID):
            return False
        if table in _ROWID_IS_A_COLUMN:
            if row[0] is not None:
                return False
            row = [rowid, *row[1:]]
    return all(isinstance(value, _TYPES[kind]) for value, kind in zip(row, kinds, strict=True))


def is_sound(table: str, row: Row) -> bool:
    """Say whether the checksum of a row holds, and its JSON is JSON."""
    if table in {"retained", "scheduled"}:
        crc, address, wire, body = row[-4:]
        assert isinstance(address, bytes)
        assert isinstance(wire, bytes)
        assert isinstance(body, bytes)
        return bool(crc32(body, crc32(wire, crc32(address))) == crc)
    texts = {"exchange": row[3:4], "queue": row[3:4], "binding": row[5:7]}.get(table, [])
    with suppress(ValueError):
        return all(isinstance(json.loads(str(text)), dict) for text in texts)
    return False
