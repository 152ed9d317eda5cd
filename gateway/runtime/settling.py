"""How does a channel settle what its consumers were handed?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway.api.channel import Outcome
from gateway.engine.queues.delivery import Entry
from gateway.engine.route import RouteHandle
from gateway.errors import GatewayError, MessageTooLarge, NotHeld
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

    __slots__ = ("_held", "_most_bytes")

    def __init__(
        self, engine: Engine, principal: Principal, owner: object | None, committer: Committer, alarms: Alarms, most_bytes: int
    ) -> None:
        super().__init__(engine, principal, owner, committer, alarms)
        self._most_bytes = most_bytes
        self._held: set[Entry] | frozenset[Entry] = NOTHING_HELD

    def ack(self, delivery: Entry) -> None:
        """See `gateway.api.Channel.ack`."""
        if delivery not in self._held:
            raise NotHeld
        self._engine.ack(delivery)

    def ack_many(self, deliveries: Sequence[Entry]) -> None:
        """See `gateway.api.Channel.ack_many`."""
        held = self._held
        mine = [delivery for delivery in deliveries if delivery in held]
        self._engine.ack_many(mine)
        if len(mine) < len(deliveries):
            raise NotHeld

    def move(self, delivery: Entry, route: RouteHandle, message: Message) -> GatewayError | None:
        """See `gateway.api.Channel.move`."""
        if delivery not in self._held:
            raise NotHeld
        return self._engine.move(delivery, route, message)

    def transact(self, publishes: Sequence[tuple[RouteHandle, Message]], settle: Sequence[tuple[Entry, str]]) -> int:
        """See `gateway.api.Channel.transact`."""
        number = self._next()
        answer = self._refusal_of(publishes, settle) or self._engine.transact(publishes, settle)
        if isinstance(answer, GatewayError):
            for _, message in publishes:
                self._alarms.count_refused(message, answer)
            self._exceptions.append(Outcome(number, error=answer))
        else:
            self._exceptions.append(Outcome(number, result=answer))
        return number

    def _refusal_of(
        self, publishes: Sequence[tuple[RouteHandle, Message]], settle: Sequence[tuple[Entry, str]]
    ) -> GatewayError | None:
        """Say why a transaction is refused that the engine would not refuse."""
        if any(delivery not in self._held for delivery, _ in settle):
            return NotHeld()
        if settle and self._alarms.is_journal_failing:
            return self._engine.refusal
        for _, message in publishes:
            if len(message.body) + len(message.wire) > self._most_bytes:
                return self._larger_than_allowed(message)
        return self._alarms.publisher_refusal(self.owner) if publishes else None

    def _larger_than_allowed(self, message: Message) -> GatewayError:
        size = len(message.body) + len(message.wire)
        return MessageTooLarge(f"the message is too large: {size} bytes; limits.max_message_bytes = {self._most_bytes}")

    def nack(self, delivery: Entry, *, requeue: bool, delay_ms: int = 0) -> None:
        """See `gateway.api.Channel.nack`."""
        if delivery not in self._held:
            raise NotHeld
        self._engine.nack(delivery, requeue=requeue, delay_ms=delay_ms)

    def nack_many(self, deliveries: Sequence[Entry], *, requeue: bool) -> None:
        """See `gateway.api.Channel.nack_many`."""
        held = self._held
        mine = [delivery for delivery in deliveries if delivery in held]
        self._engine.nack_many(mine, requeue=requeue)
        if len(mine) < len(deliveries):
            raise NotHeld

    def extend(self, delivery: Entry, lease_ms: int) -> None:
        """See `gateway.api.Channel.extend`."""
        if delivery not in self._held:
            raise NotHeld
        self._engine.extend(delivery, lease_ms)

    def settle_handed_over(self, delivery: Entry) -> None:
        """See `gateway.api.Channel.settle_handed_over`."""
        if delivery not in self._held:
            raise NotHeld
        self._engine.handed_over(delivery)
