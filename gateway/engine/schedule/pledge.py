"""What else is to be known of a scheduled message when it is published: is it a last value, has it further keys?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gateway.model.message import Address, Message

if TYPE_CHECKING:
    from gateway.engine.engine import Engine

NAMESPACE = "engine.schedule.retained"
"""Of the records that say which ones become the last value of an address: id -> JSON of exchange and key."""
KEYS = "engine.schedule.keys"
"""Of the records of further keys: id -> JSON of these."""


class Pledges:
    """Addresses and further keys, by the ids of scheduled messages."""

    def __init__(self, engine: Engine) -> None:
        self._engine: Engine = engine
        self._brief: dict[int, Address] = {}
        self._brief_keys: dict[int, tuple[str, ...]] = {}

    def note(self, scheduled_id: int, address: Address, *, lasting: bool) -> None:
        """Have a message become a last value; `lasting`: as the message itself, over restarts."""
        if lasting:
            where = json.dumps([address.exchange, address.routing_key])
            self._engine.kept.put_state(NAMESPACE, str(scheduled_id), where.encode())
        else:
            self._brief[scheduled_id] = address

    def note_keys(self, scheduled_id: int, keys: tuple[str, ...], *, lasting: bool) -> None:
        """Have a message go to further keys, too; `lasting` as of `note`."""
        if lasting and keys:
            self._engine.kept.put_state(KEYS, str(scheduled_id), json.dumps(keys).encode())
        elif keys:
            self._brief_keys[scheduled_id] = keys

    def keys_of(self, scheduled_id: int) -> tuple[str, ...]:
        """Return the further keys of a message."""
        noted = self._engine.kept.state(KEYS).get(str(scheduled_id))
        return tuple(json.loads(noted)) if noted is not None else self._brief_keys.get(scheduled_id, ())

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
        self._brief_keys.pop(scheduled_id, None)
        for namespace in (NAMESPACE, KEYS):
            if str(scheduled_id) in self._engine.kept.state(namespace):
                self._engine.kept.put_state(namespace, str(scheduled_id), None)
