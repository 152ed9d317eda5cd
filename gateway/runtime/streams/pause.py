"""May a reader wait for its sockets by itself, while the loop has nothing else to do?"""

from __future__ import annotations

import select
from collections.abc import Sized
from importlib import import_module
from typing import Any, Final, Protocol

import trio

PAUSE_S: Final = 0.001
"""The finest time that the kernel's sets know. Nothing that is due sooner is kept waiting."""

MOST: Final = 8


class _Deadlines(Protocol):
    def next_deadline(self) -> float: ...


class Pause:
    """Waits for a descriptor without the loop's way round, which costs several times what a lone packet does.

    It waits for all that the loop waits for, too: its set of descriptors can be waited for like one. So only what the loop has to
    do already must be asked for. trio does not publish these three things; where they are not to be had nobody waits here.

    Args:
        number: the descriptor.

    What is added is waited for as well, though the loop does so, too.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._added: set[int] = set()
        self._set: select.epoll | None = None
        runner = _runner()
        theirs = getattr(getattr(runner, "io_manager", None), "_epoll", None)
        self._runnable: Sized = getattr(runner, "runq", ())
        self._deadlines: _Deadlines | None = getattr(runner, "deadlines", None)
        if isinstance(theirs, select.epoll) and hasattr(runner, "runq") and hasattr(self._deadlines, "next_deadline"):
            self._set = select.epoll()
            self._set.register(number, select.EPOLLIN)
            self._set.register(theirs.fileno(), select.EPOLLIN)

    def add(self, number: int) -> None:
        """Wait for another descriptor, too."""
        if self._set is not None:
            self._set.register(number, select.EPOLLIN)
            self._added.add(number)

    def remove(self, number: int) -> None:
        """Undo `add`."""
        if self._set is not None:
            self._set.unregister(number)
            self._added.discard(number)

    def wait(self) -> int | None:
        """Wait for a moment; return the descriptor if it can be read, and nobody else has anything to do, or one that was added."""
        if self._set is None or self._deadlines is None or len(self._runnable):
            return None
        if self._deadlines.next_deadline() - trio.current_time() < PAUSE_S:
            return None
        found = self._set.poll(PAUSE_S, MOST)
        if len(found) == 1:
            number: int = found[0][0]
            return number if number == self._number or number in self._added else None
        return next((number for number, _ in found if number in self._added), None)

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
