"""What is defined in this broker, as RabbitMQ's definitions file says it, and what of such a file can be taken?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway import __version__
from gateway.admin.items import (
    Malformed,
    Reader,
    binding_item,
    exchange_item,
    policy_item,
    queue_item,
    read_binding,
    read_exchange,
    read_operator_policy,
    read_policy,
    read_queue,
)
from gateway.admin.parts import at_once, joined
from gateway.admin.trial import Trial
from gateway.engine.definitions.policy import Policy
from gateway.engine.engine import Engine
from gateway.errors import AccessRefused, CommandInvalid, GatewayError, NotFound, NotSupported, Overloaded, PreconditionFailed
from gateway.model.arguments import unknown_queue_arguments
from gateway.model.declare import Binding, ExchangeSpec, QueueSpec
from gateway.model.exchange_arguments import unknown_exchange_arguments

FORMAT = "3.10.0"
"""The version of RabbitMQ whose format is written; later ones read it too."""

_SAID_OF_IT = frozenset((
    "rabbit_version", "rabbitmq_version", "product_name", "product_version", "rabbitmq_definition_format", "explanation",
    "metadata", "original_vhost_name", "original_cluster_name",
))  # fmt: skip
"""What a file says of itself."""

_NOT_TAKEN = {
    "users": ("user", "users are not kept in definitions: see security.anonymous"),
    "permissions": ("permissions of user", "there are no users to have permissions"),
    "topic_permissions": ("topic permissions of user", "there are no users to have permissions"),
    "global_parameters": ("global parameter", "there are no global parameters"),
}
DEFAULT_VHOST = "/"
APPLIED_AT_ONCE = 200
"""So many definitions take about as long as a slow message may."""
_SECTIONS = ("vhosts", "policies", "parameters", "exchanges", "queues", "bindings", *_NOT_TAKEN)


# -- out ----------------------------------------------------------------------


def export(engine: Engine, vhost: str | None = None) -> dict[str, Any]:
    """Return the definitions of all virtual hosts, or of one, in the form of RabbitMQ's definitions file.

    Exclusive queues, and what is bound to them, and predeclared exchanges are left out. Bytes and times in arguments are
    ``{"$bytes": base64}`` and ``{"$datetime": ISO 8601}``. What that form has no word for is in an item's field ``tidegate``.

    Raises:
        NotFound: there is no such virtual host.
    Cost: all that is defined.
    """
    return joined(exporting(engine, vhost))


def exporting(engine: Engine, vhost: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield `export` in small parts. What is deleted meanwhile is left out. Raises NotFound."""
    if vhost is not None and vhost not in engine.vhosts:
        raise NotFound(f"no vhost {vhost!r}")
    names = sorted(engine.vhosts) if vhost is None else [vhost]
    return _parts(engine, names)


def _parts(engine: Engine, names: list[str]) -> Iterator[dict[str, Any]]:
    policies = [(name, policy) for name in names for policy in engine.policies.listed(name)]
    yield {
        "rabbit_version": FORMAT,
        "rabbitmq_version": FORMAT,
        "product_name": "Tidegate",
        "product_version": __version__,
        "users": [],
        "vhosts": [{"name": name} for name in names],
        "permissions": [],
        "topic_permissions": [],
        "parameters": [policy_item(name, policy) for name, policy in policies if policy.operator],
        "global_parameters": [],
        "policies": [policy_item(name, policy) for name, policy in policies if not policy.operator],
        "queues": [],
        "exchanges": [],
        "bindings": [],
    }
    for name in names:
        yield from ({"queues": [queue_item(name, spec)]} for spec in _queues(engine, name))
        yield from ({"exchanges": [exchange_item(name, spec)]} for spec in _exchanges(engine, name))
        yield from ({"bindings": [binding_item(name, binding)]} for binding in _bindings(engine, name))


def _queues(engine: Engine, vhost: str) -> Iterator[QueueSpec]:
    for _, queue in sorted(engine.vhosts[vhost].queues.items()):
        if queue.owner is None and not queue.spec.exclusive and not queue.deleted:
            yield queue.spec


def _exchanges(engine: Engine, vhost: str) -> Iterator[ExchangeSpec]:
    specs = sorted((exchange.spec for exchange in engine.vhosts[vhost].table), key=lambda spec: spec.name)
    return (spec for spec in specs if spec.name and not spec.name.startswith("amq."))


def _bindings(engine: Engine, vhost: str) -> Iterator[Binding]:
    queues = engine.vhosts[vhost].queues
    exported = {spec.name for spec in _queues(engine, vhost)} if queues else set()
    for exchange in sorted(engine.vhosts[vhost].table, key=lambda exchange: exchange.spec.name):
        for binding in sorted(exchange.bindings.values(), key=Binding.identity):
            if binding.to_exchange or binding.destination in exported:
                yield binding


# -- in -----------------------------------------------------------------------


_COUNTED = {"parameters": "operator policies"}


@dataclass(frozen=True, slots=True)
class Skipped:
    """What was not taken: where it is in the file, what it is, and why."""

    path: str
    what: str
    reason: str


@dataclass(slots=True)
class Report:
    """What an import did, or with `dry_run` would do.

    Args:
        taken: how many of each section.
        skipped: everything else in the file, item by item.
    """

    taken: Counter[str] = field(default_factory=Counter)
    skipped: list[Skipped] = field(default_factory=list)

    def plain(self) -> Iterator[Any]:
        """Yield it as JSON can say it: what was taken, then what was skipped, each."""
        yield dict(self.taken)
        yield from ([one.path, one.what, one.reason] for one in self.skipped)

    def lines(self, *, dry_run: bool = False) -> Iterator[str]:
        """Yield it in words."""
        counted = ", ".join(f"{number} {_COUNTED.get(section, section)}" for section, number in self.taken.items())
        yield f"{'would be taken' if dry_run else 'taken'}: {counted or 'nothing'}"
        for one in self.skipped:
            yield f"not taken: {one.path}: {one.what}: {one.reason}"

    @staticmethod
    def read(plain: Iterable[Any]) -> Report:
        """Read what `plain` yielded."""
        counted, *skipped = plain
        return Report(Counter(counted), [Skipped(*one) for one in skipped])


@dataclass(frozen=True, slots=True)
class _Step:
    """One thing to be defined."""

    section: str
    path: str
    vhost: str
    value: str | Policy | ExchangeSpec | QueueSpec | Binding


def import_(engine: Engine, data: Any, *, vhost: str | None = None, dry_run: bool = False) -> Report:
    """Define what a definitions file says, through the engine's own declarations; what exists and is the same stays as it is.

    All of it, or nothing: what contradicts what exists is found before anything is changed. What can't be taken at all (users,
    streams, unknown types and arguments, ...) is no contradiction: it is in the report, item by item, with the reason.

    Args:
        data: the file, as JSON reads it.
        vhost: where items go that don't name a virtual host (RabbitMQ's files of one virtual host).
        dry_run: change nothing.

    Raises:
        Malformed: it is no definitions file; names the path.
        PreconditionFailed: something contradicts what exists, a line each; or it is more than may be declared. Nothing was changed.
        GatewayError: the journal can't take definitions now.
    Cost: about 50 us per item, in one go.
    """
    return at_once(importing(engine, data, vhost=vhost, dry_run=dry_run))


def importing(engine: Engine, data: Any, *, vhost: str | None = None, dry_run: bool = False) -> Generator[None, None, Report]:
    """Do what `import_` does, and stop often, so that others have their turn.

    Everything is read and checked first, in slices; then a file of few items is applied in one go, a large one in slices. What
    others changed meanwhile so that an item fits no more is in the report.
    """
    report = Report()
    steps: list[_Step] = []
    for step in _steps(data, vhost, report):
        steps.append(step)
        yield
    if engine.refusal is not None and not dry_run:
        raise engine.refusal
    steps = yield from _checked(engine, steps, report)
    for step in steps:
        if dry_run or _applied(engine, step, report):
            report.taken[step.section] += 1
        if len(steps) > APPLIED_AT_ONCE:
            yield
    return report


def _applied(engine: Engine, step: _Step, report: Report) -> bool:
    try:
        _define(engine, step)
    except Overloaded as error:
        taken = f" ({sum(report.taken.values())} definitions were taken; the file can be imported again)" if report.taken else ""
        raise Overloaded(f"{error.text}{taken}") from error
    except GatewayError as error:
        reason = f"it fits no more what was changed while the file was imported: {error.text}"
        report.skipped.append(Skipped(step.path, _named(step), reason))
        return False
    return True


def _steps(data: Any, vhost: str | None, report: Report) -> Iterator[_Step]:
    """Read everything, in the order in which it can be defined; what can't be is told to the report."""
    if not isinstance(data, dict):
        raise Malformed("the file: an object with lists (queues, exchanges, bindings, ...) is allowed here")
    for name in data:
        if name not in _SECTIONS and name not in _SAID_OF_IT:
            report.skipped.append(Skipped(name, f"section {name!r}", "it is no section of a definitions file"))
    for reader in _items(data, "vhosts"):
        yield from _vhost(reader, report)
    yield from _read(data, "exchanges", vhost, read_exchange, report)
    yield from _read(data, "queues", vhost, read_queue, report)
    yield from _read(data, "bindings", vhost, read_binding, report)
    yield from _read(data, "policies", vhost, read_policy, report)
    yield from _parameters(data, vhost, report)
    for section, (what, reason) in _NOT_TAKEN.items():
        for reader in _items(data, section):
            name = reader.field("name" if "name" in reader.names() else "user", str, "?")
            report.skipped.append(Skipped(reader.path, f"{what} {name!r}", reason))


def _items(data: dict[str, Any], section: str, vhost: str | None = None) -> Iterator[Reader]:
    items = data.get(section, [])
    if not isinstance(items, list):
        raise Malformed(f"{section}: a list is allowed here")
    return (Reader(item, f"{section}[{index}]", vhost) for index, item in enumerate(items))


def _vhost(reader: Reader, report: Report) -> Iterator[_Step]:
    name = reader.field("name", str)
    for key in reader.names():
        value = reader.field(key, object, False)
        if key == "metadata" and isinstance(value, dict) and not any(value.values()):
            continue
        if key not in ("name", "tracing") and value:
            report.skipped.append(Skipped(f"{reader.path}.{key}", f"{key} of vhost {name!r}", "a virtual host has a name only"))
    yield _Step("vhosts", reader.path, name, name)


def _read(data: dict[str, Any], section: str, vhost: str | None, read: Callable[[Reader], Any], report: Report) -> Iterator[_Step]:
    for reader in _items(data, section, vhost):
        yield from _one(section, reader, read, report)


def _one(section: str, reader: Reader, read: Callable[[Reader], Any], report: Report) -> Iterator[_Step]:
    try:
        value = read(reader)
    except (NotSupported, PreconditionFailed) as error:
        what = f"{_SINGULAR[section]} {reader.field('name', str)!r}"
        report.skipped.append(Skipped(reader.path, f"{what} of vhost {reader.vhost!r}", error.text))
        return
    part, keys = _without_effect(value)
    for key in keys:
        what = f"key {key!r} of {_SINGULAR[section]} {value.name!r}"
        report.skipped.append(Skipped(f"{reader.path}.{part}.{key}", what, "it is kept, and has no effect here"))
    yield _Step(section, reader.path, reader.vhost, value)


def _without_effect(value: str | Policy | ExchangeSpec | QueueSpec | Binding) -> tuple[str, Sequence[str]]:
    """Return which part of an item has keys that nobody knows, and which they are."""
    match value:
        case Policy():
            return "definition", list(value.ignored)
        case QueueSpec():
            return "arguments", unknown_queue_arguments(value.arguments)
        case ExchangeSpec():
            return "arguments", unknown_exchange_arguments(value.arguments)
    return "", ()


_SINGULAR = {
    "exchanges": "exchange", "queues": "queue", "bindings": "binding", "policies": "policy", "parameters": "operator policy",
}  # fmt: skip


def _parameters(data: dict[str, Any], vhost: str | None, report: Report) -> Iterator[_Step]:
    for reader in _items(data, "parameters", vhost):
        component = reader.field("component", str)
        if component == "operator_policy":
            yield from _one("parameters", reader, read_operator_policy, report)
        else:
            what = f"{component} {reader.field('name', str, '?')!r} of vhost {reader.vhost!r}"
            report.skipped.append(Skipped(reader.path, what, f"there is no {component} here"))


# -- checking before anything is changed --------------------------------------


def _checked(engine: Engine, steps: list[_Step], report: Report) -> Generator[None, None, list[_Step]]:
    """Define everything in an engine that has nothing but what the steps name of the real one; return what can be defined.

    Raises:
        PreconditionFailed: contradictions, a line each.
    """
    trial = Trial(engine)
    new = trial.new
    possible: list[_Step] = []
    conflicts: list[str] = []
    for step in steps:
        yield
        try:
            existed = trial.prepare(step.vhost, step.value)
            _define(trial.engine, step)
        except (NotFound, AccessRefused, NotSupported, CommandInvalid) as error:
            report.skipped.append(Skipped(step.path, _named(step), error.text))
        except PreconditionFailed as error:
            if existed:
                conflicts.append(f"{step.path}: {error}")
            else:
                report.skipped.append(Skipped(step.path, _named(step), error.text))
        except GatewayError as error:
            conflicts.append(f"{step.path}: {error}")
        else:
            possible.append(step)
    if conflicts:
        raise PreconditionFailed("nothing was imported, as this contradicts what exists:\n" + "\n".join(conflicts))
    engine.definitions.bounds.check_room(new.exchanges, new.queues, new.bindings)
    yield from trial.dismantle()
    return possible


def _named(step: _Step) -> str:
    match step.value:
        case Binding(source=source, destination=destination, key=key):
            return f"binding from {source!r} to {destination!r} by {key!r} of vhost {step.vhost!r}"
        case str():
            return f"vhost {step.value!r}"
        case value:
            return f"{_SINGULAR[step.section]} {value.name!r} of vhost {step.vhost!r}"


def _define(engine: Engine, step: _Step) -> None:
    definitions = engine.definitions
    match step.value:
        case str():
            definitions.define_vhost(step.value)
        case Policy() as policy:
            if engine.policies.find(step.vhost, policy.name, operator=policy.operator) != policy:
                engine.policies.set(step.vhost, policy)
        case ExchangeSpec() as exchange:
            definitions.declare_exchange(step.vhost, exchange)
        case QueueSpec() as queue:
            _check_named(queue)
            definitions.declare_queue(step.vhost, queue, None)
        case binding:
            definitions.bind(step.vhost, binding, None)


def _check_named(queue: QueueSpec) -> None:
    if not queue.name:
        raise NotSupported("a queue in a definitions file has a name")
