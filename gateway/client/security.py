"""Who is this program to a gateway, and how does it know that it is the right one?"""

from __future__ import annotations

import os
from typing import Protocol, TypeAlias

import zmq
from zmq.auth import load_certificate

Path: TypeAlias = str | os.PathLike[str]


class Security(Protocol):
    """What prepares a socket; `Curve` and `Plain` do."""

    def secure(self, socket: zmq.Socket[bytes]) -> None:
        """Set up a socket before it connects."""


class Curve:
    """A key of this program's own, and that of the gateway. Everything is encrypted.

    Args:
        secret_key_file: ``NAME.key_secret``, of which the gateway knows the public half.
        server_key_file: the gateway's public key, ``NAME.key``.

    Raises:
        OSError, ValueError: a file can't be read, or has not the key in it.
    """

    def __init__(self, secret_key_file: Path, server_key_file: Path) -> None:
        public, secret = load_certificate(secret_key_file)
        server, _ = load_certificate(server_key_file)
        if secret is None:
            raise ValueError(f"{os.fspath(secret_key_file)} has no secret key: the file that ends in .key_secret has one")
        self._public, self._secret, self._server = public, secret, server

    def secure(self, socket: zmq.Socket[bytes]) -> None:
        """See `Security`."""
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self._public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._secret)
        socket.setsockopt(zmq.CURVE_SERVERKEY, self._server)


class Plain:
    """A name and a password, for a gateway on the same machine: they go over the wire as they are."""

    def __init__(self, user: str, password: str) -> None:
        self._user = user
        self._password = password

    def secure(self, socket: zmq.Socket[bytes]) -> None:
        """See `Security`."""
        socket.setsockopt_string(zmq.PLAIN_USERNAME, self._user)
        socket.setsockopt_string(zmq.PLAIN_PASSWORD, self._password)
