"""How does an encrypted run of bytes become a plain one?"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from typing import Final

from gateway.errors import ProtocolViolation

RECORD_BYTES: Final = 65_536
MAX_HELLO_BYTES: Final = 65_536
"""What a client may send before it has an answer: a few hundred bytes as a rule."""


class TlsFailure(ProtocolViolation):
    """The handshake failed, or a record is broken: most often a stranger's scan, or a client without the right certificates."""


class Tls:
    """A layer: the server's side of TLS, over OpenSSL's memory buffers.

    Args:
        context: of the certificate that holds when the connection comes.
        later: has `received` called with nothing, soon: the answer to a client's first message is put off until then. It takes
            the time of a hundred packets, and of very many who come at once each has to wait. None: it is given at once.
    """

    __slots__ = ("_early", "_incoming", "_later", "_outgoing", "_put_off", "_tls", "certificate_subject", "ended", "out", "settled")
    spent = False
    successor = None
    transport = "tls"

    def __init__(self, context: ssl.SSLContext, later: Callable[[], None] | None = None) -> None:
        self._later = later
        self._put_off = False
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._early: list[bytes] = []  # sent before the handshake was done
        self.out: list[bytes] = []
        self.ended = False
        self.settled = False
        self.certificate_subject: str | None = None

    def received(self, data: bytes) -> bytes:
        """Return what was in the records that are whole.

        Raises:
            TlsFailure: the alert that says so is in `out`.
        """
        if self.ended:
            return b""
        self._incoming.write(data)
        if self._later is not None and data:
            self._put_off_hello(self._later)
            return b""
        try:
            if not self.settled:
                self._shake_hands()
            return self._read()
        except ssl.SSLWantReadError:
            return b""
        except ssl.SSLError as error:
            self.ended = True
            raise TlsFailure(_reason(error), "TLS") from None
        finally:
            self._put_off = False
            if self._outgoing.pending:
                self._later = None
                self.out.append(self._outgoing.read())

    def sending(self, data: bytes) -> bytes:
        """Return `data` in records; what is sent before the handshake is done goes out right after it."""
        if self.ended or not data:
            return b""
        if not self.settled:
            self._early.append(data)
            return b""
        self._write(data)
        return self._outgoing.read()

    def goodbye(self) -> bytes:
        """Return the alert ``close_notify``, if it was not sent."""
        if self.ended or not self.settled:
            return b""
        self.ended = True
        return self._close_notify()

    def _put_off_hello(self, later: Callable[[], None]) -> None:
        if self._incoming.pending > MAX_HELLO_BYTES:
            self.ended = True
            raise TlsFailure(f"TLS: more than {MAX_HELLO_BYTES} bytes before the answer", "TLS")
        if not self._put_off:
            self._put_off = True
            later()

    def _shake_hands(self) -> None:
        self._tls.do_handshake()
        self.settled = True
        self.certificate_subject = _common_name(self._tls.getpeercert())
        for data in self._early:
            self._write(data)
        self._early.clear()

    def _read(self) -> bytes:
        plain: list[bytes] = []
        try:
            while True:
                piece = self._tls.read(RECORD_BYTES)
                if not piece:
                    self._peer_closed()
                    break
                plain.append(piece)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._peer_closed()
        return plain[0] if len(plain) == 1 else b"".join(plain)

    def _write(self, data: bytes) -> None:
        sent = self._tls.write(data)
        if sent < len(data):  # a record at a time
            view = memoryview(data)
            while sent < len(view):
                sent += self._tls.write(view[sent:])

    def _peer_closed(self) -> None:
        self.ended = True
        self.out.append(self._close_notify())

    def _close_notify(self) -> bytes:
        with contextlib.suppress(ssl.SSLError):  # it wants the peer's, which nobody waits for
            self._tls.unwrap()
        return self._outgoing.read()


def _common_name(certificate: object) -> str | None:
    """Return the first common name of a verified certificate, as `ssl` describes it."""
    if not isinstance(certificate, dict):
        return None
    pairs = [pair for part in certificate.get("subject", ()) for pair in part]
    return next((value for name, value in pairs if name == "commonName"), None)


def _reason(error: ssl.SSLError) -> str:
    reason = (error.reason or str(error)).lower().replace("_", " ")
    verified = getattr(error, "verify_message", "")
    return f"TLS: {reason}{f': {verified}' if verified else ''}"
