"""What does an address name: which host and port, which path, reached by what?"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace

_TCP = re.compile(r"tcp://(?:\[([^\[\]\s]+)\]|([\w.-]+)):([0-9]{1,5})")
_NUMBERS = re.compile(r"[0-9.]+")
_STREAM = re.compile(r"(tcp|tls|ws|wss)(://(?:\[[^\[\]\s]+\]|[\w.-]+):[0-9]{1,5})(/[!-~]*)?")
_UNIX = re.compile(r"unix:(?://)?(/[^\0]+)")
_LAST_PORT = 65_535
_LONGEST_PATH = 103
"""Bytes of a Unix socket's path that every system takes."""
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here


def tcp_address(address: str) -> tuple[str, int]:
    """Return host (an IPv6 one without its brackets) and port of ``tcp://HOST:PORT``.

    Raises:
        ValueError: it is not of this form, or names no host or port that there can be; says what is allowed.
    """
    match = _TCP.fullmatch(address)
    if match is None or int(match[3]) > _LAST_PORT or not _can_be(match[1], match[2]):
        raise ValueError(f"must be an address tcp://HOST:PORT with a port of at most {_LAST_PORT} (0: any free one)")
    return match[1] or match[2], int(match[3])


@dataclass(frozen=True, slots=True)
class StreamAddress:
    """Where byte streams come in.

    Args:
        scheme: ``tcp``, ``tls``, ``ws``, ``wss`` or ``unix``.
        host: a name or number, an IPv6 one without its brackets; empty for ``unix``.
        port: 0: any free one; 0 for ``unix``.
        path: of the socket file for ``unix``; of the WebSocket for ``ws`` and ``wss``, empty: any.
    """

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_encrypted(self) -> bool:
        """TLS is spoken there."""
        return self.scheme in ("tls", "wss")

    @property
    def is_websocket(self) -> bool:
        """Nothing but WebSocket is spoken there."""
        return self.scheme in ("ws", "wss")

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


def stream_address(address: str) -> StreamAddress:
    """Return what an address names: ``tcp://HOST:PORT``, ``tls://``, ``ws://HOST:PORT/PATH``, ``wss://`` or ``unix:/PATH``.

    Raises:
        ValueError: it is not of these forms, or names no host, port or file that there can be; says what is allowed.
    """
    if address.startswith("unix:"):
        return StreamAddress("unix", path=_socket_file(address))
    match = _STREAM.fullmatch(address)
    if match is None:
        raise ValueError(
            "must be an address tcp://HOST:PORT, tls://HOST:PORT, ws://HOST:PORT/PATH, wss://HOST:PORT/PATH or unix:/PATH"
        )
    scheme, authority, path = match[1], match[2], match[3] or ""
    if path and (scheme in ("tcp", "tls") or "?" in path or "#" in path):
        raise ValueError(
            f"must be an address {scheme}://HOST:PORT{'/PATH' if scheme in ('ws', 'wss') else ''}, with nothing behind it"
        )
    try:
        host, port = tcp_address(f"tcp{authority}")
    except ValueError as error:
        raise ValueError(str(error).replace("tcp://", f"{scheme}://")) from None
    return StreamAddress(scheme, host, port, path)


def _socket_file(address: str) -> str:
    match = _UNIX.fullmatch(address)
    if match is None or match[1].endswith("/"):
        raise ValueError("must be an address unix:/PATH, with the whole path of a file")
    if len(match[1].encode(errors="surrogateescape")) > _LONGEST_PATH:
        raise ValueError(f"must be an address unix:/PATH with a path of at most {_LONGEST_PATH} bytes")
    return match[1]


def _can_be(ipv6: str | None, name: str) -> bool:
    try:
        if ipv6 is not None:
            ipaddress.IPv6Address(ipv6)
        elif _NUMBERS.fullmatch(name):
            ipaddress.IPv4Address(name)
        else:
            name.encode("idna")  # as the resolver will: no empty label, none that is too long
    except ValueError:
        return False
    return True


def place_of(address: str) -> str | None:
    """Return what can be listened on once only, whatever is spoken there: a port, or a file; None: it is any free port."""
    try:
        parsed = stream_address(address)
    except ValueError:  # of a kind that only its front-end knows
        return None if address.endswith((":*", ":0")) else address
    if parsed.scheme == "unix":
        return str(parsed)
    return f"{parsed.host}:{parsed.port}" if parsed.port else None


def reachable(address: str) -> str:
    """Return the address at which a program on this machine reaches a listener: its own, unless that one is every interface."""
    try:
        parsed = stream_address(address)
    except ValueError:
        return address
    return str(replace(parsed, host=_EVERYWHERE.get(parsed.host, parsed.host)))
