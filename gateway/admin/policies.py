"""How are definitions and policies asked for, and changed, at a running broker?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import trio

from gateway.admin.definitions import exporting, importing
from gateway.admin.parts import in_slices
from gateway.engine.definitions.policy import Policy, parse
from gateway.engine.engine import Engine

if TYPE_CHECKING:
    from gateway.runtime.broker import Broker


def listed(engine: Engine, vhost: str | None = None) -> list[dict[str, Any]]:
    """Return policies and operator policies, each virtual host's in the order in which they are tried.

    ``queues``: of how many queues it is the one that holds. ``ignored``: keys that have no effect here.
    Cost: the queues times the policies of a virtual host.
    """
    names = sorted(engine.vhosts) if vhost is None else [vhost]
    return [_row(engine, name, policy) for name in names if name in engine.vhosts for policy in engine.policies.listed(name)]


def _row(engine: Engine, vhost: str, policy: Policy) -> dict[str, Any]:
    queues = engine.vhosts[vhost].queues.values()
    return {
        "vhost": vhost,
        "name": policy.name,
        "operator": policy.operator,
        "pattern": policy.pattern,
        "apply-to": policy.apply_to,
        "priority": policy.priority,
        "definition": {**policy.definition},
        "ignored": list(policy.ignored),
        "queues": sum(engine.policies.policy_of(vhost, queue.spec, operator=policy.operator) is policy for queue in queues),
    }


# -- the questions ------------------------------------------------------------


def definitions_export(broker: Broker, params: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the definitions in parts (see `gateway.admin.parts`). Params: `vhost`, may be left out."""
    return exporting(broker.engine, params.get("vhost"))


_MOST_RECORDS = 500
"""An import waits for the journal when so many definitions wait for it: to hand them over takes a few milliseconds."""
_IMPORTS: WeakKeyDictionary[Broker, trio.Lock] = WeakKeyDictionary()


async def definitions_import(broker: Broker, params: dict[str, Any]) -> Iterator[Any]:
    """Take definitions, one file at a time; answered by `Report.plain` when they are on disk.

    Params: `data`, `vhost` (may be left out), `dry_run`. A file that is longer than a question may be comes in parts: `parts` says
    how many lines follow the question, each with a part of the data.
    """
    from gateway.admin.questions import on_disk, taken

    dry_run = taken(params, "dry_run", bool, False)
    data, vhost = taken(params, "data", dict), params.get("vhost")

    async def between() -> None:
        await trio.lowlevel.checkpoint()
        if len(broker.engine.batch.records) > _MOST_RECORDS:
            await on_disk(broker)

    async with _IMPORTS.setdefault(broker, trio.Lock()):
        report = await in_slices(importing(broker.engine, data, vhost=vhost, dry_run=dry_run), between)
    if not dry_run:
        await on_disk(broker)
    return report.plain()


async def policy_list(broker: Broker, params: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the policies. Params: `vhost`, may be left out."""
    return listed(broker.engine, params.get("vhost"))


async def policy_set(broker: Broker, params: dict[str, Any]) -> dict[str, Any]:
    """Set a policy. Params: `vhost`, `name`, `operator`, and `policy` with the fields as RabbitMQ names them."""
    from gateway.admin.questions import on_disk, taken

    vhost, operator = taken(params, "vhost", str, "/"), taken(params, "operator", bool, False)
    policy = parse(taken(params, "name", str), taken(params, "policy", dict), operator=operator)
    broker.alarms.removing(partial(broker.engine.policies.set, vhost, policy))  # it may make room, and is tiny in any case
    await on_disk(broker)
    return _row(broker.engine, vhost, policy)


async def policy_clear(broker: Broker, params: dict[str, Any]) -> None:
    """Delete a policy. Params: `vhost`, `name`, `operator`."""
    from gateway.admin.questions import on_disk, taken

    operator = taken(params, "operator", bool, False)
    vhost, name = taken(params, "vhost", str, "/"), taken(params, "name", str)
    broker.alarms.removing(partial(broker.engine.policies.delete, vhost, name, operator=operator))
    await on_disk(broker)
