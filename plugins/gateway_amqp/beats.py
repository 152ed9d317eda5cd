"""Who is to be sent a heartbeat, and when?"""

from __future__ import annotations

import math
from typing import Final, Protocol

MOST_S: Final = 60
"""Who wants one less often gets it as often as this: clients may say 65,535 different numbers, each of which is to be looked at."""


class Beating(Protocol):
    """A connection on which heartbeats were agreed upon."""

    @property
    def heartbeat_s(self) -> int:
        """In so many seconds the client wants to hear something; as long as it is here."""

    def beat(self) -> None:
        """Send a heartbeat."""


class Beats:
    """The connections by how often they are sent a heartbeat: half as long as they were promised (AMQP 0-9-1 §4.2.7).

    Times are in seconds of whatever clock the caller has.
    """

    __slots__ = ("_due", "_members")

    def __init__(self) -> None:
        self._members: dict[int, dict[Beating, None]] = {}
        self._due: dict[int, float] = {}

    @property
    def due_at(self) -> float:
        """When something is to be sent next; infinity: never."""
        return min(self._due.values(), default=math.inf)

    def join(self, connection: Beating, heartbeat_s: int, now: float) -> bool:
        """Begin with a connection; return whether `due_at` has come closer."""
        before = self.due_at
        heartbeat_s = min(heartbeat_s, MOST_S)
        members = self._members.get(heartbeat_s)
        if members is None:
            members = self._members[heartbeat_s] = {}
            self._due[heartbeat_s] = now + heartbeat_s / 2
        members[connection] = None
        return self.due_at < before

    def leave(self, connection: Beating) -> None:
        """End with a connection, if it is here."""
        heartbeat_s = min(connection.heartbeat_s, MOST_S)
        members = self._members.get(heartbeat_s)
        if members is None or connection not in members:
            return
        del members[connection]
        if not members:
            del self._members[heartbeat_s]
            del self._due[heartbeat_s]

    def due(self, now: float) -> list[Beating]:
        """Return whom to send a heartbeat now, each once."""
        found: list[Beating] = []
        for heartbeat_s, due_at in list(self._due.items()):
            if due_at <= now:
                self._due[heartbeat_s] = now + heartbeat_s / 2
                found += self._members[heartbeat_s]
        return found
