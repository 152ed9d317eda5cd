"""Which settings has Majordomo on a ROUTER endpoint?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NotRequired, TypeAlias

from pydantic import ConfigDict, Field, field_validator, with_config
from typing_extensions import TypedDict

from gateway.api import GatewayError, queue_spec
from gateway_zeromq.settings.common import Endpoint, ExchangeName, QueueName

_MOST_SERVICE_BYTES = 251


@with_config(ConfigDict(extra="forbid", strict=True))
class ServiceTable(TypedDict):
    """Where a service is, if not in the queue ``mdp.SERVICE``."""

    queue: NotRequired[Annotated[QueueName, Field(min_length=1)]]
    exchange: NotRequired[ExchangeName]
    routing_key: NotRequired[Annotated[str, Field(max_length=65_535)]]


ServiceTables: TypeAlias = dict[Annotated[str, Field(min_length=1, max_length=_MOST_SERVICE_BYTES)], ServiceTable]


class MajordomoEndpoint(Endpoint):
    """What is to be said of clients and workers that speak Majordomo."""

    mdp_heartbeat_ms: int = Field(
        default=2_500,
        ge=10,
        le=600_000,
        description="How often Majordomo's workers are told that the gateway is alive; they should say so as often themselves.",
    )
    mdp_liveness: int = Field(default=3, ge=3, le=5, description="After so many of these intervals of silence a worker is dead.")
    mdp_busy_s: int = Field(
        default=60,
        ge=0,
        le=86_400,
        description="A worker that has a request may be silent for so long: many do one thing at a time. 0: no longer than others.",
    )
    mdp_durable: bool = Field(
        default=False, description="Requests to Majordomo's services are on disk, and survive the broker; so are their queues."
    )
    mdp_request_ttl_s: int = Field(
        default=300, ge=0, le=86_400 * 365, description="How long a request may wait for a worker; 0: for ever."
    )
    mdp_max_requests: int = Field(
        default=100_000, ge=1, description="Requests in the queue of one service; more are refused, and counted."
    )
    mdp_max_services: int = Field(
        default=1_000, ge=1, le=100_000, description="Services that the clients and workers of one user may have named."
    )
    mdp_service_ttl_s: int = Field(
        default=3_600,
        ge=1,
        le=86_400 * 365,
        description="A service that nobody named for so long is forgotten; its queue goes if it was made on demand and is empty.",
    )
    mdp_max_frames: int = Field(default=64, ge=6, le=1_024, description="Frames of one Majordomo message, with its header.")
    mdp_queue_arguments: dict[str, Any] = Field(
        default={},
        description="With which arguments the queues of services are declared: x-delivery-limit, x-dead-letter-exchange.",
    )
    mdp_services: ServiceTables = Field(
        default={},
        description="Services that are elsewhere: NAME = { queue = ... } or NAME = { exchange = ..., routing_key = ... }.",
    )

    @field_validator("mdp_queue_arguments")
    @classmethod
    def _check_queue_arguments(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            queue_spec("", arguments=arguments)
        except GatewayError as error:
            raise ValueError(error.text) from error
        return arguments

    @field_validator("mdp_services")
    @classmethod
    def _check_services(cls, services: Mapping[str, ServiceTable]) -> Mapping[str, ServiceTable]:
        for name, place in services.items():
            if name.startswith("mmi.") or not name.isprintable() or len(name.encode()) > _MOST_SERVICE_BYTES:
                raise ValueError(
                    f"{name!r:.60} can't be a service: printable text of at most {_MOST_SERVICE_BYTES} bytes, not mmi.*"
                )
            if bool(place.get("exchange")) != ("routing_key" in place):
                raise ValueError(f"service {name!r}: exchange and routing_key belong together")
        return services
