"""What of a broken journal can be saved into a new one that a broker starts with?"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from zlib import crc32

from gateway.errors import GatewayError, JournalError
from gateway.journal.index import Index
from gateway.journal.migrate import bring_up_to_date
from gateway.journal.recovery import DATABASE, make_directory
from gateway.journal.tools.backup import prove
from gateway.journal.tools.files import drafted, make_private
from gateway.journal.tools.inspection import lanes_of, live_slots
from gateway.journal.tools.restore import put_aside, taken
from gateway.journal.tools.salvage_pages import Image, Row, Trees
from gateway.journal.tools.salvage_rows import KEYS, KINDS, find_roots, fits, is_sound, named

Places = dict[tuple[int, int], int]
"""(lane, segment) -> live."""

_NEWER_COLUMNS = 4


@dataclass(slots=True)
class Salvaged:
    """What was saved and lost.

    Args:
        saved: how many of what, in words of the journal: exchange, queue, binding, message, retained ...
        lost: what is known to be missing, a line each; empty: nothing is known to be.
        journal: the new one; `broken`: where the old one is.
    """

    journal: Path
    broken: Path
    saved: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Found:
    """Rows by table, without the segments, which are written at once; `whole`: tables whose tree had no damage."""

    rows: dict[str, dict[tuple[object, ...], Row]] = field(default_factory=lambda: defaultdict(dict))
    whole: set[str] = field(default_factory=set)
    bad_segments: set[int] = field(default_factory=set)
    segments: set[int] = field(default_factory=set)


def recover(directory: Path, out: Path | None = None) -> Salvaged:
    """Save what can be read out of a data directory's journal, whatever is broken in it; the broken file is kept as it is.

    Args:
        out: a directory for the new journal; None: it takes the broken one's place, which is put aside.

    Raises:
        JournalLocked: a broker runs there.
        JournalError: there is no journal, nothing can be read in it, or `out` has one.
        JournalUnwritable: the new one can't be written.
    """
    source = directory / DATABASE
    if not source.exists():
        raise JournalError(f"there is no journal in {directory}")
    if not source.is_file():  # opening a FIFO would wait for who writes to it
        raise JournalError(f"{source} can't be read: it is no file")
    home = directory if out is None else out
    make_directory(home)
    target = home / DATABASE
    if out is not None and target.exists():
        raise JournalError(f"{target} is there already: choose another directory")
    draft = home / f".{DATABASE}.recovering"
    with taken(directory), drafted(draft, target):
        make_private(draft)
        salvaged = Salvaged(target, source)
        _salvage(source, draft, salvaged)
        prove(draft)
        if out is None:
            salvaged.broken = put_aside(source, "broken", fold=False)
    return salvaged


def _salvage(source: Path, draft: Path, salvaged: Salvaged) -> None:
    image = Image(source)
    with closing(image), closing(sqlite3.connect(draft, isolation_level=None)) as new:
        new.execute("PRAGMA page_size = 4096").fetchall()
        new.execute("PRAGMA journal_mode = OFF").fetchall()
        bring_up_to_date(new, str(draft))
        new.execute("BEGIN")
        found = _read(image, new, salvaged)
        _write_definitions(new, found, salvaged)
        _write_places(new, found, salvaged)
        new.execute("UPDATE meta SET value = 1 WHERE key = 'clean'")
        new.execute("COMMIT")
    if image.log_lost:
        salvaged.lost.append(f"{image.log_lost} pages of the write-ahead log are damaged: the commits in them, and all after")
    if not any(salvaged.saved.values()):
        raise JournalError(f"nothing in {source} can be read as a journal")


# -- from the pages -------------------------------------------------------------


def _read(image: Image, new: sqlite3.Connection, salvaged: Salvaged) -> _Found:
    """Read all trees; then, if anything in them was damaged, all pages that no tree leads to any more."""
    found = _Found()
    trees = Trees(image)
    roots = find_roots(trees)
    for table, root in roots.items():
        before = len(trees.damage)
        if table in KINDS:
            for rowid, row in trees.walk(root):
                _take(found, new, table, rowid, row)
            if len(trees.damage) == before:
                found.whole.add(table)
        else:  # an index: only what pages it has
            for _ in trees.walk(root):
                pass
    if not trees.damage and set(KINDS) <= set(roots) | {"scheduled"}:
        return found
    trees.free_list()
    salvaged.lost += [f"damage: {line}" for line in trees.damage[:20]]
    for rowid, row in trees.scan():
        for table in KINDS:
            if table not in found.whole and fits(table, rowid, row):
                _take(found, new, table, rowid, row)
    return found


def _take(found: _Found, new: sqlite3.Connection, table: str, rowid: int | None, row: Row) -> None:
    row = named(table, rowid, row)
    if table == "seg":
        _take_segment(found, new, row)
    elif fits(table, None, row, filled=True) and is_sound(table, row):
        key = tuple(row[: KEYS[table]])
        known = found.rows[table].get(key)
        if known is None or table == "segack":
            found.rows[table][key] = row if known is None else _more_settled(known, row)


def _more_settled(one: Row, other: Row) -> Row:
    bits, others = one[1], other[1]
    assert isinstance(bits, bytes)
    assert isinstance(others, bytes)
    joined = int.from_bytes(bits, "little") | int.from_bytes(others, "little")
    return [one[0], joined.to_bytes(max(len(bits), len(others)), "little")]


def _take_segment(found: _Found, new: sqlite3.Connection, row: Row) -> None:
    segment, _, _, crc, _, idx, body = row
    assert isinstance(segment, int)
    if segment in found.segments:
        return
    if not isinstance(idx, bytes) or not isinstance(body, bytes) or crc32(body, crc32(idx)) != crc:
        found.bad_segments.add(segment)
        return
    found.segments.add(segment)
    new.execute("INSERT INTO seg VALUES (?, ?, ?, ?, ?, ?, ?)", row)


# -- into the new journal -------------------------------------------------------


def _write_definitions(new: sqlite3.Connection, found: _Found, salvaged: Salvaged) -> None:
    for table in ("exchange", "queue", "binding", "retained", "state", "scheduled"):
        rows = list(found.rows[table].values())
        count = 0
        for row in rows:
            with suppress(sqlite3.IntegrityError):  # a name that is there twice: an old page
                new.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(row))})", row)  # noqa: S608 - constants
                count += 1
        salvaged.saved[table] = count
        if table not in found.whole and table != "scheduled":
            salvaged.lost.append(f"table {table} was damaged: {count} rows of it are saved, others may be missing")
    for key, value in ((row[0], row[1]) for row in found.rows["meta"].values()):
        if key == "next_queue" and isinstance(value, int):
            new.execute("UPDATE meta SET value = max(value, ?) WHERE key = ?", (value, key))


def _write_places(new: sqlite3.Connection, found: _Found, salvaged: Salvaged) -> None:
    """Count what is live in each segment that is saved; give messages whose queue is lost a new one."""
    lanes = {
        lane: queue_id
        for queue_id, spec in new.execute("SELECT id, spec FROM queue")
        for lane in range(queue_id, queue_id + lanes_of(spec))
    }
    wanted: Places = {(int(str(row[0])), int(str(row[3]))): int(str(row[5])) for row in found.rows["segq"].values()}
    by_segment: dict[int, set[int]] = defaultdict(set)
    for lane, segment in wanted:
        by_segment[segment].add(lane)
    messages = 0
    for segment in sorted(found.segments):
        messages += _place(new, found, segment, by_segment.get(segment), lanes, salvaged)
    _write_deliveries(new, found.rows["redelivered"].values())
    salvaged.saved["message"] = messages
    _say_lost(new, found, wanted, salvaged)
    if not {"segq", "segack"} <= found.whole:
        salvaged.lost.append("notes of what was acknowledged: such messages may come back")
    highest = max(lanes, default=0)
    new.execute("UPDATE meta SET value = max(value, ?) WHERE key = 'next_queue'", (highest + 1,))


def _place(
    new: sqlite3.Connection, found: _Found, segment: int, mine: set[int] | None, lanes: dict[int, int], salvaged: Salvaged
) -> int:
    (idx,) = new.execute("SELECT idx FROM seg WHERE id = ?", (segment,)).fetchone()
    try:
        index = Index(idx)
    except GatewayError as error:
        salvaged.lost.append(f"segment {segment}: {error}")
        new.execute("DELETE FROM seg WHERE id = ?", (segment,))
        return 0
    wanted = mine or set()
    if "segq" not in found.whole:  # a lane without a row may have lost it
        wanted = set(index.queues)
    ack = found.rows["segack"].get((segment,))
    bits = ack[1] if ack is not None and isinstance(ack[1], bytes) else b""
    live = 0
    for lane in sorted(wanted):
        live += _place_lane(new, index, bits, segment, lane, lanes)
    if not live:
        new.execute("DELETE FROM seg WHERE id = ?", (segment,))
        return 0
    if bits:
        new.execute("INSERT INTO segack VALUES (?, ?)", (segment, bits))
    return live


def _place_lane(new: sqlite3.Connection, index: Index, bits: bytes, segment: int, lane: int, lanes: dict[int, int]) -> int:
    slots = live_slots(index.queues, bits, {lane})
    if not slots:
        return 0
    if lane not in lanes:
        new.execute("INSERT INTO queue VALUES (?, '/', ?, '{}')", (lane, f"recovered.{lane}"))
        lanes[lane] = lane
    positions = [index.positions[slot] for slot, queue in enumerate(index.queues) if queue == lane]
    size = sum(map(index.body_bytes, slots))
    row = (lane, min(positions), segment, max(positions), len(slots), size)
    new.execute("INSERT INTO segq VALUES (?, 0, ?, ?, ?, ?, ?)", row)
    return len(slots)


def _write_deliveries(new: sqlite3.Connection, rows: Iterable[Row]) -> None:
    new.executemany(
        "INSERT INTO redelivered SELECT ?1, ?2, ?3, ?4 WHERE EXISTS (SELECT 1 FROM seg WHERE id = ?1)",
        (row if len(row) == _NEWER_COLUMNS else [*row, 0] for row in rows),
    )


def _say_lost(new: sqlite3.Connection, found: _Found, wanted: Places, salvaged: Salvaged) -> None:
    names = dict(new.execute("SELECT id, name FROM queue"))
    gone: dict[int, list[str]] = defaultdict(list)
    for (lane, segment), live in sorted(wanted.items()):
        if segment not in found.segments:
            gone[segment].append(f"{live:,} of queue {names.get(lane, lane)!r}")
    for segment, whose in gone.items():
        salvaged.lost.append(f"segment {segment} is lost, with messages: {', '.join(whose)}")
    for segment in sorted(found.bad_segments - set(gone) - found.segments):
        salvaged.lost.append(f"segment {segment} is damaged, and nothing says which messages were in it")
    made = list(_made(new))
    if made:
        salvaged.lost.append(f"the definitions of {len(made)} queues; their messages are in {', '.join(made[:10])}")


def _made(new: sqlite3.Connection) -> Iterator[str]:
    for (name,) in new.execute("SELECT name FROM queue WHERE name = 'recovered.' || id"):
        yield name
