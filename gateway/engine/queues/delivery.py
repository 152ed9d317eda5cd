"""What is one message's place in one queue?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.model.declare import BindingOptions
from gateway.model.message import Message
from gateway.model.records import Reference

if TYPE_CHECKING:
    from gateway.engine.queues.consumer import Consumer
    from gateway.engine.queues.lane import Lane
    from gateway.engine.queues.queue import Queue

UNWRITTEN = -1
"""Slot of an entry that is to be journaled and has no segment yet."""
TRANSIENT = -2
"""Slot of an entry that never touches the journal."""
SPARED = -1
"""Instead of a time: the entry does not expire, whatever its message and its queue say."""


class Entry(Reference):
    """A message's place in one queue; handed out as the opaque delivery tag.

    ``consumer`` is None while the entry is ready; ``count`` is how often it was delivered. ``expires_at_ms``: wall time from
    which it is not delivered any more; 0: never; `SPARED`: never more.
    """

    __slots__ = ("consumer", "count", "expires_at_ms", "queue", "redelivered")

    def __init__(self, message: Message, lane: Lane, position: int, options: BindingOptions | None, slot: int) -> None:
        # Not super().__init__: one call less for every entry. Nor types: what is declared here once more has no place of its own
        # when compiled, but the collector would count it twice, and never let go of a ring in which it is.
        self.message = message
        self.queue_id = lane.id
        self.position = position
        self.options = options
        self.segment = None
        self.slot = slot
        self.settled = False
        self.queue: Queue = lane.queue
        self.consumer: Consumer | None = None
        self.count: int = 0
        self.expires_at_ms: int = 0
        self.redelivered: bool = False

    def spare(self) -> None:
        """See `gateway.api.Delivery.spare`."""
        if self.expires_at_ms > 0 and not self.settled:
            self.expires_at_ms = SPARED
            self.queue.note_return(self, 0)


def in_order(entry: Entry) -> tuple[int, int, str]:
    """Return what entries are sorted by that may come from different queues: nothing may depend on the order of a set."""
    return entry.position, entry.queue_id, entry.queue.name
