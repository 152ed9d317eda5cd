"""Which settings does the ZeroMQ front-end have?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NotRequired, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
    with_config,
)
from typing_extensions import TypedDict

from gateway.api import DEFAULT_EXCHANGE, GatewayError, queue_spec

SETTING = "frontend.zeromq.endpoint"
OFF = "frontend.zeromq.enabled = false"

Frames: TypeAlias = Literal["body", "key,body", "key,headers,body", "raw"]

SCHEMES = ("tcp", "ipc")
_ADDRESS = re.compile(r"(tcp)://(.+):(\d{1,5}|\*)|(ipc)://(.+)")
_LAST_PORT = 65_535
_RESERVED = "amq."
_EXCHANGES = ("amq.direct", "amq.fanout", "amq.topic", "amq.headers")
_MOST_NAME_BYTES = 255


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _check_address(address: str) -> str:
    match = _ADDRESS.fullmatch(address)
    port = match[3] if match is not None else None
    if match is None or (port is not None and port.isdigit() and int(port) > _LAST_PORT):
        raise ValueError("must be an address: tcp://HOST:PORT (port 0 is any free one), or ipc://PATH")
    return address


_Address: TypeAlias = Annotated[str, BeforeValidator(lambda value: _check_address(value) if isinstance(value, str) else value)]
Addresses: TypeAlias = Annotated[list[_Address], BeforeValidator(_as_list)]


def _check_queue(name: str) -> str:
    if name.startswith(_RESERVED):
        raise ValueError(f"must not begin with {_RESERVED!r}: such names are reserved")
    return _check_length(name)


def _check_exchange(name: str) -> str:
    if name.startswith(_RESERVED) and name not in _EXCHANGES:
        raise ValueError(f"must not begin with {_RESERVED!r}: such names are reserved; there are {_words(_EXCHANGES)}")
    return _check_length(name)


def _check_length(name: str) -> str:
    if len(name.encode()) > _MOST_NAME_BYTES:
        raise ValueError(f"must have at most {_MOST_NAME_BYTES} bytes")
    return name


_Queue: TypeAlias = Annotated[str, AfterValidator(_check_queue)]
_Exchange: TypeAlias = Annotated[str, AfterValidator(_check_exchange)]


@with_config(ConfigDict(extra="forbid", strict=True))
class BindingTable(TypedDict):
    """A binding that an endpoint makes for its queue."""

    exchange: Annotated[_Exchange, Field(min_length=1)]
    key: NotRequired[str]
    arguments: NotRequired[dict[str, Any]]


class Endpoint(BaseModel):
    """What every endpoint has."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str | None = Field(
        default=None, min_length=1, max_length=100, description="For logs and errors; without one its kind and number."
    )
    bind: Addresses = Field(
        default=[], description="Addresses to listen on: tcp://HOST:PORT (port 0 is any free one), ipc://PATH; one or a list."
    )
    connect: Addresses = Field(default=[], description="Addresses to connect to; one or a list.")
    ipv6: bool = Field(default=False, description="Listen on and connect to IPv6 as well; an address in [] switches it on, too.")
    key_syntax: Literal["amqp", "mqtt"] = Field(
        default="amqp", description="How keys are written in frames and in these settings: plant.*.temp, or plant/+/temp."
    )
    max_message_bytes: int = Field(
        default=16 * 1024 * 1024, ge=1, le=268_435_455, description="All frames of one message; a larger one is refused or dropped."
    )

    @model_validator(mode="after")
    def _check_addresses(self) -> Endpoint:
        if not self.bind and not self.connect:
            raise ValueError("has no address: give bind or connect")
        return self


class PullEndpoint(Endpoint):
    """A PULL socket: what plain PUSH peers send is published."""

    socket: Literal["PULL"] = Field(default="PULL", description="The kind of socket.")
    exchange: _Exchange = Field(
        default="amq.topic", description="Where messages are published; a durable topic exchange is made if it is missing."
    )
    exchange_type: Literal["direct", "fanout", "topic", "headers"] | None = Field(
        default=None, description="Type of that exchange. Without one: what it is, or topic if it is made."
    )
    routing_key: str | None = Field(
        default=None, max_length=65_535, description="A fixed key, for frames body and raw; without one the empty key."
    )
    frames: Frames = Field(
        default="body",
        description="Frames of a message. headers: a msgpack map, or a JSON object. raw: any number, kept as they are.",
    )
    max_frames: int = Field(default=16, ge=1, le=1_024, description="Frames of one message, for frames raw.")
    persistent: bool = Field(default=True, description="Messages are stored on disk by durable queues.")
    rcvhwm: int = Field(
        default=1_000,
        ge=1,
        le=1_000_000,
        description="Messages per peer that libzmq takes ahead of the gateway; then it holds back.",
    )

    @model_validator(mode="after")
    def _check_type(self) -> PullEndpoint:
        if self.exchange == DEFAULT_EXCHANGE and self.exchange_type is not None:
            raise ValueError("has exchange_type, but the exchange without a name is what it is: leave it out")
        return self

    @model_validator(mode="after")
    def _check_key(self) -> PullEndpoint:
        if self.routing_key is not None and self.frames.startswith("key"):
            raise ValueError(f"has both routing_key and frames = {self.frames!r}: with a fixed key frames is body or raw")
        return self


class PushEndpoint(Endpoint):
    """A PUSH socket: a queue's messages go to plain PULL peers, in turns."""

    socket: Literal["PUSH"] = Field(default="PUSH", description="The kind of socket.")
    queue: _Queue = Field(
        default="zeromq.push", min_length=1, description="Whose messages are sent; made, durable, if it is missing."
    )
    queue_arguments: dict[str, Any] = Field(
        default={}, description="With which arguments the queue is declared: x-max-length, x-max-length-bytes, x-overflow."
    )
    bindings: list[BindingTable] = Field(
        default=[], description="Bindings of the queue, made if missing: { exchange, key, arguments }."
    )
    frames: Frames = Field(default="body", description="Frames of a message; headers: a msgpack map.")
    ack: Literal["handover"] = Field(
        default="handover", description="A message is settled when libzmq takes it: at most once from there on."
    )
    prefetch: int = Field(default=256, ge=1, le=65_536, description="Messages that are taken from the queue ahead of the socket.")
    sndhwm: int = Field(
        default=1_000, ge=1, le=1_000_000, description="Messages per peer that libzmq takes before the next peer's turn."
    )

    @field_validator("queue_arguments")
    @classmethod
    def _check_arguments(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            queue_spec("", arguments=arguments)
        except GatewayError as error:
            raise ValueError(error.text) from error
        return arguments


class RouterEndpoint(Endpoint):
    """A ROUTER socket: clients that speak TGP/1, with confirms, acknowledgements and credit."""

    socket: Literal["ROUTER"] = Field(default="ROUTER", description="The kind of socket.")
    protocols: list[Literal["tgp/1"]] = Field(default=["tgp/1"], min_length=1, description="What clients may speak.")
    heartbeat_ms: int = Field(
        default=5_000,
        ge=100,
        le=600_000,
        description="After so long a silence a client is asked, after three times as long it is dead.",
    )
    session_ttl_s: int = Field(
        default=300,
        ge=0,
        le=86_400 * 30,
        description="How long the mark of a client that has no name of its own is kept without it.",
    )
    max_credit: int = Field(
        default=1_000, ge=1, le=1_000_000, description="Deliveries that one consumer may hold unsettled; and what GET brought."
    )
    max_credit_bytes: int = Field(
        default=64 * 1024 * 1024,
        ge=65_536,
        description="Bodies of the deliveries that one client may hold unsettled. One delivery is always allowed.",
    )
    max_consumers: int = Field(default=1_000, ge=1, le=100_000, description="Consumers of one client.")
    max_peers: int = Field(default=10_000, ge=1, le=1_000_000, description="Clients at a time; more are refused.")
    max_unconfirmed: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="Messages of one session that are not confirmed yet; with more it is closed.",
    )
    max_unconfirmed_bytes: int = Field(
        default=64 * 1024 * 1024, ge=65_536, description="Their bodies. One message is always allowed."
    )
    max_waiting_bytes: int = Field(
        default=16 * 1024 * 1024, ge=65_536, description="What may wait for a client that does not read; with more it is closed."
    )
    sndhwm: int = Field(default=1_000, ge=1, le=1_000_000, description="Messages per client that libzmq takes to be sent.")
    rcvhwm: int = Field(
        default=1_000, ge=1, le=1_000_000, description="Messages per client that libzmq takes ahead of the gateway."
    )

    @model_validator(mode="after")
    def _check_syntax(self) -> RouterEndpoint:
        if self.key_syntax != "amqp":
            raise ValueError('has key_syntax = "mqtt": keys in TGP/1 are always written as in AMQP')
        return self


AnyEndpoint: TypeAlias = PullEndpoint | PushEndpoint | RouterEndpoint

_KINDS = ("PULL", "PUSH", "ROUTER")
_LATER_KINDS = ("XPUB", "XSUB", "PUB", "SUB", "DEALER", "REP", "REQ", "PAIR", "STREAM")
_LATER_PROTOCOLS = ("mdp/0.1", "mdp/0.2")


def _complaints(table: dict[str, Any]) -> Iterator[str]:
    """Yield what an endpoint asks for that has its place, but is not built yet."""
    kind = table.get("socket")
    if kind is None:
        yield f"socket is missing: {_words(_KINDS)}"
    elif kind in _LATER_KINDS:
        yield f'socket = "{kind}" is not built yet: {_words(_KINDS)} can be used now'
    elif kind not in _KINDS:
        yield f"socket = {kind!r} is no kind of socket: {_words(_KINDS)} can be used"
    if table.get("ack") == "pong":
        yield 'ack = "pong" is not built yet: "handover" can be used now'
    protocols = table.get("protocols")
    for protocol in protocols if isinstance(protocols, list) else ():
        if protocol in _LATER_PROTOCOLS:
            yield f'protocols: "{protocol}" is not built yet: "tgp/1" can be used now'
    if table.get("security") not in (None, "null"):
        yield f'security = {table["security"]!r} is not built yet: leave it out, or say "null"'
    for key in ("domain", "secret_key_file", "users"):
        if key in table:
            yield f"{key} belongs to security, which is not built yet: leave it out"


def _words(choices: tuple[str, ...]) -> str:
    return ", ".join(choices)


def _check_table(table: object) -> object:
    """Refuse what is not built yet, in words; leave the rest to the models."""
    if isinstance(table, Endpoint):
        return table
    if not isinstance(table, dict):
        raise ValueError("must be a table")  # noqa: TRY004 - pydantic takes ValueErrors
    complaints = list(_complaints(table))
    if complaints:
        name = table.get("name")
        who = f"endpoint {name!r}: " if isinstance(name, str) else ""
        raise ValueError(who + "; ".join(complaints))
    return {key: value for key, value in table.items() if key != "security"}


def _kind(value: object) -> str:
    return str(value.get("socket")) if isinstance(value, dict) else str(getattr(value, "socket", None))


_ENDPOINT: TypeAlias = Annotated[
    Annotated[PullEndpoint, Tag("PULL")] | Annotated[PushEndpoint, Tag("PUSH")] | Annotated[RouterEndpoint, Tag("ROUTER")],
    Discriminator(_kind),
    BeforeValidator(_check_table),
]

DEFAULT_ENDPOINTS: list[AnyEndpoint] = [
    PullEndpoint(name="pull", socket="PULL", bind=["tcp://127.0.0.1:5557"], exchange="amq.topic", frames="key,body"),
    PushEndpoint(
        name="push",
        socket="PUSH",
        bind=["tcp://127.0.0.1:5558"],
        queue="zeromq.push",
        frames="body",
        ack="handover",
        bindings=[{"exchange": "amq.topic", "key": "zeromq.push.#"}],
    ),
    RouterEndpoint(name="router", socket="ROUTER", bind=["tcp://127.0.0.1:5570"], protocols=["tgp/1"]),
]


class ZeroMqSettings(BaseModel):
    """Section ``frontend.zeromq``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    endpoint: list[_ENDPOINT] = Field(default=DEFAULT_ENDPOINTS)

    @model_validator(mode="after")
    def _check_names(self) -> ZeroMqSettings:
        names = [endpoint.name for endpoint in self.endpoint if endpoint.name is not None]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two endpoints have the name {twice[0]!r}")
        return self

    def named(self) -> Iterator[tuple[str, AnyEndpoint]]:
        """Yield every endpoint with its name; those without one are called by kind and number: ``pull-1``."""
        for number, endpoint in enumerate(self.endpoint, 1):
            yield endpoint.name or f"{endpoint.socket.lower()}-{number}", endpoint
