"""How does a WebSocket become a plain run of bytes?"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Final, NoReturn, Protocol

from wsproto.connection import ConnectionType
from wsproto.events import AcceptConnection, Request
from wsproto.handshake import H11Handshake
from wsproto.utilities import RemoteProtocolError

from gateway.errors import ProtocolViolation
from gateway.runtime.streams.frames import NORMAL, BadFrame, FrameReader, binary_frame, close_frame, pong_frame

MAX_HEAD_BYTES: Final = 16_384
_END_OF_HEAD: Final = b"\r\n\r\n"


class Congestible(Protocol):
    """Who knows whether the peer reads what it is sent."""

    @property
    def is_congested(self) -> bool:
        """It does not."""


class WebSocket:
    """A layer: the server's side of RFC 6455, without extensions.

    Args:
        protocols: the sub-protocols that are spoken; the first of the client's that is one of them is agreed on.
        path: the only one that is served; empty: any.
        origins: the only origins (of browsers' pages) that are let in; empty: any.
        transport: ``ws``, or ``wss`` if TLS is below.
        way: to the peer: while that is congested, pings are not answered.
    """

    __slots__ = ("_head", "_origins", "_path", "_protocols", "_reader", "_way", "ended", "out", "transport")
    spent = False
    successor = None
    certificate_subject = None

    def __init__(
        self,
        protocols: Sequence[str],
        path: str = "",
        *,
        origins: Sequence[str] = (),
        transport: str = "ws",
        way: Congestible | None = None,
    ) -> None:
        self._way = way
        self.transport = transport
        self.out: list[bytes] = []
        self.ended = False
        self._protocols = protocols
        self._path = path
        self._origins = origins
        self._head: bytearray | None = bytearray()
        self._reader: FrameReader | None = None

    @property
    def settled(self) -> bool:
        """The upgrade is done."""
        return self._reader is not None

    def received(self, data: bytes) -> bytes:
        """Return what the binary frames carry.

        Raises:
            ProtocolViolation: no upgrade, or a bad frame; the answer is in `out`.
        """
        if self.ended:
            return b""
        if self._reader is None:
            data = self._greeted(data)
            if self._reader is None:
                return b""
        reader = self._reader
        try:
            plain = reader.feed(data)
        except BadFrame as bad:
            self._close(bad.code)
            raise
        if reader.ping is not None:
            if self._way is None or not self._way.is_congested:
                self.out.append(pong_frame(reader.ping))
            reader.ping = None
        if reader.close_code is not None:
            self._close(reader.close_code)
        return plain

    def sending(self, data: bytes) -> bytes:
        """Return `data` in a frame; nothing before the upgrade, and after the goodbye."""
        if self._reader is None or self.ended or not data:
            return b""
        return binary_frame(data)

    def goodbye(self) -> bytes:
        """Return the close frame, if none was sent."""
        if self._reader is None or self.ended:
            return b""
        self.ended = True
        return close_frame(NORMAL)

    def _close(self, code: int) -> None:
        self.ended = True
        self.out.append(close_frame(code))

    # -- the upgrade --------------------------------------------------------

    def _greeted(self, data: bytes) -> bytes:
        """Collect the request; answer it when it is whole; return what came behind it."""
        head = self._head
        assert head is not None
        searched = max(0, len(head) - len(_END_OF_HEAD))
        head += data
        end = head.find(_END_OF_HEAD, searched)
        if (end if end >= 0 else len(head)) > MAX_HEAD_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"The request is longer than {MAX_HEAD_BYTES} bytes.")
        if end < 0:
            return b""
        end += len(_END_OF_HEAD)
        rest = bytes(head[end:])
        self._upgrade(bytes(head[:end]))
        self._head = None
        self._reader = FrameReader()
        return rest

    def _upgrade(self, head: bytes) -> None:
        handshake = H11Handshake(ConnectionType.SERVER)
        try:
            handshake.receive_data(head)
            request = next(handshake.events(), None)
        except RemoteProtocolError as error:
            status, more = _answer_to(error, head)
            self._refuse(status, f"This is a WebSocket server: {error}.", more)
        except ValueError:  # a host or a target that is no text
            request = None
        if not isinstance(request, Request):
            self._refuse(HTTPStatus.BAD_REQUEST, "The request is malformed.")
        self._check(request)
        chosen = next((name for name in request.subprotocols if name in self._protocols), None)
        if chosen is None:  # [MQTT-6.0.0-3]: the client must offer it
            known = ", ".join(self._protocols)
            self._refuse(HTTPStatus.BAD_REQUEST, f"The client must offer one of the sub-protocols {known}.")
        self.out.append(handshake.send(AcceptConnection(subprotocol=chosen)))  # [MQTT-6.0.0-4]

    def _check(self, request: Request) -> None:
        path = request.target.partition("?")[0]
        if self._path and path != self._path:
            self._refuse(HTTPStatus.NOT_FOUND, f"The WebSocket is at {self._path}.")
        if self._origins:
            origin = next((value for name, value in request.extra_headers if name == b"origin"), None)
            if origin is not None and origin.decode("latin-1") not in self._origins:
                self._refuse(HTTPStatus.FORBIDDEN, "This origin is not allowed.")

    def _refuse(self, status: HTTPStatus, text: str, more: str = "Connection: close\r\n") -> NoReturn:
        """Answer in HTTP. Raises ProtocolViolation: always."""
        self.ended = True
        body = f"{text}\n".encode("ascii", "backslashreplace")
        self.out.append(
            f"HTTP/1.1 {status.value} {status.phrase}\r\n{more}"
            f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n".encode("ascii")
            + body
        )
        raise ProtocolViolation(f"no WebSocket upgrade: {text}", "RFC 6455 §4.2.1")


def _answer_to(error: RemoteProtocolError, head: bytes) -> tuple[HTTPStatus, str]:
    """Return the status for what wsproto found wrong: plain HTTP is told to upgrade, the rest is a bad request."""
    wanted = getattr(error.event_hint, "status_code", 400) == HTTPStatus.UPGRADE_REQUIRED
    if wanted or b"\r\nupgrade:" not in head.lower():
        return HTTPStatus.UPGRADE_REQUIRED, "Upgrade: websocket\r\nConnection: Upgrade, close\r\nSec-WebSocket-Version: 13\r\n"
    return HTTPStatus.BAD_REQUEST, "Connection: close\r\nSec-WebSocket-Version: 13\r\n"
