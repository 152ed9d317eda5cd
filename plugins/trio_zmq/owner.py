"""Who may use a context or a socket? The one run of trio, in the one thread of the one process, that made it."""

from __future__ import annotations

import os

import trio

from trio_zmq.errors import ForeignUse


def _token() -> trio.lowlevel.TrioToken | None:
    try:
        return trio.lowlevel.current_trio_token()
    except RuntimeError:
        return None


class Owner:
    """Where something was made. Raises: ForeignUse: not inside ``trio.run``."""

    __slots__ = ("_pid", "_token")

    def __init__(self) -> None:
        token = _token()
        if token is None:
            raise ForeignUse("ZeroMQ contexts and sockets are made inside trio.run(), in its own thread")
        self._token = token
        self._pid = os.getpid()

    def check(self) -> None:
        """Raise `ForeignUse` if it is used elsewhere."""
        if os.getpid() != self._pid:
            raise ForeignUse(f"made in process {self._pid}: ZeroMQ does not survive fork(); make a new context in this process")
        if _token() is not self._token:
            raise ForeignUse(
                "used outside of the trio.run() that it was made in: from another thread go through trio.from_thread.run"
            )
