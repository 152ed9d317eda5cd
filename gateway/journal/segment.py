"""How do messages become the bytes of a segment?

A segment needs nothing but itself to be read; `index.py` does that. idx is a header, columns of integers (an item per message,
reference or distinct text), the distinct texts (addresses, wire tags, binding options), and a CRC-32 of all that. body is the
bodies, then the wire bytes. Format 2 has one column more, where messages are older than their segment.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import chain, islice
from zlib import crc32

from gateway.journal.columns import ALL_ZERO, ONE, encode_column, encode_one, encode_texts
from gateway.journal.ledger import SegmentHandle
from gateway.model.declare import BindingOptions
from gateway.model.message import Address, Message
from gateway.model.records import Reference

MAX_BYTES = 1 << 20
"""A segment holds at least one message, and more until their bodies and these costs reach it: at most 4,096 messages."""
MESSAGE_COST = 256
REFERENCE_COST = 16

FORMAT = 2
READABLE = frozenset((1, 2))
SHARED_WIRE = 1
"""Flag: all messages have the same wire bytes, written once."""
STORED = 2
"""Flag: there is a column of how many ms after the segment's ``committed_ms`` each message was committed first."""
HEADER = struct.Struct("<BBIIIII")
_EXPLICIT = 255
_NAMES = struct.Struct("<BHH")
_WELL_KNOWN = (("/", "amq.topic"), ("/", ""), ("/", "amq.direct"), ("/", "amq.fanout"), ("/", "amq.headers"))
_CODES = {names: bytes((code,)) for code, names in enumerate(_WELL_KNOWN)}


class Segment:
    """A segment to be written: the parts of its idx (without the CRC) and of its body.

    ``committed_ms``: wall time of its oldest message, if it is older than the commit; else 0.
    """

    __slots__ = ("body", "body_bytes", "committed_ms", "handle", "idx", "messages", "references")

    def __init__(self, handle: SegmentHandle, messages: int, references: int, idx: list[bytes], body: list[bytes]) -> None:
        self.handle = handle
        self.messages = messages
        self.references = references
        self.idx = idx
        self.body = body
        self.body_bytes = 0
        self.committed_ms = 0

    def joined(self) -> tuple[bytes, bytes, int]:
        """Return idx, body, and the CRC-32 of both."""
        idx = b"".join(self.idx)
        idx += crc32(idx).to_bytes(4, "little")
        body = b"".join(self.body)
        return idx, body, crc32(body, crc32(idx))


# -- addresses ----------------------------------------------------------


def encode_address(address: Address) -> bytes:
    """Return an address as bytes that say it all; kept in ``address.encoded``."""
    encoded = address.encoded
    if encoded is None:
        code = _CODES.get((address.vhost, address.exchange))
        if code is None:
            vhost = address.vhost.encode("utf-8", "surrogatepass")
            exchange = address.exchange.encode("utf-8", "surrogatepass")
            code = _NAMES.pack(_EXPLICIT, len(vhost), len(exchange)) + vhost + exchange
        encoded = address.encoded = code + address.routing_key.encode("utf-8", "surrogatepass")
    return encoded


def decode_address(encoded: bytes) -> Address:
    """Read what `encode_address` wrote."""
    if encoded[0] == _EXPLICIT:
        _, vhost_bytes, exchange_bytes = _NAMES.unpack_from(encoded)
        exchange_at = _NAMES.size + vhost_bytes
        key_at = exchange_at + exchange_bytes
        vhost = encoded[_NAMES.size : exchange_at].decode("utf-8", "surrogatepass")
        exchange = encoded[exchange_at:key_at].decode("utf-8", "surrogatepass")
    else:
        vhost, exchange = _WELL_KNOWN[encoded[0]]
        key_at = 1
    address = Address(vhost, exchange, encoded[key_at:].decode("utf-8", "surrogatepass"))
    address.encoded = encoded
    return address


# -- writing ------------------------------------------------------------


def encode(messages: Iterable[Message], segment_id: int, stored_ms: Iterable[int] = ()) -> Iterator[Segment]:
    """Make segments, with ids from `segment_id` on, of all messages that have an unsettled reference.

    The references get their segment and slot and are released from their messages.

    Args:
        stored_ms: when the messages were committed first, if that isn't now; then every one must have an unsettled reference.

    Cost: about 0.5 us per message with one reference.
    """
    remaining, stored = iter(messages), iter(stored_ms)
    carried: Message | None = None
    while True:
        handle = SegmentHandle(segment_id, bytearray(), complete=True)
        rows = _Rows()
        carried = rows.collect(remaining if carried is None else chain((carried,), remaining), handle)
        if rows.queues:
            rows.stored = list(islice(stored, len(rows.bodies)))
            yield _segment(rows, handle)
        if carried is None:
            return
        segment_id += 1


def _segment(rows: _Rows, handle: SegmentHandle) -> Segment:
    count, references = len(rows.bodies), len(rows.queues)
    handle.bits = bytearray((references + 7) >> 3)
    shared_wire = rows.wires.count(rows.wires[0]) == count
    single = count == references == 1 and not rows.stored
    segment = Segment(handle, count, references, rows.idx_of_one() if single else rows.idx(shared_wire=shared_wire), rows.bodies)
    segment.committed_ms = min(rows.stored, default=0)
    segment.body_bytes = sum(rows.lengths)
    handle.queues = rows.places()
    handle.references = references
    if shared_wire:
        rows.bodies.append(rows.wires[0])
    else:
        rows.bodies += rows.wires
    return segment


class _Rows:
    """The columns of a segment while its messages are gone through."""

    __slots__ = (
        "address_of",
        "addresses",
        "bodies",
        "expiries",
        "lengths",
        "options",
        "positions",
        "priorities",
        "queues",
        "several",
        "stored",
        "tags",
        "wires",
    )

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.lengths: list[int] = []
        self.wires: list[bytes] = []
        self.tags: list[str] = []
        self.addresses: dict[Address, int] = {}
        self.address_of: list[int] = []
        self.queues: list[int] = []
        self.positions: list[int] = []
        self.options: list[BindingOptions | None] = []
        self.stored: list[int] = []
        # By index of the message, where it isn't the usual: number of references, priority, time.
        self.several: dict[int, int] = {}
        self.priorities: dict[int, int] = {}
        self.expiries: dict[int, int] = {}

    def collect(self, messages: Iterable[Message], handle: SegmentHandle) -> Message | None:  # noqa: PLR0915 - every durable message
        """Take messages until the segment is full; return the one that has no room."""
        bodies, lengths, wires, tags = self.bodies, self.lengths, self.wires, self.tags
        addresses, address_of = self.addresses, self.address_of
        queues, positions, options = self.queues, self.positions, self.options
        slot = size = 0
        for message in messages:
            reference = message.first
            if message.live <= 0 or reference is None:
                message.first = message.more = None
                continue
            body = message.body
            length = len(body)
            size += length + MESSAGE_COST
            if size > MAX_BYTES and bodies:
                return message
            message.first = None
            if message.more is None and not reference.settled:
                reference.segment = handle
                reference.slot = slot
                slot += 1
                queues.append(reference.queue_id)
                positions.append(reference.position)
                options.append(reference.options)
            else:
                unsettled = _unsettled(reference, message)
                if len(unsettled) != 1:
                    if not unsettled:
                        continue
                    self.several[len(bodies)] = len(unsettled)
                    size += len(unsettled) * REFERENCE_COST
                slot = self._collect_several(unsettled, handle, slot)
            if message.priority:
                self.priorities[len(bodies)] = message.priority
            if message.expires_at_ms:
                self.expiries[len(bodies)] = message.expires_at_ms
            bodies.append(body)
            lengths.append(length)
            wires.append(message.wire)
            tags.append(message.wire_tag)
            address = message.address
            index = addresses.get(address)
            if index is None:
                index = addresses[address] = len(addresses)
            address_of.append(index)
        return None

    def _collect_several(self, references: list[Reference], handle: SegmentHandle, slot: int) -> int:
        for reference in references:
            reference.segment = handle
            reference.slot = slot
            slot += 1
            self.queues.append(reference.queue_id)
            self.positions.append(reference.position)
            self.options.append(reference.options)
        return slot

    def idx(self, *, shared_wire: bool) -> list[bytes]:
        """Return the parts of idx. Their order is that of `Index`."""
        count = len(self.bodies)
        if self.tags.count(self.tags[0]) == count:
            tags = {self.tags[0]: 0}
        else:
            tags = {tag: index for index, tag in enumerate(dict.fromkeys(self.tags))}
        options, option_texts = self._options()
        flags = (SHARED_WIRE if shared_wire else 0) | (STORED if self.stored else 0)
        oldest = min(self.stored, default=0)
        return [
            HEADER.pack(FORMAT, flags, count, len(self.queues), len(self.addresses), len(tags), len(option_texts)),
            encode_column(self.lengths),
            encode_column(self._counts()),
            encode_column(self.queues),
            encode_column(self.positions),
            encode_column(options),
            encode_column(self.address_of),
            encode_column([tags[tag] for tag in self.tags]) if len(tags) > 1 else ALL_ZERO,
            encode_column([len(self.wires[0])] if shared_wire else list(map(len, self.wires))),
            encode_column(_dense(self.priorities, count)),
            encode_column(_dense(self.expiries, count)),
            encode_column([stored - oldest for stored in self.stored]) if self.stored else b"",
            encode_texts([encode_address(address) for address in self.addresses]),
            encode_texts([tag.encode() for tag in tags]),
            encode_texts(option_texts),
        ]

    def idx_of_one(self) -> list[bytes]:
        """Return the same for one message with one reference: a commit each, where publishers wait for every confirm."""
        option, tag, address = self.options[0], self.tags[0].encode(), encode_address(next(iter(self.addresses)))
        text = _option_text(option) if option is not None else None
        return [
            HEADER.pack(FORMAT, SHARED_WIRE, 1, 1, 1, 1, 0 if text is None else 1),
            encode_one(self.lengths[0]),
            ONE,
            encode_one(self.queues[0]),
            encode_one(self.positions[0]),
            ALL_ZERO if text is None else ONE,
            ALL_ZERO,
            ALL_ZERO,
            encode_one(len(self.wires[0])),
            encode_one(self.priorities[0]) if self.priorities else ALL_ZERO,
            encode_one(self.expiries[0]) if self.expiries else ALL_ZERO,
            encode_one(len(address)),
            address,
            encode_one(len(tag)),
            tag,
            ALL_ZERO if text is None else encode_one(len(text)) + text,
        ]

    def _counts(self) -> list[int]:
        return [self.several.get(index, 1) for index in range(len(self.bodies))] if self.several else [1]

    def _options(self) -> tuple[list[int], list[bytes]]:
        """Return the column (0: none, i: text i - 1) and the texts. By identity, as most references share an object."""
        options = self.options
        first = options[0]
        identities = list(map(id, options))
        if identities.count(identities[0]) == len(options):
            return ([1], [_option_text(first)]) if first is not None else ([], [])
        known: dict[int, int] = {id(None): 0}
        texts: dict[bytes, int] = {}
        for identity, option in zip(identities, options, strict=True):
            if identity not in known and option is not None:
                known[identity] = texts.setdefault(_option_text(option), len(texts) + 1)
        return [known[identity] for identity in identities], list(texts)

    def places(self) -> dict[int, list[int]]:
        """Return per queue the number of references, the bytes of their bodies, and the lowest and highest position."""
        queues, positions = self.queues, self.positions
        lengths = self.lengths
        if self.several:
            lengths = [length for length, count in zip(lengths, self._counts(), strict=True) for _ in range(count)]
        if queues.count(queues[0]) == len(queues):
            return {queues[0]: [len(queues), sum(lengths), min(positions), max(positions)]}
        places: dict[int, list[int]] = {}
        for queue_id, position, length in zip(queues, positions, lengths, strict=True):
            place = places.get(queue_id)
            if place is None:
                places[queue_id] = [1, length, position, position]
                continue
            place[0] += 1
            place[1] += length
            if position > place[3]:
                place[3] = position
            elif position < place[2]:
                place[2] = position
        return places


@lru_cache(4096)
def _option_text(options: BindingOptions) -> bytes:
    return options.text().encode()


def _unsettled(first: Reference, message: Message) -> list[Reference]:
    references = [first, *(message.more or ())]
    message.more = None
    return [reference for reference in references if not reference.settled]


def _dense(sparse: dict[int, int], count: int) -> list[int]:
    return [sparse.get(index, 0) for index in range(count)] if sparse else []
