"""Who listens for ZMTP peers and connects to them, without libzmq?"""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import trio

from gateway_zeromq.endpoints.ipc import private_files

if TYPE_CHECKING:
    from gateway_zeromq.endpoints.spot import Spot

FIRST_WAIT_S: Final = 0.1
LONGEST_WAIT_S: Final = 10.0
"""Between two attempts to connect; doubled each time, and each by chance up to a half shorter."""
MOST_PEERS: Final = 4_096
CONNECT_S: Final = 10.0
ACCEPT_AGAIN_S: Final = 0.1
PER_TURN: Final = 64
_BACKLOG: Final = 1_024
_IDLE_S: Final = 60
_IPC: Final = "ipc://"

Serve: TypeAlias = Callable[[socket.socket, str, bool], Awaitable[bool]]
"""Socket, name for logs, whether we have connected -> whether the peer was one."""


class Links:
    """An endpoint's addresses."""

    def __init__(self, spot: Spot) -> None:
        self._spot = spot
        self._settings = spot.settings
        self._listeners: list[tuple[socket.socket, str]] = []
        self._peers = 0

    def open(self) -> None:
        """Bind, and say so with real ports.

        Raises:
            ListenError: an address is taken or can't be had. ConfigError: one that is none.
        """
        for address in self._settings.bind:
            listener, real = self._bind(address)
            self._listeners.append((listener, real))
            self._spot.announce(real)
        for address in self._settings.connect:
            self._target(address)
            self._spot.say_connecting(address)

    async def run(self, serve: Serve) -> None:
        """Accept and connect, until cancelled: every peer has a task of its own. Cancellation: all of these are."""
        async with trio.open_nursery() as nursery:
            for listener, real in self._listeners:
                nursery.start_soon(self._accept, listener, real, serve, nursery)
            for address in self._settings.connect:
                nursery.start_soon(self._keep_connected, address, serve)
            await trio.sleep_forever()

    def close(self) -> None:
        """Listen no more."""
        for listener, _ in self._listeners:
            listener.close()
        self._listeners = []

    # -- listening

    def _bind(self, address: str) -> tuple[socket.socket, str]:
        try:
            return self._bind_path(address) if address.startswith(_IPC) else self._bind_port(address)
        except OSError as error:
            raise self._spot.cant_listen(address, (error.strerror or str(error)).lower()) from error

    def _bind_port(self, address: str) -> tuple[socket.socket, str]:
        family, host, port = self._target(address, to_bind=True)
        with ExitStack() as undo:
            listener = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
            listener.bind((host, port))
            listener.listen(_BACKLOG)
            undo.pop_all()
        real = listener.getsockname()[1]
        return listener, f"tcp://[{host}]:{real}" if ":" in host else f"tcp://{host}:{real}"

    def _bind_path(self, address: str) -> tuple[socket.socket, str]:
        name = address.removeprefix(_IPC)
        claim = self._spot.claim(address)
        if claim is None and not name.startswith("@"):
            raise self._spot.no_address(address, 'ack = "pong" needs a path')
        with ExitStack() as undo:
            listener = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            listener.setblocking(False)
            if claim is not None:
                claim.path.unlink(missing_ok=True)  # nobody listens there: the claim has looked
            with private_files():
                listener.bind(_unix_name(name))
            if claim is not None:
                claim.made(self._spot.ipc_mode)
            listener.listen(_BACKLOG)
            undo.pop_all()
        return listener, address

    def _target(self, address: str, *, to_bind: bool = False) -> tuple[int, str, int]:
        """Return family, host and port; a host to listen on is a number. Raises: ConfigError."""
        if address.startswith(_IPC):
            return socket.AF_UNIX, address.removeprefix(_IPC), 0
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        number = 0 if port == "*" else int(port)
        if ";" in host or "/" in host or (not to_bind and (host == "*" or not number)):
            raise self._spot.no_address(address, 'with ack = "pong" an address is tcp://HOST:PORT')
        with_six = self._settings.ipv6 or ":" in host
        if host == "*":
            return (socket.AF_INET6, "::", number) if with_six else (socket.AF_INET, "0.0.0.0", number)  # noqa: S104 - as it was asked for
        if not to_bind:
            return socket.AF_UNSPEC if with_six else socket.AF_INET, host, number
        return self._resolved(address, host, number, socket.AF_UNSPEC if with_six else socket.AF_INET)

    def _resolved(self, address: str, host: str, port: int, family: int) -> tuple[int, str, int]:
        try:
            found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (socket.gaierror, UnicodeError) as error:
            raise self._spot.cant_listen(address, f"{host} is no address of this machine ({error})") from error
        return found[0][0], str(found[0][4][0]), port

    async def _accept(self, listener: socket.socket, real: str, serve: Serve, nursery: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener)
            for _ in range(PER_TURN):
                try:
                    accepted, address = listener.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    await self._not_accepted(error)
                    break
                self._take(accepted, _name(address) or real, serve, nursery)

    async def _not_accepted(self, error: OSError) -> None:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            self._spot.gateway.log.error("no more connections can be accepted", endpoint=self._spot.name, error=str(error))
            await trio.sleep(ACCEPT_AGAIN_S)

    def _take(self, accepted: socket.socket, peer: str, serve: Serve, nursery: trio.Nursery) -> None:
        try:
            if self._peers >= (self._spot.settings.max_peers or MOST_PEERS):
                self._spot.gateway.count("refused_connections", reason="too many peers")
                accepted.close()
                return
            _prepare(accepted)
        except OSError:  # it is gone already
            accepted.close()
            return
        self._peers += 1
        nursery.start_soon(self._serve, accepted, peer, serve)

    async def _serve(self, accepted: socket.socket, peer: str, serve: Serve) -> None:
        try:
            await serve(accepted, peer, False)
        finally:
            self._peers -= 1

    # -- connecting

    async def _keep_connected(self, address: str, serve: Serve) -> None:
        wait_s = FIRST_WAIT_S
        while True:
            was_peer = False
            try:
                with trio.fail_after(CONNECT_S):
                    connected = await self._connected(address)
            except (OSError, trio.TooSlowError) as error:
                self._spot.say_once(
                    "can't connect yet", f"connect {address}", address=address, reason=str(error) or "it takes too long"
                )
            else:
                was_peer = await serve(connected, address, True)
            if was_peer:
                wait_s = FIRST_WAIT_S
            await trio.sleep(wait_s * (1 - random.random() / 2))  # noqa: S311 - no secret
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)

    async def _connected(self, address: str) -> socket.socket:
        family, host, port = self._target(address)
        if family == socket.AF_UNIX:
            connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connected.setblocking(False)
                connected.connect(_unix_name(host))
            except BaseException:
                connected.close()
                raise
            await trio.lowlevel.checkpoint()
            return connected
        stream = await _open_stream(host, port, family)
        connected = socket.socket(fileno=stream.detach())
        _prepare(connected)
        return connected


async def _open_stream(host: str, port: int, family: int) -> trio.socket.SocketType:
    """Connect to the first address that answers. Raises: OSError. Cancellation: safe."""
    last: OSError | None = None
    for found in await trio.socket.getaddrinfo(host, port, family, socket.SOCK_STREAM):
        stream = trio.socket.socket(found[0], found[1])
        try:
            await stream.connect(found[4])
        except OSError as error:
            stream.close()
            last = error
        except BaseException:
            stream.close()
            raise
        else:
            return stream
    raise last or OSError(errno.EADDRNOTAVAIL, "no address")


def _prepare(sock: socket.socket) -> None:
    sock.setblocking(False)
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    with suppress(AttributeError, OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE_S)


def _unix_name(name: str) -> str:
    return f"\0{name[1:]}" if name.startswith("@") else name


def _name(address: Any) -> str:
    if not isinstance(address, tuple):
        return ""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
