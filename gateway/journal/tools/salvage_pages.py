"""Which rows can be read out of the pages of a database that SQLite refuses (SQLite's file format, §1.6, §2, §4)?"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TypeAlias

Value: TypeAlias = int | float | str | bytes | None
Row: TypeAlias = list[Value]

PAGE = 4096
TABLE_LEAF, TABLE_INTERIOR, INDEX_LEAF, INDEX_INTERIOR = 0x0D, 0x05, 0x0A, 0x02
_WAL_HEADER, _FRAME_HEADER = struct.Struct(">8I"), struct.Struct(">6I")
_WAL_MAGIC = 0x377F0682
_MASK = 0xFFFFFFFF
_MOST_COLUMNS = 64
_INTEGER_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


class Broken(Exception):
    """A page can't be what it should be."""


class Image:
    """A database file as its log left it, page by page; numbers from 1.

    Attributes:
        pages: how many there are.
        log_lost: frames of the log that can't be used.
    """

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("rb")
        self._changed: dict[int, bytes] = {}
        self.log_lost = 0
        self.pages = -(-path.stat().st_size // PAGE)
        log = path.with_name(f"{path.name}-wal")
        if log.exists():
            self._read_log(log.read_bytes())
        self.pages = max([self.pages, *self._changed])

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def page(self, number: int) -> bytes:
        """Return a page. Raises Broken: there is none."""
        if number in self._changed:
            return self._changed[number]
        if not 1 <= number <= self.pages:
            raise Broken(f"page {number} is beyond the end")
        try:
            self._file.seek((number - 1) * PAGE)
            data = self._file.read(PAGE)
        except OSError as error:
            raise Broken(f"page {number} can't be read: {error.strerror}") from error
        if len(data) < PAGE:
            raise Broken(f"page {number} is cut off")
        return data

    def _read_log(self, log: bytes) -> None:
        """Take the commits of the log, up to the first frame whose checksum is wrong."""
        if len(log) < _WAL_HEADER.size:
            return
        magic, _, size, _, salt1, salt2, first, second = _WAL_HEADER.unpack_from(log)
        frame = _FRAME_HEADER.size + PAGE
        frames = (len(log) - _WAL_HEADER.size) // frame
        order = "little" if magic == _WAL_MAGIC else "big"
        sums = _checksum(log[:24], (0, 0), order)
        if magic not in {_WAL_MAGIC, _WAL_MAGIC + 1} or size != PAGE or sums != (first, second):
            self.log_lost = frames
            return
        uncommitted: dict[int, bytes] = {}
        for number in range(frames):
            start = _WAL_HEADER.size + number * frame
            page, committed, its1, its2, first, second = _FRAME_HEADER.unpack_from(log, start)
            if (its1, its2) != (salt1, salt2):
                return  # of an earlier round of the log
            data = log[start + _FRAME_HEADER.size : start + frame]
            sums = _checksum(data, _checksum(log[start : start + 8], sums, order), order)
            if sums != (first, second):
                self.log_lost = self._same_round(log, number, frames, (salt1, salt2))
                return
            uncommitted[page] = data
            if committed:
                self._changed |= uncommitted
                uncommitted = {}

    @staticmethod
    def _same_round(log: bytes, first: int, frames: int, salts: tuple[int, int]) -> int:
        frame = _FRAME_HEADER.size + PAGE
        heads = (_FRAME_HEADER.unpack_from(log, _WAL_HEADER.size + number * frame) for number in range(first, frames))
        return sum(1 for head in heads if (head[2], head[3]) == salts)


def _checksum(data: bytes, sums: tuple[int, int], order: str) -> tuple[int, int]:
    words = array("I", data)
    if order == "big":
        words.byteswap()
    first, second = sums
    values = iter(words)
    for one, two in zip(values, values, strict=True):
        first = (first + one + second) & _MASK
        second = (second + two + first) & _MASK
    return first, second


# -- trees ----------------------------------------------------------------------


class Trees:
    """The rows of a database's trees, as far as their pages can be read.

    Attributes:
        seen: pages that belong to a tree, to an overflow chain or to the free list.
        damage: what could not be read, a line each.
    """

    def __init__(self, image: Image) -> None:
        self._image = image
        self.seen: set[int] = set()
        self.damage: list[str] = []

    def free_list(self) -> None:
        """Mark the free pages as seen: what is in them was deleted."""
        try:
            head = self._image.page(1)
            trunk = int.from_bytes(head[32:36], "big")
            while trunk and trunk not in self.seen:
                self.seen.add(trunk)
                page = self._image.page(trunk)
                count = min(int.from_bytes(page[4:8], "big"), PAGE // 4 - 2)
                self.seen.update(struct.unpack_from(f">{count}I", page, 8))
                trunk = int.from_bytes(page[:4], "big")
        except Broken as error:
            self.damage.append(f"the list of free pages: {error}")

    def walk(self, root: int) -> Iterator[tuple[int | None, Row]]:
        """Yield rowid (None in a tree without) and columns of every row that can be reached."""
        waiting = [root]
        while waiting:
            number = waiting.pop()
            if number in self.seen:
                self.damage.append(f"page {number} is used twice")
                continue
            self.seen.add(number)
            try:
                page = self._image.page(number)
                waiting += reversed(_children(page, number))
            except Broken as error:
                self.damage.append(f"page {number}: {error}")
                continue
            yield from self._rows(page, number)

    def scan(self) -> Iterator[tuple[int | None, Row]]:
        """Yield the rows of all pages that were not seen, whatever tree they were of."""
        for number in range(1, self._image.pages + 1):
            if number in self.seen:
                continue
            try:
                page = self._image.page(number)
                _children(page, number)
            except Broken:
                continue
            yield from self._rows(page, number, quiet=True)

    def _rows(self, page: bytes, number: int, *, quiet: bool = False) -> Iterator[tuple[int | None, Row]]:
        kind, offsets = _cells(page, number)
        if kind == TABLE_INTERIOR:
            return
        for offset in offsets:
            try:
                at = offset + 4 if kind == INDEX_INTERIOR else offset
                size, at = _varint(page, at)
                rowid: int | None = None
                if kind == TABLE_LEAF:
                    rowid, at = _varint(page, at)
                yield rowid, _record(self._payload(page, at, size, table=kind == TABLE_LEAF))
            except (Broken, IndexError, struct.error, UnicodeDecodeError, ValueError) as error:
                if not quiet:
                    self.damage.append(f"page {number}: a row can't be read: {error}")

    def _payload(self, page: bytes, at: int, size: int, *, table: bool) -> bytes:
        if size > self._image.pages * PAGE:
            raise Broken("a row larger than the file")
        most = PAGE - 35 if table else (PAGE - 12) * 64 // 255 - 23
        if size <= most:
            return page[at : at + size]
        least = (PAGE - 12) * 32 // 255 - 23
        local = least + (size - least) % (PAGE - 4)
        local = local if local <= most else least
        parts = [page[at : at + local]]
        left = size - local
        following = int.from_bytes(page[at + local : at + local + 4], "big")
        chain: set[int] = set()
        while left > 0:
            if following in chain:
                raise Broken("a chain of pages that has no end")
            chain.add(following)
            data = self._image.page(following)
            parts.append(data[4 : 4 + left])
            left -= PAGE - 4
            following = int.from_bytes(data[:4], "big")
        self.seen |= chain
        return b"".join(parts)


def _cells(page: bytes, number: int) -> tuple[int, list[int]]:
    at = 100 if number == 1 else 0
    kind = page[at]
    if kind not in {TABLE_LEAF, TABLE_INTERIOR, INDEX_LEAF, INDEX_INTERIOR}:
        raise Broken("no page of a tree")
    count = int.from_bytes(page[at + 3 : at + 5], "big")
    start = at + (12 if kind in {TABLE_INTERIOR, INDEX_INTERIOR} else 8)
    if start + 2 * count > PAGE:
        raise Broken("more rows than fit")
    offsets = list(struct.unpack_from(f">{count}H", page, start))
    if any(not start + 2 * count <= offset < PAGE - 1 for offset in offsets):
        raise Broken("a row outside of the page")
    return kind, offsets


def _children(page: bytes, number: int) -> list[int]:
    kind, offsets = _cells(page, number)
    if kind not in {TABLE_INTERIOR, INDEX_INTERIOR}:
        return []
    at = 108 if number == 1 else 8
    return [int.from_bytes(page[offset : offset + 4], "big") for offset in (*offsets, at)]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for number in range(9):
        byte = data[at + number]
        if number == 8:  # noqa: PLR2004 - the ninth byte has eight bits
            value = value << 8 | byte
            return (value - (1 << 64) if value >> 63 else value), at + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:  # noqa: PLR2004
            return value, at + number + 1
    raise AssertionError


def _record(payload: bytes) -> Row:
    head, at = _varint(payload, 0)
    kinds: list[int] = []
    while at < head:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    if at != head or len(kinds) > _MOST_COLUMNS:
        raise Broken("no record")
    row: Row = []
    for kind in kinds:
        value, at = _value(payload, at, kind)
        row.append(value)
    return row


def _value(payload: bytes, at: int, kind: int) -> tuple[Value, int]:
    match kind:
        case 0:
            return None, at
        case 8 | 9:
            return kind - 8, at
        case 7:
            return float(struct.unpack_from(">d", payload, at)[0]), at + 8
        case 10 | 11:
            raise Broken("a kind of value that is reserved")
    if kind in _INTEGER_BYTES:
        end = at + _INTEGER_BYTES[kind]
        value: Value = int.from_bytes(payload[at:end], "big", signed=True)
    else:
        end = at + (kind - 12) // 2
        value = payload[at:end] if kind % 2 == 0 else payload[at:end].decode("utf-8", "surrogatepass")
    if end > len(payload):
        raise Broken("a value beyond its row")
    return value, end
