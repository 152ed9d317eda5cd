"""How are libzmq's threads kept from interrupting the program that they work for?

They wake with every packet. On a core that they share with trio's loop they take it away each time, for the sake of a message or
two; with less priority they come when the loop has a pause, and bring what has gathered. A loop that waits waits no longer.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NICE = 5
"""So much nicer than their program they are: with more, who waits for one answer after the other waits longer."""
_NICEST = 19
_TASKS = Path("/proc/self/task")


@contextmanager
def calm_threads(nice: int = NICE) -> Iterator[None]:
    """Give the threads that libzmq starts meanwhile (with a context's first socket) less priority than the calling thread has.

    Only on Linux can that be said; elsewhere they have the same. libzmq's own option, THREAD_PRIORITY, only raises it.
    """
    before = _threads()
    yield
    pythons = {thread.native_id for thread in threading.enumerate()}  # libzmq's have no name yet before they have run
    for thread in _threads() - before - pythons:
        with suppress(OSError):  # it has gone, or may not
            os.setpriority(os.PRIO_PROCESS, thread, min(os.getpriority(os.PRIO_PROCESS, 0) + nice, _NICEST))


def _threads() -> set[int]:
    """Return all threads of this process."""
    with suppress(OSError):
        return {int(task.name) for task in _TASKS.iterdir()}
    return set()
