"""Which peers does one ZAP domain let in, and as whom?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import trio

from gateway.api import AccessRefused, Credentials, Gateway, Principal
from gateway_zeromq.security.clients import ClientKeys
from gateway_zeromq.security.keys import KeyFileError
from gateway_zeromq.security.passwords import matches
from gateway_zeromq.security.zap import Request

LOOK_EVERY_S = 1.0
"""How old what is known of key files may be when somebody asks to be let in,"""
LOOK_FOR_STRANGERS_S = 0.05
"""and when a stranger does: its key may just have been added, and libzmq's clients don't ask twice."""
_HASHING = 2
"""Passwords that are compared at a time: each takes a thread, and 64 MiB."""


class Judge(Protocol):
    """Who says whose credentials these are."""

    mechanism: str
    """The only one that is understood: CURVE or PLAIN."""

    async def credentials(self, request: Request) -> Credentials:
        """Return what the host is to be told. Raises: AccessRefused. Cancellation: safe."""


class Realm:
    """One domain: who is let in, and which principals have been.

    Only this class says as whom a peer acts: by the User-Id that libzmq tells of its messages, never by what the peer says.
    """

    def __init__(self, domain: str, judge: Judge, gateway: Gateway) -> None:
        self.domain = domain
        self.judge = judge
        self._gateway = gateway
        self._principals: dict[str, Principal] = {}

    async def admit(self, request: Request) -> str:
        """Return the user that a peer is.

        Raises:
            AccessRefused: it is not let in; the text is for the log.
        Cancellation: safe.
        """
        if request.mechanism != self.judge.mechanism:
            raise AccessRefused(f"it speaks {request.mechanism}, and here {self.judge.mechanism} is spoken")
        principal = await self._gateway.authenticate(await self.judge.credentials(request))
        self._principals[principal.user] = principal
        return principal.user

    def principal_of(self, user: str) -> Principal | None:
        """Return as whom a user acts; None: no such user was let in."""
        return self._principals.get(user)


class CurveJudge:
    """Knows clients by their public keys."""

    mechanism = "CURVE"

    def __init__(self, keys: ClientKeys, gateway: Gateway) -> None:
        self._keys = keys
        self._gateway = gateway
        self._looked_at = float("-inf")
        self._looking = trio.Lock()

    def load(self) -> None:
        """Read the key files for the first time.

        Raises:
            KeyFileError: they are not there, or one of them is wrong.
        """
        view = self._keys.look()
        if view.complaints:
            raise KeyFileError("; ".join(view.complaints))
        if not view.users:
            self._gateway.log.warning("no clients' keys: nobody is let in until there are some", client_keys=str(self._keys.path))
        self._keys.view = view

    async def refresh(self, age_s: float) -> None:
        """Read the key files again if what is known is older, and say what is wrong with them.

        Raises:
            KeyFileError: they are gone.
        Cancellation: safe.
        """
        async with self._looking:
            now = trio.current_time()
            if now - self._looked_at < age_s:
                return
            view = await trio.to_thread.run_sync(self._keys.look, abandon_on_cancel=True)
            self._looked_at = now
            if view is not self._keys.view:
                self._keys.view = view
                for complaint in view.complaints:
                    self._gateway.log.warning("a client's key can't be used", reason=complaint)

    async def credentials(self, request: Request) -> Credentials:
        """See `Judge`."""
        try:
            user = await self._user_of(request.credentials[0])
        except KeyFileError as error:  # nobody can be let in: a directory that is gone is no reason to trust what was in it
            raise AccessRefused(f"no client keys can be read: {error}") from error
        if user is None:
            raise AccessRefused(f"its key is not among those in {self._keys.path}")
        return Credentials("curve", user, front_end="zeromq", peer=request.address, verified=True)

    async def _user_of(self, key: bytes) -> str | None:
        await self.refresh(LOOK_EVERY_S)
        user = self._keys.user_of(key)
        if user is None:
            await self.refresh(LOOK_FOR_STRANGERS_S)
            user = self._keys.user_of(key)
        return user


class PlainJudge:
    """Compares passwords with hashes; without users of its own it leaves that to the host."""

    mechanism = "PLAIN"

    def __init__(self, users: Mapping[str, str]) -> None:
        self._users = users
        self._hashing = trio.CapacityLimiter(_HASHING)

    async def credentials(self, request: Request) -> Credentials:
        """See `Judge`."""
        name, password = request.credentials
        try:
            user = name.decode()
        except UnicodeDecodeError:
            raise AccessRefused("its name is not UTF-8") from None
        if not self._users:
            return Credentials("password", user, password, front_end="zeromq", peer=request.address, loopback=True)
        if not await trio.to_thread.run_sync(matches, self._users, user, password, limiter=self._hashing, abandon_on_cancel=True):
            raise AccessRefused(f"{user!r} is no user with that password")
        return Credentials("password", user, front_end="zeromq", peer=request.address, loopback=True, verified=True)
