"""Which deliveries has a channel not settled, and which of them does a delivery tag mean?"""

from __future__ import annotations

from itertools import takewhile
from typing import Final, TypeAlias

from gateway.api import Delivery
from gateway_amqp.codec.names import PRECONDITION_FAILED, SoftError

FEW: Final = 64

Taken: TypeAlias = tuple[int, Delivery | None]


def unknown(tag: int) -> SoftError:
    """Return the error for a tag that names no unsettled delivery."""
    return SoftError(PRECONDITION_FAILED, f"unknown delivery tag {tag}")


class Unsettled:
    """The unsettled deliveries of a channel, by tag and in its order.

    ``deliveries``: None for what needs no acknowledgement, though the client sends one. ``last_tag``: that was given.
    """

    __slots__ = ("_disordered", "_lowest", "deliveries", "last_tag")

    def __init__(self) -> None:
        self.deliveries: dict[int, Delivery | None] = {}
        self.last_tag: int = 0
        self._lowest: int = 1
        self._disordered: bool = False  # something was put back behind what comes after it

    def __len__(self) -> int:
        return len(self.deliveries)

    def take(self, tag: int) -> Delivery | None:
        """Take out what a tag stands for.

        Raises:
            SoftError: 406, nothing.
        """
        try:
            return self.deliveries.pop(tag)
        except KeyError:
            raise unknown(tag) from None

    def take_through(self, tag: int) -> list[Taken]:
        """Take out, in order, all up to a tag; 0: all there are. Cost: about as many as were sent since the last time.

        Raises:
            SoftError: 406, the tag itself stands for nothing; nothing was taken.
        """
        deliveries = self.deliveries
        if tag and tag not in deliveries:
            raise unknown(tag)
        if not tag or tag == self.last_tag:
            return self.take_all()
        if tag - self._lowest <= 2 * len(deliveries) + FEW:
            numbers = [number for number in range(self._lowest, tag + 1) if number in deliveries]
        else:
            self._order()
            numbers = list(takewhile(tag.__ge__, self.deliveries))
            self.deliveries = deliveries = dict(self.deliveries)  # where much was taken out there are gaps, which cost time, too
        taken = [(number, deliveries.pop(number)) for number in numbers]
        self._lowest = tag + 1
        return taken

    def take_all(self) -> list[Taken]:
        """Take out all there are, in order."""
        self._order()
        taken = list(self.deliveries.items())
        self.deliveries = {}
        self._lowest = self.last_tag + 1
        return taken

    def restore(self, taken: list[Taken]) -> None:
        """Put back what was taken, under the same tags. Cost: how much that is, not how much there is."""
        deliveries = self.deliveries
        self._disordered = self._disordered or bool(deliveries)
        for tag, delivery in sorted(taken, key=_tag):
            deliveries[tag] = delivery
            self._lowest = min(self._lowest, tag)

    def _order(self) -> None:
        """Bring what was put back to its place."""
        if self._disordered:
            self.deliveries = dict(sorted(self.deliveries.items(), key=_tag))
            self._disordered = False


def _tag(taken: Taken) -> int:
    return taken[0]
