"""Do a broker's counters equal what its structures, and its journal, contain?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set as AbstractSet
from typing import Any

from gateway.engine.queues.consumer import UNLIMITED
from gateway.engine.queues.lane import ENTRY_COST_BYTES, PAGE_SHARE
from gateway.engine.queues.line import SingleActive
from tests.simulation.disk import batch_bytes
from tests.simulation.ledger import Wrong

NOBODY: frozenset[tuple[int, int]] = frozenset()
SLACK_BYTES = 10_000
"""A few messages more than there is room for: limits are looked at when they are passed."""


def check_counters(broker: Any, known: dict[Any, Any]) -> None:
    """Compare numbers. Cost: what channels hold, and what is in memory of queues that have changed.

    Args:
        known: from one call to the next: the numbers of each queue.
    """
    engine = broker.engine
    held: dict[Any, set[tuple[int, int]]] = {}
    held_bytes: Counter[object] = Counter()
    for entries in engine.holdings.values():
        for entry in entries:
            queue = entry.queue
            if entry.settled:  # its lease has ended, or its queue is gone, and the holder does not know
                lapsed = entry.consumer is not None and entry.consumer.lapsed
                _demand(queue.deleted or lapsed, f"{queue.name}: a settled entry is still held")
                continue
            places = held.setdefault(queue, set())
            place = (entry.queue_id, entry.position)
            _demand(place not in places, f"{queue.name}: position {entry.position} has two holders that may settle it")
            places.add(place)
            held_bytes[queue] += len(entry.message.body)
    for vhost in engine.vhosts.values():
        for queue in vhost.queues.values():
            numbers = _numbers(queue, held.get(queue, NOBODY))
            if known.get(queue) != numbers:
                known[queue] = numbers
                _check_queue(broker, queue, held.get(queue, NOBODY), held_bytes[queue])
            _check_turns(queue)
    batch = engine.batch
    live = sum([message.live > 0 for message in batch.messages])
    _demand(batch.unsettled == live, f"the open batch says {batch.unsettled} unsettled, it has {live}")


def _numbers(queue: Any, held: AbstractSet[tuple[int, int]]) -> tuple[Any, ...]:
    """Return what can't all stay the same when something happens to a queue."""
    lanes = [len(lane.ready or ()) for lane in queue.lanes]
    returning = queue.returns is not None and (len(queue.returns), len(queue.returns._asleep))
    return queue.count, queue.body_bytes, queue.window_bytes, queue.next_position, queue.paged, lanes, returning, set(held)


def _check_queue(broker: Any, queue: Any, held: AbstractSet[tuple[int, int]], held_bytes: int) -> None:
    away = _away(queue)
    ready = sum(map(len, queue.lanes))
    _demand(queue.ready_count == ready + len(away), f"{queue.name}: ready_count is {queue.ready_count}, not {ready} + {len(away)}")
    _demand(
        queue.count == ready + len(held) + len(away),
        f"{queue.name}: count is {queue.count}, but {ready} are ready, {len(held)} held, and {len(away)} wait to come back",
    )
    for entry in [*queue.ready, *away] if held else ():
        place = (entry.queue_id, entry.position)
        _demand(place not in held, f"{queue.name}: position {entry.position} is held, and ready too")
    _check_window(queue)
    if queue.durable:
        _check_memory(broker, queue)
    _check_bytes(broker, queue, held_bytes)


def _away(queue: Any) -> dict[Any, int]:
    """Return what came back and is not ready again: entry -> bytes of its body, be it in memory or not."""
    returns = queue.returns
    if returns is None:
        return {}
    return {entry: returns._asleep.get(entry, len(entry.message.body)) for entry in returns._members}


def _check_window(queue: Any) -> None:
    cost = sum(len(entry.message.body) + ENTRY_COST_BYTES for lane in queue.lanes for entry in lane.ready or ())
    _demand(queue.window_bytes == cost, f"{queue.name}: window_bytes is {queue.window_bytes}, its entries cost {cost}")
    paged = sum(lane.backlog is not None for lane in queue.lanes)
    paged += queue.returns is not None and bool(queue.returns._overdue)
    _demand(queue.paged == paged, f"{queue.name}: paged is {queue.paged}, {paged} lanes are")
    for lane in queue.lanes:
        positions = [entry.position for entry in lane.ready or ()]
        _demand(positions == sorted(set(positions)), f"{queue.name}: its entries are not in the order of positions")


def _check_turns(queue: Any) -> None:
    for consumer in queue.able:
        _demand(consumer.in_turn and consumer.able, f"{queue.name}: a consumer has turns that can't take any")
    _demand(len(set(map(id, queue.able))) == len(queue.able), f"{queue.name}: a consumer has two turns")
    for consumer in queue.consumers:
        _demand(0 <= consumer.credit_left <= UNLIMITED, f"{queue.name}: a consumer has a credit of {consumer.credit_left}")
    able = [consumer for consumer in queue.consumers if consumer.able]
    if isinstance(queue.line, SingleActive):
        _demand(queue.line.active in queue.consumers or not queue.consumers, f"{queue.name}: no consumer is the active one")
        able = [consumer for consumer in able if consumer is queue.line.active]
    elif able:
        most = max(consumer.priority for consumer in able)
        able = [consumer for consumer in able if consumer.priority == most]
    _demand(set(able) == set(queue.able), f"{queue.name}: others have turns than should")
    first = next((lane for lane in reversed(queue.lanes) if lane.occupied), None)  # what is on disk only is waited for
    _demand(not (able and first and first.ready), f"{queue.name}: something is ready, and somebody could take it")


def _check_memory(broker: Any, queue: Any) -> None:
    """Bodies that are on disk and were never handed out are in memory as far as the window has room, and pages.

    What had to wait for the disk while nothing else was there came into the window all at once: two batches at most.
    """
    budget = broker.engine.window_budget
    batch = max(broker.journal.most_bytes, batch_bytes(broker.engine.batch))
    ready = [entry for lane in queue.lanes for entry in lane.ready or () if entry.segment is not None and not entry.count]
    cost = sum(len(entry.message.body) for entry in ready)
    most = budget + (len(queue.lanes) + 1) * (budget // PAGE_SHARE) + 2 * batch + SLACK_BYTES
    _demand(cost <= most, f"{queue.name}: {cost} bytes that are on disk are in memory, too: at most {most} are allowed")
    if queue.returns is not None:
        asleep, young = queue.returns._asleep, {*queue.returns._fresh, *queue.returns._writing}
        awake = [
            entry for entry in queue.returns._members if entry not in asleep and entry not in young and entry.segment is not None
        ]
        cost = sum(map(_cost, awake))
        _demand(cost <= budget // 2 + SLACK_BYTES, f"{queue.name}: {cost} bytes of what waits to come back are in memory")


def _cost(entry: Any) -> int:
    return len(entry.message.body) + ENTRY_COST_BYTES


def _check_bytes(broker: Any, queue: Any, held_bytes: int) -> None:
    """Bodies in memory are counted here; where some are on disk only, the journal is asked when it is quiet."""
    if queue.paged:
        return
    size = (
        held_bytes + sum(_away(queue).values()) + sum(len(entry.message.body) for lane in queue.lanes for entry in lane.ready or ())
    )
    _demand(queue.body_bytes == size, f"{queue.name}: body_bytes is {queue.body_bytes}, its bodies have {size}")


def is_quiet(broker: Any) -> bool:
    """All that the engine said is on disk, and nothing is about to be said."""
    engine = broker.engine
    batch = engine.batch
    busy = broker.committer.commit_since or broker.committer.failing or batch.messages or batch.settled or batch.records
    return not (busy or batch.deferred or engine.dead or engine.burial.limbo or broker.journal.spindle.under_way)


def check_journal(broker: Any) -> None:
    """Compare every durable queue with what the journal has for it; to be called when all is quiet."""
    engine = broker.engine
    for lane in engine.queues_by_id.values():
        queue = lane.queue
        depth = broker.journal.depth(lane.id)
        mine = {entry.position for entry in lane.ready or () if entry.segment is not None}
        mine |= {entry.position for held in engine.holdings.values() for entry in held if _is_of(entry, lane)}
        mine |= {entry.position for entry in _away(queue) if entry.queue_id == lane.id and entry.segment is not None}
        on_disk = lane.backlog.on_disk if lane.backlog is not None else 0
        _demand(mine <= set(depth), f"{queue.name}: positions {sorted(mine - set(depth))[:5]} are not in the journal")
        _demand(
            len(depth) == len(mine) + on_disk,
            f"{queue.name}: the journal has {len(depth)}, memory {len(mine)}, and {on_disk} are said to be on disk only",
        )
        if queue.paged and queue.turns is None:
            _check_paged_bytes(engine, queue, lane, depth)


def _is_of(entry: Any, lane: Any) -> bool:
    return entry.queue is lane.queue and entry.queue_id == lane.id and entry.segment is not None and not entry.settled


def _check_paged_bytes(engine: Any, queue: Any, lane: Any, depth: dict[int, int]) -> None:
    transient = [entry for entry in lane.ready or () if entry.segment is None]
    held = [entry for entries in engine.holdings.values() for entry in entries if entry.queue is queue and not entry.settled]
    transient += [entry for entry in held if entry.segment is None]
    transient += [entry for entry in _away(queue) if entry.segment is None]
    transient += lane.backlog.transient if lane.backlog is not None else ()
    size = sum(depth.values()) + sum(len(entry.message.body) for entry in transient)
    _demand(queue.body_bytes == size, f"{queue.name}: body_bytes is {queue.body_bytes}, journal and memory have {size}")


def _demand(holds: object, what: str) -> None:
    if not holds:
        raise Wrong(what)
