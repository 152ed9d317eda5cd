"""What does a segment say, read back from the disk?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from zlib import crc32

from gateway.errors import JournalError
from gateway.journal.columns import Cursor
from gateway.journal.segment import FORMAT, HEADER, SHARED_WIRE, decode_address
from gateway.model.declare import BindingOptions
from gateway.model.message import Address, Message

_CRC_BYTES = 4


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
        "_option_of",
        "_option_texts",
        "_options",
        "_owners",
        "_priorities",
        "_tag_of",
        "_tags",
        "_wires",
        "lengths",
        "positions",
        "queues",
        "starts",
    )

    def __init__(self, idx: bytes) -> None:
        if len(idx) < HEADER.size + _CRC_BYTES or crc32(idx[:-_CRC_BYTES]) != int.from_bytes(idx[-_CRC_BYTES:], "little"):
            raise JournalError("the index of a segment is damaged")
        version, flags, messages, references, addresses, tags, options = HEADER.unpack_from(idx)
        if version != FORMAT:
            raise JournalError(f"a segment has format {version}; this broker reads format {FORMAT}")
        cursor = Cursor(idx, HEADER.size)
        self.lengths: Sequence[int] = cursor.column(messages)
        self._owners: Sequence[int] = _owners(cursor.column(messages))
        self.queues: Sequence[int] = cursor.column(references)
        self.positions: Sequence[int] = cursor.column(references)
        self._option_of: Sequence[int] = cursor.column(references)
        self._address_of: Sequence[int] = cursor.column(messages)
        self._tag_of: Sequence[int] = cursor.column(messages)
        wire_lengths = cursor.column(messages)
        self._priorities: Sequence[int] = cursor.column(messages)
        self._expiries: Sequence[int] = cursor.column(messages)
        self._address_texts: list[bytes] = cursor.texts(addresses)
        self._tags: list[str] = [text.decode() for text in cursor.texts(tags)]
        self._option_texts: list[bytes] = cursor.texts(options)
        self._addresses: dict[int, Address] = {}
        self._options: dict[int, BindingOptions | None] = {0: None}
        self.starts: list[int] = list(accumulate(self.lengths, initial=0))
        if flags & SHARED_WIRE:
            self._wires = [slice(self.starts[-1], self.starts[-1] + wire_lengths[0])] * messages
        else:
            ends = list(accumulate(wire_lengths, initial=self.starts[-1]))
            self._wires = [slice(start, end) for start, end in pairwise(ends)]

    def slots_of(self, queue_id: int, after_position: int) -> list[int]:
        """Return the references of a queue that come after a position."""
        columns = enumerate(zip(self.queues, self.positions, strict=True))
        return [slot for slot, (queue, position) in columns if queue == queue_id and position > after_position]

    def body_bytes(self, slot: int) -> int:
        """Return the size of a reference's body."""
        return self.lengths[self._owners[slot]]

    def message(self, slot: int, body: bytes) -> Message:
        """Make a reference's message; `body` is the segment's."""
        number = self._owners[slot]
        text = self._address_of[number]
        address = self._addresses.get(text)
        if address is None:
            address = self._addresses[text] = decode_address(self._address_texts[text])
        start = self.starts[number]
        return Message(
            address,
            body[start : start + self.lengths[number]],
            True,
            self._tags[self._tag_of[number]],
            body[self._wires[number]],
            self._priorities[number],
            self._expiries[number],
        )

    def options(self, slot: int) -> BindingOptions | None:
        """Return what the bindings said that brought a reference."""
        number = self._option_of[slot]
        if number not in self._options:
            self._options[number] = BindingOptions.parse(self._option_texts[number - 1].decode())
        return self._options[number]


def _owners(counts: Sequence[int]) -> Sequence[int]:
    """Return the message of each reference."""
    if len(set(counts)) <= 1 and (not counts or counts[0] == 1):
        return range(len(counts))
    return [number for number, count in enumerate(counts) for _ in range(count)]
