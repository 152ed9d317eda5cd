"""What is scheduled, in order, without sorting all of it?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush, merge

from gateway.engine.schedule.appointment import IDS, SIZES, appointment, due_of, id_of, size_of
from gateway.model.message import Address
from gateway.model.records import Scheduled

LOOKED_AT = 256
BEFORE_ALL = -1


def behind(item: Scheduled | None) -> int:
    """Return where a listing goes on behind an item; None: at the beginning."""
    return BEFORE_ALL if item is None else appointment(item.due_ms, min(item.scheduled_id, IDS), SIZES)


def agenda(
    heaps: Sequence[list[int]], addresses: Mapping[int, Address], vhost: str | None, after: int = BEFORE_ALL
) -> Iterator[Scheduled | None]:
    """Yield what is scheduled, by time, then by id; None now and then, where there is much that is not asked for.

    Args:
        heaps: of appointments; they must not change meanwhile.
        addresses: by id; what is not there (any more) is passed over.
        vhost: only this virtual host's; None: those of all.
        after: `behind` the item to go on with.

    Cost: what comes before `after`, and what is yielded or passed over.
    """
    keys = merge(*(_in_order(heap, after) for heap in heaps))
    for looked_at, key in enumerate(keys, 1):
        scheduled_id = id_of(key)
        address = addresses.get(scheduled_id)
        if address is not None and vhost in (None, address.vhost):
            where = (address.vhost, address.exchange, address.routing_key)
            yield Scheduled(scheduled_id, due_of(key), *where, body_bytes=size_of(key))
        elif looked_at % LOOKED_AT == 0:
            yield None


def _in_order(heap: list[int], after: int) -> Iterator[int]:
    """Yield what is greater than `after`: the least first, then look at the two below it."""
    next_ones: list[tuple[int, int]] = []
    passed = [0]
    while passed:
        index = passed.pop()
        if index < len(heap):
            if heap[index] > after:
                next_ones.append((heap[index], index))
            else:
                passed += (2 * index + 1, 2 * index + 2)
    heapify(next_ones)
    while next_ones:
        key, index = heappop(next_ones)
        yield key
        for below in (2 * index + 1, 2 * index + 2):
            if below < len(heap):
                heappush(next_ones, (heap[below], below))
