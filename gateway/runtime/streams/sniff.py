"""Which protocol begins here: a WebSocket's, or the front-end's own?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.runtime.streams.stack import Part

_HTTP: Final = b"GET "


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
