"""How do frames become commands of Majordomo 0.1 (RFC 7) and 0.2 (RFC 18), and back?

A message begins with six bytes that name the role of its peer and the version; 0.1 has an empty frame before them, which the
socket has taken off already. All that is not exactly as the RFCs draw it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, NamedTuple, TypeAlias

from gateway.api import ProtocolViolation

MAX_SERVICE_BYTES = 251
"""With ``mdp.`` in front of it a service's name is a queue's."""
MMI = "mmi."
"""Names that begin so are the broker's own (RFC 8/MMI)."""


class Version(Enum):
    """A version of Majordomo, as settings write it."""

    V01 = "mdp/0.1"
    V02 = "mdp/0.2"


class Role(Enum):
    """What a peer is."""

    CLIENT = "client"
    WORKER = "worker"


class Dialect(NamedTuple):
    """What the first six bytes say."""

    role: Role
    version: Version


DIALECTS: dict[bytes, Dialect] = {
    b"MDPC01": Dialect(Role.CLIENT, Version.V01),
    b"MDPW01": Dialect(Role.WORKER, Version.V01),
    b"MDPC02": Dialect(Role.CLIENT, Version.V02),
    b"MDPW02": Dialect(Role.WORKER, Version.V02),
}
HEADERS: dict[Dialect, bytes] = {dialect: header for header, dialect in DIALECTS.items()}
SPECS: dict[Version, str] = {Version.V01: "RFC 7/MDP", Version.V02: "RFC 18/MDP"}


@dataclass(frozen=True, slots=True)
class Request:
    """A client asks a service."""

    service: str
    body: list[bytes]


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker offers a service."""

    service: str


@dataclass(frozen=True, slots=True)
class Reply:
    """A worker answers: REPLY of 0.1, PARTIAL and FINAL of 0.2."""

    address: bytes
    body: list[bytes]
    final: bool


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A worker is alive."""


@dataclass(frozen=True, slots=True)
class Disconnect:
    """A worker goes."""


WorkerCommand: TypeAlias = Ready | Reply | Heartbeat | Disconnect
_Kind: TypeAlias = Literal["READY", "REQUEST", "REPLY", "PARTIAL", "FINAL", "HEARTBEAT", "DISCONNECT"]

_WORKER_BYTES: dict[Version, dict[bytes, _Kind]] = {
    Version.V01: {b"\1": "READY", b"\2": "REQUEST", b"\3": "REPLY", b"\4": "HEARTBEAT", b"\5": "DISCONNECT"},
    Version.V02: {b"\1": "READY", b"\2": "REQUEST", b"\3": "PARTIAL", b"\4": "FINAL", b"\5": "HEARTBEAT", b"\6": "DISCONNECT"},
}
_BYTES_OF: dict[Version, dict[_Kind, bytes]] = {
    version: {kind: byte for byte, kind in table.items()} for version, table in _WORKER_BYTES.items()
}
_REQUEST, _PARTIAL, _FINAL = b"\1", b"\2", b"\3"
"""The client's commands of 0.2; 0.1 has none."""
_LEAST_REPLY = 5


# -- what peers say


def decode_client(version: Version, frames: Sequence[bytes]) -> Request:
    """Return what a client asks.

    Args:
        frames: from the header on.
    Raises:
        ProtocolViolation: it is no request.
    """
    rest = list(frames[1:])
    if version is Version.V02:
        command = rest.pop(0) if rest else b""
        if command != _REQUEST:
            raise _violation(version, f"{command[:8].hex() or 'nothing'} is no command of a client")
    if len(rest) < 2:  # noqa: PLR2004 - service, and a body of one frame at least
        raise _violation(version, f"REQUEST has {len(frames)} frames; it lacks {'a body' if rest else 'service and body'}")
    return Request(service_of(version, rest[0]), rest[1:])


def decode_worker(version: Version, frames: Sequence[bytes]) -> WorkerCommand:
    """Return a worker's command. As `decode_client`."""
    byte = frames[1] if len(frames) > 1 else b""
    kind = _WORKER_BYTES[version].get(byte)
    match kind:
        case "READY":
            _expect(version, kind, frames, 3)
            return Ready(service_of(version, frames[2]))
        case "HEARTBEAT":
            _expect(version, kind, frames, 2)
            return Heartbeat()
        case "DISCONNECT":
            _expect(version, kind, frames, 2)
            return Disconnect()
        case "REPLY" | "PARTIAL" | "FINAL":
            if len(frames) < _LEAST_REPLY or frames[3] or not frames[2]:
                raise _violation(version, f"{kind} must have an address, an empty frame, and a body")
            return Reply(frames[2], list(frames[4:]), kind != "PARTIAL")
        case _:
            raise _violation(version, f"{byte[:8].hex() or 'nothing'} is no command of a worker")


def _expect(version: Version, kind: str, frames: Sequence[bytes], count: int) -> None:
    if len(frames) != count:
        raise _violation(version, f"{kind} has {len(frames)} frames; {count} are right")


def service_of(version: Version, frame: bytes) -> str:
    """Return the name of a service: printable text, not too long. Raises: ProtocolViolation."""
    try:
        name = frame.decode()
    except UnicodeDecodeError:
        raise _violation(version, f"the service {frame[:20].hex()} is no printable text") from None
    if not name or len(frame) > MAX_SERVICE_BYTES:
        raise _violation(version, f"a service's name has 1 to {MAX_SERVICE_BYTES} bytes, not {len(frame)}")
    if not name.isprintable():
        raise _violation(version, f"the service {name[:20]!r} is no printable text")
    return name


def _violation(version: Version, reason: str) -> ProtocolViolation:
    return ProtocolViolation(reason, SPECS[version])


# -- what they are told


def reply(version: Version, service: bytes, body: Sequence[bytes], *, final: bool = True) -> list[bytes]:
    """Return what a client is sent, from the header on. In 0.1 there is nothing but final replies."""
    if version is Version.V01:
        return [b"MDPC01", service, *body]
    return [b"MDPC02", _FINAL if final else _PARTIAL, service, *body]


def request(version: Version, address: bytes, body: Sequence[bytes]) -> list[bytes]:
    """Return what a worker is asked; `address` is what it must give back."""
    return [*_command(version, "REQUEST"), address, b"", *body]


def heartbeat(version: Version) -> list[bytes]:
    """Return a worker's HEARTBEAT."""
    return _command(version, "HEARTBEAT")


def disconnect(version: Version) -> list[bytes]:
    """Return a worker's DISCONNECT."""
    return _command(version, "DISCONNECT")


def _command(version: Version, kind: _Kind) -> list[bytes]:
    return [HEADERS[Dialect(Role.WORKER, version)], _BYTES_OF[version][kind]]
