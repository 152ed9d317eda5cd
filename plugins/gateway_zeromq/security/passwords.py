"""Is this the password of that user?"""

from __future__ import annotations

from collections.abc import Mapping

_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$MDEyMzQ1Njc4OWFiY2RlZg$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
"""What is compared for a user who does not exist, so that it takes as long."""


def check_hash(value: str) -> str:
    """Return an argon2 hash as it is. Raises: ValueError: it is none, or could not be computed here; the text says why."""
    from argon2 import extract_parameters
    from argon2.exceptions import InvalidHashError

    try:
        extract_parameters(value)
    except (InvalidHashError, ValueError):
        raise ValueError("is no argon2 hash: `tidegate password-hash` makes one") from None
    return value


def hash_of(password: str) -> str:
    """Return the hash of a password that stands in a configuration."""
    from argon2 import PasswordHasher

    return PasswordHasher().hash(password)


def matches(users: Mapping[str, str], user: str, password: bytes) -> bool:
    """Say whether a password is that of a user. Slow on purpose (tens of ms): not for the loop's thread."""
    from argon2 import PasswordHasher
    from argon2.exceptions import VerificationError

    hashed = users.get(user)
    try:
        PasswordHasher().verify(hashed or _NOBODY, password)
    except VerificationError:
        return False
    return hashed is not None
