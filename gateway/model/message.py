"""What is a message, and where was it sent?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.model.properties import COMMON, NO_PROPERTIES, Properties, decode_properties, encode_properties

if TYPE_CHECKING:
    from gateway.model.records import Reference

WireDecoder = Callable[[bytes], Properties]


class Address:
    """Where messages are sent: virtual host, exchange, routing key. Shared by all messages of one route.

    ``encoded`` belongs to the journal, which keeps its own form of the address there.
    """

    __slots__ = ("encoded", "exchange", "routing_key", "vhost")

    def __init__(self, vhost: str, exchange: str, routing_key: str) -> None:
        self.vhost: str = vhost
        self.exchange: str = exchange
        self.routing_key: str = routing_key
        self.encoded: bytes | None = None


class Message:
    """One message; immutable once published, shared by every queue that holds it.

    Args:
        address: where it was sent.
        body: the payload.
        persistent: it outlives the broker in durable queues (AMQP delivery mode 2, MQTT QoS 1 and 2).
        wire_tag: who wrote `wire`; ``""`` with no bytes.
        wire: the origin protocol's own bytes, journaled, decoded on demand by the function that the
            origin's front-end registered under `wire_tag`.
        priority: 0 to 255.
        expires_at_ms: wall time in ms since 1970 from which it is not delivered any more; 0: never.

    ``live``, ``first`` and ``more`` belong to the engine and the journal while the message is in the open
    batch: how many durable references are unsettled, and which they are.
    """

    __slots__ = (
        "address",
        "body",
        "expires_at_ms",
        "first",
        "live",
        "more",
        "persistent",
        "priority",
        "wire",
        "wire_tag",
    )

    def __init__(  # noqa: PLR0913 - a value; positional for speed
        self,
        address: Address,
        body: bytes,
        persistent: bool = False,
        wire_tag: str = "",
        wire: bytes = b"",
        priority: int = 0,
        expires_at_ms: int = 0,
    ) -> None:
        self.address: Address = address
        self.body: bytes = body
        self.persistent: bool = persistent
        self.wire_tag: str = wire_tag
        self.wire: bytes = wire
        self.priority: int = priority
        self.expires_at_ms: int = expires_at_ms
        self.live: int = 0
        self.first: Reference | None = None
        self.more: list[Reference] | None = None

    @property
    def exchange(self) -> str:
        """Name of the exchange that it was published to; ``""`` is the default exchange."""
        return self.address.exchange

    @property
    def routing_key(self) -> str:
        """AMQP syntax: words between dots."""
        return self.address.routing_key


_decoders: dict[str, WireDecoder] = {"": lambda _: NO_PROPERTIES, COMMON: decode_properties}


def with_properties(address: Address, body: bytes, properties: Properties, *, persistent: bool = True) -> Message:
    """Make a message from common properties (the simple form for authors of front-ends)."""
    wire = encode_properties(properties) if properties != NO_PROPERTIES else b""
    return Message(address, body, persistent, COMMON if wire else "", wire, properties.priority or 0)


class Decoders:
    """Which function reads which origin's bytes? One table per gateway; front-ends register at start."""

    def __init__(self) -> None:
        self._decoders: dict[str, WireDecoder] = dict(_decoders)

    def register(self, tag: str, decoder: WireDecoder) -> None:
        """Add the pure function that reads `wire` bytes under `tag`.

        Raises:
            ValueError: another function has that tag.
        """
        if self._decoders.setdefault(tag, decoder) is not decoder:
            raise ValueError(f"wire tag {tag!r} is registered twice")

    def reads(self, tag: str) -> bool:
        """Say whether somebody here reads what has this tag."""
        return tag in self._decoders

    def properties(self, message: Message) -> Properties:
        """Return a message's properties in the common form. An unknown tag (its plugin is gone) has none."""
        decoder = self._decoders.get(message.wire_tag)
        return decoder(message.wire) if decoder is not None else NO_PROPERTIES
