"""What has to be looked at now and then, though nothing happens?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

PULSE_S: Final = 0.1
"""So long after something has joined, and as long as anything stays, `Pulse.beat` is to be called."""
MOST_EFFORT: Final = 20_000
"""So much is done in one beat; what is left comes in the next."""


class Beating(Protocol):
    """Something that has to be looked at."""

    def beat(self) -> int:
        """Do what is due; return what it took (about one for each message in flight). It has left, but may join again."""


class Pulse:
    """Calls those that have joined, once, `PULSE_S` later. Nothing runs as long as nobody has.

    Args:
        wake: called when the first joins: see to it that `beat` is called in `PULSE_S`. None: nobody is ever called.
    """

    __slots__ = ("_members", "_wake")

    def __init__(self, wake: Callable[[], None] | None = None) -> None:
        self._wake: Callable[[], None] | None = wake
        self._members: dict[Beating, None] = {}

    def join(self, member: Beating) -> None:
        """Be looked at in the next beat but one, or the next."""
        if self._wake is None:
            return
        if not self._members:
            self._wake()
        self._members[member] = None

    def leave(self, member: Beating) -> None:
        """Be looked at no more."""
        self._members.pop(member, None)

    def beat(self) -> bool:
        """Look at those that have joined; return whether it is to be called again, `PULSE_S` from now."""
        members = list(self._members)
        effort = 0
        for member in members:
            if effort > MOST_EFFORT:
                break
            self._members.pop(member, None)
            effort += 1 + member.beat()
        return bool(self._members)
