"""What does the host give a front-end that speaks over byte streams? The socket is the host's, the bytes are the front-end's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
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


class Receiver(Protocol):
    """Who takes what arrives on a connection, without a task of its own. Implemented by the front-end."""

    def feed(self, data: bytes) -> bool | None:
        """Decode every complete packet. Synchronous.

        May raise ProtocolViolation: it is counted and logged once, `Connection.out` is flushed (the goodbye), it closes.

        Returns:
            False: nothing whole has come, so the peer does not count as heard (a part of 1 KiB and more does).
        """

    def ended(self, reason: CloseReason) -> None:
        """The connection is over: nothing is fed any more. Called once, at the end of the turn in which it was closed.

        What is appended to `Connection.out` here is still sent (a last goodbye), if the peer is there; nothing is afterwards.
        """


class Connection(Protocol):
    """One peer on a byte stream.

    Sending: append bytes to `out`; if `out` was empty before, call `touch`. It is flushed once at the end of the turn, all
    of it in one send. Receiving: `receive` while the connection is being set up, then `pump`; or `attach` a receiver, which needs
    no task and least memory. `peer`, `is_loopback`, `transport` and `certificate_subject` are settled when the first bytes come: a
    trusted proxy's header, TLS and a WebSocket's upgrade are over by then.
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
    def transport(self) -> str:
        """Over what it came: ``tcp``, ``tls``, ``ws``, ``wss`` or ``unix``."""

    @property
    def certificate_subject(self) -> str | None:
        """The common name of the client certificate that was verified; None: there was none."""

    @property
    def is_congested(self) -> bool:
        """More than the limit waits to be sent; what may be dropped (QoS 0) should be, and counted."""

    @property
    def closing(self) -> bool:
        """`close` or `abort` was called, or the peer is gone; nothing is sent any more."""

    def touch(self) -> None:
        """Have `out` flushed at the end of this turn."""

    def flush(self) -> None:
        """Send `out` now. For who is flushed at the end of the turn instead of the connection (`Gateway.touch`)."""

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

    def attach(self, receiver: Receiver, *, idle_timeout_s: float = 0.0, deadline_s: float = 0.0) -> None:
        """Feed all that arrives to `receiver` from now on, until it is told that the connection has ended.

        A handler that has attached a receiver may return: the connection lives on. Attaching another takes the place of the first.
        Holds back and ends as `pump` does.

        Args:
            idle_timeout_s: end with IDLE after so long without being heard (within half a second); 0: never.
            deadline_s: end with IDLE so long from now, whatever comes, unless another receiver is attached before; 0: never.
        """

    def catch_up(self) -> None:
        """Feed what has come and was not read yet, now: for who ends a connection because its peer has come again by another one.

        What comes in a flood is not waited for: it is read a few times at most.
        """

    def start(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run something that has to wait (a password's check) in a task that ends with the connection."""

    def close(self, reason: CloseReason = CloseReason.LOCAL) -> None:
        """Flush `out`, then close; `pump` returns `reason`."""

    def abort(self, reason: CloseReason = CloseReason.ERROR) -> None:
        """Close at once, without flushing."""
