"""Where is the socket at which the broker of a data directory answers questions?"""

from __future__ import annotations

import os
from pathlib import Path

SOCKET = "control.sock"
POINTER = "control.path"
"""A file with the socket's path, if the directory's own path is too long for one."""

MAX_PATH_BYTES = 103
"""What every system takes as the path of a Unix socket (macOS: 104 bytes with the NUL)."""

MAX_QUESTION_BYTES = 1 << 18
"""A question is one line of at most so many bytes: to read it takes a few milliseconds."""
MAX_DEFINITIONS_BYTES = 1 << 26
"""What comes in parts has at most so many bytes: a definitions file of a few hundred thousand queues."""


def fits(path: Path) -> bool:
    """Say whether a Unix socket can have this path."""
    return len(os.fsencode(path)) <= MAX_PATH_BYTES


def socket_of(data_dir: Path) -> Path | None:
    """Return the path of the socket; None: there is none. Whether anybody answers there is another question."""
    own = data_dir / SOCKET
    if own.exists():
        return own if fits(own) else own.resolve()
    try:
        return Path((data_dir / POINTER).read_text(encoding="utf-8").rstrip("\n"))
    except (OSError, UnicodeDecodeError):
        return None
