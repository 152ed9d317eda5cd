"""As whom is a peer let in?"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.api import DEFAULT_VHOST, AccessRefused, ConfigError, Credentials, Principal

ANONYMOUS = "anonymous"


class Authentication:
    """Answers every front-end's one question, by the settings; no users can be configured yet.

    Args:
        anonymous: peers without credentials are let in, and those of this machine whatever they say of themselves
            (clients such as pika always send a user and a password): nothing could check it.
    """

    def __init__(self, *, anonymous: bool) -> None:
        self._anonymous = anonymous
        self._principal = Principal(ANONYMOUS, DEFAULT_VHOST)

    async def authenticate(self, credentials: Credentials) -> Principal:
        """Return the principal of a peer: one object for all who are let in as the same user.

        Raises:
            AccessRefused: the peer is not let in; the text is for the log.
        Cancellation: safe.
        """
        if not self._anonymous:
            raise AccessRefused(f"{_who(credentials)} is not let in: security.anonymous is false and there are no users")
        if _claims_something(credentials) and not credentials.loopback:
            raise AccessRefused(
                f"{_who(credentials)} sends credentials from another machine, and there are no users to check them with"
            )
        return self._principal


def _claims_something(credentials: Credentials) -> bool:
    return credentials.user is not None or credentials.password is not None


def _who(credentials: Credentials) -> str:
    user = "a peer without credentials" if credentials.user is None else f"user {credentials.user!r}"
    return f"{user} at {credentials.peer}" if credentials.peer else user


def anonymous_access(setting: bool | None, beyond: Sequence[tuple[str, str]]) -> bool:
    """Return whether peers without credentials are let in.

    Args:
        setting: ``security.anonymous``; None: not given, which is allowed while every listener is local.
        beyond: front-end and address of every listener that other machines can reach.

    Raises:
        ConfigError: the setting must be given; says which listeners ask for it, and what to write.
    """
    if setting is not None or not beyond:
        return setting is not False
    where = ", ".join(f"frontend.{front_end} on {address}" for front_end, address in beyond)
    raise ConfigError(
        f"security.anonymous is not set, and other machines could reach {where}. "
        "Write `anonymous = true` in section [security] (or --set security.anonymous=true) to let everybody in without a password, "
        "`anonymous = false` to let nobody in, or listen on 127.0.0.1 only"
    )
