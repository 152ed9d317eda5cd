"""Which sockets does a front-end listen on?"""

from __future__ import annotations

import os
import socket
import stat
from dataclasses import replace
from typing import Final

from gateway.api.address import StreamAddress, stream_address
from gateway.errors import ConfigError, ListenError

BACKLOG: Final = 4_096


class Bound:
    """A listening socket, and the address that it has: with the real port where any was asked for."""

    __slots__ = ("_file", "address", "socket")

    def __init__(self, sock: socket.socket, address: StreamAddress) -> None:
        self.socket = sock
        self.address = address
        self._file = _identity(address.path) if address.scheme == "unix" else None

    def close(self) -> None:
        """Listen no more; a Unix socket's file goes, unless another program has put its own there meanwhile. Can be repeated."""
        self.socket.close()
        if self._file is not None and _identity(self.address.path) == self._file:
            os.unlink(self.address.path)
        self._file = None


def bind(text: str, setting: str, front_end: str, unix_mode: int) -> Bound:
    """Listen on an address.

    Args:
        setting: who asks for it, for the text of errors; `front_end`: how that is switched off.
        unix_mode: permissions of a Unix socket's file.

    Raises:
        ConfigError: it is no address.
        ListenError: it can't be listened on.
    """
    try:
        address = stream_address(text)
    except ValueError as error:
        raise ConfigError(f"{setting}: {text!r} {error}, for instance tcp://127.0.0.1:1883") from None
    if address.scheme == "unix":
        return _bind_file(address, setting, front_end, unix_mode)
    return _bind_port(address, setting, front_end)


def _bind_port(address: StreamAddress, setting: str, front_end: str) -> Bound:
    try:
        infos = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:  # the network's answer of today, not the configuration
        raise ListenError(
            f"{setting}: {str(address)!r} can't be listened on: {error.strerror}; "
            f"choose another address, or switch it off by frontend.{front_end}.enabled = false"
        ) from None
    family, _, _, _, where = infos[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # whoever is accepted has it, too
        sock.bind(where)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ListenError(
            f"port {address.port} can't be listened on ({address}: {error.strerror}); "
            f"choose another by {setting}, or switch it off by frontend.{front_end}.enabled = false"
        ) from None
    sock.setblocking(False)
    host, port = sock.getsockname()[:2]
    return Bound(sock, replace(address, host=host, port=port))


def _bind_file(address: StreamAddress, setting: str, front_end: str, mode: int) -> Bound:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear(address.path)
        sock.bind(address.path)
        os.chmod(address.path, mode)  # nobody can connect before it is listened on
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ListenError(
            f"{address} can't be listened on: {error.strerror or error}; "
            f"choose another by {setting}, or switch it off by frontend.{front_end}.enabled = false"
        ) from None
    sock.setblocking(False)
    return Bound(sock, address)


def _clear(path: str) -> None:
    """Remove the file of a socket on which nobody listens any more. Raises OSError: the path is taken."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError("there is a file of that name, and it is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
        asked.setblocking(False)
        try:
            asked.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:  # its backlog is full: somebody is there
            pass
    raise OSError("another program listens there")


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
