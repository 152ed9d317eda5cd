"""What does a queue still have at the end of a world?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.api import Delivery, GatewayError
from tests.simulation.program import origin_of, text_of

if TYPE_CHECKING:
    from tests.simulation.world import World


class Collector:
    """Takes all that a queue has."""

    def __init__(self, world: World, texts: list[str]) -> None:
        self._world = world
        self._texts = texts

    def deliver(self, delivery: Delivery) -> None:
        text = text_of(delivery.message.body)
        self._texts.append(text)
        origin = origin_of(self._world, delivery)
        if origin:
            self._world.letters.append((origin, text))

    def deliver_transient(self, message: Any, options: Any) -> None:
        pass  # what was scheduled for a subscription of QoS 0

    def cancelled(self, reason: GatewayError) -> None:
        raise AssertionError(reason)
