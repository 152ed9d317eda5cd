"""As whom is a peer let in?"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.api import DEFAULT_VHOST, AccessRefused, Credentials, Principal
from gateway.complaint import Origin

ANONYMOUS = "anonymous"
GUEST = ("guest", b"guest")
"""User and password that clients of AMQP brokers send if nobody tells them anything else."""


class Authentication:
    """Answers every front-end's one question, by the settings; no users can be configured here yet.

    Those whom a front-end has verified by settings of its own are let in as the users that they are.

    Args:
        anonymous: peers without credentials are let in, and so are those who send `GUEST`, which everybody knows: clients such as
            pika always send a user and a password. They are that user, whose name they may write into messages. Those of this
            machine are let in whatever they say of themselves, unless that is to be checked (`Credentials.strict`): nothing could.
            All but `GUEST` are `ANONYMOUS`.
    """

    def __init__(self, *, anonymous: bool) -> None:
        self._anonymous = anonymous
        self._principal = Principal(ANONYMOUS, DEFAULT_VHOST)
        self._guest = Principal(GUEST[0], DEFAULT_VHOST)
        self._known: dict[str, Principal] = {}

    async def authenticate(self, credentials: Credentials) -> Principal:
        """Return the principal of a peer: one object for all who are let in as the same user.

        Raises:
            AccessRefused: the peer is not let in; the text is for the log.
        Cancellation: safe.
        """
        return self.decide(credentials)

    def authenticate_now(self, credentials: Credentials) -> Principal | None:
        """Return what `authenticate` would; None: it has to wait for that. Errors likewise."""
        return self.decide(credentials)

    def decide(self, credentials: Credentials) -> Principal:
        """Return what `authenticate` would: nothing has to be waited for yet. Errors likewise."""
        if credentials.verified and credentials.user is not None:
            return self._principal_of(credentials.user)
        if not self._anonymous:
            raise AccessRefused(f"{_who(credentials)} is not let in: security.anonymous is false and there are no users")
        if (credentials.user, credentials.password) == GUEST:
            return self._guest
        if _claims_something(credentials) and (credentials.strict or not credentials.loopback):
            raise AccessRefused(f"{_who(credentials)} is not known: there are no users yet, and only guest is let in by a password")
        return self._principal

    def _principal_of(self, user: str) -> Principal:
        principal = self._known.get(user)
        if principal is None:
            principal = self._known[user] = Principal(user, DEFAULT_VHOST)
        return principal


def _claims_something(credentials: Credentials) -> bool:
    return credentials.user is not None or credentials.password is not None


def _who(credentials: Credentials) -> str:
    user = "a peer without credentials" if credentials.user is None else f"user {credentials.user!r}"
    return f"{user} at {credentials.peer}" if credentials.peer else user


def anonymous_access(setting: bool | None, beyond: Sequence[tuple[str, str]], origin: Origin) -> bool:
    """Return whether peers without credentials are let in.

    Args:
        setting: ``security.anonymous``; None: not given, which is allowed while every listener is local.
        beyond: front-end and address of every listener that other machines can reach.
        origin: for the text of the error.

    Raises:
        ConfigError: the setting must be given; says which listeners ask for it, and what to write.
    """
    if setting is not None or not beyond:
        return setting is not False
    where = ", ".join(f"frontend.{front_end} on {address}" for front_end, address in beyond)
    raise origin.complaint(
        ("security", "anonymous"),
        f"is not set, and other machines could reach {where}. "
        "Write `anonymous = true` in section [security] (or --set security.anonymous=true) to let everybody in without a password, "
        "`anonymous = false` to let nobody in, or listen on 127.0.0.1 only",
    )


def check_standing(authentication: Authentication, standing: Sequence[Credentials], origin: Origin) -> None:
    """Refuse front-ends that are let in for all of their peers, and would not be: before anything listens.

    Args:
        standing: what they will say of themselves when they start.

    Raises:
        ConfigError: names the setting, the endpoints, and what to write.
    """
    refused: dict[str, list[str]] = {}
    for credentials in standing:
        try:
            authentication.decide(credentials)
        except AccessRefused:
            refused.setdefault(credentials.front_end, []).append(credentials.peer)
    if refused:
        where = "; ".join(f"frontend.{name} ({', '.join(peers)})" for name, peers in refused.items())
        instead = " and ".join(f"frontend.{name}.enabled = false" for name in refused)
        raise origin.complaint(
            ("security", "anonymous"),
            f"= false lets nobody in, and these can't ask their peers who they are: {where}. "
            f"Write {instead}, or security.anonymous = true",
        )
