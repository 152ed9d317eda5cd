"""What does libzmq ask about a peer, and what is it answered? The frames of ZAP (RFC 27)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

ADDRESS = "inproc://zeromq.zap.01"
_VERSION = b"1.0"
_FEWEST = 8
_CREDENTIALS = {"NULL": 0, "PLAIN": 2, "CURVE": 1}


class Status(IntEnum):
    """Status codes.

    ``LATER`` is none of ZAP's: libzmq then ends the connection at once, and its peer comes again. With ZAP's 300 the connection
    would hang, and count, until its time for the handshake is up; with 400 a peer never comes again.
    """

    OK = 200
    LATER = 700
    REFUSED = 400
    BROKEN = 500


class Request(NamedTuple):
    """One question. ``route``: frames that lead the answer back; ``address``: the peer's, without its port."""

    route: bytes
    number: bytes
    domain: str
    address: str
    mechanism: str
    credentials: tuple[bytes, ...]


class Malformed(Exception):
    """A question that is none; the text says why. ``reply``: what to answer, None where nobody could be answered."""

    def __init__(self, text: str, reply: Sequence[bytes] | None = None) -> None:
        super().__init__(text)
        self.reply = reply


def parse(frames: Sequence[bytes]) -> Request:
    """Read the frames that a ROUTER socket received. Raises: Malformed."""
    if len(frames) < 4 or frames[1]:  # noqa: PLR2004 - route, delimiter, version, number
        raise Malformed("it has no envelope")
    route, _, version, number = frames[:4]
    if version != _VERSION or len(frames) < _FEWEST:
        text = f"it has {len(frames) - 2} frames, and version {version!r}"
        raise Malformed(text, _reply(route, number, Status.REFUSED, "not understood"))
    mechanism = frames[7].decode(errors="replace")
    credentials = tuple(frames[8:])
    if _CREDENTIALS.get(mechanism, len(credentials)) != len(credentials):
        text = f"mechanism {mechanism} has {len(credentials)} credentials"
        raise Malformed(text, _reply(route, number, Status.REFUSED, "not understood"))
    domain, address = (frame.decode(errors="replace") for frame in frames[4:6])
    return Request(route, number, domain, address, mechanism, credentials)


def answer(request: Request, status: Status, text: str, user: str = "") -> list[bytes]:
    """Return the frames of an answer. `user`: with status OK, what libzmq tells as User-Id of every message of the peer."""
    return _reply(request.route, request.number, status, text, user)


def _reply(route: bytes, number: bytes, status: Status, text: str, user: str = "") -> list[bytes]:
    return [route, b"", _VERSION, number, b"%d" % status, text.encode(), user.encode(), b""]
