"""What is a TGP command in the common model, and what is the model's answer in TGP?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from gateway.api import (
    COMMON,
    NO_PROPERTIES,
    AccessRefused,
    Address,
    Binding,
    CommandInvalid,
    ConfigError,
    ExchangeSpec,
    GatewayError,
    ListenError,
    Message,
    MessageRefused,
    NotFound,
    NotSupported,
    Outcome,
    Overloaded,
    PreconditionFailed,
    Properties,
    QueueInfo,
    QueueSpec,
    ResourceLocked,
    encode_properties,
    exchange_spec,
    queue_spec,
)
from gateway_zeromq.tgp.commands import Bind, Declare, Definition, Delete, Props, Publish, Unbind
from gateway_zeromq.tgp.correlation import in_json

CODES: dict[type[GatewayError], int] = {
    AccessRefused: 403,
    NotFound: 404,
    ResourceLocked: 405,
    PreconditionFailed: 406,
    CommandInvalid: 406,  # TGP's 503 is of what comes at the wrong time
    MessageRefused: 506,
    Overloaded: 506,
    ConfigError: 530,
    NotSupported: 540,
    ListenError: 541,
    GatewayError: 541,
}
"""Every error of the gateway, and what a TGP peer is told."""


def code_of(error: GatewayError) -> int:
    """Return the code for an error, or for the nearest kind of it that has one."""
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


# -- messages

PERSISTENT = 2
"""AMQP 0-9-1 §1.8, basic.delivery-mode."""
_NOTHING = encode_properties(NO_PROPERTIES)
_TRANSIENT = Props(delivery_mode=1)
"""All that most publishers of what need not last say."""
_EXPIRATION = b"expiration_ms"
_json = msgspec.json.Encoder(enc_hook=str).encode


def message_of(address: Address, command: Publish, body: bytes, now_ms: Callable[[], int]) -> Message:
    """Return the message that a PUBLISH carries."""
    props = command.props
    if props is None:
        return Message(address, body, True)
    if props == _TRANSIENT:
        return Message(address, body)
    persistent = props.delivery_mode == PERSISTENT
    # What differs from the default is encoded, so the delivery mode is left out: it is the message's own.
    wire = encode_properties(props if persistent else msgspec.structs.replace(props, delivery_mode=PERSISTENT))
    expires_at_ms = now_ms() + props.expiration_ms if props.expiration_ms is not None else 0
    tag = COMMON if wire != _NOTHING else ""
    return Message(address, body, persistent, tag, wire if tag else b"", props.priority or 0, expires_at_ms)


def properties_of(
    message: Message, decode: Callable[[Message], Properties], now_ms: Callable[[], int], *, as_json: bool
) -> msgspec.Raw | Properties | None:
    """Return a message's properties as they go into a header.

    Args:
        decode: reads those that came by another protocol.
        now_ms: what expires and does not say after how long, as its publisher spoke another protocol, says how long is left.
        as_json: as plain values; else as msgpack, which they mostly are already.
    """
    expires = message.expires_at_ms and not (message.wire_tag == COMMON and _EXPIRATION in message.wire)
    if not message.wire_tag and not expires:
        return None
    if message.wire_tag == COMMON and not as_json and not expires:
        return msgspec.Raw(message.wire)
    properties = decode(message)
    if expires:
        left_ms = max(message.expires_at_ms - now_ms(), 0)
        properties = msgspec.structs.replace(properties, expiration_ms=left_ms)
    if properties == NO_PROPERTIES:
        return None
    return msgspec.Raw(_as_json(properties)) if as_json else properties


def _as_json(properties: Properties) -> bytes:
    correlation = in_json(properties.correlation_id)
    if correlation is not properties.correlation_id:
        properties = msgspec.structs.replace(properties, correlation_id=correlation)
    return _plain_json(properties)


def _plain_json(properties: Properties) -> bytes:
    """Return properties as JSON; what it can't say (msgpack's extensions, keys that are no text) is said as text."""
    try:
        return _json(properties)
    except TypeError:
        plain = msgspec.structs.replace(properties, headers={key: str(value) for key, value in (properties.headers or {}).items()})
        return _json(plain)


# -- what exists


def _split(args: Mapping[str, Any], known: Mapping[str, type], what: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the known arguments, and those for the exchange or queue itself.

    Raises:
        PreconditionFailed: an argument that is not known, or of a type that it can't have.
    """
    arguments = dict(_typed("arguments", args.get("arguments") or {}, dict))
    given: dict[str, Any] = {}
    for key, value in args.items():
        if key in known:
            given[key] = _typed(key, value, known[key])
        elif key.startswith("x-"):
            arguments[key] = value
        elif key != "arguments":
            raise PreconditionFailed(f"{what} has no argument {key!r}; known are: {', '.join(known)}, arguments, x-...")
    return given, arguments


def _typed(key: str, value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise PreconditionFailed(f"argument {key!r} must be {_KINDS[kind]}, not {value!r:.40}")
    return value


_KINDS = {bool: "true or false", str: "text", dict: "a map"}
_EXCHANGE = {"type": str, "durable": bool, "auto_delete": bool, "internal": bool, "alternate": str, "passive": bool}
_QUEUE = {"durable": bool, "exclusive": bool, "auto_delete": bool, "passive": bool}
_DELETE = {"queue": {"if_unused": bool, "if_empty": bool}, "exchange": {"if_unused": bool}}


def exchange_of(command: Declare) -> tuple[ExchangeSpec, bool]:
    """Return the exchange that is declared, and whether only its existence is asked for. Raises as `_split`."""
    given, arguments = _split(command.args or {}, _EXCHANGE, "an exchange")
    passive = given.pop("passive", False)
    if "alternate" in given:
        arguments["alternate-exchange"] = given.pop("alternate")
    return exchange_spec(command.name, arguments=arguments, **given), passive


def queue_of(command: Declare) -> tuple[QueueSpec, bool]:
    """Return the queue that is declared, and whether only its existence is asked for.

    Raises:
        PreconditionFailed, NotSupported: an argument that can't be.
    """
    given, arguments = _split(command.args or {}, _QUEUE, "a queue")
    passive = given.pop("passive", False)
    return queue_spec(command.name, arguments=arguments, **given), passive


def deletion_of(command: Delete) -> dict[str, bool]:
    """Return under which conditions something is deleted. Raises as `_split`."""
    given, arguments = _split(command.args or {}, _DELETE[command.kind], f"the deletion of {command.kind}s")
    if arguments:
        raise PreconditionFailed(f"a deletion has no argument {next(iter(arguments))!r}")
    return given


def binding_of(command: Bind | Unbind) -> Binding:
    """Return the binding that is made or undone."""
    return Binding(command.exchange, command.queue, command.key, arguments=command.args or {})


def result_of(command: Definition, outcome: Outcome) -> dict[str, Any] | None:
    """Return what an OK says besides that it is one."""
    result = outcome.result
    if isinstance(result, QueueInfo):
        return {"name": result.name, "messages": result.messages, "consumers": result.consumers}
    if isinstance(command, Declare):
        return {"name": command.name}
    return {"messages": result} if isinstance(result, int) else None
