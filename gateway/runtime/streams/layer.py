"""What may stand between a socket and who takes its bytes?"""

from __future__ import annotations

from typing import Protocol


class Layer(Protocol):
    """Translates between the socket's bytes and those of what is above: TLS, WebSocket, a PROXY header. Sans-IO.

    A connection calls it and sends what is in `out` afterwards, in front of everything else. While `received` runs it may give the
    connection another layer, or none.
    """

    out: list[bytes]
    """What the layer itself wants sent, in the socket's form: a handshake, a pong. The connection empties it."""

    @property
    def ended(self) -> bool:
        """The peer has said goodbye in the layer's own way: nothing comes any more."""

    @property
    def transport(self) -> str:
        """``tcp``, ``tls``, ``ws``, ``wss`` or ``unix``: what the connection came over, as far as this layer knows."""

    @property
    def certificate_subject(self) -> str | None:
        """The common name of the client certificate that was verified; None: there was none."""

    def received(self, data: bytes) -> bytes:
        """Take what the socket gave; return what is in it for those above: perhaps nothing, perhaps more than one piece.

        Raises:
            ProtocolViolation: the peer broke the layer's rules; what is in `out` by then is its goodbye.
        """

    def sending(self, data: bytes) -> bytes:
        """Take what those above send in this turn; return it in the socket's form."""

    def goodbye(self) -> bytes:
        """Return what tells the peer that nothing more is sent, in the socket's form. Called once, last."""
