"""Is a client's new secret as good as its old one (Connection.UpdateSecret)?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pamqp import commands

from gateway.api import AccessRefused, Credentials
from gateway_amqp.codec.methods import encode
from gateway_amqp.codec.names import CONNECTION_UPDATE_SECRET, NOT_ALLOWED, HardError

if TYPE_CHECKING:
    from gateway_amqp.protocol import Protocol


class Renewal:
    """A new password, until it is known whether it is right. ``is_waiting``: it is not."""

    __slots__ = ("_credentials", "_link", "is_waiting")

    def __init__(self, link: Protocol, credentials: Credentials) -> None:
        self._link = link
        self._credentials = credentials
        self.is_waiting: bool = False

    def begin(self) -> None:
        """Have it checked, and answer."""
        try:
            principal = self._link.gateway.authenticate_now(self._credentials)
        except AccessRefused as error:
            self._refuse(error)
            return
        if principal is None:
            self.is_waiting = True
            self._link.connection.start(self._check)
        else:
            self._accept()

    async def _check(self) -> None:
        """Wait for the check. Cancellation: the connection has ended."""
        try:
            await self._link.gateway.authenticate(self._credentials)
        except AccessRefused as error:
            self._refuse(error)
        else:
            self._accept()

    def _accept(self) -> None:
        self.is_waiting = False
        if not self._link.is_over:
            self._link.send(encode(0, commands.Connection.UpdateSecretOk()))

    def _refuse(self, error: AccessRefused) -> None:
        self._link.gateway.log.warning("a new secret was refused", peer=self._link.connection.peer, reason=error.text)
        self._link.fail(HardError(NOT_ALLOWED, "New secret was refused by one of the backends", CONNECTION_UPDATE_SECRET))
