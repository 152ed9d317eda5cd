"""How do several layers stand on each other?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gateway.runtime.streams.layer import Layer


class Part(Layer, Protocol):
    """A layer that can stand in a stack. `spent`: all that comes from now on is for `successor`, or for who is above."""

    @property
    def spent(self) -> bool:
        """It has nothing more to do."""

    @property
    def successor(self) -> Part | None:
        """Who takes its place when it is spent; None: nobody."""

    @property
    def settled(self) -> bool:
        """Its handshake is done; until then the peer is given only so long."""


class Stack:
    """Layers, the socket's first: what one gives is the next one's. Those that are spent leave it.

    Args:
        transport: what the socket itself is: ``tcp`` or ``unix``.
        changed: is told when one has left or has settled; it may put what is left in the place of the stack.
    """

    __slots__ = ("_changed", "_transport", "out", "parts")

    def __init__(self, parts: list[Part], transport: str, changed: Callable[[Stack], None]) -> None:
        self.parts = parts
        self._transport = transport
        self._changed = changed
        self.out: list[bytes] = []

    @property
    def ended(self) -> bool:
        """See `Layer.ended`."""
        return any(part.ended for part in self.parts)

    @property
    def settled(self) -> bool:
        """Every handshake is done."""
        return all(part.settled for part in self.parts)

    @property
    def transport(self) -> str:
        """See `Layer.transport`."""
        return next((part.transport for part in reversed(self.parts) if part.transport), self._transport)

    @property
    def certificate_subject(self) -> str | None:
        """See `Layer.certificate_subject`."""
        return next((part.certificate_subject for part in self.parts if part.certificate_subject is not None), None)

    def received(self, data: bytes) -> bytes:
        """See `Layer.received`. With nothing: the layer whose handshake is awaited goes on."""
        settled = self.settled
        changed = False
        at = first = 0 if data else self._awaited()
        while at < len(self.parts) and (data or at == first):
            part = self.parts[at]
            try:
                data = part.received(data)
            finally:
                self._collect(at)
            first = -1
            if part.spent:
                self.parts[at : at + 1] = [part.successor] if part.successor is not None else []
                changed = True
            else:
                at += 1
        if changed or settled is not self.settled:
            self._changed(self)
        return data

    def sending(self, data: bytes) -> bytes:
        """See `Layer.sending`."""
        return self._lower(data, len(self.parts))

    def goodbye(self) -> bytes:
        """See `Layer.goodbye`: the uppermost one's goes through those below, whose own follow."""
        said = b""
        for at in reversed(range(len(self.parts))):
            said += self._lower(self.parts[at].goodbye(), at)
        return said

    def _awaited(self) -> int:
        return next((at for at, part in enumerate(self.parts) if not part.settled), len(self.parts))

    def _collect(self, at: int) -> None:
        """Send what a layer itself says through those below it."""
        out = self.parts[at].out
        if out:
            data = self._lower(b"".join(out), at)
            out.clear()
            if data:
                self.out.append(data)

    def _lower(self, data: bytes, at: int) -> bytes:
        for part in reversed(self.parts[:at]):
            if not data:
                break
            data = part.sending(data)
        return data
