"""Which priority of a queue has its turn?"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.engine.queues.lane import Lane
from gateway.model.message import Message


class Turns:
    """The lanes of a queue with priorities: the highest first, but no lane waits for ever.

    After ``burst`` deliveries in a row past a lower lane in which something waited, the lower lane that waited longest has a turn.
    """

    __slots__ = ("_burst", "_filled", "_passed", "_since", "_tick", "lanes")

    def __init__(self, lanes: Sequence[Lane], burst: int) -> None:
        self.lanes: Sequence[Lane] = lanes
        self._burst: int = burst
        self._passed: int = 0
        self._tick: int = 0
        self._since: list[int] = [0] * len(lanes)
        self._filled: int = 0  # bit p: lane p may have something

    def lane_of(self, message: Message) -> Lane:
        """Return the lane of a message's priority, or the highest that there is."""
        return self.lanes[min(message.priority, len(self.lanes) - 1)]

    def fill(self, lane: Lane) -> None:
        """Something is about to wait in a lane."""
        at = lane.id - self.lanes[0].id
        if not self._filled >> at & 1 or not lane.occupied:
            self._filled |= 1 << at
            self._tick += 1
            self._since[at] = self._tick

    def _tidy(self) -> int:
        """Return which lanes have something, as bits. Cost: O(1), but for lanes that ran empty since the last call."""
        filled = self._filled
        while filled and not self.lanes[filled.bit_length() - 1].occupied:
            filled ^= 1 << (filled.bit_length() - 1)
        while filled and not self.lanes[(filled & -filled).bit_length() - 1].occupied:
            filled &= filled - 1
        self._filled = filled
        return filled

    def highest(self) -> Lane | None:
        """Return the highest lane in which something waits."""
        filled = self._tidy()
        return self.lanes[filled.bit_length() - 1] if filled else None

    def lowest(self) -> Lane | None:
        """Return the lowest lane in which something waits."""
        filled = self._tidy()
        return self.lanes[(filled & -filled).bit_length() - 1] if filled else None

    def due(self) -> Lane | None:
        """Return the lane that was passed too often; None: none was. Cost: the number of lanes."""
        if self._passed < self._burst:
            return None
        below = [at for at in range(self._tidy().bit_length() - 1) if self.lanes[at].occupied]
        return self.lanes[min(below, key=self._since.__getitem__)] if below else None

    def lane(self) -> Lane | None:
        """Return the lane whose turn it is, None: nothing waits. One whose entries are on disk has to be waited for."""
        due = self.due()
        if due is not None and due.ready:
            return due
        return self.highest()

    def taken(self, lane: Lane) -> None:
        """An entry of a lane is handed out."""
        at = lane.id - self.lanes[0].id
        self._tick += 1
        self._since[at] = self._tick
        lowest = self.lowest()
        highest = self.highest()
        if lowest is None or lowest.id >= lane.id or (highest is not None and highest.id > lane.id):
            self._passed = 0
        else:
            self._passed += 1

    def refill(self, *, wanted: bool, over: bool) -> bool:
        """Have pages read: at once for lanes that are waited for, for others one at a time. Return as `Lane.refill`.

        ``over``: there are too many messages: the lowest lane is to lose some.
        """
        urgent = [self.highest(), self.due(), self.lowest() if over else None]
        filled = False
        for lane in reversed(self.lanes):
            if lane.backlog is not None:
                is_urgent = lane in urgent
                busy = any(other.backlog is not None and other.backlog.requested for other in self.lanes)
                filled = lane.refill(urgent=is_urgent, wanted=wanted and (is_urgent or not busy)) or filled
        return filled
