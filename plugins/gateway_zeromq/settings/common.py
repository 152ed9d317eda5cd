"""What has every endpoint, and what are names and addresses?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypeAlias

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, model_validator, with_config
from typing_extensions import TypedDict

from gateway.api import BUILT_IN, swap_key
from gateway_zeromq.settings.security import Secured, complaints

SETTING = "frontend.zeromq.endpoint"
OFF = "frontend.zeromq.enabled = false"

Frames: TypeAlias = Literal["body", "key,body", "key,headers,body", "raw"]

INPROC = "inproc://"
_ADDRESS = re.compile(r"(tcp)://(.+):(\d{1,5}|\*)|(ipc|inproc)://(.+)")
_LAST_PORT = 65_535
_RESERVED = "amq."
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


def _check_name(name: str) -> str:
    if not name.isprintable():
        raise ValueError("must be printable text")
    return name


def _check_queue(name: str) -> str:
    if name.startswith(_RESERVED):
        raise ValueError(f"must not begin with {_RESERVED!r}: such names are reserved")
    return _check_length(name)


def _check_exchange(name: str) -> str:
    if name.startswith(_RESERVED) and name not in BUILT_IN:
        there = ", ".join(filter(None, BUILT_IN))
        raise ValueError(f"must not begin with {_RESERVED!r}: such names are reserved; there are {there}")
    return _check_length(name)


def _check_length(name: str) -> str:
    if len(name.encode()) > _MOST_NAME_BYTES:
        raise ValueError(f"must have at most {_MOST_NAME_BYTES} bytes")
    return name


QueueName: TypeAlias = Annotated[str, AfterValidator(_check_queue)]
ExchangeName: TypeAlias = Annotated[str, AfterValidator(_check_exchange)]


@with_config(ConfigDict(extra="forbid", strict=True))
class BindingTable(TypedDict):
    """A binding that an endpoint makes for its queue."""

    exchange: Annotated[ExchangeName, Field(min_length=1)]
    key: NotRequired[str]
    arguments: NotRequired[dict[str, Any]]


class WantedQueue(NamedTuple):
    """A queue that is to exist."""

    name: str
    arguments: Mapping[str, Any] = {}
    bindings: Sequence[BindingTable] = ()


class Endpoint(Secured):
    """What every endpoint has."""

    name: Annotated[str, AfterValidator(_check_name)] | None = Field(
        default=None, min_length=1, max_length=100, description="For logs and errors; without one its kind and number."
    )
    bind: Addresses = Field(
        default=[], description="Addresses to listen on: tcp://HOST:PORT (port 0 is any free one), ipc://PATH; one or a list."
    )
    connect: Addresses = Field(default=[], description="Addresses to connect to; one or a list.")
    ipv6: bool = Field(default=False, description="Listen on and connect to IPv6 as well; an address in [] switches it on, too.")
    ipc_mode: str = Field(
        default="0600",
        pattern=r"^0?[0-7]{3}$",
        description="Permissions of the files of ipc:// addresses: who may write there may connect.",
    )
    key_syntax: Literal["amqp", "mqtt"] = Field(
        default="amqp", description="How keys are written in frames and in these settings: plant.*.temp, or plant/+/temp."
    )
    max_message_bytes: int = Field(
        default=16 * 1024 * 1024, ge=1, le=268_435_455, description="All frames of one message; a larger one is refused or dropped."
    )

    max_peers: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="For bind: connections at a time; those that still shake hands count as well. More are not let in, and come "
        "again by themselves until there is room. Without a value: as many as the system allows.",
    )

    @model_validator(mode="after")
    def _check_addresses(self) -> Endpoint:
        if not self.bind and not self.connect:
            raise ValueError("has no address: give bind or connect")
        wrong = [*complaints(self, self.bind, self.connect), *self._complaints_of_peers()]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @property
    def counts_connections(self) -> bool:
        """That many peers are let in by libzmq, and no more."""
        return self.max_peers is not None

    def _complaints_of_peers(self) -> Iterator[str]:
        if self.max_peers is None:
            return
        if self.connect:
            yield "has max_peers, and connects: whom it connects to is its own choice; leave it out, or make two endpoints"
        if any(address.startswith(INPROC) for address in self.bind):
            yield "has max_peers at an inproc address: ZeroMQ asks for nothing there"

    def spelled(self, key: str) -> str:
        """Return a key as the other side writes it: from `key_syntax` to AMQP's spelling, and back."""
        return swap_key(key) if self.key_syntax == "mqtt" else key

    def exchanges(self) -> Sequence[tuple[str, str | None]]:
        """Return names and types of exchanges that are to exist; None: what it is, or topic if it is made."""
        return ()

    def queues(self) -> Sequence[WantedQueue]:
        """Return the queues that are to exist."""
        return ()
