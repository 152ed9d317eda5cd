"""Which questions does a running broker answer?"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from fnmatch import translate
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from gateway.admin.policies import definitions_export, definitions_import, policy_clear, policy_list, policy_set
from gateway.api.channel import Channel
from gateway.api.frontend import Gateway, Principal
from gateway.errors import NotFound, PreconditionFailed
from gateway.model.records import Scheduled
from gateway.runtime.broker import Broker
from gateway.version import version_line

if TYPE_CHECKING:
    from gateway.engine.queues.queue import Queue

Question: TypeAlias = Callable[[Broker, dict[str, Any]], Any]
"""``(broker, params) -> answer``, in what JSON can say; or an awaitable of it (what changes something answers when that is on
disk); or an iterator of the items of a list, which is worked on in slices of 2 ms: it may yield PAUSE where it has no item yet.
What is said to be no goes out as GatewayError; `taken` reads the params."""

T = TypeVar("T", str, int, bool, dict[str, Any])

PAUSE = object()
"""An iterator yields this if it has looked at much and found nothing."""
_LOOKED_AT = 256
_MAX_PATTERN_BYTES = 4096

_NAMES = {str: "text", int: "an integer", bool: "true or false", dict: "an object"}
_ADMINISTRATOR = "tidegate-admin"


def taken(params: dict[str, Any], name: str, kind: type[T], default: T | None = None) -> T:
    """Return a parameter.

    Raises:
        PreconditionFailed: it is missing and has no default, or it is of another kind.
    """
    value = params.get(name, default)
    if value is None:
        raise PreconditionFailed(f"the question lacks {name!r} ({_NAMES.get(kind, kind.__name__)})")
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise PreconditionFailed(f"{name!r} must be {_NAMES.get(kind, kind.__name__)}, not {value!r}")
    return value


def open_channel(broker: Broker, vhost: str = "/") -> Channel:
    """Return a channel to change something by: `await channel.outcome(number)` returns when it is on disk. Close it."""
    gateway = _GATEWAYS.get(broker)
    if gateway is None:
        gateway = _GATEWAYS[broker] = broker.gateway("admin", _unheard, broker.log)
    return gateway.open_channel(gateway.enter(Principal(_ADMINISTRATOR), vhost))


def _unheard(line: str) -> None:
    pass


_GATEWAYS: WeakKeyDictionary[Broker, Gateway] = WeakKeyDictionary()


async def on_disk(broker: Broker) -> None:
    """Return when everything that was changed before is on disk.

    Raises:
        GatewayError: the journal can't be written.
    """
    channel = open_channel(broker)
    try:
        await channel.outcome(channel.barrier())
    finally:
        channel.close()


# -- the questions --------------------------------------------------------


def hello(broker: Broker, params: dict[str, Any]) -> dict[str, Any]:
    """Say who answers, and which alarms there are."""
    return {
        "version": version_line(),
        "pid": os.getpid(),
        "node": broker.node_id,
        "now_ms": broker.clock.now_ms(),
        "durability": broker.journal.durability,
        "questions": sorted(QUESTIONS),
        "alarms": alarms(broker),
    }


def alarms(broker: Broker) -> list[str]:
    """Return why publishers are held back or refused now, a line each."""
    lines = list(broker.alarms.causes)
    if broker.flow.holding:
        lines.append("publishers are held back until the journal has caught up")
    return lines


def counters(broker: Broker, params: dict[str, Any]) -> dict[str, float]:
    """Return what was counted since the start, by name; what the journal counts begins with ``journal.``."""
    return {**broker.counters, **{f"journal.{name}": value for name, value in broker.journal.counters.told().items()}}


def queues(broker: Broker, params: dict[str, Any]) -> Iterator[Any]:
    """Yield a row per queue. Params: `vhost`, `pattern` (shell's, on names); both may be left out."""
    only = taken(params, "vhost", str, "")
    pattern = taken(params, "pattern", str, "*")
    if len(pattern.encode("utf-8", "surrogatepass")) > _MAX_PATTERN_BYTES:
        raise PreconditionFailed(f"'pattern' has at most {_MAX_PATTERN_BYTES} bytes")
    matches = re.compile(translate(pattern)).match
    vhosts = [vhost for name, vhost in broker.engine.vhosts.items() if not only or name == only]
    return _rows(broker, [list(vhost.queues.values()) for vhost in vhosts], matches)


def _rows(broker: Broker, lists: list[list[Queue]], matches: Callable[[str], Any]) -> Iterator[Any]:
    looked_at = 0
    for found in lists:
        for queue in found:
            looked_at += 1
            if not queue.deleted and matches(queue.name):
                yield _row(broker, queue)
            elif looked_at % _LOOKED_AT == 0:
                yield PAUSE


def _row(broker: Broker, queue: Queue) -> dict[str, Any]:
    """Return what a queue has now. ``given``: positions that it ever gave, so that who asks twice knows the rates."""
    ready = queue.ready_count
    policy = broker.engine.policies.policy_of(queue.vhost, queue.spec)
    return {
        "vhost": queue.vhost,
        "name": queue.name,
        "id": queue.id,
        "durable": queue.durable,
        "ready": ready,
        "unacked": queue.count - ready,
        "bytes": queue.body_bytes,
        "consumers": len(queue.consumers),
        "given": queue.next_position - 1,
        "state": _state(queue),
        "policy": policy.name if policy is not None else "",
    }


def _state(queue: Queue) -> str:
    """Say in a word why a queue gives nothing, or takes nothing, if there is a reason."""
    if queue.is_full_for(0):
        return "full"
    if queue.consumers and not queue.able and queue.ready_count:
        return "consumers busy"
    return "exclusive" if queue.spec.exclusive else "running"


# -- scheduled messages -------------------------------------------------------


def scheduled(broker: Broker, params: dict[str, Any]) -> Iterator[Any]:
    """Yield the scheduled messages, by time, then by id.

    Params: `vhost`; without it those of all. `limit`: so many at most. `after_due_ms` and `after_id`: go on behind that one.
    """
    limit = taken(params, "limit", int, 0)
    after = Scheduled(taken(params, "after_id", int, 0), taken(params, "after_due_ms", int, 0), "", "", "", 0)
    told = 0
    for item in broker.engine.schedule.listed(taken(params, "vhost", str, "") or None, after):
        yield PAUSE if item is None else asdict(item)
        told += item is not None
        if told == limit > 0:
            return


async def cancel_scheduled(broker: Broker, params: dict[str, Any]) -> str:
    """Forget a scheduled message: `id`, and `vhost` if it isn't the one where it is. Return its virtual host."""
    scheduled_id = taken(params, "id", int)
    only = taken(params, "vhost", str, "")
    for name in [only] if only else list(broker.engine.vhosts):
        try:
            await changed(broker, name, lambda channel: channel.cancel_scheduled(scheduled_id))
        except NotFound:
            continue
        return name
    raise NotFound(f"there is no scheduled message {scheduled_id}: it was published or cancelled, or never was")


async def changed(broker: Broker, vhost: str, call: Callable[[Channel], int]) -> Any:
    """Have a channel change something; return the result when it is on disk. Raises GatewayError."""
    channel = open_channel(broker, vhost)
    try:
        return (await channel.outcome(call(channel))).result
    finally:
        channel.close()


QUESTIONS: dict[str, Question] = {
    "hello": hello,
    "counters": counters,
    "queues": queues,
    "scheduled": scheduled,
    "cancel_scheduled": cancel_scheduled,
    "definitions_export": definitions_export,
    "definitions_import": definitions_import,
    "policy_list": policy_list,
    "policy_set": policy_set,
    "policy_clear": policy_clear,
}
"""By name. Whoever has another question to add imports this, or adds it here."""
