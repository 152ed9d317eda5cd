"""What does the host give a front-end that speaks over byte streams? The socket is the host's, the bytes are the front-end's."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Protocol


class CloseReason(Enum):
    """Why a connection's pump ended."""

    EOF = "closed by the peer"
    LOCAL = "closed by the broker"
    VIOLATION = "protocol violation"
    IDLE = "keep alive exceeded"
    ERROR = "connection lost"
    SLOW = "peer reads too slowly"
    SHUTDOWN = "broker is shutting down"


class CongestionSink(Protocol):
    """Who is told that a connection has more to send than its peer takes."""

    def congested(self) -> None:
        """More than ``limits.outgoing_bytes`` wait to be sent: stop what can be stopped (pause consumers)."""

    def decongested(self) -> None:
        """Little waits to be sent: go on."""


class Connection(Protocol):
    """One peer on a byte stream.

    Sending: append bytes to `out`; if `out` was empty before, call `touch`. It is flushed once at the end of the turn, all
    of it in one send. Receiving: `receive` while the connection is being set up, then `pump`.
    """

    out: list[bytes]
    """What is to be sent in this turn. The same list for the life of the connection."""

    @property
    def peer(self) -> str:
        """For logs: ``127.0.0.1:40312``."""

    @property
    def is_loopback(self) -> bool:
        """The peer is on this machine."""

    @property
    def is_congested(self) -> bool:
        """More than the limit waits to be sent; what may be dropped (QoS 0) should be, and counted."""

    @property
    def closing(self) -> bool:
        """`close` or `abort` was called, or the peer is gone; nothing is sent any more."""

    def touch(self) -> None:
        """Have `out` flushed at the end of this turn."""

    def watch(self, sink: CongestionSink) -> None:
        """Tell `sink` about congestion."""

    async def receive(self) -> bytes:
        """Return the next bytes (at most 64 KiB); ``b""``: the peer has closed, or `close` was called.

        As in `pump` nothing is received while the journal is behind or this peer does not read.

        Cancellation: safe, nothing received is lost.
        """

    async def pump(self, feed: Callable[[bytes], None], *, idle_timeout_s: float = 0.0) -> CloseReason:
        """Feed all that arrives until the connection ends; `feed` is synchronous and decodes every complete packet.

        `feed` may raise ProtocolViolation: it is counted and logged once, `out` is flushed (the goodbye), the
        connection closes. While the journal is behind or this peer does not read, nothing is received.

        Args:
            idle_timeout_s: end with IDLE after so long with nothing received (within half a second); 0: never.

        Cancellation: closes the connection.
        """

    def close(self, reason: CloseReason = CloseReason.LOCAL) -> None:
        """Flush `out`, then close; `pump` returns `reason`."""

    def abort(self, reason: CloseReason = CloseReason.ERROR) -> None:
        """Close at once, without flushing."""
