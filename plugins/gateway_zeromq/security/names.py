"""What can be the name of a user?"""

from __future__ import annotations

import re

_ANONYMOUS = "anonymous"
_NAME = re.compile(r"[^\x00-\x20/\\\x7f][^\x00-\x1f/\\\x7f]{0,199}")


def check_name(name: str) -> str:
    """Return the name of a user. Raises: ValueError: it can't be one; the text says why."""
    if not _NAME.fullmatch(name) or not name.isprintable():
        raise ValueError(
            f"{name!r} is no name of a user: 1 to 200 printable characters without / and \\, and no space at the beginning"
        )
    if name == _ANONYMOUS:
        raise ValueError(f"{name!r} is no name of a user: it is what those are called who have none")
    return name
