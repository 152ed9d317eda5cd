"""Which addresses refused a scheduled message, and when is the next attempt?"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush

from gateway.engine.timers import NOTHING_DUE
from gateway.model.message import Address

FIRST_MS = 1_000
MOST_MS = 60_000


class Stall:
    """What waits for an address that refused; `keys` is a heap, so that their order outlasts every refusal.

    ``open``: an attempt is under way; what comes before all that waits may go.
    """

    __slots__ = ("delay_ms", "keys", "open", "where")

    def __init__(self, where: tuple[str, str, str]) -> None:
        self.where: tuple[str, str, str] = where
        self.keys: list[int] = []
        self.open: bool = False
        self.delay_ms: int = 0

    def keeps(self, key: int) -> bool:
        """Say whether a message has to wait here, too."""
        return not self.open or bool(self.keys and self.keys[0] < key)


class Stalls:
    """Addresses that refused, each with its own back-off (`FIRST_MS`, doubled up to `MOST_MS`)."""

    __slots__ = ("_made", "_stalls", "_times")

    def __init__(self) -> None:
        self._stalls: dict[tuple[str, str, str], Stall] = {}
        self._times: list[tuple[int, int, Stall]] = []
        self._made: int = 0

    def __iter__(self) -> Iterator[Stall]:
        return iter(self._stalls.values())

    @property
    def next_due_ms(self) -> int:
        """Return when the next attempt is due."""
        return self._times[0][0] if self._times else NOTHING_DUE

    def find(self, address: Address) -> Stall | None:
        """Return what waits for an address; None: nothing does."""
        return self._stalls.get((address.vhost, address.exchange, address.routing_key)) if self._stalls else None

    def refuse(self, address: Address, key: int, now_ms: int) -> None:
        """Have a message wait that was refused, and all that comes after it."""
        where = (address.vhost, address.exchange, address.routing_key)
        stall = self._stalls.get(where)
        if stall is None:
            stall = self._stalls[where] = Stall(where)
        heappush(stall.keys, key)
        stall.open = False
        stall.delay_ms = min(stall.delay_ms * 2, MOST_MS) or FIRST_MS
        self._made += 1
        heappush(self._times, (now_ms + stall.delay_ms, self._made, stall))

    def take_due(self, now_ms: int) -> Iterator[Stall]:
        """Yield those of which one may try again."""
        while self._times and self._times[0][0] <= now_ms:
            stall = heappop(self._times)[2]
            stall.open = True
            yield stall

    def forget(self, stall: Stall) -> None:
        """Nothing waits there any more."""
        del self._stalls[stall.where]
