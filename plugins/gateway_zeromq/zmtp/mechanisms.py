"""How do two ZMTP peers let each other in: NULL (RFC 37) and PLAIN (RFC 24)?

CURVE is not spoken here: it would need CurveZMQ's boxes, for which no library is installed that is kept well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from gateway_zeromq.zmtp.commands import (
    HELLO,
    INITIATE,
    READY,
    WELCOME,
    command,
    hello,
    metadata,
    read_hello,
    read_metadata,
)
from gateway_zeromq.zmtp.frames import Violation

Properties = Mapping[str, bytes]


class Login(NamedTuple):
    """A peer has said who it is; it waits to be admitted or refused."""

    user: bytes
    password: bytes


class Met(NamedTuple):
    """A peer has sent its metadata.

    Args:
        answer: what is still to be sent, if its metadata are right.
    """

    properties: dict[str, bytes]
    answer: bytes


class Mechanism(Protocol):
    """One side of a handshake."""

    name: bytes
    as_server: bool

    def begin(self) -> bytes:
        """Return what this side says first."""

    def receive(self, name: bytes, data: bytes) -> bytes | Login | Met:
        """Take a command: return the answer, or what has come of it. Raises: Violation."""

    def admit(self) -> bytes:
        """Return what is said to a peer that is let in (after `Login`)."""

    def check_role(self, *, as_server: bool) -> None:
        """Look at the role of the other side. Raises: Violation."""


def _expect(name: bytes, expected: bytes) -> None:
    if name != expected:
        raise Violation(f"{name.decode()} in place of {expected.decode()}")


class Null:
    """No proof of who anybody is.

    Args:
        properties: this side's metadata.
        first: this side speaks first (it has connected).
    """

    name = b"NULL"
    as_server = False

    def __init__(self, properties: Properties, *, first: bool) -> None:
        self._ready = command(READY, metadata(properties))
        self._first = first

    def begin(self) -> bytes:
        """See `Mechanism.begin`."""
        return self._ready if self._first else b""

    def receive(self, name: bytes, data: bytes) -> bytes | Login | Met:
        """See `Mechanism.receive`."""
        _expect(name, READY)
        return Met(read_metadata(data), b"" if self._first else self._ready)

    def admit(self) -> bytes:
        """See `Mechanism.admit`: nobody has to be."""
        return b""

    def check_role(self, *, as_server: bool) -> None:
        """See `Mechanism.check_role`."""
        if as_server:
            raise Violation("as-server is set with NULL")


class PlainServer:
    """The side that asks for user and password. Args: this side's metadata."""

    name = b"PLAIN"
    as_server = True

    def __init__(self, properties: Properties) -> None:
        self._ready = command(READY, metadata(properties))
        self._admitted = False

    def begin(self) -> bytes:
        """See `Mechanism.begin`."""
        return b""

    def receive(self, name: bytes, data: bytes) -> bytes | Login | Met:
        """See `Mechanism.receive`."""
        if not self._admitted:
            _expect(name, HELLO)
            return Login(*read_hello(data))
        _expect(name, INITIATE)
        return Met(read_metadata(data), self._ready)

    def admit(self) -> bytes:
        """See `Mechanism.admit`."""
        self._admitted = True
        return command(WELCOME)

    def check_role(self, *, as_server: bool) -> None:
        """See `Mechanism.check_role`."""
        if as_server:
            raise Violation("both sides are servers of PLAIN")


class PlainClient:
    """The side that says who it is. Args: its metadata, user and password (at most 255 bytes each)."""

    name = b"PLAIN"
    as_server = False

    def __init__(self, properties: Properties, user: bytes, password: bytes) -> None:
        self._initiate = command(INITIATE, metadata(properties))
        self._hello = hello(user, password)
        self._welcome = False

    def begin(self) -> bytes:
        """See `Mechanism.begin`."""
        return self._hello

    def receive(self, name: bytes, data: bytes) -> bytes | Login | Met:
        """See `Mechanism.receive`."""
        if not self._welcome:
            _expect(name, WELCOME)
            if data:
                raise Violation("a WELCOME that can't be read")
            self._welcome = True
            return self._initiate
        _expect(name, READY)
        return Met(read_metadata(data), b"")

    def admit(self) -> bytes:
        """See `Mechanism.admit`: nobody has to be."""
        return b""

    def check_role(self, *, as_server: bool) -> None:
        """See `Mechanism.check_role`."""
        if not as_server:
            raise Violation("nobody is the server of PLAIN")
