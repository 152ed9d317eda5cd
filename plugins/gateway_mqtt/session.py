"""What of a client outlives its connection: which packet identifiers are in flight, and who has which name?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeAlias, TypeVar

from gateway_mqtt.codec.packets import MAX_IDENTIFIER
from gateway_mqtt.runs import pairs_of
from gateway_mqtt.store import Kept

SessionKey: TypeAlias = tuple[str, str]
"""Virtual host and client identifier."""


class InFlight(Protocol):
    """What a packet identifier stands for: a delivery of a queue."""

    @property
    def position(self) -> int:
        """Its number in the queue."""


MOST_RESERVED = 32_000
"""So many identifiers are kept for what was sent on earlier connections, the newest ones; more never were in flight at a time. So
there is always a free one for what a window may hold."""

D = TypeVar("D", bound=InFlight)
L = TypeVar("L")


class Session(Generic[D]):
    """A client's state in this broker.

    Args (attributes):
        lasts: it outlives the connection.
        inflight: by packet identifier: the delivery of QoS 1 from the session's own queue; None where it is something else
            (QoS 2, a retained message, a shared subscription's), or is reserved for what had it before.
        next_id: where the search for a free identifier begins.
        resend: by position in the session's queue: the identifier under which it was sent before [MQTT-4.4.0-1].
        reserved: how many of ``inflight`` were sent on an earlier connection and not yet on this one.
        exact: what is not in ``resend`` was not sent before. After a crash nobody knows.
    """

    __slots__ = (
        "_owners", "clean", "client_id", "exact", "inflight", "key", "lasts", "next_id", "resend", "reserved",
    )  # fmt: skip

    def __init__(self, vhost: str, client_id: str, *, clean: bool, lasts: bool | None = None) -> None:
        self.key: SessionKey = (vhost, client_id)
        self.client_id: str = client_id
        self.clean: bool = clean
        self.lasts: bool = not clean if lasts is None else lasts
        self.inflight: dict[int, D | None] = {}
        self.next_id: int = 1
        self.resend: dict[int, int] = {}
        self.reserved: int = 0
        self.exact: bool = False
        self._owners: dict[int, int] | None = None

    @property
    def outstanding(self) -> int:
        """How many identifiers are in use on this connection, in both directions of a handshake."""
        return len(self.inflight) - self.reserved

    def identify(self, delivery: D | None) -> int:
        """Put something in flight under a free packet identifier [MQTT-2.3.1-2]. Fewer than 65,535 must be in flight."""
        packet_id = self.next_id
        while packet_id in self.inflight:
            packet_id = packet_id % MAX_IDENTIFIER + 1
        self.next_id = packet_id % MAX_IDENTIFIER + 1
        self.inflight[packet_id] = delivery
        return packet_id

    def identify_again(self, delivery: D) -> int:
        """Put a redelivery in flight, under its former packet identifier if that is known."""
        packet_id = self.resend.pop(delivery.position, 0)
        if not packet_id:
            return self.identify(delivery)
        self.reserved -= 1
        self.inflight[packet_id] = delivery
        return packet_id

    def reserve(self, packet_id: int) -> None:
        """Keep an identifier for what had it on an earlier connection."""
        self.inflight[packet_id] = None
        self.reserved += 1

    def is_to_be_resent(self, packet_id: int) -> bool:
        """Say whether an identifier is kept for what was sent under it before. Cost: a look-up, after the first time."""
        owners = self._owners
        if owners is None:  # from here on there are no more of them
            owners = self._owners = {number: position for position, number in self.resend.items()}
        position = owners.get(packet_id)
        return position is not None and self.resend.get(position) == packet_id

    def release_reserved(self) -> None:
        """What had identifiers of QoS 1 before and did not come again is gone: expired, or purged. They are free."""
        for packet_id in self.resend.values():
            if self.inflight.get(packet_id, self) is None:
                del self.inflight[packet_id]
                self.reserved -= 1
        self.resend.clear()

    # -- from one connection to the next ------------------------------------

    def resume(self, kept: Kept, *, exact: bool) -> None:
        """Go on where an earlier connection has ended.

        Args:
            kept: what the store knows of it.
            exact: nothing was sent that it does not know.
        """
        self.exact = exact
        pairs = list(pairs_of(kept.runs))
        for position, packet_id in pairs[-max(MOST_RESERVED - len(kept.outgoing), 1) :]:
            if packet_id not in self.inflight and position not in self.resend and packet_id not in kept.outgoing:
                self.resend[position] = packet_id
                self.reserve(packet_id)
                self.next_id = packet_id % MAX_IDENTIFIER + 1

    def in_flight(self) -> Iterator[tuple[int, int]]:
        """Yield position and identifier of all of the session's own queue that was sent with QoS 1 and is not acknowledged."""
        own: dict[int, int] = dict(self.resend)
        for packet_id, delivery in self.inflight.items():
            if delivery is not None:
                own[delivery.position] = packet_id
        yield from own.items()


class Sessions(Generic[L]):
    """Which connection has which client identifier now?"""

    def __init__(self) -> None:
        self._live: dict[SessionKey, L] = {}

    def __len__(self) -> int:
        return len(self._live)

    def holder(self, key: SessionKey) -> L | None:
        """Return the connection that has this identifier."""
        return self._live.get(key)

    def enter(self, key: SessionKey, link: L) -> None:
        """Give a session to a connection. The former holder must have left."""
        self._live[key] = link

    def holders(self) -> list[L]:
        """Return all connections that have one."""
        return list(self._live.values())

    def leave(self, key: SessionKey, link: L) -> None:
        """Take a session from a connection, if it has it still."""
        if self._live.get(key) is link:
            del self._live[key]
