"""What became of the messages: was anything lost that was confirmed?"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended, in messages.

    Args:
        confirmed: identifiers whose PUBACK came.
        delivered: different identifiers that a worker worked on.
        lost: identifiers that were confirmed and that no worker got.
        duplicated: identifiers that workers worked on more than once.
        unconfirmed: identifiers that were delivered although their PUBACK never came (no promise was made, none is broken).
        waiting: identifiers that were confirmed and not worked on yet when the broker was killed.
        from_disk: those of them that a worker got from the next broker.
    """

    confirmed: int
    delivered: int
    lost: tuple[str, ...]
    duplicated: int
    unconfirmed: int
    waiting: int = 0
    from_disk: int = 0

    @property
    def exit_status(self) -> int:
        """0 only if something was confirmed, and nothing confirmed was lost."""
        return 0 if self.confirmed and not self.lost else 1


def tally(confirmed: Collection[str], worked: Mapping[str, int], waiting: Collection[str] = ()) -> Result:
    """Compare what was confirmed to the sensors with what the workers got.

    Args:
        confirmed: identifiers whose PUBACK came.
        worked: how often each identifier was worked on.
        waiting: which ones only the disk had when the broker was killed.
    """
    promised = set(confirmed)
    return Result(
        confirmed=len(promised),
        delivered=len(worked),
        lost=tuple(sorted(promised - worked.keys())),
        duplicated=sum(1 for times in worked.values() if times > 1),
        unconfirmed=len(worked.keys() - promised),
        waiting=len(waiting),
        from_disk=sum(1 for identifier in waiting if identifier in worked),
    )


class Progress:
    """What is known while the demo runs: filled by the threads that listen to the processes, read by the picture."""

    def __init__(self) -> None:
        self.confirmed: set[str] = set()
        self.worked: Counter[str] = Counter()
        self.waiting: frozenset[str] = frozenset()
        self.redelivered = 0
        self.nacked = 0
        self.depth: int | None = None
        self.broker = "starting"
        self.events: list[str] = []
        self._lock = threading.Lock()

    def confirm(self, identifiers: Collection[str]) -> None:
        """Add what the sensors report as confirmed."""
        with self._lock:
            self.confirmed.update(identifiers)

    def worked_on(self, identifiers: Collection[str], redelivered: int, nacked: int) -> None:
        """Add what a worker reports. Several workers' threads call it, so it locks."""
        with self._lock:
            self.worked.update(identifiers)
            self.redelivered += redelivered
            self.nacked += nacked

    def note(self, event: str) -> None:
        """Remember something for the picture."""
        self.events.append(event)

    def killed(self) -> None:
        """Remember what waits: no worker has worked on it, and its broker is gone, so that it can come from the disk alone."""
        with self._lock:
            self.waiting = frozenset(self.confirmed.difference(self.worked))

    @property
    def missing(self) -> int:
        """Confirmed and not worked on yet."""
        with self._lock:
            return len(self.confirmed.difference(self.worked))

    def result(self) -> Result:
        """Return the tally as it stands."""
        with self._lock:
            return tally(self.confirmed, self.worked, self.waiting)
