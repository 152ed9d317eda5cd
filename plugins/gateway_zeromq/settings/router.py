"""Which settings has a ROUTER endpoint?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, model_validator

from gateway_zeromq.settings.majordomo import MajordomoEndpoint


class RouterEndpoint(MajordomoEndpoint):
    """A ROUTER socket: clients that speak TGP/1, with confirms, acknowledgements and credit; Majordomo's clients and workers."""

    socket: Literal["ROUTER"] = Field(default="ROUTER", description="The kind of socket.")
    protocols: list[Literal["tgp/1", "mdp/0.1", "mdp/0.2"]] = Field(
        default=["tgp/1"], min_length=1, description="What clients may speak: TGP/1, Majordomo 0.1 (RFC 7) and 0.2 (RFC 18)."
    )
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
    max_peers: int | None = Field(default=10_000, ge=1, le=1_000_000, description="Clients at a time; more are refused.")
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

    @property
    def counts_connections(self) -> bool:
        """See `Endpoint`: clients are counted, and who is one too many is told so in words."""
        return False

    def _complaints_of_peers(self) -> Iterator[str]:
        return iter(())

    @model_validator(mode="after")
    def _check_syntax(self) -> RouterEndpoint:
        if self.key_syntax != "amqp":
            raise ValueError('has key_syntax = "mqtt": keys in TGP/1 are always written as in AMQP')
        return self
