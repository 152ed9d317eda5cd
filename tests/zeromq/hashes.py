"""How do tests hash a password that needs no protection?"""

from __future__ import annotations

from argon2 import PasswordHasher

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def hash_of(password: str) -> str:
    """Return a hash that takes microseconds to make and to verify, where a real one takes a tenth of a second."""
    return CHEAP.hash(password)
