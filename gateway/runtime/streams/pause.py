"""May a reader wait for its sockets by itself, while the loop has nothing else to do?"""

from __future__ import annotations

import select
from collections.abc import Sized
from importlib import import_module
from typing import Any, Final, Protocol

import trio

PAUSE_S: Final = 0.001
"""The finest time that the kernel's sets know. Nothing that is due sooner is kept waiting."""


class _Deadlines(Protocol):
    def next_deadline(self) -> float: ...


class Pause:
    """Waits for a descriptor without the loop's way round, which costs several times what a lone packet does.

    It waits for all that the loop waits for, too: its set of descriptors can be waited for like one. So only what the loop has to
    do already must be asked for. trio does not publish these three things; where they are not to be had nobody waits here.

    Args:
        number: the descriptor.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._set: select.epoll | None = None
        runner = _runner()
        theirs = getattr(getattr(runner, "io_manager", None), "_epoll", None)
        self._runnable: Sized = getattr(runner, "runq", ())
        self._deadlines: _Deadlines | None = getattr(runner, "deadlines", None)
        if isinstance(theirs, select.epoll) and hasattr(runner, "runq") and hasattr(self._deadlines, "next_deadline"):
            self._set = select.epoll()
            self._set.register(number, select.EPOLLIN)
            self._set.register(theirs.fileno(), select.EPOLLIN)

    def wait(self) -> bool:
        """Wait for a moment; say whether the descriptor can be read, and nobody else has anything to do."""
        if self._set is None or self._deadlines is None or len(self._runnable):
            return False
        if self._deadlines.next_deadline() - trio.current_time() < PAUSE_S:
            return False
        found = self._set.poll(PAUSE_S, 2)
        return len(found) == 1 and found[0][0] == self._number

    def close(self) -> None:
        """Give back the descriptor that it has."""
        if self._set is not None:
            self._set.close()
            self._set = None


def _runner() -> Any:
    """Return what runs the loop; None: it is not where it was."""
    try:
        home = import_module("trio._core._run")
    except ImportError:
        return None
    return getattr(getattr(home, "GLOBAL_RUN_CONTEXT", None), "runner", None)
