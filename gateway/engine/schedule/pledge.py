"""Which scheduled messages become the last value of an address when they are published?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gateway.model.message import Address, Message

if TYPE_CHECKING:
    from gateway.engine.engine import Engine

NAMESPACE = "engine.schedule.retained"
"""Of the records that say so: id -> JSON of exchange and key."""


class Pledges:
    """Addresses, by the ids of scheduled messages."""

    def __init__(self, engine: Engine) -> None:
        self._engine: Engine = engine
        self._brief: dict[int, Address] = {}

    def note(self, scheduled_id: int, address: Address, *, lasting: bool) -> None:
        """Have a message become a last value; `lasting`: as the message itself, over restarts."""
        if lasting:
            where = json.dumps([address.exchange, address.routing_key])
            self._engine.kept.put_state(NAMESPACE, str(scheduled_id), where.encode())
        else:
            self._brief[scheduled_id] = address

    def keep(self, scheduled_id: int, message: Message) -> None:
        """Do what was noted, if anything was, as the message is published."""
        noted = self._engine.kept.state(NAMESPACE).get(str(scheduled_id))
        address = self._brief.get(scheduled_id)
        if noted is not None:
            address = Address(message.address.vhost, *json.loads(noted))
        if address is not None and self._engine.kept.values.put(address, message) is not None:
            self._engine.events.dropped(address.exchange, "scheduled, not retained", 1)

    def forget(self, scheduled_id: int) -> None:
        """The message is gone, published or not."""
        self._brief.pop(scheduled_id, None)
        if str(scheduled_id) in self._engine.kept.state(NAMESPACE):
            self._engine.kept.put_state(NAMESPACE, str(scheduled_id), None)
