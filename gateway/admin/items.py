"""What does one item of a definitions file say, and how is it written?"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from enum import Enum
from typing import Any, TypeAlias, TypeVar

from gateway.engine.definitions.policy import Policy, parse
from gateway.errors import GatewayError, NotSupported, PreconditionFailed
from gateway.journal.definitions import parse_value, value_text
from gateway.model.arguments import QUEUE_ARGUMENTS, RETRY_ARGUMENTS, queue_spec
from gateway.model.declare import DEFAULT_OPTIONS, Binding, BindingOptions, ExchangeSpec, QueueSpec, Retry
from gateway.model.exchange_arguments import exchange_arguments, exchange_spec

Item: TypeAlias = Mapping[str, Any]
T = TypeVar("T")

OWN = "tidegate"
"""Key of an item for what RabbitMQ's format has no word for; RabbitMQ passes over it."""

_KINDS = {str: "text", bool: "true or false", int: "an integer", dict: "an object", list: "a list"}


class Malformed(GatewayError):
    """It is no definitions file; the text begins with the path of what is wrong."""

    code = 406


class Reader:
    """Takes the fields of one item, and complains with its path.

    Args:
        item: an object of the file.
        path: where it is: ``queues[3]``.
        vhost: what it belongs to if it does not say.
    """

    def __init__(self, item: Any, path: str, vhost: str | None = None) -> None:
        if not isinstance(item, dict):
            raise Malformed(f"{path}: an object is allowed here, not {_shown(item)}")
        self._item: dict[str, Any] = item
        self._vhost = vhost
        self.path = path

    def field(self, name: str, kind: type[T], default: T | None = None) -> T:
        """Return a field. Raises Malformed if it is missing (and has no default), or of another kind."""
        value = self._item.get(name, default)
        if value is None:
            raise Malformed(f"{self.path}.{name}: is missing ({_KINDS[kind]})")
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise Malformed(f"{self.path}.{name}: {_KINDS[kind]} is allowed here, not {_shown(value)}")
        return value

    def names(self) -> list[str]:
        """Return the names of its fields."""
        return list(self._item)

    @property
    def vhost(self) -> str:
        """The virtual host that it belongs to."""
        if self._vhost is not None and "vhost" not in self._item:
            return self._vhost
        return self.field("vhost", str)

    def arguments(self) -> dict[str, Any]:
        """Return its arguments, with bytes and times as such. Old files have an empty list for none."""
        if self._item.get("arguments") == []:
            return {}
        given = self.field("arguments", dict, {})
        try:
            read = parse_value(json.dumps(given))
        except ValueError as error:
            raise Malformed(f"{self.path}.arguments: {error}") from error
        return dict(read)

    def own(self) -> Reader | None:
        """Return what only Tidegate writes."""
        return Reader(self._item[OWN], f"{self.path}.{OWN}") if OWN in self._item else None


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004 - a line


def written(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments as JSON says them: bytes and times are tagged."""
    return dict(json.loads(value_text(dict(arguments))))


# -- exchanges ----------------------------------------------------------------


def exchange_item(vhost: str, spec: ExchangeSpec) -> dict[str, Any]:
    """Write an exchange."""
    return {
        "name": spec.name,
        "vhost": vhost,
        "type": spec.type,
        "durable": spec.durable,
        "auto_delete": spec.auto_delete,
        "internal": spec.internal,
        "arguments": written(exchange_arguments(spec)),
    }


def read_exchange(reader: Reader) -> ExchangeSpec:
    """Read an exchange. Raises Malformed; NotSupported, PreconditionFailed: it can't be taken."""
    return exchange_spec(
        reader.field("name", str),
        reader.field("type", str),
        durable=reader.field("durable", bool, True),
        auto_delete=reader.field("auto_delete", bool, False),
        internal=reader.field("internal", bool, False),
        arguments=reader.arguments(),
        unknown="keep",
    )


# -- queues -------------------------------------------------------------------

_ARGUMENT_OF = {attribute: (argument, read) for argument, (attribute, read) in QUEUE_ARGUMENTS.items()}
_RETRY_READ = {attribute: (argument, read) for argument, (attribute, read) in RETRY_ARGUMENTS.items()}
_BY_ITSELF = frozenset(("name", "durable", "exclusive", "auto_delete", "arguments"))


def queue_item(vhost: str, spec: QueueSpec) -> dict[str, Any]:
    """Write a queue: its arguments as they were declared; what they don't say of it in a field of its own."""
    item = {
        "name": spec.name,
        "vhost": vhost,
        "type": "quorum" if spec.arguments.get("x-queue-type") == "quorum" else "classic",
        "durable": spec.durable,
        "auto_delete": spec.auto_delete,
        "arguments": written(spec.arguments),
    }
    own = _beyond_arguments(spec)
    if own:
        item[OWN] = own
    return item


def _beyond_arguments(spec: QueueSpec) -> dict[str, Any]:
    try:
        said = queue_spec(spec.name, arguments=spec.arguments, unknown="keep")
    except GatewayError:
        said = QueueSpec(spec.name)
    names = [each.name for each in fields(QueueSpec) if each.name not in _BY_ITSELF]
    return {name: _plain(getattr(spec, name)) for name in names if getattr(spec, name) != getattr(said, name)}


def _plain(value: object) -> Any:
    if isinstance(value, Retry):
        return {each.name: getattr(value, each.name) for each in fields(Retry)}
    return value.value if isinstance(value, Enum) else value


def read_queue(reader: Reader) -> QueueSpec:
    """Read a queue. Raises as `read_exchange`."""
    if reader.field("exclusive", bool, False):
        raise NotSupported("an exclusive queue goes with its connection: it can't be defined")
    if reader.field("type", str, "classic") == "stream":
        raise NotSupported("queue type 'stream' is not supported")
    spec = queue_spec(
        reader.field("name", str),
        durable=reader.field("durable", bool, True),
        auto_delete=reader.field("auto_delete", bool, False),
        arguments=reader.arguments(),
        unknown="keep",
    )
    own = reader.own()
    if own is None:
        return spec
    return replace(spec, **{name: _own_value(own, name) for name in own.names()})


def _own_value(own: Reader, name: str) -> Any:
    path = f"{own.path}.{name}"
    if name == "keep_transient":
        return own.field(name, bool)
    if name == "retry":
        retry = Reader(own.field(name, dict), path)
        return Retry(
            **{each: _checked(f"{path}.{each}", _RETRY_READ.get(each), retry.field(each, object)) for each in retry.names()}
        )
    return _checked(path, _ARGUMENT_OF.get(name), own.field(name, object))


def _checked(path: str, known: tuple[str, Callable[[str, object], Any]] | None, value: object) -> Any:
    if known is None:
        raise Malformed(f"{path}: is nothing that a queue has")
    try:
        return known[1](known[0], value)
    except PreconditionFailed as error:
        raise Malformed(f"{path}: {error}") from error


# -- bindings -----------------------------------------------------------------

_OPTIONS = {"qos": int, "no_local": bool, "retain_as_published": bool, "subscription_ids": list, "mqtt": bool}


def binding_item(vhost: str, binding: Binding) -> dict[str, Any]:
    """Write a binding."""
    item = {
        "source": binding.source,
        "vhost": vhost,
        "destination": binding.destination,
        "destination_type": "exchange" if binding.to_exchange else "queue",
        "routing_key": binding.key,
        "arguments": written(binding.arguments),
    }
    if binding.options != DEFAULT_OPTIONS:
        item[OWN] = json.loads(binding.options.text())
    return item


def read_binding(reader: Reader) -> Binding:
    """Read a binding. Raises Malformed."""
    kind = reader.field("destination_type", str)
    if kind not in ("queue", "exchange"):
        raise Malformed(f"{reader.path}.destination_type: queue or exchange is allowed here, not {_shown(kind)}")
    own = reader.own()
    return Binding(
        reader.field("source", str),
        reader.field("destination", str),
        reader.field("routing_key", str, ""),
        kind == "exchange",
        reader.arguments(),
        DEFAULT_OPTIONS if own is None else _read_options(own),
    )


def _read_options(own: Reader) -> BindingOptions:
    values: dict[str, Any] = {}
    for name in own.names():
        if name not in _OPTIONS:
            raise Malformed(f"{own.path}.{name}: is nothing that a binding has")
        values[name] = own.field(name, _OPTIONS[name])
    numbers = values.get("subscription_ids", [])
    if not all(isinstance(number, int) and not isinstance(number, bool) and number > 0 for number in numbers):
        raise Malformed(f"{own.path}.subscription_ids: integers from 1 on are allowed here, not {_shown(numbers)}")
    if not 0 <= values.get("qos", 2) <= 2:  # noqa: PLR2004 - MQTT's three
        raise Malformed(f"{own.path}.qos: 0, 1 or 2 is allowed here")
    return BindingOptions(**{**values, "subscription_ids": tuple(numbers)})


# -- policies -----------------------------------------------------------------


def policy_item(vhost: str, policy: Policy) -> dict[str, Any]:
    """Write a policy, or an operator policy as RabbitMQ does: as a parameter."""
    said = json.loads(policy.text())
    if policy.operator:
        return {"vhost": vhost, "component": "operator_policy", "name": policy.name, "value": said}
    return {"vhost": vhost, "name": policy.name, **said}


def read_policy(reader: Reader) -> Policy:
    """Read a policy. Raises Malformed; PreconditionFailed: it can't be taken."""
    said = {name: reader.field(name, object) for name in reader.names() if name not in ("vhost", "name")}
    return parse(reader.field("name", str), said)


def read_operator_policy(reader: Reader) -> Policy:
    """Read the parameter that is an operator policy. Raises as `read_policy`."""
    return parse(reader.field("name", str), reader.field("value", dict), operator=True)
