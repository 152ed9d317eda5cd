"""What does a segment say, read back from the disk?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate
from zlib import crc32

from gateway.errors import JournalError
from gateway.journal.columns import Cursor
from gateway.journal.ledger import SegmentHandle
from gateway.journal.segment import HEADER, READABLE, SHARED_WIRE, STORED, decode_address
from gateway.model.declare import BindingOptions
from gateway.model.message import Address, Message
from gateway.model.records import PagedReference

LAST_POSITION = (1 << 63) - 1
_CRC_BYTES = 4
_NEVER_BACK = (0, 0)

_address = lru_cache(8192)(decode_address)


class Index:
    """The columns of a segment: per reference `queues` and `positions`, per message all else.

    Args:
        idx: the bytes.

    Raises:
        JournalError: they are damaged, or of a format that is not known.
    """

    __slots__ = (
        "_address_of",
        "_address_texts",
        "_addresses",
        "_expiries",
        "_lengths",
        "_option_of",
        "_options",
        "_owners",
        "_priorities",
        "_shared_wire",
        "_starts",
        "_stored",
        "_tag_of",
        "_tags",
        "_wire_starts",
        "positions",
        "queues",
    )

    def __init__(self, idx: bytes) -> None:
        if len(idx) < HEADER.size + _CRC_BYTES or crc32(idx[:-_CRC_BYTES]) != int.from_bytes(idx[-_CRC_BYTES:], "little"):
            raise JournalError("the index of a segment is damaged")
        version, flags, messages, references, addresses, tags, options = HEADER.unpack_from(idx)
        if version not in READABLE:
            raise JournalError(f"a segment has format {version}; this broker reads formats {min(READABLE)} to {max(READABLE)}")
        cursor = Cursor(idx, HEADER.size)
        self._lengths: Sequence[int] = cursor.column(messages)
        self._owners: Sequence[int] = _owners(cursor.column(messages))
        self.queues: Sequence[int] = cursor.column(references)
        self.positions: Sequence[int] = cursor.column(references)
        self._option_of: Sequence[int] = cursor.column(references)
        self._address_of: Sequence[int] = cursor.column(messages)
        self._tag_of: Sequence[int] = cursor.column(messages)
        wire_lengths = cursor.column(messages)
        self._priorities: Sequence[int] = cursor.column(messages)
        self._expiries: Sequence[int] = cursor.column(messages)
        self._stored: Sequence[int] | None = cursor.column(messages) if flags & STORED else None
        self._address_texts: list[bytes] = cursor.texts(addresses)
        self._addresses: list[Address | None] = [None] * addresses
        self._tags: list[str] = [text.decode() for text in cursor.texts(tags)]
        self._options: list[BindingOptions | None] = [None, *map(_parse_options, cursor.texts(options))]
        self._starts: list[int] = list(accumulate(self._lengths, initial=0))
        self._shared_wire: bool = bool(flags & SHARED_WIRE)
        shared = wire_lengths[:1] if self._shared_wire else wire_lengths
        self._wire_starts: list[int] = list(accumulate(shared, initial=self._starts[-1]))

    def slots_of(self, queue_id: int, after_position: int, up_to: int = LAST_POSITION) -> list[int]:
        """Return the references of a queue that come after a position, up to another."""
        positions = self.positions
        if isinstance(positions, range) and self._is_of_one(queue_id):  # as most that were published in one go
            first = positions.start
            return list(range(max(after_position + 1 - first, 0), min(up_to + 1 - first, len(positions))))
        columns = enumerate(zip(self.queues, positions, strict=True))
        return [slot for slot, (queue, position) in columns if queue == queue_id and after_position < position <= up_to]

    def _is_of_one(self, queue_id: int) -> bool:
        return self.queues.count(queue_id) == len(self.queues)

    def body_bytes(self, slot: int) -> int:
        """Return the size of a reference's body."""
        return self._lengths[self._owners[slot]]

    def owner(self, slot: int) -> int:
        """Return the number of a reference's message."""
        return self._owners[slot]

    def size_of(self, number: int) -> int:
        """Return the size of a message's body and wire bytes."""
        wire = 0 if self._shared_wire else self._wire_starts[number + 1] - self._wire_starts[number]
        return self._lengths[number] + wire

    def references(self, slots: Iterable[int], body: bytes, handle: SegmentHandle, committed_ms: int = 0) -> list[PagedReference]:
        """Make references and their messages; `body` and `committed_ms` are the segment's.

        Cost: about 1 us per reference, and its body.
        """
        owners, positions, starts, wire_starts = self._owners, self.positions, self._starts, self._wire_starts
        priorities, expiries, tags, tag_of = self._priorities, self._expiries, self._tags, self._tag_of
        options, option_of, counts, stored = self._options, self._option_of, handle.counts, self._stored
        shared_wire = body[wire_starts[0] : wire_starts[1]] if self._shared_wire else None
        addresses, address_of = self._addresses, self._address_of
        usual = not counts and stored is None
        found: list[PagedReference] = []
        for slot in slots:
            number = owners[slot]
            message = Message(
                addresses[address_of[number]] or self._address(address_of[number]),
                body[starts[number] : starts[number + 1]],
                True,
                tags[tag_of[number]],
                body[wire_starts[number] : wire_starts[number + 1]] if shared_wire is None else shared_wire,
                priorities[number],
                expiries[number],
            )
            option = options[option_of[slot]]
            if usual:
                found.append(PagedReference(message, positions[slot], option, handle, slot, 0, committed_ms))
                continue
            count, due_ms = counts.get(slot, _NEVER_BACK) if counts else _NEVER_BACK
            stored_ms = committed_ms + stored[number] if stored is not None else committed_ms
            found.append(PagedReference(message, positions[slot], option, handle, slot, count, stored_ms, due_ms))
        return found

    def _address(self, number: int) -> Address:
        address = self._addresses[number] = _address(self._address_texts[number])
        return address


@lru_cache(4096)
def _parse_options(text: bytes) -> BindingOptions:
    return BindingOptions.parse(text.decode())


def _owners(counts: Sequence[int]) -> Sequence[int]:
    """Return the message of each reference."""
    if len(set(counts)) == 1 and counts[0] == 1:
        return range(len(counts))
    return [number for number, count in enumerate(counts) for _ in range(count)]
