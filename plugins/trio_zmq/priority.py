"""How are libzmq's threads kept from interrupting the program that they work for?

They wake with every packet. On a core that they share with trio's loop they take it away each time, for the sake of a message or
two; with less priority they come when the loop has a pause, and bring what has gathered. A loop that waits waits no longer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NICE = 5
"""So much nicer than their program they are: with more, who waits for one answer after the other waits longer."""
_NICEST = 19
_TASKS = Path("/proc/self/task")
_NAMES = "ZMQbg/"


@contextmanager
def calm_threads(nice: int = NICE) -> Iterator[None]:
    """Give the threads that libzmq starts meanwhile (with a context's first socket) less priority than the calling thread has.

    Only on Linux can that be said; elsewhere they have the same. libzmq's own option, THREAD_PRIORITY, only raises it.
    """
    before = _threads()
    yield
    for thread in _threads() - before:
        with suppress(OSError):  # it has gone, or may not
            os.setpriority(os.PRIO_PROCESS, thread, min(os.getpriority(os.PRIO_PROCESS, 0) + nice, _NICEST))


def _threads() -> set[int]:
    """Return libzmq's threads of this process, of all contexts."""
    with suppress(OSError):
        return {int(task.name) for task in _TASKS.iterdir() if _name(task).startswith(_NAMES)}
    return set()


def _name(task: Path) -> str:
    try:
        return (task / "comm").read_text()
    except OSError:  # it has just ended
        return ""
