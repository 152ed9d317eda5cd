"""What stands between the connections of one address and the front-end?"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from gateway.api.address import StreamAddress
from gateway.config import Transport
from gateway.errors import ConfigError
from gateway.runtime.streams.certificates import Certificates
from gateway.runtime.streams.proxy import Claim, ProxyHeader
from gateway.runtime.streams.sniff import Sniff, Undecided
from gateway.runtime.streams.stack import Part, Stack
from gateway.runtime.streams.tls import Tls
from gateway.runtime.streams.websocket import WebSocket

if TYPE_CHECKING:
    from gateway.runtime.streams.connection import StreamConnection

Changed = Callable[["StreamConnection", Stack], None]
Later = Callable[["StreamConnection"], None]


class Entrance:
    """Gives every connection of one address its layers.

    Args:
        transport: the front-end's settings.
        websocket: the sub-protocols that it speaks over WebSocket.
        certificates: of its TLS; None: it has none.
        changed: see `Stack`.
        later: see `Tls`.

    Raises:
        ConfigError: the address asks for WebSocket, and the front-end does not speak over it.
    """

    def __init__(
        self,
        address: StreamAddress,
        transport: Transport,
        websocket: Sequence[str],
        certificates: Certificates | None,
        *,
        changed: Changed,
        later: Later,
    ) -> None:
        if address.is_websocket and not websocket:
            raise ConfigError(f"{address}: this front-end does not speak over WebSocket")
        self._address = address
        self._transport = transport
        self._websocket = tuple(websocket)
        self._certificates = certificates if address.is_encrypted else None
        self._changed = changed
        self._later = later
        self._networks = transport.networks
        self._trusts_unix = address.scheme == "unix" and "unix" in transport.proxies
        self._sniffs = bool(websocket) and address.scheme in ("tcp", "tls")
        has_layers = bool(self._certificates or address.is_websocket or self._networks or self._trusts_unix)
        self._is_plain = not (has_layers or self._sniffs)
        self._only_sniffs = self._sniffs and not has_layers

    @property
    def name(self) -> str:
        """What a peer without an address of its own is called in logs."""
        return str(self._address)

    def prepare(self, connection: StreamConnection, host: str) -> bool:
        """Give a connection its layers; say whether their handshakes are awaited. `host`: empty on a Unix socket."""
        if self._is_plain:
            return False
        if self._only_sniffs:
            connection.layer = Undecided(connection, self._sniffing)
            return False
        parts = self._parts(connection, host)
        if not parts:
            return False
        stack = connection.layer = self._stack(connection, parts)
        return not stack.settled

    def _stack(self, connection: StreamConnection, parts: list[Part]) -> Stack:
        return Stack(parts, "unix" if self._address.scheme == "unix" else "tcp", partial(self._changed, connection))

    def _sniffing(self, connection: StreamConnection) -> Stack:
        return self._stack(connection, self._parts(connection, ""))

    def _parts(self, connection: StreamConnection, host: str) -> list[Part]:
        parts: list[Part] = []
        if self._is_proxy(host):
            parts.append(ProxyHeader(partial(introduce, connection)))
        if self._certificates is not None:
            parts.append(Tls(self._certificates.context, partial(self._later, connection)))
        if self._address.is_websocket:
            parts.append(self._make_websocket(connection))
        elif self._sniffs:
            parts.append(Sniff(partial(self._make_websocket, connection)))
        return parts

    def _make_websocket(self, connection: StreamConnection) -> WebSocket:
        transport = "wss" if self._certificates is not None else "ws"
        path, origins = self._address.path, self._transport.origins
        return WebSocket(self._websocket, path, origins=origins, transport=transport, way=connection)

    def _is_proxy(self, host: str) -> bool:
        if not host:
            return self._trusts_unix
        if not self._networks:
            return False
        ip = ipaddress.ip_address(host.partition("%")[0])
        return any(ip in network for network in self._networks)


def introduce(connection: StreamConnection, claim: Claim) -> None:
    """Take a connection's peer from a trusted header. Who is on a proxy's machine is on this one only if the proxy is, too."""
    if claim.peer:
        connection.peer = claim.peer
    if claim.is_loopback is not None:
        connection.is_loopback = connection.is_loopback and claim.is_loopback
