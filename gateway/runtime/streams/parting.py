"""How is a peer told that nothing more comes?"""

from __future__ import annotations

import socket
from typing import Final

NO_NUMBER: Final = -1
"""Of a socket that is closed: its number may be another's by now."""


def say_no_more(number: int) -> None:
    """Send what the kernel has, and then the end. Python knows no other way to it than by an object for the socket.

    Raises:
        OSError: the peer is gone.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, number)
    try:
        sock.shutdown(socket.SHUT_WR)
    finally:
        sock.detach()
