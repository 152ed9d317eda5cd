"""How do two ZMTP peers agree on a version and a mechanism?"""

from __future__ import annotations

from typing import Final, NamedTuple

from gateway_zeromq.zmtp.frames import Violation

VERSION: Final = (3, 1)
OLD_VERSION: Final = (2, 0)
SIZE: Final = 64
OPENING: Final = b"\xff" + bytes(7) + b"\x01\x7f" + bytes(VERSION[:1])
"""Signature and major version, the same for everybody: enough for a peer to say which version it speaks.

The padding is an older peer's length of one byte, as libzmq sends it: ZMTP 1 peers then see an identity, and don't wait for more.
"""

_SIGNATURE: Final = 10
_MAJOR_3: Final = 3
_OLD_REVISION: Final = 1
_MECHANISM: Final = slice(12, 32)
_MECHANISM_BYTES: Final = 20
_AS_SERVER: Final = 32
_CHARACTERS: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.+")

SOCKET_TYPES: Final = ("PAIR", "PUB", "SUB", "REQ", "REP", "DEALER", "ROUTER", "PULL", "PUSH", "XPUB", "XSUB")
"""By their number in ZMTP 2 (those behind PUSH have none there)."""


class Greeting(NamedTuple):
    """What a ZMTP 3 peer says of itself first."""

    major: int
    minor: int
    mechanism: bytes
    as_server: bool


def rest_of_greeting(mechanism: bytes, *, as_server: bool) -> bytes:
    """Return what follows `OPENING`, to a peer of version 3 and above."""
    return bytes(VERSION[1:]) + mechanism.ljust(_MECHANISM_BYTES, b"\0") + bytes((as_server,)) + bytes(31)


def check_signature(data: bytes) -> None:
    """Look at the first bytes, as many as have come. Raises: Violation: no ZMTP of version 2 or above."""
    if data[:1] not in (b"", b"\xff"):
        raise Violation("no ZMTP, or one of version 1")
    if len(data) >= _SIGNATURE and not data[_SIGNATURE - 1] & 1:
        raise Violation("no ZMTP, or one of version 1")


def is_version_3(data: bytes) -> bool:
    """Say by the first eleven bytes whether a full greeting follows; otherwise it is ZMTP 2. Raises: Violation."""
    major = data[_SIGNATURE]
    if major >= _MAJOR_3:
        if data[_SIGNATURE - 1] != 0x7F:  # noqa: PLR2004 - the signature's end
            raise Violation("a signature that does not end with 0x7f")
        return True
    if major != _OLD_REVISION:
        raise Violation(f"revision {major} of ZMTP")
    return False


def parse(data: bytes) -> Greeting:
    """Read a full greeting of 64 bytes. Raises: Violation."""
    mechanism = data[_MECHANISM].rstrip(b"\0")
    as_server = data[_AS_SERVER]
    if not mechanism or not _CHARACTERS.issuperset(mechanism):
        raise Violation("a mechanism that has no name")
    if as_server > 1:
        raise Violation(f"as-server is {as_server}")
    return Greeting(data[_SIGNATURE], data[_SIGNATURE + 1], mechanism, bool(as_server))


def old_socket_type(number: int) -> str:
    """Return the type that a ZMTP 2 peer says it has. Raises: Violation."""
    if number > SOCKET_TYPES.index("PUSH"):
        raise Violation(f"socket type {number}")
    return SOCKET_TYPES[number]
