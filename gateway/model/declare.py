"""What can be declared: exchanges, queues, bindings?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from gateway.errors import NotSupported, PreconditionFailed


class Overflow(Enum):
    """What a full queue does with the next message.

    It drops its oldest one, refuses the new one, or ends: it is deleted with all that it holds and its consumers are
    cancelled, so that nobody waits for a reader that does not keep up.
    """

    DROP_HEAD = "drop-head"
    REJECT_PUBLISH = "reject-publish"
    END_QUEUE = "end-queue"


@dataclass(frozen=True, slots=True)
class ExchangeSpec:
    """An exchange as declared.

    Args:
        name: at most 255 bytes; names that begin with ``amq.`` are predeclared only.
        type: the name of an exchange type: direct, fanout, topic, headers, or a plugin's.
        durable: it is in the journal.
        auto_delete: it goes with its last binding.
        internal: clients can't publish to it.
        alternate: the exchange that gets what this one can't route.
        arguments: what else the client said, kept for equivalence checks.
    """

    name: str
    type: str = "direct"
    durable: bool = True
    auto_delete: bool = False
    internal: bool = False
    alternate: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """A queue as declared.

    Args:
        name: at most 255 bytes; empty: the engine chooses ``amq.gen-...``.
        durable: it and its persistent messages are in the journal.
        exclusive: only its owner's channels may use it; it goes with the owner.
        auto_delete: it goes with its last consumer.
        max_length: messages, ready and unacked; 0: no limit.
        max_length_bytes: bytes of bodies, ready and unacked; 0: no limit.
        overflow: what a full queue does.
        keep_transient: False: what needs no acknowledgement (a non-persistent message, or one granted QoS 0)
            is handed to the consumer at once or dropped and counted; it never waits (MQTT sessions).
        arguments: what else the client said, kept for equivalence checks.
    """

    name: str = ""
    durable: bool = True
    exclusive: bool = False
    auto_delete: bool = False
    max_length: int = 0
    max_length_bytes: int = 0
    overflow: Overflow = Overflow.DROP_HEAD
    keep_transient: bool = True
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BindingOptions:
    """What a binding says beyond its key, and what an entry knows of the bindings that brought it.

    Args:
        qos: the granted maximum (MQTT); 0 means at most once for this queue, whatever the message is.
        no_local: not to the publisher's own queue (MQTT 5.0 §3.8.3.1).
        retain_as_published: keep the retain flag (MQTT 5.0 §3.8.3.1).
        subscription_ids: MQTT 5.0 §3.8.2.1.2; of all matching bindings, in order.
        mqtt: a leading wildcard does not match a first level that begins with ``$`` (MQTT 3.1.1 §4.7.2).
    """

    qos: int = 2
    no_local: bool = False
    retain_as_published: bool = False
    subscription_ids: tuple[int, ...] = ()
    mqtt: bool = False

    def merged(self, other: BindingOptions) -> BindingOptions:
        """Return what holds for an entry that both bindings brought: the highest QoS, all identifiers."""
        if self == other:
            return self
        return BindingOptions(
            qos=max(self.qos, other.qos),
            no_local=self.no_local and other.no_local,
            retain_as_published=self.retain_as_published or other.retain_as_published,
            subscription_ids=tuple(dict.fromkeys(self.subscription_ids + other.subscription_ids)),
            mqtt=self.mqtt and other.mqtt,
        )

    def text(self) -> str:
        """Return the canonical JSON of what differs from the default; ``{}`` for the default."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return json.dumps({k: v for k, v in values.items() if v != getattr(DEFAULT_OPTIONS, k)}, separators=(",", ":"))

    @staticmethod
    def parse(text: str) -> BindingOptions:
        """Read what `text` wrote."""
        values = json.loads(text)
        values["subscription_ids"] = tuple(values.get("subscription_ids", ()))
        return BindingOptions(**values)


DEFAULT_OPTIONS = BindingOptions()


@dataclass(frozen=True, slots=True)
class Binding:
    """A binding from an exchange to a queue or to another exchange.

    Args:
        source: name of the exchange.
        destination: name of the queue or exchange.
        key: binding key; on topic exchanges a pattern.
        to_exchange: the destination is an exchange.
        arguments: for headers exchanges the headers to match and ``x-match``. Part of the identity.
        options: not part of the identity: binding again replaces them.
    """

    source: str
    destination: str
    key: str = ""
    to_exchange: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    options: BindingOptions = DEFAULT_OPTIONS

    def identity(self) -> tuple[str, bool, str, str, str]:
        """Return what makes two bindings the same one."""
        return (self.source, self.to_exchange, self.destination, self.key, arguments_text(self.arguments))


def arguments_text(arguments: Mapping[str, Any]) -> str:
    """Return arguments as canonical JSON: equal text means equivalent arguments."""
    return json.dumps(arguments, sort_keys=True, separators=(",", ":"), default=str)


_QUEUE_ARGUMENTS = {"x-max-length": "max_length", "x-max-length-bytes": "max_length_bytes", "x-overflow": "overflow"}


def queue_spec(
    name: str,
    *,
    durable: bool = True,
    exclusive: bool = False,
    auto_delete: bool = False,
    arguments: Mapping[str, Any] | None = None,
) -> QueueSpec:
    """Make a queue specification from AMQP-style arguments (``x-max-length`` ...).

    Raises:
        NotSupported: an ``x-`` argument that this engine can't honour: it is never ignored in silence.
        PreconditionFailed: a value that the argument can't have.
    """
    given = dict(arguments or {})
    values: dict[str, Any] = {}
    for key, value in given.items():
        attribute = _QUEUE_ARGUMENTS.get(key)
        if attribute is None:
            if key.startswith("x-"):
                raise NotSupported(f"queue argument {key!r} is not supported; supported: {', '.join(sorted(_QUEUE_ARGUMENTS))}")
            continue
        values[attribute] = _overflow(value) if attribute == "overflow" else _limit(key, value)
    return QueueSpec(name, durable, exclusive, auto_delete, arguments=given, **values)


def _limit(key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise PreconditionFailed(f"queue argument {key!r} must be an integer of at least 0, not {value!r}")
    return value


def _overflow(value: object) -> Overflow:
    allowed = [overflow.value for overflow in Overflow]
    if value not in allowed:
        raise PreconditionFailed(f"queue argument 'x-overflow' must be one of {', '.join(allowed)}, not {value!r}")
    return Overflow(value)
