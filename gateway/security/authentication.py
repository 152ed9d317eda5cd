"""As whom is a peer let in?"""

from __future__ import annotations

from gateway.api import DEFAULT_VHOST, AccessRefused, Credentials, Principal

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
