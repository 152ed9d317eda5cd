"""What is one message of a ROUTER socket?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import zmq

from trio_zmq.pump import NOBLOCK, Oversized, rest_of_message

Arrived: TypeAlias = tuple[bytes, zmq.Frame, bytes | None, bool, list[bytes] | Oversized | None]
"""A message: the peer's name, its first and second frame, whether they came in a REQ client's envelope, and all of its frames if
there are more than two."""


def take_from(socket: zmq.Socket[bytes], max_bytes: int, max_frames: int = 2) -> Callable[[], Arrived]:
    """Return a function that takes one message of a ROUTER socket. Whatever its frames are, it is read to its end."""
    recv = socket.recv

    def take() -> Arrived:
        name = recv(NOBLOCK)
        header = recv(NOBLOCK, False)
        enveloped = header.more and not len(header)
        if enveloped:
            header = recv(NOBLOCK, False)
        if not header.more:
            return name, header, None, enveloped, None
        body = recv(NOBLOCK, False)
        if not body.more:
            return name, header, body.bytes, enveloped, None
        return name, header, None, enveloped, rest_of_message(socket, [header.bytes, body.bytes], max_frames, max_bytes)

    return take
