"""Which protocol begins here: a WebSocket's, or the front-end's own?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gateway.runtime.streams.stack import Part, Stack

if TYPE_CHECKING:
    from gateway.runtime.streams.connection import StreamConnection

_HTTP: Final = b"GET "
_NOTHING: Final[list[bytes]] = []
"""Nothing is ever put into it."""


class Sniff:
    """A layer that looks at the first bytes, and is spent: `successor` goes on if they begin an HTTP request.

    Args:
        make: makes the layer for what comes as HTTP.
    """

    __slots__ = ("_buffer", "_make", "ended", "out", "spent", "successor")
    transport = ""
    certificate_subject = None

    def __init__(self, make: Callable[[], Part]) -> None:
        self._buffer = b""
        self._make = make
        self.spent = False
        self.successor: Part | None = None
        self.out: list[bytes] = []
        self.ended = False

    @property
    def settled(self) -> bool:
        """It is not waited for: who is silent on a plain connection is the front-end's own affair."""
        return True

    def received(self, data: bytes) -> bytes:
        """Return all that came, once it is clear what it is: one byte does, unless it is a G."""
        data = self._buffer + data
        self._buffer = b""
        if len(data) < len(_HTTP) and _HTTP.startswith(data):
            self._buffer = data
            return b""
        self.spent = True
        if data.startswith(_HTTP):
            self.successor = self._make()
        return data

    def sending(self, data: bytes) -> bytes:
        """Return `data`: a front-end that speaks first speaks plainly."""
        return data

    def goodbye(self) -> bytes:
        """Return nothing: there is none."""
        return b""


class Undecided:
    """The layer of a connection on which nothing but a WebSocket may stand: it leaves at the first byte, unless that is a G.

    Args:
        make: makes the stack, with a `Sniff`, for what does begin like that.
    """

    __slots__ = ("_connection", "_make", "_stack", "out")
    transport = "tcp"
    certificate_subject = None

    def __init__(self, connection: StreamConnection, make: Callable[[StreamConnection], Stack]) -> None:
        self._connection = connection
        self._make = make
        self._stack: Stack | None = None
        self.out = _NOTHING

    @property
    def ended(self) -> bool:
        """See `Layer.ended`."""
        return self._stack is not None and self._stack.ended

    def received(self, data: bytes) -> bytes:
        """Return `data`, and leave; or leave all to the stack."""
        if not data:
            return data
        if data[0] != _HTTP[0]:
            self._connection.layer = None
            return data
        stack = self._stack = self._connection.layer = self._make(self._connection)
        self.out = stack.out
        return stack.received(data)

    def sending(self, data: bytes) -> bytes:
        """Return `data`: a front-end that speaks first speaks plainly."""
        return data

    def goodbye(self) -> bytes:
        """Return nothing: there is none."""
        return b""
