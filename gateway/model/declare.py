"""What can be declared: exchanges, queues, bindings?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from itertools import chain
from typing import Any


class Overflow(Enum):
    """What a full queue does with the next message.

    It drops (dead-letters) its oldest one, refuses the new one (and dead-letters it), or ends: it is deleted with all that it
    holds and its consumers are cancelled, so that nobody waits for a reader that does not keep up.
    """

    DROP_HEAD = "drop-head"
    REJECT_PUBLISH = "reject-publish"
    REJECT_PUBLISH_DLX = "reject-publish-dlx"
    END_QUEUE = "end-queue"


NEVER = -1
"""A time to live that does not end."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How long a message that came back waits before it is delivered again.

    The n-th return waits ``min(first_ms * factor ** (n - 1), most_ms)``; the one after the last attempt is dead-lettered.

    Args:
        first_ms: the first delay.
        factor: at least 1.
        most_ms: no delay is longer.
        attempts: how many returns are delivered again; 0: no limit.
    """

    first_ms: int
    factor: float = 2.0
    most_ms: int = 3_600_000
    attempts: int = 0

    def delay_ms(self, returns: int) -> int:
        """Return the delay after so many returns (1, 2, ...)."""
        exponent = min(returns - 1, 64)
        return int(min(self.first_ms * self.factor**exponent, self.most_ms))


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
        message_ttl_ms: how long a message may wait; 0: it is delivered at once or not at all; NEVER: no limit.
        expires_ms: the queue goes when it was not used (no consumer, no get, not declared again) for so long; 0: never.
        max_priority: 0 to 255; messages of a higher priority count as of this one. 0: priorities mean nothing here.
        priority_burst: after so many deliveries in a row past a waiting message of lower priority that one has its turn.
        dead_letter_exchange: where goes what expires, is rejected, dropped, or came back too often; None: nowhere.
        dead_letter_routing_key: with this key; None: its own.
        delivery_limit: how often a message may come back; the next return dead-letters it. NEVER: no limit.
        single_active_consumer: one consumer gets everything; the next in line takes over when it goes.
        consumer_timeout_ms: a delivery that is not settled (or extended) for so long comes back; 0: never.
        retry: a delay before what came back is delivered again; None: at once.
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
    message_ttl_ms: int = NEVER
    expires_ms: int = 0
    max_priority: int = 0
    priority_burst: int = 64
    dead_letter_exchange: str | None = None
    dead_letter_routing_key: str | None = None
    delivery_limit: int = NEVER
    single_active_consumer: bool = False
    consumer_timeout_ms: int = 0
    retry: Retry | None = None
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

    def merged_with(self, others: list[BindingOptions]) -> BindingOptions:
        """Return what holds for an entry that all these bindings brought, as `merged` would one by one. Cost: their identifiers."""
        ids = dict.fromkeys(self.subscription_ids)
        ids.update(dict.fromkeys(chain.from_iterable([other.subscription_ids for other in others])))
        return BindingOptions(
            qos=max(self.qos, *[other.qos for other in others]),
            no_local=self.no_local and all(other.no_local for other in others),
            retain_as_published=self.retain_as_published or any(other.retain_as_published for other in others),
            subscription_ids=tuple(ids),
            mqtt=self.mqtt and all(other.mqtt for other in others),
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
    return json.dumps(arguments, sort_keys=True, separators=(",", ":"), default=str) if arguments else "{}"
