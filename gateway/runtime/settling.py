"""How does a channel settle what its consumers were handed?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway.engine.queues.delivery import Entry
from gateway.engine.route import RouteHandle
from gateway.errors import GatewayError, NotFound
from gateway.model.message import Message
from gateway.runtime.declaring import Declaring

if TYPE_CHECKING:
    from gateway.api.frontend import Principal
    from gateway.engine.engine import Engine
    from gateway.runtime.alarms import Alarms
    from gateway.runtime.committer import Committer

NOTHING_HELD: frozenset[Entry] = frozenset()


class Settling(Declaring):
    """The part of a channel that settles; ``_held``: what it may settle (`gateway.api.Channel` says what each method does)."""

    __slots__ = ("_held",)

    def __init__(self, engine: Engine, principal: Principal, owner: object | None, committer: Committer, alarms: Alarms) -> None:
        super().__init__(engine, principal, owner, committer, alarms)
        self._held: set[Entry] | frozenset[Entry] = NOTHING_HELD

    def ack(self, delivery: Entry) -> None:
        """See `gateway.api.Channel.ack`."""
        if delivery not in self._held:
            raise NotFound("unknown delivery tag")
        self._engine.ack(delivery)

    def ack_many(self, deliveries: Sequence[Entry]) -> None:
        """See `gateway.api.Channel.ack_many`."""
        held = self._held
        mine = [delivery for delivery in deliveries if delivery in held]
        self._engine.ack_many(mine)
        if len(mine) < len(deliveries):
            raise NotFound("unknown delivery tag")

    def move(self, delivery: Entry, route: RouteHandle, message: Message) -> GatewayError | None:
        """See `gateway.api.Channel.move`."""
        if delivery not in self._held:
            raise NotFound("unknown delivery tag")
        return self._engine.move(delivery, route, message)

    def nack(self, delivery: Entry, *, requeue: bool, delay_ms: int = 0) -> None:
        """See `gateway.api.Channel.nack`."""
        if delivery not in self._held:
            raise NotFound("unknown delivery tag")
        self._engine.nack(delivery, requeue=requeue, delay_ms=delay_ms)

    def nack_many(self, deliveries: Sequence[Entry], *, requeue: bool) -> None:
        """See `gateway.api.Channel.nack_many`."""
        held = self._held
        mine = [delivery for delivery in deliveries if delivery in held]
        self._engine.nack_many(mine, requeue=requeue)
        if len(mine) < len(deliveries):
            raise NotFound("unknown delivery tag")

    def extend(self, delivery: Entry, lease_ms: int) -> None:
        """See `gateway.api.Channel.extend`."""
        if delivery not in self._held:
            raise NotFound("unknown delivery tag")
        self._engine.extend(delivery, lease_ms)

    def settle_handed_over(self, delivery: Entry) -> None:
        """See `gateway.api.Channel.settle_handed_over`."""
        if delivery not in self._held:
            raise NotFound("unknown delivery tag")
        self._engine.handed_over(delivery)
