"""What was a peer sent, and how far has it ponged?

The PINGs between messages carry how many messages went before them; a PONG brings the number back. What is before it has been
taken by the peer's libzmq, which reads in order, and stops reading while its pipe to the application is full.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from gateway_zeromq.zmtp.commands import ping
from gateway_zeromq.zmtp.frames import Violation

if TYPE_CHECKING:
    from gateway_zeromq.endpoints.feed import Item

_COUNTER_BYTES: Final = 8
_PING: Final = ping(bytes(_COUNTER_BYTES))[:-_COUNTER_BYTES]
MOST_PINGS: Final = 64
"""So many are under way at most, whatever the settings say."""


class Window:
    """One peer's messages that are sent and not ponged.

    ``items``: these, in order. ``pings``: the numbers of PINGs that are not answered. ``unpinged``: messages behind the last PING.

    Args:
        interval: messages between two PINGs.
        behind: a message is settled when so many after it are ponged. With what fits the peer's pipe, and one more: the peer's
            application has then asked for the next one.
    """

    __slots__ = ("_behind", "_interval", "_ponged", "_sent", "_settled", "echoes", "items", "pings", "unpinged")

    def __init__(self, interval: int, behind: int = 0) -> None:
        self._interval = interval
        self._behind = behind
        self._sent = self._ponged = self._settled = 0
        self.items: list[Item] = []
        self.pings: deque[int] = deque()
        self.unpinged = 0
        self.echoes: bool | None = None  # None: not known yet. False: its PONG is empty, so one PING at a time can be told apart

    def until_ping(self) -> int:
        """Return after how many more messages a PING is due."""
        return max(self._interval - self.unpinged, 1)

    @property
    def unponged(self) -> int:
        """How many messages no PONG has come for."""
        return self._sent - self._ponged

    def add(self, items: list[Item]) -> None:
        """Note what is sent."""
        self.items += items
        self._sent += len(items)
        self.unpinged += len(items)

    def due(self, *, last: bool) -> bytes:
        """Return the PING that is due now, or nothing. `last`: nothing is sent behind it for the moment.

        Behind the last message one is due only if none is under way: the PONG of that one brings the next.
        """
        if self.pings and (not self.echoes or len(self.pings) >= MOST_PINGS):
            return b""
        if self.unpinged >= self._interval or (last and self.unpinged and not self.pings):
            return self.ping()
        return b""

    def ping(self) -> bytes:
        """Return a PING."""
        self.pings.append(self._sent)
        self.unpinged = 0
        return _PING + self._sent.to_bytes(_COUNTER_BYTES, "big")

    def pong(self, context: bytes) -> list[Item]:
        """Take a PONG; return what is settled by it.

        Raises:
            Violation: nobody asked for it.
        """
        pings = self.pings
        if not pings:
            raise Violation("a PONG without a PING")
        if self.echoes is None:
            self.echoes = bool(context)
        if self.echoes:
            counter = int.from_bytes(context, "big")
            if len(context) != _COUNTER_BYTES or counter not in pings:
                raise Violation("a PONG to a PING that was not sent")
        elif context:
            raise Violation("a PONG to a PING that was not sent")
        else:
            counter = pings[0]
        while pings.popleft() != counter:
            pass
        self._ponged = counter
        count = max(counter - self._behind - self._settled, 0)
        self._settled += count
        done = self.items[:count]
        del self.items[:count]
        return done

    def hand_over(self) -> list[Item]:
        """Take out what is there: it is settled without a PONG, or given back."""
        items, self.items = self.items, []
        self._ponged = self._settled = self._sent
        self.unpinged = 0
        return items
