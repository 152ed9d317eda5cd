"""Which port is free, and stays free until somebody listens on it, or listens on it again?"""

from __future__ import annotations

import secrets
import socket
from contextlib import suppress

FIRST, COUNT = 20_000, 12_000
"""Below those that systems give to whoever asks for any: nobody else gets one of these by chance."""


def free_port() -> int:
    """Return a port of 127.0.0.1."""
    while True:
        port = FIRST + secrets.randbelow(COUNT)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
