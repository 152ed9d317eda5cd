"""What becomes of a message that a queue gives up: which message goes on, and when does it go in a circle?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import msgspec

from gateway.model.message import Address, Message
from gateway.model.names import MAX_KEY_WORDS, MAX_KEYS
from gateway.model.properties import COMMON, NO_PROPERTIES, Properties, encode_properties

DEATHS = "x-death"
"""Header: what happened to a message, newest first; a list of maps, one for each queue and reason.

The fields are RabbitMQ's: ``count`` (how often), ``reason``, ``queue``, ``time`` (of the first time: an integer, seconds since
1970, as `Properties.timestamp_s`; AMQP 0-9-1 writes it as a field of type ``T``), ``exchange`` and ``routing-keys`` (where it had
been published), ``original-expiration`` (text: ms, if it had one). One more tells how often the queue had delivered it, if it
had: ``delivery-count``. All of that can be said in msgpack and in JSON.
"""

FIRST = "x-first-death-"
LAST = "x-last-death-"

_MOST = 2**63 - 1
_REST = "CC"
_BLIND = "BCC"


class Reason(Enum):
    """Why a queue gave a message up."""

    EXPIRED = "expired"
    REJECTED = "rejected"
    MAXLEN = "maxlen"
    DELIVERY_LIMIT = "delivery_limit"


def readable(message: Message, decode: Callable[[Message], Properties]) -> Properties:
    """Return a message's properties; none if they can't be decoded: a dead letter must not be lost for that."""
    try:
        return decode(message)
    except Exception:  # an edge: a front-end's decoder
        return NO_PROPERTIES


def dead_letter(  # noqa: PLR0913 - what happened, and where to
    message: Message,
    properties: Properties,
    queue: str,
    reason: Reason,
    *,
    now_ms: int,
    count: int,
    exchange: str,
    routing_key: str | None,
) -> Message:
    """Return the message to be published in place of one that a queue gave up.

    Its body, persistence, priority and publisher are the old one's. Its properties are in the common form, with all that they
    said but the expiration (it would expire again), and with its history (`DEATHS`, `FIRST`, `LAST`) in the headers.

    Args:
        message: as it was in the queue.
        properties: its properties (see `readable`).
        queue: the name of the queue that gives it up.
        reason: why.
        now_ms: wall time.
        count: how often that queue has delivered it; 0: never, or not known.
        exchange: where dead letters of that queue go.
        routing_key: with which key; None: its own.
    """
    headers = dict(properties.headers or {})
    death = _death(message, properties, queue, reason, now_ms)
    if count > 0:
        death["delivery-count"] = count
    _record(headers, death)
    if isinstance(headers.get(_BLIND), list):
        del headers[_BLIND]
    if routing_key is not None and isinstance(headers.get(_REST), list):
        del headers[_REST]
    key = message.routing_key if routing_key is None else routing_key
    wire = encoded(msgspec.structs.replace(properties, headers=headers, expiration_ms=None))
    address = Address(message.address.vhost, exchange, key)
    return Message(address, message.body, message.persistent, COMMON, wire, message.priority, 0)


def further_keys(properties: Properties) -> tuple[str, ...]:
    """Return with which keys a dead letter goes on beside its own: those with which its message came, too (header ``CC``).

    Not more and no longer ones than `Channel.route` allows: anybody may write the header, by any protocol.
    """
    rest = (properties.headers or {}).get(_REST)
    if not isinstance(rest, list):
        return ()
    keys = (key for key in rest[: MAX_KEYS - 1] if isinstance(key, str) and key.count(".") < MAX_KEY_WORDS)
    return tuple(dict.fromkeys(keys))


def forms_cycle(properties: Properties, queue: str) -> bool:
    """Say whether a dead letter that comes (back) to `queue` has gone in a circle without anybody having rejected it.

    Such a message is dropped: nothing would ever take it out of the circle. A map of the history that is none, or has no sense,
    was written by a client: then the circle was not made by queues alone.

    Args:
        properties: of the dead letter itself: its newest death is the one that sends it to `queue`.
        queue: one that it is routed to.
    """
    for death in _deaths(properties.headers or {}):
        if not isinstance(death, Mapping) or death.get("reason") == Reason.REJECTED.value:
            return False
        if death.get("queue") == queue:
            return True
    return False


def _deaths(headers: Mapping[str, Any]) -> list[Any]:
    """Return the history; whatever is no list is none."""
    deaths = headers.get(DEATHS)
    return list(deaths) if isinstance(deaths, list | tuple) else []


def _death(message: Message, properties: Properties, queue: str, reason: Reason, now_ms: int) -> dict[str, Any]:
    rest = (properties.headers or {}).get(_REST)
    keys = [message.routing_key, *(key for key in (rest if isinstance(rest, list) else ()) if isinstance(key, str))]
    death: dict[str, Any] = {
        "count": 1,
        "reason": reason.value,
        "queue": queue,
        "time": now_ms // 1000,
        "exchange": message.exchange,
        "routing-keys": keys,
    }
    if properties.expiration_ms is not None:
        death["original-expiration"] = str(properties.expiration_ms)
    return death


def _record(headers: dict[str, Any], death: dict[str, Any]) -> None:
    """Put a death in front of the history: one of the same queue and reason counts on and comes to the front."""
    deaths = _deaths(headers)
    if not deaths:
        headers.update({FIRST + name: death[name] for name in ("reason", "queue", "exchange")})
    headers.update({LAST + name: death[name] for name in ("reason", "queue", "exchange")})
    same = [former for former in deaths if _is_same(former, death)]
    others = [former for former in deaths if not _is_same(former, death)]
    headers[DEATHS] = [_counted_on(same, death) if same else death, *others]


def _is_same(former: object, death: Mapping[str, Any]) -> bool:
    return isinstance(former, Mapping) and all(former.get(name) == death[name] for name in ("queue", "reason"))


def _counted_on(same: list[dict[str, Any]], death: dict[str, Any]) -> dict[str, Any]:
    """Return the entry that was there first, with the sum of the counts; how often it was delivered is told anew."""
    merged = {"count": 1, **same[0]}
    merged["count"] = min(sum(_count(former) for former in same) + 1, _MOST)
    merged.pop("delivery-count", None)
    if "delivery-count" in death:
        merged["delivery-count"] = death["delivery-count"]
    return merged


def _count(death: Mapping[str, Any]) -> int:
    count = death.get("count", 1)
    return count if isinstance(count, int) and not isinstance(count, bool) and count > 0 else 1


def encoded(properties: Properties) -> bytes:
    """Return the common form; what it can't hold (a front-end's decoder gave it) is told as text, or else left out."""
    if _can_be_said(properties):
        return encode_properties(properties)
    headers = dict(_sayable(key, value) for key, value in (properties.headers or {}).items())
    told = msgspec.structs.replace(properties, headers=headers)
    return encode_properties(told if _can_be_said(told) else Properties(headers=headers))


def _sayable(key: str, value: object) -> tuple[str, Any]:
    return key if _can_be_said(key) else ascii(key), value if _can_be_said(value) else ascii(value)


def _can_be_said(value: object) -> bool:
    try:
        msgspec.msgpack.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return False
    return True
