"""Which references go with a queue that is purged or deleted?"""

from __future__ import annotations

from gateway.model.message import Message
from gateway.model.records import QueueDeleted


def lanes(record: QueueDeleted) -> range:
    """Return the ids of a deleted queue: one per priority."""
    return range(record.queue_id, record.queue_id + record.lanes)


def ranges(floors: dict[int, int]) -> list[list[int]]:
    """Return ``[first queue, last queue, floor]`` for ids that follow one another; the floor is the same for all."""
    ranges: list[list[int]] = []
    for queue_id, floor in sorted(floors.items()):
        if ranges and ranges[-1][1] == queue_id - 1:
            ranges[-1][1] = queue_id
        else:
            ranges.append([queue_id, queue_id, floor])
    return ranges


def drop(messages: list[Message], queue_ids: set[int]) -> None:
    """Leave out the references to queues that are deleted in the same batch."""
    for message in messages:
        for reference in (message.first, *(message.more or ())):
            if reference is not None and reference.queue_id in queue_ids:
                reference.settled = True
