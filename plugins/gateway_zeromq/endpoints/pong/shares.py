"""Which peer gets which messages?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from gateway_zeromq.endpoints.feed import Item

_MOST: Final = 1 << 30
_PORTIONS_PER_S: Final = 2_000
"""More sends than this cost too much: with more messages a second each peer gets several at a time."""
_MOST_PORTION: Final = 64


class Taker(Protocol):
    """One who can be sent messages (`gateway_zeromq.endpoints.pong.traffic.Traffic`)."""

    @property
    def room(self) -> int:
        """How many messages it may be given now."""

    def give(self, items: list[Item]) -> None:
        """Give it messages, not more than it has room for."""

    def work(self) -> None:
        """Send what it was given."""


class Shares:
    """Those who can be sent messages, one after the other."""

    __slots__ = ("_dealt", "_next", "_portion", "_takers")

    def __init__(self) -> None:
        self._takers: list[Taker] = []
        self._next = 0  # whose turn it is
        self._portion = 1  # messages that one is given at a time, if there are enough
        self._dealt = 0

    def __bool__(self) -> bool:
        """Say whether anybody is there."""
        return bool(self._takers)

    def add(self, taker: Taker) -> None:
        """Deal to it, too. Again: nothing happens."""
        if taker not in self._takers:
            self._takers.append(taker)

    def remove(self, taker: Taker) -> None:
        """Deal to it no more. Again: nothing happens."""
        if taker in self._takers:
            self._takers.remove(taker)

    def room(self, most: int) -> int:
        """Return how many messages could be dealt out now; not above `most`."""
        room = 0
        for taker in self._takers:
            room += taker.room
            if room >= most:
                return most
        return room

    def pace(self, interval_s: float) -> None:
        """Fit the portions to what was dealt since the last call, so many seconds ago."""
        self._portion = min(max(int(self._dealt / interval_s / _PORTIONS_PER_S), 1), _MOST_PORTION)
        self._dealt = 0

    def deal(self, items: list[Item]) -> None:
        """Take messages out of `items`, as long as there is room for them, and send them."""
        while items and self._deal_some(items):
            pass

    def _deal_some(self, items: list[Item]) -> bool:
        """Deal one message after the other to the next taker; False: there is no room.

        When there are many messages a second not everybody gets a part in every turn: to send one message costs as much as ten.
        """
        chosen, least = self._choose(-(-len(items) // self._portion))
        turns = len(chosen)
        if not turns:
            return False
        share = items[: least * turns]
        del items[: len(share)]  # before anything is sent: what is given back meanwhile may come anew
        self._dealt += len(share)
        self._next = chosen[(len(share) - 1) % turns][0] + 1
        for number, (_, taker) in enumerate(chosen[: len(share)]):
            taker.give(share[number::turns])
            taker.work()
        return True

    def _choose(self, wanted: int) -> tuple[list[tuple[int, Taker]], int]:
        """Return the next takers with room, with their places, and the room that each of them has."""
        chosen: list[tuple[int, Taker]] = []
        least = _MOST
        takers = self._takers
        count = len(takers)
        for place in range(self._next, self._next + count):
            taker = takers[place % count]
            room = taker.room
            if room > 0:
                chosen.append((place % count, taker))
                least = min(least, room)
                if len(chosen) == wanted:
                    break
        return chosen, least
