"""How does an endpoint of the configuration become a socket that is bound or connected?"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import zmq

from gateway.api import AccessRefused, ConfigError, Gateway, ListenError, Principal
from gateway_zeromq.endpoints.guard import HANDSHAKE_MS, Guard, credentials_of
from gateway_zeromq.endpoints.ipc import Claim, Unsafe, claim_of, open_to, private_files
from gateway_zeromq.settings import OFF, SETTING, AnyEndpoint
from trio_zmq.monitor import Monitor

LINGER_MS = 1_000
"""How long libzmq may go on sending, after the end, what it has taken."""

_BACKLOG = 1_024
_IDLE_S = 60
_ROOM = 65_536
_MOST_SAID = 1_000
_CANT_LISTEN = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES, errno.ENODEV, errno.ENOENT, errno.EPERM})


class Spot:
    """One endpoint and what it stands on.

    Args:
        name: of the endpoint.
        settings: of the endpoint.
        gateway: the host.
        context: of all sockets.
        guard: who is let in; None: everybody.
    """

    def __init__(
        self,
        name: str,
        settings: AnyEndpoint,
        gateway: Gateway,
        context: zmq.Context[zmq.Socket[bytes]],
        guard: Guard | None = None,
    ) -> None:
        self.name = name
        self.settings = settings
        self.gateway = gateway
        self.context = context
        self.guard = guard
        self.announced: list[str] = []
        self._claims: list[Claim] = []
        self._monitor: Monitor | None = None
        self._is_monitored = False
        self._said: set[str] = set()

    def socket(self, kind: int | None = None) -> zmq.Socket[bytes]:
        """Return a new socket with what all kinds have in common.

        Args:
            kind: libzmq's number of what it is inside; None: what the settings say.
        """
        socket: zmq.Socket[bytes] = self.context.socket(getattr(zmq, self.settings.socket) if kind is None else kind)
        socket.setsockopt(zmq.LINGER, LINGER_MS)
        socket.setsockopt(zmq.BACKLOG, _BACKLOG)
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, _IDLE_S)
        # It counts single frames, and libzmq then drops the connection without a word: leave room for a refusal in words.
        socket.setsockopt(zmq.MAXMSGSIZE, 2 * self.settings.max_message_bytes + _ROOM)
        if self.settings.ipv6 or any("[" in address for address in (*self.settings.bind, *self.settings.connect)):
            socket.setsockopt(zmq.IPV6, 1)
        if self.guard is not None:
            self.guard.secure(socket)
        return socket

    @property
    def knows_users(self) -> bool:
        """Every peer is somebody: `user_of` says who, by any frame of a message."""
        return self.guard is not None and self.guard.realm is not None

    def user_of(self, frame: zmq.Frame) -> str | None:
        """Return which user sent a message; None: users are not known."""
        return None if self.guard is None else self.guard.user_of(frame)

    def principal_of(self, user: str | None, own: Principal) -> Principal:
        """Return as whom a user acts; `own`, the endpoint's, where users are not known."""
        return own if self.guard is None else self.guard.principal_of(user, own)

    def attach(self, socket: zmq.Socket[bytes]) -> None:
        """Bind and connect; announce what is bound, with real ports.

        Raises:
            ListenError: an address is taken or can't be had. ConfigError: one that is none.
        """
        if self.guard is not None and not self._is_monitored:
            self._monitor = self.monitor(socket, lambda _: None)
        for address in self.settings.bind:
            self._bind(socket, address)
            self.announce(socket.get_string(zmq.LAST_ENDPOINT))
        for address in self.settings.connect:
            try:
                socket.connect(address)
            except zmq.ZMQError as error:
                raise ConfigError(
                    f"{self._who()}: can't connect to {address}: {zmq.strerror(error.errno or 0)} ({SETTING})"
                ) from error
            self.say_connecting(address)

    def _bind(self, socket: zmq.Socket[bytes], address: str) -> None:
        claim = self.claim(address)
        try:
            with private_files():
                socket.bind(address)
        except zmq.ZMQError as error:
            refuse = self.cant_listen if error.errno in _CANT_LISTEN else self.no_address
            raise refuse(address, zmq.strerror(error.errno or 0).lower()) from error
        if claim is not None:
            claim.made(self.ipc_mode)
        elif address.startswith("ipc:"):
            open_to(socket.get_string(zmq.LAST_ENDPOINT), self.ipc_mode)

    # -- addresses, whoever listens there

    @property
    def ipc_mode(self) -> int:
        """The permissions of the endpoint's paths."""
        return int(self.settings.ipc_mode, 8)

    def announce(self, address: str) -> None:
        """Say that the endpoint listens on an address, with its real port."""
        line = f"{self.settings.socket} {address}"
        self.announced.append(line)
        self.gateway.announce(line)

    def say_connecting(self, address: str) -> None:
        """Say that the endpoint connects to an address, now and whenever it has to."""
        self.gateway.log.info("connecting", endpoint=self.name, socket=self.settings.socket, address=address)

    def claim(self, address: str) -> Claim | None:
        """Claim the path of an address until `close`; None: it is no path.

        Raises:
            ListenError: somebody has it. ConfigError: nobody should.
        """
        claim = claim_of(address)
        if claim is not None:
            try:
                claim.take()
            except Unsafe as error:
                raise (self.cant_listen if error.is_had else self.no_address)(address, str(error)) from error
            self._claims.append(claim)
        return claim

    def cant_listen(self, address: str, reason: str) -> ListenError:
        """Return what is raised when an address is taken or can't be had."""
        return ListenError(
            f"{self._who()} can't listen on {address}: {reason}. Choose another address ({SETTING}), "
            f"or switch the ZeroMQ front-end off ({OFF})"
        )

    def no_address(self, address: str, reason: str) -> ConfigError:
        """Return what is raised when an address can't be one."""
        return ConfigError(f"{self._who()}: {address} can't be used: {reason} ({SETTING})")

    # -- connections

    def monitor(self, socket: zmq.Socket[bytes], gone: Callable[[int], None]) -> Monitor:
        """Return a monitor of a socket, which must be its only one; with a guard it also counts who is not let in.

        Args:
            gone: as in `Monitor`.
        """
        self._is_monitored = True
        crowd = None if self.guard is None else self.guard.crowd
        if crowd is None:
            return Monitor(socket, gone, failed=None if self.guard is None else self._refused)
        monitor = Monitor(socket, crowd.gone, came=crowd.came, failed=self._refused)
        crowd.look = monitor.look
        return monitor

    def _refused(self, reason: str, address: str) -> None:
        """Count a handshake that failed, and say so once per address of this side: libzmq does not tell the other one."""
        self.gateway.count("refused_handshakes", reason=reason)
        self.say_once("handshake failed", f"handshake {reason} {address}", address=address, reason=reason)

    async def watch(self) -> None:
        """Count who is not let in, where no one else does, until cancelled. Cancellation: safe."""
        if self._monitor is not None:
            await self._monitor.run()

    def unwatch(self) -> None:
        """Undo `watch`; before the socket is closed."""
        if self._monitor is not None:
            self._monitor.close()

    def close(self) -> None:
        """Give up paths; after the socket is closed."""
        for claim in self._claims:
            claim.release()

    def _who(self) -> str:
        return f"ZeroMQ endpoint {self.name!r}"

    async def principal(self) -> Principal:
        """Return as whom this endpoint's peers are let in.

        Raises:
            ConfigError: they are not.
        Cancellation: safe.
        """
        try:
            return await self.gateway.authenticate(credentials_of(self.name, self.settings))
        except AccessRefused as error:
            raise ConfigError(
                f"{self._who()} can let nobody in: {error.text}. Allow anonymous access (security.anonymous = true), "
                f"or switch the ZeroMQ front-end off ({OFF})"
            ) from error

    def say_once(self, event: str, key: str, **values: Any) -> None:
        """Log a warning the first time that `key` comes; the caller counts all of them."""
        if key not in self._said and len(self._said) < _MOST_SAID:
            self._said.add(key)
            self.gateway.log.warning(event, endpoint=self.name, **values)
